/* hessian_sums.h - the sums X'X of several inputs of a block, collected in one pass over the windows.
 *
 * Experts of one projection read what is routed to them, which does not depend on the matrices of the others:
 * their sums may be collected together, and are the same bits as one by one. */
#ifndef P4_HESSIAN_SUMS_H
#define P4_HESSIAN_SUMS_H

#include "jobs/train/layers.h"
#include "jobs/train/quantize.h"

/* One input of a block. */
typedef struct p4_hessian_slot {
    int64_t param;  /* the first of the matrices that read it */
    double rows;    /* of inputs: tokens, or those routed to an expert */
    double quantum; /* of the sums */
    double *h;      /* device: [cols, cols], sums; then free for other work */
} p4_hessian_slot;

typedef struct p4_hessian_sums {
    p4_compute *compute;
    const p4_original *original;
    const p4_quantize_plan *plan;
    int64_t capacity_bytes; /* of h */
    double *h;              /* device, the owner's */
    float *work;            /* device: [widest input]^2, one micro-batch's products; the owner's */
    double *h_piece;        /* host: a piece of h on its way through the sum over ranks; NULL: not needed */
    p4_hessian_slot *slots; /* [slots_most] */
    int64_t count, slots_most; /* of those collected together; of the most experts of a block */
} p4_hessian_sums;

/* Bytes of h on this rank: as many experts at once as fit into plan->h_bytes, or, where that is 0, into the
 * size of the largest block's ternary matrices in fp32; on a GPU also into room_bytes. At least one input,
 * and at most all experts. Local. */
int64_t p4_hessian_sums_bytes(const p4_compute *compute, const p4_original *original, int64_t h_bytes,
                              int64_t room_bytes);
/* The passes over the windows that sums in so many bytes take, of all blocks. Local. */
int64_t p4_hessian_sums_passes(const p4_model *model, int64_t bytes);
/* Is parameter i one of the matrices that are quantized under H? Local. */
bool p4_hessian_has(const p4_model *model, int64_t i);

/* Memory on the host. capacity_bytes, the same on every rank, h and work are the caller's. Local. */
p4_rc p4_hessian_sums_open(p4_hessian_sums *sums);
void p4_hessian_sums_close(p4_hessian_sums *sums); /* Also of zeros. Local. */
/* sums->slots = the inputs, from `param` on, that fit; *next: the first after them, -1 for none. `first` is
 * the beginning of their slot (p4_model_find). Inputs without a ternary matrix are left out. Local. */
void p4_hessian_sums_choose(p4_hessian_sums *sums, int64_t first, int64_t param, int64_t *next);
/* Their sums over all windows and ranks, on every rank, in one pass through the block. Collective. */
p4_rc p4_hessian_sums_collect(p4_hessian_sums *sums, p4_layers *layers, int64_t layer, const p4_form *form);

#endif
