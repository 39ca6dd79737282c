/* attention.cu - attention as an op: the table of implementations, in order of preference, and what follows
 * from it: which one computes a call, how much workspace a shape needs, and what is said of the choice.
 *
 * P4_ATTENTION in the environment restricts the choice: `own` and `mma` leave out cuDNN, `mma` also the
 * kernels for compute capability 9.0; `cudnn` and `cudnn-any-order` give cuDNN all that it can compute, and
 * are an error on a device that cannot use it. */
#include "kernels/cuda/attention.cuh"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/attention_cudnn.cuh"

enum {
    HEAD_MOST = 256,
    WGMMA_HEAD_OVER = 32,
    WGMMA_HEAD_MOST = 128,
    CUDNN_HEAD_LEAST = 32,
    HEAD_STEP = 8,             /* elements: rows of heads then lie on multiples of 16 bytes */
    SEQUENCE_MOST = 512 << 20, /* bytes of dS that cuDNN may keep of a sequence in backward */
    DELTA_THREADS = 128
};

/* One implementation. */
typedef struct implementation {
    const char *name;
    /* Why it does not take a shape; NULL: it does. */
    const char *(*why_not)(const p4_attention_support *support, const p4_attention_shape *shape,
                           bool backward);
    int64_t (*work_bytes)(p4_device *device, const p4_attention_shape *shape, bool backward);
    /* Called for a shape that it takes. False: nothing was queued, as it does not take these addresses, or
     * cuDNN has no engine for the shape. */
    bool (*forward)(p4_device *device, const p4_attention_forward_args *args);
    bool (*backward)(p4_device *device, const p4_attention_backward_args *args);
} implementation;

/* --- tasks of own kernels --------------------------------------------------------------------- */

static attention_task make_task(const p4_device *device, const void *qkv, const p4_attention_shape *shape)
{
    const int64_t each = p4_act_bytes(device);
    attention_task k = {};
    k.qkv = qkv;
    k.B = (int)shape->B;
    k.T = (int)shape->T;
    k.H = (int)shape->H;
    k.Hkv = (int)shape->Hkv;
    k.D = (int)shape->D;
    k.window = (int)p4_min_i64(p4_max_i64(shape->window, 0), shape->T);
    k.scale = shape->scale;
    k.cap = shape->cap;
    k.width = (shape->H + 2 * shape->Hkv) * shape->D;
    k.wide = p4_cuda_wide(P4_ADDRESS(qkv), shape->D * each);
    k.even = shape->D % 2 == 0 && P4_ADDRESS(qkv) % (2 * (uintptr_t)each) == 0;
    return k;
}

static attention_task forward_task(const p4_device *device, const p4_attention_forward_args *a)
{
    attention_task k = make_task(device, a->qkv, &a->shape);
    k.to = a->out;
    k.to_lse = a->opt_lse;
    k.even = k.even && P4_ADDRESS(a->out) % 4 == 0;
    return k;
}

static attention_task backward_task(const p4_device *device, const p4_attention_backward_args *a)
{
    attention_task k = make_task(device, a->qkv, &a->shape);
    k.out = a->out;
    k.dout = a->dout;
    k.to = a->dqkv;
    k.lse = a->lse;
    k.delta = a->work;
    k.wide = k.wide && P4_ADDRESS(a->dout) % P4_VECTOR_BYTES == 0;
    k.even = k.even && P4_ADDRESS(a->dqkv) % 4 == 0;
    return k;
}

/* delta[b, h, t] = sum of dout * out over the head: a warp each. */
template <typename T> __global__ void delta_rows(attention_task k, int64_t rows)
{
    const int64_t at = (int64_t)blockIdx.x * (DELTA_THREADS / P4_WARP) + threadIdx.x / P4_WARP;
    if (at >= rows) {
        return;
    }
    const int64_t t = at % k.T, head = at / k.T % k.H, batch = at / k.T / k.H;
    const int64_t from = ((batch * k.T + t) * k.H + head) * k.D;
    float sum = 0.0f;
    for (int d = (int)(threadIdx.x % P4_WARP); d < k.D; d += P4_WARP) {
        sum += p4_value(((const T *)k.dout)[from + d]) * p4_value(((const T *)k.out)[from + d]);
    }
    sum = p4_warp_sum(sum);
    if (threadIdx.x % P4_WARP == 0) {
        k.delta[at] = sum;
    }
}

