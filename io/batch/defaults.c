#include "io/batch/defaults.h"

#include <stdlib.h>
#include <string.h>

#include "io/file/atomic_file.h"
#include "io/file/files.h"

enum { FILE_MOST = 1 << 20 };

/* DIRECTORY/defaults-crc32-HEX-BYTES.json, heap. */
static char *path_of(const char *directory, const char *fingerprint)
{
    char *path = p4_format("%s/defaults-%s.json", directory, fingerprint);
    char *at = path != NULL ? path + strlen(directory) : NULL;
    while (at != NULL && (at = strchr(at, ':')) != NULL) {
        *at = '-';
    }
    return path;
}

p4_rc p4_batch_defaults_keep(char fingerprint[P4_FINGERPRINT_BYTES], const char *opt_directory)
{
    p4_rc rc = P4_OK;
    char *json = NULL, *path = NULL;
    TRY(p4_config_print_defaults(&json));
    p4_fingerprint_text(fingerprint, json);
    if (opt_directory != NULL) {
        path = path_of(opt_directory, fingerprint);
        TRY(path != NULL ? P4_OK : P4_E_SYSTEM);
        TRY(p4_file_exists(path) ? P4_OK : p4_atomic_write_all(path, json, strlen(json)));
    }
done:
    free(json);
    free(path);
    return rc;
}

p4_rc p4_batch_defaults_read(p4_config_defaults **defaults, const char *directory, const char *fingerprint)
{
    p4_rc rc = P4_OK;
    char *text = NULL, *path = path_of(directory, fingerprint);
    size_t bytes;
    *defaults = NULL;
    TRY(path != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(p4_file_read(&text, &bytes, path, FILE_MOST));
    TRY(p4_config_read_defaults(defaults, text, bytes, path));
done:
    free(text);
    free(path);
    return rc;
}
