/* Windows of token ids out of text, token files and samples (io/text/dataset.h). The tokenizer here gives a
 * byte its value as id, so that what must come out can be written down. */
#include "byte_tokenizer.h"
#include "dataset_world.h"
#include "listen.h"

/* The ids of texts with END after each: what the windows must be cut from. */
typedef struct id_stream {
    int32_t *ids;
    int64_t count, documents;
} id_stream;

static void stream_add(id_stream *stream, const char *text, bool ends)
{
    size_t bytes = strlen(text);
    stream->ids = realloc(stream->ids, ((size_t)stream->count + bytes + 1) * sizeof *stream->ids);
    for (size_t i = 0; i < bytes; i++) {
        stream->ids[stream->count++] = (unsigned char)text[i];
    }
    if (ends) {
        stream->ids[stream->count++] = END;
    }
    stream->documents++;
}

static void expect_windows(const p4_windows *windows, const id_stream *stream, int64_t T, int64_t count)
{
    EXPECT(windows->T == T && windows->count == count, "%lld windows of %lld, expected %lld of %lld",
           (long long)windows->count, (long long)windows->T, (long long)count, (long long)T);
    if (windows->count == count && stream->count >= count * T) {
        EXPECT(memcmp(windows->ids, stream->ids, (size_t)(count * T) * sizeof *stream->ids) == 0,
               "the ids differ");
    }
}

/* A file of `lines` documents of mixed lengths and its stream. */
static char *make_file(const char *name, int lines, unsigned salt, id_stream *stream)
{
    size_t capacity = 64;
    for (int line = 0; line < lines; line++) {
        capacity += (salt + (unsigned)line * 7919u) % 4000u + 16;
    }
    char *text = malloc(capacity), *document = malloc(4096);
    size_t used = 0;
    for (int line = 0; line < lines; line++) {
        size_t length = (salt + (unsigned)line * 7919u) % 4000u;
        for (size_t i = 0; i < length; i++) {
            document[i] = (char)('a' + (i * (salt + 3) + (size_t)line) % 26);
        }
        document[length] = '\0';
        used += (size_t)sprintf(text + used, "{\"text\":\"%s\"}\n", document);
        stream_add(stream, document, true);
    }
    size_t packed_bytes;
    char *packed = gzipped(text, used, &packed_bytes);
    char *path = p4_strdup(put(name, packed, packed_bytes));
    free(packed);
    free(document);
    free(text);
    return path;
}

/* More text than the reader reads ahead, over two files: the same windows on any number of threads. */
static void windows_do_not_depend_on_threads(void)
{
    enum { T = 61 };
    id_stream stream = {.ids = NULL};
    char *paths[] = {make_file("a.jsonl.gz", 1500, 17, &stream), make_file("b.jsonl.gz", 700, 5, &stream)};
    static const int thread_counts[] = {0, 1, 2, 3, 8};
    for (size_t i = 0; i < sizeof thread_counts / sizeof thread_counts[0]; i++) {
        p4_windowing how = windowing(T, thread_counts[i]);
        p4_windows windows;
        EXPECT_OK(p4_windows_read(&windows, paths, 2, &how, 0));
        expect_windows(&windows, &stream, T, stream.count / T);
        EXPECT(windows.tokens_total == stream.count && windows.documents == stream.documents,
               "%lld tokens, %lld documents", (long long)windows.tokens_total, (long long)windows.documents);
        p4_windows_free(&windows);
    }
    free(paths[0]);
    free(paths[1]);
    free(stream.ids);
}

/* Without an end id nothing is appended; long text in pieces is one document with one end. */
static void ends_are_appended_once(void)
{
    p4_windows windows;
    p4_windowing how = windowing(2, 2);
    char *path = p4_strdup(put_text("ends.jsonl", "{\"text\":\"abc\"}\n{\"text\":\"\"}\n{\"text\":\"de\"}"));
    EXPECT_OK(p4_windows_read(&windows, &path, 1, &how, 0));
    static const int32_t with_end[] = {'a', 'b', 'c', END, END, 'd', 'e', END};
    EXPECT(windows.count == 4 && memcmp(windows.ids, with_end, sizeof with_end) == 0, "%lld windows",
           (long long)windows.count);
    p4_windows_free(&windows);
    how.end_id = -1;
    EXPECT_OK(p4_windows_read(&windows, &path, 1, &how, 0));
    static const int32_t without[] = {'a', 'b', 'c', 'd'};
    EXPECT(windows.count == 2 && memcmp(windows.ids, without, sizeof without) == 0 &&
               windows.tokens_total == 5,
           "%lld windows", (long long)windows.count);
    p4_windows_free(&windows);
    free(path);

    enum { LONG = (9 << 20) + 5, T = 1000 };
    char *text = malloc(LONG + 32);
    for (size_t i = 0; i < LONG; i++) {
        text[i] = i % 80 == 79 ? '\n' : (char)('a' + i % 26);
    }
    text[LONG] = '\0';
    id_stream stream = {.ids = NULL};
    stream_add(&stream, text, true);
    path = p4_strdup(put("long.txt", text, LONG));
    how = windowing(T, 3);
    EXPECT_OK(p4_windows_read(&windows, &path, 1, &how, 0));
    expect_windows(&windows, &stream, T, (LONG + 1) / T);
    EXPECT(windows.tokens_total == LONG + 1 && windows.documents == 1, "%lld tokens in %lld documents",
           (long long)windows.tokens_total, (long long)windows.documents);
    p4_windows_free(&windows);
    free(path);
    free(stream.ids);
    free(text);
}