/* --- wgmma: compute capability 9.0, kernels/sm90/attention_*.cu ------------------------------- */

static const char no_cap[] = "scores have a soft cap";

/* Forward looks for the largest score before it is scaled. Tiles are 64 or 128 elements wide; with a head of
 * 32 or fewer they would be half zeros. */
static const char *wgmma_why_not(const p4_attention_support *support, const p4_attention_shape *shape, bool)
{
    if (support->no_wgmma) {
        return support->no_wgmma;
    }
    if (shape->D <= WGMMA_HEAD_OVER || shape->D > WGMMA_HEAD_MOST || shape->D % HEAD_STEP != 0) {
        return "the head dimension is not a multiple of 8 from 40 to 128";
    }
    if (shape->cap > 0.0f) {
        return no_cap;
    }
    return shape->scale > 0.0f ? NULL : "the scale is not positive";
}

static int64_t wgmma_work_bytes(p4_device *, const p4_attention_shape *shape, bool backward)
{
    return backward ? p4_attention_sm90_work_bytes(shape) : 0;
}

static bool wgmma_forward(p4_device *device, const p4_attention_forward_args *a)
{
    const attention_task k = forward_task(device, a);
    if (!p4_cuda_wide(P4_ADDRESS(a->out) | P4_ADDRESS(a->qkv), 0)) {
        return false;
    }
    p4_attention_forward_sm90(device, &k);
    p4_cuda_launched(device, "attention_forward");
    return true;
}

static bool wgmma_backward(p4_device *device, const p4_attention_backward_args *a)
{
    const attention_task k = backward_task(device, a);
    if (!p4_cuda_wide(P4_ADDRESS(a->dqkv) | P4_ADDRESS(a->dout) | P4_ADDRESS(a->out) | P4_ADDRESS(a->qkv) |
                          P4_ADDRESS(a->work),
                      0)) {
        return false;
    }
    p4_attention_backward_sm90(device, &k);
    p4_cuda_launched(device, "attention_backward");
    return true;
}

/* --- mma and fp32: any device, shape and address ---------------------------------------------- */

static const char *mma_why_not(const p4_attention_support *support, const p4_attention_shape *, bool)
{
    return support->half ? NULL : "activations are fp32";
}

static const char *f32_why_not(const p4_attention_support *support, const p4_attention_shape *, bool)
{
    return support->half ? "activations are bf16" : NULL;
}

static int64_t delta_bytes(p4_device *, const p4_attention_shape *shape, bool backward)
{
    return backward ? shape->B * shape->H * shape->T * (int64_t)sizeof(float) : 0;
}

static bool mma_forward(p4_device *device, const p4_attention_forward_args *a)
{
    const attention_task k = forward_task(device, a);
    p4_attention_forward_bf16(device, &k, a->shape.B);
    p4_cuda_launched(device, "attention_forward");
    return true;
}

static bool f32_forward(p4_device *device, const p4_attention_forward_args *a)
{
    const attention_task k = forward_task(device, a);
    p4_attention_forward_f32(device, &k, a->shape.B);
    p4_cuda_launched(device, "attention_forward");
    return true;
}

static bool mma_backward(p4_device *device, const p4_attention_backward_args *a)
{
    const attention_task k = backward_task(device, a);
    const int64_t rows = a->shape.B * a->shape.H * a->shape.T;
    const unsigned blocks = (unsigned)p4_ceil_div(rows, DELTA_THREADS / P4_WARP);
    delta_rows<__nv_bfloat16><<<blocks, DELTA_THREADS, 0, device->stream>>>(k, rows);
    p4_attention_backward_bf16(device, &k, a->shape.B);
    p4_cuda_launched(device, "attention_backward");
    return true;
}

