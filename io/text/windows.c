#include "io/text/dataset.h"

#include "io/text/dataset_parts.h"
#include "io/text/sample.h"
#include "io/text/token_file.h"
#include "io/text/token_stream.h"
#include "io/text/tokenize.h"
#include "io/text/window_parts.h"

#include <stdlib.h>
#include <string.h>

/* The files, or samples in memory, and their tokens. */
typedef struct source {
    const char *what; /* for messages */
    p4_texts texts;
    p4_token_file *files; /* [texts.count] those that are token files; NULL: there are samples */
    p4_draw *draws;       /* [texts.count] which part of the texts was read; NULL: all */
    void *ids;            /* of what was tokenized, id_bytes each */
    int id_bytes;
    int64_t used, capacity;
    int64_t *counts; /* [texts.count] tokens of each text */
    p4_text_counts totals;
    p4_document_span
        *spans; /* [totals.documents] of what was tokenized; `first` is among `ids` until joined */
    int64_t span_capacity, seen_bytes, seen_words; /* seen: of those spans */
    p4_token_stream stream;                        /* a part a file or sample */
} source;

/* ---- the stream ---- */

/* The document at hand is number totals.documents; `count` more of its tokens come. */
static p4_rc note_document(source *s, int64_t count)
{
    int64_t number = s->totals.documents;
    if (number > s->span_capacity) {
        int64_t capacity = p4_max_i64(number, p4_max_i64(64, 2 * s->span_capacity));
        p4_document_span *grown = p4_resize(s->spans, (size_t)capacity, sizeof *grown);
        if (grown == NULL) {
            return P4_E_SYSTEM;
        }
        memset(grown + s->span_capacity, 0, (size_t)(capacity - s->span_capacity) * sizeof *grown);
        s->spans = grown;
        s->span_capacity = capacity;
    }
    p4_document_span *span = &s->spans[number - 1];
    span->first = span->tokens == 0 ? s->used : span->first;
    span->tokens += count;
    span->bytes += s->totals.bytes - s->seen_bytes;
    span->words += s->totals.words - s->seen_words;
    s->seen_bytes = s->totals.bytes;
    s->seen_words = s->totals.words;
    return P4_OK;
}

static p4_rc keep_ids(void *user, int64_t from, const int32_t *ids, int64_t count)
{
    source *s = user;
    p4_rc rc = note_document(s, count);
    if (rc != P4_OK) {
        return rc;
    }
    if (s->used + count > s->capacity) {
        int64_t capacity = p4_max_i64(p4_max_i64(s->used + count, s->capacity + s->capacity / 2), 1 << 16);
        void *grown = p4_resize(s->ids, (size_t)capacity, (size_t)s->id_bytes);
        if (grown == NULL) {
            return P4_E_SYSTEM;
        }
        s->ids = grown;
        s->capacity = capacity;
    }
    if (s->id_bytes == 2) {
        for (int64_t i = 0; i < count; i++) {
            ((uint16_t *)s->ids)[s->used + i] = (uint16_t)ids[i];
        }
    } else if (count > 0) {
        memcpy((int32_t *)s->ids + s->used, ids, (size_t)count * sizeof *ids);
    }
    s->used += count;
    s->counts[from] += count;
    return P4_OK;
}

/* Whether the document is of the texts that end at token `at`; an empty one may as well be of the next. */
static bool is_before(const p4_document_span *span, int64_t at)
{
    return span->first < at || (span->first == at && span->tokens == 0);
}

static p4_rc join(source *s)
{
    p4_rc rc = P4_OK;
    int64_t at = 0, span = 0;
    p4_token_stream_free(&s->stream);
    for (int64_t i = 0; i < s->texts.count; i++) {
        const p4_token_file *file = s->files != NULL && s->files[i].path != NULL ? &s->files[i] : NULL;
        if (file != NULL) {
            TRY(p4_token_stream_add(&s->stream, file->ids, file->id_bytes, file->count));
        } else {
            TRY(p4_token_stream_add(&s->stream, (const char *)s->ids + at * s->id_bytes, s->id_bytes,
                                    s->counts[i]));
            at += s->counts[i];
            for (; span < s->totals.documents && is_before(&s->spans[span], at); span++) {
                s->spans[span].first += s->stream.count - at;
            }
        }
    }
done:
    return rc;
}

