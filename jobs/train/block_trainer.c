#include "jobs/train/block_trainer.h"

#include <math.h>
#include <stdlib.h>

/* --- memory ----------------------------------------------------------------------------------- */

static void lay_out(p4_block_trainer *t, p4_arena *arena)
{
    const p4_block_plan *plan = &t->plan;
    p4_block_codes_lay_out(t, arena); /* from the first byte on */
    t->target = p4_arena_take(arena, plan->B * plan->T * t->part.arch.C *
                                         t->compute->ops->act_bytes(t->compute->device));
    t->figures = p4_arena_take(arena, t->compute->group->ranks * (int64_t)sizeof *t->figures);
    t->result = p4_arena_take(arena, sizeof *t->result);
    t->results = p4_arena_take(arena, P4_BLOCK_STEPS_AHEAD * (int64_t)sizeof *t->results);
}

static p4_net_plan net_plan(const p4_block_plan *plan)
{
    return (p4_net_plan){.B = plan->B,
                         .T = plan->T,
                         .train = true,
                         .recompute = plan->recompute,
                         .activation_bits = plan->activation_bits};
}

/* The part and host tables. Local. */
static p4_rc open_host(p4_block_trainer *t)
{
    p4_rc rc = P4_OK;
    TRY(p4_model_part_init(&t->part, &t->original->hf.model, t->layer, t->plan.blocks));
    p4_model_part_take(&t->part, &t->original->hf.model, t->layer);
    size_t count = (size_t)t->part.params_count;
    t->form.weights = p4_alloc(count, sizeof *t->form.weights);
    t->form.vectors = p4_alloc(count, sizeof *t->form.vectors);
    t->codes = p4_alloc(count, sizeof *t->codes);
    t->dense = p4_alloc(count, sizeof *t->dense);
    t->importance = p4_alloc(count, sizeof *t->importance);
    t->runs = p4_alloc(count, sizeof *t->runs);
    t->steps = p4_alloc(4 * ((size_t)t->plan.B + 1), sizeof *t->steps);
    bool all = t->form.weights != NULL && t->form.vectors != NULL && t->codes != NULL && t->dense != NULL &&
               t->importance != NULL && t->runs != NULL && t->steps != NULL;
    TRY(all ? P4_OK : P4_E_SYSTEM);
    TRY(p4_block_ranks_open(t));
done:
    return rc;
}

static void close_host(p4_block_trainer *t)
{
    p4_block_ranks_close(t);
    free(t->form.weights);
    free(t->form.vectors);
    free(t->codes);
    free(t->dense);
    free(t->importance);
    free(t->runs);
    free(t->steps);
    p4_model_close(&t->part);
}

/* Does this rank update the entry? Masters of ternary ones are with their owners alone. */
static bool updates(const p4_block_trainer *t, int64_t i)
{
    return t->ranks.owner[i] < 0 || t->ranks.owner[i] == t->compute->group->rank;
}

/* Masters, gradients and moments of every entry in the blocks; open: with their memory. Local. */
static p4_rc open_optim(p4_block_trainer *t, bool open)
{
    p4_rc rc = P4_OK;
    bool *held = p4_alloc((size_t)t->part.params_count, sizeof *held),
         *sharded = p4_alloc((size_t)t->part.params_count, sizeof *sharded);
    TRY(held != NULL && sharded != NULL ? P4_OK : P4_E_SYSTEM);
    for (int64_t i = p4_block_first_entry(t); i < p4_block_end_entry(t); i++) {
        held[i] = true;
    }
    TRY((open ? p4_optim_open : p4_optim_lay_out)(&t->optim, t->compute->ops, t->compute->device, &t->part,
                                                  &t->plan.optim, held, sharded));
    for (int64_t i = p4_block_first_entry(t); open && i < p4_block_end_entry(t); i++) {
        held[i] = updates(t, i);
    }
    if (open) {
        p4_optim_update_only(&t->optim, held);
    }
    p4_block_ranks_order(t);
done:
    free(held);
    free(sharded);
    return rc;
}

static int64_t exact_bytes(const p4_block_trainer *t)
{
    return t->plan.exact_sums ? t->optim.count * 4 + p4_exact_sums_bytes(t->compute) : 0;
}

p4_rc p4_block_trainer_bytes(p4_block_memory *memory, p4_compute *compute, const p4_original *original,
                             int64_t layer, const p4_block_plan *plan)
{
    p4_rc rc = P4_OK;
    p4_block_trainer t = {.compute = compute, .original = original, .plan = *plan, .layer = layer};
    const p4_net_plan net = net_plan(plan);
    p4_arena count = {0};
    *memory = (p4_block_memory){0};
    TRY(open_host(&t));
    TRY(open_optim(&t, false));
    lay_out(&t, &count);
    int64_t net_bytes = p4_net_bytes(compute->ops, compute->device, &t.part, &net);
    TRY(net_bytes >= 0 ? P4_OK : P4_E_SYSTEM);
    *memory = (p4_block_memory){.optim = p4_optim_bytes(&t.optim),
                                .codes_bytes = count.used_bytes,
                                .activations_bytes = net_bytes,
                                .staging_bytes = exact_bytes(&t)};
done:
    if (t.optim.ops != NULL) {
        p4_optim_close(&t.optim);
    }
    close_host(&t);
    return rc;
}

