/* Ids and texts of the fixture tokenizers against the reference's (golden.txt, made by
 * fixtures/make_tokenizers.py), the pieces that the published split patterns make, broken UTF-8, long texts,
 * threads. */
#include <pthread.h>
#include <stdlib.h>

#include "check.h"
#include "io/file/files.h"
#include "io/tokenizer/tokenizer.h"
#include "listen.h"

enum { THREADS = 3 };

static p4_tokenizer *tokenizer;
static p4_tokenizer_scratch *scratch;

static void open_in(const char *root, const char *name)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", root, name);
    EXPECT_OK(p4_tokenizer_open(&tokenizer, path));
    EXPECT_OK(p4_tokenizer_scratch_create(&scratch, tokenizer));
}

static void open_fixture(const char *name)
{
    open_in(P4_FIXTURES "/tokenizers", name);
}

static void parse(const char *json)
{
    EXPECT_OK(p4_tokenizer_parse(&tokenizer, json, strlen(json), "test.json"));
    EXPECT_OK(p4_tokenizer_scratch_create(&scratch, tokenizer));
}

static void release(void)
{
    p4_tokenizer_scratch_free(scratch);
    p4_tokenizer_close(tokenizer);
    scratch = NULL;
    tokenizer = NULL;
}

/* --- golden files --- */

typedef struct golden { /* one line */
    char *text, *decoded;
    size_t bytes;
    p4_ids plain, special;
} golden;

static char *from_hex(const char *hex, size_t *bytes)
{
    *bytes = strlen(hex) / 2;
    char *text = p4_alloc(*bytes + 1, 1);
    for (size_t i = 0; text != NULL && i < *bytes; i++) {
        char pair[3] = {hex[2 * i], hex[2 * i + 1], '\0'};
        text[i] = (char)strtoul(pair, NULL, 16);
    }
    return text;
}

static void read_ids(p4_ids *ids, const char *list)
{
    char *end;
    for (long id = strtol(list, &end, 10); end != list; id = strtol(list, &end, 10)) {
        int32_t one = (int32_t)id;
        EXPECT_OK(p4_ids_append(ids, &one, 1));
        list = end;
    }
}

/* *line moves behind it; false at the end. */
static bool read_golden(golden *g, char **line)
{
    char *column[4];
    char *at = *line, *stop = strchr(at, '\n');
    if (stop == NULL) {
        return false;
    }
    *stop = '\0';
    *line = stop + 1;
    for (int i = 0; i < 4; i++) {
        column[i] = at;
        at = i < 3 ? strchr(at, '\t') : at;
        EXPECT(at != NULL, "golden.txt: a line of %d columns", i + 1);
        if (i < 3) {
            *at++ = '\0';
        }
    }
    size_t decoded_bytes;
    *g = (golden){0};
    g->text = from_hex(column[0], &g->bytes);
    g->decoded = strcmp(column[3], "=") == 0 ? from_hex(column[0], &decoded_bytes)
                                             : from_hex(column[3], &decoded_bytes);
    read_ids(&g->plain, column[1]);
    read_ids(&g->special, strcmp(column[2], "=") == 0 ? column[1] : column[2]);
    return true;
}

static void free_golden(golden *g)
{
    free(g->text);
    free(g->decoded);
    p4_ids_free(&g->plain);
    p4_ids_free(&g->special);
}

static bool same(const p4_ids *got, const p4_ids *want)
{
    return got->count == want->count &&
           (got->count == 0 || memcmp(got->ids, want->ids, (size_t)got->count * sizeof *got->ids) == 0);
}

static void expect_golden(const char *name, int number, const golden *g)
{
    p4_ids plain = {0}, special = {0};
    char *decoded = NULL;
    int64_t replaced = 0;
    for (int warm = 0; warm < 2; warm++) { /* from an empty cache, and from what the first time left in it */
        plain.count = special.count = 0;
        EXPECT_OK(p4_tokenizer_encode(tokenizer, scratch, g->text, g->bytes, false, &plain, &replaced));
        EXPECT_OK(p4_tokenizer_encode(tokenizer, scratch, g->text, g->bytes, true, &special, NULL));
        EXPECT(same(&plain, &g->plain), "%s: line %d: %lld ids, want %lld: \"%s\"", name, number,
               (long long)plain.count, (long long)g->plain.count, g->text);
        EXPECT(same(&special, &g->special), "%s: line %d with special tokens: \"%s\"", name, number, g->text);
    }
    EXPECT(replaced == 0, "%s: line %d: %lld bytes replaced", name, number, (long long)replaced);
    EXPECT_OK(p4_tokenizer_decode(tokenizer, g->plain.ids, g->plain.count, &decoded));
    EXPECT(decoded != NULL && strcmp(decoded, g->decoded) == 0, "%s: line %d: decoded to \"%s\", want \"%s\"",
           name, number, decoded == NULL ? "" : decoded, g->decoded);
    free(decoded);
    p4_ids_free(&plain);
    p4_ids_free(&special);
}

