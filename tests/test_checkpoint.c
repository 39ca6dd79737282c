/* The parts of checkpoints: files of named arrays, the manifest, the folder that keeps two, what differs
 * between configurations, and the state of the engines as arrays. */
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "io/file/atomic_file.h"
#include "io/file/files.h"
#include "io/h5/arrays.h"
#include "io/out/checkpoints.h"
#include "jobs/train/checkpoint.h"
#include "jobs/train/stop.h"
#include "src/config.h"
#include "src/phase4.h"

static char world[] = "/tmp/phase4-checkpoint.XXXXXX";

static const char *at(const char *name)
{
    static char paths[8][512];
    static int next;
    next = (next + 1) % 8;
    snprintf(paths[next], sizeof paths[next], "%s/%s", world, name);
    return paths[next];
}

static bool is_there(const char *name)
{
    struct stat status;
    return lstat(at(name), &status) == 0;
}

/* ---- arrays ---- */

enum { ROWS = 700, COLS = 900 }; /* fp32: chunks of 1 MiB are a part of the rows */

static void put_part(const char *name, const char *array, const float *values)
{
    p4_arrays_writer *writer = NULL;
    const uint16_t halves[3] = {1, 2, 0xffff};
    EXPECT_OK(p4_arrays_create(&writer, at(name)));
    EXPECT(p4_arrays_written(writer) == 0, "%lld", (long long)p4_arrays_written(writer));
    EXPECT_OK(p4_arrays_put(writer, array, P4_H5_F32, ROWS, COLS, values));
    if (strcmp(array, "tensors/a.b/master") == 0) {
        EXPECT_OK(p4_arrays_put(writer, "tensors/a.b/momentum", P4_H5_U16, 1, 3, halves));
    }
    EXPECT(!is_there(name), "a part is there before it is complete");
    EXPECT_OK(p4_arrays_finish(writer, true));
}

/* One byte of the file, from its end, becomes another. */
static void damage(const char *name, long from_end)
{
    FILE *file = fopen(at(name), "r+b");
    EXPECT(file != NULL, "%s", at(name));
    if (file != NULL) {
        EXPECT(fseek(file, -from_end, SEEK_END) == 0, "seek");
        int byte = fgetc(file);
        EXPECT(fseek(file, -from_end, SEEK_END) == 0 && fputc(byte ^ 0x55, file) != EOF, "damage");
        fclose(file);
    }
}

