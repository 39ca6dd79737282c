#include "io/out/measurement.h"

#include <math.h>
#include <string.h>

#include "io/json/evaluation.h"
#include "io/out/cells.h"
#include "io/out/evaluations_json.h"
#include "src/leaf/count.h"

/* ---- the table ---- */

enum { COLUMNS = 4, COLUMN = 13 };

static void row(FILE *to, const char *label, const double values[COLUMNS], int decimals, const char *unit)
{
    fprintf(to, "  %-26s", label);
    for (int i = 0; i < COLUMNS; i++) {
        char text[P4_CELL_BYTES];
        fprintf(to, " %*s", COLUMN, p4_cell(text, values[i], decimals, unit));
    }
    fputc('\n', to);
}

/* All sets. */
static void summary(FILE *to, const p4_measurement *m)
{
    char text[P4_SETS_BYTES];
    if (p4_sets_summary(text, m->sets, m->set_count)[0] != '\0') {
        fprintf(to, "; %s", text);
    }
}

static void verdict(FILE *to, const p4_measurement *m)
{
    const p4_quality *q = &m->quality;
    p4_verdict all = p4_sets_verdict(q, m->sets, m->set_count);
    fprintf(to, "\n  Verdict         %s: ",
            all == P4_VERDICT_NONE     ? "NONE"
            : all == P4_VERDICT_PASSED ? "PASSED"
                                       : "FAILED");
    if (isnan(q->degradation_ratio)) {
        fprintf(to, "the original%s",
                m->original.tokens > 0 ? "'s perplexity is infinite" : " was not measured");
    } else if (isinf(q->degradation_ratio)) {
        fputs("perplexity became infinite", to);
    } else {
        char change[P4_QUALITY_BYTES];
        fputs(p4_quality_change(change, q), to);
    }
    if (m->original.tokens > 0) {
        summary(to, m);
    }
    fprintf(to, "%s\n", m->original_guesses ? P4_GUESSES_TEXT : "");
}

static void interval_row(FILE *to, const p4_evaluation *const columns[COLUMNS])
{
    fprintf(to, "  %-26s", "  95 % interval");
    for (int i = 0; i < COLUMNS; i++) {
        char text[P4_CELL_BYTES];
        const p4_evaluation *e = columns[i];
        fprintf(to, " %*s", COLUMN,
                p4_cell_interval(text, e->tokens > 0 ? e->perplexity_low : NAN, e->perplexity_high, 3, ""));
    }
    fputc('\n', to);
}

static void count_row(FILE *to, const char *label, const p4_evaluation *const columns[COLUMNS])
{
    fprintf(to, "  %-26s", label);
    for (int i = 0; i < COLUMNS; i++) {
        char text[P4_COUNT_BYTES];
        fprintf(to, " %*s", COLUMN, columns[i]->tokens > 0 ? p4_format_count(text, columns[i]->tokens) : "-");
    }
    fputc('\n', to);
}

/* columns: measured now and recorded, of the original and the final model. */
static void figures(FILE *to, const p4_evaluation *const columns[COLUMNS])
{
    double perplexity[COLUMNS], bits[COLUMNS], words[COLUMNS], loss[COLUMNS], accuracy[COLUMNS],
        agreement[COLUMNS], kl[COLUMNS];
    for (int i = 0; i < COLUMNS; i++) {
        bool there = columns[i]->tokens > 0;
        perplexity[i] = there ? columns[i]->perplexity : NAN;
        bits[i] = there ? columns[i]->bits_per_byte : NAN;
        words[i] = there ? columns[i]->word_perplexity : NAN;
        loss[i] = there ? columns[i]->loss : NAN;
        accuracy[i] = there ? 100.0 * columns[i]->accuracy : NAN;
        agreement[i] = there ? 100.0 * columns[i]->agreement : NAN;
        kl[i] = there ? columns[i]->kl : NAN;
    }
    row(to, "perplexity", perplexity, 3, "");
    interval_row(to, columns);
    row(to, P4_ROW_LOSS, loss, 4, "");
    row(to, P4_ROW_BITS, bits, 4, "");
    row(to, P4_ROW_WORDS, words, 3, "");
    row(to, P4_ROW_ACCURACY, accuracy, 1, " %");
    row(to, P4_ROW_AGREEMENT, agreement, 1, " %");
    row(to, P4_ROW_KL, kl, 4, "");
    count_row(to, "predictions", columns);
}

/* Says so where the figures are not comparable. */
static void texts(FILE *to, p4_same_text same)
{
    if (same == P4_TEXT_OTHER) {
        fputs("  The run measured on other windows or another text: what it recorded is not comparable with "
              "what is "
              "measured now.\n",
              to);
    }
}

