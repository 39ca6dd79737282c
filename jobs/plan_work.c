#include "jobs/plan_work.h"

#include <math.h>

static const double ATTENTION = 0.5;   /* of the rate of products */
static const double CODE_BYTES = 0.25; /* of a weight */

/* --- kernels ----------------------------------------------------------------------------------- */

/* So many kernels that share these operations and bytes. */
static void run(p4_work *w, double kernels, double flops, double bytes)
{
    double products_s = flops / w->products;
    w->kernels += kernels;
    w->seconds += w->kernel_s > 0 ? kernels * w->kernel_s + fmax(products_s, bytes / w->memory) : products_s;
}

/* Work on weights, whose bytes count on every device. */
static void run_weights(p4_work *w, double kernels, double flops, double bytes)
{
    w->kernels += kernels;
    w->seconds += kernels * w->kernel_s + fmax(flops / w->products, bytes / w->memory);
}

/* Reads or writes so many activations. */
static void sweep(p4_work *w, double kernels, double activations)
{
    run(w, kernels, 0, activations * w->each);
}

/* [rows, depth] by [depth, cols]; weights: matrices of these, of which each row uses one. */
static void product(p4_work *w, double rows, double depth, double cols, double weights)
{
    run(w, 1, 2 * rows * depth * cols, (rows * depth + rows * cols + weights * depth * cols) * w->each);
}

/* The gradient of a weight [out, in], in fp32. */
static void weight_gradient(p4_work *w, double rows, double in, double out, double weights)
{
    run(w, 1, 2 * rows * in * out, rows * (in + out) * w->each + 4 * weights * in * out);
}

/* --- a block ----------------------------------------------------------------------------------- */

/* Widths of a block. */
typedef struct shape {
    double C, q, qkv, up, F;
    double rows;    /* that go through its MLPs */
    double experts; /* MLPs; 1: not a mixture */
    double keys;    /* that a query sees */
    bool mixed;
} shape;

static shape shape_of(const p4_arch *a, int64_t layer, p4_work_tokens t)
{
    double window = (double)p4_arch_window(a, layer), F = (double)p4_arch_mlp_width(a, layer);
    bool mixed = p4_arch_has_experts(a, layer);
    return (shape){.C = (double)a->C,
                   .q = (double)(a->H * a->D),
                   .qkv = (double)p4_arch_dim(a, P4_DIM_QKV),
                   .up = a->gated_mlp ? 2 * F : F,
                   .F = F,
                   .rows = mixed ? t.N * (double)a->experts_used : t.N,
                   .experts = mixed ? (double)a->experts : 1,
                   .keys = window > 0 ? fmin(t.T / 2, window) : t.T / 2,
                   .mixed = mixed};
}

/* Projections with a bias, which in bf16 is rounded by a kernel of its own. */
static double rounded_biases(const p4_work *w, const p4_arch *a)
{
    return w->each == 4 ? 0 : (double)a->qkv_bias + (double)a->o_bias + 2 * (double)a->mlp_bias;
}

/* Of so many products of [N, D] by [D, keys] a head. */
static void attention(p4_work *w, double kernels, const shape *s, double N, double products,
                      double activations)
{
    double rate = w->kernel_s > 0 ? ATTENTION : 1;
    run(w, kernels, 2 * products * s->keys * s->q * N / rate, activations * w->each);
}

/* Rotary positions and norms of queries and keys, which read and write them. */
static void queries_and_keys(p4_work *w, const p4_arch *a, int64_t layer, const shape *s, double N)
{
    double kernels = p4_arch_rotates(a, layer) ? 1 : 0;
    kernels += a->qk_norm != P4_QK_NORM_NONE ? 3 : 0;
    kernels += a->qkv_by_head ? 1 : 0;
    sweep(w, kernels, kernels * N * (s->q + s->qkv));
}

void p4_work_forward(p4_work *w, const p4_arch *a, int64_t layer, p4_work_tokens t)
{
    const shape s = shape_of(a, layer, t);
    bool one_norm = a->parallel && a->shared_norm, activates = a->gated_mlp || s.mixed;
    double norms = (one_norm ? 1 : 2) + (a->post_norm ? 2 : 0);
    sweep(w, norms, 4 * norms * t.N * s.C); /* with the sum before them: two read, two written */
    product(w, t.N, s.C, s.qkv, 1);
    queries_and_keys(w, a, layer, &s, t.N);
    attention(w, 1, &s, t.N, 2, t.N * (s.qkv + s.q));
    product(w, t.N, s.q, s.C, 1);
    if (s.mixed) { /* router, choice and counting, rows in the order of experts and back */
        product(w, t.N, s.C, s.experts, 1);
        sweep(w, 4, 0);
        sweep(w, 2, 4 * s.rows * s.C);
    }
    product(w, s.rows, s.C, s.up, s.experts);
    sweep(w, activates ? 1 : 0, activates ? s.rows * (s.up + s.F) : 0);
    product(w, s.rows, s.F, s.C, s.experts);
    sweep(w, rounded_biases(w, a), 0);
}

