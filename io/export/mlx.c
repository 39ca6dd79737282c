/* mlx.c - a Hugging Face directory with the affine 2-bit quantization of MLX: for mlx-lm on Apple silicon. */
#include <string.h>

#include "io/export/packed_directory.h"
#include "io/export/writers.h"

/* Elements of a packed word: a row must fill words, and a group at least two. */
enum { PACKED = 1, SCALES, BIASES, LEAST_GROUP = 32, MOST_GROUP = 128 };

/* A tied head is the embedding, which MLX can hold in this form as well. */
static bool is_taken(const p4_param *p, int64_t group)
{
    return p->ternary && !p->vector && p4_export_run(p->scale_group, p->cols) % group == 0;
}

/* The largest group that divides the rows of all matrices, so that the scales are repeated least often; 32
 * where none does: what it does not divide is written as fp16. */
static int64_t group_of(const p4_model *model)
{
    int64_t group = MOST_GROUP;
    for (int64_t i = 0; i < model->params_count; i++) {
        while (group > LEAST_GROUP && model->params[i].ternary && !is_taken(&model->params[i], group)) {
            group /= 2;
        }
    }
    return group;
}

static p4_rc check(const p4_export_source *source)
{
    return p4_packed_check_linear(source, "exports: mlx");
}

static void append_packed(p4_packed_directory *d, int64_t param)
{
    const p4_param *p = &d->source->hf->model.params[param];
    static const char *const suffixes[] = {".weight", ".scales", ".biases"};
    for (int kind = PACKED; kind <= BIASES; kind++) {
        p4_packed_tensor *t = p4_packed_append(d, param, kind, kind == PACKED ? "U32" : NULL);
        p4_packed_name(t->name, p, suffixes[kind - PACKED]);
        t->rank = 2;
        t->shape[0] = t->rows = p->rows;
        t->shape[1] = kind == PACKED ? p->cols / 16 : p->cols / d->number;
        t->row_bytes = t->shape[1] * (kind == PACKED ? 4 : 2);
    }
}

/* value = q * scale + bias with q = t + 1: the bias is the scale's negative. */
static void fill(const p4_export_source *source, const p4_packed_tensor *t, uint8_t *to, int64_t first,
                 int64_t rows)
{
    const p4_weight *w = &source->weights[t->param];
    if (t->kind == PACKED) { /* phase4's own codes */
        memcpy(to, (const uint8_t *)w->data + first * t->row_bytes, (size_t)(rows * t->row_bytes));
        return;
    }
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t g = 0; g < t->shape[1]; g++) {
            uint16_t bits = p4_export_scale(w, first + r, g * (w->cols / t->shape[1]));
            bits = (uint16_t)(bits ^ (t->kind == BIASES ? 0x8000u : 0u));
            memcpy(to + r * t->row_bytes + 2 * g, &bits, sizeof bits);
        }
    }
}

static p4_rc list_tensors(p4_packed_directory *d, const p4_export_source *source)
{
    const p4_model *model = &source->hf->model;
    *d = (p4_packed_directory){.source = source, .fill = fill, .number = group_of(model)};
    d->tensors = p4_alloc(3 * (size_t)model->params_count, sizeof *d->tensors);
    if (d->tensors == NULL) {
        return P4_E_SYSTEM;
    }
    for (int64_t i = 0; i < model->params_count; i++) {
        if (is_taken(&model->params[i], d->number)) {
            append_packed(d, i);
        } else {
            p4_packed_append_plain(d, i);
        }
    }
    return P4_OK;
}

static p4_rc plan(const p4_export_source *source, double *bytes)
{
    p4_packed_directory d;
    p4_rc rc = list_tensors(&d, source);
    *bytes = rc == P4_OK ? p4_packed_directory_bytes(&d) : 0;
    p4_packed_directory_free(&d);
    return rc;
}

static p4_rc write_directory(const p4_export_source *source, const char *path)
{
    p4_rc rc = P4_OK;
    p4_packed_directory d;
    TRY(list_tensors(&d, source));
    char *quantization = p4_format("{\"group_size\": %lld, \"bits\": 2}", (long long)d.number);
    d.config_json = p4_packed_config(source, "quantization", quantization);
    TRY(d.config_json != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(p4_packed_directory_write(&d, path));
done:
    p4_packed_directory_free(&d);
    return rc;
}

const p4_writer p4_writer_mlx = {"mlx", "mlx", check, NULL, plan, write_directory};
