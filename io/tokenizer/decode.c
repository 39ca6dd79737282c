#include "io/tokenizer/decode.h"

#include <stdlib.h>
#include <string.h>

#include "io/tokenizer/byte_alphabet.h"
#include "io/tokenizer/unicode.h"
#include "io/utf8/utf8.h"

/* The tokens between two steps: `count` texts in a row; token i ends at ends[i]. */
typedef struct tokens {
    p4_tok_buffer text;
    size_t *ends;
    int64_t count; /* ends has room for as many as there were ids */
} tokens;

static p4_tok_text token_at(const tokens *list, int64_t i)
{
    size_t start = i > 0 ? list->ends[i - 1] : 0;
    return (p4_tok_text){list->text.data + start, list->ends[i] - start};
}

static p4_rc append(tokens *list, p4_tok_text token)
{
    p4_rc rc = p4_tok_buffer_append(&list->text, token.data, token.bytes);
    if (rc == P4_OK) {
        list->ends[list->count++] = list->text.bytes;
    }
    return rc;
}

/* Joins all tokens: byte-level tokens as the bytes they stand for, others unchanged; broken UTF-8 becomes
 * U+FFFD. */
static p4_rc decode_byte_level(tokens *to, const tokens *from)
{
    p4_rc rc = P4_OK;
    p4_tok_buffer raw = {0}, clean = {0};
    for (int64_t i = 0; i < from->count; i++) {
        p4_tok_text token = token_at(from, i);
        size_t before = raw.bytes, at = 0, length;
        unsigned char byte;
        TRY(p4_tok_buffer_reserve(&raw, token.bytes + 1));
        for (; p4_tok_char_byte(token.data + at, token.bytes - at, &byte, &length); at += length) {
            raw.data[raw.bytes++] = (char)byte;
        }
        if (at < token.bytes) {
            raw.bytes = before;
            TRY(p4_tok_buffer_append(&raw, token.data, token.bytes));
        }
    }
    int64_t replaced = 0;
    p4_tok_text text = {raw.data, raw.bytes};
    TRY(p4_tok_clean(&text, &clean, &replaced));
    if (from->count > 0) {
        TRY(append(to, text));
    }
done:
    p4_tok_buffer_free(&raw);
    p4_tok_buffer_free(&clean);
    return rc;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                  : -1;
}

