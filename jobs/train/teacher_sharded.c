/* teacher_sharded.c - the micro-batches of all ranks through the original, whose layers the ranks share.
 *
 * All pass through the pipeline before any rank gets its states: a rank that waited for its own in between
 * would hold up the stage that sends them. Then one array after another goes from the rank that has it to
 * all, in the same order on every rank, so that no two wait for each other. */
#include <stdlib.h>
#include <string.h>

#include "jobs/train/teacher.h"

enum { SENDS_AT_ONCE = 8 }; /* what a group has under way at most (p4_group_isend) */

static int64_t window_bytes(const p4_teacher *t)
{
    return t->plan.T * t->original->hf.model.arch.C * t->compute->ops->act_bytes(t->compute->device);
}

static bool has_head(const p4_teacher *t)
{
    return t->original->shard.head_stage == t->compute->group->rank;
}

/* This rank's layers whose outputs are collected. */
static int64_t collected_blocks(const p4_teacher *t)
{
    const p4_shard *shard = &t->original->shard;
    int rank = t->compute->group->rank;
    return t->plan.blocks > 0 ? shard->end[rank] - shard->first[rank] : 0;
}

/* Of one array that is collected here, of all ranks' windows. */
static int64_t array_bytes(const p4_teacher *t, int64_t B)
{
    return t->compute->group->ranks * B * window_bytes(t);
}

static int64_t collected_bytes(const p4_teacher *t, int64_t B)
{
    return (collected_blocks(t) + has_head(t)) * array_bytes(t, B);
}

/* The output of a layer of this rank; layer L: the final states. */
static char *collected(const p4_teacher *t, int64_t layer)
{
    int64_t L = t->original->hf.model.arch.L, first = t->original->shard.first[t->compute->group->rank],
            at = layer == L ? collected_blocks(t) : layer - first;
    return (char *)t->shards.collected + at * array_bytes(t, t->B);
}

static p4_pipeline_plan pipeline_plan(const p4_teacher *t, int64_t B)
{
    return (p4_pipeline_plan){.B = B, .T = t->plan.T, .states_only = true, .blocks = t->plan.blocks > 0};
}

int64_t p4_teacher_shards_bytes(const p4_teacher *t, int64_t B)
{
    const p4_pipeline_plan plan = pipeline_plan(t, B);
    int64_t pipeline = p4_pipeline_bytes(t->compute, &t->original->hf.model, &t->original->shard, &plan);
    return pipeline < 0 ? -1 : pipeline + collected_bytes(t, B);
}

p4_rc p4_teacher_shards_reserve(p4_teacher *t)
{
    p4_rc rc = P4_OK;
    p4_teacher_shards *s = &t->shards;
    int64_t ranks = t->compute->group->ranks;
    const p4_pipeline_plan plan = pipeline_plan(t, t->B);
    TRY(p4_pipeline_open(&s->pipeline, t->compute, &t->original->hf.model, &t->original->shard, &plan));
    s->counts = p4_alloc((size_t)ranks, sizeof *s->counts);
    s->h_ids = p4_alloc((size_t)(ranks * t->B * t->plan.T), sizeof *s->h_ids);
    TRY(s->counts != NULL && s->h_ids != NULL ? P4_OK : P4_E_SYSTEM);
    if (collected_bytes(t, t->B) > 0) {
        TRY(t->compute->ops->alloc(t->compute->device, &s->collected, collected_bytes(t, t->B)));
    }
done:
    return rc;
}

void p4_teacher_shards_close(p4_teacher *t)
{
    p4_teacher_shards *s = &t->shards;
    p4_pipeline_close(&s->pipeline);
    if (s->collected != NULL) {
        t->compute->ops->release(t->compute->device, s->collected);
    }
    free(s->counts);
    free(s->h_ids);
    *s = (p4_teacher_shards){0};
}

