#include "jobs/train/teacher.h"

#include <math.h>
#include <stdlib.h>
#include <unistd.h>

#include "src/leaf/limits.h"

static const char *const kind_names[] = {"auto", "resident", "sharded", "cached"};

static int64_t state_bytes(const p4_teacher *t, int64_t B)
{
    return B * t->plan.T * t->original->hf.model.arch.C * t->compute->ops->act_bytes(t->compute->device);
}

/* Of the states after one block. */
static int64_t block_bytes(const p4_teacher *t, int64_t B)
{
    return p4_ceil_div(state_bytes(t, B), 64) * 64;
}

/* The blocks whose states take memory of their own. */
static int64_t blocks_kept(const p4_teacher *t)
{
    int64_t L = t->original->hf.model.arch.L;
    return t->plan.blocks <= 0 ? 0 : t->plan.kind == P4_TEACHER_RESIDENT ? L - 1 : L;
}

static p4_net_plan net_plan(const p4_teacher *t, int64_t B)
{
    return (p4_net_plan){.B = B, .T = t->plan.T};
}

/* --- which kind ------------------------------------------------------------------------------- */

/* Memory for this rank: the device's, or its part of the node's. */
static double room_bytes(const p4_compute *compute)
{
    if (!compute->ops->host_memory) {
        return (double)compute->ops->room_bytes(compute->device);
    }
    double node = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
    p4_limits limits = p4_limits_read("");
    if (limits.memory_bytes > 0) {
        node = fmin(node, (double)limits.memory_bytes);
    }
    return node / (double)compute->group->local_ranks;
}

/* *fits: is there room for the whole original beside the student? Local. */
static p4_rc estimate(p4_teacher *t, int64_t student_bytes, bool *fits)
{
    const double USABLE = 0.85; /* the rest is for evaluation and what the estimate leaves out */
    int64_t weights = p4_teacher_weights_bytes(t), work = p4_teacher_work_bytes(t, 1);
    *fits = (double)(student_bytes + weights + t->head_bytes + work) <= USABLE * room_bytes(t->compute);
    return weights >= 0 && work >= 0 ? P4_OK : P4_E_SYSTEM;
}

/* Collective. */
static p4_rc choose_kind(p4_teacher *t, int64_t student_bytes)
{
    p4_rc rc = P4_OK;
    bool fits = true;
    if (t->plan.kind != P4_TEACHER_AUTO) {
        return P4_OK;
    }
    t->plan.kind = P4_TEACHER_RESIDENT;
    TRY_ALL(t->compute->group, estimate(t, student_bytes, &fits));
    double missing = fits ? 0.0 : 1.0;
    p4_group_max_f64(t->compute->group, &missing, 1);
    if (missing > 0.0 && t->compute->group->ranks > 1) { /* one rank would hold all layers all the same */
        t->plan.kind = P4_TEACHER_SHARDED;
    }
done:
    return rc;
}

/* --- open and close --------------------------------------------------------------------------- */

/* Local. */
static p4_rc open_resident_or_sharded(p4_teacher *t)
{
    p4_rc rc = P4_OK;
    TRY(p4_teacher_open_weights(t));
    TRY(p4_teacher_open_head(t));
done:
    return rc;
}

static void start(p4_teacher *t, p4_compute *compute, const p4_original *original,
                  const p4_teacher_plan *plan)
{
    const p4_arch *arch = &original->hf.model.arch;
    *t = (p4_teacher){.compute = compute, .original = original, .plan = *plan};
    t->view = (p4_net_teacher){.weight = (float)plan->weight, .temperature = (float)plan->temperature};
    if (plan->blocks > 0 && plan->sequences > 0) { /* not in a plan, which computes nothing */
        t->view.blocks_scale = (float)(plan->blocks / (double)(arch->L * plan->sequences * plan->T));
    }
    t->head_bytes =
        p4_teacher_bias_at(t) + (arch->head_bias ? p4_net_logits_ld(compute->ops, arch->V) * 4 : 0);
}

p4_rc p4_teacher_plan_bytes(p4_teacher_memory *memory, p4_compute *compute, const p4_original *original,
                            const p4_teacher_plan *plan, int64_t B, int64_t windows)
{
    p4_teacher t;
    bool cached = plan->kind == P4_TEACHER_CACHED;
    start(&t, compute, original, plan);
    *memory = (p4_teacher_memory){.work = p4_teacher_work_bytes(&t, B)};
    int64_t weights = cached ? 0 : p4_teacher_weights_bytes(&t);
    if (cached) {
        memory->making = p4_teacher_cache_making_bytes(&t);
        memory->file = p4_teacher_cache_bytes(&t, windows);
    } else {
        memory->held = weights + t.head_bytes;
    }
    return memory->work >= 0 && weights >= 0 && memory->making >= 0 ? P4_OK : P4_E_SYSTEM;
}

