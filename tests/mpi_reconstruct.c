/* Block reconstruction: gradients of norms, biases and preserved matrices against differences of the error;
 * the error falls; every rank has the same bits, and what one rank alone would have within a bound; a run
 * that starts from masters goes on where they were left, and so does a trainer. */
#include "block_layout.h"
#include "jobs/train/trainer.h"
#include "reconstruct_world.h"
#include "src/leaf/log_sink.h"
#include "src/leaf/rng.h"

static const way ways[] = {
    {.model = "llama-gqa", .keys = {{"reconstruct_window", "1"}}},
    {.model = "gpt2-plain", .keys = {{"reconstruct_window", "2"}, {"recompute", "blocks"}}},
    {.model = "llama-bias",
     .keys = {{"reconstruct_window", "2"},
              {"recompute", "light"},
              {"preserve_layers",
               "[\"model.layers.0.self_attn.k_proj.weight\",\"*.1.mlp.down_proj.weight\"]"}}},
    {.model = "llama-gqa", /* the first of their slots */
     .keys = {{"reconstruct_window", "2"},
              {"preserve_layers", "[\"*.0.mlp.gate_proj.weight\",\"*.1.self_attn.q_proj.weight\"]"}}},
    {.model = "llama-mlp-bias", .keys = {{"activation_bits", "8"}, {"quantizer", "exact"}}},
    {.model = "gpt2-untied",
     .keys = {{"preserve_embedding_precision", "false"}, {"preserve_output_precision", "false"}}},
    {.model = "mixtral-plain", .keys = {{"reconstruct_window", "2"}}},
    {.model = "llama-gqa", .keys = {{"reconstruct_window", "2"}}, .windows = 2}, /* ranks without any */
    {.model = "llama-gqa",
     .keys = {{"reconstruct_window", "2"}},
     .sequences = COUNT}, /* more micro-batches */
    {.model = "llama-gqa", .keys = {{"reconstruct_window", "1"}}, .look_every = P4_BLOCK_STEPS_AHEAD},
};

/* ---- gradients ---- */

static double error_of(p4_block_trainer *t)
{
    double sum = 0;
    p4_block_trainer_measure(t, t->plan.B);
    EXPECT_OK(p4_block_trainer_take_error(t, &sum));
    return sum / (double)(t->plan.sequences * t->plan.T * t->part.arch.C);
}

static float read_float(const p4_block_trainer *t, const float *from)
{
    float value = 0;
    t->compute->ops->to_host(t->compute->device, &value, from, sizeof value);
    return value;
}

static double slope_of(p4_block_trainer *t, float *at, double step)
{
    float kept = read_float(t, at), up = kept + (float)step, down = kept - (float)step;
    t->compute->ops->to_device(t->compute->device, at, &up, sizeof up);
    double above = error_of(t);
    t->compute->ops->to_device(t->compute->device, at, &down, sizeof down);
    double below = error_of(t);
    t->compute->ops->to_device(t->compute->device, at, &kept, sizeof kept);
    return (above - below) / ((double)up - (double)down);
}

static void fill(p4_block_trainer *t, void *to, double size, p4_rng *rng)
{
    int64_t count = t->plan.B * t->plan.T * t->part.arch.C;
    float *h_values = p4_alloc((size_t)count, sizeof *h_values);
    for (int64_t i = 0; i < count; i++) {
        h_values[i] = (float)(size * p4_rng_normal(rng));
    }
    t->compute->ops->to_device(t->compute->device, to, h_values, count * 4);
    free(h_values);
}

