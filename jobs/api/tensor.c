/* The quantizer on one tensor, and figures that need no model. */
#include <math.h>

#include "src/leaf/absmean.h"
#include "src/leaf/base.h"
#include "src/phase4.h"

static const double BOUND_BY_MEMORY = 0.88; /* share of a decoding step's time; phase4.h says whence */

static p4_rc check_shape(int64_t rows, int64_t cols)
{
    uint64_t elements;
    bool fits = rows > 0 && cols > 0 && p4_mul3(&elements, (uint64_t)rows, (uint64_t)cols, sizeof(float));
    return fits ? P4_OK
                : FAIL("a tensor of %lld x %lld: expected at least one row and one column", (long long)rows,
                       (long long)cols);
}

p4_rc p4_quantize_tensor(int8_t *quantized, float *scale, const float *weights, int64_t rows, int64_t cols,
                         double threshold)
{
    p4_rc rc = P4_OK;
    p4_error_clear();
    TRY(check_shape(rows, cols));
    CHECK(threshold >= 0 && isfinite(threshold), "threshold: found %g, expected a number of at least 0",
          threshold);
    for (int64_t r = 0; r < rows; r++) {
        const float *w = weights + r * cols;
        double sum = 0;
        for (int64_t c = 0; c < cols; c++) {
            CHECK(isfinite(w[c]), "the weight at [%lld, %lld] is %g, expected a finite number", (long long)r,
                  (long long)c, (double)w[c]);
            sum += (double)fabsf(w[c]);
        }
        scale[r] = p4_absmean_scale(sum, cols);
        float cut = p4_absmean_cut((float)threshold, scale[r]);
        for (int64_t c = 0; c < cols; c++) {
            quantized[r * cols + c] = (int8_t)((w[c] >= cut) - (w[c] <= -cut));
        }
    }
done:
    return rc;
}

p4_rc p4_dequantize_tensor(float *weights, const int8_t *quantized, const float *scale, int64_t rows,
                           int64_t cols)
{
    p4_error_clear();
    p4_rc rc = check_shape(rows, cols);
    for (int64_t i = 0; rc == P4_OK && i < rows * cols; i++) {
        weights[i] = (float)quantized[i] * scale[i / cols];
    }
    return rc;
}

double p4_compression_ratio(double original_mb, double compressed_mb)
{
    return original_mb > 0 && compressed_mb > 0 ? original_mb / compressed_mb : (double)NAN;
}

double p4_estimate_inference_speedup(double original_mb, double compressed_mb)
{
    double ratio = p4_compression_ratio(original_mb, compressed_mb);
    return 1.0 / (1.0 - BOUND_BY_MEMORY + BOUND_BY_MEMORY / ratio);
}
