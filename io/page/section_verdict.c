/* How the run ended, first in words, then on a scale, then its main figures; and the table of evaluations. */
#include <math.h>
#include <string.h>

#include "io/out/outputs.h"
#include "io/out/report.h"
#include "io/page/html.h"
#include "io/page/sections.h"
#include "src/plan.h"

p4_page_outcome p4_page_outcome_of(const p4_page_run *run)
{
    const cJSON *passed = p4_page_item(run->results, "quality.passed");
    switch (p4_page_state_of(run)) {
    case P4_PAGE_UNDER_WAY:
        return (p4_page_outcome){"way", "\xE2\x80\xA6", "Under way"};
    case P4_PAGE_STOPPED:
        return (p4_page_outcome){"way", "\xE2\x80\xA6", "Stopped"};
    case P4_PAGE_ENDED:
        break;
    }
    if (!cJSON_IsTrue(p4_page_item(run->results, "success"))) {
        return (p4_page_outcome){"fail", "\xE2\x9C\x97", "The run did not complete"};
    }
    if (cJSON_IsTrue(passed) && cJSON_IsTrue(p4_page_item(run->results, "original_guesses"))) {
        return (p4_page_outcome){"none", "!", "Passed"};
    }
    if (cJSON_IsTrue(passed)) {
        return (p4_page_outcome){"pass", "\xE2\x9C\x93", "Passed"};
    }
    if (cJSON_IsFalse(passed)) {
        return (p4_page_outcome){"fail", "\xE2\x9C\x97", "Failed"};
    }
    return (p4_page_outcome){"none", "?", "No verdict"};
}

/* The last stage in the log of a run that is under way, whose results.json names none. The stages between
 * have no lines of their own. */
static p4_plan_stage_id last_logged_stage(const p4_page_run *run)
{
    return p4_page_last_evaluation(run, "final") != NULL  ? P4_PLAN_EVALUATE_FINAL
           : run->point_count > 0                         ? P4_PLAN_FINE_TUNE
           : p4_page_last_evaluation(run, "post") != NULL ? P4_PLAN_EVALUATE_POST
           : run->reconstructs                            ? P4_PLAN_RECONSTRUCT
           : p4_page_last_evaluation(run, "pre") != NULL  ? P4_PLAN_EVALUATE_PRE
                                                          : P4_PLAN_LOAD;
}

static p4_plan_stage_id last_stage(const p4_page_run *run)
{
    const char *title = strstr(p4_page_string(run->results, "error"), P4_UNFINISHED_STAGE);
    for (int i = 0; title != NULL && i < P4_PLAN_STAGES; i++) {
        if (strcmp(title + sizeof P4_UNFINISHED_STAGE - 1, p4_plan_stage_titles[i]) == 0) {
            return (p4_plan_stage_id)i;
        }
    }
    return last_logged_stage(run);
}

/* JSON has no infinity: such a perplexity is null beside the loss that it comes from. */
static bool is_infinite(const cJSON *results, const char *stage)
{
    const cJSON *evaluation = p4_page_item(results, stage);
    return isfinite(p4_page_real(evaluation, "loss")) && isnan(p4_page_real(evaluation, "perplexity"));
}

/* " Failed on the sets: code, web." */
static void put_failed_sets(FILE *to, const p4_page_run *run)
{
    const cJSON *set;
    int failed = 0;
    cJSON_ArrayForEach(set, p4_page_item(run->results, "eval_sets"))
    {
        if (cJSON_IsFalse(p4_page_item(set, "quality.passed"))) {
            fputs(failed++ > 0 ? ", " : " Failed on the sets: ", to);
            p4_html_foreign(to, p4_page_string(set, "name"));
        }
    }
    if (failed > 0) {
        fputs(".", to);
    }
}

