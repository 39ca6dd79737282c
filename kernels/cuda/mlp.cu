/* mlp.cu - elementwise ops on activations: conversion, sum, gated activation functions. Ungated ones:
 * kernels/cuda/activation.cu. */
#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/int8_rows.cuh"
#include "kernels/cuda/mlp.cuh"
#include "kernels/cuda/swiglu_backward.cuh"

enum { MLP_THREADS = 256 };

template <typename A, typename B, int W> static __global__ void convert(A *to, const B *from, int64_t count)
{
    const int64_t i = p4_flat_index<W>();
    float v[W];
    if (i < count) {
        p4_load_part(v, from + i, count - i);
        p4_store_part(to + i, v, count - i);
    }
}

void p4_cuda_act_to_f32(p4_device *device, float *to, const void *act, int64_t count)
{
    const bool wide = p4_cuda_wide(P4_ADDRESS(to) | P4_ADDRESS(act), 0);
    if (count <= 0) {
        return;
    }
    P4_BY_ACT(device, wide,
              convert<float, elem, W>
              <<<p4_cuda_flat(count, W), P4_FLAT_THREADS, 0, device->stream>>>(to, (const elem *)act, count));
    p4_cuda_launched(device, "act_to_f32");
}

/* out = a + scale b; a NULL: scale b. */
template <typename T, int W>
static __global__ void add(T *out, const T *a, const T *b, float scale, int64_t count)
{
    const int64_t i = p4_flat_index<W>();
    float x[W] = {}, y[W];
    if (i >= count) {
        return;
    }
    if (a) {
        p4_load_part(x, a + i, count - i);
    }
    p4_load_part(y, b + i, count - i);
#pragma unroll
    for (int k = 0; k < W; k++) {
        x[k] += scale * y[k];
    }
    p4_store_part(out + i, x, count - i);
}

void p4_cuda_add(p4_device *device, void *out, const void *a, const void *b, float scale, int64_t count)
{
    const bool wide = p4_cuda_wide(P4_ADDRESS(out) | P4_ADDRESS(a) | P4_ADDRESS(b), 0);
    if (count <= 0) {
        return;
    }
    P4_BY_ACT(device, wide,
              add<elem, W><<<p4_cuda_flat(count, W), P4_FLAT_THREADS, 0, device->stream>>>(
                  (elem *)out, (const elem *)a, (const elem *)b, scale, count));
    p4_cuda_launched(device, "add");
}

/* One block a row. */
template <typename T, int W, p4_activation F>
static __global__ void gated_rows(T *h, const T *gate_up, int64_t width)
{
    const T *gate = gate_up + blockIdx.x * 2 * width, *up = gate + width;
    for (int64_t f = (int64_t)threadIdx.x * W; f < width; f += (int64_t)blockDim.x * W) {
        float g[W], u[W];
        p4_load(g, gate + f);
        p4_load(u, up + f);
#pragma unroll
        for (int i = 0; i < W; i++) {
            u[i] = p4_gated<T, F>(g[i], u[i]);
        }
        p4_store(h + blockIdx.x * width + f, u);
    }
}

template <typename T, int W, p4_activation F>
static __global__ void gated_backward_rows(T *d, const T *dh, const T *gate_up, int64_t width)
{
    const T *gate = gate_up + blockIdx.x * 2 * width, *up = gate + width;
    T *dgate = d + blockIdx.x * 2 * width, *dup = dgate + width;
    for (int64_t f = (int64_t)threadIdx.x * W; f < width; f += (int64_t)blockDim.x * W) {
        float g[W], u[W], from[W];
        p4_load(g, gate + f);
        p4_load(u, up + f);
        p4_load(from, dh + blockIdx.x * width + f);
#pragma unroll
        for (int i = 0; i < W; i++) {
            p4_gated_backward<T, F>(from[i], &g[i], &u[i]);
        }
        p4_store(dgate + f, g);
        p4_store(dup + f, u);
    }
}

static void gated_forward(p4_device *device, void *y, const void *gate_up, p4_activation function, int64_t N,
                          int64_t width)
{
    const bool wide = p4_cuda_wide(P4_ADDRESS(y) | P4_ADDRESS(gate_up), width * p4_act_bytes(device));
    const unsigned threads = p4_cuda_threads(p4_ceil_div(width, p4_cuda_width(device, wide)), MLP_THREADS);
    P4_BY_FUNCTION(function, P4_BY_ACT(device, wide,
                                       gated_rows<elem, W, F><<<(unsigned)N, threads, 0, device->stream>>>(
                                           (elem *)y, (const elem *)gate_up, width)));
    p4_cuda_launched(device, "activate");
}

void p4_cuda_activate(p4_device *device, void *y, const p4_int8_rows *rounded, const void *x,
                      p4_activation function, bool gated, int64_t N, int64_t F)
{
    if (N <= 0 || F <= 0) {
        return;
    }
    if (rounded) {
        p4_cuda_round_activated(device, function, gated, y, rounded, x, N, F);
    } else if (gated) {
        gated_forward(device, y, x, function, N, F);
    } else {
        p4_cuda_activate_plain(device, function, y, x, N * F);
    }
}

void p4_cuda_gated_backward(p4_device *device, void *dgate_up, const void *dh, const void *gate_up,
                            p4_activation function, int64_t N, int64_t width)
{
    const bool wide = p4_cuda_wide(P4_ADDRESS(dgate_up) | P4_ADDRESS(dh) | P4_ADDRESS(gate_up),
                                   width * p4_act_bytes(device));
    const unsigned threads = p4_cuda_threads(p4_ceil_div(width, p4_cuda_width(device, wide)), MLP_THREADS);
    if (N <= 0 || width <= 0) {
        return;
    }
    P4_BY_FUNCTION(function,
                   P4_BY_ACT(device, wide,
                             gated_backward_rows<elem, W, F><<<(unsigned)N, threads, 0, device->stream>>>(
                                 (elem *)dgate_up, (const elem *)dh, (const elem *)gate_up, width)));
    p4_cuda_launched(device, "gated_backward");
}

void p4_cuda_linear_gated_backward(p4_device *device, const p4_linear_gated_backward_args *a)
{
    if (a->N > 0 && a->F > 0 && !p4_cuda_swiglu_own_backward(device, a)) {
        p4_cuda_linear_backward_input(device, a->dh_work, a->dy, a->w, a->N, a->F, a->out, false);
        p4_cuda_gated_backward(device, a->dgate_up, a->dh_work, a->gate_up, a->function, a->N, a->F);
    }
}
