/* What is drawn where fewer windows are wanted than there are (io/text/sample.h). A token here is a byte, and
 * every 16 bytes of the texts say where they stand, so a window says where it was drawn. */
#include "byte_tokenizer.h"
#include "dataset_world.h"
#include "io/text/sample.h"

enum { MARK = 16, T = 64 };

/* "<file>:<13 digits> ": which byte of the file's texts this is. */
static void put_marks(char *to, char file, int64_t at, int64_t bytes)
{
    char mark[MARK + 16];
    for (int64_t i = 0; i < bytes; i++) {
        if (i % MARK == 0) {
            snprintf(mark, sizeof mark, "%c:%013lld ", file, (long long)(at + i));
        }
        to[i] = mark[i % MARK];
    }
}

/* A file of JSONL with `lines` texts of about `bytes` each, as it is and in gzip. */
static void make_jsonl(char file, int64_t lines, int64_t bytes, const char *extra, char **plain,
                       char **packed)
{
    size_t used = 0, packed_bytes, capacity = (size_t)(lines * (2 * bytes + 64 + (int64_t)strlen(extra)));
    char *all = malloc(capacity), name[32];
    for (int64_t i = 0, at = 0; i < lines; i++) {
        int64_t length = (bytes / 2 + i * 7919 % bytes) / MARK * MARK;
        used += (size_t)sprintf(all + used, "{%s\"text\":\"", extra);
        put_marks(all + used, file, at, length);
        used += (size_t)length;
        used += (size_t)sprintf(all + used, "\"}\n");
        at += length;
    }
    snprintf(name, sizeof name, "%c.jsonl", file);
    *plain = p4_strdup(put(name, all, used));
    if (packed != NULL) {
        char *gz = gzipped(all, used, &packed_bytes);
        snprintf(name, sizeof name, "%c.jsonl.gz", file);
        *packed = p4_strdup(put(name, gz, packed_bytes));
        free(gz);
    }
    free(all);
}

/* Where a window was drawn: the file of its first whole mark, and the mark's number; -1: it has none. */
static int64_t place(const int32_t *ids, char *file)
{
    for (int i = 0; i + MARK <= T; i++) {
        if (ids[i + 1] == ':' && ids[i + MARK - 1] == ' ') {
            int64_t at = 0;
            for (int j = 2; j < MARK - 1; j++) {
                at = 10 * at + ids[i + j] - '0';
            }
            *file = (char)ids[i];
            return at;
        }
    }
    return -1;
}

static char *sampled_documents(const char *path, double stride, uint64_t seed)
{
    p4_documents *documents;
    p4_document document;
    p4_draw draw = {.block_bytes = 16 << 10, .stride = stride, .seed = seed, .stream = 5};
    char *all = calloc(1, 8 << 20);
    size_t used = 0;
    EXPECT_OK(p4_documents_open(&documents, path));
    p4_documents_sample(documents, &draw);
    while (p4_documents_next(documents, &document) == P4_OK && document.bytes >= 0) {
        EXPECT(!document.continues, "a drawn document that goes on");
        memcpy(all + used, document.text, (size_t)document.bytes);
        used += (size_t)document.bytes;
        all[used++] = '|';
    }
    EXPECT(p4_last_error()[0] == '\0', "%s", p4_last_error());
    p4_documents_close(documents);
    return all;
}

/* One block of `stride` is drawn, spread over the file, and the same whether the file is compressed or not.
 */
static void samples_do_not_depend_on_compression(void)
{
    char *plain, *packed;
    make_jsonl('a', 2000, 1000, "", &plain, &packed);
    char *of_plain = sampled_documents(plain, 10, 1), *of_packed = sampled_documents(packed, 10, 1);
    EXPECT(strcmp(of_plain, of_packed) == 0, "the samples differ: %zu and %zu bytes", strlen(of_plain),
           strlen(of_packed));
    double part = (double)strlen(of_plain) / 2e6;
    EXPECT(part > 0.05 && part < 0.2, "%g of the text was drawn, expected a tenth", part);
    char *other = sampled_documents(plain, 10, 2);
    EXPECT(strcmp(of_plain, other) != 0, "another seed draws the same");
    char *all = sampled_documents(plain, 1, 3), *expected = read_all(plain);
    EXPECT(strcmp(all, expected) == 0, "one block of each one is not all: %zu of %zu bytes", strlen(all),
           strlen(expected));
    free(all);
    free(expected);
    free(other);
    free(of_plain);
    free(of_packed);
    free(plain);
    free(packed);
}

