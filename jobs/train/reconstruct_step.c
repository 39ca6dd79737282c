/* reconstruct_step.c - a step of reconstruction: its windows, whose states may be with other ranks, and its
 * gradient. */
#include "jobs/train/reconstruct_work.h"
#include "src/leaf/rng.h"

enum { WINDOW_TAG = 10 };

/* Of random numbers under the run's seed: apart from those of the trainer (src/optim.c). */
static const uint64_t order_stream = (uint64_t)1 << 62;

static void order_windows(p4_reconstruct_work *w, int64_t layer, int64_t epoch)
{
    for (int64_t s = 0; s < w->sequences; s++) {
        uint64_t stream = order_stream | (uint64_t)layer << 44 | (uint64_t)epoch << 12 | (uint64_t)s;
        p4_rng_permutation(w->order[s], (uint32_t)p4_reconstruct_part_count(w, s), w->plan->seed, stream);
    }
}

/* This rank's windows of the step, to w->picked. */
static int64_t pick_windows(p4_reconstruct_work *w, int64_t step)
{
    int64_t count = 0;
    for (int64_t s = 0; s < w->sequences; s++) {
        int64_t window = p4_reconstruct_part_first(w, s) + w->order[s][step % w->per_epoch];
        if (window >= w->layers.low && window < w->layers.high) {
            w->picked[count++] = window - w->layers.low;
        }
    }
    return count;
}

void p4_reconstruct_put_windows(p4_reconstruct_work *w, int64_t first, int64_t count, int64_t slot)
{
    char *x = p4_net_blocks_input(&w->trainer.net), *target = w->trainer.target;
    int64_t at = slot * p4_reconstruct_window_bytes(w);
    p4_states_read(&w->student, first, count, x + at);
    p4_states_read(&w->layers.states, first, count, target + at);
}

/* Where a window's states are. */
static int rank_of(const p4_reconstruct_work *w, int64_t window)
{
    const p4_group *group = w->compute->group;
    int rank = 0;
    while (p4_layers_first(w->layers.windows->count, w->layers.plan.B, rank + 1, group->ranks) <= window) {
        rank++;
    }
    return rank;
}

/* Both states of a window of this rank, in host memory, to or from another rank. Collective over the two. */
static void send_window(p4_reconstruct_work *w, int64_t window, int to)
{
    const p4_states *states[] = {&w->student, &w->layers.states};
    for (int i = 0; i < 2; i++) {
        const char *from = states[i]->memory + (window - w->layers.low) * p4_reconstruct_window_bytes(w);
        p4_request sending =
            p4_group_isend(w->compute->group, from, p4_reconstruct_window_bytes(w), to, WINDOW_TAG);
        p4_group_wait(w->compute->group, &sending);
    }
}

static void receive_window(p4_reconstruct_work *w, int from, int64_t slot)
{
    char *to[] = {p4_net_blocks_input(&w->trainer.net), w->trainer.target};
    for (int i = 0; i < 2; i++) {
        p4_group_recv(w->compute->group, to[i] + slot * p4_reconstruct_window_bytes(w),
                      p4_reconstruct_window_bytes(w), from, WINDOW_TAG);
    }
}

/* With exact_sums: the windows of micro-batch m of the step, which `rank` computes. How many they are.
 * Collective.
 */
static int64_t put_micro_batch(p4_reconstruct_work *w, int64_t step, int64_t m, int rank)
{
    const p4_group *group = w->compute->group;
    int64_t first = m * w->B, count = p4_max_i64(0, p4_min_i64(w->B, w->sequences - first));
    for (int64_t b = 0; b < count; b++) {
        int64_t window = p4_reconstruct_part_first(w, first + b) + w->order[first + b][step % w->per_epoch];
        int from = rank_of(w, window);
        if (from == group->rank && rank == group->rank) {
            p4_reconstruct_put_windows(w, window - w->layers.low, 1, b);
        } else if (from == group->rank) {
            send_window(w, window, rank);
        } else if (rank == group->rank) {
            receive_window(w, from, b);
        }
    }
    return count;
}

/* The gradient of the step with exact_sums: a micro-batch a rank in each round. Collective. */
static void add_rounds(p4_reconstruct_work *w, int64_t step)
{
    const p4_group *group = w->compute->group;
    int64_t micro_batches = p4_ceil_div(w->sequences, w->B);
    p4_block_trainer_begin(&w->trainer, p4_ceil_div(micro_batches, group->ranks));
    for (int64_t first = 0; first < micro_batches; first += group->ranks) {
        int64_t mine = 0;
        for (int rank = 0; rank < group->ranks; rank++) {
            int64_t count = put_micro_batch(w, step, first + rank, rank);
            mine = rank == group->rank ? count : mine;
        }
        p4_block_trainer_add(&w->trainer, mine);
    }
}

/* Windows picked[first ...] of a micro-batch into place. */
static void put_picked(p4_reconstruct_work *w, int64_t first)
{
    int64_t B = p4_min_i64(w->B, w->mine - first);
    p4_states_gather(&w->student, w->picked + first, B, p4_net_blocks_input(&w->trainer.net));
    p4_states_gather(&w->layers.states, w->picked + first, B, w->trainer.target);
}

static void pick_step(p4_reconstruct_work *w, int64_t layer, int64_t step)
{
    if (step % w->per_epoch == 0) {
        order_windows(w, layer, step / w->per_epoch);
    }
    w->mine = pick_windows(w, step);
}

/* Are a step's first windows put into place within the step before? Not from host memory: the copies would
 * wait for the sums of other ranks. */
static bool is_prepared(const p4_reconstruct_work *w, int64_t step)
{
    return step > 0 && !w->trainer.plan.host_inputs;
}

/* And without: of this rank's windows. Collective. */
static void add_own(p4_reconstruct_work *w, int64_t layer, int64_t step)
{
    bool prepared = is_prepared(w, step);
    if (!prepared) {
        pick_step(w, layer, step);
    }
    p4_block_trainer_begin(&w->trainer, p4_ceil_div(w->mine, w->B));
    for (int64_t first = 0; first < w->mine; first += w->B) {
        if (!prepared || first > 0) {
            put_picked(w, first);
        }
        p4_block_trainer_add(&w->trainer, p4_min_i64(w->B, w->mine - first));
    }
}

/* The next step's first windows into place, while the last sums of this one are under way. */
static void prepare_next(p4_reconstruct_work *w, int64_t layer, int64_t step)
{
    if (step + 1 == w->plan->steps || !is_prepared(w, step + 1)) {
        return;
    }
    pick_step(w, layer, step + 1);
    if (w->mine > 0) {
        put_picked(w, 0);
    }
}

void p4_reconstruct_step(p4_reconstruct_work *w, int64_t layer, int64_t step)
{
    const p4_reconstruct_plan *plan = w->plan;
    if (plan->exact_sums) {
        pick_step(w, layer, step);
        add_rounds(w, step);
        p4_block_trainer_sum(&w->trainer);
    } else {
        add_own(w, layer, step);
        p4_block_trainer_sum(&w->trainer);
        prepare_next(w, layer, step);
    }
    float lr = (float)p4_schedule_lr(plan->lr, 0.0, plan->warmup, step, plan->steps);
    p4_block_trainer_end(&w->trainer, lr, w->mean_square);
}
