/* block_trainer_state.c - what a training of blocks leaves, and taking it up again. */
#include <math.h>
#include <stdlib.h>

#include "jobs/train/block_trainer.h"

/* Local. */
static p4_rc take_entry(p4_block_trainer *t, int64_t i, const p4_packed *packed, const p4_masters *masters)
{
    p4_rc rc = P4_OK;
    const p4_ops *ops = t->compute->ops;
    const p4_weight *codes = &t->codes[i], *from = &packed->weights[p4_block_entry_of(t, i)];
    if (!t->part.params[i].ternary) {
        const float *known = masters->of[p4_block_entry_of(t, i)];
        CHECK(known != NULL,
              "reconstruction of layer %lld: the state to continue from lacks the values of %s",
              (long long)t->layer, t->part.params[i].name);
        const p4_weight value = {
            .dtype = P4_F32, .rows = t->part.params[i].rows, .cols = t->part.params[i].cols, .data = known};
        return p4_optim_set_master(&t->optim, i, &value);
    }
    ops->to_device(t->compute->device, (void *)(uintptr_t)codes->data, from->data,
                   codes->rows * p4_code_row_bytes(codes->cols));
    ops->to_device(t->compute->device, (void *)(uintptr_t)codes->scale, from->scale,
                   p4_weight_scale_count(codes) * 2);
done:
    return rc;
}

/* Local. */
static p4_rc take_all(p4_block_trainer *t, const p4_packed *packed, const p4_masters *masters)
{
    p4_rc rc = P4_OK;
    for (int64_t i = p4_block_first_entry(t); i < p4_block_end_entry(t); i++) {
        TRY(take_entry(t, i, packed, masters));
    }
    p4_block_trainer_unpack(t);
    t->compute->ops->zero(t->compute->device, t->own, sizeof *t->own);
    TRY(t->compute->ops->sync(t->compute->device));
done:
    return rc;
}

p4_rc p4_block_trainer_take(p4_block_trainer *t, int64_t layer, const p4_packed *packed,
                            const p4_masters *masters)
{
    t->layer = layer;
    p4_model_part_take(&t->part, &t->original->hf.model, layer);
    return p4_agree(t->compute->group, take_all(t, packed, masters));
}

/* --- what it leaves --------------------------------------------------------------------------- */

/* Codes, scales and figures of a ternary entry; the halves of another. Its master, where this rank is to hold
 * it. Local. */
static p4_rc store_entry(p4_block_trainer *t, int64_t i, const p4_quant_error *errors, p4_packed *packed,
                         p4_masters *masters, bool codes_only)
{
    p4_rc rc = P4_OK;
    const p4_ops *ops = t->compute->ops;
    const p4_param *p = &t->part.params[i];
    int64_t entry = p4_block_entry_of(t, i), count = p->rows * p->cols;
    bool owns = t->original->shard.owner[entry] == t->compute->group->rank;
    bool holds = masters != NULL && (!p->ternary || (owns && !codes_only));
    float *h_master = NULL, *h_own = NULL;
    if (holds) {
        h_master = p4_masters_take(masters, entry);
        TRY(h_master != NULL ? P4_OK : P4_E_SYSTEM);
    } else if (!p->ternary) {
        h_master = h_own = p4_alloc((size_t)count, sizeof *h_own);
        TRY(h_own != NULL ? P4_OK : P4_E_SYSTEM);
    }
    if (h_master != NULL) {
        ops->to_host(t->compute->device, h_master, t->optim.master + t->optim.at[i], count * 4);
    }
    if (p->ternary) {
        ops->to_host(t->compute->device, p4_packed_codes(packed, entry), t->codes[i].data,
                     p->rows * p4_code_row_bytes(p->cols));
        ops->to_host(t->compute->device, p4_packed_scale(packed, entry), t->codes[i].scale,
                     p4_param_scale_count(p) * 2);
        packed->errors[entry] = errors[i];
        CHECK(isfinite(errors[i].scale_max),
              "reconstruction: tensor %s has a row whose scale fp16 cannot hold (up to 65504); a smaller "
              "reconstruct_lr may help",
              p->name);
    } else {
        p4_weight master = {.dtype = P4_F32, .rows = p->rows, .cols = p->cols, .data = h_master};
        TRY(p4_packed_preserve(packed, entry, &master, "reconstruction", t->compute->threads));
    }
done:
    free(h_own);
    return rc;
}

static p4_rc store_all(p4_block_trainer *t, p4_quant_error *errors, p4_packed *packed, p4_masters *masters,
                       bool codes_only)
{
    p4_rc rc = P4_OK;
    TRY(errors != NULL ? P4_OK : P4_E_SYSTEM);
    p4_block_trainer_quantize(t, errors);
    TRY(t->compute->ops->sync(t->compute->device)); /* the figures are on the host from here */
    for (int64_t i = p4_block_first_entry(t); i < p4_block_end_entry(t); i++) {
        TRY(store_entry(t, i, errors, packed, masters, codes_only));
    }
done:
    return rc;
}

/* The codes of owners and rank 0's halves to every rank: the same bits, whatever the ranks compute with.
 * Collective. */
static void publish(const p4_block_trainer *t, p4_packed *packed, p4_masters *masters, bool codes_only)
{
    p4_group *group = t->compute->group;
    for (int64_t i = p4_block_first_entry(t); i < p4_block_end_entry(t); i++) {
        const p4_param *p = &t->part.params[i];
        int64_t entry = p4_block_entry_of(t, i), count = p->rows * p->cols;
        int owner = t->original->shard.owner[entry];
        if (masters != NULL && !(p->ternary && codes_only)) {
            masters->known[entry] = true;
        }
        if (group->ranks == 1) {
            continue;
        }
        if (p->ternary) {
            p4_group_bcast(group, p4_packed_codes(packed, entry), p->rows * p4_code_row_bytes(p->cols),
                           owner);
            p4_group_bcast(group, p4_packed_scale(packed, entry), p4_param_scale_count(p) * 2, owner);
            p4_group_bcast(group, &packed->errors[entry], sizeof packed->errors[entry], owner);
        } else {
            p4_group_bcast(group, p4_packed_half(packed, entry), count * 2, 0);
        }
        if (masters != NULL && !p->ternary) {
            p4_group_bcast(group, masters->of[entry], count * 4, 0);
        }
    }
}

p4_rc p4_block_trainer_commit(p4_block_trainer *t, p4_packed *packed, p4_masters *masters, bool codes_only)
{
    p4_rc rc = P4_OK;
    p4_quant_error *errors = p4_alloc((size_t)t->part.params_count, sizeof *errors);
    p4_block_ranks_share_masters(t);
    TRY_ALL(t->compute->group, store_all(t, errors, packed, masters, codes_only));
    publish(t, packed, masters, codes_only);
done:
    free(errors);
    return rc;
}