void p4_work_backward(p4_work *w, const p4_arch *a, int64_t layer, p4_work_tokens t)
{
    const shape s = shape_of(a, layer, t);
    bool one_norm = a->parallel && a->shared_norm;
    double norms = (one_norm ? 1 : 2) + (a->post_norm ? 2 : 0);
    weight_gradient(w, s.rows, s.F, s.C, s.experts);
    product(w, s.rows, s.C, s.F, s.experts); /* through the activation */
    sweep(w, a->mlp_bias ? 2 : 0, 2 * s.rows * s.up);
    product(w, s.rows, s.up, s.C, s.experts);
    weight_gradient(w, s.rows, s.C, s.up, s.experts);
    if (s.mixed) {
        sweep(w, 4, 6 * s.rows * s.C);
        product(w, t.N, s.experts, s.C, 1);
        weight_gradient(w, t.N, s.C, s.experts, 1);
    }
    sweep(w, 2 * norms, 4 * norms * t.N * s.C); /* and what they add up for gains and biases */
    weight_gradient(w, t.N, s.q, s.C, 1);
    product(w, t.N, s.C, s.q, 1);
    /* Row sums, gradients, what is added up for queries. The scores are computed again; rates that contain
     * all of the work count a backward pass as two forward passes. */
    attention(w, 3, &s, t.N, w->kernel_s > 0 ? 5 : 4, t.N * (2 * s.qkv + 3 * s.q));
    queries_and_keys(w, a, layer, &s, t.N);
    product(w, t.N, s.qkv, s.C, 1);
    sweep(w, a->qkv_bias ? 2 : 0, a->qkv_bias ? t.N * s.qkv : 0);
    weight_gradient(w, t.N, s.C, s.qkv, 1);
}

/* Parts of the projections, which are unpacked one by one: q, k, v, o; gate, up and down of each expert. */
static double parts(const p4_arch *a, const shape *s)
{
    return 3 + 1 + s->experts * ((a->gated_mlp ? 2 : 1) + 1);
}

/* Elements of its matrices. */
static double elements(const shape *s)
{
    return s->C * (s->qkv + s->q) + s->experts * s->C * (s->up + s->F);
}

void p4_work_unpack(p4_work *w, const p4_arch *a, int64_t layer)
{
    const shape s = shape_of(a, layer, (p4_work_tokens){0});
    run(w, parts(a, &s), 0, elements(&s) * (CODE_BYTES + w->each));
}

void p4_work_observe(p4_work *w, const p4_arch *a, int64_t layer, p4_work_tokens t)
{
    const shape s = shape_of(a, layer, t);
    sweep(w, 8, t.N * (s.C + s.q) + s.rows * (s.C + s.F)); /* sums and what is added up, of four inputs */
}

void p4_work_compare(p4_work *w, const p4_arch *a, p4_work_tokens t)
{
    sweep(w, 2, 4 * t.N * (double)a->C);
}

void p4_work_copies(p4_work *w, double copies, double activations)
{
    sweep(w, copies, activations);
}

/* --- the ends ---------------------------------------------------------------------------------- */

/* Chunks of rows of logits, and their width. */
static double chunks_of(const p4_arch *a, double N, int64_t logits_chunk)
{
    return ceil(N / fmax(64, floor((double)logits_chunk / (double)a->V)));
}

void p4_work_ends(p4_work *w, const p4_arch *a, p4_work_tokens t, int others, int64_t logits_chunk)
{
    double chunks = chunks_of(a, t.N, logits_chunk), rows = t.N / chunks, C = (double)a->C, V = (double)a->V;
    sweep(w, 1, 2 * t.N * C);
    sweep(w, 1, 3 * t.N * C);
    for (double i = 0; i < chunks; i++) {
        for (int h = 0; h <= others; h++) {
            product(w, rows, C, V, 1);
        }
        sweep(w, 1, (2 + others) * rows * V);
    }
    sweep(w, 2 * (2 + others), 0); /* sums of the scores */
}

void p4_work_ends_backward(p4_work *w, const p4_arch *a, p4_work_tokens t, int64_t logits_chunk)
{
    double chunks = chunks_of(a, t.N, logits_chunk), rows = t.N / chunks, C = (double)a->C, V = (double)a->V;
    for (double i = 0; i < chunks; i++) {
        product(w, rows, V, C, 1);
        weight_gradient(w, rows, C, V, 1);
    }
    sweep(w, 2, 3 * t.N * C);
    sweep(w, 8, 2 * t.N * C); /* tokens are sorted before their gradients are added */
}

