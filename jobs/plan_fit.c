/* plan_fit.c - what fits: all ranks of a plan, and the fewest ranks. */
#include <stdlib.h>

#include "jobs/plan.h"
#include "jobs/train/layers.h"

/* --- all ranks --------------------------------------------------------------------------------- */

static uint64_t mix(uint64_t hash, uint64_t value)
{
    hash ^= value + 0x9e3779b97f4a7c15u + (hash << 6) + (hash >> 2);
    return hash * 0xff51afd7ed558ccdu;
}

/* Of every rank: the tensors that it owns, and those of the blocks that it runs. A model may have tens of
 * thousands of tensors, and the ranks be a thousand: one pass over the tensors for all. */
static void mix_tensors(uint64_t *hashes, const p4_plan_input *in)
{
    const p4_model *model = &in->original->hf.model;
    const p4_shard *shard = &in->original->shard;
    for (int64_t i = 0; i < model->params_count; i++) {
        const p4_param *p = &model->params[i];
        int owner = shard->owner[i], runner = p->layer >= 0 ? shard->stage[p->layer] : owner;
        const int ranks[] = {owner, runner};
        for (int k = 0; k < (runner != owner ? 2 : 1); k++) {
            bool owns = ranks[k] == owner, runs = p->layer >= 0 && ranks[k] == runner;
            uint64_t *hash = &hashes[ranks[k]];
            *hash =
                mix(*hash, (uint64_t)p->role << 3 | (uint64_t)p->ternary << 2 | (uint64_t)owns << 1 | runs);
            *hash = mix(*hash, (uint64_t)p->rows << 32 | (uint64_t)p->cols);
        }
    }
}

static uint64_t mix_windows(uint64_t hash, int64_t windows, int64_t B, int rank, int ranks)
{
    int64_t count = p4_layers_first(windows, B, rank + 1, ranks) - p4_layers_first(windows, B, rank, ranks);
    return mix(hash, (uint64_t)count);
}

/* What a rank's memory depends on: ranks with the same number have the same plan. tensors: mix_tensors of
 * this rank; first: the plan of rank 0, from which come the sizes of micro-batches, the same on every rank.
 */
static uint64_t kind_of_rank(const p4_plan_input *in, uint64_t tensors, const p4_rank_plan *first, int rank,
                             int ranks)
{
    const p4_shard *shard = &in->original->shard;
    const p4_config *c = in->config;
    int64_t calibration = in->windows.calibration,
            reconstruct = p4_settings_reconstruct_windows(c, c->calibration_sequence_length);
    uint64_t hash = mix((uint64_t)(shard->end[rank] - shard->first[rank]), shard->head_stage == rank);
    hash = mix(hash, shard->end[rank] > shard->first[rank] && shard->first[rank] == 0);
    hash = mix(hash, rank == 0);
    hash = mix_windows(hash, calibration, c->calibration_batch_size, rank, ranks);
    if (first->runs[P4_PLAN_RECONSTRUCT]) {
        hash = mix_windows(hash, p4_min_i64(reconstruct, calibration), first->reconstruct_pass_batch, rank,
                           ranks);
    }
    return mix(hash, tensors);
}

/* The plan of one rank of so many. Local. */
static p4_rc plan_rank(p4_rank_plan *plan, const p4_plan_input *in, int rank, int ranks, int per_node)
{
    p4_group group = *in->compute->group;
    p4_compute compute = *in->compute;
    p4_plan_input own = *in;
    group.rank = rank;
    group.ranks = ranks;
    group.local_rank = rank % per_node;
    group.local_ranks = ranks < per_node ? ranks : per_node;
    compute.group = &group;
    own.compute = &compute;
    return p4_plan_rank_memory(plan, &own);
}