void p4_page_statement(FILE *to, const p4_page_run *run)
{
    double ratio = p4_page_real(run->results, "quality.degradation_ratio");
    double allowed = p4_page_real(run->results, "quality.max_accuracy_drop");
    const char *error = p4_page_string(run->results, "error");
    if (p4_page_state_of(run) == P4_PAGE_UNDER_WAY) {
        fputs("The run has not ended: it is still running, or it was killed. This page shows what it has "
              "logged so far; the heading names the stage that it came to.",
              to);
        return;
    }
    if (error[0] != '\0') {
        p4_html_foreign(to, error);
        return;
    }
    if (isnan(ratio)) {
        fputs(is_infinite(run->results, "pre_compression") ? "The perplexity of the original is infinite."
              : is_infinite(run->results, "final")
                  ? "Perplexity became infinite."
                  : "The perplexity was not measured before and after the compression.",
              to);
    } else {
        fprintf(to, "Perplexity %s by <strong>%.1f&nbsp;%%</strong>, from ", ratio < 0 ? "fell" : "rose",
                100 * fabs(ratio));
        p4_html_number(to, p4_page_real(run->results, "pre_compression.perplexity"), 2, "");
        fputs(" to ", to);
        p4_html_number(to, p4_page_real(run->results, "final.perplexity"), 2, "");
        p4_html_interval(
            to, " (95&nbsp;% interval of the change: ", p4_page_real(run->results, "quality.degradation_low"),
            p4_page_real(run->results, "quality.degradation_high"), ")");
        fputs(".", to);
    }
    if (!isnan(ratio) && !isnan(allowed)) {
        fprintf(to, " A rise of up to %.1f&nbsp;%% is allowed.", 100 * allowed);
    }
    if (cJSON_IsTrue(p4_page_item(run->results, "original_guesses"))) {
        fputs(" But the original is no better than guessing among its vocabulary, so this says little.", to);
    }
    put_failed_sets(to, run);
    if (cJSON_IsFalse(p4_page_item(run->results, "gradient_flow_test.passed"))) {
        fputs(" The gradient-flow test failed: ", to);
        p4_html_foreign(to, p4_page_string(run->results, "gradient_flow_test.error"));
    }
}

static int64_t whole_of(const cJSON *config, const char *key)
{
    double value = p4_page_real(config, key);
    return isnan(value) ? -1 : (int64_t)value;
}

static p4_next_values next_values(const cJSON *config, const cJSON *results)
{
    const cJSON *fine_tunes = p4_page_item(config, "enable_fine_tuning"),
                *files = p4_page_item(config, "train_files");
    return (p4_next_values){.fine_tunes = cJSON_IsBool(fine_tunes) ? cJSON_IsTrue(fine_tunes) : -1,
                            .calibration_samples = whole_of(config, "calibration_samples"),
                            .train_files = cJSON_IsArray(files) ? cJSON_GetArraySize(files) : -1,
                            .fine_tune_max_steps = whole_of(config, "fine_tune_max_steps"),
                            .fine_tune_epochs = whole_of(config, "fine_tune_epochs"),
                            .passes = p4_page_real(results, "fine_tuning.epochs_completed"),
                            .steps = whole_of(results, "fine_tuning.steps")};
}

/* What to try after a failed verdict on quality. */
static void put_next_steps(FILE *to, const p4_page_run *run)
{
    const cJSON *set, *results = run->results;
    bool worse = p4_page_real(results, "quality.degradation_ratio") >
                 p4_page_real(results, "quality.max_accuracy_drop");
    cJSON_ArrayForEach(set, p4_page_item(results, "eval_sets"))
    {
        worse = worse || cJSON_IsFalse(p4_page_item(set, "quality.passed"));
    }
    if (worse && cJSON_IsTrue(p4_page_item(results, "success"))) {
        char steps[P4_NEXT_STEPS_BYTES];
        const p4_next_values now = next_values(run->config, results);
        fprintf(to, "<p class=\"next\">What to try next: %s.</p>\n", p4_next_steps(steps, &now));
    }
}

/* A scale with the allowed part, zero, and where the run is. The limit has its label above the scale and zero
 * below it, since the two are at the same place when the rise is large. */
static void put_gauge(FILE *to, double ratio, double allowed)
{
    enum { UNITS = 1000 };
    double low = fmin(0, ratio), high = fmax(allowed, ratio), margin = 0.12 * fmax(high - low, 1e-6);
    low -= margin;
    high += margin;
    double zero = -low / (high - low), limit = (allowed - low) / (high - low),
           at = (ratio - low) / (high - low);
    fprintf(to,
            "<div class=\"gauge\">\n<div aria-hidden=\"true\"><span class=\"%s\" "
            "style=\"left:%.1f%%\">%+.0f&nbsp;%% allowed</span></div>\n",
            limit > 0.5 ? "before" : "after", 100 * limit, 100 * allowed);
    fprintf(to,
            "<svg viewBox=\"0 0 %d 100\" preserveAspectRatio=\"none\" role=\"img\" "
            "aria-labelledby=\"g-t\"><title id=\"g-t\">Change of perplexity on a scale: ",
            UNITS);
    p4_html_change(to, ratio);
    fputs(", of at most ", to);
    p4_html_change(to, allowed);
    fputs(" allowed</title>\n", to);
    fprintf(to, "<path class=\"track\" d=\"M0 50H%d\"/><path class=\"allowed\" d=\"M0 50H%.1f\"/>", UNITS,
            UNITS * limit);
    fprintf(to, "<path class=\"tick\" d=\"M%.1f 20v60M%.1f 20v60\"/>", UNITS * zero, UNITS * limit);
    fprintf(to, "<path class=\"at\" d=\"M%.1f 50h0\"/></svg>\n", UNITS * at);
    fprintf(to, "<div aria-hidden=\"true\"><span style=\"left:%.1f%%\">0</span></div></div>\n", 100 * zero);
}

