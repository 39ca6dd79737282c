/* ops_bench.h - one model's shapes, arrays that are large enough for every op at them, and a case that is
 * timed.
 *
 * An op's inputs and outputs are places in a few large pools. On a GPU every call takes the next place, so
 * that no call finds its inputs in the cache because the call before left them there; on the CPU all calls
 * use the same one. */
#ifndef P4_OPS_BENCH_H
#define P4_OPS_BENCH_H

#include "bench.h"

typedef enum ops_pool {
    X0, /* activations that are read: normal numbers */
    X1,
    Y0, /* activations that are written */
    Y1,
    F0, /* fp32 that is read: normal numbers of deviation 0.02 (weights, gradients) */
    F1, /* fp32 that is updated, the same at first */
    F2, /* fp32 near 1 that is updated (norm gains, averages of squares) */
    F3,
    CODES,   /* 2-bit codes */
    PACKED,  /* the same in base 3 */
    ROUNDED, /* activations of X0 in int8 */
    POOLS
} ops_pool;

typedef struct ops_bench {
    bench_device d;
    const char *shape, *filter, *model;
    p4_arch arch;
    int64_t B, T, N, NV; /* NV: rows of logits at a time */
    int64_t width, up;   /* columns of q|k|v; rows of the MLP's first matrix */
    int64_t rows, cols;  /* of the matrix that is quantized, fp32 */
    p4_attention_shape attention;
    char *memory[POOLS];
    int64_t pool_bytes[POOLS], turn;
    int64_t *past;                                          /* T - 1: tokens in a cache */
    float *cos_table, *sin_table, *lse, *work, *importance; /* the last: ones [cols] */
    float *s;                                               /* of the rows in int8 */
    double *sums;                                           /* [max(F, up, 8)] */
    p4_step_numbers *numbers;                               /* of a late step at a rate near 0 */
    int32_t *ids;                                           /* [N] */
    uint16_t *scale;                                        /* [rows] fp16 */
    int64_t in, out;                                        /* of the matrix under test */
    p4_quant_error error;                                   /* of the quantize cases that report one */
    struct p4_optim *updated;                               /* of the Muon case that runs */
    void *blocks[POOLS + 10];
    int block_count;
    p4_rc rc; /* the first failure: the cases after it do nothing */
} ops_bench;

/* The place of this call in a pool, `bytes` long. */
void *ops_at(const ops_bench *x, ops_pool pool, int64_t bytes);
/* Bytes of `count` activations. */
int64_t ops_acts(const ops_bench *x, int64_t count);
/* Times one op and prints its line: beside its rate stands the ceiling that bounds it, floating-point
 * operations or bytes that must move at least, whichever takes longer. */
void ops_case(ops_bench *x, void (*work)(void *user), double flop, double bytes, const char *name_format, ...)
    P4_PRINTF(5, 6);

void ops_linear_cases(ops_bench *x);
void ops_layer_cases(ops_bench *x);
void ops_ternary_cases(ops_bench *x);
void ops_optim_cases(ops_bench *x);

/* Rows of int8 [N, width] in a pool. */
#define ROWS(pool, width)                                                \
    {                                                                    \
        .codes = ops_at(x, pool, x->N * p4_int8_width(width)), .s = x->s \
    }

/* Elements between rows of logits, as in training. */
static inline int64_t ops_logits_ld(const ops_bench *x)
{
    return x->d.ops->host_memory ? x->arch.V : (x->arch.V + 63) / 64 * 64;
}

/* void run_NAME(void *user): one call of an op at the next place. */
#define OP(name, ...)                    \
    static void run_##name(void *user)   \
    {                                    \
        ops_bench *x = user;             \
        const p4_ops *ops = x->d.ops;    \
        p4_device *device = x->d.device; \
        x->turn++;                       \
        __VA_ARGS__;                     \
    }
#define ACT(pool, count) ops_at(x, pool, ops_acts(x, count))
#define F32(pool, count) ((float *)ops_at(x, pool, (count)*4))

#endif