/* The same until a rank does not fit where that is all that is asked. */
static p4_rc plan_ranks(p4_plan *plan, const p4_plan_input *in, bool only_fitting)
{
    p4_rc rc = P4_OK;
    int ranks = plan->ranks;
    uint64_t *kinds = p4_alloc((size_t)ranks, sizeof *kinds),
             *tensors = p4_alloc((size_t)ranks, sizeof *tensors);
    free(plan->rank_plans);
    plan->rank_plans_count = 0;
    plan->rank_plans = p4_alloc((size_t)ranks, sizeof *plan->rank_plans);
    TRY(kinds != NULL && tensors != NULL && plan->rank_plans != NULL ? P4_OK : P4_E_SYSTEM);
    plan->rank_plans_count = 1;
    TRY(plan_rank(&plan->rank_plans[0], in, 0, ranks, plan->ranks_per_node));
    mix_tensors(tensors, in);
    kinds[0] = kind_of_rank(in, tensors[0], &plan->rank_plans[0], 0, ranks);
    bool goes_on = !only_fitting || p4_plan_fits(plan);
    for (int rank = 1; rank < ranks && goes_on; rank++) {
        uint64_t kind = kind_of_rank(in, tensors[rank], &plan->rank_plans[0], rank, ranks);
        int64_t at = 0;
        while (at < plan->rank_plans_count && kinds[at] != kind) {
            at++;
        }
        if (at < plan->rank_plans_count) {
            plan->rank_plans[at].alike++;
            continue;
        }
        kinds[at] = kind;
        plan->rank_plans_count++;
        TRY(plan_rank(&plan->rank_plans[at], in, rank, ranks, plan->ranks_per_node));
        goes_on = !only_fitting || p4_plan_fits(plan);
    }
done:
    free(kinds);
    free(tensors);
    return rc;
}

p4_rc p4_plan_ranks(p4_plan *plan, const p4_plan_input *in)
{
    return plan_ranks(plan, in, false);
}

double p4_plan_node_needs(const p4_plan *plan)
{
    double most = 0, bytes;
    for (int64_t i = 0; i < plan->rank_plans_count; i++) {
        (void)p4_rank_plan_peak(&plan->rank_plans[i], false, &bytes);
        most = bytes > most ? bytes : most;
    }
    return (most + plan->process_bytes) * p4_plan_node_ranks(plan);
}

bool p4_plan_fits(const p4_plan *plan)
{
    for (int64_t i = 0; i < plan->rank_plans_count; i++) {
        double bytes;
        (void)p4_rank_plan_peak(&plan->rank_plans[i], plan->on_gpu, &bytes);
        bytes += plan->reserve_bytes + (plan->on_gpu ? 0 : plan->process_bytes);
        if (bytes > plan->room_bytes) {
            return false;
        }
    }
    return plan->node_bytes == 0 || p4_plan_node_needs(plan) <= plan->node_bytes;
}

/* --- how many ranks ---------------------------------------------------------------------------- */

p4_rc p4_plan_try(void *user, const p4_config *config, bool *fits)
{
    p4_plan_trial *t = user;
    p4_plan_input in = *t->in;
    in.config = config;
    in.windows = p4_plan_windows_within(in.windows, config);
    p4_rc rc = plan_ranks(&t->plan, &in, true);
    *fits = rc == P4_OK && p4_plan_fits(&t->plan);
    return rc;
}

/* With values that a run on so many ranks may choose. */
static p4_rc fits_on(p4_plan_trial *t, p4_original *original, int64_t ranks, bool *fits)
{
    p4_rc rc = P4_OK;
    t->plan.ranks = (int)ranks;
    if (t->plan.room_of_node) {
        t->plan.room_bytes = t->plan.node_bytes / p4_plan_node_ranks(&t->plan);
    }
    p4_shard_free(&original->shard);
    TRY(p4_original_shard(original, (int)ranks));
    TRY(p4_plan_can_fit(t->in->config, (int)ranks, p4_plan_try, t, fits));
done:
    return rc;
}

/* By doubling, then by halving the interval: more ranks need less each. */
p4_rc p4_plan_least_ranks(p4_plan *plan, p4_original *original, const p4_plan_input *in, int64_t most)
{
    p4_rc rc = P4_OK;
    p4_plan_trial t = {.plan = *plan, .in = in};
    int64_t low = 0, high = 1; /* low does not fit */
    bool fits = false;
    t.plan.rank_plans = NULL;
    plan->least_ranks = 0;
    plan->most_tried = most;
    TRY(fits_on(&t, original, high, &fits));
    while (!fits && high < most) {
        low = high;
        high = p4_min_i64(2 * high, most);
        TRY(fits_on(&t, original, high, &fits));
    }
    while (fits && high - low > 1) {
        int64_t middle = (low + high) / 2;
        bool enough = false;
        TRY(fits_on(&t, original, middle, &enough));
        low = enough ? low : middle;
        high = enough ? middle : high;
    }
    plan->least_ranks = fits ? high : 0;
    p4_shard_free(&original->shard);
    TRY(p4_original_shard(original, plan->ranks));
done:
    p4_plan_free(&t.plan);
    return rc;
}