static const double MB = 1048576.0;

static void begin_tile(FILE *to, const char *label)
{
    fprintf(to, "<div class=\"tile\"><dt>%s</dt><dd>", label);
}

static void end_tile(FILE *to)
{
    fputs("</small></dd></div>\n", to);
}

/* On the disk: model.h5 beside the files of the original. */
static void put_file_tile(FILE *to, const cJSON *metrics)
{
    double ratio = p4_page_real(metrics, "stored_files_ratio");
    if (isnan(ratio)) {
        return;
    }
    begin_tile(to, "Against the stored files");
    p4_html_number(to, ratio, 2, "&times;");
    fputs("<small>", to);
    p4_html_bytes(to, MB * p4_page_real(metrics, "stored_files_mb"));
    fputs(" to ", to);
    p4_html_bytes(to, MB * p4_page_real(metrics, "packed_file_mb"));
    fputs(", model.h5", to);
    end_tile(to);
}

static void put_size_tiles(FILE *to, const cJSON *metrics)
{
    double ratio = p4_page_real(metrics, "compression_ratio"),
           target = p4_page_real(metrics, "target_compression_ratio"),
           size = p4_page_real(metrics, "compressed_size_mb"),
           zeros = p4_page_real(metrics, "sparsity_ratio");
    if (!isnan(size)) {
        begin_tile(to, "Weights");
        p4_html_bytes(to, MB * size);
        fputs("<small>from ", to);
        p4_html_bytes(to, MB * p4_page_real(metrics, "original_size_mb"));
        fputs(" in fp32", to);
        end_tile(to);
    }
    if (!isnan(ratio)) {
        begin_tile(to, "Against fp32");
        p4_html_number(to, ratio, 2, "&times;");
        fputs("<small>", to);
        if (!isnan(target)) {
            fprintf(to, "target %.1f&times;: %s", target, ratio >= target ? "reached" : "not reached");
        }
        end_tile(to);
    }
    put_file_tile(to, metrics);
    if (!isnan(zeros)) {
        begin_tile(to, "Zeros");
        p4_html_number(to, 100 * zeros, 1, "&nbsp;%");
        fputs("<small>of the ternary weights", to);
        end_tile(to);
    }
}

/* "original 2.35" below a figure, if it was measured. */
static void put_original(FILE *to, double value, int decimals, const char *unit)
{
    fputs("<small>", to);
    if (!isnan(value)) {
        fputs("original ", to);
        p4_html_number(to, value, decimals, unit);
    }
}

/* How good the model is: the final one, or while the run is under way what was measured last. */
static void put_quality_tiles(FILE *to, const p4_page_run *run)
{
    const p4_page_evaluation *last = p4_page_last_evaluation(run, "");
    double final = p4_page_final(run, "perplexity"), original = p4_page_original_perplexity(run),
           correct = p4_page_final(run, "accuracy");
    if (isnan(final) && run->point_count > 0) {
        const p4_training_point *point = &run->points[run->point_count - 1];
        begin_tile(to, "Training loss");
        p4_html_number(to, point->loss, 4, "");
        fprintf(to, "<small>at step %lld", (long long)point->step);
        end_tile(to);
    }
    final = isnan(final) && last != NULL ? last->perplexity : final;
    if (!isnan(final)) {
        begin_tile(to, "Perplexity");
        p4_html_number(to, final, 2, "");
        put_original(to, original, 2, "");
        end_tile(to);
    } else if (!isnan(original)) {
        begin_tile(to, "Perplexity of the original");
        p4_html_number(to, original, 2, "");
        fputs("<small>", to);
        end_tile(to);
    }
    if (!isnan(correct)) {
        begin_tile(to, "Next token correct");
        p4_html_number(to, 100 * correct, 1, "&nbsp;%");
        put_original(to, 100 * p4_page_real(run->results, "pre_compression.accuracy"), 1, "&nbsp;%");
        end_tile(to);
    }
}

