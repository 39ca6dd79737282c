/* trainer.h - one data-parallel training step of the ternary model (DESIGN 1): every rank runs the whole model on its own
 * sequences with ternary weights; owners hold FP32 masters and optimizer state.
 *
 * zero_stage 2: the gradient of a block matrix is summed to its owner, which updates the master, requantizes and publishes
 * codes. zero_stage 0: everything is replicated and every gradient is summed to all. */
#ifndef P4_TRAINER_H
#define P4_TRAINER_H

#include "job.h"
#include "optim.h"

typedef struct p4_trainer {
    p4_job *job;
    p4_net net;
    p4_optim optim;
    p4_form form;              /* what the forward pass uses: live codes; masters of what is not ternary */
    bool *sharded;             /* [params_count]: only the owner holds the master */
    char *codes;               /* device: codes and scales, sharded ones grouped by owner */
    int64_t *owner_first;      /* [ranks + 1]: bytes [owner_first[r], owner_first[r+1]) of codes belong to rank r */
    int64_t codes_bytes;
    float *slot_grad;          /* device: gradient of one slot on its way to its owners */
    int64_t slot_count;
    int32_t *h_ids;            /* [micro_batch, T] */
    int64_t micro_batch, T, sequences; /* sequences a step over all ranks */
    uint64_t *order;           /* [windows]: this epoch's permutation */
    int64_t order_epoch;
    int64_t steps_per_epoch, steps;
    int bad_steps;             /* non-finite steps in a row */
} p4_trainer;

typedef struct p4_step_result {
    double loss, grad_norm, lr, seconds;
    int64_t tokens;
    bool applied; /* false: the gradient was not finite and the step was skipped */
} p4_step_result;

/* Masters from the original's files, codes from them. The caller closes. Collective. */
p4_rc p4_trainer_open(p4_trainer *trainer, p4_job *job);
void p4_trainer_close(p4_trainer *trainer);
/* Runs step `step` (from 0). Collective. */
p4_rc p4_trainer_step(p4_trainer *trainer, int64_t step, p4_step_result *result);
/* The current state as it will be stored: codes, scales, halves and error figures, on every rank. Collective. */
p4_rc p4_trainer_commit(p4_trainer *trainer, p4_packed *compressed);

/* Bytes of device memory by purpose, for the memory report. */
typedef struct p4_trainer_memory {
    int64_t masters_bytes, codes_bytes, activations_bytes;
} p4_trainer_memory;
p4_trainer_memory p4_trainer_bytes(const p4_trainer *trainer);

/* Requantizes what this rank holds and gives every rank the owners' codes. Collective. */
void p4_trainer_publish(p4_trainer *trainer, p4_quant_error *h_errors);

#endif
