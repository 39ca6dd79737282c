#include "io/tokenizer/normalize.h"

p4_rc p4_tok_normalize(const p4_tok_normalizer *normalizer, p4_tok_normal_scratch *scratch, p4_tok_text *text,
                       const char *source)
{
    p4_rc rc = P4_OK;
    size_t before = text->bytes;
    for (int i = 0; i < normalizer->count; i++) {
        const p4_tok_normal_step *step = &normalizer->step[i];
        p4_tok_buffer *buffer = &scratch->buffer[text->data == scratch->buffer[0].data ? 1 : 0];
        if (step->action == P4_TOK_NFC) {
            TRY(p4_tok_nfc(text, buffer, &scratch->points));
            continue;
        }
        buffer->bytes = 0;
        if (step->action == P4_TOK_PREPEND) {
            TRY(p4_tok_buffer_append(buffer, step->to.data, text->bytes > 0 ? step->to.bytes : 0));
            TRY(p4_tok_buffer_append(buffer, text->data, text->bytes));
        } else {
            TRY(p4_tok_buffer_replace(buffer, *text, step->from, step->to));
        }
        *text = (p4_tok_text){buffer->data, buffer->bytes};
        TRY(p4_tok_growth_check(source, "normalizer", before, text->bytes));
    }
done:
    return rc;
}

void p4_tok_normal_scratch_free(p4_tok_normal_scratch *scratch)
{
    p4_tok_buffer_free(&scratch->buffer[0]);
    p4_tok_buffer_free(&scratch->buffer[1]);
    p4_tok_points_free(&scratch->points);
}
