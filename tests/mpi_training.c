/* Training sets on several ranks (io/text/training_set.h): what a rank gets of a step, with and without the
 * files, what it holds in memory, and what is set aside. */
#include "byte_tokenizer.h"
#include "dataset_world.h"
#include "io/text/training_set.h"
#include "listen.h"
#include "src/leaf/rng.h"

enum { T = 8, TEXT_LINES = 40, TOKENS = 1000, SEQUENCES = 7, SEED = 11 };

static p4_group group;
static int32_t stream[8192]; /* the tokens of the files, one after another */
static int64_t stream_count;

static void push(int32_t id)
{
    stream[stream_count++] = id;
}

/* JSONL, a token file, JSONL: every rank knows the stream, rank 0 writes the files. */
static void make_files(char *paths[3])
{
    static const char *const names[] = {"a.jsonl", "b.bin", "c.jsonl"};
    p4_group_barrier(&group); /* nobody reads the files of the test before */
    stream_count = 0;
    for (int f = 0; f < 3; f += 2) {
        char lines[8192] = "";
        size_t used = 0;
        for (int i = 0; i < TEXT_LINES; i++) {
            used += (size_t)sprintf(lines + used, "{\"text\":\"%c%d-%d\"}\n", "x?y"[f], i, i * i % 37);
        }
        if (group.rank == 0) {
            put(names[f], lines, used);
        }
    }
    uint16_t tokens[TOKENS];
    for (int i = 0; i < TOKENS; i++) {
        tokens[i] = (uint16_t)(i * i / 3 % 290);
    }
    if (group.rank == 0) {
        put(names[1], tokens, sizeof tokens);
    }
    for (int f = 0; f < 3; f++) {
        for (int i = 0; f == 1 && i < TOKENS; i++) {
            push(tokens[i]);
        }
        for (int i = 0; f != 1 && i < TEXT_LINES; i++) {
            char text[32];
            int length = sprintf(text, "%c%d-%d", "x?y"[f], i, i * i % 37);
            for (int j = 0; j < length; j++) {
                push(text[j]);
            }
            push(END);
        }
        paths[f] = p4_strdup(at(names[f]));
    }
    p4_group_barrier(&group);
}

static p4_training_source source_of(char *const *paths, int64_t count)
{
    return (p4_training_source){.paths = paths,
                                .path_count = count,
                                .how = windowing(T, 2),
                                .cache_folder = "",
                                .temporary = at("training_tokens.tmp")};
}

/* Every rank gets the sequences that the permutation of (seed, epoch) says, over two epochs, in any order of
 * steps. window_at [count]: which windows of the stream are trained on. */
static void expect_steps(p4_training_set *set, const int64_t *window_at, int64_t count)
{
    int64_t low = SEQUENCES * group.rank / group.ranks, high = SEQUENCES * (group.rank + 1) / group.ranks;
    int64_t steps_per_epoch = count / SEQUENCES;
    int32_t ids[SEQUENCES * T];
    uint32_t *order = malloc((size_t)count * sizeof *order);
    EXPECT(p4_training_set_count(set) == count && p4_training_set_length(set) == T,
           "%lld windows, expected %lld", (long long)p4_training_set_count(set), (long long)count);
    EXPECT_OK(p4_training_set_schedule(set, SEED, SEQUENCES, low, high));
    for (int64_t i = 0; i < 2 * steps_per_epoch + 3; i++) {
        int64_t step =
            i < 2 * steps_per_epoch ? i : i - 2 * steps_per_epoch; /* back to the first ones, at last */
        p4_rng_permutation(order, (uint32_t)count, SEED, (uint64_t)(step / steps_per_epoch) + 1);
        p4_training_set_step(set, step);
        for (int64_t from = low; from < high; from += 2) { /* in micro-batches of two */
            int64_t part = p4_min_i64(2, high - from);
            p4_training_set_sequences(set, ids, from, part);
            for (int64_t s = 0; s < part; s++) {
                int64_t window = window_at[order[step % steps_per_epoch * SEQUENCES + from + s]];
                EXPECT(memcmp(ids + s * T, stream + window * T, T * sizeof *ids) == 0,
                       "rank %d, step %lld: sequence %lld is not window %lld", group.rank, (long long)step,
                       (long long)(from + s), (long long)window);
            }
        }
    }
    free(order);
}

static void expect_all_windows(p4_training_set *set)
{
    int64_t windows[8192 / T], count = stream_count / T;
    for (int64_t i = 0; i < count; i++) {
        windows[i] = i;
    }
    expect_steps(set, windows, count);
}

