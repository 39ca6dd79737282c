#include "io/out/measurement.h"

#include <math.h>
#include <string.h>

#include "io/json/evaluation.h"
#include "io/out/report.h"

/* ---- the table ---- */

static void row(FILE *to, const char *label, const double values[4], int decimals, double factor)
{
    fprintf(to, "  %-26s", label);
    for (int i = 0; i < 4; i++) {
        char number[P4_NUMBER_BYTES];
        fprintf(to, " %13s", isnan(values[i]) ? "-" : p4_format_number(number, factor * values[i], decimals));
    }
    fputc('\n', to);
}

static void verdict(FILE *to, const p4_measurement *m)
{
    const p4_quality *q = &m->quality;
    if (isnan(q->degradation_ratio)) {
        fprintf(to, "\n  Verdict         NONE: the original%s\n",
                m->original.tokens > 0 ? "'s perplexity is infinite" : " was not measured");
        return;
    }
    if (isinf(q->degradation_ratio)) {
        fprintf(to, "\n  Verdict         FAILED: perplexity became infinite\n");
        return;
    }
    char change[P4_QUALITY_BYTES];
    fprintf(to, "\n  Verdict         %s: %s\n", q->passed ? "PASSED" : "FAILED",
            p4_quality_change(change, q));
}

void p4_measurement_table(FILE *to, const p4_measurement *m)
{
    enum { COLUMNS = 4 };
    const p4_evaluation *columns[COLUMNS] = {&m->original, &m->compressed, &m->recorded_original,
                                             &m->recorded};
    double perplexity[COLUMNS], low[COLUMNS], high[COLUMNS], bits[COLUMNS], words[COLUMNS], loss[COLUMNS],
        accuracy[COLUMNS], agreement[COLUMNS], kl[COLUMNS], tokens[COLUMNS];
    for (int i = 0; i < COLUMNS; i++) {
        bool there = columns[i]->tokens > 0;
        perplexity[i] = there ? columns[i]->perplexity : NAN;
        low[i] = there ? columns[i]->perplexity_low : NAN;
        high[i] = there ? columns[i]->perplexity_high : NAN;
        bits[i] = there ? columns[i]->bits_per_byte : NAN;
        words[i] = there ? columns[i]->word_perplexity : NAN;
        loss[i] = there ? columns[i]->loss : NAN;
        accuracy[i] = there ? columns[i]->accuracy : NAN;
        agreement[i] = there ? columns[i]->agreement : NAN;
        kl[i] = there ? columns[i]->kl : NAN;
        tokens[i] = there ? (double)columns[i]->tokens : NAN;
    }
    fprintf(to, "%s: %s, on %lld windows of %lld tokens\n", m->path, m->model_type, (long long)m->windows,
            (long long)m->window_tokens);
    fprintf(to, m->original_path[0] != '\0' ? "original: %s\n\n" : "original: not at hand: %s\n\n",
            m->original_path[0] != '\0' ? m->original_path : m->why_not);
    fprintf(to, "  %-26s %27s %27s\n", "", "measured now    ", "recorded by the run    ");
    fprintf(to, "  %-26s %13s %13s %13s %13s\n", "", "original", "compressed", "original", "compressed");
    row(to, "perplexity", perplexity, 3, 1);
    row(to, "  95 % interval from", low, 3, 1);
    row(to, "  to", high, 3, 1);
    row(to, "bits a byte", bits, 4, 1);
    row(to, "perplexity a word", words, 3, 1);
    row(to, "loss (nats a token)", loss, 4, 1);
    row(to, "next token right (%)", accuracy, 2, 100);
    row(to, "same as the original's (%)", agreement, 2, 100);
    row(to, "KL to the original (nats)", kl, 4, 1);
    row(to, "predictions", tokens, 0, 1);
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

static bool put_quality(cJSON *to, const p4_quality *q)
{
    const p4_json_real reals[] = {{"degradation_ratio", q->degradation_ratio},
                                  {"degradation_low", q->degradation_low},
                                  {"degradation_high", q->degradation_high},
                                  {"max_accuracy_drop", q->max_accuracy_drop}};
    bool judged = !isnan(q->degradation_ratio);
    return to != NULL &&
           (judged ? cJSON_AddBoolToObject(to, "passed", q->passed) : cJSON_AddNullToObject(to, "passed")) !=
               NULL &&
           p4_json_put_reals(to, reals, sizeof reals / sizeof reals[0]);
}

char *p4_measurement_json(const p4_measurement *m)
{
    cJSON *root = cJSON_CreateObject(), *recorded = NULL;
    bool ok = p4_json_put_text(root, "file", m->path) &&
              p4_json_put_text(root, "model_type", m->model_type) &&
              p4_json_put_text(root, "original_path", m->original_path) &&
              p4_json_put_text(root, "why_no_original", m->why_not) &&
              p4_json_put_whole(root, "windows", m->windows) &&
              p4_json_put_whole(root, "window_tokens", m->window_tokens) &&
              put_evaluation(root, "original", &m->original) &&
              put_evaluation(root, "compressed", &m->compressed) &&
              (recorded = cJSON_AddObjectToObject(root, "recorded")) != NULL &&
              put_evaluation(recorded, "original", &m->recorded_original) &&
              put_evaluation(recorded, "compressed", &m->recorded) &&
              put_quality(cJSON_AddObjectToObject(root, "quality"), &m->quality);
    return p4_json_print(root, ok, true);
}
