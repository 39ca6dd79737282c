#include "io/out/earlier.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

#include "io/file/files.h"
#include "io/json/config.h"
#include "io/out/outputs.h"
#include "io/out/results_read.h"
#include "src/config.h"
#include "src/leaf/names.h"

enum { CONFIG_BYTES = 4 << 20 };

static bool has_succeeded(const char *output_path)
{
    cJSON *root = p4_results_read(output_path);
    const bool succeeded = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(root, "success"));
    cJSON_Delete(root);
    return succeeded;
}

/* The configuration of the results, heap; NULL: it is not known. */
static p4_config *read_config(const char *output_path)
{
    char *json = NULL, *path = p4_format("%s/" P4_CONFIG_FILE, output_path);
    size_t bytes = 0;
    const bool is_read =
        path != NULL && p4_file_exists(path) && p4_file_read(&json, &bytes, path, CONFIG_BYTES) == P4_OK;
    p4_config *config = is_read ? p4_alloc(1, sizeof *config) : NULL;
    if (config != NULL &&
        p4_config_parse(config, json, strlen(json), P4_CONFIG_FILE, P4_RECIPE_QUALITY) != P4_OK) {
        free(config);
        config = NULL;
    }
    p4_error_clear();
    free(json);
    free(path);
    return config;
}

p4_rc p4_earlier_refuse(const char *output_path, const p4_config *opt_config, const char *files)
{
    p4_rc rc = P4_OK;
    p4_name_sample keys = {.count = 0};
    p4_config *earlier = opt_config != NULL ? read_config(output_path) : NULL,
              *mine = earlier != NULL ? p4_alloc(1, sizeof *mine) : NULL;
    TRY(earlier == NULL || mine != NULL ? P4_OK : P4_E_SYSTEM);
    if (mine != NULL) { /* what is recorded has absolute paths */
        *mine = *opt_config;
        (void)p4_config_anchor(mine);
        (void)p4_config_anchor(earlier); /* of earlier versions */
        p4_error_clear();
    }
    for (int i = 0; earlier != NULL && i < p4_config_rows; i++) {
        const p4_config_row *row = &p4_config_table[i];
        const char *here = (const char *)mine + row->offset, *there = (const char *)earlier + row->offset;
        if (!row->no_result && memcmp(here, there, row->bytes) != 0) {
            p4_name_sample_add(&keys, row->name);
        }
    }
    const bool known = earlier != NULL;
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
done:
    free(earlier);
    free(mine);
    return rc;
}