static void sequences_are_those_of_the_permutation(void)
{
    char *paths[3];
    p4_training_set *set;
    make_files(paths);
    p4_training_source source = source_of(group.rank == 0 ? paths : NULL, group.rank == 0 ? 3 : 0);
    for (int workers = 1; workers <= 3; workers++) {
        source.how.threads = workers;
        EXPECT_OK(p4_training_set_open(&set, &group, &source, NULL));
        expect_all_windows(set);
        p4_training_set_close(set);
    }
    p4_windows memory = {.ids = stream, .count = stream_count / T, .T = T};
    EXPECT_OK(p4_training_set_of_windows(&set, &memory));
    expect_all_windows(set);
    EXPECT_REFUSED(p4_training_set_schedule(set, SEED, stream_count / T + 1, 0, 1), "out of range");
    p4_training_set_close(set);
    for (int f = 0; f < 3; f++) {
        free(paths[f]);
    }
}

/* Ranks that find no files, or others under their names, get the same from rank 0, which says why. */
static void ranks_without_files_are_served(void)
{
    char *paths[3], *names[] = {"a.jsonl", "b.bin", "c.jsonl"}, before[4096];
    p4_training_set *set;
    EXPECT(getcwd(before, sizeof before) != NULL, "no working directory");
    make_files(paths);
    if (group.rank == 0) {
        put("elsewhere/other", "", 0);
        put("foreign/b.bin", stream, TOKENS * 2); /* as long, with other tokens */
    }
    p4_group_barrier(&group);
    EXPECT(chdir(at(group.rank == 0   ? "."
                    : group.rank == 1 ? "elsewhere"
                    : group.rank == 2 ? "foreign"
                                      : ".")) == 0,
           "rank %d has no folder", group.rank);
    p4_training_source source = source_of(names, group.rank == 0 ? 3 : 0);
    p4_group_set_log(&group, P4_LOG_WARN);
    listen_begin();
    EXPECT_OK(p4_training_set_open(&set, &group, &source, NULL));
    const char *said = listen_end();
    bool warned =
        strstr(said, "cannot read the files of training tokens, and get them from rank 0: b.bin: ") != NULL &&
        strstr(said, "(rank 1 on ") != NULL;
    EXPECT(warned == (group.rank == 0 && group.ranks > 1), "rank %d said \"%s\"", group.rank, said);
    expect_all_windows(set);
    p4_training_set_close(set);

    source.paths = names + 1; /* the token file alone, which rank 2 has otherwise */
    source.path_count = group.rank == 0 ? 1 : 0;
    for (int64_t i = 0; i < TOKENS; i++) {
        stream[i] = (int32_t)(i * i / 3 % 290);
    }
    stream_count = TOKENS;
    EXPECT_OK(p4_training_set_open(&set, &group, &source, NULL));
    expect_all_windows(set);
    p4_training_set_close(set);
    EXPECT(chdir(before) == 0, "%s", before);
    for (int f = 0; f < 3; f++) {
        free(paths[f]);
    }
}

/* Windows that are set aside are rank 0's, are spread over all and are not trained on. */
static void windows_are_set_aside(void)
{
    enum { ASIDE = 10 };
    char *paths[3];
    int64_t trained[8192 / T], aside_at[ASIDE], kept = 0, found = 0;
    p4_training_set *set;
    p4_windows aside = {.ids = NULL};
    make_files(paths);
    p4_training_source source = source_of(paths, 3);
    source.aside = ASIDE;
    EXPECT_OK(p4_training_set_open(&set, &group, &source, &aside));
    EXPECT(aside.count == (group.rank == 0 ? ASIDE : 0), "%lld windows set aside", (long long)aside.count);
    for (int64_t w = 0; w < stream_count / T && group.rank == 0; w++) {
        if (found < ASIDE && memcmp(aside.ids + found * T, stream + w * T, T * sizeof *stream) == 0) {
            aside_at[found++] = w;
        }
    }
    if (group.rank == 0) {
        EXPECT(found == ASIDE, "%lld of the windows set aside are windows of the stream", (long long)found);
        EXPECT(found < ASIDE ||
                   (aside_at[0] < stream_count / T / 5 && aside_at[ASIDE - 1] > stream_count / T * 4 / 5),
               "they are not spread over all");
    }
    p4_group_bcast(&group, aside_at, sizeof aside_at, 0);
    for (int64_t w = 0, a = 0; w < stream_count / T; w++) {
        if (a < ASIDE && aside_at[a] == w) {
            a++;
        } else {
            trained[kept++] = w;
        }
    }
    expect_steps(set, trained, kept);
    p4_windows_free(&aside);
    p4_training_set_close(set);
    for (int f = 0; f < 3; f++) {
        free(paths[f]);
    }
}

