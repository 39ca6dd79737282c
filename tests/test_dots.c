/* The dot products of every instruction set that this machine has (kernels/cpu/dots.h) against double loops:
 * sums of integers bit for bit, also where the factors are floats that hold integers, and others within what
 * fp32 rounds. Inputs are drawn anew each time and end at a page that cannot be read. */
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "check.h"
#include "kernels/cpu/dots.h"
#include "kernels/ops.h"
#include "src/leaf/rng.h"

enum { LANES = P4_DOT_LANES, COLS_MAX = 12000, DRAWN = 24, WHOLE_MAX = 8 };

/* --- memory ------------------------------------------------------------------------------------ */

/* Memory of which the last bytes are used, so that an access behind them stops the program. */
typedef struct fenced {
    char *pages;
    size_t bytes, page;
} fenced;

static void fence(fenced *f, size_t most)
{
    f->page = (size_t)sysconf(_SC_PAGESIZE);
    f->bytes = (most + f->page - 1) / f->page * f->page;
    f->pages = mmap(NULL, f->bytes + f->page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (f->pages == MAP_FAILED || mprotect(f->pages + f->bytes, f->page, PROT_NONE) != 0) {
        perror("memory with a fence");
        exit(EXIT_FAILURE);
    }
}

/* `bytes` of it, poisoned. */
static void *last_of(fenced *f, size_t bytes)
{
    void *start = f->pages + f->bytes - bytes;
    memset(start, 0xa5, bytes);
    return start;
}

static fenced code_memory, plane_memory, weight_memory, x_memory, int8_memory;

/* --- integers ---------------------------------------------------------------------------------- */

typedef struct integers {
    int64_t cols, row_bytes, stride; /* stride: of planes */
    uint8_t *codes;                  /* [LANES, row_bytes] */
    int8_t x[LANES][COLS_MAX];
    int8_t *planes; /* [LANES, stride] */
} integers;

static int code_of(const uint8_t *row, int64_t c)
{
    return row[c / 4] >> 2 * (c % 4) & 3;
}

/* extreme: the largest sums that 8 bits can make. The bits behind a row's last code are of a trit 0. */
static void draw_codes(uint8_t *row, p4_rng *rng, int64_t cols, bool extreme)
{
    memset(row, 0, (size_t)p4_code_row_bytes(cols));
    for (int64_t c = 0; c < (cols + 3) / 4 * 4; c++) {
        int u = c >= cols ? 1 : extreme ? 2 : (int)p4_rng_below(rng, 3);
        row[c / 4] |= (uint8_t)(u << 2 * (c % 4));
    }
}

static void draw_integers(integers *k, p4_rng *rng, int64_t cols, bool extreme)
{
    k->cols = cols;
    k->row_bytes = p4_code_row_bytes(cols);
    k->stride = p4_planes_bytes(cols) + (int64_t)p4_rng_below(rng, 3) * P4_PLANES_BLOCK;
    k->codes = last_of(&code_memory, (size_t)(LANES * k->row_bytes));
    k->planes = last_of(&plane_memory, (size_t)((LANES - 1) * k->stride + p4_planes_bytes(cols)));
    for (int r = 0; r < LANES; r++) {
        draw_codes(k->codes + r * k->row_bytes, rng, cols, extreme);
        for (int64_t c = 0; c < cols; c++) {
            k->x[r][c] = (int8_t)(extreme ? (r % 2 ? -128 : 127) : (int)p4_rng_below(rng, 256) - 128);
        }
    }
}

static int32_t product_of(const integers *k, int row, int token)
{
    int32_t sum = 0;
    for (int64_t c = 0; c < k->cols; c++) {
        sum += code_of(k->codes + row * k->row_bytes, c) * k->x[token][c];
    }
    return sum;
}

static void check_planes(const p4_dots *dots, const integers *k)
{
    for (int n = 0; n < LANES; n++) {
        int32_t want = 0;
        int8_t *x = last_of(&int8_memory, (size_t)k->cols);
        memcpy(x, k->x[n], (size_t)k->cols);
        for (int64_t c = 0; c < k->cols; c++) {
            want += x[c];
        }
        int32_t got = dots->planes(k->planes + n * k->stride, x, k->cols);
        EXPECT(got == want, "%s: the sum of %lld activations is %d, expected %d", dots->name,
               (long long)k->cols, got, want);
    }
    for (int64_t i = p4_planes_bytes(k->cols); i < k->stride; i++) {
        EXPECT(k->planes[i] == (int8_t)0xa5, "%s: byte %lld behind the planes of %lld columns was written",
               dots->name, (long long)i, (long long)k->cols);
    }
}

static void check_integers(const p4_dots *dots, p4_rng *rng, int64_t cols, bool extreme)
{
    static integers k;
    int32_t want[LANES][LANES], sums[LANES];
    draw_integers(&k, rng, cols, extreme);
    check_planes(dots, &k);
    for (int r = 0; r < LANES; r++) {
        for (int n = 0; n < LANES; n++) {
            want[r][n] = product_of(&k, r, n);
        }
    }
    for (int i = 0; i < LANES; i++) {
        memset(sums, 0xa5, sizeof sums);
        dots->rows(sums, k.codes, k.row_bytes, k.planes + i * k.stride, cols);
        for (int r = 0; r < LANES; r++) {
            EXPECT(sums[r] == want[r][i], "%s, rows: %lld columns, row %d, token %d: %d, expected %d",
                   dots->name, (long long)cols, r, i, sums[r], want[r][i]);
        }
        memset(sums, 0xa5, sizeof sums);
        dots->tokens(sums, k.codes + i * k.row_bytes, k.planes, k.stride, cols);
        for (int n = 0; n < LANES; n++) {
            EXPECT(sums[n] == want[i][n], "%s, tokens: %lld columns, row %d, token %d: %d, expected %d",
                   dots->name, (long long)cols, i, n, sums[n], want[i][n]);
        }
    }
}

/* --- floats ------------------------------------------------------------------------------------ */

/* One form of weights: how its elements are written and read, and its dot product. */
typedef struct weights {
    const char *name;
    float (*dot)(const void *w, const float *x, int64_t cols);
    p4_dtype dtype;
} weights;

/* Weights of a row, as floats too. whole: integers of up to WHOLE_MAX. */
static void *draw_row(const weights *form, float *values, p4_rng *rng, int64_t cols, bool whole)
{
    size_t bytes = form->dtype == P4_TERNARY ? (size_t)p4_code_row_bytes(cols)
                                             : (size_t)(cols * p4_dtype_bytes(form->dtype));
    uint8_t *row = last_of(&weight_memory, bytes);
    if (form->dtype == P4_TERNARY) {
        draw_codes(row, rng, cols, false);
    }
    for (int64_t c = 0; c < cols; c++) {
        float value =
            whole ? (float)p4_rng_below(rng, 2 * WHOLE_MAX + 1) - WHOLE_MAX : (float)p4_rng_normal(rng);
        uint16_t half = form->dtype == P4_F16 ? p4_f32_to_f16(value) : p4_f32_to_bf16(value);
        if (form->dtype == P4_TERNARY) {
            values[c] = (float)(code_of(row, c) - 1);
        } else if (form->dtype == P4_F32) {
            values[c] = value;
            memcpy(row + 4 * c, &value, sizeof value);
        } else {
            values[c] = form->dtype == P4_F16 ? p4_f16_to_f32(half) : p4_bf16_to_f32(half);
            memcpy(row + 2 * c, &half, sizeof half);
        }
    }
    return row;
}

/* In any order and with any products fused, a sum of n products in fp32 is within n u / (1 - n u) of the sum
 * of their magnitudes, u = 2^-24. Whole numbers are summed without rounding: every part of
 * 12000 * WHOLE_MAX^2 is below 2^24. So these find a wrong column, and the others wrong bits. */
static void check_floats(const p4_dots *dots, const weights *form, p4_rng *rng, int64_t cols, bool whole)
{
    static float values[COLS_MAX];
    const double u = 0x1p-24;
    double want = 0, magnitude = 0;
    float *x = last_of(&x_memory, (size_t)cols * sizeof *x);
    void *row = draw_row(form, values, rng, cols, whole);
    for (int64_t c = 0; c < cols; c++) {
        x[c] = whole ? (float)p4_rng_below(rng, 2 * WHOLE_MAX + 1) - WHOLE_MAX : (float)p4_rng_normal(rng);
        want += (double)values[c] * (double)x[c];
        magnitude += fabs((double)values[c] * (double)x[c]);
    }
    double n = (double)cols, bound = whole ? 0 : n * u / (1 - n * u) * magnitude;
    float got = form->dot(row, x, cols);
    EXPECT(fabs((double)got - want) <= bound, "%s, %s: %lld %s columns: %.9g, expected %.9g within %.3g",
           dots->name, form->name, (long long)cols, whole ? "whole" : "normal", (double)got, want, bound);
}

static void check_columns(const p4_dots *dots, p4_rng *rng, int64_t cols)
{
    const weights forms[] = {{"fp32", dots->f32, P4_F32},
                             {"fp16", dots->f16, P4_F16},
                             {"bf16", dots->bf16, P4_BF16},
                             {"codes", dots->codes, P4_TERNARY}};
    check_integers(dots, rng, cols, true);
    check_integers(dots, rng, cols, false);
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        check_floats(dots, &forms[i], rng, cols, true);
        check_floats(dots, &forms[i], rng, cols, false);
    }
}

