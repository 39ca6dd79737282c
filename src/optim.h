/* optim.h - full-precision masters and the optimizer's state: Grokfast, Muon, AdamW
 * (docs/methods.md 4).
 *
 * A rank holds some of the parameters: all replicated ones, and of the sharded ones those that it owns.
 * Everything lies in flat arrays, replicated parameters first, so that one sum covers all their gradients;
 * the parts of a slot lie together. */
#ifndef P4_OPTIM_H
#define P4_OPTIM_H

#include "kernels/ops.h"
#include "src/leaf/arena.h"
#include "src/model.h"

typedef struct p4_optim_settings {
    bool muon; /* matrices of blocks by Muon, the rest by AdamW; false: all by AdamW */
    bool grokfast;
    float ema_alpha, ema_lambda;
    float momentum, beta1, beta2, eps, weight_decay;
    float clip;      /* global norm; 0: no clipping */
    bool half_state; /* m, v, momentum and Grokfast's average in bf16, rounded at random (kernels/state.h) */
    uint64_t seed;   /* of that rounding */
    bool learn_scales; /* the scales of ternary parameters are trained too, by AdamW */
} p4_optim_settings;

/* Muon matrices of one shape, updated in one call: muon_items [first, first + count). */
typedef struct p4_muon_group {
    int64_t rows, cols;
    int64_t first, count;
} p4_muon_group;

typedef struct p4_optim {
    const p4_ops *ops;
    p4_device *device;
    const p4_model *model;
    p4_optim_settings settings;
    int64_t *at;              /* [params_count]: first element in the flat arrays, -1: not held here */
    int64_t *v_at;            /* the same in v, which only AdamW parameters have */
    uint64_t *index;          /* of its first element in the whole model: what rounding draws by */
    int64_t replicated_count; /* elements [0, replicated_count) are replicated on all ranks */
    int64_t count, v_count;
    float *master, *grad, *work;
    char *ema, *m, *v; /* state: fp32 or bf16 */
    int64_t *scale_at; /* [params_count]: first of its scales, -1: none are held or learned here. The scales
                          of parameters whose masters follow each other do so too */
    int64_t scale_count;
    float *scales, *scale_grad, *scale_m,
        *scale_v;               /* device [scale_count]; NULL: settings.learn_scales is false */
    double *sums;               /* device [2]: squares of replicated and of owned gradients */
    p4_step_numbers *numbers;   /* device: of the next grokfast or update */
    p4_muon_group *groups;      /* [groups_count], in the order in which shapes first occur */
    p4_muon_item *muon_items;   /* [muon_items_count]: held matrices, group by group, then as parameters */
    p4_adamw_item *adamw_items; /* [adamw_items_count]: all other held parameters */
    int64_t groups_count, muon_items_count, adamw_items_count;
    void *memory;
    int64_t memory_bytes;
    int64_t step; /* updates done */
} p4_optim;

/* held[i]: this rank keeps parameter i; sharded[i]: only its owner does. Memory is one device block; masters
 * undefined until p4_optim_set_master, the rest zero. The caller closes. Local. */
p4_rc p4_optim_open(p4_optim *optim, const p4_ops *ops, p4_device *device, const p4_model *model,
                    const p4_optim_settings *settings, const bool *held, const bool *sharded);
/* The layout alone: where everything would lie, memory_bytes, and no device memory. The caller closes. Local.
 */
p4_rc p4_optim_lay_out(p4_optim *optim, const p4_ops *ops, p4_device *device, const p4_model *model,
                       const p4_optim_settings *settings, const bool *held, const bool *sharded);
void p4_optim_close(p4_optim *optim);

/* Bytes of device memory by purpose; together memory_bytes. */
typedef struct p4_optim_memory {
    int64_t masters, gradients;
    int64_t state; /* moments and Grokfast's average */
    int64_t work;  /* Muon's matrices at work; padding */
} p4_optim_memory;
p4_optim_memory p4_optim_bytes(const p4_optim *optim);
static inline int64_t p4_optim_memory_sum(const p4_optim_memory *bytes)
{
    return bytes->masters + bytes->gradients + bytes->state + bytes->work;
}

/* From here on p4_optim_update changes parameter i only if updated[i]: another rank, which holds it too,
 * updates it. Requires settings without muon. Local. */
void p4_optim_update_only(p4_optim *optim, const bool *updated);

/* As after p4_optim_open: for other parameters of the same shapes. Local. */
void p4_optim_restart(p4_optim *optim);

/* master of a held parameter = weight, in host memory and of floating-point numbers. Before the first
 * gradient: what the file holds goes through the gradient's memory, which is zero afterwards. Local. */
p4_rc p4_optim_set_master(p4_optim *optim, int64_t param, const p4_weight *weight);

/* The functions below queue the same ops with the same arguments at every step, so that a device may replay
 * them (op `repeat`), except the p4_optim_put_..., which copy the numbers of a step to the device first.
 * All Local. */

/* sums = the squares of the replicated and of the owned gradients here. */
void p4_optim_sq_norms(p4_optim *optim);
/* The low-pass filter on every held gradient; its average starts at the first gradient. */
void p4_optim_put_grokfast(p4_optim *optim);
void p4_optim_grokfast(p4_optim *optim);
/* One update of everything held with gradients multiplied by g_scale (clipping), learned scales by those in
 * scale_grad. `put` counts the step. */
void p4_optim_put_update(p4_optim *optim, float lr, float g_scale);
void p4_optim_update(p4_optim *optim);
/* The same where the device clips: gradients are divided by `divisor`, and p4_optim_clip, from sums[0] and
 * what `ranks` ranks have found (op `clip`), scales them to settings.clip before p4_optim_update. If they are
 * not finite AdamW leaves all as it is; `put` has counted the step even so. */
void p4_optim_put_unclipped(p4_optim *optim, float lr, double divisor);
void p4_optim_clip(p4_optim *optim, const p4_clip_figures *figures, int64_t ranks, p4_clip_result *result);

/* lr of step `step` (from 0) of `steps`: linear warm-up over `warmup`, then linear to final_fraction * peak.
 * Local. */
double p4_schedule_lr(double peak, double final_fraction, int64_t warmup, int64_t step, int64_t steps);

#endif
