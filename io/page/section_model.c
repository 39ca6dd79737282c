/* The maps of the model: what quantization did to each matrix, and what calibration saw of it. */
#include <math.h>
#include <string.h>

#include "io/page/heat.h"
#include "io/page/html.h"
#include "io/page/sections.h"

/* Layers of the model by its tensors. */
static int64_t count_layers(const p4_page_run *run)
{
    const cJSON *tensor;
    double layers = 0;
    cJSON_ArrayForEach(tensor, p4_page_item(run->details, "tensors"))
    {
        layers = fmax(layers, p4_page_real(tensor, "layer") + 1);
    }
    return layers < 1e5 ? (int64_t)layers : 0;
}

bool p4_page_has_layers(const p4_page_run *run)
{
    const cJSON *tensor;
    cJSON_ArrayForEach(tensor, p4_page_item(run->details, "tensors"))
    {
        if (cJSON_IsTrue(p4_page_item(tensor, "ternary"))) {
            return true;
        }
    }
    return false;
}

bool p4_page_has_activations(const p4_page_run *run)
{
    return cJSON_GetArraySize(p4_page_item(run->details, "activations")) > 0;
}

/* One map of a member of the ternary tensors. */
static void put_tensors(FILE *to, const p4_page_run *run, const char *member, double scale,
                        const char *caption, const char *what, int decimals)
{
    p4_heat heat;
    const cJSON *tensor;
    if (p4_heat_init(&heat, count_layers(run)) == P4_OK) {
        cJSON_ArrayForEach(tensor, p4_page_item(run->details, "tensors"))
        {
            p4_heat_add(&heat, p4_page_string(tensor, "name"), p4_page_real(tensor, "layer"),
                        scale * p4_page_real(tensor, member));
        }
        p4_heat_write(to, &heat, caption, what, decimals);
    }
    p4_heat_free(&heat);
}

/* Of a mixture of experts: that a cell stands for all experts of its layer, and how evenly they were used. */
static void put_experts(FILE *to, const cJSON *experts)
{
    const cJSON *layer, *uneven = NULL;
    if (!(p4_page_real(experts, "experts") > 0)) {
        return;
    }
    fputs(" The experts of a layer share a cell, which has their mean. Each token takes ", to);
    p4_html_count(to, p4_page_real(experts, "experts_per_token"));
    fputs(" of ", to);
    p4_html_count(to, p4_page_real(experts, "experts"));
    fputs(" experts.", to);
    cJSON_ArrayForEach(layer, p4_page_item(experts, "layers"))
    {
        bool more = uneven == NULL || p4_page_real(layer, "most") > p4_page_real(uneven, "most");
        uneven = more ? layer : uneven;
    }
    if (uneven != NULL) {
        fputs(" In calibration, layer ", to);
        p4_html_count(to, p4_page_real(uneven, "layer"));
        fputs(" used them least evenly: its experts got ", to);
        p4_html_number(to, p4_page_real(uneven, "least"), 2, "");
        fputs(" to ", to);
        p4_html_number(to, p4_page_real(uneven, "most"), 2, "");
        fputs(" times the mean number of tokens.", to);
    }
}

void p4_section_model(FILE *to, const p4_page_run *run)
{
    if (!p4_page_has_layers(run)) {
        return;
    }
    p4_html_section(to, "model", "Map of the model");
    fputs("<p>Each cell is a ternary matrix: its layer and its projection. The stronger its color, the "
          "larger the value. Layers are numbered from 0, as in the names of the tensors: layer 0 is block 1.",
          to);
    put_experts(to, p4_page_item(run->results, "experts"));
    fputs("</p>\n<div class=\"maps\">\n", to);
    put_tensors(to, run, "relative_error", 100, "Relative error, %",
                "Squared error of the weights over their squares.", 1);
    put_tensors(to, run, "sparsity", 100, "Zeros, %", "Part of the weights that are 0.", 1);
    put_tensors(to, run, "scale_mean", 1000, "Mean scale, thousandths",
                "A weight is &minus;1, 0 or 1 times the scale of its row.", 1);
    fputs("</div>\n", to);
    p4_html_end_section(to);
}

/* ---- activations ---- */

typedef enum measure { DEVIATION, REACH, PEAK } measure;

static double measure_of(const cJSON *activation, measure what)
{
    double std = p4_page_real(activation, "std");
    double reach = fmax(fabs(p4_page_real(activation, "min")), fabs(p4_page_real(activation, "max")));
    return what == DEVIATION ? std : what == PEAK ? p4_page_real(activation, "input_peak") : reach / std;
}

/* The layer is the first number in the name. */
static double layer_of(const char *name)
{
    for (const char *p = name; *p != '\0'; p += strcspn(p, "."), p += *p == '.') {
        size_t digits = strspn(p, "0123456789");
        if (digits > 0 && digits < 6 && (p[digits] == '.' || p[digits] == '\0')) {
            double layer = 0;
            for (size_t i = 0; i < digits; i++) {
                layer = 10 * layer + (p[i] - '0');
            }
            return layer;
        }
    }
    return NAN;
}

static void put_activations(FILE *to, const p4_page_run *run, measure what, const char *caption,
                            const char *note, int decimals)
{
    p4_heat heat;
    const cJSON *activation;
    if (p4_heat_init(&heat, count_layers(run)) == P4_OK) {
        cJSON_ArrayForEach(activation, p4_page_item(run->details, "activations"))
        {
            const char *name = p4_page_string(activation, "name");
            p4_heat_add(&heat, name, layer_of(name), measure_of(activation, what));
        }
        p4_heat_write(to, &heat, caption, note, decimals);
    }
    p4_heat_free(&heat);
}

void p4_section_activations(FILE *to, const p4_page_run *run)
{
    if (!p4_page_has_activations(run)) {
        return;
    }
    p4_html_section(to, "activations", "Activations");
    fputs("<p>What calibration saw in the original model. A matrix is hard to quantize where the largest "
          "outputs are many times the usual ones, or where a few input channels are much stronger than the "
          "rest.</p>\n<div class=\"maps\">\n",
          to);
    put_activations(to, run, DEVIATION, "Standard deviation of the outputs",
                    "Of all outputs of a projection.", 2);
    put_activations(to, run, REACH, "Largest output, in deviations",
                    "The largest magnitude over the standard deviation.", 1);
    put_activations(to, run, PEAK, "Strongest input channel",
                    "Its mean square over the mean of all channels.", 1);
    fputs("</div>\n", to);
    p4_html_end_section(to);
}
