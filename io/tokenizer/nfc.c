#include "io/tokenizer/nfc.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "io/utf8/utf8.h"

enum { LARGEST_DECOMPOSITION = 4 }; /* code points */

/* Whether a character has a canonical decomposition; Hangul syllables have one by rule. */
static bool decomposes(int32_t c)
{
    if (c < 0xC0) {
        return false;
    }
    const utf8proc_property_t *p = utf8proc_get_property(c);
    return (p->decomp_type == 0 && p->decomp_seqindex != UINT16_MAX) || (c >= 0xAC00 && c <= 0xD7A3);
}

/* Whether NFC may change a text at this character: it decomposes, or may combine with what precedes it
 * (marks, and the vowels and finals of Hangul). A composed letter below U+0300 or a Hangul syllable changes
 * only if such a character follows. Errs towards yes. */
static bool may_change(int32_t c)
{
    if (c < 0x300 || (c >= 0x3400 && c <= 0xD7A3 && !(c >= 0xA600 && c < 0xAC00))) {
        return false;
    }
    const utf8proc_property_t *p = utf8proc_get_property(c);
    bool mark = p->category == UTF8PROC_CATEGORY_MN || p->category == UTF8PROC_CATEGORY_MC ||
                p->category == UTF8PROC_CATEGORY_ME;
    bool jamo = (c >= 0x1100 && c <= 0x11FF) || (c >= 0xA960 && c <= 0xA97F) || (c >= 0xD7B0 && c <= 0xD7FF);
    return mark || jamo || decomposes(c) || p->combining_class != 0;
}

static bool is_nfc(p4_tok_text text)
{
    for (size_t at = 0, length; at < text.bytes; at += length) {
        if (may_change(p4_utf8_decode(text.data + at, text.bytes - at, &length))) {
            return false;
        }
    }
    return true;
}

/* Orders a run of marks by combining class, stably. utf8proc's own ordering takes quadratic time, which a
 * text of nothing but marks would show. `spare` has room for the run. */
static void order_run(int32_t *marks, size_t count, int32_t *spare)
{
    size_t starts[257] = {0};
    for (size_t i = 0; i < count; i++) {
        starts[(size_t)utf8proc_get_property(marks[i])->combining_class % 256 + 1]++;
    }
    for (size_t c = 0; c < 256; c++) {
        starts[c + 1] += starts[c];
    }
    for (size_t i = 0; i < count; i++) {
        spare[starts[(size_t)utf8proc_get_property(marks[i])->combining_class % 256]++] = marks[i];
    }
    memcpy(marks, spare, count * sizeof *marks);
}

static void order_marks(int32_t *points, size_t count, int32_t *spare)
{
    size_t run = 0; /* marks before i */
    for (size_t i = 0; i <= count; i++) {
        if (i < count && utf8proc_get_property(points[i])->combining_class != 0) {
            run++;
            continue;
        }
        if (run > 1) {
            order_run(points + i - run, run, spare);
        }
        run = 0;
    }
}

/* Appends decomposed text in composed form; `points` is overwritten. U+11A7, which composes with nothing, is
 * kept from utf8proc, which treats it as a Hangul final and drops it behind a syllable. */
static p4_rc compose(p4_tok_buffer *buffer, int32_t *points, size_t count)
{
    p4_rc rc = P4_OK;
    for (size_t start = 0, i = 0; i <= count; i++) {
        if (i < count && points[i] != 0x11A7) {
            continue;
        }
        /* The result takes the place of the points, at most four bytes each, and a NUL behind it. */
        utf8proc_ssize_t bytes = utf8proc_reencode(points + start, (utf8proc_ssize_t)(i - start),
                                                   UTF8PROC_STABLE | UTF8PROC_COMPOSE);
        if (bytes < 0) {
            return FAULT("Unicode normalisation failed: %s", utf8proc_errmsg(bytes));
        }
        TRY(p4_tok_buffer_append(buffer, (const char *)(points + start), (size_t)bytes));
        TRY(p4_tok_buffer_append(buffer, "\xe1\x86\xa7", i < count ? 3 : 0));
        start = i + 1;
    }
done:
    return rc;
}

static p4_rc reserve(p4_tok_points *scratch, size_t count)
{
    if (count > scratch->capacity) {
        int32_t *grown = p4_resize(scratch->points, count, sizeof *grown);
        if (grown == NULL) {
            return P4_E_SYSTEM;
        }
        scratch->points = grown;
        scratch->capacity = count;
    }
    return P4_OK;
}

p4_rc p4_tok_nfc(p4_tok_text *text, p4_tok_buffer *buffer, p4_tok_points *scratch)
{
    p4_rc rc = P4_OK;
    const utf8proc_option_t options = UTF8PROC_STABLE | UTF8PROC_COMPOSE;
    if (is_nfc(*text)) {
        return P4_OK;
    }
    /* The decomposed text, and as much room again to order marks in. */
    size_t half = LARGEST_DECOMPOSITION * text->bytes + 1;
    TRY(reserve(scratch, 2 * half));
    int32_t *points = scratch->points;
    utf8proc_ssize_t count = 0;
    for (size_t at = 0, length; at < text->bytes; at += length) {
        int32_t c = p4_utf8_decode(text->data + at, text->bytes - at, &length);
        if (!decomposes(c)) {
            points[count++] = c;
            continue;
        }
        utf8proc_ssize_t more =
            utf8proc_decompose_char(c, points + count, LARGEST_DECOMPOSITION, options, NULL);
        if (more < 0 || more > LARGEST_DECOMPOSITION) {
            return FAULT("U+%04X could not be decomposed: %s", (unsigned)c, utf8proc_errmsg(more));
        }
        count += more;
    }
    order_marks(points, (size_t)count, points + half);
    buffer->bytes = 0;
    TRY(compose(buffer, points, (size_t)count));
    *text = (p4_tok_text){buffer->data, buffer->bytes};
done:
    return rc;
}

void p4_tok_points_free(p4_tok_points *scratch)
{
    free(scratch->points);
    *scratch = (p4_tok_points){0};
}
