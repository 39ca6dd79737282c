#include <math.h>
#include <string.h>

#include "io/out/inspection.h"
#include "io/out/report.h"
#include "src/leaf/count.h"
#include "src/leaf/escape.h"

enum { WORDS_BYTES = 512 };
static const double MIB = 1048576.0;

/* Text from a file, fit for a terminal. */
static const char *words(char to[WORDS_BYTES], const char *text)
{
    (void)p4_escape(to, WORDS_BYTES, text, SIZE_MAX);
    return to;
}

static void evaluation(FILE *to, const char *name, const p4_evaluation *e)
{
    char perplexity[P4_NUMBER_BYTES], low[P4_NUMBER_BYTES], high[P4_NUMBER_BYTES], tokens[P4_COUNT_BYTES];
    if (e->tokens == 0) {
        return;
    }
    fprintf(to, "  %-10s loss %.4f, perplexity %s", name, e->loss,
            p4_format_number(perplexity, e->perplexity, 3));
    if (!isnan(e->perplexity_low)) {
        fprintf(to, " (95 %% interval: %s to %s)", p4_format_number(low, e->perplexity_low, 3),
                p4_format_number(high, e->perplexity_high, 3));
    }
    fprintf(to, ", accuracy %.2f %%", 100.0 * e->accuracy);
    if (!isnan(e->kl)) {
        fprintf(to, ", KL to the original %.4f", e->kl);
    }
    if (!isnan(e->agreement)) {
        fprintf(to, ", agreement %.2f %%", 100.0 * e->agreement);
    }
    fprintf(to, " (%s predictions)\n", p4_format_count(tokens, e->tokens));
}

/* Of the final evaluation. */
static void change(FILE *to, const p4_evaluation *pre, const p4_evaluation *final)
{
    const p4_quality of = {.degradation_low = final->degradation_low,
                           .degradation_high = final->degradation_high};
    char interval[64];
    if (pre->tokens > 0 && final->tokens > 0) {
        fprintf(to, "  %-10s %+.1f %%%s\n", "change",
                100.0 * (final->perplexity - pre->perplexity) / pre->perplexity,
                p4_quality_interval(interval, &of));
    }
}

static void evaluations(FILE *to, const p4_inspection *x)
{
    evaluation(to, "original", &x->pre);
    evaluation(to, "quantized", &x->post);
    evaluation(to, "final", &x->final);
    change(to, &x->pre, &x->final);
    for (int64_t i = 0; i < x->set_count; i++) {
        const p4_set_results *set = &x->sets[i];
        static const char *const words[] = {
            [P4_VERDICT_NONE] = "no verdict", [P4_VERDICT_PASSED] = "passed", [P4_VERDICT_FAILED] = "failed"};
        fprintf(to, "  set \"%s\": %s\n", set->name, words[p4_quality_verdict(&set->quality)]);
        evaluation(to, "original", &set->pre);
        evaluation(to, "final", &set->final);
        change(to, &set->pre, &set->final);
    }
}

static void origin(FILE *to, const p4_inspection *x)
{
    static const char *const states[] = {[P4_INPUT_ABSENT] = "is not there",
                                         [P4_INPUT_SAME] = "is as the run read it",
                                         [P4_INPUT_CHANGED] = "has changed since the run read it",
                                         [P4_INPUT_UNREADABLE] = "cannot be read"};
    if (!x->has_metadata) {
        fprintf(to, "  origin     not known: there is no compression_metadata.json beside the file\n");
        return;
    }
    char text[WORDS_BYTES], more[WORDS_BYTES];
    fprintf(to, "  made       %s by phase4 %s\n", words(text, x->metadata.created),
            words(more, x->metadata.producer));
    p4_inspection_print_places(to, x);
    for (int64_t i = 0; i < x->metadata.input_count; i++) {
        fprintf(to, "  input      %s %s\n", words(text, x->metadata.inputs[i].path), states[x->inputs[i]]);
    }
}

static void sizes(FILE *to, const p4_inspection *x)
{
    char parameters[P4_COUNT_BYTES], ternary[P4_COUNT_BYTES];
    double tensors = (double)(x->code_bytes + x->scale_bytes + x->preserved_bytes);
    fprintf(to, "  tensors    %lld ternary, %lld kept in fp16; %s parameters, %s of them ternary\n",
            (long long)x->layers_quantized, (long long)(x->count - x->layers_quantized),
            p4_format_count(parameters, x->parameters), p4_format_count(ternary, x->ternary_parameters));
    fprintf(to,
            "  bytes      codes %.2f MiB, scales %.2f MiB, fp16 %.2f MiB; all else in the file %.2f MiB\n",
            (double)x->code_bytes / MIB, (double)x->scale_bytes / MIB, (double)x->preserved_bytes / MIB,
            ((double)x->file_bytes - tensors) / MIB);
    fprintf(to, "  ratio      %.2f to fp32\n", tensors > 0 ? 4.0 * (double)x->parameters / tensors : 0.0);
    if (x->ternary_parameters > 0) {
        fprintf(to, "  sparsity   %.2f %% of the ternary weights are zero\n",
                100.0 * (double)x->zeros / (double)x->ternary_parameters);
    }
}

static const char *shape(char text[48], const p4_tensor_inspection *t)
{
    if (t->vector) {
        snprintf(text, 48, "[%lld]", (long long)t->cols);
    } else {
        snprintf(text, 48, "[%lld, %lld]%s", (long long)t->rows, (long long)t->cols,
                 t->transposed ? "'" : "");
    }
    return text;
}

