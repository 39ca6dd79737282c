/* teacher_cache_bytes.c - what making the file of a cached teacher takes (teacher_cache.c). */
#include "jobs/train/teacher.h"

enum { HOST_TOKENS = 2048, DEVICE_TOKENS = 16384 }; /* of a micro-batch of the pass */

/* Ids and log-probabilities of B windows. */
int64_t p4_teacher_cache_bytes(const p4_teacher *t, int64_t B)
{
    return B * t->plan.T * (2 * t->plan.top_k + 1) * 4;
}

/* The pass's micro-batches. */
p4_pipeline_plan p4_teacher_cache_pass(const p4_teacher *t)
{
    int64_t tokens = t->compute->ops->host_memory ? HOST_TOKENS : DEVICE_TOKENS;
    return (p4_pipeline_plan){.B = p4_max_i64(1, tokens / t->plan.T), .T = t->plan.T, .states_only = true};
}

/* Rows of logits at a time. */
int64_t p4_teacher_cache_rows(const p4_teacher *t, int64_t B)
{
    const p4_ops *ops = t->compute->ops;
    int64_t ld = p4_net_logits_ld(ops, t->original->hf.model.arch.V);
    return p4_min_i64(B * t->plan.T, p4_max_i64(64, ops->logits_chunk / ld));
}

int64_t p4_teacher_cache_making_bytes(const p4_teacher *t)
{
    const p4_original *original = t->original;
    const p4_ops *ops = t->compute->ops;
    const p4_pipeline_plan plan = p4_teacher_cache_pass(t);
    int64_t weights = p4_teacher_weights_bytes(t), logits = 0;
    int64_t pass = p4_pipeline_bytes(t->compute, &original->hf.model, &original->shard, &plan);
    if (original->shard.head_stage == t->compute->group->rank) {
        logits =
            t->head_bytes +
            P4_TEACHER_COMPARED * t->plan.T * original->hf.model.arch.C * ops->act_bytes(t->compute->device) +
            p4_teacher_cache_bytes(t, plan.B) +
            p4_teacher_cache_rows(t, plan.B) * p4_net_logits_ld(ops, original->hf.model.arch.V) *
                ops->act_bytes(t->compute->device);
    }
    return weights < 0 || pass < 0 ? -1 : weights + pass + logits;
}