static p4_rc tokenize(source *s, const p4_windowing *how)
{
    p4_rc rc = P4_OK;
    s->used = 0;
    s->totals = (p4_text_counts){0};
    s->seen_bytes = s->seen_words = 0;
    if (s->span_capacity > 0) {
        memset(s->spans, 0, (size_t)s->span_capacity * sizeof *s->spans);
    }
    memset(s->counts, 0, (size_t)s->texts.count * sizeof *s->counts);
    s->texts.draws = s->draws;
    TRY(p4_tokenize(&s->texts, how, keep_ids, s, &s->totals));
    TRY(join(s));
done:
    return rc;
}

/* Tokenizes what `limit` windows are drawn from: all, or parts of the files that hold as many at least. */
static p4_rc fill(source *s, const p4_windowing *how, int64_t limit)
{
    p4_rc rc = P4_OK;
    for (int attempt = 0;; attempt++) {
        free(s->draws);
        s->draws = NULL;
        if (limit > 0 && s->texts.samples == NULL) {
            TRY(p4_plan_draws(&s->draws, s->texts.paths, s->texts.count, how, limit, attempt));
        }
        TRY(tokenize(s, how));
        if (s->draws == NULL || p4_windows_in(s->stream.count, how->T, how->stride) >= limit) {
            break;
        }
    }
done:
    return rc;
}

static p4_rc open_files(source *s, int64_t vocab)
{
    p4_rc rc = P4_OK;
    s->files = p4_alloc((size_t)s->texts.count, sizeof *s->files);
    TRY(s->files != NULL ? P4_OK : P4_E_SYSTEM);
    for (int64_t i = 0; i < s->texts.count; i++) {
        if (p4_data_kind_of(s->texts.paths[i]) == P4_DATA_TOKENS) {
            TRY(p4_token_file_open(&s->files[i], s->texts.paths[i], vocab));
        }
    }
done:
    return rc;
}

static void close_source(source *s)
{
    for (int64_t i = 0; s->files != NULL && i < s->texts.count; i++) {
        p4_token_file_close(&s->files[i]);
    }
    free(s->files);
    free(s->draws);
    free(s->ids);
    free(s->counts);
    free(s->spans);
    p4_token_stream_free(&s->stream);
}

/* ---- windows of it ---- */

/* *picks [count], which the caller frees: which windows of the stream are taken, of `total`. */
static p4_rc pick(int64_t **picks, int64_t count, int64_t total, const source *s, const p4_windowing *how)
{
    p4_rc rc = P4_OK;
    int64_t at = 0;
    *picks = p4_alloc((size_t)count, sizeof **picks);
    p4_window_range *ranges = p4_alloc((size_t)s->texts.count, sizeof *ranges);
    TRY(*picks != NULL && ranges != NULL ? P4_OK : P4_E_SYSTEM);
    if (count == total) {
        for (int64_t i = 0; i < count; i++) {
            (*picks)[i] = i;
        }
        goto done;
    }
    const int64_t step = how->stride > 0 ? how->stride : how->T;
    for (int64_t i = 0; i < s->texts.count; i++) { /* a window is that of the file in which it begins */
        const p4_token_part *part = &s->stream.parts[i];
        int64_t end = p4_min_i64(total, p4_ceil_div(part->first + part->count, step));
        bool drawn = s->draws != NULL && s->draws[i].stride > 0;
        ranges[i] = (p4_window_range){.count = end - at, .weight = drawn ? s->draws[i].stride : 1};
        at = end;
    }
    TRY(p4_pick_windows(*picks, count, ranges, s->texts.count, how->opt_mixture, how->seed));
done:
    free(ranges);
    return rc;
}

/* Tokens of token files were not looked at before. `at`: where in the stream the window begins. Adds to what
 * was seen of each file: seen [files][2], its tokens, and those that end a text. */
static p4_rc check_window(const source *s, const int32_t *ids, int64_t at, const p4_windowing *how,
                          int64_t (*seen)[2])
{
    int64_t p = p4_token_stream_find(&s->stream, at);
    for (int64_t i = 0; i < how->T; i++) {
        while (at + i >= s->stream.parts[p].first + s->stream.parts[p].count) {
            p++;
        }
        if (ids[i] < 0 || ids[i] >= how->vocab) {
            return p4_token_file_refuse_id(&s->files[p], at + i - s->stream.parts[p].first, how->vocab);
        }
        seen[p][0]++;
        seen[p][1] += ids[i] == how->end_id;
    }
    return P4_OK;
}

