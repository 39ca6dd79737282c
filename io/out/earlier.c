#include "io/out/earlier.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

#include "io/file/files.h"
#include "io/json/config.h"
#include "io/out/outputs.h"
#include "src/config.h"
#include "src/leaf/names.h"

enum { CONFIG_BYTES = 4 << 20, RESULTS_BYTES = 64 << 20 };

/* Of a file of the directory, heap; NULL: it cannot be read, which is no error here. */
static char *read_text(const char *output_path, const char *name, size_t bytes_max)
{
    char *text = NULL, *path = p4_format("%s/%s", output_path, name);
    size_t bytes = 0;
    if (path == NULL || !p4_file_exists(path) || p4_file_read(&text, &bytes, path, bytes_max) != P4_OK) {
        p4_error_clear();
        text = NULL;
    }
    free(path);
    return text;
}

static bool has_succeeded(const char *output_path)
{
    char *text = read_text(output_path, P4_RESULTS_FILE, RESULTS_BYTES);
    cJSON *root = text != NULL ? cJSON_Parse(text) : NULL;
    const bool succeeded = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(root, "success"));
    cJSON_Delete(root);
    free(text);
    return succeeded;
}

/* The configuration of the results, heap; NULL: it is not known. */
static p4_config *read_config(const char *output_path)
{
    char *json = read_text(output_path, P4_CONFIG_FILE, CONFIG_BYTES);
    p4_config *config = json != NULL ? p4_alloc(1, sizeof *config) : NULL;
    if (config != NULL &&
        p4_config_parse(config, json, strlen(json), P4_CONFIG_FILE, P4_RECIPE_QUALITY) != P4_OK) {
        free(config);
        config = NULL;
    }
    p4_error_clear();
    free(json);
    return config;
}

p4_rc p4_earlier_refuse(const char *output_path, const p4_config *opt_config, const char *files)
{
    p4_rc rc = P4_OK;
    p4_name_sample keys = {.count = 0};
    p4_config *earlier = opt_config != NULL ? read_config(output_path) : NULL;
    for (int i = 0; earlier != NULL && i < p4_config_rows; i++) {
        const p4_config_row *row = &p4_config_table[i];
        const char *here = (const char *)opt_config + row->offset,
                   *there = (const char *)earlier + row->offset;
        if (!row->no_result && memcmp(here, there, row->bytes) != 0) {
            p4_name_sample_add(&keys, row->name);
        }
    }
    const bool known = earlier != NULL;
    free(earlier);
    if (known && keys.count == 0 && has_succeeded(output_path)) {
        rc =
            FAIL("%s: is complete already with this configuration; set overwrite to true to compute it again",
                 output_path);
    } else {
        const bool differs = keys.count > 0;
        rc = FAIL("%s: holds the results of another run (%s%s); set overwrite to true or choose another "
                  "output_path",
                  output_path, differs ? "it differs in " : "", differs ? p4_name_sample_text(&keys) : files);
    }
    return rc;
}
