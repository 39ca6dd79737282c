/* Tiny random models of every family against the reference library: logits, loss and every gradient
 * (fixtures/make_tiny_models.py). What the network says it computes must occur in a fixture. Also:
 * recomputation and micro-batches give the same gradients; distillation with the outputs of blocks
 * (fixtures/make_distillation.py). On every backend of this build: the CPU, and a GPU
 * in fp32 and bf16 where there is one (P4_NEED_GPU=1: a failure where there is none). */
#include "io/file/files.h"
#include "net_world.h"
#include "src/net_takes.h"

/* A norm of a gradient that is 0 but for rounding: of the bias of keys that are not rotated, which moves all
 * scores of a query alike. */
#define ZERO 1e-7

/* In bf16 a token whose experts' logits are nearly equal may go to another expert than in fp32: the bounds of
 * a mixture are so many times wider. */
#define OTHER_EXPERT 5.0

/* One way to compute, and how far from the reference it may be. */
typedef struct way {
    const char *backend;
    bool half;
    double logits;   /* largest error, of the largest logit */
    double loss;     /* absolute */
    double gradient; /* norm of a tensor's error, of its norm */
    double zero;     /* and of the largest norm of all tensors */
} way;

/* bf16: activations carry 8 bits, and every layer adds its rounding; the bounds are twice what was seen. */
static const way ways[] = {{"cpu", false, 1e-4, 1e-5, 1e-3, 0},
                           {"cuda", false, 1e-4, 1e-5, 1e-3, 0},
                           {"cuda", true, 8e-2, 1e-2, 2e-1, 2e-3}};
static const way *now;
static p4_net_takes seen;                               /* in fixtures that were compared */
static double worst_logits, worst_loss, worst_gradient; /* seen of the way at hand */
static int distilled;                                   /* models whose distillation was compared */

static double widened(const p4_model *model)
{
    return now->half && model->arch.experts > 0 ? OTHER_EXPERT : 1.0;
}

/* The largest norm of a gradient in the reference. */
static double largest_norm(const p4_safetensors *file, const p4_model *model)
{
    double largest = 0;
    for (int64_t i = 0; i < model->params_count; i++) {
        char name[P4_TENSOR_NAME_BYTES + 8];
        int64_t count = 0;
        snprintf(name, sizeof name, "grad.%s", model->params[i].name);
        float *want = golden(file, name, &count);
        double norm = 0;
        for (int64_t k = 0; want != NULL && k < count; k++) {
            norm += (double)want[k] * (double)want[k];
        }
        largest = fmax(largest, sqrt(norm));
        free(want);
    }
    return largest;
}

static void compare_gradients(const char *dir, const p4_safetensors *file, const grads *g)
{
    const double bound = now->gradient * widened(g->model);
    const double floor = ZERO + now->zero * largest_norm(file, g->model);
    for (int64_t i = 0; i < g->model->params_count; i++) {
        const p4_param *p = &g->model->params[i];
        char name[P4_TENSOR_NAME_BYTES + 8];
        int64_t count;
        snprintf(name, sizeof name, "grad.%s", p->name);
        float *want = golden(file, name, &count);
        EXPECT(want != NULL && count == p->rows * p->cols, "%s: golden %s is missing", dir, name);
        if (want == NULL) {
            continue;
        }
        double error = 0, norm = 0;
        for (int64_t r = 0; r < p->rows; r++) {
            for (int64_t c = 0; c < p->cols; c++) {
                double w = want[p->transposed ? c * p->rows + r : r * p->cols + c];
                double d = (double)g->h_flat[g->at[i] + r * p->cols + c] - w;
                error += d * d;
                norm += w * w;
            }
        }
        EXPECT(sqrt(error) <= bound * sqrt(norm) + floor, "%s: %s: gradient of norm %.3g differs by %.3g",
               dir, p->name, sqrt(norm), sqrt(error));
        worst_gradient = norm > floor * floor ? fmax(worst_gradient, sqrt(error / norm)) : worst_gradient;
        free(want);
    }
}