/* The windows begin at tokens begins[count] of the stream. */
static p4_rc find_parts(p4_windows *windows, const source *s, const p4_windowing *how, const int64_t *begins)
{
    const p4_document_map map = {
        .stream = &s->stream, .end_id = how->end_id, .spans = s->spans, .span_count = s->totals.documents};
    return p4_window_parts_find(windows, &map, begins);
}

static p4_rc read_windows(p4_windows *windows, const source *s, const p4_windowing *how, int64_t limit)
{
    p4_rc rc = P4_OK;
    const int64_t T = how->T, total = p4_windows_in(s->stream.count, T, how->stride);
    int64_t *picks = NULL, (*seen)[2] = NULL;
    const char *purpose = how->opt_what != NULL ? how->opt_what : "";
    bool no_text = s->totals.documents > 0 && s->totals.bytes == 0 && s->stream.count == s->totals.tokens;
    bool one = s->texts.count == 1 && s->texts.samples == NULL; /* its name */
    CHECK(!no_text, "%s%s%s %s empty: no text", purpose, purpose[0] != '\0' ? ": " : "", s->what,
          one ? "is" : "are");
    CHECK(total > 0,
          "%s%s%s: %lld token%s, less than one window of %lld tokens: give more text or a smaller "
          "calibration_sequence_length",
          purpose, purpose[0] != '\0' ? ": " : "", s->what, (long long)s->stream.count,
          p4_plural(s->stream.count), (long long)T);
    windows->count = limit > 0 ? p4_min_i64(limit, total) : total;
    TRY(pick(&picks, windows->count, total, s, how));
    windows->ids = p4_alloc((size_t)(windows->count * T), sizeof *windows->ids);
    seen = p4_alloc((size_t)s->texts.count, sizeof *seen);
    TRY(windows->ids != NULL && seen != NULL ? P4_OK : P4_E_SYSTEM);
    for (int64_t i = 0; i < windows->count; i++) {
        int32_t *ids = windows->ids + i * T;
        windows->begins_stream = windows->begins_stream || picks[i] == 0;
        picks[i] *= how->stride > 0 ? how->stride : T; /* from here on: the token where it begins */
        p4_token_stream_read(&s->stream, ids, picks[i], T);
        TRY(check_window(s, ids, picks[i], how, seen));
    }
    for (int64_t i = 0; i < s->texts.count && s->files != NULL; i++) {
        if (s->files[i].path != NULL) {
            p4_token_file_warn_of_ends(&s->files[i], how->end_id, seen[i][1], seen[i][0]);
        }
    }
    windows->tokens_total = s->stream.count;
    windows->documents = s->totals.documents;
    TRY(find_parts(windows, s, how, picks));
done:
    free(picks);
    free(seen);
    return rc;
}

/* ---- the interface ---- */

static p4_rc read_source(p4_windows *windows, source *s, const p4_windowing *how, int64_t limit)
{
    p4_rc rc = P4_OK;
    int64_t ids;
    *windows = (p4_windows){.T = how->T, .stride = how->stride};
    CHECK(how->T >= 1 && limit >= 0 && how->vocab >= 1 && how->stride >= 0 && how->stride < how->T,
          "windows of %lld tokens, at most %lld, vocabulary %lld: out of range", (long long)how->T,
          (long long)limit, (long long)how->vocab);
    CHECK(how->end_id < how->vocab, "the end-of-text id is %d; the model's vocabulary holds 0 to %lld",
          (int)how->end_id, (long long)how->vocab - 1);
    CHECK(!__builtin_mul_overflow(limit, how->T, &ids), "%lld windows of %lld tokens: too many",
          (long long)limit, (long long)how->T);
    s->id_bytes = how->vocab <= 65536 ? 2 : 4;
    s->counts = p4_alloc((size_t)s->texts.count, sizeof *s->counts);
    TRY(s->counts != NULL ? P4_OK : P4_E_SYSTEM);
    if (s->texts.samples == NULL) {
        TRY(open_files(s, how->vocab));
    }
    TRY(fill(s, how, limit));
    TRY(read_windows(windows, s, how, limit));
done:
    close_source(s);
    if (rc != P4_OK) {
        p4_windows_free(windows);
    }
    return rc;
}

