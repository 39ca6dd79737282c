/* Fuzzes the reader of tokenizer.model: an odd first byte takes the class LlamaTokenizer, an even one the
 * model's own settings; the rest is the model. What is refused must say why. What is accepted is the text of
 * a tokenizer.json, which is read or refused in the same way. */
#include <stdlib.h>
#include <string.h>

#include "io/tokenizer/sentencepiece.h"
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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    cJSON *root;
    p4_tokenizer *tokenizer;
    if (bytes == 0) {
        return 0;
    }
    p4_log_setup(P4_LOG_QUIET, false);
    p4_error_clear();
    const p4_tok_class *chosen = data[0] % 2 ? p4_tok_class_choose("LlamaTokenizer", "llama", false) : NULL;
    p4_rc rc = p4_tok_sentencepiece(&root, data + 1, bytes - 1, chosen, NULL, "input");
    if (rc != P4_OK) {
        require(root == NULL);
        require_refusal(rc);
        return 0;
    }
    char *json = cJSON_PrintUnformatted(root);
    cJSON_Delete(root);
    require(json != NULL);
    rc = p4_tokenizer_parse(&tokenizer, json, strlen(json), "input");
    free(json);
    if (rc != P4_OK) {
        require(tokenizer == NULL);
        require_refusal(rc);
        return 0;
    }
    p4_tokenizer_close(tokenizer);
    return 0;
}
