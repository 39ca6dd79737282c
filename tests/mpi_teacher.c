/* The teacher of a training on several ranks: of each kind, and however the windows are divided, it gives the
 * losses and gradients of a network with the original's states and head from one pass on this rank alone. The
 * head's bias is part of that, and so are the outputs of blocks. */
#include "api_world.h"
#include "dist/group.h"
#include "jobs/settings.h"
#include "jobs/train/teacher.h"
#include "net_world.h"
#include "src/leaf/rng.h"

enum { COUNT = 5, LENGTH = 9, N = COUNT * LENGTH, MICRO = 2 /* windows of a micro-batch */, LAYERS = 8 };

/* A model in a group, and what it computes without one. */
typedef struct subject {
    p4_config config;
    p4_compute compute;
    p4_original original;
    p4_windows windows;  /* what the teacher reads */
    p4_device_form form; /* of the model that learns: the same weights, but it reads `own` */
    int32_t own[N];
    p4_score want[2]; /* means; without blocks, with them */
    grads want_grads[2];
    int64_t grads_count;
} subject;

static const float weight = 0.75f, temperature = 2.0f, blocks = 1.5f;

static void random_ids(int32_t *ids, int64_t V, uint64_t stream)
{
    p4_rng rng = {.seed = 3, .stream = stream};
    for (int i = 0; i < N; i++) {
        ids[i] = (int32_t)p4_rng_below(&rng, (uint64_t)V);
    }
}

static p4_net_plan plan_of(int64_t B, bool with_blocks)
{
    return (p4_net_plan){
        .B = B, .T = LENGTH, .train = true, .head = true, .reference = true, .blocks = with_blocks};
}

/* Adds the losses of B windows, and their gradients to *g. */
static void train(const subject *s, p4_net *net, const int32_t *ids, int64_t B, grads *g)
{
    const p4_grad_sink sink = {grad_buffer, ready, g};
    p4_net_set_tokens(net, ids, B, LENGTH);
    p4_net_train(net, &s->form.form, B, LENGTH, 1.0f / (float)(COUNT * (LENGTH - 1)), &sink);
}

static void divide(p4_score *score, const subject *s)
{
    score->nll /= score->count;
    score->kl /= score->count;
    score->blocks /= (double)(N * s->original.hf.model.arch.L);
}

/* The final states and those after each block. The caller releases. */
static void *take_states(const subject *s, void **outputs)
{
    const p4_model *model = &s->original.hf.model;
    int64_t bytes = N * model->arch.C * ops->act_bytes(device);
    p4_net net;
    p4_net_plan plan = {.B = COUNT, .T = LENGTH};
    void *x = take(bytes), *states = take(bytes);
    for (int64_t l = 0; l < model->arch.L; l++) {
        outputs[l] = take(bytes);
    }
    EXPECT_OK(p4_net_open(&net, ops, device, model, &plan));
    p4_net_set_tokens(&net, s->windows.ids, COUNT, LENGTH);
    p4_net_embed(&net, &s->form.form, x, COUNT, LENGTH);
    p4_net_layers(&net, &(p4_net_pass){.form = &s->form.form, .B = COUNT, .T = LENGTH, .outputs = outputs}, 0,
                  model->arch.L, x);
    ops->copy(device, outputs[model->arch.L - 1], x, bytes);
    p4_net_final_norm(&net, &s->form.form, x, false, N);
    ops->copy(device, states, net.final_n, bytes);
    EXPECT_OK(ops->sync(device));
    p4_net_close(&net);
    ops->release(device, x);
    return states;
}

static void want_with(subject *s, const p4_net_teacher *teacher)
{
    const p4_model *model = &s->original.hf.model;
    bool with_blocks = teacher->blocks != NULL;
    p4_score *want = &s->want[with_blocks];
    p4_net net;
    p4_net_plan plan = plan_of(COUNT, with_blocks);
    take_grads(&s->want_grads[with_blocks], model);
    EXPECT_OK(p4_net_open(&net, ops, device, model, &plan));
    net.teacher = teacher;
    train(s, &net, s->own, COUNT, &s->want_grads[with_blocks]);
    EXPECT_OK(p4_net_take_score(&net, want));
    read_grads(&s->want_grads[with_blocks]);
    divide(want, s);
    EXPECT(want->kl > 1e-3 && (!with_blocks || want->blocks > 1e-3),
           "%s: the teacher is the model: KL %g, distance %g", s->original.hf.path, want->kl, want->blocks);
    p4_net_close(&net);
}