static bool f32_backward(p4_device *device, const p4_attention_backward_args *a)
{
    const attention_task k = backward_task(device, a);
    const int64_t rows = a->shape.B * a->shape.H * a->shape.T;
    const unsigned blocks = (unsigned)p4_ceil_div(rows, DELTA_THREADS / P4_WARP);
    delta_rows<float><<<blocks, DELTA_THREADS, 0, device->stream>>>(k, rows);
    p4_attention_backward_f32(device, &k, a->shape.B);
    p4_cuda_launched(device, "attention_backward");
    return true;
}

/* --- cuDNN: kernels/cuda/attention_cudnn.cu --------------------------------------------------- */

/* The kernels with wgmma are faster than cuDNN's in backward, and keep no dS in memory (docs/speed.md): they
 * come first there, unless the user asked for cuDNN. */
static const char *cudnn_why_not(const p4_attention_support *support, const p4_attention_shape *shape,
                                 bool backward)
{
    if (support->no_cudnn) {
        return support->no_cudnn;
    }
    if (shape->B < 1 || shape->T < 2) {
        return "fewer than 2 tokens";
    }
    if (shape->D < CUDNN_HEAD_LEAST || shape->D > HEAD_MOST || shape->D % HEAD_STEP != 0) {
        return "the head dimension is not a multiple of 8 from 32 to 256";
    }
    if (shape->cap > 0.0f) {
        return no_cap;
    }
    if (backward && !support->cudnn_first && !wgmma_why_not(support, shape, backward)) {
        return "wgmma is faster in backward";
    }
    if (backward && !support->cudnn_first && shape->H * shape->T * shape->T * 2 > SEQUENCE_MOST) {
        return "it would keep more than 512 MiB of score gradients a sequence in backward";
    }
    return NULL;
}

/* --- the table -------------------------------------------------------------------------------- */

/* In order of preference. One of the last two takes every shape. */
static const implementation implementations[] = {
    {"cuDNN", cudnn_why_not, p4_cudnn_attention_work_bytes, p4_cudnn_attention_forward,
     p4_cudnn_attention_backward},
    {"wgmma", wgmma_why_not, wgmma_work_bytes, wgmma_forward, wgmma_backward},
    {"mma", mma_why_not, delta_bytes, mma_forward, mma_backward},
    {"fp32", f32_why_not, delta_bytes, f32_forward, f32_backward},
};
enum { IMPLEMENTATIONS = sizeof implementations / sizeof implementations[0] };

const char *p4_attention_choice(const p4_attention_support *support, const p4_attention_shape *shape,
                                bool backward, char *why, size_t why_bytes)
{
    size_t used = 0;
    snprintf(why, why_bytes, "%s", "");
    for (int i = 0; i < IMPLEMENTATIONS; i++) {
        const char *reason = implementations[i].why_not(support, shape, backward);
        if (!reason) {
            return implementations[i].name;
        }
        used += (size_t)snprintf(why + used, why_bytes - used, "%s: %s; ", implementations[i].name, reason);
        used = used < why_bytes ? used : why_bytes - 1;
    }
    return NULL;
}

/* False when there is nothing to do, or no implementation for the head dimension, which sync then reports. */
static bool has_work(p4_device *device, const p4_attention_shape *shape)
{
    if (shape->D > HEAD_MOST) {
        p4_cuda_fail(device, "attention: head dimension %lld, expected at most %d", (long long)shape->D,
                     HEAD_MOST);
    }
    return shape->B > 0 && shape->T > 0 && shape->D <= HEAD_MOST;
}

void p4_cuda_attention_forward(p4_device *device, const p4_attention_forward_args *args)
{
    bool done = !has_work(device, &args->shape);
    for (int i = 0; !done && i < IMPLEMENTATIONS; i++) {
        done = !implementations[i].why_not(&device->attention, &args->shape, false) &&
               implementations[i].forward(device, args);
    }
}

