/* Fuzzes the tokenizer: the bytes before the first NUL are a tokenizer.json, those after it a text. What is
 * refused must say why. What is accepted must make valid ids of the text, the same ones when the piece cache
 * is warm and when the text comes in a second time, and turn its ids back into text. */
#include <stdlib.h>
#include <string.h>

#include "io/tokenizer/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void require(bool ok)
{
    if (!ok) {
        abort();
    }
}

static void require_refusal(p4_rc rc)
{
    require(rc != P4_OK && p4_last_error()[0] != '\0');
    p4_error_clear();
}

static void encode(const p4_tokenizer *tokenizer, const char *text, size_t bytes)
{
    p4_tokenizer_scratch *scratch;
    p4_ids once = {0}, twice = {0};
    char *decoded = NULL;
    int64_t replaced = 0;
    require(p4_tokenizer_scratch_create(&scratch, tokenizer) == P4_OK);
    p4_rc rc = p4_tokenizer_encode(tokenizer, scratch, text, bytes, true, &once, &replaced);
    if (rc == P4_OK) {
        require(replaced >= 0 && replaced <= (int64_t)bytes);
        for (int64_t i = 0; i < once.count; i++) {
            require(once.ids[i] >= 0 && once.ids[i] < p4_tokenizer_vocab_count(tokenizer));
        }
        require(p4_tokenizer_encode(tokenizer, scratch, text, bytes, true, &twice, NULL) == P4_OK);
        require(once.count == twice.count);
        require(once.count == 0 || memcmp(once.ids, twice.ids, (size_t)once.count * sizeof *once.ids) == 0);
        rc = p4_tokenizer_decode(tokenizer, once.ids, once.count, &decoded);
    }
    if (rc != P4_OK) {
        require_refusal(rc);
    }
    free(decoded);
    p4_ids_free(&once);
    p4_ids_free(&twice);
    p4_tokenizer_scratch_free(scratch);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    const char *text = bytes > 0 ? memchr(data, '\0', bytes) : NULL;
    size_t json_bytes = text == NULL ? bytes : (size_t)(text - (const char *)data);
    p4_tokenizer *tokenizer;
    p4_log_setup(P4_LOG_QUIET, false);
    p4_error_clear();
    p4_rc rc = p4_tokenizer_parse(&tokenizer, (const char *)data, json_bytes, "input");
    if (rc != P4_OK) {
        require(tokenizer == NULL);
        require_refusal(rc);
        return 0;
    }
    if (text != NULL) {
        encode(tokenizer, text + 1, bytes - json_bytes - 1);
    }
    p4_tokenizer_close(tokenizer);
    return 0;
}