/* Without jobs/train/teacher*.c. */
static void want_of(subject *s)
{
    const p4_model *model = &s->original.hf.model;
    const p4_arch *a = &model->arch;
    int64_t ld = p4_net_logits_ld(ops, a->V), bytes = ld * a->C * ops->act_bytes(device);
    int64_t head_at = p4_model_find(model, a->tied ? P4_ROLE_EMBED : P4_ROLE_HEAD, -1);
    void *outputs[LAYERS], *states = take_states(s, outputs), *head = take(bytes);
    float *bias = take(ld * 4);
    ops->zero(device, head, bytes);
    ops->weight_unpack(device, head, &s->form.form.weights[head_at]);
    ops->zero(device, bias, ld * 4);
    if (a->head_bias) {
        ops->copy(device, bias, s->form.form.vectors[p4_model_find(model, P4_ROLE_HEAD_BIAS, -1)], a->V * 4);
    }
    p4_net_teacher teacher = {.weight = weight,
                              .temperature = temperature,
                              .states = states,
                              .head = head,
                              .head_bias = a->head_bias ? bias : NULL};
    want_with(s, &teacher);
    teacher.blocks_scale = blocks / (float)(a->L * N);
    teacher.blocks = outputs;
    want_with(s, &teacher);
    for (int64_t l = 0; l < a->L; l++) {
        ops->release(device, outputs[l]);
    }
    ops->release(device, states);
    ops->release(device, head);
    ops->release(device, bias);
}

static void open_subject(subject *s, p4_group *group, const char *model)
{
    small_config(&s->config);
    snprintf(s->config.model_path, sizeof s->config.model_path, "%s", fixture(model));
    p4_compute_settings settings = p4_settings_compute(&s->config);
    EXPECT_OK(p4_compute_open(&s->compute, group, &settings));
    EXPECT_OK(p4_settings_open_original(&s->original, &s->config, group->ranks));
    ops = s->compute.ops;
    device = s->compute.device;
    const p4_model *of = &s->original.hf.model;
    EXPECT(of->arch.L <= LAYERS, "%s has %lld layers", model, (long long)of->arch.L);
    s->windows = (p4_windows){.count = COUNT, .T = LENGTH, .ids = p4_alloc(N, sizeof *s->windows.ids)};
    random_ids(s->windows.ids, of->arch.V, 1);
    random_ids(s->own, of->arch.V, 2);
    EXPECT_OK(p4_device_form_open(&s->form, ops, device, of, of->weights));
    for (int64_t i = 0; i < of->params_count; i++) {
        s->grads_count += of->params[i].rows * of->params[i].cols;
    }
    want_of(s);
}

static void close_subject(subject *s)
{
    free_grads(&s->want_grads[0]);
    free_grads(&s->want_grads[1]);
    p4_device_form_close(&s->form);
    p4_windows_free(&s->windows);
    p4_original_close(&s->original);
    p4_compute_close(&s->compute);
    free(s);
}

/* This rank's windows in micro-batches, as a training takes them; a rank may have fewer than another. */
static void run_micro_batches(subject *s, p4_teacher *teacher, p4_training_set *set, grads *g,
                              p4_score *score)
{
    const p4_group *group = s->compute.group;
    int64_t low = COUNT * group->rank / group->ranks, high = COUNT * (group->rank + 1) / group->ranks,
            rounds = p4_ceil_div(p4_ceil_div(COUNT, group->ranks), MICRO);
    p4_net net;
    p4_net_plan plan = plan_of(MICRO, teacher->view.blocks != NULL);
    EXPECT_OK(p4_net_open(&net, ops, device, &s->original.hf.model, &plan));
    net.teacher = &teacher->view;
    p4_training_set_step(set, 0);
    for (int64_t i = 0; i < rounds; i++) {
        int64_t from = p4_min_i64(low + i * MICRO, high), B = p4_min_i64(MICRO, high - from);
        int32_t ids[MICRO * LENGTH], own[MICRO * LENGTH];
        if (B > 0) {
            p4_training_set_sequences(set, ids, from, B);
        }
        for (int64_t b = 0; b < B; b++) {
            int64_t window = p4_training_set_drawn(set, 0, from + b);
            memcpy(own + b * LENGTH, s->own + window * LENGTH, LENGTH * sizeof *own);
        }
        p4_teacher_prepare(teacher, ids, 0, from, B);
        if (B > 0) {
            p4_teacher_forward(teacher, B);
            train(s, &net, own, B, g);
        }
    }
    EXPECT_OK(p4_net_take_score(&net, score));
    p4_net_close(&net);
}

