/* A damaged tokenizer.model: cut off anywhere, with flipped bits, with long runs that multiply its merges. It
 * is refused with a message that names the file, or read as another model, which then encodes a text. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "io/tokenizer/sentencepiece.h"
#include "io/tokenizer/tokenizer.h"
#include "src/leaf/rng.h"

static const char text[] = " The  lamp\xe2\x96\x81river <s>x\n";

static p4_rc encode(const char *json)
{
    p4_rc rc = P4_OK;
    p4_tokenizer *tokenizer = NULL;
    p4_tokenizer_scratch *scratch = NULL;
    p4_ids ids = {0};
    TRY(p4_tokenizer_parse(&tokenizer, json, strlen(json), "test.model"));
    TRY(p4_tokenizer_scratch_create(&scratch, tokenizer));
    TRY(p4_tokenizer_encode(tokenizer, scratch, text, sizeof text - 1, true, &ids, NULL));
    for (int64_t i = 0; i < ids.count; i++) {
        EXPECT(ids.ids[i] >= 0 && ids.ids[i] < p4_tokenizer_vocab_count(tokenizer), "id %d", ids.ids[i]);
    }
done:
    p4_ids_free(&ids);
    p4_tokenizer_scratch_free(scratch);
    p4_tokenizer_close(tokenizer);
    return rc;
}

/* True: the bytes are a model that encodes the text. */
static bool reads(const unsigned char *model, size_t bytes, const p4_tok_class *chosen)
{
    cJSON *root = NULL;
    char *exact = p4_alloc(bytes + 1, 1); /* a sanitizer sees what is read behind it */
    memcpy(exact, model, bytes);
    p4_rc rc = p4_tok_sentencepiece(&root, exact, bytes, chosen, NULL, "test.model");
    if (rc == P4_OK) {
        char *json = cJSON_PrintUnformatted(root);
        EXPECT(json != NULL, "no text of the tree");
        rc = json != NULL ? encode(json) : P4_OK;
        free(json);
    } else {
        EXPECT(root == NULL, "a tree in spite of the refusal");
    }
    EXPECT(rc == P4_OK || (rc == P4_E_INPUT && strstr(p4_last_error(), "test.model") != NULL),
           "exit status %d: %s", (int)rc, p4_last_error());
    p4_error_clear();
    cJSON_Delete(root);
    free(exact);
    return rc == P4_OK;
}

static void test_damaged(const char *name, const p4_tok_class *chosen)
{
    static unsigned char data[1 << 16];
    char *path = p4_format(P4_FIXTURES "/tokenizer_directories/%s/tokenizer.model", name);
    int refused = 0;
    p4_rng rng = {.seed = 3};
    FILE *file = fopen(path, "rb");
    size_t bytes = file != NULL ? fread(data, 1, sizeof data, file) : 0;
    EXPECT(bytes > 1000 && fclose(file) == 0, "%s: %zu bytes", path, bytes);
    EXPECT(reads(data, bytes, chosen), "%s as it is: refused", name);
    for (size_t length = 0; length < bytes; length += 1 + length / 40) {
        EXPECT(!reads(data, length, chosen), "%s: read although only %zu of %zu bytes are there", name,
               length, bytes);
    }
    for (int i = 0; i < 600; i++) {
        size_t places[4];
        unsigned char before[4];
        for (int k = 0; k < 4; k++) { /* half of them where the settings are */
            size_t room = k < 2 || bytes < 64 ? bytes : 64;
            places[k] = bytes - 1 - (size_t)p4_rng_below(&rng, room);
            before[k] = data[places[k]];
            data[places[k]] ^= (unsigned char)(1 << p4_rng_below(&rng, 8));
        }
        refused += !reads(data, bytes, chosen);
        for (int k = 3; k >= 0; k--) {
            data[places[k]] = before[k];
        }
    }
    EXPECT(refused > 100, "%s: only %d of 600 damaged models are refused", name, refused);
    free(path);
}

/* --- models of this test's own --- */

static size_t put_field(unsigned char *to, int number, const void *data, size_t bytes)
{
    to[0] = (unsigned char)((number << 3) | 2);
    to[1] = (unsigned char)((bytes & 127) | 128);
    to[2] = (unsigned char)(bytes >> 7);
    memcpy(to + 3, data, bytes);
    return 3 + bytes;
}

/* A BPE model of the pieces a, aa, ... up to `longest` bytes, each with `score`. */
static size_t put_runs(unsigned char *to, size_t longest, float score)
{
    static unsigned char piece[5000], run[5000];
    static const unsigned char bpe[] = {3 << 3, 2}; /* model_type */
    size_t at = 0;
    memset(run, 'a', sizeof run);
    for (size_t i = 1; i <= longest; i++) {
        size_t bytes = put_field(piece, 1, run, i);
        piece[bytes++] = 2 << 3 | 5;
        memcpy(piece + bytes, &score, sizeof score);
        at += put_field(to + at, 1, piece, bytes + sizeof score);
    }
    at += put_field(to + at, 2, bpe, sizeof bpe);
    return at + put_field(to + at, 3, "", 0);
}

static void test_made(void)
{
    cJSON *root = NULL;
    unsigned char *model = p4_alloc((size_t)1 << 24, 1);
    EXPECT_OK(p4_tok_sentencepiece(&root, model, put_runs(model, 40, -1.0f), NULL, NULL, "m"));
    cJSON_Delete(root);
    EXPECT_REFUSED(p4_tok_sentencepiece(&root, model, put_runs(model, 2, (float)NAN), NULL, NULL, "m"),
                   "m: the score of piece 0 is no finite number");
    EXPECT_REFUSED(p4_tok_sentencepiece(&root, model, put_runs(model, 4097, 0.0f), NULL, NULL, "m"),
                   "m: piece 4096 has 4097 bytes or is not UTF-8");
    EXPECT_REFUSED(p4_tok_sentencepiece(&root, model, put_runs(model, 3000, 0.0f), NULL, NULL, "m"),
                   "m: more than 4194304 merges, or of more than 268435456 bytes, are not supported");
    free(model);
}

int main(void)
{
    p4_log_setup(P4_LOG_QUIET, true);
    const p4_tok_class *llama = p4_tok_class_choose("LlamaTokenizer", "llama", false);
    EXPECT(llama != NULL && llama->reads_sentencepiece, "no class LlamaTokenizer");
    test_damaged("bpe_model", NULL);
    test_damaged("bpe_model_llama", llama);
    test_damaged("unigram_model", NULL);
    test_made();
    return TEST_END();
}