p4_rc p4_windows_read(p4_windows *windows, char *const *paths, int64_t path_count, const p4_windowing *how,
                      int64_t limit)
{
    source s = {.texts = {.paths = paths, .count = path_count},
                .what = path_count == 1 ? paths[0] : "the files of text and tokens"};
    *windows = (p4_windows){.ids = NULL};
    return path_count > 0 ? read_source(windows, &s, how, limit)
                          : FAIL("no files of text or tokens are named");
}

p4_rc p4_windows_from_samples(p4_windows *windows, const char *const *samples, int64_t count,
                              const p4_windowing *how, int64_t limit)
{
    source s = {.texts = {.samples = samples, .count = count}, .what = "the samples"};
    *windows = (p4_windows){.ids = NULL};
    if (samples == NULL || count < 1) {
        return FAIL("no samples are given");
    }
    return how->tokenizer != NULL ? read_source(windows, &s, how, limit)
                                  : FAIL("samples need a tokenizer, and there is none");
}

p4_rc p4_windows_set_aside(p4_windows *from, p4_windows *to, int64_t count, uint64_t seed)
{
    p4_rc rc = P4_OK;
    const int64_t T = from->T;
    const size_t window_bytes = (size_t)T * sizeof *from->ids;
    p4_window_range all = {.count = from->count, .weight = 1};
    p4_windows rest = {.ids = NULL};
    int64_t *picks = p4_alloc((size_t)count, sizeof *picks), kept = 0, moved = 0;
    *to = (p4_windows){.count = count, .T = T, .tokens_total = count * T};
    to->ids = p4_alloc((size_t)(count * T), sizeof *to->ids);
    TRY(picks != NULL && to->ids != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(p4_pick_windows(picks, count, &all, 1, NULL, seed));
    TRY(p4_window_parts_divide(from, picks, count, to, &rest));
    for (int64_t i = 0; i < from->count; i++) {
        if (moved < count && picks[moved] == i) {
            memcpy(to->ids + moved++ * T, from->ids + i * T, window_bytes);
        } else {
            memmove(from->ids + kept++ * T, from->ids + i * T, window_bytes);
        }
    }
    from->count = kept;
    free(from->parts);
    free(from->texts);
    from->parts = rest.parts;
    from->texts = rest.texts;
    from->part_count = rest.part_count;
    from->part_documents = rest.part_documents;
    rest = (p4_windows){.ids = NULL};
done:
    free(picks);
    p4_windows_free(&rest);
    if (rc != P4_OK) {
        p4_windows_free(to);
    }
    return rc;
}

p4_rc p4_windows_copy_some(const p4_windows *from, p4_windows *to, int64_t count, uint64_t seed)
{
    p4_rc rc = P4_OK;
    const int64_t T = from->T;
    p4_window_range all = {.count = from->count, .weight = 1};
    int64_t *picks = p4_alloc((size_t)count, sizeof *picks);
    *to = (p4_windows){.count = count, .T = T, .tokens_total = from->tokens_total};
    to->ids = p4_alloc((size_t)(count * T), sizeof *to->ids);
    TRY(picks != NULL && to->ids != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(p4_pick_windows(picks, count, &all, 1, NULL, seed));
    TRY(p4_window_parts_divide(from, picks, count, to, NULL));
    for (int64_t i = 0; i < count; i++) {
        memcpy(to->ids + i * T, from->ids + picks[i] * T, (size_t)T * sizeof *to->ids);
    }
done:
    free(picks);
    if (rc != P4_OK) {
        p4_windows_free(to);
    }
    return rc;
}

void p4_windows_forget_documents(p4_windows *windows)
{
    free(windows->parts);
    free(windows->texts);
    windows->parts = NULL;
    windows->texts = NULL;
    windows->part_count = windows->part_documents = 0;
}

void p4_windows_free(p4_windows *windows)
{
    free(windows->ids);
    free(windows->parts);
    free(windows->texts);
    *windows = (p4_windows){.ids = NULL};
}
