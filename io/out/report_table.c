#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "io/out/cells.h"
#include "io/out/experts_json.h"
#include "io/out/outputs.h"
#include "io/out/report.h"
#include "src/leaf/count.h"
#include "src/plan.h"

static const double WORTH_A_LINE = 0.01; /* of the whole time, what a stage takes to be listed */
static const double WORTH_NAMING = 0.5;  /* of the largest part, where a ratio was not reached */

static const char *duration(char text[P4_CELL_BYTES], double seconds)
{
    if (isnan(seconds)) {
        snprintf(text, P4_CELL_BYTES, "-");
    } else if (seconds < 60.0) {
        snprintf(text, P4_CELL_BYTES, "%.1f s", seconds);
    } else if (seconds < 3600.0) {
        snprintf(text, P4_CELL_BYTES, "%d min %02d s", (int)seconds / 60, (int)seconds % 60);
    } else {
        snprintf(text, P4_CELL_BYTES, "%.0f h %02d min", floor(seconds / 3600.0),
                 (int)fmod(seconds / 60.0, 60.0));
    }
    return text;
}

static bool packed_is_written(const p4_results *r)
{
    return r->output_paths.quantized[0] != '\0';
}

static void heading(FILE *to, const p4_results *r)
{
    char params[P4_CELL_BYTES];
    fprintf(to, "\nphase4: %s, %s parameters", r->model_type[0] != '\0' ? r->model_type : "model",
            p4_format_count(params, r->metrics.total_params));
    if (r->metrics.layers_quantized > 0) {
        fprintf(to, "; ternary by \"%s\"", r->method);
        if (r->scale_granularity[0] != '\0' && strcmp(r->scale_granularity, "row") != 0) {
            fprintf(to, ", scale_granularity \"%s\"", r->scale_granularity);
        }
    }
    if (r->metrics.layers_quantized > 0 && packed_is_written(r)) {
        fprintf(to, ", packed as %s", r->packing);
    }
    fprintf(to, "\n\n");
}

typedef struct part {
    const char *label;
    double mb;
} part;
enum { PARTS = 5 };

static void list_parts(part parts[PARTS], const p4_size_metrics *m)
{
    const part all[PARTS] = {{"ternary weights", m->ternary_mb},
                             {"scales", m->scales_mb},
                             {"embedding", m->embedding_mb},
                             {"output head", m->head_mb},
                             {"norms, biases, others", m->other_mb}};
    memcpy(parts, all, sizeof all);
}

/* What a user sees of it on the disk. */
static void file_ratio(FILE *to, const p4_size_metrics *m)
{
    char got[P4_CELL_BYTES], from[P4_CELL_BYTES], file[P4_CELL_BYTES];
    if (isnan(m->stored_files_ratio)) {
        return;
    }
    fprintf(to, "    %-26s %12s   %s to %s\n", "  against the stored files",
            p4_cell(got, m->stored_files_ratio, 2, "x"), p4_cell(from, m->stored_files_mb, 2, " MiB"),
            p4_cell(file, m->packed_file_mb, 2, " MiB"));
}

static void ratio(FILE *to, const p4_size_metrics *m, const part parts[PARTS])
{
    char got[P4_CELL_BYTES], target[P4_CELL_BYTES];
    fprintf(to, "    %-26s %12s", "compression ratio", p4_cell(got, m->compression_ratio, 2, "x"));
    if (isnan(m->compression_ratio) || isnan(m->target_compression_ratio)) {
        fprintf(to, "\n");
        return;
    }
    fprintf(to, "   against fp32; target %s: ", p4_cell(target, m->target_compression_ratio, 1, "x"));
    if (m->compression_ratio >= m->target_compression_ratio) {
        fprintf(to, "reached\n");
        return;
    }
    double most = 0;
    for (int i = 0; i < PARTS; i++) {
        most = fmax(most, parts[i].mb);
    }
    fprintf(to, "not reached; largest in the packed model");
    const char *before = ": ";
    for (int i = 0; i < PARTS; i++) {
        if (parts[i].mb >= WORTH_NAMING * most) {
            fprintf(to, "%s%s %.0f %%", before, parts[i].label, 100.0 * parts[i].mb / m->compressed_size_mb);
            before = ", ";
        }
    }
    fprintf(to, "\n");
}

