/* A model's tensors in memory, in the shapes of the checkpoint's files. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "jobs/api/api.h"

void p4_state_free(p4_state *state)
{
    for (int64_t i = 0; state->tensors != NULL && i < state->count; i++) {
        free(state->tensors[i].name);
        free(state->tensors[i].data);
    }
    free(state->tensors);
    *state = (p4_state){0};
}

const p4_state_tensor *p4_state_find(const p4_state *state, const char *name)
{
    for (int64_t i = 0; i < state->count; i++) {
        if (strcmp(state->tensors[i].name, name) == 0) {
            return &state->tensors[i];
        }
    }
    return NULL;
}

static size_t element_bytes(p4_state_dtype dtype)
{
    return dtype == P4_STATE_INT8 ? 1 : dtype == P4_STATE_FP16 ? 2 : 4;
}

/* Adds a tensor with room for its elements, or NULL. The state has room for it. Local. */
static p4_state_tensor *add_tensor(p4_state *state, const char *name, p4_state_dtype dtype, int32_t rank,
                                   int64_t first, int64_t second)
{
    p4_state_tensor *t = &state->tensors[state->count];
    *t = (p4_state_tensor){.dtype = dtype, .rank = rank, .shape = {first, second}};
    t->name = p4_strdup(name);
    t->data = p4_alloc((size_t)(first * second), element_bytes(dtype));
    if (t->name == NULL || t->data == NULL) {
        free(t->name);
        free(t->data);
        return NULL;
    }
    state->count++;
    return t;
}

static p4_rc begin(p4_state *state, int64_t capacity)
{
    *state = (p4_state){0};
    state->tensors = p4_alloc((size_t)capacity, sizeof *state->tensors);
    return state->tensors != NULL ? P4_OK : P4_E_SYSTEM;
}

/* Where element [row, col] of a logical [out, in] weight stands in its file's layout. */
static int64_t place(const p4_param *p, int64_t row, int64_t col)
{
    return p->transposed ? col * p->rows + row : row * p->cols + col;
}

static p4_state_tensor *add_param(p4_state *state, const p4_param *p, p4_state_dtype dtype)
{
    int64_t first = p->vector ? p->cols : p->transposed ? p->cols : p->rows;
    int64_t second = p->vector ? 1 : p->transposed ? p->rows : p->cols;
    return add_tensor(state, p->name, dtype, p->vector ? 1 : 2, first, second);
}

static void put_trits(int8_t *to, const p4_param *p, const p4_weight *w)
{
    for (int64_t r = 0; r < p->rows; r++) {
        const uint8_t *codes = (const uint8_t *)w->data + r * p4_code_row_bytes(p->cols);
        for (int64_t c = 0; c < p->cols; c++) {
            to[place(p, r, c)] = (int8_t)((codes[c / 4] >> 2 * (c % 4) & 3) - 1);
        }
    }
}

/* scale * t is a value that fp16 holds, for t is -1, 0 or 1: the rounding changes nothing. */
static p4_rc put_halves(uint16_t *to, const p4_param *p, const p4_weight *w)
{
    float *row = p4_alloc((size_t)p->cols, sizeof *row);
    if (row == NULL) {
        return P4_E_SYSTEM;
    }
    for (int64_t r = 0; r < p->rows; r++) {
        p4_weight_row_f32(row, w, r);
        for (int64_t c = 0; c < p->cols; c++) {
            to[place(p, r, c)] = p4_f32_to_f16(row[c]);
        }
    }
    free(row);
    return P4_OK;
}

/* The whole model; ternary tensors as trits or as halves. Local. */
static p4_rc make_state(const p4_compressed *compressed, p4_state *state, bool trits)
{
    p4_rc rc = P4_OK;
    const p4_model *model = &compressed->original.hf.model;
    p4_error_clear();
    *state = (p4_state){0};
    TRY(p4_compressed_expect(compressed));
    TRY(begin(state, model->params_count));
    for (int64_t i = 0; i < model->params_count; i++) {
        const p4_param *p = &model->params[i];
        const p4_weight *w = &compressed->packed.weights[i];
        bool as_trits = trits && p->ternary;
        p4_state_tensor *t = add_param(state, p, as_trits ? P4_STATE_INT8 : P4_STATE_FP16);
        if (t == NULL) {
            rc = P4_E_SYSTEM;
            goto done;
        }
        if (as_trits) {
            put_trits(t->data, p, w);
        } else {
            TRY(put_halves(t->data, p, w));
        }
    }
done:
    if (rc != P4_OK) {
        p4_state_free(state);
    }
    return rc;
}

p4_rc p4_compressed_quantized_state(const p4_compressed *compressed, p4_state *state)
{
    return make_state(compressed, state, true);
}

p4_rc p4_compressed_dequantized_state(const p4_compressed *compressed, p4_state *state)
{
    return make_state(compressed, state, false);
}

