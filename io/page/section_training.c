/* The training curve with its evaluations, the learning rate and the gradients, and the blocks that were
 * reconstructed. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "io/page/chart.h"
#include "io/page/html.h"
#include "io/page/sections.h"

bool p4_page_has_training(const p4_page_run *run)
{
    return run->point_count > 0 ||
           cJSON_GetArraySize(p4_page_item(run->results, "reconstruction.losses")) > 0;
}

/* Means of the curve over windows of a fortieth of it, and of 5 points at least: what the eye looks for in a
 * noisy loss. At no more points than a chart shows; returns how many. */
static int64_t smooth(p4_point *to, const p4_point *from, int64_t count)
{
    enum { SHOWN = 600, LEAST = 2 };
    int64_t half = p4_max_i64(LEAST, count / 80), stride = p4_max_i64(1, p4_ceil_div(count, SHOWN)), made = 0;
    for (int64_t i = 0; i < count; i += stride) {
        int64_t first = p4_max_i64(0, i - half), last = p4_min_i64(count - 1, i + half);
        double sum = 0, used = 0;
        for (int64_t k = first; k <= last; k++) {
            sum += isfinite(from[k].y) ? from[k].y : 0;
            used += isfinite(from[k].y);
        }
        to[made++] = (p4_point){from[i].x, used > 0 ? sum / used : NAN};
    }
    return made;
}

static void put_loss_chart(FILE *to, const p4_page_run *run, p4_point *raw, p4_point *smoothed,
                           p4_point *evaluated)
{
    int64_t n = run->point_count, evaluations = 0;
    for (int64_t i = 0; i < n; i++) {
        raw[i] = (p4_point){(double)run->points[i].step, run->points[i].loss};
    }
    int64_t means = smooth(smoothed, raw, n);
    for (int64_t i = 0; i < run->evaluation_count; i++) {
        const p4_page_evaluation *e = &run->evaluations[i];
        if (strcmp(e->stage, "post") == 0 || strcmp(e->stage, "fine_tune") == 0) {
            evaluated[evaluations++] = (p4_point){e->step, e->loss};
        }
    }
    const p4_series series[] = {{"one training batch", raw, n, 0, false, true},
                                {"mean of neighboring batches", smoothed, means, 0, false, false},
                                {"evaluation text", evaluated, evaluations, 1, true, false}};
    const p4_level levels[] = {{"original", p4_page_original_loss(run), 2},
                               {"final", p4_page_final(run, "loss"), 3}};
    const p4_chart chart = {.id = "loss",
                            .title = "Loss during fine-tuning",
                            .desc = "Loss of the training batches by step, with the loss on the evaluation "
                                    "text. The table below has the evaluations in numbers.",
                            .x_title = "step",
                            .y_title = "loss, nats per token",
                            .series = series,
                            .series_count = 3,
                            .levels = levels,
                            .level_count = 2};
    p4_chart_write(to, &chart);
    fputs("<p class=\"note\">A pale point is the loss on the text of one step. Some texts are harder than "
          "others, so these points scatter, and they need not lie near the evaluations, which are of another "
          "text.</p>\n",
          to);
}

static void put_small_chart(FILE *to, const p4_page_run *run, p4_point *points, const char *id,
                            const char *title, const char *unit, size_t member)
{
    for (int64_t i = 0; i < run->point_count; i++) {
        const p4_training_point *p = &run->points[i];
        points[i] = (p4_point){(double)p->step, *(const double *)((const char *)p + member)};
    }
    const p4_series series = {title, points, run->point_count, 0, false, false};
    const p4_chart chart = {.id = id,
                            .title = title,
                            .desc = "By training step.",
                            .x_title = "step",
                            .y_title = unit,
                            .series = &series,
                            .series_count = 1};
    p4_chart_write(to, &chart);
}

static void put_history(FILE *to, const cJSON *tuning)
{
    const cJSON *entry, *history = p4_page_item(tuning, "training_history");
    if (cJSON_GetArraySize(history) == 0) {
        return;
    }
    fputs("<details><summary>Evaluations during fine-tuning</summary>\n", to);
    p4_html_table(to, "Evaluations during fine-tuning",
                  "#Epoch|#Step|#Training loss|#Evaluation loss|#Perplexity");
    cJSON_ArrayForEach(entry, history)
    {
        fputs("<tr><td class=\"n\">", to);
        p4_html_count(to, p4_page_real(entry, "epoch"));
        fputs("</td><td class=\"n\">", to);
        p4_html_count(to, p4_page_real(entry, "step"));
        fputs("</td><td class=\"n\">", to);
        p4_html_number(to, p4_page_real(entry, "train_loss"), 4, "");
        fputs("</td><td class=\"n\">", to);
        p4_html_number(to, p4_page_real(entry, "eval_loss"), 4, "");
        fputs("</td><td class=\"n\">", to);
        p4_html_number(to, p4_page_real(entry, "eval_perplexity"), 3, "");
        fputs("</td></tr>\n", to);
    }
    p4_html_end_table(to);
    fputs("</details>\n", to);
}

