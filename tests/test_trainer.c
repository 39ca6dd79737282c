/* Training steps on one rank, where a device repeats the work of a step (ops->repeat), against steps that are
 * done anew every time (P4_GRAPH=off): the same losses, masters, optimizer state and codes, bit for bit, with
 * a step among them that is skipped. On the CPU both are done anew. */
#include "api_world.h"
#include "jobs/settings.h"
#include "jobs/train/trainer.h"
#include "src/leaf/rng.h"
#include "src/optim_state.h"

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
    {"AdamW and distillation in bf16, the last micro-batch smaller",
     "llama-gqa",
     {{"optimizer", "adamw"},
      {"mixed_precision", "true"},
      {"distill", "0.9"},
      {"distill_teacher", "resident"},
      {"calibration_batch_size", "3"},
      {"micro_batch_size", "2"}},
     2},
    {"Muon and distillation at a temperature, by the pipeline",
     "llama-bf16",
     {{"distill", "0.5"},
      {"distill_temperature", "2"},
      {"distill_teacher", "sharded"},
      {"distill_blocks", "2"},
      {"recompute", "blocks"},
      {"calibration_batch_size", "4"},
      {"micro_batch_size", "2"}},
     2},
    {"GPT-2 in bf16, distillation with the outputs of blocks",
     "gpt2-plain",
     {{"optimizer", "adamw"},
      {"mixed_precision", "true"},
      {"distill", "0.9"},
      {"distill_blocks", "1"},
      {"distill_teacher", "resident"},
      {"calibration_batch_size", "3"},
      {"micro_batch_size", "2"}},
     2},
    {"a slot of which one part is preserved",
     "llama-bias",
     {{"preserve_layers", "[\"model.layers.0.self_attn.k_proj.weight\"]"},
      {"quantizer", "absmean"},
      {"zero_stage", "1"},
      {"calibration_batch_size", "6"},
      {"micro_batch_size", "2"}},
     3},
    {"Muon, Grokfast and learned scales, a scale a tensor, bf16 state",
     "llama-gqa",
     {{"learn_scales", "true"},
      {"scale_granularity", "tensor"},
      {"preserve_layers", "[\"*.down_proj.*\"]"},
      {"enable_grokfast", "true"},
      {"optimizer_state", "bf16"},
      {"calibration_batch_size", "3"},
      {"micro_batch_size", "2"}},
     2},
    {"AdamW in bf16 and learned scales, a ternary embedding",
     "llama-gqa",
     {{"learn_scales", "true"},
      {"optimizer", "adamw"},
      {"mixed_precision", "true"},
      {"preserve_embedding_precision", "false"},
      {"calibration_batch_size", "3"}},
     1},
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
    double loss[STEPS], kl[STEPS], distance[STEPS], grad_norm[STEPS];
    bool applied[STEPS];
    char *state; /* masters, moments, averages, codes */
    int64_t bytes;
    int rounds_done, updates_done; /* calls of ops in them */
} outcome;

static p4_ops counting; /* the device's table with two ops that count */
static const p4_ops *counted;
static int losses, updates;

static void count_loss(p4_device *device, const p4_cross_entropy_args *args)
{
    losses++;
    counted->cross_entropy(device, args);
}

static void count_distillation(p4_device *device, const p4_distill_loss_args *args)
{
    losses++;
    counted->distill_loss(device, args);
}

static void count_update(p4_device *device, const p4_adamw_item *h_items, int64_t items, float beta1,
                         float beta2, float eps, bool half, const p4_step_numbers *numbers)
{
    updates += items > 1; /* learned scales are one, apart */
    counted->adamw(device, h_items, items, beta1, beta2, eps, half, numbers);
}

