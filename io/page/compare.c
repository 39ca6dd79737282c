/* The comparison of several runs: verdicts, curves over one another, and the keys in which they differ. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "io/out/outputs.h"
#include "io/page/chart.h"
#include "io/page/compare_sets.h"
#include "io/page/compare_windows.h"
#include "io/page/frame.h"
#include "io/page/html.h"
#include "io/page/page.h"
#include "io/page/sections.h"

enum { COLORS = 8 }; /* runs whose curves are drawn */

/* ---- the table of the runs ---- */

static void put_cell(FILE *to, double value, int decimals, const char *unit)
{
    fputs("<td class=\"n\">", to);
    p4_html_number(to, value, decimals, unit);
    fputs("</td>", to);
}

static void put_run(FILE *to, const p4_page_run *run)
{
    const cJSON *r = run->results;
    p4_page_outcome outcome = p4_page_outcome_of(run);
    fputs("<tr><th scope=\"row\">", to);
    p4_html_foreign(to, run->directory);
    fprintf(to, "</th><td><span class=\"badge %s\">%s</span></td><td class=\"n\">", outcome.kind,
            outcome.word);
    p4_html_change(to, p4_page_real(r, "quality.degradation_ratio"));
    fputs("</td>", to);
    put_cell(to, p4_page_real(r, "metrics.compression_ratio"), 2, "&times;");
    fputs("<td class=\"n\">", to);
    p4_html_duration(to, p4_page_real(r, "timing.total"));
    fputs("</td>", to);
    put_cell(to, p4_page_original_perplexity(run), 3, "");
    put_cell(to, p4_page_final(run, "perplexity"), 3, "");
    put_cell(to, 100 * p4_page_final(run, "accuracy"), 2, "&nbsp;%");
    put_cell(to, p4_page_final(run, "kl"), 4, "");
    fputs("<td class=\"n\">", to);
    p4_html_bytes(to, 1048576.0 * p4_page_real(r, "metrics.compressed_size_mb"));
    fputs("</td>", to);
    put_cell(to, 100 * p4_page_real(r, "metrics.sparsity_ratio"), 1, "&nbsp;%");
    fputs("<td>", to);
    p4_html_foreign(to, run->name);
    fputs("</td></tr>\n", to);
}

/* ---- whether the evaluations are of the same windows ---- */

static const char *evaluation_text(const p4_page_run *run)
{
    return p4_page_fingerprint(run, P4_EVALUATION_TEXT);
}

static p4_page_windows windows_of(const p4_page_run *run)
{
    return (p4_page_windows){evaluation_text(run), p4_page_window_tokens(run),
                             p4_page_predictions(run->results)};
}

static bool all_comparable(const p4_page_run *runs, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        for (int64_t k = 0; k < i; k++) {
            if (!p4_page_same_windows(windows_of(&runs[i]), windows_of(&runs[k]))) {
                return false;
            }
        }
    }
    return true;
}

static void put_evaluation(FILE *to, const p4_page_run *run)
{
    const char *text = evaluation_text(run);
    fputs("<tr><th scope=\"row\">", to);
    p4_html_foreign(to, run->directory);
    fputs("</th><td>", to);
    if (text[0] != '\0') {
        fputs("<code>", to);
        p4_html_text(to, text);
        fputs("</code>", to);
    } else {
        p4_html_number(to, NAN, 0, "");
    }
    fputs("</td>", to);
    put_cell(to, p4_page_window_tokens(run), 0, "");
    put_cell(to, p4_page_predictions(run->results), 0, "");
    fputs("</tr>\n", to);
}

/* A warning with what each run was evaluated on, where that differs; a note where it is not known. */
static void put_evaluations(FILE *to, const p4_page_run *runs, int64_t count)
{
    int64_t unknown = 0;
    for (int64_t i = 0; i < count; i++) {
        unknown += evaluation_text(&runs[i])[0] == '\0';
    }
    if (!all_comparable(runs, count)) {
        fputs(
            "<p class=\"warning\"><strong>The runs were not evaluated on the same windows of text.</strong> "
            "Their losses, perplexities, accuracies and KLs cannot be compared with one another. The change "
            "from the original to the final model is measured within a run, on its own windows.</p>\n",
            to);
        p4_html_table(to, "What the runs were evaluated on",
                      "Run|Fingerprint of the token ids|#Tokens per window|#Predictions");
        for (int64_t i = 0; i < count; i++) {
            put_evaluation(to, &runs[i]);
        }
        p4_html_end_table(to);
    }
    if (unknown > 0 && count > 1) {
        fprintf(to,
                "<p class=\"note\">The evaluation text of %lld of the runs is not known and was not "
                "compared.</p>\n",
                (long long)unknown);
    }
}