/* Every rank's windows to all, one rank's after another's; how many they are. Collective. */
static int64_t gather_windows(p4_teacher *t, const int32_t *h_ids, int64_t B)
{
    p4_teacher_shards *s = &t->shards;
    p4_group *group = t->compute->group;
    int64_t T = t->plan.T, count = 0;
    for (int r = 0; r < group->ranks; r++) {
        s->counts[r] = r == group->rank ? (double)B : 0.0;
    }
    p4_group_sum_f64(group, s->counts, group->ranks);
    for (int r = 0; r < group->ranks; r++) {
        int64_t bytes = (int64_t)s->counts[r] * T * (int64_t)sizeof *s->h_ids;
        if (r == group->rank) {
            memcpy(s->h_ids + count * T, h_ids, (size_t)bytes);
        }
        if (bytes > 0) {
            p4_group_bcast(group, s->h_ids + count * T, bytes, r);
        }
        count += (int64_t)s->counts[r];
    }
    return count;
}

static void collect_block(void *user, int64_t layer, const void *states, int64_t first, int64_t B)
{
    p4_teacher *t = user;
    t->compute->ops->copy(t->compute->device, collected(t, layer) + first * window_bytes(t), states,
                          B * window_bytes(t));
}

static void collect_states(void *user, const void *states, int64_t first, int64_t B)
{
    const p4_teacher *t = user;
    collect_block(user, t->original->hf.model.arch.L, states, first, B);
}

/* To ranks [first, end) their windows of an array, which begin at window `at`; this rank's own go to `own`.
 * Where the next ones begin. */
static int64_t send_windows(p4_teacher *t, const char *array, void *own, int first, int end, int64_t at)
{
    p4_coll *coll = &t->compute->coll;
    p4_request sending[SENDS_AT_ONCE] = {0};
    coll->begin(coll);
    for (int r = first; r < end; r++) {
        int64_t windows = (int64_t)t->shards.counts[r];
        const char *from = array + at * window_bytes(t);
        if (windows > 0 && r == t->compute->group->rank) {
            t->compute->ops->copy(t->compute->device, own, from, windows * window_bytes(t));
        } else if (windows > 0) {
            sending[r - first] = coll->isend(coll, from, windows * window_bytes(t), r);
        }
        at += windows;
    }
    coll->end(coll);
    for (int i = 0; i < SENDS_AT_ONCE; i++) {
        coll->wait(coll, &sending[i]);
    }
    return at;
}

/* own = this rank's B windows of what `root` collected for `layer`. Collective. */
static void hand_out(p4_teacher *t, int64_t layer, void *own, int root, int64_t B)
{
    const p4_group *group = t->compute->group;
    p4_coll *coll = &t->compute->coll;
    int64_t at = 0;
    for (int r = 0; root == group->rank && r < group->ranks; r += SENDS_AT_ONCE) {
        int end = (int)p4_min_i64(r + SENDS_AT_ONCE, group->ranks);
        at = send_windows(t, collected(t, layer), own, r, end, at);
    }
    if (root != group->rank && B > 0) {
        coll->recv(coll, own, B * window_bytes(t), root);
        p4_coll_join(coll);
    }
}

void p4_teacher_shards_prepare(p4_teacher *t, const int32_t *h_ids, int64_t B)
{
    p4_coll *coll = &t->compute->coll;
    const p4_shard *shard = &t->original->shard;
    const int64_t L = t->original->hf.model.arch.L;
    const p4_windows windows = {.ids = t->shards.h_ids, .count = gather_windows(t, h_ids, B), .T = t->plan.T};
    const p4_pass pass = {.form = &t->form.form,
                          .windows = &windows,
                          .label = "teacher",
                          .on_states = collect_states,
                          .on_block = collect_block,
                          .user = t};
    p4_pipeline_flow(&t->shards.pipeline, &pass);
    for (int64_t l = 0; t->blocks != NULL && l < L; l++) {
        hand_out(t, l, t->blocks[l], shard->stage[l], B);
    }
    hand_out(t, L, t->states, shard->head_stage, B);
    coll->synchronize(coll, "teacher: final states");
}
