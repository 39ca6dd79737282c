/* tokenizer_split.c - running the normalizer, and the pre-tokenizer down to the pieces that the model sees.
 */
#include <stdio.h>

#include "io/tokenizer/tokenizer_internal.h"

enum { MATCH_STEPS = 1000000 };

p4_rc p4_tok_normalize(const p4_tokenizer *tokenizer, p4_tokenizer_scratch *scratch, p4_tok_text *text)
{
    p4_rc rc = P4_OK;
    size_t before = text->bytes;
    for (int i = 0; i < tokenizer->normalizer.count; i++) {
        const p4_tok_step *step = &tokenizer->normalizer.step[i];
        p4_tok_buffer *buffer = &scratch->normal[text->data == scratch->normal[0].data ? 1 : 0];
        if (step->action == P4_TOK_NFC) {
            TRY(p4_tok_nfc(text, buffer, scratch));
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
        TRY(p4_tok_growth_check(tokenizer, "normalizer", before, text->bytes));
    }
done:
    return rc;
}

typedef struct splitter {
    const p4_tokenizer *tokenizer;
    p4_tokenizer_scratch *scratch;
    p4_ids *ids;
} splitter;

static p4_rc run_step(const splitter *s, int index, p4_tok_text text, bool at_start);

/* The next match at or after `from`; *start = *stop = bytes when there is none. */
static p4_rc match(const splitter *s, const p4_tok_step *step, p4_tok_text text, size_t from, size_t *start,
                   size_t *stop)
{
    int found = pcre2_match(step->pattern, (PCRE2_SPTR)text.data, text.bytes, from, PCRE2_NO_UTF_CHECK,
                            s->scratch->match, s->scratch->context);
    *start = *stop = text.bytes;
    if (found > 0) {
        const size_t *ends = pcre2_get_ovector_pointer(s->scratch->match);
        *start = ends[0];
        *stop = ends[1];
    }
    if (found > 0 ? *start < from || *stop <= *start : found != PCRE2_ERROR_NOMATCH) {
        PCRE2_UCHAR message[256] = "it matched nothing";
        if (found <= 0) {
            pcre2_get_error_message(found, message, sizeof message);
        }
        return FAIL("%s: a split pattern failed at byte %zu of a text of %zu bytes: %s", s->tokenizer->source,
                    from, text.bytes, (const char *)message);
    }
    return P4_OK;
}

/* Whether an element (a match or what lies between two) belongs to the piece that the one before it ended. */
static bool joins(p4_tok_behavior behavior, bool previous_is_match, bool is_match)
{
    switch (behavior) {
    case P4_TOK_CONTIGUOUS:
        return previous_is_match == is_match;
    case P4_TOK_WITH_PREVIOUS:
        return is_match && !previous_is_match;
    case P4_TOK_WITH_NEXT:
        return !is_match && previous_is_match;
    default:
        return false;
    }
}

typedef struct pending { /* a piece that the next element may still join */
    size_t start, stop;
    bool is_match; /* of its last element */
} pending;

static p4_rc hand_on(const splitter *s, int index, p4_tok_text text, bool at_start, const pending *piece)
{
    const p4_tok_step *step = &s->tokenizer->pre_tokenizer.step[index];
    if (piece->stop == piece->start || (step->behavior == P4_TOK_REMOVED && piece->is_match)) {
        return P4_OK;
    }
    p4_tok_text part = {text.data + piece->start, piece->stop - piece->start};
    return run_step(s, index + 1, part, at_start && piece->start == 0);
}

/* Extends `piece` by the element [piece->stop, stop), or hands it on and begins the next one. */
static p4_rc take(const splitter *s, int index, p4_tok_text text, bool at_start, pending *piece, size_t stop,
                  bool is_match)
{
    p4_rc rc = P4_OK;
    const p4_tok_step *step = &s->tokenizer->pre_tokenizer.step[index];
    is_match = is_match != step->invert;
    bool empty = piece->stop == piece->start;
    if (empty || !joins(step->behavior, piece->is_match, is_match)) {
        TRY(hand_on(s, index, text, at_start, piece));
        piece->start = piece->stop;
    }
    piece->stop = stop;
    piece->is_match = is_match;
done:
    return rc;
}

static p4_rc split(const splitter *s, int index, p4_tok_text text, bool at_start)
{
    p4_rc rc = P4_OK;
    const p4_tok_step *step = &s->tokenizer->pre_tokenizer.step[index];
    pending piece = {0};
    for (size_t at = 0, start, stop; at < text.bytes; at = stop) {
        TRY(match(s, step, text, at, &start, &stop));
        if (start > at) {
            TRY(take(s, index, text, at_start, &piece, start, false));
        }
        if (stop > start) {
            TRY(take(s, index, text, at_start, &piece, stop, true));
        }
    }
    TRY(hand_on(s, index, text, at_start, &piece));
done:
    return rc;
}

static p4_rc run_step(const splitter *s, int index, p4_tok_text text, bool at_start)
{
    p4_rc rc = P4_OK;
    if (index == s->tokenizer->pre_tokenizer.count) {
        return p4_tok_piece(s->tokenizer, s->scratch, text, s->ids);
    }
    const p4_tok_step *step = &s->tokenizer->pre_tokenizer.step[index];
    p4_tok_buffer *buffer = &s->scratch->step[index];
    if (step->action == P4_TOK_SPLIT) {
        return split(s, index, text, at_start);
    }
    buffer->bytes = 0;
    if (step->action == P4_TOK_REPLACE) {
        TRY(p4_tok_buffer_replace(buffer, text, step->from, step->to));
        text = (p4_tok_text){buffer->data, buffer->bytes};
    } else if ((at_start || !step->first_only) &&
               (text.bytes < step->to.bytes || memcmp(text.data, step->to.data, step->to.bytes) != 0)) {
        TRY(p4_tok_buffer_append(buffer, step->to.data, step->to.bytes));
        TRY(p4_tok_buffer_append(buffer, text.data, text.bytes));
        text = (p4_tok_text){buffer->data, buffer->bytes};
    }
    TRY(run_step(s, index + 1, text, at_start));
done:
    return rc;
}

p4_rc p4_tok_pre_tokenize(const p4_tokenizer *tokenizer, p4_tokenizer_scratch *scratch, p4_tok_text text,
                          bool at_start, p4_ids *ids)
{
    splitter s = {tokenizer, scratch, ids};
    /* Published patterns take a step or two a byte; one that needs far more is stopped, not waited for. */
    uint64_t steps = MATCH_STEPS + 8 * (uint64_t)text.bytes;
    pcre2_set_match_limit(scratch->context, steps < UINT32_MAX ? (uint32_t)steps : UINT32_MAX);
    return run_step(&s, 0, text, at_start);
}
