/* teacher_sharded.c - the micro-batches of all ranks through the original, whose layers the ranks share.
 *
 * All pass through the pipeline before any rank gets its states: a rank that waited for its own in between
 * would hold up the stage that sends them. */
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

static int64_t collected_bytes(const p4_teacher *t, int64_t B)
{
    return has_head(t) ? t->compute->group->ranks * B * window_bytes(t) : 0;
}

int64_t p4_teacher_shards_bytes(const p4_teacher *t, int64_t B)
{
    p4_net_plan plan = {.B = B, .T = t->plan.T};
    int64_t net = p4_net_bytes(t->compute->ops, t->compute->device, &t->original->hf.model, &plan);
    return net < 0 ? -1 : net + 3 * B * window_bytes(t) + collected_bytes(t, B); /* 2 of the pipeline's */
}

p4_rc p4_teacher_shards_reserve(p4_teacher *t)
{
    p4_rc rc = P4_OK;
    p4_teacher_shards *s = &t->shards;
    int64_t ranks = t->compute->group->ranks;
    const p4_pipeline_plan plan = {.B = t->B, .T = t->plan.T, .states_only = true};
    TRY(p4_pipeline_open(&s->pipeline, t->compute, &t->original->hf.model, &t->original->shard, &plan));
    s->counts = p4_alloc((size_t)ranks, sizeof *s->counts);
    s->h_ids = p4_alloc((size_t)(ranks * t->B * t->plan.T), sizeof *s->h_ids);
    TRY(s->counts != NULL && s->h_ids != NULL ? P4_OK : P4_E_SYSTEM);
    if (has_head(t)) {
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

static void collect(void *user, const void *states, int64_t first, int64_t B)
{
    p4_teacher *t = user;
    t->compute->ops->copy(t->compute->device, (char *)t->shards.collected + first * window_bytes(t), states,
                          B * window_bytes(t));
}

/* On the head's rank: sends the states of ranks [first, end), which begin at window `at`; where the next ones
 * begin. */
static int64_t send_states(p4_teacher *t, int first, int end, int64_t at)
{
    p4_coll *coll = &t->compute->coll;
    p4_request sending[SENDS_AT_ONCE] = {0};
    coll->begin(coll);
    for (int r = first; r < end; r++) {
        int64_t windows = (int64_t)t->shards.counts[r];
        const char *from = (const char *)t->shards.collected + at * window_bytes(t);
        if (windows > 0 && r == t->compute->group->rank) {
            t->compute->ops->copy(t->compute->device, t->states, from, windows * window_bytes(t));
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

void p4_teacher_shards_prepare(p4_teacher *t, const int32_t *h_ids, int64_t B)
{
    p4_coll *coll = &t->compute->coll;
    int64_t at = 0;
    const p4_windows windows = {.ids = t->shards.h_ids, .count = gather_windows(t, h_ids, B), .T = t->plan.T};
    const p4_pass pass = {
        .form = &t->form.form, .windows = &windows, .label = "teacher", .on_states = collect, .user = t};
    p4_pipeline_flow(&t->shards.pipeline, &pass);
    if (has_head(t)) {
        for (int r = 0; r < t->compute->group->ranks; r += SENDS_AT_ONCE) {
            at = send_states(t, r, (int)p4_min_i64(r + SENDS_AT_ONCE, t->compute->group->ranks), at);
        }
    } else if (B > 0) {
        coll->recv(coll, t->states, B * window_bytes(t), t->original->shard.head_stage);
        p4_coll_join(coll);
    }
    coll->synchronize(coll, "teacher: final states");
}
