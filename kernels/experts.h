/* experts.h - types of the ops of mixtures of experts. For kernels/ops.h.
 *
 * Every token goes through `used` of the experts. The rows of a product of experts are the pairs of a token
 * and one of its experts: expert after expert and, within an expert, token after token. How many rows an
 * expert has is known on the device alone; together they are always N * used. */
#ifndef P4_EXPERTS_H
#define P4_EXPERTS_H

#include <stdbool.h>
#include <stdint.h>

/* Where the rows lie. Arrays in device memory, which op `route` fills. */
typedef struct p4_routes {
    int64_t N, experts, used;
    float *share; /* [N, used]: what the expert's output is multiplied by in the token's sum */
    int32_t
        *expert;    /* [N, used]: those with the largest logits, the largest first; of equal ones the first */
    int32_t *row;   /* [N, used]: of this pair */
    int32_t *first; /* [experts + 1]: rows [first[e], first[e + 1]) are those of expert e */
    int32_t *work;  /* [p4_routes_work_count]: content undefined before and after */
} p4_routes;

enum { P4_ROUTES_CHUNK = 1024 /* pairs whose experts are counted together */ };

static inline int64_t p4_routes_work_count(int64_t N, int64_t experts, int64_t used)
{
    return (N * used + P4_ROUTES_CHUNK - 1) / P4_ROUTES_CHUNK * experts;
}

/* A product of each expert's rows with its matrix. An op reads and writes the members that it names. */
typedef struct p4_experts_args {
    int64_t experts, rows, in, out; /* rows: of all experts */
    const int32_t *first;           /* p4_routes.first */
    const void *w;                  /* act [experts, out, in] */
    const void *x;                  /* act [rows, in] */
    void *y;                        /* act [rows, out] */
    const void *dy;                 /* act [rows, out] */
    void *dx;                       /* act [rows, in] */
    float *dw;                      /* [experts, out, in] */
    bool accumulate;                /* dw += instead of = */
} p4_experts_args;

typedef struct p4_share_backward_args {
    const p4_routes *routes;
    int64_t F, C;
    const void *h; /* act [rows, F]: what the experts' last matrices were multiplied with */
    void *dh;      /* act [rows, F]: on entry the gradient at h of the outputs without shares */
    void *dy;      /* act [rows, C]: on entry the gradient at the tokens' sums */
    float *dshare; /* [N, used] = */
} p4_share_backward_args;

#endif
