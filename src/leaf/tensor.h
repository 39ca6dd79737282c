/* tensor.h - a named array in words: element types, half-precision conversion, and the weight view every op
 * takes. */
#ifndef P4_TENSOR_H
#define P4_TENSOR_H

#include "src/leaf/base.h"

typedef enum p4_dtype {
    P4_F32,
    P4_F16,
    P4_BF16,
    P4_TERNARY, /* 2-bit codes, p4_code_row_bytes(cols) bytes a row, low bits first, code = t + 1 (0, 1, 2);
                   fp16 scales */
} p4_dtype;

/* A weight [rows, cols] = [out, in] in whatever form it is at hand. A view: owns nothing. `data` may be
 * unaligned when it points into a mapped file. A vector is rows = 1. */
typedef struct p4_weight {
    p4_dtype dtype;
    bool transposed;       /* data is laid out [cols, rows] (GPT-2's Conv1D); never with P4_TERNARY */
    int64_t rows, cols;    /* logical [out, in], whatever the layout */
    const void *data;      /* elements, or codes */
    const uint16_t *scale; /* P4_TERNARY: fp16 bits [p4_weight_scale_count] */
    /* P4_TERNARY: so many elements, counted along one row after another, share a scale. 0: cols, a scale a
     * row. Otherwise a divisor of cols or all of rows * cols, and like cols a multiple of 4. */
    int64_t scale_group;
} p4_weight;

/* Elements that share a scale, when `group` is a scale_group. Local. */
static inline int64_t p4_scale_group(int64_t group, int64_t cols)
{
    return group > 0 ? group : cols;
}
static inline int64_t p4_weight_scale_count(const p4_weight *w)
{
    return w->rows * w->cols / p4_scale_group(w->scale_group, w->cols);
}
/* The same memory with a row for each scale: what works row by row then works scale by scale. The weight is
 * ternary, or not transposed. Local. */
static inline p4_weight p4_weight_by_scale(const p4_weight *w)
{
    p4_weight view = *w;
    view.cols = p4_scale_group(w->scale_group, w->cols);
    view.rows = w->rows * w->cols / view.cols;
    view.scale_group = 0;
    return view;
}

static inline int64_t p4_code_row_bytes(int64_t cols)
{
    return (cols + 3) / 4;
}
/* How many of the first `cols` codes of a row stand for 0. Local. */
int64_t p4_codes_count_zeros(const uint8_t *codes, int64_t cols);
int64_t p4_dtype_bytes(p4_dtype dtype); /* bytes an element; 0 for P4_TERNARY */
const char *p4_dtype_name(p4_dtype dtype);

/* IEEE half and bfloat16, round to nearest even; overflow gives infinity, NaN stays NaN. */
float p4_f16_to_f32(uint16_t bits);
uint16_t p4_f32_to_f16(float value);
float p4_bf16_to_f32(uint16_t bits);
uint16_t p4_f32_to_bf16(float value);

/* count elements of `dtype` (F32, F16 or BF16) at a possibly unaligned `from` -> float. Local. */
void p4_to_f32(float *to, const void *from, p4_dtype dtype, int64_t count);
/* The same rounding as p4_f32_to_f16. Local. */
void p4_f32s_to_f16(uint16_t *to, const float *from, int64_t count);
/* The first of fp16 bits that are NaN or infinite, or -1. Local. */
int64_t p4_f16_find_nonfinite(const uint16_t *halves, int64_t count);
/* Whether each of `count` values is zero, of either sign. Local. */
bool p4_all_zero(const void *values, p4_dtype dtype, int64_t count);
/* row `row` of a ternary weight -> the fp16 bits of its cols values, which are exact: -scale, 0 or scale.
 * Local. */
void p4_ternary_row_f16(uint16_t *to, const p4_weight *weight, int64_t row);
/* row `row` of any weight -> cols floats (dequantised when ternary). Local. */
void p4_weight_row_f32(float *to, const p4_weight *weight, int64_t row);
/* rows [first, first + rows) -> rows x cols floats; reads a transposed weight along its memory. Local. */
void p4_weight_rows_f32(float *to, const p4_weight *weight, int64_t first, int64_t rows);
/* Rows of a weight to convert at a time so that a block stays in the cache: at least 1, at most all. Local.
 */
int64_t p4_weight_block_rows(const p4_weight *weight);

#endif
