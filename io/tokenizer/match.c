#include "io/tokenizer/match.h"

enum { MATCH_STEPS = 1000000, JIT_STACK_BYTES = 1 << 15, JIT_STACK_BYTES_MAX = 1 << 22 };

static p4_rc create(p4_tok_matcher *matcher)
{
    *matcher =
        (p4_tok_matcher){.match = pcre2_match_data_create(1, NULL), /* only the whole match is asked for */
                         .context = pcre2_match_context_create(NULL),
                         .stack = pcre2_jit_stack_create(JIT_STACK_BYTES, JIT_STACK_BYTES_MAX, NULL)};
    if (matcher->match == NULL || matcher->context == NULL) {
        p4_tok_matcher_free(matcher);
        return FAULT("out of memory: no match data for patterns");
    }
    if (matcher->stack != NULL) {
        pcre2_jit_stack_assign(matcher->context, NULL, matcher->stack);
    }
    return P4_OK;
}

p4_rc p4_tok_matcher_start(p4_tok_matcher *matcher, size_t text_bytes)
{
    p4_rc rc = P4_OK;
    if (matcher->match == NULL) {
        TRY(create(matcher));
    }
    uint64_t steps = MATCH_STEPS + 8 * (uint64_t)text_bytes;
    pcre2_set_match_limit(matcher->context, steps < UINT32_MAX ? (uint32_t)steps : UINT32_MAX);
done:
    return rc;
}

p4_rc p4_tok_match(p4_tok_matcher *matcher, const pcre2_code *pattern, p4_tok_text text, size_t from,
                   size_t *start, size_t *stop, const char *source)
{
    int found = pcre2_match(pattern, (PCRE2_SPTR)text.data, text.bytes, from, PCRE2_NO_UTF_CHECK,
                            matcher->match, matcher->context);
    *start = *stop = text.bytes;
    if (found >= 0) { /* 0: the pattern has groups, for which there is no room */
        const size_t *ends = pcre2_get_ovector_pointer(matcher->match);
        *start = ends[0];
        *stop = ends[1];
    }
    if (found >= 0 ? *start < from || *stop <= *start : found != PCRE2_ERROR_NOMATCH) {
        PCRE2_UCHAR message[256] = "it matched nothing";
        if (found < 0) {
            pcre2_get_error_message(found, message, sizeof message);
        }
        return FAIL("%s: a pattern failed at byte %zu of a text of %zu bytes: %s", source, from, text.bytes,
                    (const char *)message);
    }
    return P4_OK;
}

void p4_tok_matcher_free(p4_tok_matcher *matcher)
{
    pcre2_match_data_free(matcher->match);
    pcre2_match_context_free(matcher->context);
    pcre2_jit_stack_free(matcher->stack);
    *matcher = (p4_tok_matcher){0};
}
