/* The writer table (io/out/outputs.h) and what follows from its rows: names, the check of an older directory,
 * the removal of stale files, results.json and the final report. Each test walks the table, so that a new row
 * is covered. */
#include <cjson/cJSON.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "check.h"
#include "io/file/atomic_file.h"
#include "io/out/directory.h"
#include "io/out/outputs.h"
#include "src/config.h"
#include "src/exports.h"
#include "src/phase4/config.h"

enum { PATH_BYTES = 2 * P4_PATH_BYTES };
static const unsigned everything = P4_NEEDS_TOKENIZER | P4_NEEDS_METRICS | P4_NEEDS_RUN;
static char directory[P4_PATH_BYTES];
static p4_config config; /* everything on */

static bool has(const p4_output *output, unsigned trait)
{
    return (output->traits & trait) != 0;
}

/* Turns the output on or off: a key that is on or off, a number, or an entry of a list. */
static void set_key(p4_config *to, const p4_output *output, bool value)
{
    const p4_config_row *row = &p4_config_table[p4_config_find(output->key)];
    if (row->type == P4_CONFIG_BOOL) {
        memcpy((char *)to + row->offset, &value, sizeof value);
        return;
    }
    if (row->type == P4_CONFIG_INT64) {
        const int64_t number = value ? 3 : 0;
        memcpy((char *)to + row->offset, &number, sizeof number);
        return;
    }
    p4_list *list = (p4_list *)(void *)((char *)to + row->offset), old = *list;
    *list = (p4_list){0};
    for (const char *entry = p4_list_next(&old, NULL); entry != NULL; entry = p4_list_next(&old, entry)) {
        EXPECT(strcmp(entry, output->id) == 0 || p4_list_append(list, entry), "full");
    }
    EXPECT(!value || p4_list_append(list, output->id), "full");
}

/* The row that the INSIDE row's file belongs to. */
static const p4_output *outer_of(const p4_output *inner)
{
    size_t bytes = (size_t)(strchr(inner->name, '/') - inner->name);
    for (int i = 0; i < P4_OUTPUTS; i++) {
        if (strlen(p4_outputs[i].name) == bytes && strncmp(p4_outputs[i].name, inner->name, bytes) == 0) {
            return &p4_outputs[i];
        }
    }
    return NULL;
}

static void test_rows(void)
{
    int primaries = 0;
    for (int i = 0; i < P4_OUTPUTS; i++) {
        const p4_output *output = &p4_outputs[i];
        int row = output->key != NULL ? p4_config_find(output->key) : -1;
        EXPECT(output->key == NULL || (row >= 0 && (p4_config_table[row].type == P4_CONFIG_BOOL ||
                                                    p4_config_table[row].type == P4_CONFIG_INT64 ||
                                                    p4_exports_is_known(output->id))),
               "%s: %s is no key that is on or off, no number, nor a list of formats", output->id,
               output->key);
        EXPECT((strchr(output->name, '/') != NULL) == has(output, P4_OUTPUT_INSIDE), "%s: %s", output->id,
               output->name);
        EXPECT(!has(output, P4_OUTPUT_INSIDE) ||
                   (outer_of(output) != NULL && outer_of(output)->key == output->key),
               "%s: not turned on with the output that holds it", output->id);
        EXPECT(strcmp(output->name, P4_RESULTS_FILE) != 0, "%s: takes the name of the results", output->id);
        primaries += has(output, P4_OUTPUT_PRIMARY);
        for (int k = 0; k < i; k++) {
            EXPECT(strcmp(output->name, p4_outputs[k].name) != 0 && strcmp(output->id, p4_outputs[k].id) != 0,
                   "%s and %s are the same", output->id, p4_outputs[k].id);
        }
    }
    EXPECT(primaries == 1, "%d outputs are the primary one", primaries);
}

