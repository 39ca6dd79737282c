/* Documents out of files: JSONL, text and articles (io/text/dataset.h). */
#include "dataset_world.h"

enum { PIECE_BYTES = 4 << 20 };

static void jsonl_is_read(void)
{
    expect_documents(put_text("a.jsonl", "{\"text\":\"one\"}\n{\"text\": \"two\" }\n"), "one|two|");
    expect_documents(put_text("bom.jsonl", "\xef\xbb\xbf{\"text\":\"a\"}\r\n\r\n  \n{\"text\":\"b\\r\\n\"}"),
                     "a|b\r\n|");
    expect_documents(
        put_text("escapes.jsonl",
                 "{\"text\":\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u0041\\u00e9\\u20aC\\ud83d\\uDE00.\"}"),
        "\"\\/\b\f\n\r\tA\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80.|");
    expect_documents(put_text("fallback.json",
                              "{\"content\":\"c\"}\n{\"document\":\"d\",\"raw_content\":\"r\"}\n"
                              "{\"content\":\"no\",\"text\":\"yes\"}\n{\"content\":[1],\"document\":\"d\"}"),
                     "c|r|yes|d|");
    expect_documents(
        put_text(
            "others.jsonl",
            " { \"url\" : \"h\\u0074tp\", \"n\" : -0.5e+10 , \"x\":{\"text\":\"inner\",\"a\":[[],{},[1,{}]]},"
            "\"t\":true,\"f\":false,\"z\":null,\"q\":NaN,\"i\":-Infinity, \"te\\u0078t\":\"outer\"} \n"),
        "outer|");
    expect_documents(put_text("empty_text.jsonl", "{\"text\":\"\"}\n{\"text\":\"a\"}\n{\"text\":\"\"}"),
                     "|a||");
    expect_documents(put_text("twice.jsonl", "{\"text\":\"a\",\"text\":\"b\"}"), "b|");
    expect_documents(put_text("empty.jsonl", ""), "");
    expect_documents(put_text("no_ending", "\n {\"text\":\"seen by content\"}"), "seen by content|");
}

/* Halves of surrogate pairs, and NUL characters: each becomes U+FFFD and is counted. */
static void lone_surrogates_are_counted(void)
{
    const char *path =
        put_text("halves.jsonl", "{\"text\":\"\\ud800x\\udc00\\ud800\\ud83d\\ude00\\ud83d\\u0000.\"}");
    p4_documents *documents;
    p4_document document;
    EXPECT_OK(p4_documents_open(&documents, path));
    EXPECT_OK(p4_documents_next(documents, &document));
    const char expected[] = "\xef\xbf\xbdx\xef\xbf\xbd\xef\xbf\xbd\xf0\x9f\x98\x80\xef\xbf\xbd\xef\xbf\xbd.";
    EXPECT(document.bytes == (int64_t)strlen(expected) &&
               memcmp(document.text, expected, strlen(expected)) == 0,
           "got \"%.*s\"", (int)document.bytes, document.text);
    EXPECT(document.replaced == 5, "replaced %lld", (long long)document.replaced);
    p4_documents_close(documents);
}

