/* hessian.h - the matrices of the blocks quantized under H = X'X / N of their inputs: GPTQ, and coordinate
 * descent after it (docs/methods.md 1).
 *
 * Blocks follow one another (jobs/train/layers.h), each fed by the ternary blocks before it. Within a block
 * the slots follow one another: q | k | v, o, gate | up, down, each with H of the inputs that the ternary
 * slots before it produce. Experts do not depend on one another: a pass over the windows collects H of as
 * many of them as there is memory for (hessian_sums.h). All ranks sum H; the owner of a matrix solves it; all
 * ranks get its codes. */
#ifndef P4_HESSIAN_H
#define P4_HESSIAN_H

#include "jobs/train/quantize.h"

/* Fills what `packed` holds of the blocks' ternary matrices, on every rank. The plan has windows and
 * statistics. P4_E_INPUT: inputs of a slot that are not finite, a scale that fp16 cannot hold. Collective. */
p4_rc p4_hessian_quantize_blocks(p4_packed *packed, p4_compute *compute, const p4_original *original,
                                 const p4_quantize_plan *plan);
/* What this takes on this rank beside a layer-major pass (layers.h): bytes of device memory, for the sums of
 * H and for the rest, and passes over the windows of the calibration, of all blocks. */
typedef struct p4_hessian_memory {
    int64_t sums, others, passes;
} p4_hessian_memory;
/* h_bytes: as in p4_quantize_plan. room_bytes: of a GPU's memory, what is left beside that pass. Local. */
p4_hessian_memory p4_hessian_plan_bytes(const p4_compute *compute, const p4_original *original,
                                        int64_t h_bytes, int64_t room_bytes);

#endif
