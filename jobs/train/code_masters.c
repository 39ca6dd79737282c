#include "jobs/train/code_masters.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/ops.h"

/* Of the scale; "exact" cuts at about half of it. */
static const float LEAST_KEPT = 0.6f, MOST_KEPT = 1.8f, MOST_DROPPED = 0.4f;

static int trit_at(const uint8_t *codes, int64_t col)
{
    return (codes[col / 4] >> 2 * (col % 4) & 3) - 1;
}

/* One row: w holds the original's values, and becomes the masters. pull: 0 stays near the original, 1 is the
 * codes' own values. */
static void make_row(float *w, const uint8_t *codes, float scale, int64_t cols, float pull)
{
    double sum = 0.0;
    int64_t kept = 0;
    for (int64_t c = 0; c < cols; c++) {
        float t = (float)trit_at(codes, c), toward = t * w[c], size = fabsf(w[c]);
        if (t != 0.0f) {
            float near = fminf(fmaxf(toward, LEAST_KEPT * scale), MOST_KEPT * scale);
            w[c] = t * (near + pull * (scale - near));
            sum += (double)fabsf(w[c]);
            kept++;
        } else {
            w[c] = copysignf((1.0f - pull) * fminf(size, MOST_DROPPED * scale), w[c]);
        }
    }
    for (int64_t c = 0; c < cols; c++) {
        bool is_kept = trit_at(codes, c) != 0;
        w[c] = kept == 0 || scale == 0.0f ? 0.0f
               : is_kept                  ? (float)((double)w[c] * (double)scale * (double)kept / sum)
                                          : w[c];
    }
}

/* Do two rows of codes stand for the same values? */
static bool same_row(const uint8_t *a, uint16_t scale_a, const uint8_t *b, uint16_t scale_b, int64_t cols)
{
    bool same = true, zero_a = p4_f16_to_f32(scale_a) == 0.0f, zero_b = p4_f16_to_f32(scale_b) == 0.0f,
         any = false;
    for (int64_t c = 0; c < cols && same; c++) {
        int t_a = zero_a ? 0 : trit_at(a, c), t_b = zero_b ? 0 : trit_at(b, c);
        same = t_a == t_b;
        any = any || t_a != 0;
    }
    return same && (!any || scale_a == scale_b);
}

/* What masters are checked with. */
typedef struct check {
    const p4_ops *ops;
    p4_device *device;
    uint8_t *codes;
    uint16_t *scale;
} check;

static p4_rc open_check(check *k, const p4_weight *codes, int threads)
{
    p4_rc rc = P4_OK;
    k->ops = p4_ops_find("cpu"); /* masters are in host memory, whatever the device is */
    TRY(k->ops->open(&k->device, 0, threads, false));
    k->codes = p4_alloc((size_t)codes->rows, (size_t)p4_code_row_bytes(codes->cols));
    k->scale = p4_alloc((size_t)codes->rows, sizeof *k->scale);
    TRY(k->codes != NULL && k->scale != NULL ? P4_OK : P4_E_SYSTEM);
done:
    return rc;
}

static void close_check(check *k)
{
    if (k->device != NULL) {
        k->ops->close(k->device);
    }
    free(k->codes);
    free(k->scale);
}

p4_rc p4_code_masters(float *to, const p4_weight *codes, const p4_weight *original, int threads)
{
    static const float pulls[] = {0.0f, 0.5f, 1.0f};
    p4_rc rc = P4_OK;
    check k = {.ops = NULL};
    int64_t rows = codes->rows, cols = codes->cols, row_bytes = p4_code_row_bytes(cols), open = rows;
    const p4_weight masters = {.dtype = P4_F32, .rows = rows, .cols = cols, .data = to};
    bool *done = p4_alloc((size_t)rows, sizeof *done);
    TRY(done != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(open_check(&k, codes, threads));
    for (size_t p = 0; p < sizeof pulls / sizeof pulls[0] && open > 0; p++) {
        for (int64_t r = 0; r < rows; r++) {
            if (!done[r]) {
                p4_weight_row_f32(to + r * cols, original, r);
                make_row(to + r * cols, (const uint8_t *)codes->data + r * row_bytes,
                         p4_f16_to_f32(codes->scale[r]), cols, pulls[p]);
            }
        }
        k.ops->quantize(k.device, k.codes, k.scale, NULL, &masters, P4_QUANT_EXACT, 0.0f, NULL);
        TRY(k.ops->sync(k.device));
        open = 0;
        for (int64_t r = 0; r < rows; r++) {
            done[r] = same_row(k.codes + r * row_bytes, k.scale[r],
                               (const uint8_t *)codes->data + r * row_bytes, codes->scale[r], cols);
            open += !done[r];
        }
    }
    if (open > 0) {
        rc = FAULT("%lld of %lld rows have no masters for their codes", (long long)open, (long long)rows);
    }
done:
    close_check(&k);
    free(done);
    return rc;
}
