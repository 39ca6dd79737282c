/* Blocks with every feature that the network computes, alone and combined, against a network in double
 * (reference_net.h): logits, loss and, by finite differences of it, the gradient of every parameter; blocks
 * trained to a target; every way to recompute gives the same bits. */
#include "net_world.h"
#include "reference_net.h"
#include "src/leaf/rng.h"
#include "src/net_takes.h"

enum { B = 2, T = 11 };

/* clang-format off */
static const p4_tensor_row rows[] = {
    {P4_ROLE_EMBED, "embed", P4_DIM_V},           {P4_ROLE_POSITION, "position", P4_DIM_POSITIONS},
    {P4_ROLE_NORM1_GAIN, "norm1", P4_DIM_C},      {P4_ROLE_NORM1_BIAS, "norm1.bias", P4_DIM_C},
    {P4_ROLE_NORM2_GAIN, "norm2", P4_DIM_C},      {P4_ROLE_NORM2_BIAS, "norm2.bias", P4_DIM_C},
    {P4_ROLE_Q_GAIN, "q_norm", P4_DIM_QN},        {P4_ROLE_K_GAIN, "k_norm", P4_DIM_KN},
    {P4_ROLE_POST1_GAIN, "post1", P4_DIM_C},      {P4_ROLE_POST2_GAIN, "post2", P4_DIM_C},
    {P4_ROLE_QKV, "qkv", P4_DIM_QKV},             {P4_ROLE_QKV_BIAS, "qkv.bias", P4_DIM_QKV},
    {P4_ROLE_O, "o", P4_DIM_C},                   {P4_ROLE_O_BIAS, "o.bias", P4_DIM_C},
    {P4_ROLE_UP, "up", P4_DIM_UP},                {P4_ROLE_UP_BIAS, "up.bias", P4_DIM_UP},
    {P4_ROLE_DOWN, "down", P4_DIM_C},             {P4_ROLE_DOWN_BIAS, "down.bias", P4_DIM_C},
    {P4_ROLE_FINAL_GAIN, "final", P4_DIM_C},      {P4_ROLE_FINAL_BIAS, "final.bias", P4_DIM_C},
    {P4_ROLE_HEAD, "head", P4_DIM_V},             {P4_ROLE_HEAD_BIAS, "head.bias", P4_DIM_V},
};
/* clang-format on */
static const p4_family family = {
    .title = "any", .prefix = "", .layers = "blocks", .row_count = sizeof rows / sizeof rows[0], .row = rows};

/* clang-format off */
static const p4_tensor_row rows_of_experts[] = {
    {P4_ROLE_EMBED, "embed", P4_DIM_V},           {P4_ROLE_NORM1_GAIN, "norm1", P4_DIM_C},
    {P4_ROLE_NORM2_GAIN, "norm2", P4_DIM_C},      {P4_ROLE_POST1_GAIN, "post1", P4_DIM_C},
    {P4_ROLE_POST2_GAIN, "post2", P4_DIM_C},      {P4_ROLE_QKV, "qkv", P4_DIM_QKV},
    {P4_ROLE_O, "o", P4_DIM_C},                   {P4_ROLE_ROUTER, "router", P4_DIM_E},
    {P4_ROLE_UP, "experts.*.up", P4_DIM_UP},      {P4_ROLE_DOWN, "experts.*.down", P4_DIM_C},
    {P4_ROLE_UP, "up", P4_DIM_UP},                {P4_ROLE_DOWN, "down", P4_DIM_C},
    {P4_ROLE_FINAL_GAIN, "final", P4_DIM_C},      {P4_ROLE_HEAD, "head", P4_DIM_V},
};
/* clang-format on */
static const p4_family family_of_experts = {.title = "any mixture of experts",
                                            .prefix = "",
                                            .layers = "blocks",
                                            .row_count = sizeof rows_of_experts / sizeof rows_of_experts[0],
                                            .row = rows_of_experts};

static p4_net_takes seen;

/* Numbers of all; features are added by those that follow. */
#define NUMBERS                                                                            \
    .V = 31, .C = 20, .L = 3, .H = 4, .D = 6, .F = 27, .positions = 16, .norm_eps = 1e-5f, \
    .attention_scale = 0.4f, .rope = {.theta = 50}, .windowed_rope = {.theta = 7}

