#include "io/tokenizer/split.h"

#include "io/tokenizer/byte_alphabet.h"

typedef struct run {
    const p4_tok_splitter *splitter;
    p4_tok_split_scratch *scratch;
    const p4_tok_sink *sink;
} run;

static p4_rc run_step(const run *s, int index, p4_tok_text text, bool at_start);

/* Whether an element (a match, or the text between two) joins the piece that the element before it ended. */
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

static p4_rc hand_on(const run *s, int index, p4_tok_text text, bool at_start, const pending *piece)
{
    const p4_tok_split_step *step = &s->splitter->step[index];
    if (piece->stop == piece->start || (step->behavior == P4_TOK_REMOVED && piece->is_match)) {
        return P4_OK;
    }
    p4_tok_text part = {text.data + piece->start, piece->stop - piece->start};
    return run_step(s, index + 1, part, at_start && piece->start == 0);
}

/* Extends `piece` by the element [piece->stop, stop), or passes it on and begins the next one. */
static p4_rc take(const run *s, int index, p4_tok_text text, bool at_start, pending *piece, size_t stop,
                  bool is_match)
{
    p4_rc rc = P4_OK;
    const p4_tok_split_step *step = &s->splitter->step[index];
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

static p4_rc split(const run *s, int index, p4_tok_text text, bool at_start)
{
    p4_rc rc = P4_OK;
    const p4_tok_split_step *step = &s->splitter->step[index];
    pending piece = {0};
    for (size_t at = 0, start, stop; at < text.bytes; at = stop) {
        TRY(p4_tok_match(&s->scratch->matcher, step->pattern, text, at, &start, &stop, s->sink->bpe->source));
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

static p4_rc run_step(const run *s, int index, p4_tok_text text, bool at_start)
{
    p4_rc rc = P4_OK;
    if (index == s->splitter->count) {
        return p4_tok_bpe_encode(s->sink->bpe, s->sink->scratch, text, s->sink->ids);
    }
    const p4_tok_split_step *step = &s->splitter->step[index];
    p4_tok_buffer *buffer = &s->scratch->step[index];
    if (step->action == P4_TOK_SPLIT) {
        return split(s, index, text, at_start);
    }
    buffer->bytes = 0;
    if (step->action == P4_TOK_SUBSTITUTE) {
        TRY(p4_tok_buffer_replace(buffer, text, step->from, step->to));
        text = (p4_tok_text){buffer->data, buffer->bytes};
    } else if (step->action == P4_TOK_MAP_BYTES) {
        TRY(p4_tok_buffer_reserve(buffer,
                                  2 * text.bytes + 4)); /* the alphabet's longest characters have two */
        for (size_t i = 0; i < text.bytes; i++) {
            buffer->bytes += p4_tok_byte_char((unsigned char)text.data[i], buffer->data + buffer->bytes);
        }
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

p4_rc p4_tok_split(const p4_tok_splitter *splitter, p4_tok_split_scratch *scratch, p4_tok_text text,
                   bool at_start, const p4_tok_sink *sink)
{
    const run s = {splitter, scratch, sink};
    p4_rc rc = p4_tok_matcher_start(&scratch->matcher, text.bytes);
    return rc == P4_OK ? run_step(&s, 0, text, at_start) : rc;
}

void p4_tok_split_scratch_free(p4_tok_split_scratch *scratch)
{
    p4_tok_matcher_free(&scratch->matcher);
    for (int i = 0; i < P4_TOK_STEPS_MAX; i++) {
        p4_tok_buffer_free(&scratch->step[i]);
    }
    *scratch = (p4_tok_split_scratch){0};
}

void p4_tok_splitter_free(p4_tok_splitter *splitter)
{
    for (int i = 0; i < splitter->count; i++) {
        pcre2_code_free(splitter->step[i].pattern);
    }
    splitter->count = 0;
}
