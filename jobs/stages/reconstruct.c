#include "jobs/train/reconstruct.h"

#include "jobs/keep.h"
#include "jobs/metrics.h"
#include "jobs/resume.h"
#include "jobs/stages/stages.h"
#include "src/leaf/count.h"

static p4_rc keep_blocks(void *user, const p4_block_loss *loss)
{
    return p4_metrics_add_blocks(user, loss);
}

static bool is_save_due(void *user)
{
    return p4_resume_is_due(user, 0);
}

static p4_rc save(void *user, bool stops)
{
    return stops ? p4_keep_stopped(user, NULL, NULL) : p4_resume_save_or_warn(user);
}

/* Is what is ternary trained further, from masters? */
static bool keeps_masters(const p4_config *c)
{
    return c->enable_fine_tuning || p4_quantizers[c->quantizer].needs == P4_NEEDS_HESSIAN;
}

p4_rc p4_stage_reconstruct(p4_run *run)
{
    p4_rc rc = P4_OK;
    const p4_config *c = &run->config;
    const p4_windows *windows = &run->reconstruction;
    p4_group *group = run->compute.group;
    char count[P4_COUNT_BYTES], steps[P4_COUNT_BYTES], set[P4_BLOCK_SET_BYTES];
    if (windows->count == 0) {
        INFO("      off (%s)", !c->reconstruct             ? "reconstruct is false"
                               : !p4_settings_quantizes(c) ? "quantizer is \"none\""
                               : c->init == P4_INIT_RANDOM ? "init is \"random\""
                                                           : "calibration_samples is 0");
        return P4_OK;
    }
    p4_reconstruct_plan plan = p4_settings_reconstruct(c, windows->count, windows->T, &run->statistics);
    plan.codes_only = !keeps_masters(c);
    plan.on_blocks = keep_blocks;
    plan.is_save_due = is_save_due;
    plan.save = save;
    plan.user = run;
    if (!run->compute.ops->host_memory) {
        p4_original_unload(&run->original); /* its memory is for training; blocks are read from the files */
    }
    INFO("      %s step%s per %s, of %lld x %lld tokens each, out of %s window%s",
         p4_format_count(steps, plan.steps), p4_plural(plan.steps),
         p4_block_set(set, p4_min_i64(plan.blocks, run->original.hf.model.arch.L)),
         (long long)p4_min_i64(plan.sequences, windows->count), (long long)windows->T,
         p4_format_count(count, windows->count), p4_plural(windows->count));
    if (run->masters.of == NULL) {
        TRY_ALL(group, p4_masters_open(&run->masters, &run->original.hf.model));
    }
    TRY(p4_reconstruct(&run->compute, &run->original, windows, &plan, &run->packed, &run->masters,
                       &run->results.reconstruction));
done:
    return rc;
}