static void test_arrays(void)
{
    static float values[ROWS * COLS], others[ROWS * COLS], got[ROWS * COLS];
    uint16_t halves[3] = {0};
    p4_arrays *arrays = NULL;
    p4_arrays_writer *writer = NULL;
    p4_array_form form;
    for (int i = 0; i < ROWS * COLS; i++) {
        values[i] = (float)i * 0.5f;
        others[i] = -(float)i;
    }
    put_part("part-0.h5", "tensors/a.b/master", values);
    put_part("part-3.h5", "tensors/c/master", others);
    char *paths[] = {(char *)(uintptr_t)at("part-0.h5"), (char *)(uintptr_t)at("part-3.h5")};
    EXPECT_OK(p4_arrays_open(&arrays, paths, 2));
    EXPECT(p4_arrays_have(arrays, "tensors/c/master") && !p4_arrays_have(arrays, "tensors/d/master"),
           "names");
    EXPECT_OK(p4_arrays_describe(arrays, "tensors/c/master", &form));
    EXPECT(form.type == P4_H5_F32 && form.rows == ROWS && form.cols == COLS, "%lld x %lld",
           (long long)form.rows, (long long)form.cols);
    EXPECT_OK(p4_arrays_read(arrays, "tensors/c/master", P4_H5_F32, ROWS, COLS, got));
    EXPECT(memcmp(got, others, sizeof got) == 0, "the second part's array");
    EXPECT_OK(p4_arrays_read(arrays, "tensors/a.b/master", P4_H5_F32, ROWS, COLS, got));
    EXPECT(memcmp(got, values, sizeof got) == 0, "the first part's array");
    EXPECT_OK(p4_arrays_read(arrays, "tensors/a.b/momentum", P4_H5_U16, 1, 3, halves));
    EXPECT(halves[0] == 1 && halves[2] == 0xffff, "%d %d", halves[0], halves[2]);
    EXPECT_REFUSED(p4_arrays_read(arrays, "tensors/c/master", P4_H5_F32, COLS, ROWS, got),
                   "expected [900, 700]");
    EXPECT_REFUSED(p4_arrays_read(arrays, "tensors/c/master", P4_H5_F64, ROWS, COLS, got), "of 8");
    EXPECT_REFUSED(p4_arrays_read(arrays, "tensors/d/master", P4_H5_F32, ROWS, COLS, got),
                   "no array tensors/d");
    EXPECT_REFUSED(p4_arrays_read(arrays, "tensors/c", P4_H5_F32, ROWS, COLS, got), "tensors/c");
    EXPECT_OK(p4_arrays_verify(arrays, 0));
    EXPECT_OK(p4_arrays_verify(arrays, 1));
    p4_arrays_close(arrays);
    damage("part-3.h5", ROWS * COLS); /* in the middle of the data */
    EXPECT_OK(p4_arrays_open(&arrays, paths, 2));
    EXPECT_OK(p4_arrays_verify(arrays, 0));
    EXPECT_REFUSED(p4_arrays_verify(arrays, 1), "part-3.h5: cannot read tensors/c/master");
    p4_arrays_close(arrays);
    EXPECT(truncate(at("part-3.h5"), 1000) == 0, "truncate");
    EXPECT_REFUSED(p4_arrays_open(&arrays, paths, 2), "part-3.h5");
    EXPECT_OK(p4_arrays_create(&writer, at("part-4.h5")));
    EXPECT_OK(p4_arrays_put(writer, "a", P4_H5_F32, 1, 1, values));
    EXPECT_REFUSED(p4_arrays_put(writer, "a", P4_H5_F32, 1, 1, values), "part-4.h5");
    EXPECT_OK(p4_arrays_finish(writer, false));
    EXPECT(!is_there("part-4.h5") && !is_there("part-4.h5.tmp"), "a part that failed is left");
}

/* A part that is made in memory holds what the file would. */
static void test_image(void)
{
    static float values[ROWS * COLS], got[ROWS * COLS];
    char file[512];
    p4_arrays_writer *writer = NULL;
    p4_arrays *arrays = NULL;
    const void *bytes = NULL;
    int64_t byte_count = 0;
    for (int i = 0; i < ROWS * COLS; i++) {
        values[i] = (float)(i % 9973);
    }
    snprintf(file, sizeof file, "%s", at("image.h5"));
    char *paths[] = {file};
    EXPECT_OK(p4_arrays_create_image(&writer, file));
    for (int i = 0; i < 3; i++) {
        char name[32];
        snprintf(name, sizeof name, "tensors/%d/master", i);
        EXPECT_OK(p4_arrays_put(writer, name, P4_H5_F32, ROWS - i, COLS, values + i));
    }
    EXPECT_OK(p4_arrays_image(writer, &bytes, &byte_count));
    EXPECT(byte_count > (int64_t)sizeof values * 2 && byte_count < (int64_t)sizeof values * 3 + 100000,
           "%lld", (long long)byte_count);
    EXPECT_OK(p4_atomic_write_all(file, bytes, (size_t)byte_count));
    EXPECT_OK(p4_arrays_finish(writer, true));
    EXPECT_OK(p4_arrays_open(&arrays, paths, 1));
    EXPECT_OK(p4_arrays_verify(arrays, 0));
    EXPECT_OK(p4_arrays_read(arrays, "tensors/2/master", P4_H5_F32, ROWS - 2, COLS, got));
    EXPECT(memcmp(got, values + 2, sizeof(float) * (ROWS - 2) * COLS) == 0, "the third array");
    p4_arrays_close(arrays);
}

/* ---- the manifest ---- */