static const p4_arch archs[] = {
    {NUMBERS, .family = "gelu", .Hkv = 2},
    {NUMBERS, .family = "gemma", .Hkv = 2, .gated_mlp = true, .post_norm = true, .gain_offset = true,
     .qk_norm = P4_QK_NORM_HEAD, .window = 4, .some_global = true, .global = {{2}}, .local_rope = true,
     .embedding_scale = 4.5f, .attention_cap = 2, .logit_cap = 3, .tied = true},
    {NUMBERS, .family = "olmo", .Hkv = 2, .gated_mlp = true, .activation = P4_SILU, .no_pre_norm = true,
     .post_norm = true, .qk_norm = P4_QK_NORM_WHOLE, .o_bias = true, .mlp_bias = true, .qkv_bias = true},
    {NUMBERS, .family = "neox", .Hkv = 4, .layer_norm = true, .parallel = true, .activation = P4_GELU_ERF,
     .rope_dim = 4, .qkv_by_head = true, .qkv_bias = true, .o_bias = true, .mlp_bias = true},
    {NUMBERS, .family = "granite", .Hkv = 2, .gated_mlp = true, .activation = P4_SILU, .residual_scale = 0.3f,
     .embedding_scale = 3, .logit_scale = 0.25f, .o_bias = true, .mlp_bias = true, .tied = true},
    {NUMBERS, .family = "smollm", .Hkv = 2, .gated_mlp = true, .activation = P4_RELU, .some_unrotated = true,
     .unrotated = {{5}}, .qk_norm = P4_QK_NORM_HEAD},
    {NUMBERS, .family = "starcoder", .Hkv = 2, .layer_norm = true, .activation = P4_SILU, .window = 5,
     .qkv_bias = true, .o_bias = true, .mlp_bias = true},
    {NUMBERS, .family = "gpt", .Hkv = 2, .learned_positions = true, .layer_norm = true,
     .activation = P4_RELU_SQ, .inverse_layer_scale = true},
    {NUMBERS, .family = "mixed", .Hkv = 2, .parallel = true, .residual_scale = 0.5f, .gated_mlp = true,
     .activation = P4_GELU_ERF, .qk_norm = P4_QK_NORM_WHOLE, .gain_offset = true, .o_bias = true,
     .mlp_bias = true},
    {NUMBERS, .family = "experts", .Hkv = 2, .gated_mlp = true, .activation = P4_SILU, .experts = 5,
     .experts_used = 2, .normed_shares = true, .residual_scale = 0.5f},
    {NUMBERS, .family = "shares", .Hkv = 2, .gated_mlp = true, .activation = P4_SILU, .experts = 3,
     .experts_used = 2, .post_norm = true},
    {NUMBERS, .family = "dense first", .Hkv = 2, .gated_mlp = true, .experts = 4, .experts_used = 3,
     .dense_width = 37, .dense = {{1}}},
    {NUMBERS, .family = "dense last", .Hkv = 2, .gated_mlp = true, .activation = P4_SILU, .experts = 3,
     .experts_used = 1, .dense_width = 11, .dense = {{6}}, .post_norm = true, .tied = true},
    {NUMBERS, .family = "all", .Hkv = 2, .gated_mlp = true, .experts = 2, .experts_used = 2, .tied = true},
    {NUMBERS, .family = "phi", .Hkv = 2, .layer_norm = true, .parallel = true, .shared_norm = true,
     .rope_dim = 2, .qkv_bias = true, .o_bias = true, .mlp_bias = true, .head_bias = true},
    {NUMBERS, .family = "shared", .Hkv = 1, .parallel = true, .shared_norm = true, .gated_mlp = true,
     .activation = P4_SILU, .residual_scale = 0.5f, .qk_norm = P4_QK_NORM_HEAD, .head_bias = true,
     .tied = true, .logit_scale = 0.5f, .logit_cap = 3},
    {NUMBERS, .family = "cohere", .Hkv = 2, .layer_norm = true, .no_norm_bias = true, .parallel = true,
     .shared_norm = true, .rope_pairs = true, .gated_mlp = true, .activation = P4_SILU, .logit_scale = 0.5f,
     .tied = true},
    {NUMBERS, .family = "pairs", .Hkv = 4, .layer_norm = true, .no_norm_bias = true, .rope_pairs = true,
     .rope_dim = 4, .window = 5},
    {NUMBERS, .family = "falcon", .Hkv = 2, .layer_norm = true, .parallel = true, .activation = P4_GELU_ERF,
     .qkv_by_head = true, .qkv_bias = true, .o_bias = true, .mlp_bias = true},
    {NUMBERS, .family = "one group", .Hkv = 1, .gated_mlp = true, .qkv_by_head = true, .window = 5},
};

/* The model's parameters, in fp32 and in double. */
typedef struct world {
    p4_model model;
    float **f32;
    double **f64;
    int32_t ids[B * T];
    p4_device_form form;
} world;