/* A long text falls into documents of at most a block, which begin and end with lines. */
static void long_texts_are_sampled_in_pieces(void)
{
    enum { BYTES = 3000000, LINE = 5 * MARK };
    char *text = malloc(BYTES + 1);
    size_t packed_bytes;
    put_marks(text, 't', 0, BYTES);
    for (int i = LINE - 1; i < BYTES; i += LINE) {
        text[i] = '\n';
    }
    text[BYTES] = '\0';
    char *gz = gzipped(text, BYTES, &packed_bytes);
    char *of_plain = sampled_documents(put("t.txt", text, BYTES), 7.3, 1);
    char *of_packed = sampled_documents(put("t.txt.gz", gz, packed_bytes), 7.3, 1);
    EXPECT(strcmp(of_plain, of_packed) == 0, "the samples differ: %zu and %zu bytes", strlen(of_plain),
           strlen(of_packed));
    int64_t pieces = 0;
    for (char *piece = strtok(of_plain, "|"); piece != NULL; piece = strtok(NULL, "|"), pieces++) {
        const char *found = strstr(text, piece);
        size_t length = strlen(piece);
        EXPECT(found != NULL && length > (16 << 10) - 2 * LINE && length <= 16 << 10, "a piece of %zu bytes",
               length);
        EXPECT(found == NULL || ((found - text) % LINE == 0 && piece[length - 1] == '\n'),
               "piece %lld is not cut at line ends", (long long)pieces);
    }
    EXPECT(pieces >= 24 && pieces <= 26, "%lld pieces of 183", (long long)pieces);
    expect_documents(put("none.txt", "", 0), "|");
    free(of_plain);
    free(of_packed);
    free(gz);
    free(text);
}

static void expect_same(const p4_windows *a, const p4_windows *b)
{
    EXPECT(a->count == b->count && a->T == b->T &&
               memcmp(a->ids, b->ids, (size_t)(a->count * a->T) * sizeof *a->ids) == 0,
           "the windows differ");
}

/* Files of very different sizes: each gives windows, about as many as its size asks for, from all of it and
 * in its order; the same for any number of threads, others for another seed, and little is tokenized for it.
 */
static void all_files_contribute(void)
{
    enum { FILES = 3, LIMIT = 100 };
    static const int64_t lines[FILES] = {30, 8000, 600};
    char *paths[FILES];
    p4_windows windows, other;
    int64_t counts[FILES] = {0}, lowest[FILES], highest[FILES];
    for (int f = 0; f < FILES; f++) {
        make_jsonl((char)('a' + f), lines[f], 1000, "", &paths[f], NULL);
        lowest[f] = INT64_MAX;
        highest[f] = -1;
    }
    p4_windowing how = windowing(T, 1);
    EXPECT_OK(p4_windows_read(&windows, paths, FILES, &how, LIMIT));
    EXPECT(windows.count == LIMIT, "%lld windows", (long long)windows.count);
    EXPECT(windows.tokens_total < 3000000, "%lld tokens of 8.6 million were made",
           (long long)windows.tokens_total);
    char before = 'a';
    for (int64_t i = 0; i < windows.count; i++) {
        char file = '?';
        int64_t at = place(windows.ids + i * T, &file), f = file - 'a';
        EXPECT(at >= 0 && f >= 0 && f < FILES && file >= before, "window %lld is of file %c", (long long)i,
               file);
        if (f >= 0 && f < FILES) {
            EXPECT(at > highest[f], "window %lld of file %c is out of order", (long long)i, file);
            counts[f]++;
            lowest[f] = p4_min_i64(lowest[f], at);
            highest[f] = p4_max_i64(highest[f], at);
            before = file;
        }
    }
    EXPECT(counts[0] >= 1 && counts[0] <= 3 && counts[1] > 80 && counts[2] >= 3 && counts[2] <= 15,
           "%lld, %lld and %lld windows", (long long)counts[0], (long long)counts[1], (long long)counts[2]);
    EXPECT(lowest[1] < 400000 && highest[1] > 7600000, "only bytes %lld to %lld of 8 million are drawn from",
           (long long)lowest[1], (long long)highest[1]);
    for (int threads = 0; threads <= 5; threads++) {
        how.threads = threads;
        EXPECT_OK(p4_windows_read(&other, paths, FILES, &how, LIMIT));
        expect_same(&windows, &other);
        p4_windows_free(&other);
    }
    how.seed = 43;
    EXPECT_OK(p4_windows_read(&other, paths, FILES, &how, LIMIT));
    EXPECT(memcmp(windows.ids, other.ids, LIMIT * T * sizeof *other.ids) != 0, "another seed draws the same");
    p4_windows_free(&other);
    p4_windows_free(&windows);
    for (int f = 0; f < FILES; f++) {
        free(paths[f]);
    }
}