/* Of what the form uses as it is. Rounded activations make the error a staircase. */
static void check_gradients(p4_group *group, const way *w)
{
    subject *s = open_subject(group, w);
    p4_block_trainer t;
    p4_rng rng = {.seed = 8, .stream = 1};
    int64_t checked = 0;
    p4_block_plan plan = {.blocks = s->plan.blocks,
                          .B = 3,
                          .T = LENGTH,
                          .sequences = 5,
                          .recompute = s->plan.recompute,
                          .optim = s->plan.optim,
                          .quantize = s->plan.quantize};
    EXPECT_OK(p4_block_trainer_open(&t, &s->compute, &s->original, 0, &plan));
    EXPECT(p4_block_trainer_suits(&t, 0, plan.blocks) && !p4_block_trainer_suits(&t, 0, plan.blocks + 1),
           "%s: suits", w->model);
    expect_runs(&t, w->model);
    expect_apart(&t, w->model);
    EXPECT_OK(p4_block_trainer_start(&t, 0, NULL));
    fill(&t, p4_net_blocks_input(&t.net), 1.0, &rng);
    fill(&t, t.target, 1.0, &rng);
    p4_block_trainer_begin(&t, 2); /* nothing is summed over ranks before the second micro-batch */
    p4_block_trainer_add(&t, plan.B);
    (void)error_of(&t); /* with the error that the step has summed */
    for (int64_t i = t.part.layer_first[0]; i < t.part.layer_first[plan.blocks]; i++) {
        const p4_param *p = &t.part.params[i];
        double most = 0;
        for (int64_t k = 0; !p->ternary && k < p->rows * p->cols; k++) {
            most = fmax(most, fabs((double)read_float(&t, t.optim.grad + t.optim.at[i] + k)));
        }
        for (int tries = 0; !p->ternary && tries < 4; tries++, checked++) {
            int64_t k = (int64_t)p4_rng_below(&rng, (uint64_t)(p->rows * p->cols));
            double got = (double)read_float(&t, t.optim.grad + t.optim.at[i] + k);
            double want = slope_of(&t, t.optim.master + t.optim.at[i] + k, 3e-3);
            EXPECT(fabs(got - want) <= 0.01 * most + 1e-5, "%s, layer %lld: gradient %lld is %g, slope %g",
                   p->name, (long long)p->layer, (long long)k, got, want);
        }
    }
    EXPECT(checked > 0, "%s: nothing to check", w->model);
    p4_block_trainer_close(&t);
    close_subject(s);
}

/* ---- sums over ranks ---- */

static const double MEAN_SQUARE = 2.5;

static float *read_gradients(const p4_block_trainer *t)
{
    float *h_values = p4_alloc((size_t)t->optim.count, sizeof *h_values);
    t->compute->ops->to_host(t->compute->device, h_values, t->optim.grad, t->optim.count * 4);
    return h_values;
}

/* Two steps at the rate 0, of the windows of the ranks [first, end) of `all`. *error: of the second, which
 * begins with what the first has left. The gradients, which the caller frees. */
static float *run_steps(p4_block_trainer *t, subject *s, const p4_group *all, int first, int end,
                        double *error)
{
    p4_block_plan plan = {.blocks = s->plan.blocks,
                          .B = 2,
                          .T = LENGTH,
                          .recompute = s->plan.recompute,
                          .activation_bits = s->plan.activation_bits,
                          .optim = s->plan.optim,
                          .quantize = s->plan.quantize};
    int64_t rounds = 0;
    for (int r = 0; r < all->ranks; r++) {
        plan.sequences += windows_of(r, all->ranks);
        rounds += r >= first && r < end ? p4_ceil_div(windows_of(r, all->ranks), plan.B) : 0;
    }
    EXPECT_OK(p4_block_trainer_open(t, &s->compute, &s->original, 0, &plan));
    EXPECT_OK(p4_block_trainer_start(t, 0, NULL));
    for (int step = 0; step < 2; step++) {
        p4_block_trainer_begin(t, rounds);
        for (int r = first; r < end; r++) {
            add_windows_of(t, r, all->ranks);
        }
        p4_block_trainer_sum(t);
        p4_block_trainer_end(t, 0.0f, MEAN_SQUARE);
    }
    EXPECT_OK(p4_block_trainer_look(t, error));
    return read_gradients(t);
}

/* The norm that gradients are clipped by: theirs, after the division by the mean square of the target. */
static void expect_norm(const p4_block_trainer *t, const float *h_grad, const way *w)
{
    p4_clip_result result;
    double squares = 0;
    for (int64_t k = 0; k < t->optim.count; k++) {
        squares += (double)h_grad[k] * (double)h_grad[k];
    }
    t->compute->ops->to_host(t->compute->device, &result, t->result, sizeof result);
    double want = sqrt(squares) / MEAN_SQUARE;
    EXPECT(fabs(result.norm - want) <= 1e-6 * want, "%s: the norm is %g, want %g", w->model, result.norm,
           want);
}

/* After a step every rank has the gradient and the error that one rank computes of all windows: what differs
 * is the order in which a few terms are added in fp32. Every rank has the same bits. */
