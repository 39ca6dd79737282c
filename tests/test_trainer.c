/* Training steps on one rank, where a device repeats the work of a step (ops->repeat), against steps that are
 * done anew every time (P4_GRAPH=off): the same losses, masters, optimizer state and codes, bit for bit, with
 * a step among them that is skipped. On the CPU both are done anew. */
#include "api_world.h"
#include "jobs/train/trainer.h"
#include "src/leaf/rng.h"

enum { STEPS = 5, BAD_STEP = 3, T = 8, PAIRS = 10 };

/* A way to train: configuration keys and values behind those that all share. */
typedef struct way {
    const char *name, *model, *keys[PAIRS][2];
    int rounds;
} way;

static const way ways[] = {
    {"AdamW in bf16",
     "llama-gqa",
     {{"optimizer", "adamw"}, {"mixed_precision", "true"}, {"calibration_batch_size", "3"}},
     1},
    {"AdamW, the last micro-batch smaller",
     "llama-gqa",
     {{"optimizer", "adamw"},
      {"calibration_batch_size", "3"},
      {"micro_batch_size", "2"},
      {"weight_decay", "0.1"}},
     2},
    {"Muon, Grokfast, bf16 state, the last of four micro-batches smaller",
     "llama-gqa",
     {{"enable_grokfast", "true"},
      {"optimizer_state", "bf16"},
      {"calibration_batch_size", "7"},
      {"micro_batch_size", "2"}},
     4},
    {"Muon and int8 activations in bf16, all replicated",
     "llama-gqa",
     {{"activation_bits", "8"},
      {"mixed_precision", "true"},
      {"zero_stage", "0"},
      {"recompute", "light"},
      {"calibration_batch_size", "2"},
      {"micro_batch_size", "1"},
      {"gradient_clip", "0"}},
     2},
    {"a slot of which one part is preserved",
     "llama-bias",
     {{"preserve_layers", "[\"model.layers.0.self_attn.k_proj.weight\"]"},
      {"quantizer", "absmean"},
      {"zero_stage", "1"},
      {"calibration_batch_size", "6"},
      {"micro_batch_size", "2"}},
     3},
    {"GPT-2, AdamW, Grokfast, bf16 state, blocks computed again",
     "gpt2-plain",
     {{"enable_grokfast", "true"},
      {"optimizer", "adamw"},
      {"optimizer_state", "bf16"},
      {"recompute", "blocks"},
      {"calibration_batch_size", "2"}},
     1},
};

/* What a run leaves. */
typedef struct outcome {
    double loss[STEPS], grad_norm[STEPS];
    bool applied[STEPS];
    char *state; /* masters, moments, averages, codes */
    int64_t bytes;
    int rounds_done, updates_done; /* calls of ops in them */
} outcome;

static p4_ops counting; /* the device's table with two ops that count */
static const p4_ops *counted;
static int losses, updates;

static void count_loss(p4_device *device, float *nll, float *hit, void *dlogits, const void *logits,
                       const int32_t *targets, int64_t N, int64_t V, int64_t ld, float scale)
{
    losses++;
    counted->cross_entropy(device, nll, hit, dlogits, logits, targets, N, V, ld, scale);
}

static void count_update(p4_device *device, const p4_adamw_item *h_items, int64_t items, float beta1,
                         float beta2, float eps, bool half, const p4_step_numbers *numbers)
{
    updates++;
    counted->adamw(device, h_items, items, beta1, beta2, eps, half, numbers);
}

static void count_ops(p4_job *job)
{
    counted = job->compute.ops;
    counting = *counted;
    counting.cross_entropy = count_loss;
    counting.adamw = count_update;
    job->compute.ops = &counting;
    losses = updates = 0;
}

static void configure(p4_config *config, const way *w)
{
    small_config(config);
    expect_set(config, "calibration_sequence_length", "8");
    expect_set(config, "quantizer", "exact");
    expect_set(config, "lr_final_fraction", "0.1");
    for (int i = 0; i < PAIRS && w->keys[i][0] != NULL; i++) {
        expect_set(config, w->keys[i][0], w->keys[i][1]);
    }
    snprintf(config->model_path, sizeof config->model_path, "%s", fixture(w->model));
}

static void take_windows(p4_job *job)
{
    p4_rng rng = {.seed = 5, .stream = 1};
    job->train = (p4_windows){.count = WINDOWS, .T = T};
    job->train.ids = p4_alloc(WINDOWS * T, sizeof *job->train.ids);
    for (int64_t i = 0; job->train.ids != NULL && i < WINDOWS * T; i++) {
        job->train.ids[i] = (int32_t)p4_rng_below(&rng, VOCAB);
    }
}

/* Appends device memory to the outcome. */
static void keep(outcome *o, const p4_job *job, const void *from, int64_t bytes)
{
    char *more = p4_resize(o->state, (size_t)(o->bytes + bytes), 1);
    EXPECT(more != NULL, "%s", p4_last_error());
    if (more != NULL) {
        o->state = more;
        job->compute.ops->to_host(job->compute.device, o->state + o->bytes, from, bytes);
        o->bytes += bytes;
    }
}