/* |a - b|, relative to the norm of b. */
static double distance(const float *a, const float *b, int64_t count)
{
    double difference = 0.0, size = 0.0;
    for (int64_t i = 0; i < count; i++) {
        difference += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        size += (double)b[i] * (double)b[i];
    }
    return sqrt(difference / size);
}

/* Bounds: sums in fp32 in another order; a file of all probabilities holds logarithms rounded to fp32. */
static void check_kind(subject *s, p4_teacher_kind kind)
{
    static const char *const names[] = {"auto", "resident", "sharded", "cached"};
    p4_group *group = s->compute.group;
    bool cached = kind == P4_TEACHER_CACHED;
    int64_t V = s->original.hf.model.arch.V;
    const double bound = cached ? 1e-4 : 1e-5;
    p4_teacher teacher = {0};
    p4_training_set *set;
    p4_score score = {0};
    grads g;
    const p4_teacher_plan plan = {.weight = (double)weight,
                                  .temperature = (double)temperature,
                                  .blocks = cached ? 0 : (double)blocks,
                                  .kind = kind,
                                  .T = LENGTH,
                                  .top_k = V,
                                  .folder = world,
                                  .steps = 1,
                                  .sequences = COUNT};
    EXPECT_OK(p4_training_set_of_windows(&set, &s->windows));
    EXPECT_OK(p4_training_set_schedule(set, 7, COUNT, COUNT * group->rank / group->ranks,
                                       COUNT * (group->rank + 1) / group->ranks));
    EXPECT_OK(p4_teacher_open(&teacher, &s->compute, &s->original, set, &plan, 0));
    EXPECT_OK(p4_teacher_reserve(&teacher, MICRO));
    take_grads(&g, &s->original.hf.model);
    run_micro_batches(s, &teacher, set, &g, &score);
    read_grads(&g);
    double sums[] = {score.nll, score.kl, score.blocks, score.count};
    p4_group_sum_f64(group, sums, 4);
    p4_group_sum_f32(group, g.h_flat, s->grads_count);
    score = (p4_score){.nll = sums[0], .kl = sums[1], .blocks = sums[2], .count = sums[3]};
    const p4_score *want = &s->want[!cached];
    EXPECT(score.count == want->count, "%s: %g predictions", names[kind], score.count);
    divide(&score, s);
    double apart = distance(g.h_flat, s->want_grads[!cached].h_flat, s->grads_count);
    EXPECT_NEAR(score.nll, want->nll, 1e-6 * want->nll);
    EXPECT(fabs(score.kl - want->kl) < bound * want->kl, "%s, %s: KL %.9g, alone %.9g", s->original.hf.path,
           names[kind], score.kl, want->kl);
    EXPECT(cached || fabs(score.blocks - want->blocks) < bound * want->blocks,
           "%s, %s: distance %g, alone %g", s->original.hf.path, names[kind], score.blocks, want->blocks);
    EXPECT(apart < bound, "%s, %s: the gradients differ by %g", s->original.hf.path, names[kind], apart);
    free_grads(&g);
    p4_teacher_close(&teacher);
    p4_training_set_close(set);
}

int main(void)
{
    static const char *const models[] = {"llama-gqa",    "phi-plain",   "phi-tied",
                                         "cohere-plain", "gemma2-caps", "qwen3_moe-plain"};
    p4_machine machine;
    p4_group group;
    setenv("CUDA_VISIBLE_DEVICES", "", 1);
    EXPECT_OK(p4_machine_open(&machine));
    EXPECT_OK(p4_group_open(&group, &machine, NULL, 60));
    p4_group_set_log(&group, P4_LOG_WARN);
    if (group.rank == 0) {
        world_fill();
    }
    p4_group_bcast(&group, world, sizeof world, 0);
    for (size_t i = 0; i < sizeof models / sizeof models[0]; i++) {
        subject *s = p4_alloc(1, sizeof *s);
        open_subject(s, &group, models[i]);
        for (p4_teacher_kind kind = P4_TEACHER_RESIDENT; kind <= P4_TEACHER_CACHED; kind++) {
            check_kind(s, kind);
        }
        close_subject(s);
    }
    p4_group_barrier(&group);
    if (group.rank == 0) {
        world_end();
    }
    double failed = check_failed;
    p4_group_sum_f64(&group, &failed, 1);
    check_failed = (int)failed;
    p4_group_close(&group);
    p4_machine_close(&machine);
    return TEST_END();
}