/* More files than windows: some are drawn, no two windows of a small file. */
static void some_of_many_files_are_drawn(void)
{
    enum { FILES = 50, LIMIT = 10 };
    char *paths[FILES], text[4097] = "", name[32];
    p4_windows windows;
    p4_windowing how = windowing(T, 2);
    int64_t files = 0;
    for (int f = 0; f < FILES; f++) {
        put_marks(text, (char)('0' + f), 0, 4096);
        snprintf(name, sizeof name, "many-%02d.txt", f);
        paths[f] = p4_strdup(put(name, text, 4096));
    }
    EXPECT_OK(p4_windows_read(&windows, paths, FILES, &how, LIMIT));
    EXPECT(windows.count == LIMIT, "%lld windows", (long long)windows.count);
    char last = '\0';
    for (int64_t i = 0; i < windows.count; i++) {
        char file = '?';
        place(windows.ids + i * T, &file);
        files += file > last;
        last = file;
    }
    EXPECT(files == LIMIT, "%lld windows of %lld files", (long long)windows.count, (long long)files);
    EXPECT(windows.tokens_total < FILES * 4096 / 2, "%lld tokens", (long long)windows.tokens_total);
    p4_windows_free(&windows);
    for (int f = 0; f < FILES; f++) {
        free(paths[f]);
    }
}

/* Lines that hold far more than their text: what was planned falls short, and more is drawn until it is
 * enough; what is wanted of all that there is comes whole and in the files' order. */
static void short_draws_are_repeated(void)
{
    char extra[4096], *path;
    memset(extra, 'x', sizeof extra);
    memcpy(extra, "\"other\":\"", 9);
    memcpy(extra + sizeof extra - 3, "\",", 3);
    make_jsonl('l', 2000, 64, extra, &path, NULL);
    p4_windows all, windows;
    p4_windowing how = windowing(T, 2);
    EXPECT_OK(p4_windows_read(&all, &path, 1, &how, 0));
    EXPECT_OK(p4_windows_read(&windows, &path, 1, &how, 100));
    EXPECT(windows.count == 100 && windows.tokens_total < all.tokens_total / 2, "%lld windows, %lld tokens",
           (long long)windows.count, (long long)windows.tokens_total);
    p4_windows_free(&windows);
    EXPECT_OK(p4_windows_read(&windows, &path, 1, &how, all.count - 1));
    EXPECT(windows.count == all.count - 1, "%lld windows", (long long)windows.count);
    p4_windows_free(&windows);
    EXPECT_OK(p4_windows_read(&windows, &path, 1, &how, all.count));
    expect_same(&windows, &all);
    p4_windows_free(&windows);
    EXPECT_OK(p4_windows_read(&windows, &path, 1, &how, 1000000));
    expect_same(&windows, &all);
    p4_windows_free(&windows);
    p4_windows_free(&all);
    free(path);
}

/* Text beside a token file: each counts with the windows that it has, though of the text only a part is read.
 */
static void text_and_tokens_share(void)
{
    enum { TOKENS = 6000000, LIMIT = 200 };
    uint16_t *ids = malloc(TOKENS * sizeof *ids);
    for (int i = 0; i < TOKENS; i++) {
        ids[i] = 256;
    }
    char *paths[2];
    make_jsonl('a', 18000, 1000, "", &paths[0], NULL);
    paths[1] = p4_strdup(put("b.bin", ids, TOKENS * sizeof *ids));
    p4_windows windows;
    p4_windowing how = windowing(T, 2);
    how.end_id = -1;
    int64_t of_tokens = 0;
    EXPECT_OK(p4_windows_read(&windows, paths, 2, &how, LIMIT));
    for (int64_t i = 0; i < windows.count; i++) {
        of_tokens += windows.ids[i * T] == 256;
    }
    EXPECT(windows.count == LIMIT && of_tokens >= 45 && of_tokens <= 55,
           "%lld windows, %lld of the token file", (long long)windows.count, (long long)of_tokens);
    EXPECT(windows.tokens_total < TOKENS + 9000000, "the text was tokenized whole");
    p4_windows_free(&windows);
    free(paths[0]);
    free(paths[1]);
    free(ids);
}