static void put_runs(FILE *to, const p4_page_run *runs, int64_t count)
{
    int64_t passed = 0;
    for (int64_t i = 0; i < count; i++) {
        passed += strcmp(p4_page_outcome_of(&runs[i]).kind, "pass") == 0;
    }
    p4_html_section(to, "verdict", "Verdicts");
    fprintf(to, "<p>%lld of %lld runs passed.</p>\n", (long long)passed, (long long)count);
    p4_html_table(to, "Runs, with perplexities before and after; the ratio is to fp32",
                  "Run|Verdict|#Change|#Ratio|#Time|#Original|#Final|#Correct|#KL|#Size|#Zeros|Model");
    for (int64_t i = 0; i < count; i++) {
        put_run(to, &runs[i]);
    }
    p4_html_end_table(to);
    put_evaluations(to, runs, count);
    p4_html_end_section(to);
}

/* ---- the curves ---- */

/* Evaluations of the compressed model by step: after quantization, then during fine-tuning. */
static int64_t list_evaluations(p4_point *points, const p4_page_run *run)
{
    int64_t count = 0;
    for (int64_t i = 0; i < run->evaluation_count; i++) {
        const p4_page_evaluation *e = &run->evaluations[i];
        if (strcmp(e->stage, "post") == 0 || strcmp(e->stage, "fine_tune") == 0) {
            points[count++] = (p4_point){e->step, e->loss};
        }
    }
    return count;
}

static int64_t list_steps(p4_point *points, const p4_page_run *run)
{
    for (int64_t i = 0; i < run->point_count; i++) {
        points[i] = (p4_point){(double)run->points[i].step, run->points[i].loss};
    }
    return run->point_count;
}

/* One chart with a line for each run that has points; nothing where none has. */
static void put_curves(FILE *to, const p4_page_run *runs, int64_t count, const char *id, const char *title,
                       int64_t (*list)(p4_point *points, const p4_page_run *run), bool dots)
{
    p4_series series[COLORS] = {{.name = NULL}};
    p4_point *points[COLORS] = {NULL};
    int drawn = 0;
    for (int64_t i = 0; i < count && drawn < COLORS; i++) {
        size_t room = (size_t)(runs[i].point_count + runs[i].evaluation_count + 1);
        points[drawn] = p4_alloc(room, sizeof *points[drawn]);
        int64_t found = points[drawn] != NULL ? list(points[drawn], &runs[i]) : 0;
        if (found == 0) {
            free(points[drawn]);
            points[drawn] = NULL;
            continue;
        }
        int color = count <= COLORS ? (int)i : drawn; /* the same in each chart, if there are enough */
        series[drawn] = (p4_series){runs[i].directory, points[drawn], found, color, dots, false};
        drawn++;
    }
    const p4_chart chart = {.id = id,
                            .title = title,
                            .desc = "A line for each run, by training step.",
                            .x_title = "step",
                            .y_title = "loss, nats per token",
                            .series = series,
                            .series_count = drawn};
    if (drawn > 0) {
        fprintf(to, "<h3>%s</h3>\n", title);
        p4_chart_write(to, &chart);
    }
    for (int i = 0; i < COLORS; i++) {
        free(points[i]);
    }
}

static void put_training(FILE *to, const p4_page_run *runs, int64_t count)
{
    int64_t points = 0;
    for (int64_t i = 0; i < count; i++) {
        points += runs[i].point_count + runs[i].evaluation_count;
    }
    if (points == 0) {
        return;
    }
    p4_html_section(to, "training", "Training");
    if (count > COLORS) {
        fprintf(to, "<p>The curves are of the first %d runs that have one.</p>\n", COLORS);
    }
    if (!all_comparable(runs, count)) {
        fputs("<p class=\"warning\">The evaluations are not of the same windows of text, so the heights of "
              "their curves cannot be compared: see <a href=\"#verdict\">what each run was evaluated "
              "on</a>.</p>\n",
              to);
    }
    put_curves(to, runs, count, "evaluated", "Loss on the evaluation text", list_evaluations, true);
    put_curves(to, runs, count, "trained", "Loss of the training batches", list_steps, false);
    p4_html_end_section(to);
}

/* ---- what differs ---- */

