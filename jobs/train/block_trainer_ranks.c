/* block_trainer_ranks.c - what the ranks that train blocks exchange in a step.
 *
 * Gradients: the sum of a slot is called when the last micro-batch's backward pass is done with it, so that
 * it runs beside the rest of that pass. Vectors end with the pass and are one sum behind it. A rank without
 * windows sums zeros, in the same order.
 *
 * Updates: a ternary entry is updated and quantized by its owner, whose codes all ranks then get. Masters of
 * the others are out of date until p4_block_ranks_share_masters. Owners differ from the run's, who have whole
 * blocks: here every rank is to have its share of each block. */
#include <stdlib.h>
#include <string.h>

#include "jobs/train/block_trainer.h"

/* The slots of a block, in the order in which the backward pass completes them. */
static const p4_role roles[] = {P4_ROLE_DOWN, P4_ROLE_UP, P4_ROLE_O, P4_ROLE_QKV};
enum {
    ROLES = sizeof roles / sizeof roles[0],
    LINE = 16 /* elements: 64 bytes */
};

static int64_t elements(const p4_block_trainer *t, int64_t i)
{
    return t->part.params[i].rows * t->part.params[i].cols;
}

/* The largest ternary entry without an owner; -1: there is none. */
static int64_t largest_left(const p4_block_trainer *t)
{
    int64_t largest = -1;
    for (int64_t i = p4_block_first_entry(t); i < p4_block_end_entry(t); i++) {
        bool left = t->part.params[i].ternary && t->ranks.owner[i] < 0;
        largest = left && (largest < 0 || elements(t, i) > elements(t, largest)) ? i : largest;
    }
    return largest;
}

/* The largest entries first, each to the rank with the fewest elements so far. */
static void choose_owners(p4_block_trainer *t, int64_t *load)
{
    for (int64_t i; (i = largest_left(t)) >= 0;) {
        int best = 0;
        for (int r = 1; r < t->compute->group->ranks; r++) {
            best = load[r] < load[best] ? r : best;
        }
        t->ranks.owner[i] = best;
        load[best] += elements(t, i);
    }
}

p4_rc p4_block_ranks_open(p4_block_trainer *t)
{
    p4_rc rc = P4_OK;
    p4_block_ranks *r = &t->ranks;
    size_t params = (size_t)t->part.params_count, ranks = (size_t)t->compute->group->ranks;
    int64_t *load = p4_alloc(ranks, sizeof *load);
    r->owner = p4_alloc(params, sizeof *r->owner);
    r->owner_first = p4_alloc(ranks + 1, sizeof *r->owner_first);
    r->slots = p4_alloc((size_t)(ROLES * t->part.arch.L), sizeof *r->slots);
    r->complete = p4_alloc(params, sizeof *r->complete);
    TRY(load != NULL && r->owner != NULL && r->owner_first != NULL && r->slots != NULL && r->complete != NULL
            ? P4_OK
            : P4_E_SYSTEM);
    for (size_t i = 0; i < params; i++) {
        r->owner[i] = -1;
    }
    choose_owners(t, load);
done:
    free(load);
    return rc;
}

void p4_block_ranks_close(p4_block_trainer *t)
{
    free(t->ranks.owner);
    free(t->ranks.owner_first);
    free(t->ranks.slots);
    free(t->ranks.complete);
}

/* Elements of the gradients of the slot, with what may lie between its parts, which is 0. */
static int64_t slot_count(const p4_block_trainer *t, int64_t first)
{
    int64_t last = first + p4_model_parts(&t->part, first) - 1;
    return t->optim.at[last] + elements(t, last) - t->optim.at[first];
}

void p4_block_ranks_order(p4_block_trainer *t)
{
    p4_block_ranks *r = &t->ranks;
    int64_t slot = 0;
    r->vectors = t->optim.count;
    for (int64_t l = t->part.arch.L - 1; l >= 0; l--) {
        for (int s = 0; s < ROLES; s++) {
            int64_t first = r->slots[slot++] = p4_model_find(&t->part, roles[s], l);
            r->vectors = p4_min_i64(r->vectors, t->optim.at[first]);
        }
    }
    r->slots_count = slot;
}

void p4_block_ranks_settle(p4_block_trainer *t)
{
    p4_coll *coll = &t->compute->coll;
    coll->wait_for(coll, t->ranks.published, "reconstruction: new codes");
}

void p4_block_ranks_keep_up(p4_block_trainer *t)
{
    p4_coll *coll = &t->compute->coll;
    int64_t mark = t->plan.host_inputs ? t->ranks.published : t->ranks.published_before;
    coll->wait_for(coll, mark, "reconstruction: new codes");
}