static void packed_size(FILE *to, const p4_size_metrics *m)
{
    char text[P4_CELL_BYTES];
    part parts[PARTS];
    list_parts(parts, m);
    fprintf(to, "    %-26s %12s", "packed model", p4_cell(text, m->compressed_size_mb, 2, " MiB"));
    if (isnan(m->packed_file_mb)) {
        fprintf(to, "\n");
    } else {
        fprintf(to, "   the file: %s, with statistics, measurements and any tokenizer\n",
                p4_cell(text, m->packed_file_mb, 2, " MiB"));
    }
    for (int i = 0; i < PARTS; i++) {
        if (parts[i].mb > 0.0) {
            fprintf(to, "      %-24s %12s %7.1f %%\n", parts[i].label, p4_cell(text, parts[i].mb, 2, " MiB"),
                    100.0 * parts[i].mb / m->compressed_size_mb);
        }
    }
    ratio(to, m, parts);
    file_ratio(to, m);
}

static void sizes(FILE *to, const p4_results *r)
{
    const p4_size_metrics *m = &r->metrics;
    char text[P4_CELL_BYTES];
    fprintf(to, "  Size\n");
    fprintf(to, "    %-26s %12s\n", "original, as fp32", p4_cell(text, m->original_size_mb, 2, " MiB"));
    fprintf(to, "    %-26s %12s\n", "original, as stored", p4_cell(text, m->stored_size_mb, 2, " MiB"));
    if (packed_is_written(r)) {
        packed_size(to, m);
    } else {
        fprintf(to, "    %-26s %12s\n", "packed model", "not written");
    }
    fprintf(to, "    %-26s %12s   zeros among the ternary weights\n", "sparsity",
            p4_cell(text, 100.0 * m->sparsity_ratio, 1, " %"));
    fprintf(to, "    %-26s %" PRId64 " ternary, %" PRId64 " kept in fp16\n\n", "tensors", m->layers_quantized,
            m->layers_preserved);
}

/* One line of the quality table: before, after, final. */
static void quality_row(FILE *to, const char *label, const double values[3], int decimals, const char *unit)
{
    char text[3][P4_CELL_BYTES];
    fprintf(to, "    %-26s %12s %12s %12s\n", label, p4_cell(text[0], values[0], decimals, unit),
            p4_cell(text[1], values[1], decimals, unit), p4_cell(text[2], values[2], decimals, unit));
}

static void interval_row(FILE *to, const double low[3], const double high[3], const char *unit)
{
    char text[3][P4_CELL_BYTES];
    for (int i = 0; i < 3; i++) {
        p4_cell_interval(text[i], low[i], high[i], unit[0] != '\0' ? 1 : 3, unit);
    }
    fprintf(to, "    %-26s %12s %12s %12s\n", "  95 % interval", text[0], text[1], text[2]);
}

static void intervals(FILE *to, const p4_evaluation *const e[3], bool of_change)
{
    double low[3], high[3];
    for (int i = 0; i < 3; i++) {
        low[i] = of_change ? 100.0 * e[i]->degradation_low : e[i]->perplexity_low;
        high[i] = of_change ? 100.0 * e[i]->degradation_high : e[i]->perplexity_high;
    }
    if (!isnan(low[0]) || !isnan(low[1]) || !isnan(low[2])) {
        interval_row(to, low, high, of_change ? " %" : "");
    }
}

