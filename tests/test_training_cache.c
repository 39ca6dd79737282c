/* Tokenized text in a file (io/text/token_cache.h), and training sets that find it there. The tokenizer gives
 * a byte its value as id. */
#include "byte_tokenizer.h"
#include "dataset_world.h"
#include "io/file/atomic_file.h"
#include "io/text/token_cache.h"
#include "io/text/training_set.h"

#include <fcntl.h>

enum { T = 8 };

static p4_group group;

/* Whether a file is still the one that it was: nobody wrote it anew. */
typedef struct identity {
    ino_t inode;
    struct timespec changed;
} identity;

static identity identify(const char *path)
{
    struct stat status = {0};
    EXPECT(stat(path, &status) == 0, "%s is not there", path);
    return (identity){status.st_ino, status.st_mtim};
}

static bool is_same(identity a, identity b)
{
    return a.inode == b.inode && a.changed.tv_sec == b.changed.tv_sec &&
           a.changed.tv_nsec == b.changed.tv_nsec;
}

/* The number of files in world/folder; path: one of them whose inode is not `except`. */
static int count_files(const char *folder, ino_t except, char path[512])
{
    char *roots[] = {(char *)(uintptr_t)at(folder), NULL};
    int count = 0;
    FTS *walk = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
    for (FTSENT *entry; walk != NULL && (entry = fts_read(walk)) != NULL;) {
        if (entry->fts_info == FTS_F) {
            if (entry->fts_statp->st_ino != except) {
                snprintf(path, 512, "%s", entry->fts_path);
            }
            count++;
        }
    }
    fts_close(walk);
    return count;
}

/* ---- the file ---- */

static void caches_are_made_and_refused(void)
{
    char *paths[] = {p4_strdup(put_text("c1.txt", "abc")),
                     p4_strdup(put_text("c2.jsonl", "{\"text\":\"de\"}\n")),
                     p4_strdup(put_text("c3.txt", ""))};
    static const uint16_t ids[] = {'a', 'b', 'c', END, 'd', 'e', END, END};
    const p4_texts texts = {.paths = paths, .count = 3};
    p4_windowing how = windowing(T, 2);
    p4_text_counts counts = {0};
    p4_token_cache cache;
    char *key = NULL, *path = NULL, *bytes = malloc(1 << 16);
    bool found = true;
    EXPECT_OK(p4_token_cache_key(&key, &texts, &how));
    path = p4_token_cache_path(world, key);
    EXPECT_OK(p4_token_cache_open(&cache, path, key, &found));
    EXPECT(!found, "a file that nobody made was found");
    EXPECT_OK(p4_token_cache_make(path, key, &texts, &how, &counts));
    EXPECT(counts.documents == 3 && counts.tokens == 8, "%lld documents, %lld tokens",
           (long long)counts.documents, (long long)counts.tokens);
    EXPECT_OK(p4_token_cache_open(&cache, path, key, &found));
    EXPECT(found && cache.count == 8 && cache.id_bytes == 2 && memcmp(cache.ids, ids, sizeof ids) == 0,
           "%lld tokens of %d bytes", (long long)cache.count, cache.id_bytes);
    EXPECT(cache.text_count == 3 && cache.counts[0] == 4 && cache.counts[1] == 3 && cache.counts[2] == 1,
           "%lld texts", (long long)cache.text_count);
    p4_token_cache_close(&cache);

    FILE *file = fopen(path, "rb");
    size_t size = fread(bytes, 1, 1 << 16, file);
    fclose(file);
    for (size_t cut = 0; cut < size; cut++) { /* torn anywhere */
        put(path + strlen(world) + 1, bytes, cut);
        EXPECT_OK(p4_token_cache_open(&cache, path, key, &found));
        EXPECT(!found, "a file of %zu of %zu bytes was taken", cut, size);
    }
    for (size_t at_byte = 0; at_byte < size; at_byte++) {
        bytes[at_byte] ^= 0x10;
        put(path + strlen(world) + 1, bytes, size);
        EXPECT_OK(p4_token_cache_open(&cache, path, key, &found));
        EXPECT(!found, "a file that is wrong at byte %zu was taken", at_byte);
        bytes[at_byte] ^= 0x10;
    }
    put(path + strlen(world) + 1, bytes, size);
    EXPECT_OK(p4_token_cache_open(&cache, path, "another key", &found));
    EXPECT(!found, "a file with another key was taken");
    EXPECT_OK(p4_token_cache_open(&cache, path, key, &found));
    EXPECT(found, "the file as it was is refused");
    p4_token_cache_close(&cache);
    for (int i = 0; i < 3; i++) {
        free(paths[i]);
    }
    free(bytes);
    free(path);
    free(key);
}

