/* Block reconstruction that comes to nothing: sets of blocks whose training is undone, steps that are
 * skipped. */
#include "jobs/train/block_trainer.h"
#include "reconstruct_world.h"

static const way single_blocks = {.model = "llama-gqa", .keys = {{"reconstruct_window", "1"}}};

/* The first block is not ternary: the states pass through it. */
static const way behind_preserved = {
    .model = "llama-gqa",
    .keys = {{"reconstruct_window", "1"}, {"preserve_layers", "[\"model.layers.0.*\"]"}}};

/* Steps so long that they do harm are undone in every set: its blocks are what they were, and so are the
 * states that the next set gets. */
static void check_undone(p4_group *all, const way *w, int64_t sets)
{
    subject *s = open_subject(all, w), *before = open_subject(all, w);
    s->plan.lr = 3;
    s->plan.warmup = 0;
    s->plan.steps = 3;
    EXPECT_OK(p4_reconstruct(&s->compute, &s->original, &s->windows, &s->plan, &s->packed, &s->masters,
                             &s->record));
    for (int64_t i = 0; i < s->record.losses_count; i++) {
        const p4_block_loss *loss = &s->record.losses[i];
        EXPECT(loss->after == loss->before && loss->before > 0, "%s, set %lld: error %g -> %g", w->model,
               (long long)i, loss->before, loss->after);
    }
    EXPECT(s->record.losses_count == sets, "%s: %lld sets", w->model, (long long)s->record.losses_count);
    int64_t apart = differing(&before->packed, &s->packed);
    EXPECT(apart == 0, "%s: %lld tensors differ after training that was undone", w->model, (long long)apart);
    close_subject(s);
    close_subject(before);
}

/* A norm's gain, as it is on this rank alone. */
static void set_gain(p4_block_trainer *t, float gain)
{
    int64_t i = p4_model_find(&t->part, P4_ROLE_NORM1_GAIN, 0);
    t->compute->ops->to_device(t->compute->device, t->optim.master + t->optim.at[i], &gain, sizeof gain);
}

/* Steps of all ranks; with `bad` the first rank's gradient, and so the sum, is no number. */
static void take_steps(p4_block_trainer *t, const p4_group *all, int steps, bool bad)
{
    if (all->rank == 0) {
        set_gain(t, bad ? NAN : 1.0f);
    }
    for (int step = 0; step < steps; step++) {
        p4_block_trainer_begin(t, p4_ceil_div(windows_of(all->rank, all->ranks), t->plan.B));
        add_windows_of(t, all->rank, all->ranks);
        p4_block_trainer_sum(t);
        p4_block_trainer_end(t, 0.01f, 1.0);
    }
}

static float *read_masters(const p4_block_trainer *t)
{
    float *h_values = p4_alloc((size_t)t->optim.count, sizeof *h_values);
    t->compute->ops->to_host(t->compute->device, h_values, t->optim.master, t->optim.count * 4);
    return h_values;
}

/* A step whose gradient is no number on one rank changes nothing on any; five in a row end the training,
 * whatever follows them before somebody looks. */
static void check_skipped(p4_group *all, const way *w)
{
    subject *s = open_subject(all, w);
    p4_block_trainer t;
    p4_block_plan plan = {.blocks = s->plan.blocks,
                          .B = 2,
                          .T = LENGTH,
                          .sequences = all->ranks * RANK_WINDOWS,
                          .optim = s->plan.optim,
                          .quantize = s->plan.quantize};
    double error = 0;
    EXPECT_OK(p4_block_trainer_open(&t, &s->compute, &s->original, 0, &plan));
    EXPECT_OK(p4_block_trainer_start(&t, 0, NULL));
    if (all->rank == 0) {
        set_gain(&t, NAN);
    }
    size_t bytes = (size_t)t.optim.count * sizeof(float);
    float *h_before = read_masters(&t);
    take_steps(&t, all, 4, true);
    EXPECT_OK(p4_block_trainer_look(&t, &error));
    EXPECT(isnan(error), "%s: the error is %g", w->model, error);
    float *h_after = read_masters(&t);
    EXPECT(memcmp(h_before, h_after, bytes) == 0, "%s: masters changed", w->model);
    take_steps(&t, all, 1, false);
    take_steps(&t, all, 4, true); /* not five in a row */
    EXPECT_OK(p4_block_trainer_look(&t, &error));
    free(h_after);
    h_after = read_masters(&t);
    EXPECT(memcmp(h_before, h_after, bytes) != 0, "%s: the step between them changed nothing", w->model);
    take_steps(&t, all, 1, false);
    take_steps(&t, all, 5, true);
    take_steps(&t, all, 1, false);
    EXPECT_CODE(p4_block_trainer_look(&t, &error), P4_E_INPUT, "not finite for 5 steps");
    free(h_before);
    free(h_after);
    p4_block_trainer_close(&t);
    close_subject(s);
}

static void check_all(p4_group *all)
{
    check_undone(all, &single_blocks, 2);
    check_undone(all, &behind_preserved, 1);
    check_skipped(all, &single_blocks);
}

int main(void)
{
    return run_on_all_ranks(check_all);
}