void p4_block_ranks_drain(p4_block_trainer *t)
{
    p4_coll *coll = &t->compute->coll;
    if (coll->mark != NULL) { /* it is open */
        coll->wait_for(coll, coll->mark(coll), "reconstruction: the last sums and codes");
    }
}

/* What a backward pass does not write is added to. */
void p4_block_ranks_begin(p4_block_trainer *t)
{
    p4_block_ranks *r = &t->ranks;
    const p4_ops *ops = t->compute->ops;
    ops->zero(t->compute->device, t->optim.grad, (t->rounds_count > 0 ? r->vectors : t->optim.count) * 4);
    memset(r->complete, 0, (size_t)t->part.params_count * sizeof *r->complete);
    r->sent = 0;
}

/* Sums the slots that are complete, up to the first that is not. */
static void send_slots(p4_block_trainer *t)
{
    p4_block_ranks *r = &t->ranks;
    p4_coll *coll = &t->compute->coll;
    for (; r->sent < r->slots_count && r->complete[r->slots[r->sent]]; r->sent++) {
        int64_t first = r->slots[r->sent], count = slot_count(t, first);
        float *gradient = t->optim.grad + t->optim.at[first];
        r->squared = coll->sum_and_square_f32(coll, gradient, count, &t->own->squares);
        if (!r->squared) {
            coll->sum_f32(coll, gradient, count);
        }
    }
}

void p4_block_ranks_ready(void *user, int64_t first)
{
    p4_block_trainer *t = user;
    t->ranks.complete[first] = true;
    send_slots(t);
}

/* The squares of this rank's share of the matrices, where sums do not give them. */
static void add_squares(p4_block_trainer *t)
{
    p4_optim *o = &t->optim;
    int64_t vectors = t->ranks.vectors, ranks = t->compute->group->ranks,
            share = p4_ceil_div(p4_ceil_div(o->count - vectors, ranks), LINE) * LINE,
            first = p4_min_i64(o->count, vectors + share * t->compute->group->rank);
    p4_coll_join(&t->compute->coll);
    o->ops->add_sq_norm(o->device, &t->own->squares, o->grad + first, p4_min_i64(share, o->count - first));
}

void p4_block_ranks_sum(p4_block_trainer *t)
{
    p4_block_ranks *r = &t->ranks;
    p4_optim *o = &t->optim;
    p4_coll *coll = &t->compute->coll;
    for (int64_t s = r->sent; s < r->slots_count; s++) {
        r->complete[r->slots[s]] = true;
    }
    send_slots(t);
    if (!r->squared) {
        add_squares(t);
    }
    o->ops->zero(o->device, o->sums, sizeof *o->sums);
    coll->begin(coll); /* one launch */
    coll->sum_f32(coll, o->grad, r->vectors);
    coll->all_gather(coll, t->figures, sizeof *t->figures);
    coll->end(coll);
}

void p4_block_ranks_join(p4_block_trainer *t)
{
    p4_optim *o = &t->optim;
    p4_coll_join(&t->compute->coll);
    o->ops->add_sq_norm(o->device, &o->sums[0], o->grad, t->ranks.vectors);
}

void p4_block_ranks_publish(p4_block_trainer *t)
{
    const p4_block_ranks *r = &t->ranks;
    p4_coll *coll = &t->compute->coll;
    if (t->compute->group->ranks == 1) {
        return;
    }
    if (r->owner_first[t->compute->group->ranks] > 0) {
        coll->begin(coll); /* one launch: every owner sends at once */
        for (int rank = 0; rank < t->compute->group->ranks; rank++) {
            int64_t first = r->owner_first[rank], bytes = r->owner_first[rank + 1] - first;
            if (bytes > 0) {
                coll->bcast(coll, (char *)t->memory + first, bytes, rank);
            }
        }
        coll->end(coll);
    }
    t->ranks.published_before = t->ranks.published;
    t->ranks.published = coll->mark(coll);
}

void p4_block_ranks_share_masters(p4_block_trainer *t)
{
    p4_coll *coll = &t->compute->coll;
    if (t->compute->group->ranks == 1) {
        return;
    }
    coll->begin(coll);
    for (int64_t i = p4_block_first_entry(t); i < p4_block_end_entry(t); i++) {
        if (t->ranks.owner[i] >= 0) {
            coll->bcast(coll, t->optim.master + t->optim.at[i], elements(t, i) * 4, t->ranks.owner[i]);
        }
    }
    coll->end(coll);
    coll->synchronize(coll, "reconstruction of layer %lld: new masters", (long long)t->layer);
}
