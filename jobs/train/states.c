#include "jobs/train/states.h"

#include <stdlib.h>

p4_rc p4_states_open(p4_states *s, const p4_compute *compute, int64_t windows, int64_t window_bytes,
                     bool on_host)
{
    int64_t bytes = p4_max_i64(1, windows * window_bytes);
    *s = (p4_states){
        .compute = compute, .window_bytes = window_bytes, .on_host = on_host && !compute->ops->host_memory};
    if (s->on_host) {
        s->memory = p4_alloc((size_t)bytes, 1);
        return s->memory != NULL ? P4_OK : P4_E_SYSTEM;
    }
    return compute->ops->alloc(compute->device, (void **)&s->memory, bytes);
}

void p4_states_close(p4_states *s)
{
    if (s->memory != NULL && s->on_host) {
        free(s->memory);
    } else if (s->memory != NULL) {
        s->compute->ops->release(s->compute->device, s->memory);
    }
    *s = (p4_states){0};
}

void p4_states_read(const p4_states *s, int64_t first, int64_t count, void *x)
{
    const p4_ops *ops = s->compute->ops;
    const char *from = s->memory + first * s->window_bytes;
    if (s->on_host) {
        ops->to_device(s->compute->device, x, from, count * s->window_bytes);
    } else {
        ops->copy(s->compute->device, x, from, count * s->window_bytes);
    }
}

void p4_states_gather(const p4_states *s, const int64_t *windows, int64_t count, void *x)
{
    if (!s->on_host) {
        s->compute->ops->gather_rows(s->compute->device, x, s->memory, windows, count, s->window_bytes);
        return;
    }
    for (int64_t i = 0; i < count; i++) {
        p4_states_read(s, windows[i], 1, (char *)x + i * s->window_bytes);
    }
}

void p4_states_write(p4_states *s, int64_t first, int64_t count, const void *x)
{
    const p4_ops *ops = s->compute->ops;
    char *to = s->memory + first * s->window_bytes;
    if (s->on_host) {
        ops->to_host(s->compute->device, to, x, count * s->window_bytes);
    } else {
        ops->copy(s->compute->device, to, x, count * s->window_bytes);
    }
}