/* Local. */
static p4_rc open_exact(p4_block_trainer *t)
{
    p4_rc rc = P4_OK;
    if (!t->plan.exact_sums) {
        return P4_OK;
    }
    t->errors = p4_alloc((size_t)p4_ceil_div(t->plan.sequences, t->plan.B), sizeof *t->errors);
    TRY(t->errors != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(t->compute->ops->alloc(t->compute->device, (void **)&t->leaf, t->optim.count * 4));
    TRY(p4_exact_sums_open(&t->sums, t->compute));
done:
    return rc;
}

static void close_exact(p4_block_trainer *t)
{
    if (t->leaf != NULL) {
        t->compute->ops->release(t->compute->device, t->leaf);
    }
    p4_exact_sums_close(&t->sums);
    free(t->errors);
}

/* Points the form to codes or what they unpack to, and to the masters of what is not ternary. */
static void view_weights(p4_block_trainer *t)
{
    int64_t each = t->compute->ops->act_bytes(t->compute->device);
    for (int64_t i = p4_block_first_entry(t); i < p4_block_end_entry(t); i++) {
        const p4_param *p = &t->part.params[i];
        p4_weight *w = &t->form.weights[i];
        *w = (p4_weight){.dtype = P4_F32, .rows = p->rows, .cols = p->cols};
        w->data = t->optim.master + t->optim.at[i];
        t->form.vectors[i] = p->vector ? t->optim.master + t->optim.at[i] : NULL;
        if (p->ternary && t->dense[i] != NULL) {
            w->dtype = each == 4 ? P4_F32 : P4_BF16;
            w->data = t->dense[i];
        } else if (p->ternary) {
            *w = t->codes[i];
        }
    }
}

static p4_rc open_memory(p4_block_trainer *t)
{
    p4_rc rc = P4_OK;
    const p4_ops *ops = t->compute->ops;
    const p4_net_plan net = net_plan(&t->plan);
    p4_arena count = {0};
    TRY(p4_quantize_plan_check(&t->plan.quantize));
    TRY(open_host(t));
    TRY(open_optim(t, true));
    TRY(p4_net_open(&t->net, ops, t->compute->device, &t->part, &net));
    lay_out(t, &count);
    t->memory_bytes = count.used_bytes;
    TRY(ops->alloc(t->compute->device, &t->memory, t->memory_bytes));
    p4_arena arena = {.base = t->memory, .capacity_bytes = t->memory_bytes};
    lay_out(t, &arena);
    t->own = &t->figures[t->compute->group->rank];
    TRY(open_exact(t));
    p4_block_codes_find_runs(t);
    view_weights(t);
done:
    return rc;
}

p4_rc p4_block_trainer_open(p4_block_trainer *t, p4_compute *compute, const p4_original *original,
                            int64_t layer, const p4_block_plan *plan)
{
    p4_rc rc = P4_OK;
    *t = (p4_block_trainer){.compute = compute, .original = original, .plan = *plan, .layer = layer};
    TRY_ALL(compute->group, open_memory(t));
    TRY(compute->coll.share(&compute->coll, t->optim.memory, t->optim.memory_bytes));
    TRY(compute->coll.share(&compute->coll, t->memory, t->memory_bytes));
done:
    if (rc != P4_OK) {
        p4_block_trainer_close(t);
    }
    return rc;
}

static void forget_all(p4_block_trainer *t)
{
    for (int64_t b = 0; t->steps != NULL && b < 4 * (t->plan.B + 1); b++) {
        t->compute->ops->forget(t->compute->device, &t->steps[b]);
    }
    t->compute->ops->forget(t->compute->device, &t->update);
    t->compute->ops->forget(t->compute->device, &t->unpack_own);
    t->compute->ops->forget(t->compute->device, &t->unpack_others);
}

void p4_block_trainer_close(p4_block_trainer *t)
{
    if (t->compute == NULL) {
        return;
    }
    p4_block_ranks_drain(t);
    forget_all(t); /* before the memory goes */
    t->compute->coll.withdraw(&t->compute->coll, t->optim.memory);
    t->compute->coll.withdraw(&t->compute->coll, t->memory);
    if (t->memory != NULL) {
        t->compute->ops->release(t->compute->device, t->memory);
    }
    close_exact(t);
    if (t->net.ops != NULL) {
        p4_net_close(&t->net);
    }
    if (t->optim.ops != NULL) {
        p4_optim_close(&t->optim);
    }
    close_host(t);
    *t = (p4_block_trainer){0};
}

bool p4_block_trainer_suits(const p4_block_trainer *t, int64_t layer, int64_t blocks)
{
    if (t->compute == NULL || blocks != t->plan.blocks) {
        return false;
    }
    const p4_model *whole = &t->original->hf.model;
    bool same = true;
    for (int64_t l = 0; l < blocks; l++) {
        same = same && p4_arch_same_layers(&whole->arch, t->layer + l, layer + l);
    }
    for (int64_t i = p4_block_first_entry(t); same && i < p4_block_end_entry(t); i++) {
        same = t->part.params[i].ternary ==
               whole->params[p4_model_part_entry(&t->part, whole, layer, i)].ternary;
    }
    return same;
}

/* --- masters ---------------------------------------------------------------------------------- */

/* Of the part's entry i the master, from `known` (NULL: the original's). Local. */
static p4_rc set_master(p4_block_trainer *t, int64_t i, const float *known)
{
    p4_weight weight = {
        .dtype = P4_F32, .rows = t->part.params[i].rows, .cols = t->part.params[i].cols, .data = known};
    return p4_optim_set_master(&t->optim, i, known != NULL ? &weight : &t->part.weights[i]);
}

static bool is_known(const p4_block_trainer *t, const p4_masters *masters, int64_t i)
{
    return masters != NULL && masters->known[p4_block_entry_of(t, i)];
}

/* Masters that an engine before this one has trained, of which a ternary one is with its owner. Collective.
 */
static p4_rc load_known(p4_block_trainer *t, const p4_masters *masters)
{
    p4_rc rc = P4_OK;
    float *h_value = NULL;
    for (int64_t i = p4_block_first_entry(t); i < p4_block_end_entry(t); i++) {
        if (is_known(t, masters, i)) {
            TRY(p4_masters_fetch(masters, t->compute->group, &t->original->shard, p4_block_entry_of(t, i),
                                 &h_value));
            TRY_ALL(t->compute->group, updates(t, i) ? set_master(t, i, h_value) : P4_OK);
            free(h_value);
            h_value = NULL;
        }
    }
done:
    free(h_value);
    return rc;
}

/* What the quantizer weighs the input channels of these blocks by. Local. */
static p4_rc load_importance(p4_block_trainer *t)
{
    bool weighs = t->plan.quantize.quantizer->needs == P4_NEEDS_DIAGONAL;
    for (int64_t i = p4_block_first_entry(t); weighs && i < p4_block_end_entry(t); i++) {
        int64_t cols = t->part.params[i].cols;
        float *h_importance = t->part.params[i].ternary ? p4_alloc((size_t)cols, sizeof *h_importance) : NULL;
        if (!t->part.params[i].ternary) {
            continue;
        }
        if (h_importance == NULL) {
            return P4_E_SYSTEM;
        }
        if (!p4_quantize_importance(&t->plan.quantize, p4_block_entry_of(t, i), cols, h_importance)) {
            for (int64_t c = 0; c < cols; c++) { /* an expert without tokens: all channels alike */
                h_importance[c] = 1.0f;
            }
        }
        t->compute->ops->to_device(t->compute->device, t->importance[i], h_importance, cols * 4);
        free(h_importance);
    }
    return P4_OK;
}

/* The original's masters of what is not known, codes of what this rank owns, and nothing summed. Local. */
static p4_rc load_original(p4_block_trainer *t, const p4_masters *masters)
{
    p4_rc rc = P4_OK;
    for (int64_t i = p4_block_first_entry(t); i < p4_block_end_entry(t); i++) {
        if (!is_known(t, masters, i) && updates(t, i)) {
            TRY(set_master(t, i, NULL));
        }
    }
    TRY(load_importance(t));
    p4_block_trainer_quantize_own(t);
    t->compute->ops->zero(t->compute->device, t->own, sizeof *t->own);
    TRY(t->compute->ops->sync(t->compute->device));
done:
    return rc;
}

p4_rc p4_block_trainer_start(p4_block_trainer *t, int64_t layer, const p4_masters *masters)
{
    p4_rc rc = P4_OK;
    p4_block_ranks_settle(t);
    t->layer = layer;
    t->bad_steps = 0;
    t->queued = 0;
    p4_model_part_take(&t->part, &t->original->hf.model, layer);
    p4_optim_restart(&t->optim);
    TRY(load_known(t, masters));
    TRY_ALL(t->compute->group, load_original(t, masters));
    p4_block_ranks_publish(t);
    p4_coll_join(&t->compute->coll);
    p4_block_trainer_unpack(t);
    p4_block_ranks_settle(t);
done:
    return rc;
}