static void keep_state(outcome *o, const p4_trainer *t)
{
    int64_t each = t->optim.settings.half_state ? 2 : 4, count = t->optim.count;
    keep(o, t->job, t->optim.master, count * 4);
    keep(o, t->job, t->optim.m, count * each);
    keep(o, t->job, t->optim.v, t->optim.v_count * each);
    if (t->optim.ema != NULL) {
        keep(o, t->job, t->optim.ema, count * each);
    }
    for (int64_t i = 0; i < t->job->hf.model.params_count; i++) { /* what lies between them is undefined */
        const p4_weight *w = &t->codes_of[i];
        if (w->data != NULL) {
            keep(o, t->job, w->data, w->rows * p4_code_row_bytes(w->cols));
            keep(o, t->job, w->scale, w->rows * 2);
        }
    }
    EXPECT_OK(t->job->compute.ops->sync(t->job->compute.device));
}

/* One step, with an infinite gain of the last norm if it is to be bad. */
static void run_step(outcome *o, p4_trainer *t, int step)
{
    const p4_model *model = &t->job->hf.model;
    float *gain = t->optim.master + t->optim.at[p4_model_find(model, P4_ROLE_FINAL_GAIN, -1)];
    float kept = 0.0f, infinite = INFINITY;
    p4_step_result result = {0};
    t->job->compute.ops->to_host(t->job->compute.device, &kept, gain, sizeof kept);
    if (step == BAD_STEP) {
        t->job->compute.ops->to_device(t->job->compute.device, gain, &infinite, sizeof infinite);
    }
    EXPECT_OK(p4_trainer_step(t, step, &result));
    if (step == BAD_STEP) {
        t->job->compute.ops->to_device(t->job->compute.device, gain, &kept, sizeof kept);
    }
    o->loss[step] = result.loss;
    o->grad_norm[step] = result.grad_norm;
    o->applied[step] = result.applied;
    EXPECT(result.applied == (step != BAD_STEP), "step %d: loss %g, norm %g", step, result.loss,
           result.grad_norm);
}

static void train(outcome *o, const way *w, p4_group *group, const char *graph)
{
    p4_job *job = p4_alloc(1, sizeof *job);
    p4_trainer trainer = {0};
    *o = (outcome){0};
    EXPECT(setenv("P4_GRAPH", graph, 1) == 0, "setenv");
    configure(&job->config, w);
    EXPECT_OK(p4_job_open_compute(job, group));
    EXPECT_OK(p4_job_open_model(job));
    count_ops(job);
    take_windows(job);
    EXPECT_OK(p4_trainer_open(&trainer, job));
    EXPECT(trainer.rounds == w->rounds, "%s: %lld micro-batches", w->name, (long long)trainer.rounds);
    for (int step = 0; step < STEPS; step++) {
        run_step(o, &trainer, step);
    }
    EXPECT(trainer.optim.step == STEPS - 1, "%s: %lld updates", w->name, (long long)trainer.optim.step);
    o->rounds_done = losses;
    o->updates_done = updates;
    keep_state(o, &trainer);
    p4_trainer_close(&trainer);
    job->compute.ops = counted;
    p4_job_close(job);
    free(job);
}

/* A device that repeats does the work of a record twice: once, and to record it. */
static void expect_calls(const outcome *o, const way *w, bool repeats)
{
    int records = w->rounds < P4_ROUND_RECORDS ? w->rounds : P4_ROUND_RECORDS;
    EXPECT(o->rounds_done == (repeats ? 2 * records : STEPS * w->rounds), "%s: %d micro-batches by calls",
           w->name, o->rounds_done);
    EXPECT(o->updates_done == (repeats ? 2 : STEPS - 1), "%s: %d updates by calls", w->name, o->updates_done);
}

static void compare(const way *w, p4_group *group)
{
    outcome anew, repeated;
    int failed = check_failed;
    train(&anew, w, group, "off");
    train(&repeated, w, group, "on");
    expect_calls(&anew, w, false);
    expect_calls(&repeated, w, strcmp(test_device(), "cuda") == 0);
    for (int step = 0; step < STEPS; step++) {
        bool bad = step == BAD_STEP;
        EXPECT(bad || anew.loss[step] == repeated.loss[step], "step %d: loss %.9g, repeated %.9g", step,
               anew.loss[step], repeated.loss[step]);
        EXPECT(bad || anew.grad_norm[step] == repeated.grad_norm[step], "step %d: norm %.9g, repeated %.9g",
               step, anew.grad_norm[step], repeated.grad_norm[step]);
    }
    EXPECT(anew.bytes == repeated.bytes && memcmp(anew.state, repeated.state, (size_t)anew.bytes) == 0,
           "the state after %d steps", STEPS);
    if (check_failed != failed) {
        fprintf(stderr, "way \"%s\" failed\n", w->name);
    }
    free(anew.state);
    free(repeated.state);
}

/* test_trainer [WAY]: one of them, counted from 0. */
int main(int argc, char **argv)
{
    p4_machine machine;
    p4_group group;
    if (!device_is_here()) {
        return check_failed == 0 ? P4_SKIPPED : 1;
    }
    world_fill();
    EXPECT_OK(p4_machine_open(&machine));
    EXPECT_OK(p4_group_open(&group, &machine, NULL, 60));
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        if (argc < 2 || (size_t)atoi(argv[1]) == i) {
            compare(&ways[i], &group);
        }
    }
    p4_group_close(&group);
    p4_machine_close(&machine);
    world_end();
    return TEST_END();
}
