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
    tuning->block_distance = NAN;
    m->original_size_mb = m->stored_size_mb = m->compressed_size_mb = m->packed_file_mb = NAN;
    m->compression_ratio = m->stored_files_mb = m->stored_files_ratio = NAN;
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
    for (int i = 0; i < P4_WARNINGS_MAX; i++) {
        free(results->warnings[i]);
        results->warnings[i] = NULL;
    }
    results->warning_count = 0;
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

void p4_set_results_init(p4_set_results *set, const char *name)
{
    *set = (p4_set_results){.quality = {.degradation_ratio = NAN,
                                        .degradation_low = NAN,
                                        .degradation_high = NAN,
                                        .max_accuracy_drop = NAN}};
    set->pre = set->post = set->final = p4_evaluation_none();
    snprintf(set->name, sizeof set->name, "%s", name);
}

void p4_quality_judge(p4_quality *q, const p4_evaluation *pre, const p4_evaluation *final,
                      double max_accuracy_drop)
{
    *q = (p4_quality){.degradation_ratio = NAN,
                      .degradation_low = final->degradation_low,
                      .degradation_high = final->degradation_high,
                      .max_accuracy_drop = max_accuracy_drop};
    if (pre->tokens > 0 && final->tokens > 0) {
        q->degradation_ratio = (final->perplexity - pre->perplexity) / pre->perplexity;
        q->passed = q->degradation_ratio <= max_accuracy_drop;
    }
}

p4_verdict p4_quality_verdict(const p4_quality *q)
{
    return isnan(q->degradation_ratio)                    ? P4_VERDICT_NONE
           : q->degradation_ratio <= q->max_accuracy_drop ? P4_VERDICT_PASSED
                                                          : P4_VERDICT_FAILED;
}

p4_verdict p4_sets_verdict(const p4_quality *quality, const p4_set_results *sets, int64_t set_count)
{
    p4_verdict all = p4_quality_verdict(quality);
    for (int64_t i = 0; i < set_count; i++) {
        p4_verdict one = p4_quality_verdict(&sets[i].quality);
        bool decides = one == P4_VERDICT_FAILED || (one == P4_VERDICT_NONE && all == P4_VERDICT_PASSED);
        all = decides ? one : all;
    }
    return all;
}

p4_verdict p4_results_verdict(const p4_results *r)
{
    return r->gradient_flow.ran && !r->gradient_flow.passed
               ? P4_VERDICT_FAILED
               : p4_sets_verdict(&r->quality, r->sets, r->set_count);
}

/* The names of the sets with that verdict, "code, web". Returns their number. */
static int64_t list_sets(char *text, size_t capacity, const p4_set_results *sets, int64_t count,
                         p4_verdict verdict)
{
    int64_t found = 0;
    size_t used = 0;
    text[0] = '\0';
    for (int64_t i = 0; i < count; i++) {
        if (p4_quality_verdict(&sets[i].quality) == verdict && used < capacity) {
            used +=
                (size_t)snprintf(text + used, capacity - used, "%s%s", found++ > 0 ? ", " : "", sets[i].name);
        }
    }
    return found;
}

const char *p4_sets_summary(char text[P4_SETS_BYTES], const p4_set_results *sets, int64_t set_count)
{
    char names[P4_SETS_BYTES - 32];
    text[0] = '\0';
    if (list_sets(names, sizeof names, sets, set_count, P4_VERDICT_FAILED) > 0) {
        snprintf(text, P4_SETS_BYTES, "failed on the sets: %s", names);
    } else if (list_sets(names, sizeof names, sets, set_count, P4_VERDICT_NONE) > 0) {
        snprintf(text, P4_SETS_BYTES, "no verdict on the sets: %s", names);
    } else if (set_count > 0) {
        snprintf(text, P4_SETS_BYTES, "passed on the sets: %s",
                 list_sets(names, sizeof names, sets, set_count, P4_VERDICT_PASSED) > 0 ? names : "");
    }
    return text;
}

/* A change in percent: "+2.8"; models that were only rounded may have one of many digits. */
static const char *signed_percent(char text[24], double ratio)
{
    snprintf(text, 24, fabs(100.0 * ratio) < 1e6 ? "%+.1f" : "%+.3g", 100.0 * ratio);
    return text;
}

const char *p4_rise_interval(char text[32], double low, double high)
{
    char from[24], until[24];
    text[0] = '\0';
    if (isfinite(low) && isfinite(high)) {
        snprintf(text, 32, "%.12s to %.12s", signed_percent(from, low), signed_percent(until, high));
    }
    return text;
}

const char *p4_quality_interval(char text[64], const p4_quality *q)
{
    char range[32];
    p4_rise_interval(range, q->degradation_low, q->degradation_high);
    snprintf(text, 64, range[0] != '\0' ? " (95 %% interval: %s %%)" : "", range);
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

const char *p4_quality_explain_failure(char text[P4_VERDICT_BYTES], const p4_quality *q, const char *sets,
                                       bool flow_failed)
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
    if (sets[0] != '\0') {
        used += snprintf(text + used, P4_VERDICT_BYTES - (size_t)used, "%s%s", used > 0 ? "; " : "", sets);
        used = used < P4_VERDICT_BYTES ? used : P4_VERDICT_BYTES - 1;
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
