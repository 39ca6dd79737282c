#include "io/page/heat.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "io/page/html.h"

enum { SHADES = 9 };
static const double WIDE = 20; /* between the least and the largest value: shades by their logarithms */

p4_rc p4_heat_init(p4_heat *heat, int64_t layers)
{
    *heat = (p4_heat){.layers = layers};
    heat->sums = p4_alloc((size_t)(layers * P4_HEAT_COLUMNS), sizeof *heat->sums);
    heat->counts = p4_alloc((size_t)(layers * P4_HEAT_COLUMNS), sizeof *heat->counts);
    return heat->sums != NULL && heat->counts != NULL ? P4_OK : P4_E_SYSTEM;
}

void p4_heat_free(p4_heat *heat)
{
    free(heat->sums);
    free(heat->counts);
    *heat = (p4_heat){0};
}

/* "model.layers.3.mlp.experts.7.up_proj.weight" -> "mlp.experts.*.up_proj" */
static void name_projection(char name[P4_HEAT_NAME], const char *tensor)
{
    size_t used = 0;
    bool inside = false; /* behind the number of the layer */
    name[0] = '\0';
    while (*tensor != '\0') {
        size_t length = strcspn(tensor, "."), digits = strspn(tensor, "0123456789");
        bool number = length > 0 && digits == length, last = tensor[length] == '\0';
        if (inside && !(last && strcmp(tensor, "weight") == 0) && used < P4_HEAT_NAME) {
            used += (size_t)snprintf(name + used, P4_HEAT_NAME - used, "%s%.*s", used > 0 ? "." : "",
                                     number ? 1 : (int)length, number ? "*" : tensor);
        }
        inside = inside || number;
        tensor += length + !last;
    }
}

void p4_heat_add(p4_heat *heat, const char *tensor, double layer, double value)
{
    char name[P4_HEAT_NAME];
    int64_t column = 0;
    if (!(layer >= 0 && layer < (double)heat->layers) || !isfinite(value)) {
        return;
    }
    name_projection(name, tensor);
    while (column < heat->columns && strcmp(heat->names[column], name) != 0) {
        column++;
    }
    if (column == P4_HEAT_COLUMNS) {
        heat->left_out++;
        return;
    }
    if (column == heat->columns) {
        memcpy(heat->names[heat->columns++], name, sizeof name);
    }
    heat->sums[(int64_t)layer * P4_HEAT_COLUMNS + column] += value;
    heat->counts[(int64_t)layer * P4_HEAT_COLUMNS + column]++;
}

static double value_at(const p4_heat *heat, int64_t layer, int64_t column)
{
    int64_t cell = layer * P4_HEAT_COLUMNS + column;
    return heat->counts[cell] > 0 ? heat->sums[cell] / heat->counts[cell] : NAN;
}

/* "self_attn.q_proj" as "q", unless another column is then called the same. */
static void put_short_name(FILE *to, const p4_heat *heat, int64_t column)
{
    const char *full = heat->names[column], *dot = strrchr(full, '.'), *last = dot != NULL ? dot + 1 : full;
    for (int64_t i = 0; i < heat->columns; i++) {
        const char *other = strrchr(heat->names[i], '.');
        if (i != column && strcmp(other != NULL ? other + 1 : heat->names[i], last) == 0) {
            p4_html_text(to, full);
            return;
        }
    }
    char name[P4_HEAT_NAME];
    snprintf(name, sizeof name, "%s", last);
    size_t length = strlen(name);
    if (length > 5 && strcmp(name + length - 5, "_proj") == 0) {
        name[length - 5] = '\0';
    }
    p4_html_text(to, name);
}

static int shade_of(double value, double least, double largest)
{
    if (least > 0 && largest / least > WIDE) {
        value = log(value);
        least = log(least);
        largest = log(largest);
    }
    double part = largest > least ? (value - least) / (largest - least) : 0.5;
    return (int)fmin(SHADES - 1, part * SHADES);
}

static void put_head(FILE *to, const p4_heat *heat, const char *caption)
{
    fprintf(to,
            "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"%s\">\n<table "
            "class=\"heat\">\n<caption>%s</caption>\n<thead><tr><th scope=\"col\">Layer</th>",
            caption, caption);
    for (int64_t c = 0; c < heat->columns; c++) {
        fputs("<th scope=\"col\"><abbr title=\"", to);
        p4_html_text(to, heat->names[c]);
        fputs("\">", to);
        put_short_name(to, heat, c);
        fputs("</abbr></th>", to);
    }
    fputs("</tr></thead>\n<tbody>\n", to);
}

void p4_heat_write(FILE *to, const p4_heat *heat, const char *caption, const char *what, int decimals)
{
    double least = INFINITY, largest = -INFINITY;
    for (int64_t l = 0; l < heat->layers; l++) {
        for (int64_t c = 0; c < heat->columns; c++) {
            double value = value_at(heat, l, c); /* fmin and fmax ignore NaN */
            least = fmin(least, value);
            largest = fmax(largest, value);
        }
    }
    if (heat->columns == 0) {
        return;
    }
    decimals = largest >= 100 ? 0 : decimals; /* three digits are enough to compare cells, and fit in them */
    fputs("<div class=\"map\">\n", to);
    put_head(to, heat, caption);
    for (int64_t l = 0; l < heat->layers; l++) {
        fprintf(to, "<tr><th scope=\"row\">%lld</th>", (long long)l);
        for (int64_t c = 0; c < heat->columns; c++) {
            double value = value_at(heat, l, c);
            if (isnan(value)) {
                fputs("<td></td>", to);
            } else {
                fprintf(to, "<td class=\"h%d\">%.*f</td>", shade_of(value, least, largest), decimals, value);
            }
        }
        fputs("</tr>\n", to);
    }
    p4_html_end_table(to);
    fprintf(to, "<p class=\"note\">%s</p>\n", what);
    if (heat->left_out > 0) {
        fprintf(to, "<p class=\"note\">%lld more tensors are in details.json.</p>\n",
                (long long)heat->left_out);
    }
    fputs("</div>\n", to);
}
