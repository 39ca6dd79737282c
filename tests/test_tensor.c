/* Half precision in arrays: rounding against arithmetic in double, ternary rows against their floats, what is
 * not finite. */
#include <stdlib.h>

#include "check.h"
#include "src/leaf/rng.h"
#include "src/leaf/tensor.h"

/* fp16 by its definition: the nearest multiple of the unit of its binade, ties to the even one. */
static uint16_t reference_half(float value)
{
    uint16_t sign = signbit(value) ? 0x8000 : 0;
    double magnitude = fabs((double)value);
    if (isnan(value)) {
        return (uint16_t)(sign | 0x7e00);
    }
    if (magnitude >= 65520.0) {
        return (uint16_t)(sign | 0x7c00);
    }
    int exponent = magnitude > 0 ? ilogb(magnitude) : -14;
    exponent = exponent < -14 ? -14 : exponent;
    long units = lrint(ldexp(magnitude, 10 - exponent)); /* the default rounding is to even */
    return (uint16_t)(sign | (uint16_t)(((exponent + 14) << 10) + units));
}

static void test_rounding(void)
{
    enum { COUNT = 200000 };
    static float values[COUNT];
    static uint16_t halves[COUNT];
    p4_rng rng = {.seed = 3, .stream = 5};
    int wrong = 0;
    for (int i = 0; i < COUNT; i++) {
        uint32_t bits = (uint32_t)p4_rng_below(&rng, UINT64_C(1) << 32);
        memcpy(&values[i], &bits, sizeof bits);
        if (i % 2 == 0) { /* the range of fp16, and ties */
            values[i] = ldexpf((float)(int32_t)(bits % 8192) - 4096.0f, (int)(bits >> 13) % 32 - 26);
        }
    }
    p4_f32s_to_f16(halves, values, COUNT);
    for (int i = 0; i < COUNT; i++) {
        wrong += halves[i] != reference_half(values[i]) || halves[i] != p4_f32_to_f16(values[i]);
    }
    EXPECT(wrong == 0, "%d of %d are rounded otherwise", wrong, COUNT);
    for (uint32_t half = 0; half < 65536; half++) {
        bool nan = (half & 0x7c00) == 0x7c00 && (half & 0x3ff) != 0;
        wrong += !nan && p4_f32_to_f16(p4_f16_to_f32((uint16_t)half)) != half;
    }
    EXPECT(wrong == 0, "%d halves do not come back", wrong);
}

static void test_ternary_rows(void)
{
    enum { ROWS = 6, MOST = 67 };
    const uint16_t scale[ROWS] = {0x0000, 0x0001, 0x3c00, 0x7bff, 0x2345, 0x0400};
    for (int64_t cols = 1; cols <= MOST; cols++) {
        uint8_t codes[ROWS * (MOST / 4 + 1)];
        uint16_t got[MOST + 1];
        float want[MOST];
        int wrong = 0;
        p4_rng rng = {.seed = 1, .stream = (uint64_t)cols};
        for (size_t i = 0; i < sizeof codes; i++) {
            codes[i] = (uint8_t)(p4_rng_below(&rng, 3) | p4_rng_below(&rng, 3) << 2 |
                                 p4_rng_below(&rng, 3) << 4 | p4_rng_below(&rng, 3) << 6);
        }
        p4_weight weight = {.dtype = P4_TERNARY, .rows = ROWS, .cols = cols, .data = codes, .scale = scale};
        for (int64_t r = 0; r < ROWS; r++) {
            got[cols] = 0xbeef;
            p4_ternary_row_f16(got, &weight, r);
            p4_weight_row_f32(want, &weight, r);
            for (int64_t c = 0; c < cols; c++) {
                wrong += got[c] != p4_f32_to_f16(want[c]);
            }
            EXPECT(got[cols] == 0xbeef, "%lld columns: written beyond the row", (long long)cols);
        }
        EXPECT(wrong == 0, "%lld columns: %d wrong", (long long)cols, wrong);
    }
}

static void test_nonfinite(void)
{
    enum { COUNT = 10000 };
    static uint16_t halves[COUNT];
    const int at[] = {0, 1, 4095, 4096, 8191, COUNT - 1};
    const uint16_t bad[] = {0x7c00, 0xfc00, 0x7e01};
    for (int i = 0; i < COUNT; i++) {
        halves[i] = (uint16_t)(i % 0x7c00 | i % 2 << 15);
    }
    EXPECT(p4_f16_find_nonfinite(halves, COUNT) == -1, "found one");
    for (size_t k = 0; k < sizeof at / sizeof at[0]; k++) {
        uint16_t kept = halves[at[k]];
        halves[at[k]] = bad[k % 3];
        EXPECT(p4_f16_find_nonfinite(halves, COUNT) == at[k], "not found at %d", at[k]);
        EXPECT(p4_f16_find_nonfinite(halves, at[k]) == -1, "found before %d", at[k]);
        halves[at[k]] = kept;
    }
}

/* Against one code at a time; the codes behind the last are random too. */
static void test_count_zeros(void)
{
    for (int64_t cols = 0; cols < 150; cols++) {
        uint8_t codes[40];
        int64_t want = 0;
        for (size_t i = 0; i < sizeof codes; i++) {
            codes[i] = (uint8_t)(rand() % 3 | rand() % 3 << 2 | rand() % 3 << 4 | rand() % 3 << 6);
        }
        for (int64_t c = 0; c < cols; c++) {
            want += (codes[c / 4] >> 2 * (c % 4) & 3) == 1;
        }
        EXPECT(p4_codes_count_zeros(codes, cols) == want, "%lld columns", (long long)cols);
    }
}

int main(void)
{
    test_count_zeros();
    test_rounding();
    test_ternary_rows();
    test_nonfinite();
    return TEST_END();
}
