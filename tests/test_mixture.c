/* Text from several sources in given shares (io/text/mixture.h): which files, which windows, in which order.
 */
#include "byte_tokenizer.h"
#include "dataset_world.h"
#include "io/text/training_set.h"
#include "src/config.h"
#include "src/phase4/config.h"

enum { T = 16, LINES_A = 400, LINES_B = 60, LINES_C = 800 };

/* A JSONL of `lines` texts of T - 1 times `letter`: with its end of text each is a window. */
static void put_lines(const char *name, char letter, int lines)
{
    char *text = malloc((size_t)lines * (T + 32)), *at = text;
    for (int i = 0; i < lines; i++) {
        at += sprintf(at, "{\"text\":\"");
        memset(at, letter, T - 1);
        at += sprintf(at + T - 1, "\"}\n") + T - 1;
    }
    put(name, text, (size_t)(at - text));
    free(text);
}

/* A configuration that trains on two entries, of which one names two files. */
static void begin(p4_config *c, const char *weights)
{
    char json[2048];
    snprintf(json, sizeof json,
             "{\"calibration_dataset\":\"custom\",\"calibration_files\":[\"%s/a.jsonl\",\"%s/[bc].jsonl\"],"
             "\"calibration_weights\":%s,\"train_files\":[\"%s/a.jsonl\",\"%s/[bc].jsonl\"],"
             "\"train_weights\":%s}",
             world, world, weights, world, world, weights);
    EXPECT_OK(p4_config_from_json(c, json, strlen(json), "cfg.json", P4_RECIPE_QUALITY));
}

static void shares_are_read(void)
{
    p4_config *c = malloc(sizeof *c);
    p4_split_files files;
    begin(c, "[3, 1]");
    EXPECT_OK(p4_dataset_files(&files, c, P4_SPLIT_TRAIN));
    EXPECT(files.count == 3 && files.mixture.source_count == 2, "%lld files", (long long)files.count);
    EXPECT(files.mixture.share[0] == 0.75 && files.mixture.share[1] == 0.25, "shares");
    EXPECT(files.mixture.source[0] == 0 && files.mixture.source[1] == 1 && files.mixture.source[2] == 1,
           "sources");
    p4_split_files_free(&files);
    begin(c, "[]");
    EXPECT_OK(p4_dataset_files(&files, c, P4_SPLIT_TRAIN));
    EXPECT(files.mixture.source_count == 0, "weights that were not given");
    p4_split_files_free(&files);
    EXPECT_OK(p4_config_set(c, "train_files", "[\"nowhere\"]"));
    EXPECT_REFUSED(p4_dataset_files(&files, c, P4_SPLIT_TRAIN), "nowhere");
    p4_split_files_free(&files);
    free(c);
}

static void weights_are_checked(void)
{
    static const struct {
        const char *weights, *part;
    } cases[] = {
        {"[1]", "found 1 weight, expected 2: one for each entry of"},
        {"[1,2,3]", "found 3 weights, expected 2"},
    };
    p4_config *c = malloc(sizeof *c);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        begin(c, cases[i].weights);
        EXPECT_REFUSED(p4_config_validate_job(c), cases[i].part);
    }
    EXPECT_REFUSED(p4_config_set(c, "train_weights", "[1,0]"), "found 0 as element 2");
    EXPECT_REFUSED(p4_config_set(c, "train_weights", "[1,\"2\"]"), "found \"2\" as element 2");
    EXPECT_REFUSED(p4_config_set(c, "train_weights", "0.5"), "found 0.5, expected a list of up to 32 of");
    free(c);
}

/* What is drawn has the shares, though the files' sizes are others; a source gives no more than it has. */
static void windows_are_drawn_by_share(void)
{
    static const struct {
        const char *weights;
        int64_t limit, from_a;
    } cases[] = {{"[3, 1]", 200, 150}, {"[1, 3]", 200, 50}, {"[999, 1]", 600, 400}};
    p4_config *c = malloc(sizeof *c);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        p4_split_files files;
        p4_windows windows;
        p4_windowing how = windowing(T, 2);
        int64_t from_a = 0;
        begin(c, cases[i].weights);
        EXPECT_OK(p4_dataset_files(&files, c, P4_SPLIT_CALIBRATION));
        how.opt_mixture = &files.mixture;
        EXPECT_OK(p4_windows_read(&windows, files.paths, files.count, &how, cases[i].limit));
        for (int64_t w = 0; w < windows.count; w++) {
            from_a += windows.ids[w * T] == 'a';
        }
        EXPECT(windows.count == cases[i].limit && llabs(from_a - cases[i].from_a) <= 1, "%s: %lld of %lld",
               cases[i].weights, (long long)from_a, (long long)windows.count);
        p4_windows_free(&windows);
        p4_split_files_free(&files);
    }
    free(c);
}

/* Each epoch has the shares, and no window comes again before all others of its source came as often. */
static void epochs_have_the_shares(void)
{
    enum { A = 10, B = 23, COUNT = A + B, EPOCHS = 7 };
    const p4_mixed_windows windows = {.source_count = 2, .end = {A, COUNT}, .share = {0.6, 0.4}};
    uint32_t order[COUNT], work[2 * COUNT], before[COUNT] = {0};
    int times[COUNT] = {0};
    for (int epoch = 0; epoch < EPOCHS; epoch++) {
        int from_a = 0, least[2] = {1 << 20, 1 << 20}, most[2] = {0, 0};
        p4_mixed_order(order, work, &windows, 5, epoch);
        EXPECT(memcmp(order, before, sizeof order) != 0, "epoch %d repeats the one before", epoch);
        memcpy(before, order, sizeof before);
        for (int i = 0; i < COUNT; i++) {
            EXPECT(order[i] < COUNT, "window %u", order[i]);
            times[order[i] % COUNT]++;
            from_a += order[i] < A;
        }
        EXPECT(from_a == 20, "epoch %d: %d of %d windows are of the first source, expected 20", epoch, from_a,
               COUNT);
        for (int i = 0; i < COUNT; i++) {
            int s = i >= A;
            least[s] = times[i] < least[s] ? times[i] : least[s];
            most[s] = times[i] > most[s] ? times[i] : most[s];
        }
        EXPECT(most[0] - least[0] <= 1 && most[1] - least[1] <= 1, "epoch %d: %d to %d and %d to %d times",
               epoch, least[0], most[0], least[1], most[1]);
        p4_mixed_order(order, work, &windows, 5, epoch);
        EXPECT(memcmp(order, before, sizeof order) == 0, "epoch %d differs when it is asked for again",
               epoch);
    }
}

int main(void)
{
    world_begin();
    make_tokenizer();
    put_lines("a.jsonl", 'a', LINES_A);
    put_lines("b.jsonl", 'b', LINES_B);
    put_lines("c.jsonl", 'c', LINES_C);
    shares_are_read();
    weights_are_checked();
    windows_are_drawn_by_share();
    epochs_have_the_shares();
    p4_tokenizer_close(tokenizer);
    world_end();
    return TEST_END();
}
