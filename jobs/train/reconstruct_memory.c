/* reconstruct_memory.c - how much of a reconstruction is at work at once, and what memory that takes. */
#include "jobs/train/reconstruct_work.h"

p4_block_plan p4_reconstruct_block_plan(const p4_reconstruct_work *w, int64_t blocks)
{
    const p4_reconstruct_plan *plan = w->plan;
    return (p4_block_plan){.blocks = blocks,
                           .B = w->B,
                           .T = w->layers.windows->T,
                           .sequences = w->sequences,
                           .exact_sums = plan->exact_sums,
                           .host_inputs = w->student.on_host,
                           .recompute = plan->recompute,
                           .activation_bits = plan->activation_bits,
                           .optim = plan->optim,
                           .quantize = plan->quantize};
}

/* Do these blocks have the tensors of a set before them, so that they take as much memory? */
static bool is_like_earlier(const p4_arch *a, int64_t layer, int64_t blocks)
{
    bool like = false;
    for (int64_t l = 0; l < layer && !like; l += blocks) {
        like = true;
        for (int64_t b = 0; b < blocks && layer + b < a->L; b++) {
            like = like && p4_arch_has_experts(a, l + b) == p4_arch_has_experts(a, layer + b);
        }
    }
    return like;
}

/* The memory of the set of blocks that takes most. Local. */
static p4_rc largest_set(p4_reconstruct_work *w, p4_block_memory *block)
{
    p4_rc rc = P4_OK;
    const p4_arch *a = &w->original->hf.model.arch;
    int64_t blocks = p4_min_i64(w->plan->blocks, a->L);
    *block = (p4_block_memory){0};
    for (int64_t l = 0; l < a->L; l += blocks) {
        p4_block_memory other;
        p4_block_plan plan = p4_reconstruct_block_plan(w, p4_min_i64(blocks, a->L - l));
        if (!is_like_earlier(a, l, blocks)) {
            TRY(p4_block_trainer_bytes(&other, w->compute, w->original, l, &plan));
            *block = p4_block_memory_sum(&other) > p4_block_memory_sum(block) ? other : *block;
        }
    }
done:
    return rc;
}

p4_rc p4_reconstruct_choose_sizes(p4_reconstruct_work *w, p4_layers_plan *layers, int64_t room_bytes,
                                  p4_block_memory *block)
{
    enum { CPU_MOST = 8, MICRO_BATCH_TOKENS = 32768, PASS_TOKENS = 8192 };
    const double MEMORY_PART = 0.8;
    p4_rc rc = P4_OK;
    p4_compute *c = w->compute;
    double room = MEMORY_PART * (double)room_bytes;
    int64_t T = layers->T;
    int64_t states_bytes =
        2 * p4_ceil_div(w->layers.windows->count, c->group->ranks) * p4_reconstruct_window_bytes(w);
    int64_t most = c->ops->host_memory ? CPU_MOST : p4_max_i64(1, MICRO_BATCH_TOKENS / T), bytes = 0;
    int64_t share = p4_ceil_div(w->sequences, c->group->ranks);
    w->B = w->plan->exact_sums ? p4_exact_micro_batch(w->sequences)
                               : p4_min_i64(most, share + (w->sequences % c->group->ranks != 0));
    for (;; w->B = (w->B + 1) / 2) {
        TRY(largest_set(w, block));
        bytes = p4_block_memory_sum(block);
        if (c->ops->host_memory || w->B == 1 || (double)bytes <= room) {
            break;
        }
    }
    layers->B = c->ops->host_memory ? w->B : p4_max_i64(1, p4_min_i64(w->B, PASS_TOKENS / T));
    p4_net_plan pass = {.B = layers->B, .T = T, .activation_bits = w->plan->activation_bits};
    int64_t pass_bytes = p4_net_bytes(c->ops, c->device, &w->original->hf.model, &pass);
    layers->states_on_host = !c->ops->host_memory && (double)(bytes + pass_bytes + states_bytes) > room;
    rc = pass_bytes >= 0 ? P4_OK : P4_E_SYSTEM;
done:
    return rc;
}

p4_layers_plan p4_reconstruct_start(p4_reconstruct_work *w, const p4_windows *windows)
{
    p4_layers_plan plan = {.T = windows->T, .activation_bits = w->plan->activation_bits, .quiet = true};
    w->sequences = p4_min_i64(w->plan->sequences, windows->count);
    w->per_epoch = windows->count / w->sequences;
    w->layers.windows = windows; /* for the sizes; p4_layers_open fills in the rest */
    w->layers.plan = plan;
    return plan;
}

p4_rc p4_reconstruct_plan_bytes(p4_reconstruct_memory *memory, p4_compute *compute,
                                const p4_original *original, const p4_windows *windows,
                                const p4_reconstruct_plan *plan, int64_t room_bytes)
{
    p4_rc rc = P4_OK;
    p4_reconstruct_work w = {.compute = compute, .original = original, .plan = plan};
    p4_layers_plan layers = p4_reconstruct_start(&w, windows);
    p4_layers_memory pass;
    *memory = (p4_reconstruct_memory){0};
    TRY(p4_reconstruct_choose_sizes(&w, &layers, room_bytes, &memory->block));
    TRY(p4_layers_bytes(&pass, compute, original, windows->count, &layers));
    memory->pass_bytes = pass.work;
    memory->states_bytes = 2 * pass.states;
    memory->states_on_host = layers.states_on_host;
    memory->B = w.B;
    memory->pass_B = layers.B;
done:
    return rc;
}