static void set_figures(FILE *to, const p4_measurement *m, int64_t i)
{
    const p4_set_results *now = &m->sets[i], *then = &m->recorded_sets[i];
    char change[P4_QUALITY_BYTES];
    char count[P4_COUNT_BYTES];
    fprintf(to, "\n  Set \"%s\", %s window%s", now->name, p4_format_count(count, m->set_windows[i]),
            p4_plural(m->set_windows[i]));
    if (isfinite(now->quality.degradation_ratio)) {
        fprintf(to, ": %s: %s", now->quality.passed ? "passed" : "FAILED",
                p4_quality_change(change, &now->quality));
    }
    fputc('\n', to);
    figures(to, (const p4_evaluation *const[]){&now->pre, &now->final, &then->pre, &then->final});
    texts(to, then->final.tokens > 0 ? m->set_same_text[i] : P4_TEXT_UNKNOWN);
}

void p4_measurement_table(FILE *to, const p4_measurement *m)
{
    char windows[P4_COUNT_BYTES], tokens[P4_COUNT_BYTES];
    fprintf(to, "%s: %s, on %s window%s of %s tokens\n", m->path, m->model_type,
            p4_format_count(windows, m->windows), p4_plural(m->windows),
            p4_format_count(tokens, m->window_tokens));
    fprintf(to, m->original_path[0] != '\0' ? "original: %s\n\n" : "original: not at hand: %s\n\n",
            m->original_path[0] != '\0' ? m->original_path : m->why_not);
    fprintf(to, "  %-26s %27s %27s\n", "", "measured now    ", "recorded by the run    ");
    fprintf(to, "  %-26s %13s %13s %13s %13s\n", "", "original", "final", "original", "final");
    figures(to, (const p4_evaluation *const[]){&m->original, &m->compressed, &m->recorded_original,
                                               &m->recorded});
    texts(to, m->recorded.tokens > 0 ? m->same_text : P4_TEXT_UNKNOWN);
    for (int64_t i = 0; i < m->set_count; i++) {
        set_figures(to, m, i);
    }
    verdict(to, m);
}

/* ---- JSON ---- */

static bool put_evaluation(cJSON *to, const char *key, const p4_evaluation *e)
{
    if (e->tokens == 0) {
        return cJSON_AddNullToObject(to, key) != NULL;
    }
    cJSON *object = cJSON_AddObjectToObject(to, key);
    return object != NULL && p4_json_put_evaluation(object, e);
}

static bool put_same_text(cJSON *recorded, p4_same_text same)
{
    return same == P4_TEXT_UNKNOWN
               ? cJSON_AddNullToObject(recorded, "same_text") != NULL
               : cJSON_AddBoolToObject(recorded, "same_text", same == P4_TEXT_SAME) != NULL;
}

/* Nothing without sets. */
static bool put_sets(cJSON *root, const p4_measurement *m)
{
    cJSON *list = m->set_count > 0 ? cJSON_AddArrayToObject(root, "eval_sets") : NULL, *recorded;
    bool ok = m->set_count == 0 || list != NULL;
    for (int64_t i = 0; ok && i < m->set_count; i++) {
        const p4_set_results *set = &m->sets[i];
        cJSON *object = cJSON_CreateObject();
        ok = object != NULL && cJSON_AddItemToArray(list, object);
        if (!ok) {
            cJSON_Delete(object);
            break;
        }
        ok = p4_json_put_text(object, "name", set->name) &&
             p4_json_put_whole(object, "windows", m->set_windows[i]) &&
             put_evaluation(object, "original", &set->pre) &&
             put_evaluation(object, "compressed", &set->final) &&
             (recorded = cJSON_AddObjectToObject(object, "recorded")) != NULL &&
             put_evaluation(recorded, "original", &m->recorded_sets[i].pre) &&
             put_evaluation(recorded, "compressed", &m->recorded_sets[i].final) &&
             put_same_text(recorded, m->set_same_text[i]) &&
             p4_json_put_quality(cJSON_AddObjectToObject(object, "quality"), &set->quality,
                                 p4_quality_verdict(&set->quality));
    }
    return ok;
}

char *p4_measurement_json(const p4_measurement *m)
{
    cJSON *root = cJSON_CreateObject(), *recorded = NULL;
    bool ok =
        p4_json_put_text(root, "file", m->path) && p4_json_put_text(root, "model_type", m->model_type) &&
        p4_json_put_text(root, "original_path", m->original_path) &&
        p4_json_put_text(root, "why_no_original", m->why_not) &&
        p4_json_put_whole(root, "windows", m->windows) &&
        p4_json_put_whole(root, "window_tokens", m->window_tokens) &&
        put_evaluation(root, "original", &m->original) &&
        put_evaluation(root, "compressed", &m->compressed) &&
        (recorded = cJSON_AddObjectToObject(root, "recorded")) != NULL &&
        put_evaluation(recorded, "original", &m->recorded_original) &&
        put_evaluation(recorded, "compressed", &m->recorded) && put_same_text(recorded, m->same_text) &&
        put_sets(root, m) && cJSON_AddBoolToObject(root, "original_guesses", m->original_guesses) != NULL &&
        p4_json_put_quality(cJSON_AddObjectToObject(root, "quality"), &m->quality,
                            p4_sets_verdict(&m->quality, m->sets, m->set_count));
    return p4_json_print(root, ok, true);
}
