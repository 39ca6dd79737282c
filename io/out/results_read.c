#include "io/out/results_read.h"

#include <stdlib.h>

#include "io/file/files.h"
#include "io/out/outputs.h"

enum { RESULTS_BYTES = 64 << 20 };

cJSON *p4_results_read(const char *output_path)
{
    char *text = NULL, *path = p4_format("%s/" P4_RESULTS_FILE, output_path);
    size_t bytes = 0;
    cJSON *root = NULL;
    if (path != NULL && p4_file_exists(path) && p4_file_read(&text, &bytes, path, RESULTS_BYTES) == P4_OK) {
        root = cJSON_ParseWithLength(text, bytes);
    }
    p4_error_clear();
    free(text);
    free(path);
    return root;
}