static void count_ops(p4_compute *compute)
{
    counted = compute->ops;
    counting = *counted;
    counting.cross_entropy = count_loss;
    counting.distill_loss = count_distillation;
    counting.adamw = count_update;
    compute->ops = &counting;
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

/* What a training takes. */
typedef struct subject {
    p4_config config;
    p4_compute compute;
    p4_original original;
    p4_windows windows;
    p4_training_set *set; /* of windows */
    p4_train_plan plan;
} subject;

static void open_subject(subject *s, const way *w, p4_group *group)
{
    p4_rng rng = {.seed = 5, .stream = 1};
    configure(&s->config, w);
    p4_compute_settings settings = p4_settings_compute(&s->config);
    EXPECT_OK(p4_compute_open(&s->compute, group, &settings));
    EXPECT_OK(p4_settings_open_original(&s->original, &s->config, group->ranks));
    s->windows = (p4_windows){.count = WINDOWS, .T = T};
    s->windows.ids = p4_alloc(WINDOWS * T, sizeof *s->windows.ids);
    for (int64_t i = 0; s->windows.ids != NULL && i < WINDOWS * T; i++) {
        s->windows.ids[i] = (int32_t)p4_rng_below(&rng, VOCAB);
    }
    EXPECT_OK(p4_training_set_of_windows(&s->set, &s->windows));
    s->plan = p4_settings_train(&s->config, T, NULL);
}

static void close_subject(subject *s)
{
    p4_training_set_close(s->set);
    p4_windows_free(&s->windows);
    p4_original_close(&s->original);
    p4_compute_close(&s->compute);
    free(s);
}

/* Appends device memory to the outcome. */
static void keep(outcome *o, const p4_compute *compute, const void *from, int64_t bytes)
{
    char *more = p4_resize(o->state, (size_t)(o->bytes + bytes), 1);
    EXPECT(more != NULL, "%s", p4_last_error());
    if (more != NULL) {
        o->state = more;
        compute->ops->to_host(compute->device, o->state + o->bytes, from, bytes);
        o->bytes += bytes;
    }
}

static void keep_state(outcome *o, const p4_trainer *t)
{
    int64_t each = t->optim.settings.half_state ? 2 : 4, count = t->optim.count;
    keep(o, t->compute, t->optim.master, count * 4);
    keep(o, t->compute, t->optim.m, count * each);
    keep(o, t->compute, t->optim.v, t->optim.v_count * each);
    if (t->optim.ema != NULL) {
        keep(o, t->compute, t->optim.ema, count * each);
    }
    if (t->optim.scale_count > 0) {
        keep(o, t->compute, t->optim.scales, t->optim.scale_count * 4);
        keep(o, t->compute, t->optim.scale_m, t->optim.scale_count * 4);
        keep(o, t->compute, t->optim.scale_v, t->optim.scale_count * 4);
    }
    for (int64_t i = 0; i < t->model->params_count; i++) { /* what lies between them is undefined */
        const p4_weight *w = &t->codes.of[i];
        if (w->data != NULL) {
            keep(o, t->compute, w->data, w->rows * p4_code_row_bytes(w->cols));
            keep(o, t->compute, w->scale, p4_weight_scale_count(w) * 2);
        }
    }
    EXPECT_OK(t->compute->ops->sync(t->compute->device));
}

/* One step, with an infinite gain of the last norm if it is to be bad. */
static void run_step(outcome *o, p4_trainer *t, int step)
{
    const p4_model *model = t->model;
    float *gain = t->optim.master + t->optim.at[p4_model_find(model, P4_ROLE_FINAL_GAIN, -1)];
    float kept = 0.0f, infinite = INFINITY;
    p4_step_result result = {0};
    t->compute->ops->to_host(t->compute->device, &kept, gain, sizeof kept);
    if (step == BAD_STEP) {
        t->compute->ops->to_device(t->compute->device, gain, &infinite, sizeof infinite);
    }
    EXPECT_OK(p4_trainer_step(t, step, &result));
    if (step == BAD_STEP) {
        t->compute->ops->to_device(t->compute->device, gain, &kept, sizeof kept);
    }
    o->loss[step] = result.loss;
    o->kl[step] = t->plan.teacher.weight > 0 ? result.kl : 0.0;
    o->distance[step] = t->plan.teacher.blocks > 0 ? result.block_distance : 0.0;
    o->grad_norm[step] = result.grad_norm;
    EXPECT(t->plan.teacher.blocks > 0 || isnan(result.block_distance), "step %d: distance %g", step,
           result.block_distance);
    EXPECT(t->plan.teacher.weight > 0 || isnan(result.kl), "step %d: KL %g without a teacher", step,
           result.kl);
    o->applied[step] = result.applied;
    EXPECT(result.applied == (step != BAD_STEP), "step %d: loss %g, norm %g", step, result.loss,
           result.grad_norm);
}

static bool plan_distills(const way *w)
{
    bool found = false;
    for (int i = 0; i < PAIRS && w->keys[i][0] != NULL; i++) {
        found = found || strcmp(w->keys[i][0], "distill") == 0;
    }
    return found;
}

/* A gradient that stays infinite ends the training, and the message names a tensor. */
static void expect_end(p4_trainer *t)
{
    enum { IN_A_ROW = 5 };
    p4_step_result result;
    float infinite = INFINITY;
    int64_t gain = p4_model_find(t->model, P4_ROLE_FINAL_GAIN, -1);
    t->compute->ops->to_device(t->compute->device, t->optim.master + t->optim.at[gain], &infinite,
                               sizeof infinite);
    for (int i = 1; i < IN_A_ROW; i++) {
        EXPECT_OK(p4_trainer_step(t, STEPS - 1, &result));
    }
    EXPECT(p4_trainer_step(t, STEPS - 1, &result) == P4_E_INPUT, "it goes on");
    const char *words = "fine-tuning: the gradient was not finite for 5 steps in a row: that of ";
    bool named = false;
    for (int64_t i = 0; i < t->model->params_count; i++) {
        named = named || strstr(p4_last_error(), t->model->params[i].name) != NULL;
    }
    EXPECT(named && strncmp(p4_last_error(), words, strlen(words)) == 0, "message: %s", p4_last_error());
    p4_error_clear();
}

static void train(outcome *o, const way *w, p4_group *group, const char *graph)
{
    subject *s = p4_alloc(1, sizeof *s);
    p4_trainer trainer = {0};
    *o = (outcome){0};
    EXPECT(setenv("P4_GRAPH", graph, 1) == 0, "setenv");
    open_subject(s, w, group);
    count_ops(&s->compute);
    EXPECT_OK(p4_trainer_open(&trainer, &s->compute, &s->original, s->set, &s->plan, NULL));
    EXPECT(trainer.batch.count == w->rounds, "%s: %lld micro-batches", w->name,
           (long long)trainer.batch.count);
    for (int step = 0; step < STEPS; step++) {
        run_step(o, &trainer, step);
    }
    EXPECT(plan_distills(w) == p4_teacher_is_open(&trainer.teacher) && (!plan_distills(w) || o->kl[0] > 1e-6),
           "%s: KL %g in the first step", w->name, o->kl[0]);
    EXPECT(trainer.optim.step == STEPS - 1, "%s: %lld updates", w->name, (long long)trainer.optim.step);
    o->rounds_done = losses;
    o->updates_done = updates;
    keep_state(o, &trainer);
    expect_end(&trainer);
    p4_trainer_close(&trainer);
    s->compute.ops = counted;
    close_subject(s);
}

/* Every part of every tensor of one trainer, by name, to another. */
static void copy_state(p4_trainer *to, const p4_trainer *from)
{
    int64_t copied = 0;
    for (int64_t i = 0; i < from->model->params_count; i++) {
        const char *name = from->model->params[i].name;
        for (p4_optim_part part = 0; part < P4_PART_COUNT; part++) {
            int64_t bytes = p4_optim_part_bytes(&from->optim, name, part);
            char *h_part = p4_alloc((size_t)bytes + 1, 1);
            EXPECT(bytes > 0 || part != P4_PART_MASTER, "%s has no master", name);
            EXPECT(p4_optim_part_bytes(&to->optim, name, part) == bytes, "%s %s", name,
                   p4_optim_part_name(part));
            if (bytes > 0) {
                EXPECT_OK(p4_optim_get(&from->optim, name, part, h_part, bytes));
                EXPECT_OK(p4_optim_set(&to->optim, name, part, h_part, bytes));
                EXPECT(p4_optim_set(&to->optim, name, part, h_part, bytes - 1) == P4_E_STATE,
                       "%s: wrong size", name);
                p4_error_clear();
                copied++;
            }
            free(h_part);
        }
    }
    EXPECT(copied > from->model->params_count, "%lld parts", (long long)copied);
    EXPECT(p4_optim_part_bytes(&from->optim, "no such tensor", P4_PART_MASTER) == 0,
           "a tensor that is not there");
    to->optim.step = from->optim.step;
}

/* A trainer that gets the state of another under the tensors' names goes on as that one does, bit for bit. */
static void continue_by_name(const way *w, p4_group *group)
{
    subject *s = p4_alloc(1, sizeof *s);
    p4_trainer first = {0}, second = {0};
    outcome a = {0}, b = {0};
    open_subject(s, w, group);
    EXPECT_OK(p4_trainer_open(&first, &s->compute, &s->original, s->set, &s->plan, NULL));
    EXPECT_OK(p4_trainer_open(&second, &s->compute, &s->original, s->set, &s->plan, NULL));
    run_step(&a, &first, 0);
    run_step(&a, &first, 1);
    copy_state(&second, &first);
    EXPECT_OK(p4_trainer_requantize(&second));
    run_step(&a, &first, 2);
    run_step(&b, &second, 2);
    keep_state(&a, &first);
    keep_state(&b, &second);
    EXPECT(a.loss[2] == b.loss[2] && a.grad_norm[2] == b.grad_norm[2], "%s: loss %.9g and %.9g", w->name,
           a.loss[2], b.loss[2]);
    EXPECT(a.bytes == b.bytes && memcmp(a.state, b.state, (size_t)a.bytes) == 0, "%s: the state", w->name);
    p4_trainer_close(&first);
    p4_trainer_close(&second);
    free(a.state);
    free(b.state);
    close_subject(s);
}

/* A device that repeats does the work of a record twice: once, and to record it. */
static void expect_calls(const outcome *o, const way *w, bool repeats)
{
    int records = w->rounds < P4_RECORDED_MICRO_BATCHES ? w->rounds : P4_RECORDED_MICRO_BATCHES;
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
        EXPECT(bad || anew.kl[step] == repeated.kl[step], "step %d: KL %.9g, repeated %.9g", step,
               anew.kl[step], repeated.kl[step]);
        EXPECT(bad || anew.distance[step] == repeated.distance[step], "step %d: distance %.9g, repeated %.9g",
               step, anew.distance[step], repeated.distance[step]);
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

/* What the quantizer weighs channels by is in the memory report, once a slot; what calibration does not see
 * takes none. */
static void importance_is_counted(p4_group *group)
{
    static const way w = {"importance", "llama-gqa", {{"preserve_embedding_precision", "false"}}, 1};
    subject *s = p4_alloc(1, sizeof *s);
    p4_trainer plain = {0}, weighing = {0};
    open_subject(s, &w, group);
    const p4_model *model = &s->original.hf.model;
    p4_statistics statistics = {.count = model->params_count};
    statistics.entries = p4_alloc((size_t)model->params_count, sizeof *statistics.entries);
    double *ones = p4_alloc(4096, sizeof *ones);
    int64_t slots = 0, others = 0;
    for (int64_t i = 0; i < 4096; i++) {
        ones[i] = 1;
    }
    for (int64_t i = 0; i < model->params_count; i++) {
        const p4_param *p = &model->params[i];
        bool matrix = p4_role_is_matrix(p->role);
        statistics.entries[i].input_mean_square = p->ternary && matrix ? ones : NULL;
        slots += p->ternary && matrix && p->row_offset == 0 ? p->cols : 0;
        others += p->ternary && !matrix ? p->cols : 0;
    }
    EXPECT(slots > 0 && others > 0, "nothing is tested");
    EXPECT_OK(p4_trainer_open(&plain, &s->compute, &s->original, s->set, &s->plan, NULL));
    s->plan.quantize.quantizer = &p4_quantizers[P4_QUANTIZER_EXACT_DIAGONAL];
    s->plan.quantize.statistics = &statistics;
    EXPECT_OK(p4_trainer_open(&weighing, &s->compute, &s->original, s->set, &s->plan, NULL));
    int64_t bytes = p4_trainer_bytes(&weighing).codes_bytes - p4_trainer_bytes(&plain).codes_bytes;
    EXPECT(bytes == slots * 4, "%lld bytes, expected %lld", (long long)bytes, (long long)slots * 4);
    p4_trainer_close(&weighing);
    p4_trainer_close(&plain);
    free(ones);
    free(statistics.entries);
    close_subject(s);
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
            continue_by_name(&ways[i], &group);
        }
    }
    importance_is_counted(&group);
    p4_group_close(&group);
    p4_machine_close(&machine);
    world_end();
    return TEST_END();
}