void p4_cuda_attention_backward(p4_device *device, const p4_attention_backward_args *args)
{
    bool done = !has_work(device, &args->shape);
    for (int i = 0; !done && i < IMPLEMENTATIONS; i++) {
        done = !implementations[i].why_not(&device->attention, &args->shape, true) &&
               implementations[i].backward(device, args);
    }
}

/* Enough for every implementation that takes the shape: addresses, which are not known here, decide between
 * them. */
int64_t p4_cuda_attention_work_count(p4_device *device, const p4_attention_shape *shape, bool backward)
{
    if (shape->D > HEAD_MOST) {
        return -1;
    }
    int64_t bytes = 0;
    for (int direction = 0; direction <= (int)backward; direction++) {
        for (int i = 0; i < IMPLEMENTATIONS; i++) {
            if (!implementations[i].why_not(&device->attention, shape, direction == 1)) {
                bytes = p4_max_i64(bytes, implementations[i].work_bytes(device, shape, direction == 1));
            }
        }
    }
    return p4_ceil_div(bytes, (int64_t)sizeof(float));
}

/* --- open and close --------------------------------------------------------------------------- */

/* "attention: cuDNN 9.19 forward, own kernels backward", as the table decides for an ordinary shape. tried:
 * cuDNN was to be used. */
static void describe(const p4_device *device, bool tried, char *said, size_t said_bytes)
{
    const p4_attention_shape ordinary = {1, 1024, 1, 1, 64, 0, 0.125f, 0.0f};
    char cudnn[64], why[512];
    const char *forward = p4_attention_choice(&device->attention, &ordinary, false, why, sizeof why);
    const char *backward = p4_attention_choice(&device->attention, &ordinary, true, why, sizeof why);
    if (p4_cudnn_attention_describe(device, cudnn, sizeof cudnn)) {
        snprintf(said, said_bytes, "attention: %s%s", cudnn,
                 strcmp(forward, backward) == 0 ? "" : " forward, own kernels backward");
        return;
    }
    snprintf(said, said_bytes, "attention: own kernels%s%s%s%s",
             strcmp(forward, "wgmma") == 0 ? " with wgmma" : "", tried ? " (" : "",
             tried ? device->attention.no_cudnn : "", tried ? ")" : "");
}

p4_rc p4_cuda_attention_open(p4_device *device, int major, char *said, size_t said_bytes)
{
    p4_rc rc = P4_OK;
    const char *asked = getenv("P4_ATTENTION");
    const bool given = asked && asked[0];
    const bool mma = given && strcmp(asked, "mma") == 0, own = mma || (given && strcmp(asked, "own") == 0);
    const bool any_order = given && strcmp(asked, "cudnn-any-order") == 0;
    const bool forced = any_order || (given && strcmp(asked, "cudnn") == 0), tried = device->half && !own;
    p4_attention_support *support = &device->attention;
    CHECK(!given || own || forced, "P4_ATTENTION=%s: expected own, mma, cudnn or cudnn-any-order", asked);
    support->half = device->half;
    support->cudnn_first = forced;
    support->no_wgmma = !device->half           ? "activations are fp32"
                        : !device->encode_tiled ? "compute capability is not 9.0"
                        : mma                   ? "P4_ATTENTION=mma"
                                                : NULL;
    support->no_cudnn = !device->half ? "activations are fp32" : own ? "P4_ATTENTION leaves it out" : NULL;
    if (tried) {
        TRY(p4_cudnn_attention_open(device, major, any_order, device->no_cudnn, sizeof device->no_cudnn));
        support->no_cudnn = device->no_cudnn[0] ? device->no_cudnn : NULL;
        CHECK(!support->no_cudnn || !forced, "P4_ATTENTION=%s, but cuda device %d cannot use cuDNN: %s",
              asked, device->ordinal, support->no_cudnn);
    }
    describe(device, tried, said, said_bytes);
done:
    return rc;
}

void p4_cuda_attention_close(p4_device *device)
{
    p4_cudnn_attention_close(device);
}