static char *golden_text(const char *root, const char *name)
{
    char path[1024];
    char *text = NULL;
    size_t bytes;
    snprintf(path, sizeof path, "%s/%s/golden.txt", root, name);
    EXPECT_OK(p4_file_read(&text, &bytes, path, 1 << 24));
    return text;
}

static void test_goldens(const char *root, int64_t expected)
{
    char **names;
    int64_t count;
    EXPECT_OK(p4_dir_list(&names, &count, root));
    EXPECT(count == expected, "%s: %lld tokenizers, %lld expected", root, (long long)count,
           (long long)expected);
    for (int64_t i = 0; i < count; i++) {
        golden g;
        int number = 0;
        char *text = golden_text(root, names[i]), *line = text;
        open_in(root, names[i]);
        while (text != NULL && read_golden(&g, &line)) {
            expect_golden(names[i], ++number, &g);
            free_golden(&g);
        }
        EXPECT(number > 50, "%s: only %d lines in golden.txt", names[i], number);
        free(text);
        release();
    }
    p4_names_free(names, count);
}

/* --- pieces --- */

/* `pieces`, one behind the other with \037 between, are what `pattern` must make of their concatenation: each
 * is a token of a vocabulary with ignore_merges, and nothing else is. */
static void expect_pieces(const char *pattern, const char *pieces)
{
    char json[4096], vocab[2048] = "", token[128], text[512] = "";
    int wanted[64], count = 0, tokens = 0;
    size_t vocab_bytes = 0, text_bytes = 0;
    for (const char *at = pieces; *at != '\0'; at += at[0] == '\x1f') {
        size_t bytes = 0;
        token[bytes++] = '"';
        for (; *at != '\0' && *at != '\x1f'; at++) {
            const char *mapped = *at == ' '    ? "Ġ"
                                 : *at == '\n' ? "Ċ"
                                 : *at == '\r' ? "č"
                                 : *at == '\t' ? "ĉ"
                                               : NULL;
            bytes +=
                (size_t)snprintf(token + bytes, sizeof token - bytes, "%s", mapped == NULL ? "" : mapped);
            if (mapped == NULL) {
                token[bytes++] = *at;
            }
            text[text_bytes++] = *at;
        }
        snprintf(token + bytes, sizeof token - bytes, "\":");
        char *known = strstr(vocab, token);
        if (known == NULL) {
            known = vocab + vocab_bytes;
            vocab_bytes += (size_t)snprintf(known, sizeof vocab - vocab_bytes, "%s%s%d",
                                            tokens > 0 ? "," : "", token, tokens);
            wanted[count++] = tokens++;
        } else {
            wanted[count++] = atoi(known + strlen(token));
        }
    }
    snprintf(json, sizeof json,
             "{\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[%s%s%s{\"type\":\"ByteLevel\","
             "\"add_prefix_space\":false,\"use_regex\":%s}]},"
             "\"model\":{\"ignore_merges\":true,\"vocab\":{%s},\"merges\":[]}}",
             pattern == NULL
                 ? ""
                 : "{\"type\":\"Split\",\"behavior\":\"Isolated\",\"invert\":false,\"pattern\":{\"Regex\":\"",
             pattern == NULL ? "" : pattern, pattern == NULL ? "" : "\"}},",
             pattern == NULL ? "true" : "false", vocab);
    parse(json);
    p4_ids ids = {0};
    EXPECT_OK(p4_tokenizer_encode(tokenizer, scratch, text, text_bytes, false, &ids, NULL));
    EXPECT(ids.count == count, "%lld pieces are tokens, want %d: %s", (long long)ids.count, count, json);
    for (int i = 0; i < count && i < ids.count; i++) {
        EXPECT(ids.ids[i] == wanted[i], "piece %d is token %d, want %d: %s", i, ids.ids[i], wanted[i], json);
    }
    p4_ids_free(&ids);
    release();
}

#define LLAMA3_PATTERN(numbers)                                                     \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|" numbers \
    "| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+"