static void fill_manifest(p4_manifest *m)
{
    *m = (p4_manifest){.ranks = 2,
                       .lr = 0.1 / 3,
                       .distill = 0.7 / 3,
                       .text_windows = 77,
                       .step = 12,
                       .updates = 11,
                       .training = true,
                       .elapsed_s = 2.5,
                       .stage_count = 2};
    strcpy(m->producer, "phase4 test");
    strcpy(m->created, "2026-01-01T00:00:00Z");
    strcpy(m->started, "2025-12-31T00:00:00Z");
    m->continued = 3;
    strcpy(m->stages[0], "evaluate_pre");
    strcpy(m->stages[1], "calibrate");
    m->time_count = 1;
    m->times[0] = (p4_stage_time){.stage = "load", .seconds = 0.25};
    EXPECT_OK(p4_manifest_add_input(m, "model.safetensors", "crc32:1:2"));
    EXPECT_OK(p4_manifest_add_input(m, "the training text", "crc32:3:4"));
    m->parts = p4_alloc(1, sizeof *m->parts);
    m->parts[0] = (p4_manifest_part){.rank = 1, .bytes = 5};
    m->part_count = 1;
    m->config_json = p4_strdup("{\"seed\": 18446744073709551615, \"weight_decay\": 0.1}");
}

static void test_manifest(void)
{
    p4_manifest m, read;
    fill_manifest(&m);
    EXPECT_OK(p4_manifest_write(&m, world));
    EXPECT_OK(p4_manifest_read(&read, world));
    EXPECT(read.step == 12 && read.updates == 11 && read.ranks == 2 && read.training, "%lld",
           (long long)read.step);
    EXPECT(strcmp(read.started, m.started) == 0 && read.continued == 3, "%s, %lld", read.started,
           (long long)read.continued);
    EXPECT(read.lr == 0.1 / 3 && read.distill == 0.7 / 3 && read.text_windows == 77, "rate %.17g, text %lld",
           read.lr, (long long)read.text_windows);
    EXPECT(read.stage_count == 2 && p4_manifest_has_stage(&read, "calibrate") &&
               !p4_manifest_has_stage(&read, "export"),
           "stages");
    EXPECT(read.time_count == 1 && read.times[0].seconds == 0.25 && read.elapsed_s == 2.5, "times");
    EXPECT(read.part_count == 1 && read.parts[0].rank == 1 && read.parts[0].bytes == 5, "parts");
    EXPECT(strstr(read.config_json, "18446744073709551615") != NULL, "%s", read.config_json);
    char *same = p4_manifest_conflicts(&m, &read);
    EXPECT(same != NULL && same[0] == '\0', "%s", same);
    free(same);
    strcpy(read.inputs[0].fingerprint, "crc32:9:9");
    read.input_count = 1;
    EXPECT_OK(p4_manifest_add_input(&read, "tokenizer.json", "crc32:5:6"));
    char *found = p4_manifest_conflicts(&m, &read);
    EXPECT(found != NULL && strcmp(found, "model.safetensors: found crc32:1:2, the checkpoint has crc32:9:9\n"
                                          "the training text: found crc32:3:4, the checkpoint has none\n"
                                          "tokenizer.json: found none, the checkpoint has crc32:5:6") == 0,
           "%s", found);
    free(found);
    p4_manifest_free(&m);
    p4_manifest_free(&read);
    EXPECT_REFUSED(p4_manifest_read(&read, at("absent")), "manifest.json");
    p4_manifest_free(&read);
}

/* A manifest without one of its keys. */
static void expect_required(const char *key)
{
    p4_manifest m;
    char text[4096] = "", quoted[64];
    fill_manifest(&m);
    EXPECT_OK(p4_manifest_write(&m, world));
    p4_manifest_free(&m);
    FILE *file = fopen(at("manifest.json"), "r");
    EXPECT(file != NULL && fread(text, 1, sizeof text - 1, file) > 0, "the manifest");
    fclose(file);
    snprintf(quoted, sizeof quoted, "\"%s\"", key);
    char *found = strstr(text, quoted);
    EXPECT(found != NULL, "%s", text);
    if (found != NULL) {
        found[1] = '_';
    }
    EXPECT_OK(p4_atomic_write_all(at("manifest.json"), text, strlen(text)));
    EXPECT_REFUSED(p4_manifest_read(&m, world), key);
    p4_manifest_free(&m);
}