static void open_world(world *w, const p4_arch *arch)
{
    p4_rng rng = {.seed = 5, .stream = (uint64_t)(arch - archs)};
    EXPECT_OK(p4_model_init_family(&w->model, arch, arch->experts > 0 ? &family_of_experts : &family, ""));
    w->f32 = p4_alloc((size_t)w->model.params_count, sizeof *w->f32);
    w->f64 = p4_alloc((size_t)w->model.params_count, sizeof *w->f64);
    for (int64_t i = 0; i < w->model.params_count; i++) {
        const p4_param *p = &w->model.params[i];
        int64_t count = p->rows * p->cols;
        double mean = p4_roles[p->role].kind == P4_KIND_GAIN && !arch->gain_offset ? 1.0 : 0.0;
        w->f32[i] = p4_alloc((size_t)count, sizeof *w->f32[i]);
        w->f64[i] = p4_alloc((size_t)count, sizeof *w->f64[i]);
        for (int64_t k = 0; k < count; k++) {
            w->f32[i][k] = (float)(mean + 0.25 * p4_rng_normal(&rng));
            w->f64[i][k] = (double)w->f32[i][k];
        }
        w->model.weights[i].data = w->f32[i];
    }
    for (int n = 0; n < B * T; n++) {
        w->ids[n] = (int32_t)p4_rng_below(&rng, (uint64_t)arch->V);
    }
    EXPECT_OK(p4_device_form_open(&w->form, ops, device, &w->model, w->model.weights));
}

static void close_world(world *w)
{
    p4_device_form_close(&w->form);
    for (int64_t i = 0; i < w->model.params_count; i++) {
        free(w->f32[i]);
        free(w->f64[i]);
    }
    free(w->f32);
    free(w->f64);
    p4_model_close(&w->model);
}

static reference reference_of(const world *w)
{
    reference r = {.model = &w->model, .param = w->f64, .ids = w->ids, .B = B, .T = T};
    r.logits = p4_alloc((size_t)(B * T * w->model.arch.V), sizeof *r.logits);
    return r;
}

static void check_logits(const world *w, const reference *r)
{
    p4_net net;
    const p4_arch *a = &w->model.arch;
    int64_t count = B * T * a->V;
    float *got = p4_alloc((size_t)count, sizeof *got);
    void *x = take(B * T * a->C * ops->act_bytes(device));
    p4_net_plan plan = {.B = B, .T = T, .head = true};
    EXPECT_OK(p4_net_open(&net, ops, device, &w->model, &plan));
    p4_net_set_tokens(&net, w->ids, B, T);
    p4_net_embed(&net, &w->form.form, x, B, T);
    p4_net_layers(&net, &(p4_net_pass){.form = &w->form.form, .B = B, .T = T}, 0, a->L, x);
    p4_net_final_norm(&net, &w->form.form, x, false, B * T);
    EXPECT_OK(p4_net_logits(&net, &w->form.form, got, B * T));
    double worst = 0, largest = 0;
    for (int64_t i = 0; i < count; i++) {
        double d = fabs((double)got[i] - r->logits[i]);
        worst = d > worst || d != d ? d : worst;
        largest = fmax(largest, fabs(r->logits[i]));
    }
    EXPECT(worst <= 2e-5 * largest, "%s: logits differ by %.3g of %.3g", a->family, worst, largest);
    ops->release(device, x);
    free(got);
    p4_net_close(&net);
}

/* The loss of a step of training, and its gradients. */
static double train(const world *w, p4_recompute recompute, grads *g)
{
    p4_net net;
    p4_score score = {0};
    p4_net_plan plan = {.B = B, .T = T, .train = true, .recompute = recompute, .head = true};
    p4_grad_sink sink = {grad_buffer, ready, g};
    take_grads(g, &w->model);
    EXPECT_OK(p4_net_open(&net, ops, device, &w->model, &plan));
    p4_net_set_tokens(&net, w->ids, B, T);
    p4_net_train(&net, &w->form.form, B, T, 1.0f / (float)(B * (T - 1)), &sink);
    EXPECT_OK(p4_net_take_score(&net, &score));
    read_grads(g);
    p4_net_close(&net);
    return score.nll / score.count;
}

/* The same of half the sum of the squares of the last block's output, for parameters of blocks. */
static double train_blocks(const world *w, p4_recompute recompute, grads *g)
{
    p4_net net;
    double squares = 0, *sum = take(sizeof *sum);
    p4_net_plan plan = {.B = B, .T = T, .train = true, .recompute = recompute};
    p4_grad_sink sink = {grad_buffer, ready, g};
    take_grads(g, &w->model);
    ops->zero(device, sum, sizeof *sum);
    EXPECT_OK(p4_net_open(&net, ops, device, &w->model, &plan));
    p4_net_set_tokens(&net, w->ids, B, T);
    p4_net_embed(&net, &w->form.form, p4_net_blocks_input(&net), B, T);
    p4_net_blocks_forward(&net, &w->form.form, B, T);
    p4_net_blocks_error(&net, B, T, NULL, 1.0f, sum, &sink);
    for (int64_t l = w->model.arch.L - 1; l >= 0; l--) {
        p4_net_train_block(&net, &w->form.form, l, B, T, &sink);
    }
    ops->to_host(device, &squares, sum, sizeof squares);
    read_grads(g);
    ops->release(device, sum);
    p4_net_close(&net);
    return 0.5 * squares;
}