static void put_extent(FILE *to, const p4_page_run *run, const cJSON *tuning)
{
    if (isnan(p4_page_real(tuning, "steps"))) {
        fputs("<p>The last step in the log is ", to);
        p4_html_count(to, (double)run->points[run->point_count - 1].step);
        fputs(".</p>\n", to);
        return;
    }
    fputs("<p>Fine-tuned for ", to);
    p4_html_count(to, p4_page_real(tuning, "steps"));
    fputs(" steps on ", to);
    p4_html_count(to, p4_page_real(tuning, "tokens"));
    fprintf(to, " tokens.%s</p>\n",
            isnan(p4_page_final(run, "loss")) ? "" : " The state with the lowest evaluation loss was kept.");
}

static void put_tuning(FILE *to, const p4_page_run *run)
{
    const cJSON *tuning = p4_page_item(run->results, "fine_tuning");
    size_t room = (size_t)(run->point_count + run->evaluation_count + 1);
    p4_point *raw = p4_alloc(room, sizeof *raw), *smoothed = p4_alloc(room, sizeof *smoothed),
             *evaluated = p4_alloc(room, sizeof *evaluated);
    if (raw != NULL && smoothed != NULL && evaluated != NULL) {
        put_extent(to, run, tuning);
        put_loss_chart(to, run, raw, smoothed, evaluated);
        fputs("<div class=\"pair\">\n", to);
        put_small_chart(to, run, raw, "norm", "Gradient norm", "before clipping",
                        offsetof(p4_training_point, grad_norm));
        put_small_chart(to, run, raw, "speed", "Speed", "tokens per second",
                        offsetof(p4_training_point, tokens_per_s));
        fputs("</div>\n", to);
        put_history(to, tuning);
    }
    free(raw);
    free(smoothed);
    free(evaluated);
}

/* A bar for the error before and, in it, one for the error after. */
static void put_block(FILE *to, const cJSON *loss, double largest)
{
    double first = p4_page_real(loss, "first_block"), blocks = p4_page_real(loss, "blocks"),
           before = p4_page_real(loss, "loss_before"), after = p4_page_real(loss, "loss_after");
    fputs("<tr><th scope=\"row\" class=\"n\">", to);
    p4_html_count(to, first + 1); /* from 1, as in the log */
    if (blocks > 1) {
        fputs("&ndash;", to);
        p4_html_count(to, first + blocks);
    }
    fputs("</th><td class=\"n\">", to);
    p4_html_number(to, before, 4, "");
    fputs("</td><td class=\"n\">", to);
    p4_html_number(to, after, 4, "");
    fprintf(to,
            "</td><td class=\"bars\"><i class=\"old\" style=\"width:%.1f%%\"></i><i class=\"new\" "
            "style=\"width:%.1f%%\"></i></td></tr>\n",
            largest > 0 && isfinite(before) ? 100 * before / largest : 0,
            largest > 0 && isfinite(after) ? 100 * after / largest : 0);
}

static void put_reconstruction(FILE *to, const cJSON *reconstruction)
{
    const cJSON *loss, *losses = p4_page_item(reconstruction, "losses");
    double largest = 0;
    if (cJSON_GetArraySize(losses) == 0) {
        return;
    }
    cJSON_ArrayForEach(loss, losses)
    {
        largest = fmax(largest, p4_page_real(loss, "loss_before"));
        largest = fmax(largest, p4_page_real(loss, "loss_after"));
    }
    fputs("<h3>Reconstruction</h3>\n<p>Each block was trained to the output of the original block. The error "
          "is that of the block's output, relative to the squares of the original's.</p>\n",
          to);
    p4_html_table(to, "Error of the blocks before and after reconstruction",
                  "#Block|#Before|#After|<span class=\"key\"><i class=\"box old\"></i>before</span> <span "
                  "class=\"key\"><i class=\"box new\"></i>after</span>");
    cJSON_ArrayForEach(loss, losses)
    {
        put_block(to, loss, largest);
    }
    p4_html_end_table(to);
}

void p4_section_training(FILE *to, const p4_page_run *run)
{
    if (!p4_page_has_training(run)) {
        return;
    }
    p4_html_section(to, "training", "Training");
    if (run->point_count > 0) {
        put_tuning(to, run);
    }
    put_reconstruction(to, p4_page_item(run->results, "reconstruction"));
    p4_html_end_section(to);
}