/* ---- the folder ---- */

static void publish(int64_t step)
{
    p4_manifest m;
    fill_manifest(&m);
    m.step = step;
    char owner[P4_CHECKPOINT_OWNER_BYTES];
    p4_checkpoint_owner(owner);
    char *directory = p4_checkpoint_temporary(at("kept"), step, owner);
    EXPECT_OK(p4_checkpoint_begin(at("kept"), directory, owner));
    char *part = p4_checkpoint_part_path(directory, 1);
    EXPECT_OK(p4_atomic_write_all(part, "abcde", 5));
    EXPECT_OK(p4_checkpoint_check_parts(&m, directory));
    EXPECT_OK(p4_checkpoint_publish(directory, at("kept"), &m, NULL));
    EXPECT_OK(p4_checkpoints_prune(at("kept"), step, NULL));
    free(part);
    free(directory);
    p4_manifest_free(&m);
}

/* The checkpoints are those of these steps, NULL-terminated names. */
static void expect_kept(const char *const *names)
{
    char **paths;
    int64_t count, i = 0;
    EXPECT_OK(p4_checkpoints_list(&paths, &count, at("kept")));
    for (; names[i] != NULL && i < count; i++) {
        EXPECT(strcmp(strrchr(paths[i], '/') + 1, names[i]) == 0, "%s, expected %s", paths[i], names[i]);
    }
    EXPECT(names[i] == NULL && i == count, "%lld checkpoints", (long long)count);
    p4_names_free(paths, count);
}

/* A run's unfinished directories go when it begins another checkpoint; those of others stay until a holder
 * prunes. */
static void test_owners(void)
{
    char *mine = p4_checkpoint_temporary(at("kept"), 4, "n7.17"),
         *others = p4_checkpoint_temporary(at("kept"), 5, "n7.171"),
         *next = p4_checkpoint_temporary(at("kept"), 5, "n7.17");
    EXPECT(strcmp(strrchr(mine, '/'), "/step-4.n7.17.tmp") == 0 && strcmp(others, next) != 0, "%s", mine);
    EXPECT_OK(p4_checkpoint_begin(at("kept"), mine, "n7.17"));
    EXPECT_OK(p4_checkpoint_begin(at("kept"), others, "n7.171"));
    EXPECT(is_there("kept/step-4.n7.17.tmp"), "another owner's");
    EXPECT_OK(p4_checkpoint_begin(at("kept"), next, "n7.17"));
    EXPECT(!is_there("kept/step-4.n7.17.tmp") && is_there("kept/step-5.n7.171.tmp") &&
               is_there("kept/step-5.n7.17.tmp"),
           "the owner's");
    expect_kept((const char *[]){NULL});
    EXPECT_OK(p4_checkpoints_prune(at("kept"), 3, NULL));
    EXPECT(!is_there("kept/step-5.n7.171.tmp") && !is_there("kept/step-5.n7.17.tmp"), "the holder's prune");
    free(mine);
    free(others);
    free(next);
}

/* A run that lost its hold neither replaces nor removes a checkpoint of its successor. */
static void test_lost_hold(void)
{
    p4_manifest m;
    p4_hold *hold = NULL;
    publish(12);
    publish(20);
    EXPECT_OK(p4_hold_take(&hold, world, P4_HOLD_BEAT_S));
    fill_manifest(&m);
    char *directory = p4_checkpoint_temporary(at("kept"), m.step, "n7.17");
    EXPECT_OK(p4_checkpoint_begin(at("kept"), directory, "n7.17"));
    EXPECT(unlink(at(P4_HOLD_FILE)) == 0, "unlink");
    EXPECT(p4_checkpoint_publish(directory, at("kept"), &m, hold) == P4_E_HOLD, "published");
    p4_error_clear();
    EXPECT(is_there("kept/step-12.n7.17.tmp") && is_there("kept/step-12/part-1.h5"), "replaced");
    EXPECT(p4_checkpoints_prune(at("kept"), m.step, hold) == P4_E_HOLD, "pruned");
    p4_error_clear();
    expect_kept((const char *[]){"step-20", "step-12", NULL});
    p4_hold_release(hold);
    EXPECT_OK(p4_hold_take(&hold, world, P4_HOLD_BEAT_S));
    EXPECT_OK(p4_checkpoint_publish(directory, at("kept"), &m, hold));
    EXPECT_OK(p4_checkpoints_prune(at("kept"), m.step, hold));
    expect_kept((const char *[]){"step-12", NULL});
    EXPECT(!is_there("kept/step-12/part-1.h5"), "not replaced");
    p4_hold_release(hold);
    p4_manifest_free(&m);
    free(directory);
    EXPECT_OK(p4_checkpoints_remove(at("kept")));
}