/* Windows that are set aside are spread over all; nothing is lost and the order stays. */
static void windows_are_set_aside(void)
{
    enum { COUNT = 100, ASIDE = 10 };
    p4_windows from = {.count = COUNT, .T = 2}, to;
    from.ids = p4_alloc(2 * COUNT, sizeof *from.ids);
    for (int i = 0; i < 2 * COUNT; i++) {
        from.ids[i] = i;
    }
    EXPECT_OK(p4_windows_set_aside(&from, &to, ASIDE, 3));
    EXPECT(from.count == COUNT - ASIDE && to.count == ASIDE, "%lld and %lld windows", (long long)from.count,
           (long long)to.count);
    bool seen[COUNT] = {false};
    for (int i = 0; i < COUNT; i++) {
        const int32_t *ids = i < ASIDE ? to.ids + 2 * i : from.ids + 2 * (i - ASIDE);
        EXPECT(ids[0] % 2 == 0 && ids[1] == ids[0] + 1 && !seen[ids[0] / 2], "window %d", (int)ids[0] / 2);
        seen[ids[0] / 2] = true;
        EXPECT(i < ASIDE ? ids[0] / 2 / (COUNT / ASIDE) == i : i == ASIDE || ids[0] > ids[-2],
               "window %d is number %d", (int)ids[0] / 2, i);
    }
    p4_windows_free(&to);
    EXPECT_OK(p4_windows_copy_some(&from, &to, 9, 3));
    EXPECT(from.count == COUNT - ASIDE && to.count == 9 && to.T == 2, "%lld windows copied",
           (long long)to.count);
    for (int i = 0; i < 9; i++) {
        const int32_t *ids = to.ids + 2 * i;
        EXPECT(ids[1] == ids[0] + 1 && ids[0] / 2 / 10 >= i - 1 && ids[0] / 2 / 10 <= i + 1 &&
                   (i == 0 || ids[0] > ids[-2]),
               "copy %d is window %d", i, (int)ids[0] / 2);
    }
    p4_windows_free(&from);
    p4_windows_free(&to);
}

/* Shares and places are right for any number of windows and files. */
static void picks_are_distinct(void)
{
    static const int64_t counts[] = {0, 1, 1000, 0, 3, 17, 1};
    enum { RANGES = sizeof counts / sizeof counts[0], ALL = 1022 };
    p4_window_range ranges[RANGES];
    for (int i = 0; i < RANGES; i++) {
        ranges[i] = (p4_window_range){counts[i], i == 5 ? 1e6 : 1}; /* its share exceeds what it has */
    }
    for (int64_t wanted = 1; wanted <= ALL; wanted += wanted < 40 ? 1 : 97) {
        int64_t picks[ALL], of_large = 0;
        EXPECT_OK(p4_pick_windows(picks, wanted, ranges, RANGES, NULL, 9));
        for (int64_t i = 0; i < wanted; i++) {
            EXPECT(picks[i] >= 0 && picks[i] < ALL && (i == 0 || picks[i] > picks[i - 1]),
                   "pick %lld is %lld", (long long)i, (long long)picks[i]);
            of_large += picks[i] >= 1004 && picks[i] < 1021;
        }
        EXPECT(of_large == p4_min_i64(17, wanted <= 4 ? wanted : wanted - 4), "%lld of %lld are of one file",
               (long long)of_large, (long long)wanted);
    }
}

int main(void)
{
    world_begin();
    make_tokenizer();
    samples_do_not_depend_on_compression();
    long_texts_are_sampled_in_pieces();
    all_files_contribute();
    some_of_many_files_are_drawn();
    short_draws_are_repeated();
    text_and_tokens_share();
    windows_are_set_aside();
    picks_are_distinct();
    p4_tokenizer_close(tokenizer);
    world_end();
    return TEST_END();
}