static void put_time_tile(FILE *to, const cJSON *results)
{
    double total = p4_page_real(results, "timing.total"), ranks = p4_page_real(results, "provenance.ranks");
    if (!(total > 0)) {
        return;
    }
    begin_tile(to, "Time");
    p4_html_duration(to, total);
    fputs("<small>", to);
    if (ranks > 0) {
        p4_html_count(to, ranks);
        fprintf(to, " rank%s, ", ranks == 1 ? "" : "s");
        p4_html_text(to, p4_page_string(results, "provenance.device"));
    }
    end_tile(to);
}

/* Each leaves itself out where it has no value; a list without a tile is not shown (:empty). */
static void put_tiles(FILE *to, const p4_page_run *run)
{
    fputs("<dl class=\"tiles\">", to);
    put_quality_tiles(to, run);
    put_size_tiles(to, p4_page_item(run->results, "metrics"));
    put_time_tile(to, run->results);
    fputs("</dl>\n", to);
}

/* Nothing where there are none, as in results of earlier versions. */
static void put_warnings(FILE *to, const p4_page_run *run)
{
    const cJSON *warning, *list = p4_page_item(run->results, "warnings");
    if (cJSON_GetArraySize(list) == 0) {
        return;
    }
    fputs("<h3>Warnings</h3>\n<ul>\n", to);
    cJSON_ArrayForEach(warning, list)
    {
        if (cJSON_IsString(warning)) {
            fputs("<li>", to);
            p4_html_foreign(to, warning->valuestring);
            fputs("</li>\n", to);
        }
    }
    fputs("</ul>\n", to);
}

void p4_section_verdict(FILE *to, const p4_page_run *run)
{
    p4_page_outcome outcome = p4_page_outcome_of(run);
    double ratio = p4_page_real(run->results, "quality.degradation_ratio"),
           allowed = p4_page_real(run->results, "quality.max_accuracy_drop");
    fprintf(to, "<section id=\"verdict\" class=\"verdict %s\" aria-labelledby=\"verdict-h\">\n",
            outcome.kind);
    fprintf(to, "<h2 id=\"verdict-h\"><span aria-hidden=\"true\">%s</span> %s", outcome.sign, outcome.word);
    if (p4_page_state_of(run) == P4_PAGE_UNDER_WAY) {
        fprintf(to, ": %s", p4_plan_stage_titles[last_stage(run)]);
    }
    fputs("</h2>\n<p>", to);
    p4_page_statement(to, run);
    fputs("</p>\n", to);
    if (isfinite(ratio) && isfinite(allowed)) {
        put_gauge(to, ratio, allowed);
    }
    put_next_steps(to, run);
    put_warnings(to, run);
    fputs("</section>\n", to);
    put_tiles(to, run);
}

/* ---- the table of evaluations ---- */

enum { COLUMNS = 3 };

/* Value `key` of the evaluation of a column: the original's, the quantized model's, and that of what was
 * written. */
static double column(const p4_page_run *run, int i, const char *key)
{
    static const char *const stages[] = {"pre_compression", "post_compression"};
    return i == 2 ? p4_page_final(run, key) : p4_page_real(p4_page_item(run->results, stages[i]), key);
}

static void put_row(FILE *to, const p4_page_run *run, const char *label, const char *key, double scale,
                    int decimals, const char *unit)
{
    fprintf(to, "<tr><th scope=\"row\">%s</th>", label);
    for (int i = 0; i < COLUMNS; i++) {
        fputs("<td class=\"n\">", to);
        p4_html_number(to, scale * column(run, i, key), decimals, unit);
        fputs("</td>", to);
    }
    fputs("</tr>\n", to);
}

/* Nothing where no interval is known, as in results of earlier versions. */
static void put_interval(FILE *to, const p4_page_run *run, const char *low, const char *high, double scale,
                         int decimals, const char *unit)
{
    bool any = false;
    for (int i = 0; i < COLUMNS; i++) {
        any = any || isfinite(column(run, i, low));
    }
    if (!any) {
        return;
    }
    fputs("<tr><th scope=\"row\">95&nbsp;% interval</th>", to);
    for (int i = 0; i < COLUMNS; i++) {
        double from = scale * column(run, i, low), until = scale * column(run, i, high);
        fputs("<td class=\"n\">", to);
        if (isfinite(from)) {
            p4_html_number(to, from, decimals, "");
            fputs(" to ", to);
            p4_html_number(to, until, decimals, unit);
        }
        fputs("</td>", to);
    }
    fputs("</tr>\n", to);
}