static void bad_jsonl_is_refused(void)
{
    static const struct {
        const char *lines, *part;
    } cases[] = {
        {"{\"text\":\"a\"}\n{\"txt\":\"b\"}", "line 2: the object has no string field \"text\""},
        {"{}", "line 1: the object has no string field"},
        {"{\"content\":3}", "line 1: the object has no string field"},
        {"{\"text\":null}", "line 1: field \"text\" is not a string"},
        {"{\"text\":\"a\",\"text\":1}", "line 1: field \"text\" is not a string"},
        {"[\n{\"text\":\"a\"}\n]", "line 1 column 1: found '[', expected '{'"},
        {"{\n \"text\": \"a\"\n}", "line 1 column 2: found byte 0x0a, expected valid JSON"},
        {"{\"text\":\"a\"}{\"text\":\"b\"}", "line 1 column 13: found '{', expected the end of the line"},
        {"{\"text\":\"a\",}", "line 1 column 13: found '}', expected valid JSON"},
        {"{\"text\":\"a\" \"b\":1}", "column 13: found '\"', expected valid JSON"},
        {"{\"text\" \"a\"}", "column 9: found '\"', expected valid JSON"},
        {"{\"a\":[1,2},\"text\":\"a\"}", "column 10: found '}', expected valid JSON"},
        {"{\"a\":{\"b\":1],\"text\":\"a\"}", "found ']', expected valid JSON"},
        {"{\"text\":\"unfinished", "column 20: found the end of the line, expected the rest of a string"},
        {"{\"text\":\"tab\there\"}", "found byte 0x09, expected an escape"},
        {"{\"text\":\"\\x41\"}", "expected valid JSON"},
        {"{\"text\":\"\\u12g4\"}", "column 12: found '1', expected four hexadecimal digits"},
        {"{\"text\":\"\\u12", "expected four hexadecimal digits"},
        {"{\"text\":\"\\", "expected the rest of a string"},
        {"{\"a\":tru,\"text\":\"a\"}", "found 't', expected valid JSON"},
        {"{\"a\":NaNa,\"text\":\"a\"}", "expected valid JSON"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        expect_refused(put_text("bad.jsonl", cases[i].lines), cases[i].part);
    }
}

/* Values inside one another: 500 are read, a million are refused, without a stack as deep. */
static void nesting_is_bounded(void)
{
    enum { DEEP = 1000000, READ = 500 };
    char *line = malloc(DEEP + 64);
    int used = sprintf(line, "{\"a\":");
    for (int i = 0; i < READ; i++) {
        used += sprintf(line + used, i % 2 == 1 ? "{\"k\":" : "[");
    }
    line[used++] = '1';
    for (int i = READ - 1; i >= 0; i--) {
        line[used++] = i % 2 == 1 ? '}' : ']';
    }
    used += sprintf(line + used, ",\"text\":\"deep\"}");
    expect_documents(put("deep.jsonl", line, (size_t)used), "deep|");
    memcpy(line, "{\"a\":", 5);
    memset(line + 5, '[', DEEP);
    expect_refused(put("deeper.jsonl", line, DEEP + 5), "expected valid JSON");
    free(line);
}

/* Lines of 9 MB, over many buffers; each is handed out in three pieces. */
static void long_lines_are_read(void)
{
    enum { LONG = 9000001 };
    char *line = malloc(2 * (LONG + 32)), *expected = malloc(2 * LONG + 8);
    size_t used = 0, want = 0;
    for (int i = 0; i < 2; i++) {
        memcpy(line + used, "{\"text\":\"", 9);
        memset(line + used + 9, 'a' + i, LONG);
        memcpy(line + used + 9 + LONG, "\"}\r\n", 4);
        used += LONG + 13;
        memset(expected + want, 'a' + i, LONG);
        want += LONG;
        expected[want++] = '|';
    }
    expected[want] = '\0';
    char *got = read_all(put("long.jsonl", line, used));
    size_t kept = 0;
    for (size_t i = 0; got != NULL && got[i] != '\0'; i++) { /* a '+' marks a piece that is continued */
        got[kept] = got[i];
        kept += got[i] != '+';
    }
    EXPECT(got != NULL && strlen(got) == kept + 4, "%zu characters in other than 6 pieces", kept);
    if (got != NULL) {
        got[kept] = '\0';
    }
    EXPECT(got != NULL && strcmp(got, expected) == 0, "long lines differ: %s", p4_last_error());
    free(got);
    free(line);
    free(expected);
}

static void text_is_one_document(void)
{
    expect_documents(put_text("a.txt", "\xef\xbb\xbfone\r\n{\"text\":\"two\"}\n\n"),
                     "one\r\n{\"text\":\"two\"}\n\n|");
    expect_documents(put_text("empty.txt", ""), "|");
    expect_documents(put_text("brace.txt", "{not JSON}"), "{not JSON}|");
    expect_documents(put_text("notes.md", "# A"), "# A|");
}

/* Long text comes in pieces that put together give the text, cut between two lines that both hold text. */
static void long_text_comes_in_pieces(void)
{
    size_t count = 2 * PIECE_BYTES + 12345, used = 0;
    char *text = malloc(count + 64);
    for (int line = 0; used < count; line++) {
        used +=
            (size_t)sprintf(text + used, line % 3 == 2 ? "\n  indented %d\r\n" : "line %d \xc3\xa9\n", line);
    }
    const char *path = put("long.txt", text, count);
    p4_documents *documents;
    p4_document document = {.continues = true};
    size_t read = 0;
    int pieces = 0;
    EXPECT_OK(p4_documents_open(&documents, path));
    while (document.continues) {
        EXPECT_OK(p4_documents_next(documents, &document));
        size_t bytes = (size_t)document.bytes;
        EXPECT(document.bytes > 0 && document.bytes <= PIECE_BYTES, "a piece of %lld bytes",
               (long long)document.bytes);
        EXPECT(read + bytes <= count && memcmp(document.text, text + read, bytes) == 0, "piece %d differs",
               pieces);
        read += bytes;
        pieces++;
        EXPECT(!document.continues || (text[read - 1] == '\n' && strchr(" \r\n", text[read - 2]) == NULL &&
                                       strchr(" \r\n", text[read]) == NULL),
               "a piece ends at \"%.8s\"", text + read - 4);
    }
    EXPECT(read == count && pieces == 3, "%zu of %zu bytes in %d pieces", read, count, pieces);
    EXPECT_OK(p4_documents_next(documents, &document));
    EXPECT(document.bytes < 0, "a document after the last");
    p4_documents_close(documents);

    for (size_t i = 0; i < count; i++) { /* no line end at all: between two characters */
        text[i] = "\xe2\x82\xac"[(i + 1) % 3];
    }
    EXPECT_OK(p4_documents_open(&documents, put("euros.txt", text, count)));
    EXPECT_OK(p4_documents_next(documents, &document));
    EXPECT(document.continues && document.bytes > PIECE_BYTES - 4 && (document.bytes + 1) % 3 == 0,
           "%lld bytes", (long long)document.bytes);
    p4_documents_close(documents);
    free(text);
}

static void articles_are_split_at_titles(void)
{
    expect_documents(put_text("wiki.train.raw",
                              " \n = One = \n \n text \n \n = = Part = = \n \n more = 2 = \n \n"
                              " = Two = = 2 = \n \n end \n = no title = \n \n"),
                     " \n = One = \n \n text \n \n = = Part = = \n \n more = 2 = \n \n|"
                     " = Two = = 2 = \n \n end \n = no title = \n \n|");
    expect_documents(put_text("crlf.tokens", " = A = \r\n \r\na\r\n\r\n = B = \r\n\r\n = C = "),
                     " = A = \r\n \r\na\r\n\r\n| = B = \r\n\r\n| = C = |");
    expect_documents(put_text("none.raw", "no title"), "no title|");
    expect_documents(put_text("empty.raw", ""), "");
}

int main(void)
{
    world_begin();
    jsonl_is_read();
    lone_surrogates_are_counted();
    bad_jsonl_is_refused();
    nesting_is_bounded();
    long_lines_are_read();
    text_is_one_document();
    long_text_comes_in_pieces();
    articles_are_split_at_titles();
    world_end();
    return TEST_END();
}