/* A token beyond the vocabulary is found wherever it is, by whichever rank looks there. */
static void bad_tokens_are_refused(void)
{
    static const int64_t places[] = {0, 499, 999};
    for (int i = 0; i < 3; i++) {
        uint16_t tokens[TOKENS] = {0};
        tokens[places[i]] = 300;
        p4_group_barrier(&group);
        if (group.rank == 0) {
            put("bad.bin", tokens, sizeof tokens);
        }
        p4_group_barrier(&group);
        char *path = p4_strdup(at("bad.bin")), message[64];
        p4_training_set *set = NULL;
        p4_training_source source = source_of(&path, 1);
        snprintf(message, sizeof message, "token %lld (raw uint16 ids) is 300", (long long)places[i]);
        EXPECT_REFUSED(p4_training_set_open(&set, &group, &source, NULL), message);
        EXPECT(set == NULL, "a set after an error");
        free(path);
    }
}

/* Bytes of memory that are this process's alone, as the system counts them. */
static int64_t anonymous_bytes(void)
{
    FILE *file = fopen("/proc/self/status", "r");
    char line[256];
    long long kib = -1;
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        if (sscanf(line, "RssAnon: %lld kB", &kib) == 1) {
            break;
        }
    }
    if (file != NULL) {
        fclose(file);
    }
    EXPECT(kib > 0, "RssAnon is not in /proc/self/status");
    return (int64_t)kib * 1024;
}

/* A token file of 300 MB costs a rank less than 32 MB of anonymous memory. */
static void large_files_cost_little_memory(void)
{
    enum { LONG_T = 512, STEP_SEQUENCES = 64 };
    static const int64_t bytes = 300 << 20;
#if defined(__SANITIZE_ADDRESS__)
    const int64_t bound = INT64_MAX; /* its shadow memory counts too */
#else
    const int64_t bound = 32 << 20;
#endif
    const char *path = at("large.bin");
    if (group.rank == 0) {
        FILE *file = fopen(path, "wb"); /* zeros, but for the first token of some windows */
        EXPECT(file != NULL && ftruncate(fileno(file), bytes) == 0, "%s", path);
        for (int64_t w = 0; w < bytes / 2 / LONG_T; w += 1000) {
            uint16_t id = (uint16_t)(1 + w / 1000);
            EXPECT(pwrite(fileno(file), &id, 2, 2 * w * LONG_T) == 2, "%s", path);
        }
        fclose(file);
    }
    p4_group_barrier(&group);
    char *paths[] = {p4_strdup(path)};
    p4_training_source source = source_of(paths, 1);
    source.how = (p4_windowing){.T = LONG_T, .vocab = 50257, .end_id = -1};
    int64_t before = anonymous_bytes(), marked = 0;
    p4_training_set *set;
    int32_t *ids = p4_alloc(STEP_SEQUENCES * LONG_T, sizeof *ids);
    int64_t low = STEP_SEQUENCES * group.rank / group.ranks,
            high = STEP_SEQUENCES * (group.rank + 1) / group.ranks;
    EXPECT_OK(p4_training_set_open(&set, &group, &source, NULL));
    int64_t steps = p4_training_set_count(set) / STEP_SEQUENCES;
    EXPECT_OK(p4_training_set_schedule(set, SEED, STEP_SEQUENCES, low, high));
    for (int64_t step = 0; step < steps; step++) {
        p4_training_set_step(set, step);
        p4_training_set_sequences(set, ids, low, high - low);
        for (int64_t i = 0; i < high - low; i++) {
            marked += ids[i * LONG_T] > 0;
        }
    }
    int64_t grown = anonymous_bytes() - before;
    double all = (double)marked;
    p4_group_sum_f64(&group, &all, 1);
    EXPECT((int64_t)all == p4_ceil_div(bytes / 2 / LONG_T, 1000), "%.0f marked windows were drawn", all);
    EXPECT(grown < bound, "rank %d holds %.1f MB more", group.rank, (double)grown / 1048576.0);
    if (group.rank == 0) {
        printf("anonymous memory grew by %.1f MB for a file of 300 MB\n", (double)grown / 1048576.0);
    }
    p4_training_set_close(set);
    free(ids);
    free(paths[0]);
}

int main(void)
{
    p4_machine machine;
    EXPECT_OK(p4_machine_open(&machine));
    EXPECT_OK(p4_group_open(&group, &machine, NULL, 60));
    p4_group_set_log(&group, P4_LOG_WARN);
    if (group.rank == 0) {
        world_begin();
    }
    p4_group_bcast(&group, world, sizeof world, 0);
    make_tokenizer();
    large_files_cost_little_memory();
    sequences_are_those_of_the_permutation();
    ranks_without_files_are_served();
    windows_are_set_aside();
    bad_tokens_are_refused();
    p4_tokenizer_close(tokenizer);
    p4_group_barrier(&group);
    if (group.rank == 0) {
        world_end();
    }
    double failed = check_failed;
    p4_group_sum_f64(&group, &failed, 1);
    check_failed = (int)failed;
    p4_group_close(&group);
    p4_machine_close(&machine);
    return TEST_END();
}
