/* attention_cudnn.cu - attention by cuDNN's fused kernels, on the fused buffers in place (by strides,
 * without copies).
 *
 * Which shapes cuDNN computes: the table in kernels/cuda/attention.cu. All arrays must lie on multiples of
 * 16 bytes. A shape of the table for which cuDNN has no engine is named in a warning, and the next
 * implementation computes it; with P4_ATTENTION=cudnn it is an error.
 *
 * Backward gives the same bits on every run. On Hopper cuDNN 9.19 achieves that by keeping dS of all heads
 * in memory, B*H*T*T bf16, where it would otherwise add to dQ in whatever order blocks finish;
 * P4_ATTENTION=cudnn-any-order chooses the latter.
 *
 * The graphs are the ones that cuDNN documents for attention (scores, mask, softmax, product; in backward
 * from the log-sum-exp). The operations are in the order in which its own front end sends them, which its
 * engines recognise. */
#include "kernels/cuda/attention_cudnn.cuh"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernels/cuda/cudnn.cuh"

enum {
    WORK_ALIGNMENT = 256,
    WORK_SLACK = 64 << 10, /* small buffers of the engines: measured 256 bytes */
    KEY_TILE = 128         /* cuDNN pads dS to 64 queries and 128 keys */
};

typedef enum plan_array {
    QUERY,
    KEY,
    VALUE,
    OUT,
    LSE,
    DOUT,
    DELTA,
    SUM,
    DQUERY,
    DKEY,
    DVALUE,
    PLAN_ARRAYS
} plan_array;

/* One shape and direction. Scalars are read when the plan runs, from here. */
typedef struct attention_plan {
    p4_attention_shape shape;
    bool backward;
    cudnn_graph graph;
    int64_t id[PLAN_ARRAYS];
    float scale, window, hidden, one; /* hidden: the score of a key that is not seen */
    cudnn_bindings scalars;
    struct attention_plan *next;
} attention_plan;

/* --- tensors of a graph ----------------------------------------------------------------------- */

/* Rows of heads inside rows of `width` elements. */
static cudnn_tensor rows_of(attention_plan *plan, plan_array array, int type, int64_t heads, int64_t width)
{
    const int64_t T = plan->shape.T, D = plan->shape.D;
    const int64_t dim[4] = {plan->shape.B, heads, T, D}, stride[4] = {T * width, D, width, 1};
    cudnn_tensor tensor = p4_cudnn_tensor(&plan->graph, CUDNN_ARRAY, type, dim, stride);
    plan->id[array] = tensor.id;
    return tensor;
}

/* The same, each head transposed. */
static cudnn_tensor columns_of(attention_plan *plan, plan_array array, int64_t heads, int64_t width)
{
    const int64_t T = plan->shape.T, D = plan->shape.D;
    const int64_t dim[4] = {plan->shape.B, heads, D, T}, stride[4] = {T * width, D, 1, width};
    cudnn_tensor tensor = p4_cudnn_tensor(&plan->graph, CUDNN_ARRAY, N_DATA_BF16, dim, stride);
    plan->id[array] = tensor.id;
    return tensor;
}

/* Dense [B, H, rows, columns], in the graph alone. */
static cudnn_tensor inside(attention_plan *plan, int type, int64_t rows, int64_t columns)
{
    const int64_t H = plan->shape.H, dim[4] = {plan->shape.B, H, rows, columns};
    const int64_t stride[4] = {H * rows * columns, rows * columns, columns, 1};
    return p4_cudnn_tensor(&plan->graph, CUDNN_INSIDE, type, dim, stride);
}

static cudnn_tensor scores(attention_plan *plan, int type)
{
    return inside(plan, type, plan->shape.T, plan->shape.T);
}

/* Scores with rows and columns exchanged, as bf16. */
static cudnn_tensor transposed(attention_plan *plan, const cudnn_tensor *x)
{
    const int64_t stride[4] = {x->stride[0], x->stride[1], 1, x->dim[3]};
    cudnn_tensor y = p4_cudnn_tensor(&plan->graph, CUDNN_INSIDE, N_DATA_BF16, x->dim, stride);
    p4_cudnn_view(&plan->graph, x, &y);
    return y;
}

