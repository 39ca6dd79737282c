#include "src/leaf/tensor.h"

#include <math.h>
#include <string.h>

enum { BLOCK_ELEMENTS = 1 << 18 };

int64_t p4_dtype_bytes(p4_dtype dtype)
{
    switch (dtype) {
    case P4_F32:
        return 4;
    case P4_F16:
    case P4_BF16:
        return 2;
    case P4_TERNARY:
        return 0;
    }
    return 0;
}

const char *p4_dtype_name(p4_dtype dtype)
{
    static const char *const names[] = {"F32", "F16", "BF16", "TERNARY"};
    return names[dtype];
}

static uint32_t bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static float float_of(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

float p4_f16_to_f32(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000u) << 16;
    uint32_t exponent = (half >> 10) & 0x1fu;
    uint32_t mantissa = half & 0x3ffu;
    if (exponent == 0x1fu) {
        return float_of(sign | 0x7f800000u | mantissa << 13);
    }
    if (exponent == 0) {
        float magnitude = (float)mantissa * 0x1p-24f;
        return sign ? -magnitude : magnitude;
    }
    return float_of(sign | (exponent + 112u) << 23 | mantissa << 13);
}

/* Every case is computed and one is chosen, so that loops over it become vector code. 65520 and above round
 * to infinity. A subnormal result: adding 0.5 puts units of 2^-24 into the low bits, rounded to even. */
static inline uint16_t half_of(float value)
{
    uint32_t bits = bits_of(value);
    uint32_t sign = (bits >> 16) & 0x8000u;
    int32_t magnitude = (int32_t)(bits & 0x7fffffffu); /* signed: what vector units compare */
    int32_t odd = (magnitude >> 13) & 1;
    int32_t normal = (magnitude - 0x38000000 + 0xfff + odd) >> 13;
    int32_t subnormal = (int32_t)(bits_of(float_of((uint32_t)magnitude) + 0.5f) - bits_of(0.5f));
    int32_t half = magnitude < 0x38800000 ? subnormal : normal;
    half = magnitude >= 0x477ff000 ? 0x7c00 : half;
    half = magnitude > 0x7f800000 ? 0x7e00 : half;
    return (uint16_t)(sign | (uint32_t)half);
}

uint16_t p4_f32_to_f16(float value)
{
    return half_of(value);
}

void p4_f32s_to_f16(uint16_t *to, const float *from, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        to[i] = half_of(from[i]);
    }
}

int64_t p4_f16_find_nonfinite(const uint16_t *halves, int64_t count)
{
    enum { BLOCK = 4096 };
    for (int64_t at = 0; at < count; at += BLOCK) {
        int64_t end = p4_min_i64(at + BLOCK, count);
        uint16_t found = 0;
        for (int64_t i = at; i < end; i++) { /* without a way out, so that it becomes vector code */
            found |= (uint16_t)((halves[i] & 0x7c00u) == 0x7c00u);
        }
        for (int64_t i = at; found && i < end; i++) {
            if ((halves[i] & 0x7c00u) == 0x7c00u) {
                return i;
            }
        }
    }
    return -1;
}

int64_t p4_codes_count_zeros(const uint8_t *codes, int64_t cols)
{
    const uint64_t low = 0x5555555555555555u; /* the low bit of every code */
    int64_t zeros = 0, whole = cols / 4;
    for (int64_t i = 0; i + 8 <= whole; i += 8) {
        uint64_t word;
        memcpy(&word, codes + i, sizeof word);
        zeros += __builtin_popcountll(word & ~(word >> 1) & low);
    }
    for (int64_t c = whole / 8 * 32; c < cols; c++) {
        zeros += (codes[c / 4] >> 2 * (c % 4) & 3) == 1;
    }
    return zeros;
}

bool p4_all_zero(const void *values, p4_dtype dtype, int64_t count)
{
    int64_t bytes = p4_dtype_bytes(dtype);
    const uint8_t *at = values; /* little-endian: the sign is the top bit of an element's last byte */
    for (int64_t i = 0; i < count; i++, at += bytes) {
        uint8_t any = at[bytes - 1] & 0x7f;
        for (int64_t b = 0; b < bytes - 1; b++) {
            any |= at[b];
        }
        if (any != 0) {
            return false;
        }
    }
    return true;
}

float p4_bf16_to_f32(uint16_t bits)
{
    return float_of((uint32_t)bits << 16);
}