static void test_names(void)
{
    p4_output_paths paths;
    char want[PATH_BYTES];
    EXPECT_OK(p4_outputs_name(&paths, &config, everything));
    for (int i = 0; i < P4_OUTPUTS; i++) {
        const p4_output *output = &p4_outputs[i];
        snprintf(want, sizeof want, "%s/%s", config.output_path, output->name);
        EXPECT(strcmp(p4_output_path(&paths, output), want) == 0, "%s is %s", output->id,
               p4_output_path(&paths, output));
        EXPECT(!has(output, P4_OUTPUT_PRIMARY) || strcmp(paths.primary_output, want) == 0, "primary is %s",
               paths.primary_output);
        if (output->key != NULL) {
            p4_output_paths fewer;
            set_key(&config, output, false);
            EXPECT_OK(p4_outputs_name(&fewer, &config, everything));
            EXPECT(p4_output_path(&fewer, output)[0] == '\0', "%s: named although %s is off", output->id,
                   output->key);
            EXPECT(strcmp(fewer.primary_output, want) != 0, "primary is %s", fewer.primary_output);
            set_key(&config, output, true);
        }
        if (output->needs != 0) {
            p4_output_paths fewer;
            EXPECT_OK(p4_outputs_name(&fewer, &config, everything & ~output->needs));
            EXPECT(p4_output_path(&fewer, output)[0] == '\0', "%s: named without what it needs", output->id);
        }
    }
    /* Without the primary output the first model is it; without any model there is none. */
    config.save_dequantized_fp16 = false;
    EXPECT_OK(p4_outputs_name(&paths, &config, everything));
    EXPECT(strcmp(paths.primary_output, paths.quantized) == 0, "primary is %s", paths.primary_output);
    config.save_quantized = false;
    EXPECT_OK(p4_outputs_name(&paths, &config, everything));
    EXPECT(strcmp(paths.primary_output, paths.gguf) == 0, "primary is %s", paths.primary_output);
    const p4_list formats = config.exports;
    config.exports = (p4_list){0};
    EXPECT_OK(p4_outputs_name(&paths, &config, everything));
    EXPECT(paths.primary_output[0] == '\0', "primary is %s", paths.primary_output);
    config.exports = formats;
    config.save_quantized = config.save_dequantized_fp16 = true;

    static p4_config endless;
    endless = config;
    memset(endless.output_path, 'x', P4_PATH_BYTES - 1);
    EXPECT_REFUSED(p4_outputs_name(&paths, &endless, everything), "is longer than 4095 bytes");
}

static void put(const char *path)
{
    EXPECT_OK(p4_atomic_write_all(path, "x", 1));
}

static bool is_there(const char *path)
{
    struct stat status;
    return lstat(path, &status) == 0;
}

/* An older output refuses the directory; it is removed as stale unless it was written again. */
static void test_older_outputs(void)
{
    for (int i = 0; i < P4_OUTPUTS; i++) {
        const p4_output *output = &p4_outputs[i];
        p4_output_paths written = {0};
        char path[PATH_BYTES];
        snprintf(path, sizeof path, "%s/%s", directory, output->name);
        if (has(output, P4_OUTPUT_INSIDE)) {
            continue;
        }
        put(path);
        EXPECT_REFUSED(p4_output_examine(directory, false, NULL), output->name);
        EXPECT_OK(p4_output_examine(directory, true, NULL));
        memcpy((char *)&written + output->path, output->name, strlen(output->name));
        EXPECT_OK(p4_output_drop_stale(directory, &written));
        EXPECT(is_there(path), "%s was removed although this run wrote it", output->id);
        EXPECT_OK(p4_output_drop_stale(directory, &(p4_output_paths){0}));
        EXPECT(!is_there(path), "%s is left from an older run", output->id);
    }
}

/* A run goes on without an output that is ASIDE; without another one it does not. */
static void test_missing(void)
{
    p4_output_paths written;
    strcpy(config.output_path, directory);
    EXPECT_OK(p4_outputs_name(&written, &config, everything));
    p4_output_forget_missing(&written);
    strcpy(config.output_path, "out/of/this");
    for (int i = 0; i < P4_OUTPUTS; i++) {
        bool left = p4_output_path(&written, &p4_outputs[i])[0] != '\0';
        EXPECT(left != has(&p4_outputs[i], P4_OUTPUT_ASIDE), "%s: %s", p4_outputs[i].id,
               left ? "is listed, but is not there" : "was taken out of the list");
    }
    EXPECT_REFUSED(p4_output_check(&written), "was removed while the run was under way");
}