static void check_sums(p4_group *all, p4_group *alone, const way *w)
{
    subject *s = open_subject(all, w), *one = open_subject(alone, w);
    p4_block_trainer t, t_one;
    double error = NAN, error_one = NAN, most = 0, apart = 0;
    float *h_grad = run_steps(&t, s, all, all->rank, all->rank + 1, &error),
          *h_one = run_steps(&t_one, one, all, 0, all->ranks, &error_one);
    size_t bytes = (size_t)t.optim.count * sizeof *h_grad;
    expect_norm(&t, h_grad, w);
    expect_norm(&t_one, h_one, w);
    for (int64_t k = 0; k < t.optim.count; k++) {
        most = fmax(most, fabs((double)h_one[k]));
        apart = fmax(apart, fabs((double)h_grad[k] - (double)h_one[k]));
    }
    EXPECT(most > 0 && apart <= 1e-5 * most, "%s: gradients up to %g differ by %g", w->model, most, apart);
    EXPECT_NEAR(error, error_one, 1e-6 * error_one);
    memcpy(h_one, h_grad, bytes);
    p4_group_bcast(all, h_one, (int64_t)bytes, 0);
    EXPECT(memcmp(h_one, h_grad, bytes) == 0, "%s: other sums than on rank 0", w->model);
    free(h_grad);
    free(h_one);
    p4_block_trainer_close(&t);
    p4_block_trainer_close(&t_one);
    close_subject(s);
    close_subject(one);
}

/* ---- results ---- */

/* The progress of "reconstruct" counts each step once. */
static void watch_steps(const p4_progress *progress, double left_s, void *user)
{
    double *last = user;
    (void)left_s;
    if (strcmp(progress->label, "reconstruct") == 0) {
        EXPECT(progress->done == *last + 1, "step %g follows %g", progress->done, *last);
        *last = progress->done;
        EXPECT(*last <= progress->total, "step %g of %g", *last, progress->total);
    }
}

static p4_rc reconstruct(subject *s)
{
    double steps = (double)(s->record.losses_count * s->plan.steps);
    p4_progress_observe(watch_steps, &steps);
    p4_rc rc =
        p4_reconstruct(&s->compute, &s->original, &s->windows, &s->plan, &s->packed, &s->masters, &s->record);
    p4_progress_observe(NULL, NULL);
    if (rc == P4_OK && s->compute.group->rank == 0) {
        double want = (double)(s->record.losses_count * s->plan.steps);
        EXPECT(steps == want, "the progress ends at step %g of %g", steps, want);
    }
    return rc;
}

static void expect_progress(const subject *s, const way *w)
{
    int64_t blocks = 0;
    for (int64_t i = 0; i < s->record.losses_count; i++) {
        const p4_block_loss *loss = &s->record.losses[i];
        EXPECT(loss->first_block == blocks, "%s: block %lld", w->model, (long long)loss->first_block);
        EXPECT(loss->after < 0.9 * loss->before && loss->after > 0, "%s, block %lld: error %g -> %g",
               w->model, (long long)blocks, loss->before, loss->after);
        blocks += loss->blocks;
    }
    EXPECT(s->record.ran && blocks == s->original.hf.model.arch.L, "%s: %lld blocks", w->model,
           (long long)blocks);
    for (int64_t i = 0; i < s->masters.model->params_count; i++) {
        const p4_param *p = &s->masters.model->params[i];
        bool in_block = p->layer >= 0, mine = s->original.shard.owner[i] == s->compute.group->rank;
        EXPECT(s->masters.known[i] == in_block, "%s: known", p->name);
        EXPECT((s->masters.of[i] != NULL) == (in_block && (!p->ternary || mine)), "%s: held", p->name);
    }
}

static void expect_same_bits(const subject *s, const way *w)
{
    p4_packed first;
    EXPECT_OK(p4_packed_alloc(&first, s->packed.model));
    for (int64_t i = 0; i < first.model->params_count; i++) {
        const p4_weight *x = &s->packed.weights[i];
        memcpy((void *)(uintptr_t)first.weights[i].data, x->data, (size_t)code_bytes(&first, i));
        p4_group_bcast(s->compute.group, (void *)(uintptr_t)first.weights[i].data, code_bytes(&first, i), 0);
        if (x->scale != NULL) {
            memcpy(p4_packed_scale(&first, i), x->scale, (size_t)x->rows * 2);
            p4_group_bcast(s->compute.group, p4_packed_scale(&first, i), x->rows * 2, 0);
        }
    }
    EXPECT(differing(&first, &s->packed) == 0, "%s: other bits than on rank 0", w->model);
    p4_packed_release(&first);
}

/* A trainer closes what it starts from; the caller keeps its own. */
static void copy_masters(p4_masters *to, const p4_masters *from)
{
    EXPECT_OK(p4_masters_open(to, from->model));
    for (int64_t i = 0; i < from->model->params_count; i++) {
        const p4_param *p = &from->model->params[i];
        to->known[i] = from->known[i];
        if (from->of[i] != NULL) {
            memcpy(p4_masters_take(to, i), from->of[i], (size_t)(p->rows * p->cols) * sizeof **from->of);
        }
    }
}

