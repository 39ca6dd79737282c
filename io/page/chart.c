#include "io/page/chart.h"

#include <math.h>

#include "io/page/html.h"

enum {
    UNITS = 1000,     /* the drawing's own coordinates in both directions */
    POINTS_MAX = 600, /* of a line: a screen shows no more */
    TICKS_WANTED = 5,
    LEVELS_MAX = 8,
};
static const double LABEL_GAP = 0.075; /* between labels of levels, of the height */

typedef struct range {
    double low, high, step;
} range;

static void include(range *r, double value)
{
    if (isfinite(value)) {
        r->low = fmin(r->low, value);
        r->high = fmax(r->high, value);
    }
}

/* 1, 2 or 5 times a power of ten. */
static double nice_step(double span)
{
    double raw = span / TICKS_WANTED, power = pow(10, floor(log10(raw))), digit = raw / power;
    return power * (digit <= 1 ? 1 : digit <= 2 ? 2 : digit <= 5 ? 5 : 10);
}

/* Widens a range to whole steps. */
static void round_range(range *r)
{
    if (!(r->low <= r->high)) {
        *r = (range){.low = 0, .high = 1};
    }
    if (r->high - r->low < 1e-9 * fmax(1e-6, fabs(r->high))) {
        double margin = fmax(1e-6, fabs(r->high) * 0.05);
        r->low -= margin;
        r->high += margin;
    }
    r->step = nice_step(r->high - r->low);
    r->low = floor(r->low / r->step + 1e-9) * r->step;
    r->high = ceil(r->high / r->step - 1e-9) * r->step;
}

static double along(const range *r, double value)
{
    return (value - r->low) / (r->high - r->low);
}

static void find_ranges(const p4_chart *chart, range *x, range *y)
{
    *x = *y = (range){.low = INFINITY, .high = -INFINITY};
    for (int s = 0; s < chart->series_count; s++) {
        for (int64_t i = 0; i < chart->series[s].count; i++) {
            include(x, chart->series[s].points[i].x);
            include(y, chart->series[s].points[i].y);
        }
    }
    for (int i = 0; i < chart->level_count; i++) {
        include(y, chart->levels[i].y);
    }
    double end = x->high;
    round_range(x);
    round_range(y);
    if (isfinite(end) && end > x->low) {
        x->high = end; /* the steps end where the training does */
    }
}

static void put_grid(FILE *to, const range *x, const range *y)
{
    fputs("<path class=\"grid\" d=\"", to);
    for (double v = y->low; v <= y->high + 1e-9 * y->step; v += y->step) {
        fprintf(to, "M0 %.1fH%d", UNITS * (1 - along(y, v)), UNITS);
    }
    for (double v = x->low; v <= x->high + 1e-9 * x->step; v += x->step) {
        fprintf(to, "M%.1f %dv-12", UNITS * along(x, v), UNITS);
    }
    fputs("\"/>\n", to);
}

static void put_line(FILE *to, const p4_series *s, const range *x, const range *y)
{
    int64_t stride = p4_max_i64(1, p4_ceil_div(s->count, POINTS_MAX));
    bool pen = false;
    fprintf(to, "<path class=\"line c%d%s\" d=\"", s->color, s->faint ? " faint" : "");
    for (int64_t i = 0; i < s->count; i += stride) {
        double sum = 0, used = 0; /* of the points that one stands for */
        for (int64_t k = i; k < p4_min_i64(s->count, i + stride); k++) {
            sum += isfinite(s->points[k].y) ? s->points[k].y : 0;
            used += isfinite(s->points[k].y);
        }
        if (used > 0) {
            fprintf(to, "%c%.1f %.1f", pen ? 'L' : 'M', UNITS * along(x, s->points[i].x),
                    UNITS * (1 - along(y, sum / used)));
        }
        pen = used > 0;
    }
    fputs("\"/>\n", to);
}

static void put_dots(FILE *to, const p4_chart *chart, const p4_series *s, const range *x, const range *y)
{
    int64_t stride = p4_max_i64(1, p4_ceil_div(s->count, POINTS_MAX));
    for (int64_t i = 0; i < s->count; i += stride) {
        const p4_point *p = &s->points[i];
        if (isfinite(p->y)) { /* a line without length and with round ends: a dot that is not stretched */
            fprintf(to, "<path class=\"dot c%d\" d=\"M%.1f %.1fh0\"><title>", s->color,
                    UNITS * along(x, p->x), UNITS * (1 - along(y, p->y)));
            p4_html_text(to, s->name);
            fprintf(to, ", %s ", chart->x_title);
            p4_html_count(to, p->x);
            fputs(": ", to);
            p4_html_number(to, p->y, 4, "");
            fputs("</title></path>\n", to);
        }
    }
}

