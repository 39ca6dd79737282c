/* encode_frames.c - prints what the tokenizer makes of texts, for tests/compare_tokenizers.py.
 *
 *     encode_frames MODEL_DIRECTORY < frames
 *
 * A frame is four bytes, the text's length in bytes (little-endian), and the text. A line comes out for each:
 * the ids, a tab, the ids with the special ones, a tab, the text decoded from the first list, in hexadecimal.
 */
#include <stdio.h>
#include <stdlib.h>

#include "io/tokenizer/tokenizer.h"

static bool read_frame(char **text, size_t *bytes)
{
    unsigned char head[4];
    if (fread(head, 1, sizeof head, stdin) != sizeof head) {
        return false;
    }
    *bytes = (size_t)head[0] | (size_t)head[1] << 8 | (size_t)head[2] << 16 | (size_t)head[3] << 24;
    char *grown = p4_resize(*text, *bytes + 1, 1);
    if (grown == NULL) {
        return false;
    }
    *text = grown;
    return fread(*text, 1, *bytes, stdin) == *bytes;
}

static void print_ids(const p4_ids *ids)
{
    for (int64_t i = 0; i < ids->count; i++) {
        printf(i > 0 ? " %d" : "%d", ids->ids[i]);
    }
}

int main(int count, char **arguments)
{
    p4_rc rc = P4_OK;
    p4_tokenizer *tokenizer = NULL;
    p4_tokenizer_scratch *scratch = NULL;
    p4_ids plain = {0}, special = {0};
    char *text = NULL;
    size_t bytes = 0;
    CHECK(count == 2, "usage: encode_frames MODEL_DIRECTORY < frames");
    TRY(p4_tokenizer_open(&tokenizer, arguments[1]));
    TRY(p4_tokenizer_scratch_create(&scratch, tokenizer));
    while (read_frame(&text, &bytes)) {
        char *decoded;
        plain.count = special.count = 0;
        TRY(p4_tokenizer_encode(tokenizer, scratch, text, bytes, false, &plain, NULL));
        TRY(p4_tokenizer_encode(tokenizer, scratch, text, bytes, true, &special, NULL));
        TRY(p4_tokenizer_decode(tokenizer, plain.ids, plain.count, &decoded));
        print_ids(&plain);
        putchar('\t');
        print_ids(&special);
        putchar('\t');
        for (const char *at = decoded; *at != '\0'; at++) {
            printf("%02x", (unsigned)(unsigned char)*at);
        }
        putchar('\n');
        free(decoded);
    }
done:
    if (rc != P4_OK) {
        fprintf(stderr, "encode_frames: %s\n", p4_last_error());
    }
    free(text);
    p4_ids_free(&plain);
    p4_ids_free(&special);
    p4_tokenizer_scratch_free(scratch);
    p4_tokenizer_close(tokenizer);
    return rc == P4_OK ? 0 : 1;
}
