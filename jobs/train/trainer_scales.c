/* trainer_scales.c - scales that are trained beside the masters (key learn_scales; docs/methods.md 3.3). A
 * scale lies with the master of its weights. Its gradient follows from theirs, which the rank then has:
 * nothing more is sent between ranks, and the numbers do not depend on how the masters are divided. */
#include <stdlib.h>

#include "jobs/train/trainer.h"

/* The scales that the codes of a run have. Local. */
static p4_rc take_scales(p4_trainer *t, const p4_code_run *run)
{
    p4_rc rc = P4_OK;
    const p4_ops *ops = t->compute->ops;
    const int64_t count = p4_weight_scale_count(&run->codes);
    uint16_t *h_scale = p4_alloc((size_t)count, sizeof *h_scale);
    float *h_learned = p4_alloc((size_t)count, sizeof *h_learned);
    TRY(h_scale != NULL && h_learned != NULL ? P4_OK : P4_E_SYSTEM);
    ops->to_host(t->compute->device, h_scale, run->codes.scale, count * (int64_t)sizeof *h_scale);
    TRY(ops->sync(t->compute->device));
    for (int64_t s = 0; s < count; s++) {
        h_learned[s] = p4_f16_to_f32(h_scale[s]);
    }
    ops->to_device(t->compute->device, run->learned, h_learned, count * (int64_t)sizeof *h_learned);
done:
    free(h_scale);
    free(h_learned);
    return rc;
}

p4_rc p4_trainer_start_scales(p4_trainer *t)
{
    p4_rc rc = P4_OK;
    for (int64_t r = 0; r < t->codes.runs_count; r++) {
        const p4_code_run *run = &t->codes.runs[r];
        if (run->learned != NULL) {
            p4_code_run plain = *run;
            plain.learned = NULL;
            p4_trainer_quantize_run(t, &plain, NULL);
            TRY(take_scales(t, run));
        }
    }
done:
    return rc;
}

void p4_trainer_scale_gradients(p4_trainer *t)
{
    const p4_optim *o = &t->optim;
    for (int64_t r = 0; r < t->codes.runs_count; r++) {
        const p4_code_run *run = &t->codes.runs[r];
        if (run->learned != NULL) {
            o->ops->scale_gradient(o->device, o->scale_grad + (run->learned - o->scales),
                                   o->grad + (run->master - o->master), &run->codes);
        }
    }
}