static void put_changes(FILE *to, const p4_page_run *run)
{
    double pre = p4_page_real(run->results, "pre_compression.perplexity");
    fputs("<tr><th scope=\"row\">change of perplexity</th><td class=\"n\"></td><td class=\"n\">", to);
    p4_html_change(to, p4_page_real(run->results, "post_compression.perplexity") / pre - 1);
    fputs("</td><td class=\"n\">", to);
    p4_html_change(to, p4_page_final(run, "perplexity") / pre - 1);
    fputs("</td></tr>\n", to);
}

/* The intervals of the change. */
static void put_set_change(FILE *to, const cJSON *quality)
{
    p4_html_change(to, p4_page_real(quality, "degradation_ratio"));
    p4_html_interval(to, " (", p4_page_real(quality, "degradation_low"),
                     p4_page_real(quality, "degradation_high"), ")");
}

/* Each set with its verdict; nothing without sets. */
static void put_sets(FILE *to, const p4_page_run *run)
{
    const cJSON *sets = p4_page_item(run->results, "eval_sets"), *set;
    if (cJSON_GetArraySize(sets) == 0) {
        return;
    }
    p4_html_table(
        to, "Sets",
        "Set|#Original|#Final|#Change (95 % interval)|#Bits per byte|#Same as the original&#39;s|Verdict");
    cJSON_ArrayForEach(set, sets)
    {
        const cJSON *passed = p4_page_item(set, "quality.passed");
        fputs("<tr><th scope=\"row\">", to);
        p4_html_foreign(to, p4_page_string(set, "name"));
        fputs("</th><td class=\"n\">", to);
        p4_html_number(to, p4_page_real(set, "pre_compression.perplexity"), 3, "");
        fputs("</td><td class=\"n\">", to);
        p4_html_number(to, p4_page_real(set, "final.perplexity"), 3, "");
        fputs("</td><td class=\"n\">", to);
        put_set_change(to, p4_page_item(set, "quality"));
        fputs("</td><td class=\"n\">", to);
        p4_html_number(to, p4_page_real(set, "final.bits_per_byte"), 4, "");
        fputs("</td><td class=\"n\">", to);
        p4_html_number(to, 100 * p4_page_real(set, "final.agreement"), 2, "&nbsp;%");
        fprintf(to, "</td><td>%s</td></tr>\n",
                cJSON_IsTrue(passed)    ? "passed"
                : cJSON_IsFalse(passed) ? "failed"
                                        : "none");
    }
    p4_html_end_table(to);
}

void p4_section_quality(FILE *to, const p4_page_run *run)
{
    double tokens = p4_page_real(run->results, "pre_compression.tokens");
    if (!(tokens > 0)) {
        return;
    }
    p4_html_section(to, "quality", "Quality");
    fputs("<p>Measured on ", to);
    p4_html_count(to, tokens);
    fputs(" predictions. <em>Quantized</em> is the model after quantization and reconstruction, "
          "<em>final</em> is the model in the files.</p>\n",
          to);
    p4_html_table(to, "Evaluations", "Measure|#Original|#Quantized|#Final");
    put_row(to, run, "perplexity", "perplexity", 1, 3, "");
    put_interval(to, run, "perplexity_low", "perplexity_high", 1, 3, "");
    put_changes(to, run);
    put_interval(to, run, "degradation_low", "degradation_high", 100, 1, "&nbsp;%");
    put_row(to, run, "loss, nats per token", "loss", 1, 4, "");
    if (!isnan(p4_page_real(run->results, "pre_compression.bits_per_byte"))) {
        put_row(to, run, "bits per byte", "bits_per_byte", 1, 4, "");
        put_row(to, run, "perplexity per word", "word_perplexity", 1, 3, "");
    }
    put_row(to, run, "next token correct", "accuracy", 100, 2, "&nbsp;%");
    if (!isnan(p4_page_final(run, "agreement"))) {
        put_row(to, run, "agrees with the original", "agreement", 100, 2, "&nbsp;%");
    }
    put_row(to, run, "KL to the original, nats", "kl", 1, 4, "");
    p4_html_end_table(to);
    put_sets(to, run);
    p4_html_end_section(to);
}