/* A parameter's gradient along a random direction, against the difference of what it is the gradient of. */
static void check_gradient(const world *w, reference *r, const grads *g, int64_t i, bool of_blocks)
{
    const double step = 1e-5;
    const p4_param *p = &w->model.params[i];
    int64_t count = p->rows * p->cols;
    double along = 0, norm = 0, value[2];
    for (int side = 0; side < 2; side++) {
        for (int64_t k = 0; k < count; k++) {
            double sign = (k * 7 + i * 3 + k / 5) % 3 == 0 ? 1.0 : -1.0;
            w->f64[i][k] = (double)w->f32[i][k] + (side == 0 ? step : -step) * sign;
            along += side == 0 ? sign * (double)g->h_flat[g->at[i] + k] : 0.0;
            norm += side == 0 ? pow((double)g->h_flat[g->at[i] + k], 2) : 0.0;
        }
        value[side] = reference_loss(r);
        value[side] = of_blocks ? r->squares : value[side];
    }
    for (int64_t k = 0; k < count; k++) {
        w->f64[i][k] = (double)w->f32[i][k];
    }
    double want = (value[0] - value[1]) / (2 * step);
    EXPECT(fabs(along - want) <= 1e-3 * sqrt(norm) + 1e-7,
           "%s: %s: gradient along a direction %.6g, expected %.6g of %.3g", w->model.arch.family, p->name,
           along, want, sqrt(norm));
    EXPECT(norm > 0, "%s: %s: no gradient", w->model.arch.family, p->name);
}

static void check_training(const world *w, reference *r, bool of_blocks)
{
    grads first, again;
    double (*run)(const world *, p4_recompute, grads *) = of_blocks ? train_blocks : train;
    double loss = run(w, P4_RECOMPUTE_NONE, &first), want = reference_loss(r);
    const p4_param *last = &w->model.params[w->model.params_count - 1];
    int64_t count = first.at[w->model.params_count - 1] + last->rows * last->cols;
    want = of_blocks ? r->squares : want;
    EXPECT(fabs(loss - want) <= 1e-5 * fabs(want), "%s: %.9g, expected %.9g", w->model.arch.family, loss,
           want);
    for (int64_t i = 0; i < w->model.params_count; i++) {
        if (!of_blocks || w->model.params[i].layer >= 0) {
            check_gradient(w, r, &first, i, of_blocks);
        }
    }
    for (p4_recompute way = P4_RECOMPUTE_LIGHT; way <= P4_RECOMPUTE_BLOCKS; way++) {
        double other = run(w, way, &again);
        EXPECT(other == loss && memcmp(again.h_flat, first.h_flat, (size_t)count * sizeof *again.h_flat) == 0,
               "%s: recomputation %d gives other bits", w->model.arch.family, (int)way);
        free_grads(&again);
    }
    free_grads(&first);
}

static void check_arch(const p4_arch *arch)
{
    world w;
    open_world(&w, arch);
    reference r = reference_of(&w);
    reference_loss(&r);
    check_logits(&w, &r);
    check_training(&w, &r, false);
    check_training(&w, &r, true);
    for (p4_feature f = 0; f < P4_FEATURE_COUNT; f++) {
        seen.feature[f] = seen.feature[f] || p4_arch_has(arch, f);
    }
    for (int64_t i = 0; i < w.model.params_count; i++) {
        seen.role[w.model.params[i].role] = true;
    }
    free(r.logits);
    close_world(&w);
}

int main(void)
{
    EXPECT(open_backend("cpu", false), "cpu");
    for (size_t i = 0; i < sizeof archs / sizeof archs[0]; i++) {
        check_arch(&archs[i]);
    }
    for (p4_feature f = 0; f < P4_FEATURE_COUNT; f++) {
        EXPECT(seen.feature[f] || !p4_net_computes.feature[f], "no model has %s", p4_feature_text(f));
    }
    for (p4_role role = 0; role < P4_ROLE_COUNT; role++) {
        EXPECT(seen.role[role] || !p4_net_computes.role[role], "no model has %s", p4_roles[role].name);
    }
    ops->close(device);
    return TEST_END();
}