/* "<0xHH>", or -1. */
static int fallback_byte(p4_tok_text token)
{
    if (token.bytes != 6 || memcmp(token.data, "<0x", 3) != 0 || token.data[5] != '>') {
        return -1;
    }
    int high = hex_digit(token.data[3]), low = hex_digit(token.data[4]);
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

/* A run of byte tokens becomes the text that it spells, or one U+FFFD a byte where that is not UTF-8. */
static p4_rc decode_byte_fallback(tokens *to, const tokens *from)
{
    p4_rc rc = P4_OK;
    p4_tok_buffer run = {0};
    for (int64_t i = 0; i <= from->count; i++) {
        p4_tok_text token = i < from->count ? token_at(from, i) : (p4_tok_text){0};
        int value = i < from->count ? fallback_byte(token) : -1;
        char byte = (char)value;
        if (value >= 0) {
            TRY(p4_tok_buffer_append(&run, &byte, 1));
            continue;
        }
        if (run.bytes > 0 && p4_utf8_valid_bytes(run.data, run.bytes) == run.bytes) {
            TRY(append(to, (p4_tok_text){run.data, run.bytes}));
        } else {
            for (size_t k = 0; k < run.bytes; k++) {
                TRY(append(to, (p4_tok_text){P4_UTF8_REPLACEMENT, 3}));
            }
        }
        run.bytes = 0;
        if (i < from->count) {
            TRY(append(to, token));
        }
    }
done:
    p4_tok_buffer_free(&run);
    return rc;
}

/* At most `start` of the character from the front, at most `stop` from the back. */
static p4_tok_text strip(p4_tok_text token, const p4_tok_decode_step *step)
{
    p4_tok_text what = step->from;
    for (int64_t i = 0; i < step->start && token.bytes >= what.bytes; i++) {
        if (memcmp(token.data, what.data, what.bytes) != 0) {
            break;
        }
        token.data += what.bytes;
        token.bytes -= what.bytes;
    }
    for (int64_t i = 0; i < step->stop && token.bytes >= what.bytes; i++) {
        if (memcmp(token.data + token.bytes - what.bytes, what.data, what.bytes) != 0) {
            break;
        }
        token.bytes -= what.bytes;
    }
    return token;
}

/* Steps that turn each token into one. */
static p4_rc decode_each(tokens *to, const tokens *from, const p4_tok_decode_step *step)
{
    p4_rc rc = P4_OK;
    for (int64_t i = 0; i < from->count; i++) {
        p4_tok_text token = token_at(from, i);
        p4_tok_text with = {" ", step->drop_first && i == 0 ? 0 : 1};
        if (step->action == P4_TOK_DECODE_STRIP) {
            TRY(append(to, strip(token, step)));
            continue;
        }
        TRY(p4_tok_buffer_replace(&to->text, token, step->from,
                                  step->action == P4_TOK_DECODE_REPLACE ? step->to : with));
        to->ends[to->count++] = to->text.bytes;
    }
done:
    return rc;
}

static p4_rc decode_step(tokens *to, const tokens *from, const p4_tok_decode_step *step)
{
    to->text.bytes = 0;
    to->count = 0;
    switch (step->action) {
    case P4_TOK_DECODE_BYTE_LEVEL:
        return decode_byte_level(to, from);
    case P4_TOK_DECODE_BYTE_FALLBACK:
        return decode_byte_fallback(to, from);
    case P4_TOK_DECODE_FUSE:
        return append(to, (p4_tok_text){from->text.data, from->text.bytes});
    default:
        return decode_each(to, from, step);
    }
}

/* The tokens as they are; without a decoder, with a space between two. */
static p4_rc begin(tokens *list, const p4_tok_decoder *decoder, const p4_tok_text *texts, int64_t count)
{
    p4_rc rc = P4_OK;
    for (int64_t i = 0; i < count; i++) {
        if (!decoder->present && i > 0) {
            TRY(p4_tok_buffer_append(&list->text, " ", 1));
        }
        TRY(append(list, texts[i]));
    }
done:
    return rc;
}

p4_rc p4_tok_decode(const p4_tok_decoder *decoder, const char *source, const p4_tok_text *texts,
                    int64_t count, char **text)
{
    p4_rc rc = P4_OK;
    tokens lists[2] = {0};
    int now = 0;
    *text = NULL;
    CHECK(decoder->refusal == NULL, "%s", decoder->refusal);
    for (int i = 0; i < 2; i++) {
        lists[i].ends = p4_alloc((size_t)count + 1, sizeof *lists[i].ends);
        if (lists[i].ends == NULL || p4_tok_buffer_reserve(&lists[i].text, 1) != P4_OK) {
            rc = P4_E_SYSTEM;
            goto done;
        }
    }
    TRY(begin(&lists[now], decoder, texts, count));
    size_t before = lists[now].text.bytes;
    for (int i = 0; i < decoder->count; i++, now = 1 - now) {
        TRY(decode_step(&lists[1 - now], &lists[now], &decoder->step[i]));
        TRY(p4_tok_growth_check(source, "decoder", before, lists[1 - now].text.bytes));
    }
    TRY(p4_tok_buffer_append(&lists[now].text, "", 1));
    *text = lists[now].text.data;
    lists[now].text.data = NULL;
done:
    for (int i = 0; i < 2; i++) {
        free(lists[i].ends);
        p4_tok_buffer_free(&lists[i].text);
    }
    return rc;
}
