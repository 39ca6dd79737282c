/* quantize.h - the original's weights as ternary codes: each rank quantizes the matrices that it owns, and
 * every rank gets the codes of all. */
#ifndef P4_QUANTIZE_H
#define P4_QUANTIZE_H

#include "jobs/train/original.h"
#include "src/packed.h"

typedef struct p4_quantize_plan {
    p4_quant_method method;
    float threshold; /* of absmean */
} p4_quantize_plan;

/* Fills `packed`, for which it takes memory; the caller releases it, after an error too. P4_E_INPUT names a
 * tensor that is not finite or that fp16 cannot hold. Collective. */
p4_rc p4_quantize_original(p4_packed *packed, const p4_compute *compute, const p4_original *original,
                           const p4_quantize_plan *plan);

#endif