p4_rc p4_teacher_open(p4_teacher *t, p4_compute *compute, const p4_original *original,
                      p4_training_set *training_set, const p4_teacher_plan *plan, int64_t student_bytes)
{
    p4_rc rc = P4_OK;
    const p4_arch *arch = &original->hf.model.arch;
    start(t, compute, original, plan);
    t->training_set = training_set;
    CHECK(plan->kind != P4_TEACHER_CACHED || plan->top_k <= arch->V,
          "key \"distill_top_k\": found %lld, expected at most the %lld tokens of the vocabulary of %s",
          (long long)plan->top_k, (long long)arch->V, original->hf.path);
    CHECK(plan->kind != P4_TEACHER_CACHED || plan->blocks <= 0,
          "key \"distill_teacher\": found \"cached\", expected \"resident\" or \"sharded\" with "
          "distill_blocks, as the file does not hold the outputs of blocks");
    TRY(choose_kind(t, student_bytes));
    INFO("      distillation: the loss is %g cross-entropy + %g KL to the original at temperature %g; the "
         "original is %s",
         1.0 - plan->weight, plan->weight * plan->temperature * plan->temperature, plan->temperature,
         kind_names[t->plan.kind]);
    if (plan->blocks > 0) {
        INFO("      distillation: the loss gains %g times the mean cosine distance of the %lld blocks' "
             "outputs to the original's",
             plan->blocks, (long long)arch->L);
    }
    if (t->plan.kind == P4_TEACHER_CACHED) {
        TRY(p4_teacher_cache_open(t));
    } else {
        TRY_ALL(compute->group, open_resident_or_sharded(t));
    }
done:
    if (rc != P4_OK) {
        p4_teacher_close(t);
    }
    return rc;
}

void p4_teacher_close(p4_teacher *t)
{
    if (!p4_teacher_is_open(t)) {
        return;
    }
    p4_teacher_shards_close(t);
    p4_teacher_cache_close(t);
    p4_device_form_close(&t->form);
    if (t->net.ops != NULL) {
        p4_net_close(&t->net);
    }
    p4_teacher_close_head(t);
    if (t->blocks_memory != NULL) {
        t->compute->ops->release(t->compute->device, t->blocks_memory);
    }
    free(t->blocks);
    *t = (p4_teacher){0};
}

/* --- micro-batches ---------------------------------------------------------------------------- */

int64_t p4_teacher_work_bytes(const p4_teacher *t, int64_t B)
{
    if (!p4_teacher_is_open(t)) {
        return 0;
    }
    if (t->plan.kind == P4_TEACHER_CACHED) {
        return p4_teacher_cache_bytes(t, B);
    }
    if (t->plan.kind == P4_TEACHER_SHARDED) {
        int64_t bytes = p4_teacher_shards_bytes(t, B);
        return bytes < 0 ? -1 : bytes + state_bytes(t, B) + blocks_kept(t) * block_bytes(t, B);
    }
    p4_net_plan plan = net_plan(t, B);
    int64_t bytes = p4_net_bytes(t->compute->ops, t->compute->device, &t->original->hf.model, &plan);
    return bytes < 0 ? -1 : bytes + state_bytes(t, B) + blocks_kept(t) * block_bytes(t, B);
}

/* Memory for the states after each block. */
static p4_rc reserve_blocks(p4_teacher *t)
{
    p4_rc rc = P4_OK;
    const int64_t L = t->original->hf.model.arch.L, kept = blocks_kept(t), bytes = block_bytes(t, t->B);
    t->blocks = p4_alloc((size_t)L, sizeof *t->blocks);
    TRY(t->blocks != NULL ? P4_OK : P4_E_SYSTEM);
    if (kept > 0) { /* a resident model of one block has its states alone */
        TRY(t->compute->ops->alloc(t->compute->device, &t->blocks_memory, kept * bytes));
    }
    for (int64_t l = 0; l < L; l++) {
        t->blocks[l] = l < kept ? (char *)t->blocks_memory + l * bytes : t->states;
    }
    t->view.blocks = t->blocks;
done:
    return rc;
}

p4_rc p4_teacher_reserve(p4_teacher *t, int64_t B)
{
    p4_rc rc = P4_OK;
    if (!p4_teacher_is_open(t)) {
        return P4_OK;
    }
    t->B = B;
    if (t->plan.kind == P4_TEACHER_CACHED) {
        return p4_teacher_cache_reserve(t);
    }
    TRY(t->compute->ops->alloc(t->compute->device, &t->states, state_bytes(t, B)));
    TRY(t->plan.blocks > 0 ? reserve_blocks(t) : P4_OK);
    if (t->plan.kind == P4_TEACHER_SHARDED) {
        TRY(p4_teacher_shards_reserve(t));
        t->view.states = t->states;
    } else {
        p4_net_plan plan = net_plan(t, B);
        TRY(p4_net_open(&t->net, t->compute->ops, t->compute->device, &t->original->hf.model, &plan));
        t->view.states = t->net.final_n;
    }
done:
    return rc;
}

int64_t p4_teacher_bytes(const p4_teacher *t)
{
    if (!p4_teacher_is_open(t)) {
        return 0;
    }
    return t->form.memory_bytes + t->head_bytes + (t->B > 0 ? p4_teacher_work_bytes(t, t->B) : 0);
}

void p4_teacher_prepare(p4_teacher *t, const int32_t *h_ids, int64_t step, int64_t from, int64_t B)
{
    if (!p4_teacher_is_open(t)) {
        return;
    }
    if (t->plan.kind == P4_TEACHER_CACHED) {
        p4_teacher_cache_prepare(t, step, from, B);
    } else if (t->plan.kind == P4_TEACHER_SHARDED) {
        p4_teacher_shards_prepare(t, h_ids, B);
    } else if (B > 0) {
        p4_net_set_tokens(&t->net, h_ids, B, t->plan.T);
    }
}

void p4_teacher_forward(p4_teacher *t, int64_t B)
{
    const int64_t T = t->plan.T;
    if (!p4_teacher_is_open(t) || t->plan.kind != P4_TEACHER_RESIDENT) {
        return;
    }
    const p4_net_pass pass = {.form = &t->form.form, .B = B, .T = T, .outputs = t->blocks};
    p4_net_embed(&t->net, &t->form.form, t->states, B, T);
    p4_net_layers(&t->net, &pass, 0, t->original->hf.model.arch.L, t->states);
    p4_net_final_norm(&t->net, &t->form.form, t->states, false, B * T);
}