static void put_value(FILE *to, const cJSON *value)
{
    char *text = value == NULL || cJSON_IsString(value) ? NULL : cJSON_PrintUnformatted(value);
    if (value == NULL) {
        p4_html_number(to, NAN, 0, "");
    } else {
        p4_html_foreign(to, text != NULL ? text : value->valuestring);
    }
    cJSON_free(text);
}

/* Whether the runs whose configuration is known have the key with different values. */
static bool differs(const p4_page_run *runs, int64_t count, const char *key)
{
    const cJSON *first = NULL;
    bool begun = false;
    for (int64_t i = 0; i < count; i++) {
        const cJSON *value = cJSON_GetObjectItemCaseSensitive(runs[i].config, key);
        if (runs[i].config == NULL) {
            continue;
        }
        if (begun &&
            ((first == NULL) != (value == NULL) || (first != NULL && !cJSON_Compare(first, value, true)))) {
            return true;
        }
        first = begun ? first : value;
        begun = true;
    }
    return false;
}

/* The keys of the run, but those that a run before it has. */
static void put_keys_of(FILE *to, const p4_page_run *runs, int64_t count, int64_t of)
{
    const cJSON *item;
    cJSON_ArrayForEach(item, runs[of].config)
    {
        bool listed = strcmp(item->string, "output_path") == 0; /* it heads the column */
        for (int64_t i = 0; i < of && !listed; i++) {
            listed = cJSON_GetObjectItemCaseSensitive(runs[i].config, item->string) != NULL;
        }
        if (listed || !differs(runs, count, item->string)) {
            continue;
        }
        fputs("<tr><th scope=\"row\"><code>", to);
        p4_html_text(to, item->string);
        fputs("</code></th>", to);
        for (int64_t i = 0; i < count; i++) {
            fputs("<td class=\"value\">", to);
            put_value(to, cJSON_GetObjectItemCaseSensitive(runs[i].config, item->string));
            fputs("</td>", to);
        }
        fputs("</tr>\n", to);
    }
}

/* Is there a key that put_keys_of lists? */
static bool any_differs(const p4_page_run *runs, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        const cJSON *item;
        cJSON_ArrayForEach(item, runs[i].config)
        {
            if (strcmp(item->string, "output_path") != 0 && differs(runs, count, item->string)) {
                return true;
            }
        }
    }
    return false;
}

static void put_keys(FILE *to, const p4_page_run *runs, int64_t count)
{
    fputs("<div class=\"scroll wide\" tabindex=\"0\" role=\"region\" aria-label=\"Keys that "
          "differ\">\n<table>\n"
          "<caption>Keys that differ</caption>\n<thead><tr><th scope=\"col\">Key</th>",
          to);
    for (int64_t i = 0; i < count; i++) {
        fputs("<th scope=\"col\">", to);
        p4_html_foreign(to, runs[i].directory);
        fputs("</th>", to);
    }
    fputs("</tr></thead>\n<tbody>\n", to);
    for (int64_t i = 0; i < count; i++) {
        put_keys_of(to, runs, count, i);
    }
    p4_html_end_table(to);
}

static void put_differences(FILE *to, const p4_page_run *runs, int64_t count)
{
    p4_html_section(to, "configuration", "What differs in the configuration");
    int64_t unknown = 0;
    for (int64_t i = 0; i < count; i++) {
        unknown += runs[i].config == NULL;
    }
    fputs("<p>Keys with the same value in every run are left out.", to);
    if (unknown > 0) {
        fprintf(to, " Of %lld of the runs the configuration is not known: a run writes it with its outputs.",
                (long long)unknown);
    }
    fputs("</p>\n", to);
    if (any_differs(runs, count)) {
        put_keys(to, runs, count);
    }
    p4_html_end_section(to);
}

p4_rc p4_page_write_comparison(const char *path, const p4_page_run *runs, int64_t count)
{
    char *html = NULL;
    size_t bytes = 0;
    FILE *to = open_memstream(&html, &bytes);
    if (to == NULL) {
        return FAULT("out of memory while a page was made");
    }
    p4_page_begin(to, "phase4 comparison");
    fprintf(to,
            "<header>\n<p class=\"eyebrow\">phase4 comparison</p>\n<h1>%lld runs</h1>\n</header>\n<main>\n",
            (long long)count);
    put_runs(to, runs, count);
    p4_page_compare_sets(to, runs, count);
    put_training(to, runs, count);
    put_differences(to, runs, count);
    p4_page_end(to);
    return p4_page_store(path, to, &html, &bytes);
}
