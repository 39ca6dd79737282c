#include "kernels/outline.h"

#include "kernels/gpu_sizes.h"

struct p4_device {
    int64_t memory_bytes;
    bool half;
};

enum { HEAD_MOST = 256, TILE = 128 };

p4_device *p4_outline_open(int64_t memory_bytes, bool half)
{
    p4_device *device = p4_alloc(1, sizeof *device);
    if (device != NULL) {
        *device = (p4_device){.memory_bytes = memory_bytes, .half = half};
    }
    return device;
}

static int64_t act_bytes(p4_device *device)
{
    return device->half ? 2 : 4;
}

static int64_t room_bytes(p4_device *device)
{
    return device->memory_bytes;
}

/* Backward: two sums a query, and the gradient of the queries in fp32. */
static int64_t attention_work_count(p4_device *device, const p4_attention_shape *shape, bool backward)
{
    (void)device;
    int64_t rows = shape->B * shape->H * p4_ceil_div(shape->T, TILE) * TILE;
    return shape->D > HEAD_MOST ? -1 : backward ? rows * (shape->D + 2) : rows;
}

/* X and its successor, A and the polynomial, of as many matrices at once as the workspace holds. */
static int64_t muon_work_count(p4_device *device, int64_t items, int64_t rows, int64_t cols)
{
    int64_t m = p4_min_i64(rows, cols), n = p4_max_i64(rows, cols);
    int64_t one = (2 * m * n + 2 * m * m + m) * act_bytes(device);
    if (items <= 0) {
        return 0;
    }
    int64_t lanes = items > 1 && P4_GPU_MUON_LANES * one <= P4_GPU_MUON_WORK_BYTES ? P4_GPU_MUON_LANES : 1;
    int64_t share = p4_ceil_div(items, lanes), most = p4_max_i64(1, P4_GPU_MUON_WORK_BYTES / lanes / one);
    int64_t batch = p4_ceil_div(share, p4_ceil_div(share, most));
    return p4_ceil_div(lanes * batch * one, (int64_t)sizeof(float));
}

static int64_t quantize_scratch_bytes(p4_device *device, const p4_weight *weight, p4_quant_method method)
{
    (void)device;
    (void)weight;
    (void)method;
    return 0;
}

const p4_ops p4_outline_ops = {.name = "a GPU as planned",
                               .host_memory = false,
                               .logits_chunk = P4_GPU_LOGITS_CHUNK,
                               .act_bytes = act_bytes,
                               .room_bytes = room_bytes,
                               .attention_work_count = attention_work_count,
                               .muon_work_count = muon_work_count,
                               .quantize_scratch_bytes = quantize_scratch_bytes};