/* A file inside an output belongs to whoever wrote that output. */
static void test_inside(void)
{
    for (int i = 0; i < P4_OUTPUTS; i++) {
        const p4_output *output = &p4_outputs[i],
                        *outer = has(output, P4_OUTPUT_INSIDE) ? outer_of(output) : NULL;
        p4_output_paths written = {0};
        char path[PATH_BYTES];
        if (outer == NULL) {
            continue;
        }
        snprintf(path, sizeof path, "%s/%s", directory, outer->name);
        EXPECT_OK(p4_make_directories(path));
        snprintf(path, sizeof path, "%s/%s", directory, output->name);
        put(path);
        memcpy((char *)&written + outer->path, outer->name, strlen(outer->name));
        EXPECT_OK(p4_output_drop_stale(directory, &written));
        EXPECT(is_there(path), "%s was removed from an output of this run", output->id);
        EXPECT_OK(p4_output_drop_stale(directory, &(p4_output_paths){0}));
    }
}

static void test_reported(void)
{
    static p4_results results;
    char *json = NULL, *report = NULL, line[PATH_BYTES];
    size_t bytes = 0;
    p4_results_init(&results);
    results.success = true;
    EXPECT_OK(p4_outputs_name(&results.output_paths, &config, everything));
    EXPECT_OK(p4_results_to_json(&results, &json));
    cJSON *root = cJSON_Parse(json);
    const cJSON *paths = cJSON_GetObjectItemCaseSensitive(root, "output_paths");
    FILE *to = open_memstream(&report, &bytes);
    p4_report_table(to, &results, &config);
    fclose(to);
    for (int i = 0; i < P4_OUTPUTS; i++) {
        const char *want = p4_output_path(&results.output_paths, &p4_outputs[i]);
        const char *got = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(paths, p4_outputs[i].id));
        EXPECT(got != NULL && strcmp(got, want) == 0, "%s: results.json has %s", p4_outputs[i].id,
               got != NULL ? got : "nothing");
        bool is_primary = strcmp(want, results.output_paths.primary_output) == 0;
        snprintf(line, sizeof line, "    %-26s %s%s\n", p4_outputs[i].what, want,
                 is_primary ? " (for other programs)" : "");
        EXPECT(strstr(report, line) != NULL, "the report lacks \"%s\":\n%s", line, report);
    }
    const char *primary = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(paths, "primary_output"));
    EXPECT(primary != NULL && strcmp(primary, results.output_paths.primary_output) == 0, "primary_output");
    EXPECT(cJSON_GetArraySize(paths) == P4_OUTPUTS + 1, "%d paths", cJSON_GetArraySize(paths));
    cJSON_Delete(root);
    free(json);
    free(report);
}

int main(void)
{
    snprintf(directory, sizeof directory, "%s/phase4_outputs_XXXXXX",
             getenv("TMPDIR") != NULL ? getenv("TMPDIR") : "/tmp");
    EXPECT(mkdtemp(directory) != NULL, "mkdtemp: %s", strerror(errno));
    p4_config_default(&config);
    for (int i = 0; i < P4_OUTPUTS; i++) {
        if (p4_outputs[i].key != NULL) {
            set_key(&config, &p4_outputs[i], true);
        }
    }
    strcpy(config.output_path, "out/of/this");
    config.save_quantized = config.save_dequantized_fp16 = true;
    config.wandb_enabled = config.tensorboard_enabled = true;
    test_rows();
    test_names();
    test_older_outputs();
    test_inside();
    test_missing();
    test_reported();
    EXPECT_OK(p4_remove_tree(directory));
    return TEST_END();
}