/* A trainer that starts from the masters has the codes and halves that reconstruction left. */
static void expect_trainer_starts_there(subject *s, const way *w, const char *zero_stage)
{
    p4_trainer trainer;
    p4_training_set *set = NULL;
    p4_packed packed;
    p4_masters masters;
    copy_masters(&masters, &s->masters);
    expect_set(&s->config, "zero_stage", zero_stage);
    EXPECT_OK(p4_training_set_of_windows(&set, &s->windows));
    EXPECT_OK(p4_packed_alloc(&packed, &s->original.hf.model));
    p4_train_plan plan = p4_settings_train(&s->config, LENGTH, NULL);
    EXPECT_OK(p4_trainer_open(&trainer, &s->compute, &s->original, set, &plan, &masters));
    EXPECT(masters.of == NULL, "%s: the masters are still there", w->model);
    EXPECT_OK(p4_trainer_commit(&trainer, &packed));
    int64_t apart = differing(&packed, &s->packed);
    EXPECT(apart == 0, "%s, zero_stage %s: %lld tensors differ", w->model, zero_stage, (long long)apart);
    p4_trainer_close(&trainer);
    p4_packed_release(&packed);
    p4_training_set_close(set);
}

/* What was trained is what a second run begins with: the error of the first blocks, whose inputs are the
 * same. */
static void expect_continues(subject *s, const way *w)
{
    double after = s->record.losses[0].after;
    forget_record(s);
    s->plan.steps = 1;
    EXPECT_OK(reconstruct(s));
    EXPECT_NEAR(s->record.losses[0].before, after, 1e-5 * after);
    for (int64_t i = 0; i < s->record.losses_count; i++) { /* a step that does harm is undone */
        EXPECT(s->record.losses[i].after <= s->record.losses[i].before, "%s: error %g -> %g", w->model,
               s->record.losses[i].before, s->record.losses[i].after);
    }
}

static void check_way(p4_group *all, p4_group *alone, const way *w)
{
    subject *s = open_subject(all, w), *one = open_subject(alone, w);
    EXPECT_OK(reconstruct(s));
    EXPECT_OK(reconstruct(one));
    expect_progress(s, w);
    expect_same_bits(s, w);
    /* Sums in another order, and codes that they tip over, in few steps on a tiny model. */
    for (int64_t i = 0; i < s->record.losses_count && i < one->record.losses_count; i++) {
        EXPECT_NEAR(s->record.losses[i].before, one->record.losses[i].before,
                    0.02 * one->record.losses[i].before);
        EXPECT_NEAR(s->record.losses[i].after, one->record.losses[i].after,
                    0.05 * one->record.losses[i].after);
    }
    if (s->windows.count == COUNT) { /* as many as a step of fine-tuning takes */
        expect_trainer_starts_there(s, w, "2");
        expect_trainer_starts_there(s, w, "0");
    }
    expect_continues(s, w);
    close_subject(s);
    close_subject(one);
}

/* Steps that follow from the windows: whole passes, 20 at most, no more than 2^24 tokens but for the first.
 */
static void check_steps(void)
{
    EXPECT(p4_reconstruct_steps(128, 512, 16) == 160, "%lld", (long long)p4_reconstruct_steps(128, 512, 16));
    EXPECT(p4_reconstruct_steps(512, 512, 16) == 640, "%lld", (long long)p4_reconstruct_steps(512, 512, 16));
    EXPECT(p4_reconstruct_steps(512, 2048, 16) == 512, "%lld",
           (long long)p4_reconstruct_steps(512, 2048, 16));
    EXPECT(p4_reconstruct_steps(5, 8, 16) == 20, "%lld", (long long)p4_reconstruct_steps(5, 8, 16));
    EXPECT(p4_reconstruct_steps(65536, 2048, 16) == 4096, "%lld",
           (long long)p4_reconstruct_steps(65536, 2048, 16));
}

int main(void)
{
    p4_machine machine;
    p4_group all, alone;
    if (!device_is_here()) {
        return check_failed == 0 ? P4_SKIPPED : 1;
    }
    EXPECT_OK(p4_machine_open(&machine));
    EXPECT_OK(p4_compute_find_gpus(&machine));
    EXPECT_OK(p4_group_open(&all, &machine, NULL, 60));
    EXPECT_OK(p4_group_split(&alone, &machine, all.rank, 60));
    check_steps();
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        if (strcmp(ways[i].model, "llama-mlp-bias") != 0) {
            check_gradients(&all, &ways[i]);
        }
        check_sums(&all, &alone, &ways[i]);
        check_way(&all, &alone, &ways[i]);
    }
    p4_group_close(&alone);
    p4_group_close(&all);
    p4_machine_close(&machine);
    return TEST_END();
}