static void errors_name_their_place(void)
{
    p4_windows windows;
    p4_windowing how = windowing(4, 2), other = how;
    char *path =
        p4_strdup(put_text("late.jsonl", "{\"text\":\"abcdefgh\"}\n{\"text\":\"ij\"}\n{\"text\":3}\n"));
    EXPECT_REFUSED(p4_windows_read(&windows, &path, 1, &how, 0), "late.jsonl line 3: field \"text\"");
    EXPECT(windows.ids == NULL && windows.count == 0, "windows are left after an error");
    other.vocab = 'i'; /* its document comes before the line that is wrong */
    other.end_id = -1;
    EXPECT_REFUSED(p4_windows_read(&windows, &path, 1, &other, 0),
                   "late.jsonl: document 2: the tokenizer gives id 105");
    other = how;
    other.tokenizer = NULL;
    EXPECT_REFUSED(p4_windows_read(&windows, &path, 1, &other, 0), "text needs a tokenizer");
    other = how;
    other.end_id = VOCAB;
    EXPECT_REFUSED(p4_windows_read(&windows, &path, 1, &other, 0), "the end-of-text id is 300");
    EXPECT_REFUSED(p4_windows_read(&windows, &path, 1, &how, INT64_MAX), "too many");
    EXPECT_REFUSED(p4_windows_read(&windows, &path, 0, &how, 2), "no files");
    free(path);
    path = p4_strdup(put_text("short.txt", "abc"));
    how.T = 5;
    EXPECT_REFUSED(p4_windows_read(&windows, &path, 1, &how, 0),
                   "short.txt: 4 tokens, less than one window of 5 tokens");
    free(path);
    path = p4_strdup(put_text("nothing.txt", ""));
    EXPECT_REFUSED(p4_windows_read(&windows, &path, 1, &how, 0), "nothing.txt is empty: no text");
    char *both[] = {path, path};
    EXPECT_REFUSED(p4_windows_read(&windows, both, 2, &how, 0),
                   "the files of text and tokens are empty: no text");
    free(path);
}

static void samples_are_read(void)
{
    static const char *const samples[] = {"abc", "", "defg"};
    static const int32_t expected[] = {'a', 'b', 'c', END, END, 'd', 'e', 'f', 'g'};
    p4_windows windows;
    p4_windowing how = windowing(3, 2), other = how;
    EXPECT_OK(p4_windows_from_samples(&windows, samples, 3, &how, 0));
    EXPECT(windows.count == 3 && memcmp(windows.ids, expected, sizeof expected) == 0, "%lld windows",
           (long long)windows.count);
    EXPECT(windows.documents == 3 && windows.tokens_total == 10, "%lld documents",
           (long long)windows.documents);
    p4_windows_free(&windows);
    /* One that begins in each of two samples. */
    EXPECT_OK(p4_windows_from_samples(&windows, samples, 3, &how, 2));
    EXPECT(windows.count == 2 && windows.ids[3] == 'e', "%lld windows, the last begins with %d",
           (long long)windows.count, (int)windows.ids[3]);
    p4_windows_free(&windows);
    other.vocab = 'g';
    other.end_id = -1;
    EXPECT_REFUSED(p4_windows_from_samples(&windows, samples, 3, &other, 0),
                   "samples: document 3: the tokenizer gives id 103; the model's vocabulary holds 0 to 102");
    EXPECT_REFUSED(p4_windows_from_samples(&windows, samples, 0, &how, 0), "no samples");
    how.T = 9;
    EXPECT_REFUSED(p4_windows_from_samples(&windows, samples, 1, &how, 0), "the samples: 4 tokens");
}

/* Reads the files and expects the warning, or none (""). */
static void expect_warning(char *const *paths, int64_t count, const char *want)
{
    p4_windows windows;
    p4_windowing how = windowing(3, 1);
    listen_begin();
    EXPECT_OK(p4_windows_read(&windows, paths, count, &how, 0));
    const char *said = listen_end();
    EXPECT(want[0] != '\0' ? strstr(said, want) != NULL : said[0] == '\0', "\"%s\" lacks \"%s\"", said, want);
    p4_windows_free(&windows);
}

/* Halves of surrogate pairs count like bytes that are no UTF-8. */
static void replaced_bytes_are_reported(void)
{
    char *paths[] = {p4_strdup(put_text("good.txt", "a good text")),
                     p4_strdup(put_text("halves.jsonl", "{\"text\":\"\\ud800a\\udc00\"}")),
                     p4_strdup(put_text("latin.txt", "caf\xe9 is not UTF-8"))};
    expect_warning(paths, 1, "");
    expect_warning(paths, 2, "/halves.jsonl: 2 bytes not in UTF-8, replaced by U+FFFD\n");
    expect_warning(paths + 2, 1, "/latin.txt: 1 byte not in UTF-8, replaced by U+FFFD\n");
    expect_warning(paths, 3, "/halves.jsonl and 1 other file: 3 bytes not in UTF-8, replaced by U+FFFD\n");
    for (int i = 0; i < 3; i++) {
        free(paths[i]);
    }
}

int main(void)
{
    world_begin();
    make_tokenizer();
    windows_do_not_depend_on_threads();
    ends_are_appended_once();
    errors_name_their_place();
    samples_are_read();
    replaced_bytes_are_reported();
    p4_tokenizer_close(tokenizer);
    world_end();
    return TEST_END();
}