/* "Hello  world\n\n  don't DON'T 12345 3.14!!\r\n\tx" */
static void test_pieces(void)
{
    expect_pieces(NULL, "Hello\037 \037 world\037\n\n \037 don\037't\037 DON\037'\037T\037 12345\037 "
                        "3\037.\03714\037!!\037\r\n\037\t\037x");
    expect_pieces(LLAMA3_PATTERN("\\\\p{N}{1,3}"),
                  "Hello\037 \037 world\037\n\n\037 \037 don\037't\037 DON\037'T\037 \037123\03745\037 "
                  "\0373\037.\03714\037!!\r\n\037\tx");
    expect_pieces(LLAMA3_PATTERN("\\\\p{N}"),
                  "Hello\037 \037 world\037\n\n\037 \037 don\037't\037 DON\037'T\037 "
                  "\0371\0372\0373\0374\0375\037 \0373\037.\0371\0374\037!!\r\n\037\tx");
    /* {n}? is an optional interval in the reference's expressions, and {n,m}? a lazy one. */
    expect_pieces("a{2}?b", "xa\037b\037x\037aab\037x");
    expect_pieces("(?:a|b){1}?_", "_\037a\037b_\037_\037a_");
    expect_pieces("a{2}??b", "x\037aab\037xa\037b");
    expect_pieces("a{2}?+b", "aab\037a\037b");
    expect_pieces("ba{2}?", "baa\037b\037a");
    expect_pieces("a{2,2}?b", "xabx\037aab");
    expect_pieces("a{1,2}?", "a\037a\037a");
}

/* What is made of a tokenizer.model or of vocab.json gives no reason to warn, unless the files themselves
 * differ from the reference. */
static void test_warnings(void)
{
    static const char *const names[] = {"bpe_model", "bpe_model_llama", "unigram_model", "vocab_merges"},
                             *const declared = "\"<|im_start|>\" has id 401 here; the reference library";
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        listen_begin();
        p4_log_setup(P4_LOG_WARN, true);
        open_in(P4_FIXTURES "/tokenizer_directories", names[i]);
        p4_log_setup(P4_LOG_QUIET, true);
        const char *said = listen_end();
        if (i == 3) { /* as added_tokens.json of vocab_merges says */
            EXPECT(strstr(said, declared) != NULL, "%s: %s", names[i], said);
            said = strchr(said, '\n');
            said = said != NULL ? said + 1 : "only part of a line";
        }
        EXPECT(said[0] == '\0', "%s: warned: %s", names[i], said);
        release();
    }
}

/* --- broken text --- */

static void expect_replaced(const char *broken, size_t bytes, const char *repaired, int64_t invalid)
{
    p4_ids got = {0}, want = {0};
    int64_t replaced = 1000, none = 0;
    EXPECT_OK(p4_tokenizer_encode(tokenizer, scratch, broken, bytes, true, &got, &replaced));
    EXPECT_OK(p4_tokenizer_encode(tokenizer, scratch, repaired, strlen(repaired), true, &want, &none));
    EXPECT(same(&got, &want), "\"%s\": other ids than \"%s\"", broken, repaired);
    EXPECT(replaced == 1000 + invalid && none == 0, "\"%s\": %lld bytes replaced, want %lld more than 1000",
           broken, (long long)replaced, (long long)invalid);
    p4_ids_free(&got);
    p4_ids_free(&want);
}

#define R "\xef\xbf\xbd" /* U+FFFD */

static void test_broken_text(void)
{
    static const char *const fixtures[] = {"gpt2", "llama2"};
    for (int i = 0; i < 2; i++) {
        open_fixture(fixtures[i]);
        expect_replaced("a\xff"
                        "b",
                        3, "a" R "b", 1);
        expect_replaced("\x80\xbf", 2, R R, 2);
        expect_replaced("\xc3", 1, R, 1);     /* cut at the end */
        expect_replaced("\xe2\x96", 2, R, 2); /* one for what a character could begin with */
        expect_replaced("\xe2\x96z\xf0\x9f\x99 ", 7, R "z" R " ", 5);
        expect_replaced("\xc0\xaf\xe0\x80\xaf", 5, R R R R R, 5); /* overlong */
        expect_replaced("\xed\xa0\x80", 3, R R R, 3);             /* a surrogate */
        expect_replaced("\xf4\x90\x80\x80\xf5", 5, R R R R R, 5); /* above U+10FFFF */
        expect_replaced("caf\xc3\xa9 \xf0\x9f\x99\x82 12345678\xfe.", 21,
                        "caf\xc3\xa9 \xf0\x9f\x99\x82 12345678" R ".", 1);
        expect_replaced("", 0, "", 0);
        release();
    }
}

/* --- long texts --- */

static int64_t count_ids(const char *text, size_t bytes)
{
    p4_ids ids = {0};
    EXPECT_OK(p4_tokenizer_encode(tokenizer, scratch, text, bytes, false, &ids, NULL));
    int64_t count = ids.count;
    p4_ids_free(&ids);
    return count;
}

/* One piece as long as the text, in each of the ways that could take quadratic time: a test time-out is the
 * failure. */