uint16_t p4_f32_to_bf16(float value)
{
    uint32_t bits = bits_of(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) {
        return (uint16_t)(bits >> 16 | 0x40u);
    }
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

static uint16_t load_u16(const void *from, int64_t index)
{
    uint16_t bits;
    memcpy(&bits, (const uint8_t *)from + 2 * index, sizeof bits);
    return bits;
}

void p4_to_f32(float *to, const void *from, p4_dtype dtype, int64_t count)
{
    if (dtype == P4_F32) {
        memcpy(to, from, (size_t)count * sizeof *to);
    } else if (dtype == P4_F16) {
        for (int64_t i = 0; i < count; i++) {
            to[i] = p4_f16_to_f32(load_u16(from, i));
        }
    } else {
        for (int64_t i = 0; i < count; i++) {
            to[i] = p4_bf16_to_f32(load_u16(from, i));
        }
    }
}

void p4_weight_row_f32(float *to, const p4_weight *weight, int64_t row)
{
    const uint8_t *bytes = weight->data;
    int64_t cols = weight->cols;
    if (weight->dtype == P4_TERNARY) {
        const uint8_t *codes = bytes + row * p4_code_row_bytes(cols);
        int64_t group = p4_scale_group(weight->scale_group, cols);
        for (int64_t c = 0, end; c < cols; c = end) {
            int64_t at = (row * cols + c) / group;
            float scale = p4_f16_to_f32(weight->scale[at]);
            end = p4_min_i64(cols, (at + 1) * group - row * cols);
            for (int64_t k = c; k < end; k++) {
                to[k] = scale * (float)((codes[k / 4] >> 2 * (k % 4) & 3) - 1);
            }
        }
        return;
    }
    int64_t each = p4_dtype_bytes(weight->dtype);
    if (!weight->transposed) {
        p4_to_f32(to, bytes + row * cols * each, weight->dtype, cols);
        return;
    }
    for (int64_t c = 0; c < cols; c++) {
        p4_to_f32(to + c, bytes + (c * weight->rows + row) * each, weight->dtype, 1);
    }
}

/* Four codes of a byte as four fp16 numbers, in the order of memory on a little-endian machine: the codes are
 * spread to lanes of 16 bits; a lane keeps the scale unless its code is 1 (t = 0), and takes the sign bit
 * when its code is 0 (t = -1). */
static inline uint64_t four_halves(uint8_t codes, uint64_t scale4)
{
    const uint64_t ones = 0x0001000100010001u;
    uint64_t lanes = ((uint64_t)codes | (uint64_t)codes << 28) & 0x0000000f0000000fu;
    lanes = (lanes | lanes << 14) & 0x0003000300030003u;
    uint64_t kept = ~lanes & ones, negative = ~(lanes | lanes >> 1) & ones;
    return (scale4 & ((kept << 16) - kept)) ^ negative << 15;
}

/* `count` codes with one scale. */
static void halves_of_codes(uint16_t *to, const uint8_t *codes, uint16_t scale, int64_t count)
{
    int64_t whole = count / 4;
    uint64_t scale4 = scale * (uint64_t)0x0001000100010001u;
    for (int64_t i = 0; i < whole; i++) {
        uint64_t four = four_halves(codes[i], scale4);
        memcpy(to + 4 * i, &four, sizeof four);
    }
    if (count % 4 != 0) {
        uint64_t four = four_halves(codes[whole], scale4);
        memcpy(to + 4 * whole, &four, (size_t)(count % 4) * sizeof *to);
    }
}

void p4_ternary_row_f16(uint16_t *to, const p4_weight *weight, int64_t row)
{
    int64_t cols = weight->cols, group = p4_scale_group(weight->scale_group, cols);
    const uint8_t *codes = (const uint8_t *)weight->data + row * p4_code_row_bytes(cols);
    for (int64_t c = 0, end; c < cols; c = end) {
        int64_t at = (row * cols + c) / group;
        end = p4_min_i64(cols, (at + 1) * group - row * cols);
        halves_of_codes(to + c, codes + c / 4, weight->scale[at], end - c);
    }
}

void p4_weight_rows_f32(float *to, const p4_weight *weight, int64_t first, int64_t rows)
{
    const uint8_t *bytes = weight->data;
    int64_t cols = weight->cols, each = p4_dtype_bytes(weight->dtype);
    if (!weight->transposed) {
        for (int64_t r = 0; r < rows; r++) {
            p4_weight_row_f32(to + r * cols, weight, first + r);
        }
        return;
    }
    for (int64_t c = 0; c < cols; c++) {
        const uint8_t *from = bytes + (c * weight->rows + first) * each;
        for (int64_t r = 0; r < rows; r++) {
            p4_to_f32(to + r * cols + c, from + r * each, weight->dtype, 1);
        }
    }
}

int64_t p4_weight_block_rows(const p4_weight *weight)
{
    return p4_max_i64(1, p4_min_i64(weight->rows, BLOCK_ELEMENTS / weight->cols));
}