static void tensors(FILE *to, const p4_inspection *x)
{
    int width = 6;
    for (int64_t i = 0; i < x->count; i++) {
        int length = (int)strlen(x->tensors[i].name);
        width = length > width ? length : width;
    }
    fprintf(to, "\n  %-*s %16s %8s %12s %8s %24s %10s\n", width, "tensor", "shape", "encoding", "bytes",
            "zeros", "scales", "rel. error");
    for (int64_t i = 0; i < x->count; i++) {
        const p4_tensor_inspection *t = &x->tensors[i];
        char shape_text[48], scales[48], error[16] = "";
        fprintf(to, "  %-*s %16s %8s %12lld", width, t->name, shape(shape_text, t), t->encoding,
                (long long)t->bytes);
        if (t->ternary) {
            snprintf(scales, sizeof scales, "%.4g to %.4g", t->scale_min, t->scale_max);
            snprintf(error, sizeof error, isnan(t->relative_error) ? "-" : "%.4f", t->relative_error);
            fprintf(to, " %6.1f %% %24s %10s", 100.0 * (double)t->zeros / (double)(t->rows * t->cols), scales,
                    error);
        } else {
            fprintf(to, "   largest magnitude %.4g", t->largest);
        }
        fputc('\n', to);
    }
}

static void state(FILE *to, const p4_inspection *x)
{
    fprintf(to, "\n  checksums  every byte of every tensor was read and agrees with its checksum\n");
    if (x->fp16_path[0] == '\0') {
        fprintf(to, "  fp16       not compared: there is no dequantized_fp16 beside the file\n");
    } else {
        int64_t differing = 0;
        for (int64_t i = 0; i < x->count; i++) {
            differing += x->tensors[i].differing != 0;
        }
        fprintf(to, "  fp16       %s: %lld of %lld tensors equal codes times scales bit for bit\n",
                x->fp16_path, (long long)(x->count - differing), (long long)x->count);
    }
    for (int64_t i = 0; i < p4_min_i64(x->findings.count, P4_FINDINGS_KEPT); i++) {
        fprintf(to, "  FOUND      %s\n", x->findings.lines[i]);
    }
    if (x->findings.count > P4_FINDINGS_KEPT) {
        fprintf(to, "  FOUND      %lld more\n", (long long)(x->findings.count - P4_FINDINGS_KEPT));
    }
    fprintf(to, "  result     %s\n",
            x->findings.count == 0 ? "intact: no damage and no disagreement between the files was found"
                                   : "NOT INTACT: the lines above say what is wrong");
}

void p4_inspection_table(FILE *to, const p4_inspection *x)
{
    fprintf(to, "%s: %s, ternary by \"%s\", packed as %s, %.2f MiB\n", x->path, x->model_type, x->quantizer,
            x->packing, (double)x->file_bytes / MIB);
    origin(to, x);
    sizes(to, x);
    evaluations(to, x);
    tensors(to, x);
    state(to, x);
}

/* ---- two results ---- */

static void difference(FILE *to, const p4_tensor_difference *t, int width)
{
    fprintf(to, "  %-*s ", width, t->name);
    if (t->elements == 0) {
        fprintf(to, "%s\n", t->kind);
        return;
    }
    double all = (double)t->elements;
    if (t->scales == 0) {
        fprintf(to, "%lld of %lld halves differ (%.2f %%), at most by %.4g\n", (long long)t->flipped,
                (long long)t->elements, 100.0 * (double)t->flipped / all, t->largest_change);
        return;
    }
    fprintf(to,
            "%lld of %lld codes flipped (%.2f %%: %lld to zero, %lld from zero, %lld signs); "
            "%lld of %lld scales changed",
            (long long)t->flipped, (long long)t->elements, 100.0 * (double)t->flipped / all,
            (long long)t->to_zero, (long long)t->from_zero, (long long)t->signs, (long long)t->scales_changed,
            (long long)t->scales);
    if (t->scales_changed > 0) {
        fprintf(to, ", by %.2f %% on average and %.2f %% at most", 100.0 * t->scale_change_mean,
                100.0 * t->scale_change_max);
    }
    fputc('\n', to);
}

void p4_result_difference_table(FILE *to, const p4_result_difference *d)
{
    int width = 0;
    int64_t same = 0;
    fprintf(to, "A %s\nB %s\n", d->a, d->b);
    for (int64_t i = 0; i < d->key_count; i++) {
        const p4_key_difference *k = &d->keys[i];
        char a[WORDS_BYTES], b[WORDS_BYTES];
        fprintf(to, "  key \"%s\": A %s, B %s\n", k->key, words(a, k->a != NULL ? k->a : "has none"),
                words(b, k->b != NULL ? k->b : "has none"));
    }
    if (d->model_json_differs) {
        fprintf(to, "  the config.json of the models differ\n");
    }
    if (d->tokenizer_differs) {
        fprintf(to, "  the tokenizers differ\n");
    }
    for (int64_t i = 0; i < d->count; i++) {
        int length = (int)strlen(d->tensors[i].name);
        width = length > width ? length : width;
    }
    for (int64_t i = 0; i < d->count; i++) {
        const p4_tensor_difference *t = &d->tensors[i];
        if (t->elements > 0 && t->flipped == 0 && t->scales_changed == 0) {
            same++;
        } else {
            difference(to, t, width);
        }
    }
    fprintf(to, "  %lld of %lld tensors are the same\n", (long long)same, (long long)d->count);
}
