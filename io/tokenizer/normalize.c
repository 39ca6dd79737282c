#include "io/tokenizer/normalize.h"

#include "io/tokenizer/unicode.h"
#include "io/utf8/utf8.h"

static p4_rc append_point(p4_tok_buffer *buffer, int32_t c)
{
    utf8proc_uint8_t bytes[4];
    utf8proc_ssize_t length = utf8proc_encode_char(c, bytes);
    return p4_tok_buffer_append(buffer, (const char *)bytes, (size_t)length);
}

/* U+0130 is the one character whose lower case has two. */
static p4_rc lowercase(p4_tok_buffer *buffer, p4_tok_text text)
{
    p4_rc rc = P4_OK;
    for (size_t at = 0, length; at < text.bytes; at += length) {
        int32_t c = p4_utf8_decode(text.data + at, text.bytes - at, &length);
        TRY(append_point(buffer, c == 0x130 ? 'i' : utf8proc_tolower(c)));
        if (c == 0x130) {
            TRY(append_point(buffer, 0x307));
        }
    }
done:
    return rc;
}

static p4_rc strip_accents(p4_tok_buffer *buffer, p4_tok_text text)
{
    p4_rc rc = P4_OK;
    for (size_t at = 0, length; at < text.bytes; at += length) {
        utf8proc_category_t category =
            utf8proc_category(p4_utf8_decode(text.data + at, text.bytes - at, &length));
        bool mark = category == UTF8PROC_CATEGORY_MN || category == UTF8PROC_CATEGORY_MC ||
                    category == UTF8PROC_CATEGORY_ME;
        TRY(p4_tok_buffer_append(buffer, text.data + at, mark ? 0 : length));
    }
done:
    return rc;
}

static p4_rc replace_matches(const p4_tok_normal_step *step, p4_tok_matcher *matcher, p4_tok_buffer *buffer,
                             p4_tok_text text, const char *source)
{
    p4_rc rc = P4_OK;
    TRY(p4_tok_matcher_start(matcher, text.bytes));
    for (size_t at = 0, start, stop; at < text.bytes; at = stop) {
        TRY(p4_tok_match(matcher, step->pattern, text, at, &start, &stop, source));
        TRY(p4_tok_buffer_append(buffer, text.data + at, start - at));
        TRY(p4_tok_buffer_append(buffer, step->to.data, stop > start ? step->to.bytes : 0));
    }
done:
    return rc;
}

/* The step's result in `buffer`. */
static p4_rc rewrite(const p4_tok_normal_step *step, p4_tok_normal_scratch *scratch, p4_tok_buffer *buffer,
                     p4_tok_text text, const char *source)
{
    p4_rc rc = P4_OK;
    buffer->bytes = 0;
    TRY(p4_tok_buffer_reserve(buffer, 1)); /* an empty result is a text too */
    switch (step->action) {
    case P4_TOK_PREPEND:
        TRY(p4_tok_buffer_append(buffer, step->to.data, text.bytes > 0 ? step->to.bytes : 0));
        return p4_tok_buffer_append(buffer, text.data, text.bytes);
    case P4_TOK_LOWERCASE:
        return lowercase(buffer, text);
    case P4_TOK_STRIP_ACCENTS:
        return strip_accents(buffer, text);
    case P4_TOK_PRECOMPILED:
        return p4_tok_charsmap_apply(&step->charsmap, buffer, text);
    default:
        return step->pattern != NULL ? replace_matches(step, &scratch->matcher, buffer, text, source)
                                     : p4_tok_buffer_replace(buffer, text, step->from, step->to);
    }
done:
    return rc;
}

static void strip(const p4_tok_normal_step *step, p4_tok_text *text)
{
    size_t front = step->strips_left ? p4_tok_space_at_start(text->data, text->bytes) : 0;
    text->data += front;
    text->bytes -= front;
    text->bytes -= step->strips_right ? p4_tok_space_at_end(text->data, text->bytes) : 0;
}

/* The buffer that does not hold the text. */
static p4_tok_buffer *other_buffer(p4_tok_normal_scratch *scratch, p4_tok_text text)
{
    const p4_tok_buffer *first = &scratch->buffer[0];
    bool in_first =
        first->data != NULL && text.data >= first->data && text.data <= first->data + first->bytes;
    return &scratch->buffer[in_first ? 1 : 0];
}

p4_rc p4_tok_normalize(const p4_tok_normalizer *normalizer, p4_tok_normal_scratch *scratch, p4_tok_text *text,
                       const char *source)
{
    p4_rc rc = P4_OK;
    size_t before = text->bytes;
    for (int i = 0; i < normalizer->count; i++) {
        const p4_tok_normal_step *step = &normalizer->step[i];
        p4_tok_buffer *buffer = other_buffer(scratch, *text);
        if (step->action <= P4_TOK_NFKD) {
            const p4_tok_form form = {.composed = step->action == P4_TOK_NFC || step->action == P4_TOK_NFKC,
                                      .compatible =
                                          step->action == P4_TOK_NFKC || step->action == P4_TOK_NFKD};
            TRY(p4_tok_normal_form(text, form, buffer, &scratch->points));
        } else if (step->action == P4_TOK_STRIP) {
            strip(step, text);
        } else {
            TRY(rewrite(step, scratch, buffer, *text, source));
            *text = (p4_tok_text){buffer->data, buffer->bytes};
        }
        TRY(p4_tok_growth_check(source, "normalizer", before, text->bytes));
    }
done:
    return rc;
}

void p4_tok_normalizer_free(p4_tok_normalizer *normalizer)
{
    for (int i = 0; i < normalizer->count; i++) {
        pcre2_code_free(normalizer->step[i].pattern);
        p4_tok_charsmap_free(&normalizer->step[i].charsmap);
    }
    normalizer->count = 0;
}

void p4_tok_normal_scratch_free(p4_tok_normal_scratch *scratch)
{
    p4_tok_buffer_free(&scratch->buffer[0]);
    p4_tok_buffer_free(&scratch->buffer[1]);
    p4_tok_points_free(&scratch->points);
    p4_tok_matcher_free(&scratch->matcher);
}