/* The scales of the elements of `cols` columns, [rows, cols] or transposed. */
static void put_scales(float *to, const p4_param *p, int64_t cols, const uint16_t *scale)
{
    int64_t group = p4_scale_group(p->scale_group, p->cols);
    for (int64_t r = 0; r < p->rows; r++) {
        for (int64_t c = 0; c < cols; c++) {
            to[p->transposed ? c * p->rows + r : r * cols + c] =
                p4_f16_to_f32(scale[(r * p->cols + c) / group]);
        }
    }
}

p4_rc p4_compressed_scale_factors(const p4_compressed *compressed, p4_state *scales)
{
    p4_rc rc = P4_OK;
    const p4_model *model = &compressed->original.hf.model;
    p4_error_clear();
    *scales = (p4_state){0};
    TRY(p4_compressed_expect(compressed));
    TRY(begin(scales, model->params_count));
    for (int64_t i = 0; i < model->params_count; i++) {
        const p4_param *p = &model->params[i];
        if (!p->ternary) {
            continue;
        }
        /* A number for each row, or where parts of rows have their own, for each weight. */
        int64_t cols = p4_param_scale_count(p) > p->rows ? p->cols : 1;
        p4_state_tensor *t = add_tensor(scales, p->name, P4_STATE_FP32, 2, p->transposed ? cols : p->rows,
                                        p->transposed ? p->rows : cols);
        if (t == NULL) {
            rc = P4_E_SYSTEM;
            goto done;
        }
        put_scales(t->data, p, cols, compressed->packed.weights[i].scale);
    }
done:
    if (rc != P4_OK) {
        p4_state_free(scales);
    }
    return rc;
}

/* How the scale of a tensor steps along its two dimensions. */
static p4_rc find_scale(const p4_state *scales, const p4_state_tensor *t, const p4_state_tensor **found,
                        int64_t step[2])
{
    p4_rc rc = P4_OK;
    const p4_state_tensor *s = p4_state_find(scales, t->name);
    CHECK(s != NULL, "tensor %s is int8 and has no scale", t->name);
    CHECK(s->dtype == P4_STATE_FP32, "the scale of tensor %s is not fp32", t->name);
    bool one = s->shape[0] == 1 && s->shape[1] == 1;
    bool rows = s->shape[0] == t->shape[0] && s->shape[1] == 1;
    bool cols = s->shape[0] == 1 && s->shape[1] == t->shape[1];
    bool each = s->shape[0] == t->shape[0] && s->shape[1] == t->shape[1];
    CHECK(
        one || rows || cols || each,
        "tensor %s is [%lld, %lld] and its scale [%lld, %lld], expected [%lld, 1], [1, %lld], [1] or one for "
        "each weight",
        t->name, (long long)t->shape[0], (long long)t->shape[1], (long long)s->shape[0],
        (long long)s->shape[1], (long long)t->shape[0], (long long)t->shape[1]);
    step[0] = one ? 0 : each ? t->shape[1] : rows ? 1 : 0;
    step[1] = one ? 0 : each || cols ? 1 : 0;
    *found = s;
done:
    return rc;
}

static float element(const p4_state_tensor *t, int64_t i)
{
    switch (t->dtype) {
    case P4_STATE_INT8:
        return (float)((const int8_t *)t->data)[i];
    case P4_STATE_FP16:
        return p4_f16_to_f32(((const uint16_t *)t->data)[i]);
    case P4_STATE_FP32:
        return ((const float *)t->data)[i];
    }
    return NAN;
}

static p4_rc dequantize(p4_state_tensor *to, const p4_state_tensor *t, const p4_state *scales)
{
    p4_rc rc = P4_OK;
    const p4_state_tensor *s = NULL;
    int64_t step[2] = {0, 0};
    if (t->dtype == P4_STATE_INT8) {
        TRY(find_scale(scales, t, &s, step));
    }
    for (int64_t i = 0; i < t->shape[0] * t->shape[1]; i++) {
        int64_t row = i / t->shape[1], col = i % t->shape[1];
        float value = element(t, i) * (s == NULL ? 1.0f : element(s, row * step[0] + col * step[1]));
        uint16_t bits = p4_f32_to_f16(value);
        CHECK((bits & 0x7c00u) != 0x7c00u,
              "tensor %s: element [%lld, %lld] is %g, which fp16 cannot hold (up to 65504)", t->name,
              (long long)row, (long long)col, (double)value);
        ((uint16_t *)to->data)[i] = bits;
    }
done:
    return rc;
}

p4_rc p4_dequantize_model(const p4_state *quantized, const p4_state *scales, p4_state *dequantized)
{
    p4_rc rc = P4_OK;
    p4_error_clear();
    TRY(begin(dequantized, quantized->count));
    for (int64_t i = 0; i < quantized->count; i++) {
        const p4_state_tensor *t = &quantized->tensors[i];
        p4_state_tensor *to =
            add_tensor(dequantized, t->name, P4_STATE_FP16, t->rank, t->shape[0], t->shape[1]);
        if (to == NULL) {
            rc = P4_E_SYSTEM;
            goto done;
        }
        TRY(dequantize(to, t, scales));
    }
done:
    if (rc != P4_OK) {
        p4_state_free(dequantized);
    }
    return rc;
}