static void test_long_texts(void)
{
    enum { BYTES = 1 << 20 };
    char *text = p4_alloc(BYTES, 1);
    if (text == NULL) {
        EXPECT(false, "no memory");
        return;
    }
    memset(text, ' ', BYTES);
    open_fixture("llama2"); /* the prepended mark is one more: BYTES / 4 tokens of four marks, and one mark */
    EXPECT(count_ids(text, BYTES) == BYTES / 4 + 1, "%lld ids", (long long)count_ids(text, BYTES));
    release();
    open_fixture("llama3");
    EXPECT(count_ids(text, BYTES) > 0, "no ids");
    release();
    open_fixture("added");
    EXPECT(count_ids(text, BYTES) == BYTES / 2, "%lld ids", (long long)count_ids(text, BYTES));
    release();
    for (size_t i = 0; i + 1 < BYTES; i += 4) {
        memcpy(text + i, "\xcc\x81\xcc\xa3", 4); /* marks that the normalizer puts in the other order */
    }
    open_fixture("qwen");
    EXPECT(count_ids(text, BYTES) > 0, "no ids");
    release();
    for (size_t i = 0; i < BYTES; i++) {
        text[i] = "the lamp "[i % 9];
    }
    open_fixture("across_marks");
    EXPECT(count_ids(text, BYTES) > 0, "no ids");
    release();
    free(text);
}

/* --- threads --- */

typedef struct worker {
    pthread_t thread;
    const char *text;
    p4_ids ids;
    p4_rc rc;
} worker;

static void *work(void *argument)
{
    worker *w = argument;
    p4_tokenizer_scratch *own = NULL;
    w->rc = p4_tokenizer_scratch_create(&own, tokenizer);
    for (int i = 0; i < 200 && w->rc == P4_OK; i++) {
        w->rc = p4_tokenizer_encode(tokenizer, own, w->text, strlen(w->text), true, &w->ids, NULL);
    }
    p4_tokenizer_scratch_free(own);
    return NULL;
}

static void test_threads(void)
{
    worker workers[THREADS] = {0};
    open_fixture("qwen");
    for (int i = 0; i < THREADS; i++) {
        workers[i].text = "Cafe\xcc\x81 lamps, we've 12 of them <|im_start|> ...\n\n  and more";
        EXPECT(pthread_create(&workers[i].thread, NULL, work, &workers[i]) == 0, "pthread_create");
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(workers[i].thread, NULL);
        EXPECT(workers[i].rc == P4_OK && workers[i].ids.count > 0, "thread %d", i);
        EXPECT(same(&workers[i].ids, &workers[0].ids), "thread %d has other ids than thread 0", i);
    }
    for (int i = 0; i < THREADS; i++) {
        p4_ids_free(&workers[i].ids);
    }
    release();
}

/* --- look-ups --- */

static void test_lookups(void)
{
    p4_ids ids = {0};
    const int32_t first = 7;
    open_fixture("llama3");
    EXPECT(p4_tokenizer_vocab_count(tokenizer) == 408, "%lld",
           (long long)p4_tokenizer_vocab_count(tokenizer));
    EXPECT(p4_tokenizer_id(tokenizer, "<|begin_of_text|>") == 405, "%d",
           p4_tokenizer_id(tokenizer, "<|begin_of_text|>"));
    EXPECT(p4_tokenizer_id(tokenizer, "!") == 0, "%d", p4_tokenizer_id(tokenizer, "!"));
    EXPECT(p4_tokenizer_id(tokenizer, "no such token") == -1, "%d",
           p4_tokenizer_id(tokenizer, "no such token"));
    EXPECT(strncmp(p4_tokenizer_json(tokenizer), "{\"version\":\"1.0\"", 16) == 0, "not the file's text");
    /* Ids are appended; those of one call that fails are taken back (see test_tokenizer_refused.c). */
    EXPECT_OK(p4_ids_append(&ids, &first, 1));
    EXPECT_OK(p4_tokenizer_encode(tokenizer, scratch, "!", 1, true, &ids, NULL));
    EXPECT(ids.count == 3 && ids.ids[0] == 7 && ids.ids[1] == 405 && ids.ids[2] == 0, "%lld ids",
           (long long)ids.count);
    p4_ids_free(&ids);
    release();
}

int main(void)
{
    p4_log_setup(P4_LOG_QUIET, true);
    test_goldens(P4_FIXTURES "/tokenizers", 32);
    test_goldens(P4_FIXTURES "/tokenizer_directories", 6);
    test_pieces();
    test_warnings();
    test_broken_text();
    test_long_texts();
    test_threads();
    test_lookups();
    return TEST_END();
}
