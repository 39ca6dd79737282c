/* ternarise.c - phase4_bench ternarise: one large bf16 matrix to 2-bit codes and a scale a row, and the same with the
 * report of its error. */
#include <stdio.h>

#include "bench.h"

typedef struct ternarise {
    bench_device d;
    p4_weight weight;
    uint8_t *codes;
    uint16_t *scale;
    p4_quant_method method;
    p4_quant_error error, *h_error;
    void *memory;
} ternarise;

static void quantize_once(void *user)
{
    ternarise *x = user;
    x->d.ops->quantize(x->d.device, x->codes, x->scale, x->h_error, &x->weight, x->method, 0.1f, NULL);
}

static p4_rc measure(ternarise *x, const char *name, p4_quant_method method, bool report)
{
    p4_rc rc = P4_OK;
    bench_time time;
    double rows = (double)x->weight.rows, bytes = rows * (2.25 * (double)x->weight.cols + 2.0);
    x->method = method;
    x->h_error = report ? &x->error : NULL;
    TRY(bench_measure(&time, &x->d, quantize_once, x));
    bench_line(name, bytes / time.median_s * 1e-9, "GB/s", "copy", x->d.copy_gbs, "%.3f ms, [%lld, %lld] bf16",
               1e3 * time.median_s, (long long)x->weight.rows, (long long)x->weight.cols);
done:
    return rc;
}

p4_rc bench_ternarise(const bench_options *o)
{
    p4_rc rc = P4_OK;
    ternarise x = {0};
    TRY(bench_device_open(&x.d, o));
    int64_t rows = o->rows > 0 ? o->rows : x.d.cuda ? 65536 : 4096, cols = o->cols > 0 ? o->cols : x.d.cuda ? 8192 : 4096;
    int64_t weight_bytes = p4_ceil_div(rows * cols * 2, 256) * 256;
    int64_t code_bytes = p4_ceil_div(rows * p4_code_row_bytes(cols), 256) * 256;
    TRY(x.d.ops->alloc(x.d.device, &x.memory, weight_bytes + code_bytes + rows * 2));
    x.weight = (p4_weight){.dtype = P4_BF16, .rows = rows, .cols = cols, .data = x.memory};
    x.codes = (uint8_t *)x.memory + weight_bytes;
    x.scale = (uint16_t *)(void *)(x.codes + code_bytes);
    TRY(bench_fill(&x.d, x.memory, P4_BF16, rows * cols, 0.02f, 0.0f));
    TRY(measure(&x, "ternarise absmean", P4_QUANT_ABSMEAN, false));
    TRY(measure(&x, "ternarise exact", P4_QUANT_EXACT, false));
    TRY(measure(&x, "ternarise absmean with error", P4_QUANT_ABSMEAN, true));
    TRY(measure(&x, "ternarise exact with error", P4_QUANT_EXACT, true));
done:
    if (x.memory != NULL) {
        x.d.ops->release(x.d.device, x.memory);
    }
    bench_device_close(&x.d);
    return rc;
}