static void quality(FILE *to, const p4_results *r)
{
    const p4_evaluation *e[3] = {&r->pre, &r->post, &r->final};
    double values[8][3];
    for (int i = 0; i < 3; i++) {
        values[0][i] = e[i]->perplexity;
        values[1][i] = i > 0 ? 100.0 * (e[i]->perplexity - r->pre.perplexity) / r->pre.perplexity : NAN;
        values[2][i] = e[i]->loss;
        values[3][i] = 100.0 * e[i]->accuracy;
        values[4][i] = e[i]->kl;
        values[5][i] = e[i]->bits_per_byte;
        values[6][i] = e[i]->word_perplexity;
        values[7][i] = 100.0 * e[i]->agreement;
    }
    char text[P4_CELL_BYTES];
    fprintf(to, "  %-28s %12s %12s %12s\n", "Quality", "original", "quantized", "final");
    quality_row(to, "perplexity", values[0], 3, "");
    intervals(to, e, false);
    quality_row(to, "  change", values[1], 1, " %");
    intervals(to, e, true);
    quality_row(to, P4_ROW_LOSS, values[2], 4, "");
    if (!isnan(values[5][0])) {
        quality_row(to, P4_ROW_BITS, values[5], 4, "");
        quality_row(to, P4_ROW_WORDS, values[6], 3, "");
    }
    quality_row(to, P4_ROW_ACCURACY, values[3], 1, " %");
    quality_row(to, P4_ROW_AGREEMENT, values[7], 1, " %");
    quality_row(to, P4_ROW_KL, values[4], 4, "");
    if (r->pre.tokens > 0) {
        fprintf(to, "    measured on %s token%s", p4_format_count(text, r->pre.tokens),
                p4_plural(r->pre.tokens));
        fprintf(to, r->pre.documents > 0 ? " of %s document%s\n" : "\n",
                p4_format_count(text, r->pre.documents), p4_plural(r->pre.documents));
    }
    fprintf(to, "\n");
}

static const char *verdict_word(p4_verdict verdict)
{
    static const char *const words[] = {
        [P4_VERDICT_NONE] = "none", [P4_VERDICT_PASSED] = "passed", [P4_VERDICT_FAILED] = "FAILED"};
    return words[verdict];
}

/* A line a set; what the quality table has of the evaluation text, in short. */
static void sets(FILE *to, const p4_results *r)
{
    if (r->set_count == 0) {
        return;
    }
    fprintf(to, "  %-28s %10s %10s %9s %19s %9s %7s %s\n", "Sets", "original", "final", "change",
            "95 % interval", "bits/byte", "same", "verdict");
    for (int64_t i = 0; i < r->set_count; i++) {
        const p4_set_results *set = &r->sets[i];
        const p4_quality *q = &set->quality;
        char text[6][P4_CELL_BYTES];
        snprintf(text[5], P4_CELL_BYTES, "-");
        if (isfinite(q->degradation_low) && isfinite(q->degradation_high)) {
            snprintf(text[5], P4_CELL_BYTES, "%+.1f..%+.1f %%", 100.0 * q->degradation_low,
                     100.0 * q->degradation_high);
        }
        fprintf(to, "    %-26s %10s %10s %9s %19s %9s %7s %s\n", set->name,
                p4_cell(text[0], set->pre.perplexity, 3, ""), p4_cell(text[1], set->final.perplexity, 3, ""),
                p4_cell(text[2], 100.0 * q->degradation_ratio, 1, " %"), text[5],
                p4_cell(text[3], set->final.bits_per_byte, 4, ""),
                p4_cell(text[4], 100.0 * set->final.agreement, 1, " %"), verdict_word(p4_quality_verdict(q)));
    }
    fprintf(to, "\n");
}

