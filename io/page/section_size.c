/* Where the bytes are: the packed model beside the original, its parts, its largest tensors. */
#include <math.h>
#include <stdlib.h>

#include "io/page/html.h"
#include "io/page/sections.h"

static const double MB = 1048576.0;

/* A bar whose length is the share of `whole`, with the number behind its name. */
static void put_bar(FILE *to, const char *name, double mb, double whole, const char *kind)
{
    if (!(mb > 0)) {
        return;
    }
    fprintf(to, "<tr><th scope=\"row\">%s</th><td class=\"n\">", name);
    p4_html_bytes(to, MB * mb);
    fprintf(to, "</td><td class=\"bars\"><i class=\"%s\" style=\"width:%.2f%%\"></i></td></tr>\n", kind,
            fmin(100, 100 * mb / whole));
}

static void put_comparison(FILE *to, const cJSON *metrics)
{
    double whole = p4_page_real(metrics, "original_size_mb"),
           packed = p4_page_real(metrics, "compressed_size_mb"),
           file = p4_page_real(metrics, "packed_file_mb"), stored = p4_page_real(metrics, "stored_files_mb");
    double longest = fmax(whole, fmax(stored, file)); /* fmax passes over NaN */
    p4_html_table(to, "Sizes of the model", "Form|#Size|<span class=\"hide\">Bar</span>");
    put_bar(to, "original, fp32", whole, longest, "old");
    put_bar(to, "original, as stored", p4_page_real(metrics, "stored_size_mb"), longest, "old");
    put_bar(to, "original, its files", stored, longest, "old");
    put_bar(to, "packed", packed, longest, "new");
    put_bar(to, "packed, model.h5", file, longest, "new");
    p4_html_end_table(to);
    if (file > packed) {
        fputs("<p class=\"note\">model.h5 holds ", to);
        p4_html_bytes(to, MB * (file - packed));
        fputs(" beside the packed model: the tokenizer if there is one, the statistics of "
              "calibration, what the run measured, and the structure of the file.</p>\n",
              to);
    }
}

static const struct {
    const char *name, *key, *kind;
} parts[] = {{"ternary codes", "ternary_mb", "k0"},
             {"scales", "scales_mb", "k1"},
             {"embedding", "embedding_mb", "k2"},
             {"output head", "head_mb", "k3"},
             {"norms, biases, others", "other_mb", "k4"}};
enum { PARTS = sizeof parts / sizeof parts[0] };

static void put_parts(FILE *to, const cJSON *metrics)
{
    double whole = p4_page_real(metrics, "compressed_size_mb");
    if (!(whole > 0)) {
        return;
    }
    fputs("<div class=\"stack\" aria-hidden=\"true\">", to);
    for (int i = 0; i < PARTS; i++) {
        double mb = p4_page_real(metrics, parts[i].key);
        if (mb > 0) {
            fprintf(to, "<i class=\"%s\" style=\"width:%.3f%%\" title=\"%s\"></i>", parts[i].kind,
                    100 * mb / whole, parts[i].name);
        }
    }
    fputs("</div>\n", to);
    p4_html_table(to, "Parts of the packed model", "Part|#Size|#Share");
    for (int i = 0; i < PARTS; i++) {
        double mb = p4_page_real(metrics, parts[i].key);
        if (mb > 0) {
            fprintf(to, "<tr><th scope=\"row\"><i class=\"box %s\"></i>%s</th><td class=\"n\">",
                    parts[i].kind, parts[i].name);
            p4_html_bytes(to, MB * mb);
            fputs("</td><td class=\"n\">", to);
            p4_html_number(to, 100 * mb / whole, 1, "&nbsp;%");
            fputs("</td></tr>\n", to);
        }
    }
    p4_html_end_table(to);
}

static int by_bytes(const void *a, const void *b)
{
    double x = p4_page_real(*(const cJSON *const *)a, "bytes"),
           y = p4_page_real(*(const cJSON *const *)b, "bytes");
    return (x < y) - (x > y);
}

static void put_tensor(FILE *to, const cJSON *tensor)
{
    bool ternary = cJSON_IsTrue(p4_page_item(tensor, "ternary"));
    fputs("<tr><th scope=\"row\">", to);
    p4_html_foreign(to, p4_page_string(tensor, "name"));
    fputs("</th><td class=\"n\">", to);
    p4_html_count(to, p4_page_real(tensor, "rows"));
    fputs(" &times; ", to);
    p4_html_count(to, p4_page_real(tensor, "cols"));
    fprintf(to, "</td><td>%s</td><td class=\"n\">", ternary ? "ternary" : "fp16");
    p4_html_bytes(to, p4_page_real(tensor, "bytes"));
    fputs("</td></tr>\n", to);
}

static void put_largest(FILE *to, const cJSON *tensors)
{
    enum { SHOWN = 10 };
    int count = cJSON_GetArraySize(tensors), filled = 0;
    const cJSON **sorted = count > 0 ? p4_alloc((size_t)count, sizeof *sorted) : NULL, *tensor;
    if (sorted == NULL) {
        return;
    }
    cJSON_ArrayForEach(tensor, tensors)
    {
        sorted[filled++] = tensor;
    }
    qsort(sorted, (size_t)count, sizeof *sorted, by_bytes);
    fputs("<details><summary>Largest tensors</summary>\n", to);
    p4_html_table(to, "Largest tensors of the packed model", "Tensor|#Shape|Form|#Size");
    for (int i = 0; i < count && i < SHOWN; i++) {
        put_tensor(to, sorted[i]);
    }
    p4_html_end_table(to);
    fputs("</details>\n", to);
    free(sorted);
}

void p4_section_size(FILE *to, const p4_page_run *run)
{
    const cJSON *metrics = p4_page_item(run->results, "metrics");
    if (!(p4_page_real(metrics, "original_size_mb") > 0)) {
        return;
    }
    p4_html_section(to, "size", "Where the bytes are");
    fputs("<p>", to);
    p4_html_count(to, p4_page_real(metrics, "total_params"));
    fputs(" parameters: ", to);
    p4_html_count(to, p4_page_real(metrics, "layers_quantized"));
    fputs(" ternary tensors, ", to);
    p4_html_count(to, p4_page_real(metrics, "layers_preserved"));
    fputs(" kept in fp16.</p>\n<div class=\"pair\">\n<div>\n", to);
    put_comparison(to, metrics);
    fputs("</div>\n<div>\n", to);
    put_parts(to, metrics);
    fputs("</div>\n</div>\n", to);
    put_largest(to, p4_page_item(run->details, "tensors"));
    p4_html_end_section(to);
}