static void test_folder(void)
{
    p4_manifest m;
    expect_kept((const char *[]){NULL});
    publish(8);
    publish(9);
    publish(10); /* not "10" before "9" */
    expect_kept((const char *[]){"step-10", "step-9", NULL});
    publish(10);
    expect_kept((const char *[]){"step-10", "step-9", NULL});
    EXPECT(rename(at("kept/step-10"), at("kept/step-10.old")) == 0,
           "rename"); /* killed while it was replaced */
    EXPECT_OK(p4_make_directories(at("kept/step-11.tmp")));
    EXPECT_OK(p4_make_directories(at("kept/step-11.other.host.17.tmp")));
    EXPECT_OK(p4_make_directories(at("kept/step-x")));
    EXPECT_OK(p4_make_directories(at("kept/steps")));
    expect_kept((const char *[]){"step-10.old", "step-9", NULL});
    publish(9); /* continued from an earlier step: the later one is of another course */
    expect_kept((const char *[]){"step-9", NULL});
    EXPECT(!is_there("kept/step-11.tmp") && !is_there("kept/step-11.other.host.17.tmp"), "unfinished ones");
    EXPECT(is_there("kept/step-x"), "what is whose");
    fill_manifest(&m);
    EXPECT_OK(p4_checkpoint_check_parts(&m, at("kept/step-9")));
    m.parts[0].bytes = 6;
    EXPECT_REFUSED(p4_checkpoint_check_parts(&m, at("kept/step-9")), "part-1.h5: has 5 bytes, expected 6");
    m.parts[0].rank = 2;
    EXPECT_REFUSED(p4_checkpoint_check_parts(&m, at("kept/step-9")), "part-2.h5");
    p4_manifest_free(&m);
    EXPECT_OK(p4_checkpoints_remove(at("kept")));
    EXPECT(is_there("kept/step-x") && !is_there("kept/step-9"), "what is whose");
    EXPECT(rmdir(at("kept/step-x")) == 0 && rmdir(at("kept/steps")) == 0, "rmdir");
    EXPECT_OK(p4_checkpoints_remove(at("kept")));
    EXPECT(!is_there("kept"), "an empty folder is left");
    EXPECT_OK(p4_checkpoints_remove(at("kept")));
}

/* ---- configurations ---- */

/* Another value than `config` has for a row. */
static void change(p4_config *config, const p4_config_row *row)
{
    char *field = (char *)config + row->offset;
    if (row->type == P4_CONFIG_LIST) {
        EXPECT(p4_list_append((p4_list *)(void *)field, "other"), "%s", row->name);
    } else if (row->type == P4_CONFIG_SETS) {
        p4_sets *sets = (p4_sets *)(void *)field;
        EXPECT(p4_sets_add(sets, "other") && p4_sets_append(sets, "other"), "%s", row->name);
    } else if (row->type == P4_CONFIG_PATH || row->type == P4_CONFIG_NAME) {
        strcpy(field, "other");
    } else if (row->type == P4_CONFIG_BOOL) {
        *(bool *)field = !*(bool *)field;
    } else {
        field[row->bytes - 1] ^= 1; /* of a double the sign's byte, of an integer a high bit */
    }
}