static void check_forward(const char *dir, p4_net *net, const p4_form *form, const int32_t *ids,
                          const float *logits, int64_t B, int64_t T)
{
    const p4_arch *a = &net->model->arch;
    int64_t count = B * T * a->V;
    float *got = p4_alloc((size_t)count, sizeof *got);
    void *x = take(B * T * a->C * ops->act_bytes(device));
    p4_net_set_tokens(net, ids, B, T);
    p4_net_embed(net, form, x, B, T);
    p4_net_layers(net, &(p4_net_pass){.form = form, .B = B, .T = T}, 0, a->L, x);
    p4_net_final_norm(net, form, x, false, B * T);
    EXPECT_OK(p4_net_logits(net, form, got, B * T));
    double worst = 0, largest = 0;
    for (int64_t i = 0; i < count; i++) {
        double d = fabs((double)got[i] - (double)logits[i]);
        worst = d > worst || d != d ? d : worst;
        largest = fmax(largest, fabs((double)logits[i]));
    }
    EXPECT(worst <= now->logits * widened(net->model) * largest, "%s: logits differ by %.3g of %.3g", dir,
           worst, largest);
    worst_logits = fmax(worst_logits, worst / largest);
    ops->release(device, x);
    free(got);
}

static void check_training(const char *dir, const p4_model *model, const p4_form *form,
                           const p4_safetensors *file, const int32_t *ids, int64_t B, int64_t T,
                           p4_recompute recompute, bool one_by_one)
{
    p4_net net;
    grads g;
    p4_score score = {0};
    int64_t unused;
    int64_t per = one_by_one ? 1 : B;
    take_grads(&g, model);
    p4_net_plan plan = {.B = per, .T = T, .train = true, .recompute = recompute, .head = true};
    p4_grad_sink sink = {grad_buffer, ready, &g};
    EXPECT_OK(p4_net_open(&net, ops, device, model, &plan));
    for (int64_t b = 0; b < B; b += per) {
        p4_net_set_tokens(&net, ids + b * T, per, T);
        p4_net_train(&net, form, per, T, 1.0f / (float)(B * (T - 1)), &sink);
    }
    EXPECT_OK(p4_net_take_score(&net, &score));
    read_grads(&g);
    float *loss = golden(file, "loss", &unused);
    EXPECT_NEAR(score.nll / score.count, loss[0], now->loss);
    EXPECT(score.count == (double)(B * (T - 1)), "%g predictions", score.count);
    worst_loss = fmax(worst_loss, fabs(score.nll / score.count - (double)loss[0]));
    compare_gradients(dir, file, &g);
    free(loss);
    free_grads(&g);
    p4_net_close(&net);
}

/* Device memory with golden tensor `name`, in the type of activations. */
static void *put_golden(const p4_safetensors *file, const char *name)
{
    int64_t count;
    float *values = golden(file, name, &count), *f32 = take(count * 4);
    void *act = take(count * ops->act_bytes(device));
    ops->to_device(device, f32, values, count * 4);
    ops->weight_unpack(device, act, &(p4_weight){.dtype = P4_F32, .rows = 1, .cols = count, .data = f32});
    EXPECT_OK(ops->sync(device));
    ops->release(device, f32);
    free(values);
    return act;
}

static double golden_number(const p4_safetensors *file, const char *name)
{
    int64_t count;
    float *value = golden(file, name, &count);
    double number = value != NULL ? (double)value[0] : (double)NAN;
    free(value);
    return number;
}

/* The teacher of make_distillation.py, whose head is the model's. */
typedef struct golden_teacher {
    p4_net_teacher view;
    void *states, *head, *blocks[8];
    float *head_bias; /* NULL: none */
} golden_teacher;

static void open_teacher(golden_teacher *t, const p4_model *model, const p4_form *form,
                         const p4_safetensors *file, int64_t N)
{
    const p4_arch *a = &model->arch;
    int64_t head = p4_model_find(model, a->tied ? P4_ROLE_EMBED : P4_ROLE_HEAD, -1);
    int64_t ld = p4_net_logits_ld(ops, a->V), bytes = ld * a->C * ops->act_bytes(device);
    *t = (golden_teacher){.states = put_golden(file, "states"), .head = take(bytes)};
    ops->zero(device, t->head, bytes);
    ops->weight_unpack(device, t->head, &form->weights[head]);
    if (a->head_bias) {
        t->head_bias = take(ld * 4);
        ops->zero(device, t->head_bias, ld * 4);
        ops->copy(device, t->head_bias, form->vectors[p4_model_find(model, P4_ROLE_HEAD_BIAS, -1)], a->V * 4);
    }
    for (int64_t l = 0; l < a->L; l++) {
        char name[16];
        snprintf(name, sizeof name, "block.%lld", (long long)l);
        t->blocks[l] = put_golden(file, name);
    }
    t->view = (p4_net_teacher){.weight = 0.75f,
                               .temperature = 2.0f,
                               .states = t->states,
                               .head = t->head,
                               .head_bias = t->head_bias,
                               .blocks_scale = 1.5f / (float)(N * a->L),
                               .blocks = t->blocks};
}

