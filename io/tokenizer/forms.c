#include "io/tokenizer/forms.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "io/utf8/utf8.h"

/* Code points that one character decomposes into: U+FDFA becomes 18 in NFKD. No character becomes more than
 * six for each of its bytes. */
enum { LARGEST_DECOMPOSITION = 18, POINTS_A_BYTE = 6 };

/* Characters with compatibility mappings that came after Unicode 9, whose tables the reference has. */
static bool is_newer(int32_t c)
{
    return c == 0x32FF || (c >= 0xA7F2 && c <= 0xA7F4) || c == 0xAB69 || (c >= 0x10781 && c <= 0x107BA) ||
           c == 0x1F16C || (c >= 0x1FBF0 && c <= 0x1FBF9);
}

/* Whether a character has a decomposition, by a canonical mapping or, in the forms with a K, by any; Hangul
 * syllables have one by rule. */
static bool decomposes(int32_t c, p4_tok_form form)
{
    if (c < 0xA0) {
        return false;
    }
    const utf8proc_property_t *p = utf8proc_get_property(c);
    return ((p->decomp_type == 0 || (form.compatible && !is_newer(c))) && p->decomp_seqindex != UINT16_MAX) ||
           (c >= 0xAC00 && c <= 0xD7A3);
}

/* Whether a form may change a text at this character: it decomposes, or may combine with what precedes it
 * (marks, and the vowels and finals of Hangul). In NFC a composed letter below U+0300 or a Hangul syllable
 * changes only if such a character follows. Errs towards yes. */
static bool may_change(int32_t c, p4_tok_form form)
{
    if (c < 0xA0) {
        return false;
    }
    if (!form.composed || form.compatible) {
        if (decomposes(c, form)) {
            return true;
        }
    }
    if (c < 0x300 || (c >= 0x3400 && c <= 0xD7A3 && !(c >= 0xA600 && c < 0xAC00))) {
        return false;
    }
    const utf8proc_property_t *p = utf8proc_get_property(c);
    bool mark = p->category == UTF8PROC_CATEGORY_MN || p->category == UTF8PROC_CATEGORY_MC ||
                p->category == UTF8PROC_CATEGORY_ME;
    bool jamo = (c >= 0x1100 && c <= 0x11FF) || (c >= 0xA960 && c <= 0xA97F) || (c >= 0xD7B0 && c <= 0xD7FF);
    return mark || jamo || decomposes(c, form) || p->combining_class != 0;
}

static bool is_normal(p4_tok_text text, p4_tok_form form)
{
    for (size_t at = 0, length; at < text.bytes; at += length) {
        if (may_change(p4_utf8_decode(text.data + at, text.bytes - at, &length), form)) {
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

/* Appends decomposed text as it is. */
static p4_rc encode(p4_tok_buffer *buffer, const int32_t *points, size_t count)
{
    p4_rc rc = P4_OK;
    for (size_t i = 0; i < count; i++) {
        utf8proc_uint8_t bytes[4];
        utf8proc_ssize_t length = utf8proc_encode_char(points[i], bytes);
        TRY(p4_tok_buffer_append(buffer, (const char *)bytes, (size_t)length));
    }
done:
    return rc;
}

p4_rc p4_tok_normal_form(p4_tok_text *text, p4_tok_form form, p4_tok_buffer *buffer, p4_tok_points *scratch)
{
    p4_rc rc = P4_OK;
    const utf8proc_option_t options =
        UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | (form.compatible ? UTF8PROC_COMPAT : 0);
    if (is_normal(*text, form)) {
        return P4_OK;
    }
    /* The decomposed text, and as much room again to order marks in. */
    size_t half = POINTS_A_BYTE * text->bytes + LARGEST_DECOMPOSITION;
    TRY(reserve(scratch, 2 * half));
    int32_t *points = scratch->points;
    utf8proc_ssize_t count = 0;
    for (size_t at = 0, length; at < text->bytes; at += length) {
        int32_t c = p4_utf8_decode(text->data + at, text->bytes - at, &length);
        if (!decomposes(c, form)) {
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
    if (form.composed) {
        TRY(compose(buffer, points, (size_t)count));
    } else {
        TRY(encode(buffer, points, (size_t)count));
    }
    *text = (p4_tok_text){buffer->data, buffer->bytes};
done:
    return rc;
}

void p4_tok_points_free(p4_tok_points *scratch)
{
    free(scratch->points);
    *scratch = (p4_tok_points){0};
}
