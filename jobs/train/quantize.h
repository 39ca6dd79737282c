/* quantize.h - the original's weights as ternary codes: each rank quantizes the matrices that it owns, and
 * every rank gets the codes of all. */
#ifndef P4_QUANTIZE_H
#define P4_QUANTIZE_H

#include "io/text/dataset.h"
#include "jobs/train/original.h"
#include "jobs/train/statistics.h"
#include "src/packed.h"
#include "src/quantizer.h"

typedef struct p4_quantize_plan {
    const p4_quantizer_row *quantizer;
    float threshold;                 /* where the quantizer has one */
    const p4_statistics *statistics; /* where the quantizer needs some; else NULL */
    /* Where the quantizer needs H: the windows of the calibration, how many of them pass through a block at a
     * time, and how its activations are rounded. */
    const p4_windows *windows;
    int64_t B;
    int activation_bits;
    int64_t h_bytes; /* that H of several experts may take at a time; 0: see p4_hessian_sums_bytes */
} p4_quantize_plan;

/* P4_E_STATE: the quantizer needs statistics that the plan does not have. Local. */
p4_rc p4_quantize_plan_check(const p4_quantize_plan *plan);
/* Queues codes and scales, where `codes` says, of fp32 masters of its shape on the device. opt_importance
 * [cols]: what the plan's quantizer weighs them by; opt_h_error: the figures, for which it waits. Local. */
void p4_quantize_masters(p4_compute *compute, const p4_quantize_plan *plan, const p4_weight *codes,
                         const float *master, const float *opt_importance, p4_quant_error *opt_h_error);
/* Whether the quantizer weighs the input channels of parameter i; false: all alike, as it needs no statistics
 * or calibration does not see this tensor (embedding, head). Local. */
bool p4_quantize_has_importance(const p4_quantize_plan *plan, int64_t i);
/* What it weighs them by, [cols], copied to `importance` (host memory, at least as many elements); false: all
 * alike. Local. */
bool p4_quantize_importance(const p4_quantize_plan *plan, int64_t i, int64_t cols, float *importance);

/* The device memory that quantizing takes on this rank, where every matrix has to be brought there, without
 * that of the blocks' pass (p4_hessian_plan_bytes); 0 on CPUs. Local. */
int64_t p4_quantize_bytes(p4_compute *compute, const p4_original *original, const p4_quantize_plan *plan);

/* The host memory that a backend keeps after it has quantized this rank's matrices; 0 on GPUs. Local. */
int64_t p4_quantize_scratch_bytes(p4_compute *compute, const p4_original *original,
                                  const p4_quantize_plan *plan);

/* Fills `packed`, for which it takes memory; the caller releases it, after an error too. P4_E_INPUT names a
 * tensor that is not finite or that fp16 cannot hold. P4_E_STATE: the quantizer needs statistics and there
 * are none. Collective. */
p4_rc p4_quantize_original(p4_packed *packed, p4_compute *compute, const p4_original *original,
                           const p4_quantize_plan *plan);

#endif