/* One fp32 a query, in memory. */
static cudnn_tensor per_query(attention_plan *plan, plan_array array)
{
    const int64_t T = plan->shape.T, H = plan->shape.H;
    const int64_t dim[4] = {plan->shape.B, H, T, 1}, stride[4] = {H * T, T, 1, 1};
    cudnn_tensor tensor = p4_cudnn_tensor(&plan->graph, CUDNN_ARRAY, N_DATA_FP32, dim, stride);
    plan->id[array] = tensor.id;
    return tensor;
}

static cudnn_tensor scalar(attention_plan *plan, float *h_value)
{
    const int64_t ones[4] = {1, 1, 1, 1};
    cudnn_tensor tensor = p4_cudnn_tensor(&plan->graph, CUDNN_SCALAR, N_DATA_FP32, ones, ones);
    plan->scalars.id[plan->scalars.count] = tensor.id;
    plan->scalars.at[plan->scalars.count++] = h_value;
    return tensor;
}

/* --- parts of both graphs --------------------------------------------------------------------- */

/* y = mode(x, b) in fp32, of the scores' shape. */
static cudnn_tensor on_scores(attention_plan *plan, int mode, const cudnn_tensor *x, const cudnn_tensor *b)
{
    cudnn_tensor y = scores(plan, N_DATA_FP32);
    p4_cudnn_pointwise(&plan->graph, mode, N_DATA_FP32, -1, x, b, NULL, &y);
    return y;
}

/* Row (axis 2) or column (axis 3) numbers. */
static cudnn_tensor numbers(attention_plan *plan, const cudnn_tensor *x, int64_t axis)
{
    cudnn_tensor y = scores(plan, N_DATA_INT32);
    p4_cudnn_pointwise(&plan->graph, N_POINTWISE_GEN_INDEX, N_DATA_FP32, axis, x, NULL, NULL, &y);
    return y;
}

/* x where compare(left, right), elsewhere hidden. */
static cudnn_tensor hide_unless(attention_plan *plan, const cudnn_tensor *x, int compare,
                                const cudnn_tensor *left, const cudnn_tensor *right)
{
    cudnn_tensor seen = scores(plan, N_DATA_BOOL), hidden = scalar(plan, &plan->hidden),
                 y = scores(plan, N_DATA_FP32);
    p4_cudnn_pointwise(&plan->graph, compare, N_DATA_BOOL, -1, left, right, NULL, &seen);
    p4_cudnn_pointwise(&plan->graph, N_POINTWISE_SELECT, N_DATA_FP32, -1, x, &hidden, &seen, &y);
    return y;
}

/* Query i sees key j when i >= j and, with a window, j + window > i. */
static cudnn_tensor mask(attention_plan *plan, const cudnn_tensor *x)
{
    cudnn_tensor query = numbers(plan, x, 2), key = numbers(plan, x, 3);
    cudnn_tensor causal = hide_unless(plan, x, N_POINTWISE_CMP_GE, &query, &key);
    if (plan->shape.window == 0) {
        return causal;
    }
    cudnn_tensor window = scalar(plan, &plan->window);
    query = numbers(plan, &causal, 2);
    key = numbers(plan, &causal, 3);
    cudnn_tensor end = on_scores(plan, N_POINTWISE_ADD, &key, &window);
    return hide_unless(plan, &causal, N_POINTWISE_CMP_GT, &end, &query);
}

/* Scaled scores; `scale` is the scalar of that. */
static cudnn_tensor scaled_scores(attention_plan *plan, const cudnn_tensor *query, const cudnn_tensor *key,
                                  const cudnn_tensor *scale)
{
    cudnn_tensor product = scores(plan, N_DATA_FP32);
    p4_cudnn_matmul(&plan->graph, query, key, &product);
    return on_scores(plan, N_POINTWISE_MUL, &product, scale);
}

/* --- forward ---------------------------------------------------------------------------------- */