static void reconstruction(FILE *to, const p4_reconstruction *r)
{
    char steps[P4_CELL_BYTES], tokens[P4_CELL_BYTES], seconds[P4_CELL_BYTES], set[P4_BLOCK_SET_BYTES];
    if (r->ran && r->losses_count > 0) {
        int64_t blocks = 1;
        for (int64_t i = 0; i < r->losses_count; i++) {
            blocks = p4_max_i64(blocks, r->losses[i].blocks);
        }
        fprintf(
            to,
            "  Reconstruction  %s step%s per %s on %s token%s, %s; error of the last block %.4g -> %.4g\n",
            p4_format_count(steps, r->steps), p4_plural(r->steps), p4_block_set(set, blocks),
            p4_format_count(tokens, r->tokens), p4_plural(r->tokens), duration(seconds, r->seconds),
            r->losses[r->losses_count - 1].before, r->losses[r->losses_count - 1].after);
    }
}

static void fine_tuning(FILE *to, const p4_fine_tuning *tuning)
{
    char epochs[P4_CELL_BYTES], steps[P4_CELL_BYTES], tokens[P4_CELL_BYTES], best[P4_CELL_BYTES];
    if (!tuning->ran) {
        fprintf(to, "  Fine-tuning     not run\n");
        return;
    }
    bool whole = tuning->epochs_completed == floor(tuning->epochs_completed);
    snprintf(epochs, sizeof epochs, "%.*f epoch%s", whole ? 0 : 2, tuning->epochs_completed,
             tuning->epochs_completed == 1.0 ? "" : "s");
    fprintf(to, "  Fine-tuning     %s, %s step%s, %s token%s; best perplexity %s\n", epochs,
            p4_format_count(steps, tuning->steps), p4_plural(tuning->steps),
            p4_format_count(tokens, tuning->tokens), p4_plural(tuning->tokens),
            p4_cell(best, tuning->best_perplexity, 3, ""));
}

/* The layer whose experts got the most different numbers of tokens. */
static void experts(FILE *to, const p4_expert_loads *loads)
{
    int64_t most = 0;
    if (loads->experts == 0) {
        return;
    }
    fprintf(to, "  Experts         %" PRId64 " of %" PRId64 " for each token", loads->used, loads->experts);
    if (loads->tokens == NULL) {
        fprintf(to, "; their loads were not measured (no calibration)\n");
        return;
    }
    for (int64_t l = 1; l < loads->layers; l++) {
        double extreme = p4_expert_loads_extreme(loads, l, true),
               before = p4_expert_loads_extreme(loads, most, true);
        if (extreme > before || isnan(before)) {
            most = l;
        }
    }
    fprintf(to, "; layer %" PRId64 " is the least even: %.2f to %.2f times the mean\n", most,
            p4_expert_loads_extreme(loads, most, false), p4_expert_loads_extreme(loads, most, true));
    if (loads->unused > 0) {
        fprintf(to, "                  %" PRId64 " of %" PRId64 " got no token in calibration\n",
                loads->unused, loads->mixtures * loads->experts);
    }
}

static void gradient_flow(FILE *to, const p4_gradient_flow *flow)
{
    if (!flow->ran) {
        fprintf(to, "  Gradient flow   not tested\n");
    } else if (flow->passed) {
        fprintf(to, "  Gradient flow   passed: %" PRId64 " tensor%s a finite, non-zero gradient",
                flow->tensors_checked, flow->tensors_checked == 1 ? " gets" : "s get");
        if (flow->tensors_unused > 0) {
            fprintf(to, "; %" PRId64 " of experts without tokens get none", flow->tensors_unused);
        }
        fprintf(to, "\n");
    } else {
        fprintf(to, "  Gradient flow   FAILED: %s\n", flow->error);
    }
}

