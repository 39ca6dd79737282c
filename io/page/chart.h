/* chart.h - line charts as inline SVG. The drawing stretches with the page while lines keep their width and
 * the labels, which are HTML beside it, their size: so a chart is legible on a phone and on paper. All Local.
 */
#ifndef P4_PAGE_CHART_H
#define P4_PAGE_CHART_H

#include <stdio.h>

#include "src/leaf/base.h"

typedef struct p4_point {
    double x, y; /* a y that is not finite leaves a gap */
} p4_point;

typedef struct p4_series {
    const char *name;       /* in the legend; foreign text is fine */
    const p4_point *points; /* [count], by x */
    int64_t count;
    int color;  /* 0 to 7 */
    bool dots;  /* each point is marked and has a tooltip */
    bool faint; /* behind the others */
} p4_series;

/* A horizontal line with a label. */
typedef struct p4_level {
    const char *name;
    double y; /* not finite: none */
    int color;
} p4_level;

typedef struct p4_chart {
    const char *id;           /* unique in the page */
    const char *title, *desc; /* for who does not see it; literals */
    const char *x_title, *y_title;
    const p4_series *series;
    const p4_level *levels;
    int series_count, level_count;
} p4_chart;

void p4_chart_write(FILE *to, const p4_chart *chart);

#endif