static void build_forward(attention_plan *plan)
{
    cudnn_graph *graph = &plan->graph;
    const int64_t H = plan->shape.H, Hkv = plan->shape.Hkv, T = plan->shape.T, D = plan->shape.D;
    const int64_t width = (H + 2 * Hkv) * D;
    const cudnn_tensor query = rows_of(plan, QUERY, N_DATA_BF16, H, width),
                       key = columns_of(plan, KEY, Hkv, width);
    const cudnn_tensor value = rows_of(plan, VALUE, N_DATA_BF16, Hkv, width);
    const cudnn_tensor out = rows_of(plan, OUT, N_DATA_BF16, H, H * D), lse = per_query(plan, LSE);
    const cudnn_tensor scale = scalar(plan, &plan->scale), scaled = scaled_scores(plan, &query, &key, &scale);
    const cudnn_tensor seen = mask(plan, &scaled);
    const cudnn_tensor largest = inside(plan, N_DATA_FP32, T, 1), sum = inside(plan, N_DATA_FP32, T, 1);
    const cudnn_tensor log_sum = inside(plan, N_DATA_FP32, T, 1), p = scores(plan, N_DATA_BF16);
    p4_cudnn_reduce(graph, N_REDUCE_MAX, &seen, &largest);
    const cudnn_tensor below = on_scores(plan, N_POINTWISE_SUB, &seen, &largest);
    const cudnn_tensor e = on_scores(plan, N_POINTWISE_EXP, &below, NULL);
    p4_cudnn_reduce(graph, N_REDUCE_ADD, &e, &sum);
    p4_cudnn_pointwise(graph, N_POINTWISE_LOG, N_DATA_FP32, -1, &sum, NULL, NULL, &log_sum);
    p4_cudnn_pointwise(graph, N_POINTWISE_ADD, N_DATA_FP32, -1, &largest, &log_sum, NULL, &lse);
    p4_cudnn_pointwise(graph, N_POINTWISE_DIV, N_DATA_FP32, -1, &e, &sum, NULL, &p);
    p4_cudnn_matmul(graph, &p, &value, &out);
}

/* --- backward --------------------------------------------------------------------------------- */

/* delta = the sum of dout * out over a head. */
static cudnn_tensor make_delta(attention_plan *plan, const cudnn_tensor *dout, const cudnn_tensor *out)
{
    cudnn_graph *graph = &plan->graph;
    const int64_t B = plan->shape.B, H = plan->shape.H, T = plan->shape.T, D = plan->shape.D;
    const int64_t dim[4] = {B, H, T, D},
                  stride[4] = {H * T * D, T * D, H * D, 1}; /* as its front end names it; not read */
    const cudnn_tensor product = p4_cudnn_tensor(graph, CUDNN_INSIDE, N_DATA_FP32, dim, stride);
    const cudnn_tensor sum = inside(plan, N_DATA_FP32, T, 1), one = scalar(plan, &plan->one);
    const cudnn_tensor delta = per_query(plan, DELTA);
    p4_cudnn_pointwise(graph, N_POINTWISE_MUL, N_DATA_FP32, -1, dout, out, NULL, &product);
    p4_cudnn_reduce(graph, N_REDUCE_ADD, &product, &sum);
    p4_cudnn_pointwise(graph, N_POINTWISE_MUL, N_DATA_FP32, -1, &sum, &one, NULL, &delta);
    return delta;
}

/* `array` (dK or dV) = left right, summed over the query heads of a group. */
static void key_gradient(attention_plan *plan, plan_array array, const cudnn_tensor *left,
                         const cudnn_tensor *right)
{
    const int64_t H = plan->shape.H, Hkv = plan->shape.Hkv, D = plan->shape.D;
    const cudnn_tensor to = rows_of(plan, array, N_DATA_BF16, Hkv, (H + 2 * Hkv) * D);
    if (H == Hkv) {
        p4_cudnn_matmul(&plan->graph, left, right, &to);
    } else {
        const cudnn_tensor each = inside(plan, N_DATA_BF16, plan->shape.T, D);
        p4_cudnn_matmul(&plan->graph, left, right, &each);
        p4_cudnn_reduce(&plan->graph, N_REDUCE_ADD, &each, &to);
    }
}