int main(void)
{
    static const int64_t cols[] = {1,   3,   15,  16,  17,  31,   32,   63,   64,   65,   127,  128,
                                   129, 160, 255, 256, 257, 383,  384,  385,  511,  512,  513,  1920,
                                   896, 900, 300, 640, 641, 1919, 2048, 2049, 4093, 5632, 5634, COLS_MAX};
    const char *given = getenv("P4_TEST_SEED");
    p4_rng rng = {.seed = given ? strtoull(given, NULL, 10) : (uint64_t)time(NULL)};
    const p4_dots *dots;
    printf("seed %llu (P4_TEST_SEED repeats it)\n", (unsigned long long)rng.seed);
    fence(&code_memory, LANES * COLS_MAX);
    fence(&plane_memory, LANES * (COLS_MAX + 4 * P4_PLANES_BLOCK));
    fence(&weight_memory, COLS_MAX * sizeof(float));
    fence(&x_memory, COLS_MAX * sizeof(float));
    fence(&int8_memory, COLS_MAX);
    for (int i = 0; (dots = p4_cpu_dots_at(i)) != NULL; i++) {
        for (size_t k = 0; k < sizeof cols / sizeof cols[0]; k++) {
            check_columns(dots, &rng, cols[k]);
        }
        for (int k = 0; k < DRAWN; k++) {
            check_columns(dots, &rng, 1 + (int64_t)p4_rng_below(&rng, 3000));
        }
        printf("dot products: %s\n", dots->name);
    }
    return TEST_END();
}
