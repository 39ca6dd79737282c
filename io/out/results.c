#include "io/out/report.h"

#include "io/json/evaluation.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void p4_results_init(p4_results *results)
{
    p4_size_metrics *m = &results->metrics;
    p4_fine_tuning *tuning = &results->fine_tuning;
    memset(results, 0, sizeof *results);
    results->pre = results->post = results->final = p4_evaluation_none();
    results->quality.degradation_ratio = results->quality.max_accuracy_drop = NAN;
    results->quality.degradation_low = results->quality.degradation_high = NAN;
    tuning->final_loss = tuning->final_perplexity = tuning->best_perplexity = NAN;
    m->original_size_mb = m->stored_size_mb = m->compressed_size_mb = m->packed_file_mb = NAN;
    m->compression_ratio = NAN;
    m->target_compression_ratio = m->sparsity_ratio = m->peak_memory_mb = NAN;
    m->ternary_mb = m->scales_mb = m->embedding_mb = m->head_mb = m->other_mb = NAN;
    results->reconstruction.seconds = results->total_s = NAN;
}

void p4_results_free(p4_results *results)
{
    p4_fine_tuning *tuning = &results->fine_tuning;
    free(tuning->history);
    tuning->history = NULL;
    tuning->history_count = tuning->history_capacity = 0;
    free(results->reconstruction.losses);
    results->reconstruction.losses = NULL;
    results->reconstruction.losses_count = 0;
    free(results->experts.tokens);
    results->experts.tokens = NULL;
    p4_provenance_free(&results->provenance);
}

p4_rc p4_fine_tuning_add_history(p4_fine_tuning *tuning, const p4_history_entry *entry)
{
    p4_history_entry *history =
        p4_grow(tuning->history, tuning->history_count, &tuning->history_capacity, sizeof *history);
    if (history == NULL) {
        return P4_E_SYSTEM;
    }
    tuning->history = history;
    tuning->history[tuning->history_count++] = *entry;
    return P4_OK;
}

const char *p4_quality_interval(char text[64], const p4_quality *q)
{
    text[0] = '\0';
    if (isfinite(q->degradation_low) && isfinite(q->degradation_high)) {
        snprintf(text, 64, " (95 %% interval: %+.1f to %+.1f %%)", 100.0 * q->degradation_low,
                 100.0 * q->degradation_high);
    }
    return text;
}

const char *p4_quality_change(char text[P4_QUALITY_BYTES], const p4_quality *q)
{
    char interval[64];
    const double change = 100.0 * fabs(q->degradation_ratio);
    snprintf(text, P4_QUALITY_BYTES,
             change < 1e6 ? "perplexity %s by %.1f %%%s, a rise of %.1f %% is allowed"
                          : "perplexity %s by %.3g %%%s, a rise of %.1f %% is allowed",
             q->degradation_ratio < 0.0 ? "fell" : "rose", change, p4_quality_interval(interval, q),
             100.0 * q->max_accuracy_drop);
    return text;
}

const char *p4_quality_explain_failure(char text[P4_VERDICT_BYTES], const p4_quality *q, bool flow_failed)
{
    char change[P4_QUALITY_BYTES];
    const bool measured = !isnan(q->degradation_ratio);
    int used = 0;
    text[0] = '\0';
    if (!isfinite(q->degradation_ratio) && (measured || !flow_failed)) {
        used = snprintf(text, P4_VERDICT_BYTES, "perplexity is not finite");
    } else if (q->degradation_ratio > q->max_accuracy_drop) {
        used = snprintf(text, P4_VERDICT_BYTES, "%s", p4_quality_change(change, q));
    }
    if (flow_failed) {
        snprintf(text + used, P4_VERDICT_BYTES - (size_t)used, "%sthe gradient-flow test failed",
                 used > 0 ? "; " : "");
    }
    return text;
}

p4_rc p4_results_add_time(p4_results *results, const char *stage, double seconds)
{
    int64_t i = 0;
    while (i < results->stage_count && strcmp(results->stages[i].stage, stage) != 0) {
        i++;
    }
    if (i == P4_MAX_STAGES || strlen(stage) >= sizeof results->stages[0].stage) {
        return FAULT("the stage \"%s\" finds no place among %d times", stage, P4_MAX_STAGES);
    }
    if (i == results->stage_count) {
        strcpy(results->stages[i].stage, stage);
        results->stages[i].seconds = 0.0;
        results->stage_count++;
    }
    results->stages[i].seconds += seconds;
    return P4_OK;
}
