#include "io/out/outputs.h"

#include <stdio.h>
#include <string.h>

#include "src/config.h"
#include "src/exports.h"
#include "src/phase4/config.h"

#define ROW(id, name, key, needs, traits, what) \
    {#id, name, key, needs, traits, what, offsetof(p4_output_paths, id)},
const p4_output p4_outputs[P4_OUTPUTS] = {P4_OUTPUT_TABLE(ROW, ROW)};
#undef ROW

static bool is_on(const p4_output *output, const p4_config *config, unsigned has)
{
    bool on = true;
    if (output->key != NULL) {
        const p4_config_row *row = &p4_config_table[p4_config_find(output->key)];
        const char *value = (const char *)config + row->offset;
        on = row->type == P4_CONFIG_LIST
                 ? p4_exports_find((const p4_list *)(const void *)value, output->id) != NULL
             : row->type == P4_CONFIG_INT64 ? *(const int64_t *)(const void *)value > 0
                                            : *(const bool *)value;
    }
    return on && (output->needs & ~has) == 0;
}

/* The output marked PRIMARY where it is written, otherwise the first model written. */
static const char *primary_of(const p4_output_paths *paths)
{
    const char *first = "";
    for (int i = 0; i < P4_OUTPUTS; i++) {
        const char *path = p4_output_path(paths, &p4_outputs[i]);
        if (path[0] != '\0' && (p4_outputs[i].traits & P4_OUTPUT_PRIMARY) != 0) {
            return path;
        }
        if (first[0] == '\0' && (p4_outputs[i].traits & P4_OUTPUT_MODEL) != 0) {
            first = path;
        }
    }
    return first;
}

p4_rc p4_outputs_name(p4_output_paths *paths, const p4_config *config, unsigned has)
{
    *paths = (p4_output_paths){0};
    for (int i = 0; i < P4_OUTPUTS; i++) {
        const p4_output *output = &p4_outputs[i];
        char *path = (char *)paths + output->path;
        if (is_on(output, config, has) &&
            snprintf(path, P4_PATH_BYTES, "%s/%s", config->output_path, output->name) >= P4_PATH_BYTES) {
            return FAIL("output_path: %s/%s is longer than %d bytes", config->output_path, output->name,
                        P4_PATH_BYTES - 1);
        }
    }
    snprintf(paths->primary_output, P4_PATH_BYTES, "%s", primary_of(paths));
    return P4_OK;
}

void p4_outputs_leave_out(p4_output_paths *paths, const char *id)
{
    for (int i = 0; i < P4_OUTPUTS; i++) {
        if (strcmp(p4_outputs[i].id, id) == 0) {
            ((char *)paths + p4_outputs[i].path)[0] = '\0';
        }
    }
    snprintf(paths->primary_output, P4_PATH_BYTES, "%s", primary_of(paths));
}