/* --- what a step does with weights ------------------------------------------------------------- */

/* Matrices of one shape, which Muon takes together. */
typedef struct alike {
    double rows, cols, count;
} alike;

enum { SHAPES = 64 };

typedef struct census {
    alike shapes[SHAPES]; /* more different ones count with the last */
    int shapes_count;
    double matrices, ternary, rest; /* elements: of matrices of blocks, of what has codes, of all others */
} census;

static void count_matrix(census *c, double rows, double cols)
{
    int at = 0;
    while (at < c->shapes_count && at < SHAPES - 1 &&
           (c->shapes[at].rows != rows || c->shapes[at].cols != cols)) {
        at++;
    }
    c->shapes_count = at == c->shapes_count ? at + 1 : c->shapes_count;
    c->shapes[at] = (alike){.rows = rows, .cols = cols, .count = c->shapes[at].count + 1};
}

static census take_census(const p4_work_update *u)
{
    census c = {.shapes_count = 0};
    const p4_model *model = u->model;
    for (int64_t i = 0, rows; i < model->params_count; i++) {
        const p4_param *p = &model->params[i];
        bool in = u->blocks == 0 || (p->layer >= 0 && p->layer < u->blocks);
        bool matrix = p4_role_is_matrix(p->role);
        double count = in ? (double)(p->rows * p->cols) : 0;
        c.matrices += matrix ? count : 0;
        c.rest += matrix ? 0 : count;
        c.ternary += p->ternary ? count : 0;
        for (int64_t m = 0; matrix && in && (rows = p4_model_matrix_rows(model, i, m)) > 0; m++) {
            count_matrix(&c, (double)rows, (double)p->cols);
        }
    }
    return c;
}

/* A step of Newton-Schulz is a product of [m, n] by its transpose, a square of that, both symmetric and so
 * computed by half, and a product of [m, m] by [m, n]. A matrix is not divided among ranks. */
static void muon(p4_work *w, const census *c, double owners, double state)
{
    enum { STEPS = 5, KERNELS = 2 + 3 * STEPS, TOGETHER = 192 };
    double flops = 0, bytes = 0, largest_flops = 0, largest_bytes = 0, kernels = 0;
    for (int i = 0; i < c->shapes_count; i++) {
        const alike *s = &c->shapes[i];
        double m = fmin(s->rows, s->cols), n = fmax(s->rows, s->cols), count = s->count;
        double each = STEPS * (3 * m * m * n + m * m * m);
        /* gradient, momentum and weight; X read twice and written in every step */
        double each_bytes = m * n * (4 + 2 * state + 8 + w->each + STEPS * 3 * w->each);
        flops += count * each;
        bytes += count * each_bytes;
        largest_flops = fmax(largest_flops, each);
        largest_bytes = fmax(largest_bytes, each_bytes);
        kernels += KERNELS * ceil(count / owners / TOGETHER);
    }
    run_weights(w, kernels, fmax(largest_flops, flops / owners), fmax(largest_bytes, bytes / owners));
}

void p4_work_optimizer(p4_work *w, const p4_work_update *u)
{
    const double LENGTHS =
        3; /* of rows, which are quantized in one call each (trainer_codes.c, block_trainer_codes.c) */
    const p4_optim_settings *s = u->optim;
    const census c = take_census(u);
    double state = s->half_state ? 2 : 4, matrices = c.matrices / u->owners, held = matrices + c.rest;
    double adamw = s->muon ? c.rest : held;
    run_weights(w, 1, 0, 4 * c.rest); /* gradients that are added to are zeroed */
    run_weights(w, 4, 0, 4 * held);   /* and squared */
    if (s->grokfast) {
        run_weights(w, 5, 0, held * (12 + 2 * state));
    }
    if (s->muon) {
        muon(w, &c, u->owners, state);
    }
    run_weights(w, 2, 0, adamw * (12 + 4 * state)); /* weight and moments are read and written */
    run_weights(w, LENGTHS, 0, c.ternary / u->owners * (4 + CODE_BYTES));
    if (u->unpacks) {
        run_weights(w, LENGTHS, 0, c.ternary * (CODE_BYTES + w->each));
    }
    if (s->learn_scales) { /* their gradients from those of the masters, and AdamW */
        run_weights(w, 2 * LENGTHS + 1, 0, 12 * c.ternary / u->owners);
    }
    run_weights(w, 6, 0, 0); /* tokens, figures and numbers between host and device */
}
