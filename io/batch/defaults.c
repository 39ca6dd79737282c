#include "io/batch/defaults.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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

/* Tasks of an array write the same file at the same time, so each has a temporary one of its own. All have
 * the same bytes: the last to rename it wins. */
static p4_rc put(const char *path, const char *json)
{
    p4_rc rc = P4_OK;
    char host[128] = "";
    (void)gethostname(host, sizeof host - 1);
    char *own = p4_format("%s.%s.%ld", path, host, (long)getpid());
    TRY(own != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(p4_atomic_write_all(own, json, strlen(json)));
    if (rename(own, path) != 0) {
        rc = p4_fail_errno(path, "put the finished file in place");
        unlink(own);
    }
done:
    free(own);
    return rc;
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
        TRY(p4_file_exists(path) ? P4_OK : put(path, json));
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