/* dQ = ds K. In any order: all blocks of a head add to it in fp32, in the workspace. */
static void query_gradient(attention_plan *plan, const cudnn_tensor *ds, const cudnn_tensor *key)
{
    cudnn_graph *graph = &plan->graph;
    const int64_t B = plan->shape.B, H = plan->shape.H, Hkv = plan->shape.Hkv, T = plan->shape.T,
                  D = plan->shape.D;
    const int64_t dim[4] = {B, Hkv, T, D}, stride[4] = {key->stride[0], key->stride[1], key->stride[3], 1};
    const cudnn_tensor rows = p4_cudnn_tensor(graph, CUDNN_INSIDE, N_DATA_FP32, dim, stride);
    const cudnn_tensor to = rows_of(plan, DQUERY, N_DATA_BF16, H, (H + 2 * Hkv) * D);
    p4_cudnn_view(graph, key, &rows);
    if (!graph->cudnn->any_order) {
        p4_cudnn_matmul(graph, ds, &rows, &to);
        return;
    }
    const int64_t sum_dim[4] = {B, H, T, D}, sum_stride[4] = {H * T * D, T * D, D, 1};
    const cudnn_tensor sum = p4_cudnn_tensor(graph, CUDNN_ARRAY, N_DATA_FP32, sum_dim, sum_stride);
    plan->id[SUM] = sum.id;
    p4_cudnn_matmul(graph, ds, &rows, &sum);
    p4_cudnn_pointwise(graph, N_POINTWISE_IDENTITY, N_DATA_FP32, -1, &sum, NULL, NULL, &to);
}

static void build_backward(attention_plan *plan)
{
    const int64_t H = plan->shape.H, Hkv = plan->shape.Hkv, D = plan->shape.D, width = (H + 2 * Hkv) * D;
    const cudnn_tensor query = rows_of(plan, QUERY, N_DATA_BF16, H, width),
                       key = columns_of(plan, KEY, Hkv, width);
    const cudnn_tensor value = columns_of(plan, VALUE, Hkv, width),
                       out = rows_of(plan, OUT, N_DATA_BF16, H, H * D);
    const cudnn_tensor dout = rows_of(plan, DOUT, N_DATA_BF16, H, H * D), lse = per_query(plan, LSE);
    const cudnn_tensor delta = make_delta(plan, &dout, &out), scale = scalar(plan, &plan->scale);
    const cudnn_tensor scaled = scaled_scores(plan, &query, &key, &scale);
    const cudnn_tensor below = on_scores(plan, N_POINTWISE_SUB, &scaled, &lse), seen = mask(plan, &below);
    const cudnn_tensor p = on_scores(plan, N_POINTWISE_EXP, &seen, NULL), p_columns = transposed(plan, &p);
    key_gradient(plan, DVALUE, &p_columns, &dout);
    const cudnn_tensor dp = scores(plan, N_DATA_FP32);
    p4_cudnn_matmul(&plan->graph, &dout, &value, &dp);
    const cudnn_tensor centred = on_scores(plan, N_POINTWISE_SUB, &dp, &delta);
    const cudnn_tensor weighted = on_scores(plan, N_POINTWISE_MUL, &centred, &p);
    const cudnn_tensor ds = on_scores(plan, N_POINTWISE_MUL, &weighted, &scale),
                       ds_columns = transposed(plan, &ds);
    key_gradient(plan, DKEY, &ds_columns, &query);
    query_gradient(plan, &ds, &key);
}

/* --- memory ----------------------------------------------------------------------------------- */

static int64_t aligned(int64_t bytes)
{
    return p4_ceil_div(bytes, WORK_ALIGNMENT) * WORK_ALIGNMENT;
}

/* The largest workspace that an engine may ask for. It grows with B and T, so that memory for a batch
 * suffices for smaller ones. */
static int64_t engine_bytes(const struct p4_cudnn *cudnn, const p4_attention_shape *s, bool backward)
{
    const int64_t padded = p4_ceil_div(s->T, KEY_TILE) * KEY_TILE, heads = s->B * s->H;
    int64_t bytes = WORK_SLACK;
    if (backward) {
        bytes += s->H == s->Hkv ? 0 : 2 * heads * padded * s->D * 2; /* dK and dV of every query head */
        bytes += cudnn->any_order ? 0 : heads * padded * padded * 2; /* dS */
    }
    return bytes;
}