static void close_teacher(golden_teacher *t)
{
    for (size_t l = 0; l < sizeof t->blocks / sizeof t->blocks[0] && t->blocks[l] != NULL; l++) {
        ops->release(device, t->blocks[l]);
    }
    ops->release(device, t->states);
    ops->release(device, t->head);
    if (t->head_bias != NULL) {
        ops->release(device, t->head_bias);
    }
}

/* Losses and gradients with a teacher whose blocks are compared too. */
static void compare_distillation(const char *dir, const p4_model *model, const p4_form *form,
                                 const p4_safetensors *file, const int32_t *ids, int64_t B, int64_t T,
                                 p4_recompute recompute)
{
    p4_net net;
    grads g;
    golden_teacher teacher;
    p4_score score = {0};
    take_grads(&g, model);
    open_teacher(&teacher, model, form, file, B * T);
    p4_net_plan plan = {.B = B,
                        .T = T,
                        .train = true,
                        .recompute = recompute,
                        .head = true,
                        .reference = true,
                        .blocks = true};
    p4_grad_sink sink = {grad_buffer, ready, &g};
    EXPECT_OK(p4_net_open(&net, ops, device, model, &plan));
    net.teacher = &teacher.view;
    p4_net_set_tokens(&net, ids, B, T);
    p4_net_train(&net, form, B, T, 1.0f / (float)(B * (T - 1)), &sink);
    EXPECT_OK(p4_net_take_score(&net, &score));
    read_grads(&g);
    EXPECT_NEAR(score.nll / score.count, golden_number(file, "nll"), now->loss);
    EXPECT_NEAR(score.kl / score.count, golden_number(file, "kl"), now->loss);
    EXPECT_NEAR(score.blocks / (double)(B * T * model->arch.L), golden_number(file, "distance"), now->loss);
    compare_gradients(dir, file, &g);
    close_teacher(&teacher);
    free_grads(&g);
    p4_net_close(&net);
}

/* Where there is a file of make_distillation.py. */
static void check_distillation(const char *dir, const p4_model *model, const p4_form *form,
                               const int32_t *ids, int64_t B, int64_t T)
{
    p4_safetensors file;
    char *path = p4_format("%s/distillation/%s.safetensors", P4_FIXTURES, strrchr(dir, '/') + 1);
    if (p4_file_exists(path)) {
        EXPECT_OK(p4_safetensors_open(&file, path));
        compare_distillation(dir, model, form, &file, ids, B, T, P4_RECOMPUTE_NONE);
        compare_distillation(dir, model, form, &file, ids, B, T, P4_RECOMPUTE_LIGHT);
        compare_distillation(dir, model, form, &file, ids, B, T, P4_RECOMPUTE_BLOCKS);
        p4_safetensors_close(&file);
        distilled++;
    }
    free(path);
}

static void note_seen(const p4_model *model)
{
    for (p4_feature f = 0; f < P4_FEATURE_COUNT; f++) {
        seen.feature[f] = seen.feature[f] || p4_arch_has(&model->arch, f);
    }
    for (int64_t i = 0; i < model->params_count; i++) {
        seen.role[model->params[i].role] = true;
    }
}

/* Everything that the network says it computes was compared with the reference library. */
static void expect_all_seen(void)
{
    for (p4_feature f = 0; f < P4_FEATURE_COUNT; f++) {
        EXPECT(seen.feature[f] || !p4_net_computes.feature[f], "no fixture model has %s", p4_feature_text(f));
    }
    for (p4_role role = 0; role < P4_ROLE_COUNT; role++) {
        EXPECT(seen.role[role] || !p4_net_computes.role[role], "no fixture model has a tensor for %s",
               p4_roles[role].name);
    }
}

