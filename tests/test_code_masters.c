/* Masters for given codes: "exact" quantizes them to these codes, and they are nearer to the original than
 * the codes' own values are. */
#include <stdlib.h>
#include <time.h>

#include "check.h"
#include "jobs/train/code_masters.h"
#include "kernels/ops.h"
#include "src/leaf/rng.h"

enum { ROWS = 23, COLS = 301 };

typedef struct world {
    float w[ROWS * COLS], master[ROWS * COLS];
    uint8_t codes[ROWS * (COLS + 3) / 4 + ROWS], found[ROWS * (COLS + 3) / 4 + ROWS];
    uint16_t scale[ROWS], found_scale[ROWS];
} world;

static int trit(const uint8_t *codes, int64_t i)
{
    return (codes[i / COLS * p4_code_row_bytes(COLS) + i % COLS / 4] >> 2 * (i % COLS % 4) & 3) - 1;
}

/* A tenth of the trits another than "exact" would give, and scales up to a third off; `heavy`: a few large
 * weights. */
static void draw(world *x, p4_rng *rng, bool heavy)
{
    memset(x, 0, sizeof *x);
    for (int64_t r = 0; r < ROWS; r++) {
        float scale = 0.02f * (float)(1.0 + p4_rng_uniform(rng) / 3.0);
        x->scale[r] = r == 3 ? 0 : p4_f32_to_f16(scale);
        for (int64_t c = 0; c < COLS; c++) {
            float w = (float)(0.018 * p4_rng_normal(rng));
            w *= heavy && p4_rng_below(rng, 20) == 0 ? 20.0f : 1.0f;
            int t = (w > 0.5f * scale) - (w < -0.5f * scale);
            t = p4_rng_below(rng, 10) == 0 ? (int)p4_rng_below(rng, 3) - 1 : t;
            t = r == 3 || r == 5 ? 0 : t; /* a row of scale 0, and one without kept weights */
            x->w[r * COLS + c] = w;
            x->codes[r * p4_code_row_bytes(COLS) + c / 4] |= (uint8_t)((t + 1) << 2 * (c % 4));
        }
    }
}

static void check_masters(const p4_ops *ops, p4_device *device, world *x, bool heavy)
{
    const p4_weight original = {.dtype = P4_F32, .rows = ROWS, .cols = COLS, .data = x->w};
    const p4_weight codes = {
        .dtype = P4_TERNARY, .rows = ROWS, .cols = COLS, .data = x->codes, .scale = x->scale};
    const p4_weight master = {.dtype = P4_F32, .rows = ROWS, .cols = COLS, .data = x->master};
    double near = 0, far = 0;
    int64_t wrong = 0;
    EXPECT_OK(p4_code_masters(x->master, &codes, &original, 1));
    ops->quantize(device, x->found, x->found_scale, NULL, &master, P4_QUANT_EXACT, 0.0f, NULL);
    for (int64_t i = 0; i < ROWS * COLS; i++) {
        float value = (float)trit(x->codes, i) * p4_f16_to_f32(x->scale[i / COLS]);
        float found = (float)trit(x->found, i) * p4_f16_to_f32(x->found_scale[i / COLS]);
        wrong += value != found;
        near += fabs((double)(x->master[i] - x->w[i]));
        far += fabs((double)(value - x->w[i]));
    }
    EXPECT(wrong == 0, "%lld values are others than the codes'", (long long)wrong);
    EXPECT(near < (heavy ? 1.0 : 0.6) * far, "masters are %g from the original, the codes %g", near, far);
}

int main(void)
{
    static world x;
    const char *given = getenv("P4_TEST_SEED");
    p4_rng rng = {.seed = given ? strtoull(given, NULL, 10) : (uint64_t)time(NULL)};
    const p4_ops *ops = p4_ops_find("cpu");
    p4_device *device = NULL;
    printf("seed %llu (P4_TEST_SEED repeats it)\n", (unsigned long long)rng.seed);
    EXPECT_OK(ops->open(&device, 0, 1, false));
    for (int turn = 0; turn < 40; turn++) {
        draw(&x, &rng, turn % 2 != 0);
        check_masters(ops, device, &x, turn % 2 != 0);
    }
    ops->close(device);
    return TEST_END();
}