/* Two texts, tokenizers, parts or kinds of file have two keys; the window length and the path are none of it.
 */
static void keys_tell_contents_apart(void)
{
    char *paths[] = {p4_strdup(put_text("k1.txt", "{\"text\":\"abc\"}")),
                     p4_strdup(put_text("k2.txt", "{\"text\":\"abd\"}")),
                     p4_strdup(put_text("k3.jsonl", "{\"text\":\"abc\"}")),
                     p4_strdup(put_text("k4.txt", "{\"text\":\"abc\"}"))};
    p4_draw draw = {.block_bytes = 16, .stride = 2, .seed = 1}, other_draw = {.block_bytes = 16, .stride = 3};
    p4_windowing how = windowing(T, 1), longer = windowing(2 * T, 7), unended = how, other = how;
    char *keys[8];
    unended.end_id = -1;
    EXPECT_OK(
        p4_tokenizer_open((p4_tokenizer **)(uintptr_t)&other.tokenizer, P4_FIXTURES "/tokenizers/added"));
    const struct {
        const char *const *path;
        const p4_draw *draw;
        const p4_windowing *how;
    } cases[] = {
        {(const char *const *)&paths[0], NULL, &how},        {(const char *const *)&paths[1], NULL, &how},
        {(const char *const *)&paths[2], NULL, &how},        {(const char *const *)&paths[0], &draw, &how},
        {(const char *const *)&paths[0], &other_draw, &how}, {(const char *const *)&paths[0], NULL, &unended},
        {(const char *const *)&paths[0], NULL, &other},      {(const char *const *)&paths[3], NULL, &longer}};
    for (int i = 0; i < 8; i++) {
        p4_texts texts = {.paths = (char *const *)cases[i].path, .draws = cases[i].draw, .count = 1};
        EXPECT_OK(p4_token_cache_key(&keys[i], &texts, cases[i].how));
        for (int j = 0; j < i; j++) {
            bool same = i == 7 && j == 0; /* another path of equal content, another window length */
            EXPECT((strcmp(keys[i], keys[j]) == 0) == same, "case %d and %d: key %s", j, i, keys[i]);
            char *a = p4_token_cache_path("f", keys[i]), *b = p4_token_cache_path("f", keys[j]);
            EXPECT((strcmp(a, b) == 0) == same, "case %d and %d: file %s", j, i, a);
            free(a);
            free(b);
        }
    }
    char *named = p4_token_cache_path("f", "foobar"); /* the published value of FNV-1a */
    EXPECT(named != NULL && strcmp(named, "f/tokens-85944171f73967e8.p4tokens") == 0, "%s", named);
    free(named);
    for (int i = 0; i < 8; i++) {
        free(keys[i]);
    }
    for (int i = 0; i < 4; i++) {
        free(paths[i]);
    }
    p4_tokenizer_close((p4_tokenizer *)(uintptr_t)other.tokenizer);
}

/* ---- training sets ---- */

/* Opens a set on a path; expects so many windows. */
static p4_training_set *open_set(char *path, const char *folder, int64_t windows)
{
    p4_training_set *set = NULL;
    p4_training_source source = {.paths = &path,
                                 .path_count = 1,
                                 .how = windowing(T, 2),
                                 .cache_folder = folder,
                                 .temporary = at("training_tokens.tmp")};
    EXPECT_OK(p4_training_set_open(&set, &group, &source, NULL));
    EXPECT(set == NULL || p4_training_set_count(set) == windows, "%lld windows, expected %lld",
           (long long)p4_training_set_count(set), (long long)windows);
    return set;
}