/* Key by key: each that may not change is named, alone, and no other is. */
static void test_conflicts(void)
{
    static p4_config config, other;
    int conflicts = 0;
    p4_config_recipe(&config, P4_RECIPE_QUALITY);
    for (int i = 0; i < p4_config_rows; i++) {
        const p4_config_row *row = &p4_config_table[i];
        char wanted[256];
        other = config;
        change(&other, row);
        char *found = p4_config_conflicts(&other, &config);
        snprintf(wanted, sizeof wanted, "key \"%s\": found ", row->name);
        EXPECT(found != NULL, "%s", p4_last_error());
        if (found == NULL) {
            return;
        }
        EXPECT(row->may_change ? found[0] == '\0'
                               : strncmp(found, wanted, strlen(wanted)) == 0 && strchr(found, '\n') == NULL,
               "%s: \"%s\"", row->name, found);
        conflicts += found[0] != '\0';
        free(found);
    }
    EXPECT(conflicts > 20 && conflicts < p4_config_rows - 20, "%d of %d keys may not change", conflicts,
           p4_config_rows);
}

/* ---- requests to stop ---- */

static void test_stop(void)
{
    p4_stop none = {0}, late = {.deadline_s = p4_now_s() + 1000}, over = {.deadline_s = p4_now_s() - 1};
    p4_stop by_file = {.file = (char *)(uintptr_t)at("stop")};
    EXPECT(!p4_stop_is_asked(NULL) && !p4_stop_is_asked(&none) && !p4_stop_is_asked(&late), "nobody asks");
    EXPECT(p4_stop_check(&over) == P4_STOPPED, "a budget of time");
    EXPECT(strstr(p4_last_error(), "max_minutes") != NULL, "%s", p4_last_error());
    p4_error_clear();
    EXPECT(!p4_stop_is_asked(&by_file), "no file");
    EXPECT_OK(p4_atomic_write_all(by_file.file, "", 0));
    EXPECT(!p4_stop_is_asked(&by_file), "the file is looked for again at once");
    by_file.next_look_ms = 0;
    EXPECT(p4_stop_is_asked(&by_file), "the file is there");
    unlink(by_file.file);
    EXPECT(p4_stop_is_asked(&by_file), "once asked, always asked");
}

/* ---- arrays of a stage ---- */

static void test_stage_arrays(void)
{
    p4_param params[3] = {{.name = "a", .rows = 2, .cols = 2},
                          {.name = "b", .rows = 1, .cols = 3},
                          {.name = "c", .rows = 1, .cols = 1}};
    p4_model model = {.params_count = 3, .params = params};
    float a[] = {1, 2, 3, 4}, b[] = {5, 6, 7}, *given[] = {a, b, NULL}, *got[3] = {NULL};
    bool all[] = {true, true, true}, wants[] = {true, false, true}, known[3];
    p4_arrays_writer *writer = NULL;
    p4_arrays *arrays = NULL;
    EXPECT_OK(p4_arrays_create(&writer, at("part-7.h5")));
    EXPECT_OK(p4_checkpoint_put_arrays(writer, "masters", given, all, &model));
    EXPECT(p4_arrays_written(writer) == 2, "%lld arrays", (long long)p4_arrays_written(writer));
    EXPECT_OK(p4_arrays_finish(writer, true));
    char *path = (char *)(uintptr_t)at("part-7.h5");
    EXPECT_OK(p4_arrays_open(&arrays, &path, 1));
    EXPECT_OK(p4_checkpoint_take_arrays(arrays, "masters", got, known, wants, &model));
    EXPECT(got[0] != NULL && memcmp(got[0], a, sizeof a) == 0 && got[1] == NULL && got[2] == NULL, "arrays");
    EXPECT(known[0] && known[1] && !known[2], "what some part has");
    free(got[0]);
    p4_arrays_close(arrays);
}

int main(void)
{
    EXPECT(mkdtemp(world) != NULL, "%s", world);
    test_arrays();
    test_image();
    test_manifest();
    expect_required("started");
    expect_required("continued");
    test_owners();
    test_lost_hold();
    test_folder();
    test_conflicts();
    test_stop();
    test_stage_arrays();
    EXPECT_OK(p4_remove_tree(world));
    return TEST_END();
}