static void put_tick_labels(FILE *to, const range *x, const range *y)
{
    int decimals = (int)fmax(0, -floor(log10(y->step) + 1e-9));
    for (double v = y->low; v <= y->high + 1e-9 * y->step; v += y->step) {
        fprintf(to, "<span class=\"ty\" style=\"top:%.2f%%\">%.*f</span>", 100 * (1 - along(y, v)), decimals,
                fabs(v) < 1e-9 * y->step ? 0 : v);
    }
    for (double v = x->low; v <= x->high + 1e-9 * x->step; v += x->step) {
        fprintf(to, "<span class=\"tx\" style=\"left:%.2f%%\">", 100 * along(x, v));
        p4_html_general(to, v);
        fputs("</span>", to);
    }
    fputs("\n", to);
}

/* Labels of levels, from the highest down, moved apart where they would overlap. */
static void put_level_labels(FILE *to, const p4_chart *chart, const range *y)
{
    int order[LEVELS_MAX], count = 0;
    for (int i = 0; i < chart->level_count && count < LEVELS_MAX; i++) {
        int at = count;
        if (!isfinite(chart->levels[i].y)) {
            continue;
        }
        for (; at > 0 && chart->levels[order[at - 1]].y < chart->levels[i].y; at--) {
            order[at] = order[at - 1];
        }
        order[at] = i;
        count++;
    }
    double above = -1;
    for (int i = 0; i < count; i++) {
        const p4_level *level = &chart->levels[order[i]];
        above = fmax(above + LABEL_GAP, 1 - along(y, level->y));
        fprintf(to, "<span class=\"tl c%d\" style=\"top:%.2f%%\">", level->color, 100 * above);
        p4_html_text(to, level->name);
        fputs(" ", to);
        p4_html_number(to, level->y, 3, "");
        fputs("</span>", to);
    }
}

static void put_legend(FILE *to, const p4_chart *chart)
{
    fputs("<figcaption>", to);
    for (int i = 0; i < chart->series_count; i++) {
        const p4_series *s = &chart->series[i];
        fprintf(to, "<span class=\"key\"><i class=\"%s c%d%s\"></i>", s->dots ? "mark" : "dash", s->color,
                s->faint ? " faint" : "");
        p4_html_foreign(to, s->name);
        fputs("</span>", to);
    }
    fputs("</figcaption>\n", to);
}

void p4_chart_write(FILE *to, const p4_chart *chart)
{
    range x, y;
    find_ranges(chart, &x, &y);
    fputs("<figure class=\"chart\">\n", to);
    put_legend(to, chart);
    fprintf(to,
            "<p class=\"axis\" aria-hidden=\"true\">%s</p>\n<div class=\"plot\">\n"
            "<svg viewBox=\"0 0 %d %d\" preserveAspectRatio=\"none\" role=\"img\" "
            "aria-labelledby=\"%s-t %s-d\"><title id=\"%s-t\">%s</title><desc id=\"%s-d\">%s</desc>\n",
            chart->y_title, UNITS, UNITS, chart->id, chart->id, chart->id, chart->title, chart->id,
            chart->desc);
    put_grid(to, &x, &y);
    for (int i = 0; i < chart->level_count; i++) {
        if (isfinite(chart->levels[i].y)) {
            fprintf(to, "<path class=\"level c%d\" d=\"M0 %.1fH%d\"/>\n", chart->levels[i].color,
                    UNITS * (1 - along(&y, chart->levels[i].y)), UNITS);
        }
    }
    for (int i = 0; i < chart->series_count; i++) {
        put_line(to, &chart->series[i], &x, &y);
    }
    for (int i = 0; i < chart->series_count; i++) {
        if (chart->series[i].dots) {
            put_dots(to, chart, &chart->series[i], &x, &y);
        }
    }
    fputs("</svg>\n<div class=\"labels\" aria-hidden=\"true\">", to);
    put_tick_labels(to, &x, &y);
    put_level_labels(to, chart, &y);
    fprintf(to, "</div>\n</div>\n<p class=\"axis x\" aria-hidden=\"true\">%s</p>\n</figure>\n",
            chart->x_title);
}