/* The second set is the cache of the first; other text makes another; a torn file is made again. */
static void caches_are_used_again(void)
{
    char folder[512], file[512],
        *path = p4_strdup(put_text("text.jsonl", "{\"text\":\"0123456\"}\n"
                                                 "{\"text\":\"abcdefghijklmno\"}\n"));
    snprintf(folder, sizeof folder, "%s", at("deep/cache"));
    p4_training_set_close(open_set(path, folder, 3));
    EXPECT(count_files("deep/cache", 0, file) == 1, "not one file in the cache");
    identity first = identify(file);
    p4_training_set *set = open_set(path, folder, 3);
    EXPECT(is_same(first, identify(file)), "the cache was written again");
    int32_t ids[3 * T];
    EXPECT_OK(p4_training_set_schedule(set, 1, 3, 0, 3));
    p4_training_set_step(set, 0);
    p4_training_set_sequences(set, ids, 0, 3);
    for (int i = 0; i < 3; i++) {
        static const char *const windows[] = {"0123456", "abcdefgh", "ijklmno"};
        int w = ids[i * T] == '0' ? 0 : ids[i * T] == 'a' ? 1 : 2;
        for (int j = 0; j < T; j++) {
            EXPECT(ids[i * T + j] == (windows[w][j] != '\0' ? windows[w][j] : END),
                   "window %d, token %d is %d", w, j, (int)ids[i * T + j]);
        }
    }
    p4_training_set_close(set);

    put("text.jsonl", "{\"text\":\"0123456\"}\n", 19);
    p4_training_set_close(open_set(path, folder, 1));
    EXPECT(count_files("deep/cache", first.inode, file) == 2, "other text has no file of its own");
    identity second = identify(file);
    p4_training_set_close(open_set(path, folder, 1));
    EXPECT(is_same(second, identify(file)), "the second cache was written again");

    EXPECT(truncate(file, 200) == 0, "%s", file); /* torn */
    p4_training_set_close(open_set(path, folder, 1));
    identity third = identify(file);
    EXPECT(!is_same(second, third), "the torn file is still there");
    p4_training_set_close(open_set(path, folder, 1));
    EXPECT(is_same(third, identify(file)), "the file that replaced it was written again");
    free(path);
}

/* Without a folder the tokens are in a file that goes with the set. */
static void temporary_files_go(void)
{
    char *path = p4_strdup(put_text("t.txt", "0123456"));
    p4_training_set *set = open_set(path, "", 1);
    EXPECT(access(at("training_tokens.tmp"), F_OK) == 0, "no file while the set is open");
    p4_training_set_close(set);
    EXPECT(access(at("training_tokens.tmp"), F_OK) != 0, "the file is left behind");

    p4_training_source source = {.paths = &path,
                                 .path_count = 1,
                                 .how = windowing(9, 2),
                                 .cache_folder = "",
                                 .temporary = at("training_tokens.tmp")};
    EXPECT_REFUSED(p4_training_set_open(&set, &group, &source, NULL),
                   "8 tokens, less than one window of 9 tokens: give more text");
    EXPECT(set == NULL && access(at("training_tokens.tmp"), F_OK) != 0, "something is left after an error");
    source.temporary = at("missing/tokens.tmp");
    EXPECT_REFUSED(p4_training_set_open(&set, &group, &source, NULL), "missing/tokens.tmp");
    source.cache_folder = at("t.txt");
    EXPECT_REFUSED(p4_training_set_open(&set, &group, &source, NULL), "t.txt: is a file where a directory");
    free(path);
}

/* Of much text a sample is tokenized, of which a step limit needs only so much; the sample has its own cache.
 */