/* The parts of `work`, each aligned: one fp32 a query (delta, or an lse that the caller does not want); dQ
 * in fp32, in any order; the engine's workspace. */
static int64_t queries_bytes(const p4_attention_shape *s)
{
    return aligned(s->B * s->H * s->T * 4);
}
static int64_t sum_bytes(const struct p4_cudnn *cudnn, const p4_attention_shape *s, bool backward)
{
    return backward && cudnn->any_order ? aligned(s->B * s->H * s->T * s->D * 4) : 0;
}

/* --- plans ------------------------------------------------------------------------------------ */

static bool same_shape(const p4_attention_shape *a, const p4_attention_shape *b)
{
    return a->B == b->B && a->T == b->T && a->H == b->H && a->Hkv == b->Hkv && a->D == b->D &&
           a->window == b->window && a->scale == b->scale;
}

static attention_plan *make_plan(p4_device *device, const p4_attention_shape *s, bool backward)
{
    attention_plan *plan = (attention_plan *)p4_alloc(1, sizeof *plan);
    if (!plan) {
        p4_cuda_fail(device, "attention: out of host memory");
        return NULL;
    }
    plan->shape = *s;
    plan->backward = backward;
    plan->graph.cudnn = device->cudnn;
    plan->scale = s->scale;
    plan->window = (float)s->window;
    plan->hidden = -INFINITY;
    plan->one = 1.0f;
    if (backward) {
        build_backward(plan);
    } else {
        build_forward(plan);
    }
    p4_cudnn_plan(&plan->graph, !device->cudnn->any_order);
    plan->next = device->cudnn->plans;
    device->cudnn->plans = plan;
    return plan;
}

/* A shape of the table that cuDNN cannot compute: a warning, or a failure where the user asked for cuDNN. */
static void refuse(p4_device *device, attention_plan *plan)
{
    const p4_attention_shape *s = &plan->shape;
    char what[256];
    snprintf(what, sizeof what,
             "attention %s, B %lld, T %lld, %lld/%lld heads of %lld, window %lld: %s (%s, %lld bytes of "
             "workspace)",
             plan->backward ? "backward" : "forward", (long long)s->B, (long long)s->T, (long long)s->H,
             (long long)s->Hkv, (long long)s->D, (long long)s->window,
             plan->graph.plan ? "cuDNN wants more memory than expected" : "cuDNN has no engine",
             device->cudnn->call.error_string(plan->graph.status), (long long)plan->graph.workspace_bytes);
    if (device->attention.cudnn_first) {
        p4_cuda_fail(device, "%s", what);
    } else {
        WARN("%s; own kernels are used", what);
    }
    p4_cudnn_graph_close(&plan->graph);
}

/* The plan of a shape, made when it is first asked for: by attention_work_count, so that steps make none.
 * NULL: cuDNN has no engine. */
static attention_plan *plan_of(p4_device *device, const p4_attention_shape *shape, bool backward)
{
    p4_attention_shape s = *shape;
    s.window = s.window <= 0 || s.window >= s.T ? 0 : s.window;
    attention_plan *plan = device->cudnn->plans;
    while (plan && !(plan->backward == backward && same_shape(&plan->shape, &s))) {
        plan = plan->next;
    }
    if (!plan) {
        plan = make_plan(device, &s, backward);
        if (plan &&
            (!plan->graph.plan || plan->graph.workspace_bytes > engine_bytes(device->cudnn, &s, backward))) {
            refuse(device, plan);
        }
    }
    return plan && plan->graph.plan ? plan : NULL;
}

int64_t p4_cudnn_attention_work_bytes(p4_device *device, const p4_attention_shape *shape, bool backward)
{
    (void)plan_of(device, shape, backward);
    return WORK_ALIGNMENT + queries_bytes(shape) + sum_bytes(device->cudnn, shape, backward) +
           engine_bytes(device->cudnn, shape, backward);
}

/* --- open and close --------------------------------------------------------------------------- */

p4_rc p4_cudnn_attention_open(p4_device *device, int major, bool any_order, char *why, size_t why_bytes)
{
    const p4_rc rc = p4_cudnn_open(&device->cudnn, device->stream, major, why, why_bytes);
    if (device->cudnn) {
        device->cudnn->any_order = any_order;
    }
    return rc;
}