static int64_t takes_nothing(p4_device *unused, const p4_attention_shape *shape, bool backward)
{
    (void)unused;
    (void)shape;
    (void)backward;
    return -1;
}

/* A model whose attention a backend does not support is refused before anything is computed. */
static void check_attention_refused(const p4_model *model)
{
    p4_net net;
    p4_ops other = *ops;
    p4_net_plan plan = {.B = 1, .T = 2};
    char expected[128];
    other.attention_work_count = takes_nothing;
    snprintf(expected, sizeof expected, "needs attention with heads of %lld elements",
             (long long)model->arch.D);
    EXPECT_REFUSED(p4_net_check_device(&other, device, model), expected);
    EXPECT_REFUSED(p4_net_open(&net, &other, device, model, &plan), expected);
    EXPECT(net.memory == NULL && net.buffers == NULL, "the network is not empty");
    EXPECT_OK(p4_net_check_device(ops, device, model));
}

/* CUDA kernels support heads of up to 256 elements, the CPU any. */
static void check_large_heads(void)
{
    p4_attention_shape shape = {.B = 1, .T = 4, .H = 1, .Hkv = 1, .D = 256, .scale = 1};
    EXPECT(ops->attention_work_count(device, &shape, true) >= 0, "heads of 256");
    shape.D = 264;
    EXPECT((ops->attention_work_count(device, &shape, true) >= 0) == ops->host_memory, "heads of 264");
}

static void check_model(const char *dir)
{
    p4_hf_model hf;
    p4_safetensors file;
    p4_device_form form;
    p4_net net;
    char *path = p4_format("%s/golden.safetensors", dir);
    EXPECT_OK(p4_hf_model_open(&hf, dir));
    EXPECT_OK(p4_safetensors_open(&file, path));
    const p4_safetensor *t = p4_safetensors_find(&file, "ids");
    int64_t B = t->shape[0], T = t->shape[1], count;
    int32_t *ids = p4_alloc((size_t)(B * T), sizeof *ids);
    for (int64_t i = 0; i < B * T; i++) {
        memcpy(&ids[i], (const char *)t->data + i * (int64_t)(t->bytes / (uint64_t)(B * T)),
               4); /* I32 or low half of I64 */
    }
    EXPECT_OK(p4_device_form_open(&form, ops, device, &hf.model, hf.model.weights));
    p4_net_plan plan = {.B = B, .T = T, .head = true};
    EXPECT_OK(p4_net_open(&net, ops, device, &hf.model, &plan));
    float *logits = golden(&file, "logits", &count);
    EXPECT(logits != NULL && count == B * T * hf.model.arch.V, "%s: golden logits", dir);
    check_forward(dir, &net, &form.form, ids, logits, B, T);
    check_training(dir, &hf.model, &form.form, &file, ids, B, T, P4_RECOMPUTE_NONE, false);
    check_training(dir, &hf.model, &form.form, &file, ids, B, T, P4_RECOMPUTE_LIGHT, false);
    check_training(dir, &hf.model, &form.form, &file, ids, B, T, P4_RECOMPUTE_BLOCKS, true);
    check_distillation(dir, &hf.model, &form.form, ids, B, T);
    check_attention_refused(&hf.model);
    note_seen(&hf.model);
    free(logits);
    free(ids);
    free(path);
    p4_net_close(&net);
    p4_device_form_close(&form);
    p4_safetensors_close(&file);
    p4_hf_model_close(&hf);
}

int main(void)
{
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        now = &ways[i];
        if (!open_backend(now->backend, now->half)) {
            continue;
        }
        int failed = check_failed;
        worst_logits = worst_loss = worst_gradient = 0;
        distilled = 0;
        for_each_model(check_model);
        check_large_heads();
        EXPECT(distilled == 10, "distillation of %d models was compared", distilled);
        printf("%s: largest errors: logits %.2g (bound %.2g), loss %.2g (%.2g), gradients %.2g (%.2g)%s\n",
               ops->describe(device), worst_logits, now->logits, worst_loss, now->loss, worst_gradient,
               now->gradient, check_failed == failed ? "" : ": FAILED");
        ops->close(device);
    }
    expect_all_seen();
    return TEST_END();
}