/* Of all processes of a run, as far as their checkpoints have it. The lines add up to the whole. */
static void times(FILE *to, const p4_results *r)
{
    char text[P4_CELL_BYTES];
    double rest = r->total_s;
    fprintf(to, "  Peak memory     %s (the largest rank)\n",
            p4_cell(text, r->metrics.peak_memory_mb, 0, " MiB"));
    fprintf(to, "  Time            %s", duration(text, r->total_s));
    if (r->provenance.continued > 0) {
        fprintf(to, ", of %" PRId64 " processes", r->provenance.continued + 1);
    }
    fprintf(to, "\n");
    for (int64_t i = 0; i < r->stage_count; i++) {
        if (r->stages[i].seconds >= WORTH_A_LINE * r->total_s) {
            fprintf(to, "    %-29s %9s\n", p4_plan_stage_title(r->stages[i].stage),
                    duration(text, r->stages[i].seconds));
            rest -= r->stages[i].seconds;
        }
    }
    if (rest >= WORTH_A_LINE * r->total_s) {
        fprintf(to, "    %-29s %9s\n", "Everything else", duration(text, rest));
    }
    fprintf(to, "\n");
}

/* The primary output is one of the rows: what to give to other programs. */
static void outputs(FILE *to, const p4_output_paths *paths)
{
    fprintf(to, "  Outputs\n");
    for (int i = 0; i < P4_OUTPUTS; i++) {
        const char *path = p4_output_path(paths, &p4_outputs[i]);
        if (path[0] != '\0') {
            fprintf(to, "    %-26s %s%s\n", p4_outputs[i].what, path,
                    strcmp(path, paths->primary_output) == 0 ? " (for other programs)" : "");
        }
    }
    fprintf(to, "\n");
}

static void warnings(FILE *to, const p4_results *r)
{
    if (r->warning_count > 0) {
        fprintf(to, "  Warnings        %" PRId64 ", in the log and in results.json\n", r->warning_count);
    }
}

static void verdict(FILE *to, const p4_results *r, const p4_config *config)
{
    const p4_quality *q = &r->quality;
    bool flow_failed = r->gradient_flow.ran && !r->gradient_flow.passed;
    fprintf(to, "  Verdict         ");
    if (!r->success) {
        fprintf(to, "THE RUN FAILED: %s\n", r->error);
        return;
    }
    p4_verdict all = p4_results_verdict(r);
    fprintf(to, "%s: ", all == P4_VERDICT_NONE ? "NONE" : all == P4_VERDICT_PASSED ? "PASSED" : "FAILED");
    if (isinf(r->pre.perplexity)) {
        fprintf(to, "the original's perplexity is infinite");
    } else if (isnan(q->degradation_ratio)) {
        fprintf(to, "perplexity was not measured");
    } else if (isinf(q->degradation_ratio)) {
        fprintf(to, "perplexity became infinite, a rise of %.1f %% is allowed", 100.0 * q->max_accuracy_drop);
    } else {
        char change[P4_QUALITY_BYTES];
        fputs(p4_quality_change(change, q), to);
    }
    char summary[P4_SETS_BYTES];
    p4_sets_summary(summary, r->sets, r->set_count);
    fprintf(to, "%s%s%s%s\n", summary[0] != '\0' ? "; " : "", summary,
            flow_failed ? "; the gradient-flow test failed" : "", r->original_guesses ? P4_GUESSES_TEXT : "");
    if (p4_sets_verdict(q, r->sets, r->set_count) == P4_VERDICT_FAILED) {
        char steps[P4_NEXT_STEPS_BYTES];
        const p4_next_values now = p4_next_values_of(config, r);
        fprintf(to, "  What to try     %s\n", p4_next_steps(steps, &now));
    }
}

void p4_report_table(FILE *to, const p4_results *results, const p4_config *config)
{
    if (results->success) {
        heading(to, results);
        sizes(to, results);
        quality(to, results);
        sets(to, results);
        reconstruction(to, &results->reconstruction);
        fine_tuning(to, &results->fine_tuning);
        experts(to, &results->experts);
        gradient_flow(to, &results->gradient_flow);
        times(to, results);
        outputs(to, &results->output_paths);
        warnings(to, results);
    }
    verdict(to, results, config);
    fflush(to);
}