static void samples_are_cached_apart(void)
{
    enum { BYTES = 8 << 20 };
    char *text = malloc(BYTES), file[512], folder[512];
    memset(text, 'a', BYTES);
    for (int i = 63; i < BYTES; i += 64) {
        text[i] = '\n';
    }
    char *path = p4_strdup(put("much.txt", text, BYTES));
    snprintf(folder, sizeof folder, "%s", at("samples"));
    p4_training_set *set = NULL;
    p4_training_source source = {.paths = &path,
                                 .path_count = 1,
                                 .how = windowing(64, 2),
                                 .windows = 50,
                                 .cache_folder = folder,
                                 .temporary = ""};
    identity first = {0};
    for (int run = 0; run < 2; run++) {
        EXPECT_OK(p4_training_set_open(&set, &group, &source, NULL));
        EXPECT(p4_training_set_count(set) >= 50 && p4_training_set_count(set) < BYTES / 64 / 4,
               "%lld windows were made of a sample", (long long)p4_training_set_count(set));
        p4_training_set_close(set);
        EXPECT(count_files("samples", 0, file) == 1, "not one file");
        EXPECT(run == 0 || is_same(first, identify(file)), "the sample was tokenized again");
        first = identify(file);
    }
    source.windows = 0;
    EXPECT_OK(p4_training_set_open(&set, &group, &source, NULL));
    EXPECT(p4_training_set_count(set) == (BYTES + 1) / 64, "%lld windows",
           (long long)p4_training_set_count(set));
    p4_training_set_close(set);
    EXPECT(count_files("samples", 0, file) == 2, "not two files");
    free(path);
    free(text);
}

/* Writes one byte of a file in place. */
static void edit(const char *path, long offset, char byte)
{
    FILE *file = fopen(path, "r+b");
    EXPECT(file != NULL && fseek(file, offset, SEEK_SET) == 0 && fputc(byte, file) == byte &&
               fclose(file) == 0,
           "%s cannot be edited", path);
}

/* A file over 16 MiB is fingerprinted by samples; an edit between them is noticed all the same, in place by
 * the time of the write, and by the inode where a new file has the time of the old one. */
static void edits_between_samples_are_noticed(void)
{
    enum { MIB = 1 << 20, BYTES = 40 * MIB, BETWEEN = MIB + 10 };
    static const struct timespec written[] = {{.tv_sec = 1000000000}, {.tv_sec = 1000000000, .tv_nsec = 123}};
    char *text = malloc(BYTES), *keys[4], file[512], folder[512];
    memset(text, 'a', BYTES);
    for (int i = 63; i < BYTES; i += 64) {
        text[i] = '\n';
    }
    char *path = p4_strdup(put("large.txt", text, BYTES));
    const p4_texts texts = {.paths = &path, .count = 1};
    const p4_windowing how = windowing(64, 2);
    p4_training_set *set = NULL;
    snprintf(folder, sizeof folder, "%s", at("edited"));
    p4_training_source source = {
        .paths = &path, .path_count = 1, .how = how, .windows = 50, .cache_folder = folder, .temporary = ""};
    for (int run = 0; run < 4; run++) { /* as written, again, edited in place, and exchanged */
        if (run == 2) {
            edit(path, BETWEEN, 'b');
        }
        if (run == 3) {
            text[BETWEEN] = 'c';
            put("new.txt", text, BYTES);
            EXPECT(rename(at("new.txt"), path) == 0, "%s", path);
        }
        if (run != 2) { /* the clock of a file system may be too coarse to tell two writes apart */
            EXPECT(utimensat(AT_FDCWD, path, written, 0) == 0, "%s", path);
        }
        EXPECT_OK(p4_token_cache_key(&keys[run], &texts, &how));
        EXPECT_OK(p4_training_set_open(&set, &group, &source, NULL));
        p4_training_set_close(set);
        EXPECT(count_files("edited", 0, file) == (run < 2 ? 1 : run), "run %d: %d files in the cache", run,
               count_files("edited", 0, file));
    }
    EXPECT(strcmp(keys[0], keys[1]) == 0, "a file that nobody changed has two keys");
    EXPECT(strcmp(keys[0], keys[2]) != 0, "an edit in place is not noticed");
    EXPECT(strcmp(keys[0], keys[3]) != 0 && strcmp(keys[2], keys[3]) != 0, "another file is not noticed");
    for (int run = 0; run < 4; run++) {
        free(keys[run]);
    }
    free(path);
    free(text);
}

int main(void)
{
    p4_machine machine;
    EXPECT_OK(p4_machine_open(&machine));
    EXPECT_OK(p4_group_open(&group, &machine, NULL, 60));
    world_begin();
    make_tokenizer();
    caches_are_made_and_refused();
    keys_tell_contents_apart();
    caches_are_used_again();
    temporary_files_go();
    samples_are_cached_apart();
    edits_between_samples_are_noticed();
    p4_tokenizer_close(tokenizer);
    world_end();
    p4_group_close(&group);
    p4_machine_close(&machine);
    return TEST_END();
}
