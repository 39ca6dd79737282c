/* logit_map.c - the scale and the soft cap of logits. */
#include "kernels/cpu/vmath.h"

bool p4_cpu_is_mapped(p4_logit_map map)
{
    return map.cap > 0.0f || (map.scale > 0.0f && map.scale != 1.0f);
}

static float scale_of(p4_logit_map map)
{
    return map.scale > 0.0f ? map.scale : 1.0f;
}

P4_MULTIVERSION static void scale_row(float *z, const float *x, float scale, int64_t V)
{
    for (int64_t i = 0; i < V; i++) {
        z[i] = x[i] * scale;
    }
}

P4_MULTIVERSION static void cap_row(float *z, const float *x, float scale, float cap, int64_t V)
{
    for (int64_t i = 0; i < V; i++) {
        z[i] = cap * p4_tanh_f32(x[i] * scale / cap);
    }
}

void p4_cpu_map_row(float *z, const float *x, p4_logit_map map, int64_t V)
{
    if (map.cap > 0.0f) {
        cap_row(z, x, scale_of(map), map.cap, V);
    } else {
        scale_row(z, x, scale_of(map), V);
    }
}

P4_MULTIVERSION static void cap_gradient(float *d, const float *z, float scale, float cap, int64_t V)
{
    for (int64_t i = 0; i < V; i++) {
        float t = z[i] / cap;
        d[i] *= scale * (1.0f - t * t);
    }
}

void p4_cpu_map_gradient(float *d, const float *z, p4_logit_map map, int64_t V)
{
    if (map.cap > 0.0f) {
        cap_gradient(d, z, scale_of(map), map.cap, V);
    } else {
        scale_row(d, d, scale_of(map), V);
    }
}

float *p4_cpu_map_rows(p4_device *device, int64_t rows, int64_t V, int64_t *stride)
{
    *stride = rows * p4_ceil_div(V, 16) * 16;
    return p4_cpu_scratch(device, *stride * (int64_t)sizeof(float));
}