bool p4_cudnn_attention_describe(const p4_device *device, char *text, size_t text_bytes)
{
    const struct p4_cudnn *cudnn = device->cudnn;
    if (cudnn) {
        snprintf(text, text_bytes, "cuDNN %d.%d%s", cudnn->version / 10000, cudnn->version / 100 % 100,
                 cudnn->any_order ? " in any order" : "");
    }
    return cudnn != NULL;
}

void p4_cudnn_attention_close(p4_device *device)
{
    while (device->cudnn && device->cudnn->plans) {
        attention_plan *plan = device->cudnn->plans;
        device->cudnn->plans = plan->next;
        p4_cudnn_graph_close(&plan->graph);
        free(plan);
    }
    p4_cudnn_close(device->cudnn);
    device->cudnn = NULL;
}

/* --- the ops ---------------------------------------------------------------------------------- */

static void bind(const attention_plan *plan, cudnn_bindings *bindings, plan_array array, const void *at)
{
    bindings->id[bindings->count] = plan->id[array];
    bindings->at[bindings->count++] = (void *)at;
}

/* Binds the heads of qkv (or dqkv) to three arrays. */
static void bind_heads(const attention_plan *plan, cudnn_bindings *bindings, plan_array first,
                       const void *rows)
{
    const __nv_bfloat16 *at = (const __nv_bfloat16 *)rows;
    const int64_t H = plan->shape.H, Hkv = plan->shape.Hkv, D = plan->shape.D;
    bind(plan, bindings, first, at);
    bind(plan, bindings, (plan_array)(first + 1), at + H * D);
    bind(plan, bindings, (plan_array)(first + 2), at + (H + Hkv) * D);
}

static bool run(p4_device *device, const attention_plan *plan, const cudnn_bindings *bindings,
                void *workspace)
{
    const int status = p4_cudnn_run(&plan->graph, bindings, workspace);
    if (status != 0) {
        p4_cuda_fail(device, "attention by cuDNN: %s", device->cudnn->call.error_string(status));
    }
    return true;
}

bool p4_cudnn_attention_forward(p4_device *device, const p4_attention_forward_args *a)
{
    const bool wide = p4_cuda_wide(P4_ADDRESS(a->out) | P4_ADDRESS(a->qkv) | P4_ADDRESS(a->opt_lse), 0);
    const attention_plan *plan = wide ? plan_of(device, &a->shape, false) : NULL;
    if (!plan) {
        return false;
    }
    char *queries = (char *)aligned((int64_t)P4_ADDRESS(a->work));
    cudnn_bindings bindings = plan->scalars;
    bind_heads(plan, &bindings, QUERY, a->qkv);
    bind(plan, &bindings, OUT, a->out);
    bind(plan, &bindings, LSE, a->opt_lse ? (void *)a->opt_lse : queries);
    return run(device, plan, &bindings, queries + queries_bytes(&a->shape));
}

bool p4_cudnn_attention_backward(p4_device *device, const p4_attention_backward_args *a)
{
    const uintptr_t addresses = P4_ADDRESS(a->dqkv) | P4_ADDRESS(a->dout) | P4_ADDRESS(a->out) |
                                P4_ADDRESS(a->lse) | P4_ADDRESS(a->qkv);
    const attention_plan *plan = p4_cuda_wide(addresses, 0) ? plan_of(device, &a->shape, true) : NULL;
    if (!plan) {
        return false;
    }
    char *queries = (char *)aligned((int64_t)P4_ADDRESS(a->work)), *sum = queries + queries_bytes(&a->shape);
    cudnn_bindings bindings = plan->scalars;
    bind_heads(plan, &bindings, QUERY, a->qkv);
    bind_heads(plan, &bindings, DQUERY, a->dqkv);
    bind(plan, &bindings, OUT, a->out);
    bind(plan, &bindings, DOUT, a->dout);
    bind(plan, &bindings, LSE, a->lse);
    bind(plan, &bindings, DELTA, queries);
    if (device->cudnn->any_order) {
        bind(plan, &bindings, SUM, sum);
    }
    return run(device, plan, &bindings, sum + sum_bytes(device->cudnn, &a->shape, true));
}
