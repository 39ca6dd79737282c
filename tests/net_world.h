/* net_world.h - what the tests of the network share: the backend at hand, gradients of every parameter,
 * golden tensors, the fixture models. */
#ifndef P4_NET_WORLD_H
#define P4_NET_WORLD_H

#include <stdlib.h>

#include "check.h"
#include "fixture_models.h"
#include "io/hf/hf_model.h"
#include "src/form.h"

static const p4_ops *ops;
static p4_device *device;

/* Opens a backend on two threads; when it is not there that is a failure (the CPU, or P4_NEED_GPU=1), or a
 * line. */
static inline bool open_backend(const char *backend, bool half)
{
    ops = p4_ops_find(backend);
    bool needed = strcmp(backend, "cpu") == 0 || getenv("P4_NEED_GPU") != NULL;
    p4_rc rc = ops != NULL ? ops->open(&device, 0, 2, half) : FAIL("this build has no CUDA backend");
    EXPECT(rc == P4_OK || !needed, "%s: %s", backend, p4_last_error());
    if (rc != P4_OK) {
        printf("%s, %s: skipped: %s\n", backend, half ? "bf16" : "fp32", p4_last_error());
        p4_error_clear();
    }
    return rc == P4_OK;
}

typedef struct grads {
    const p4_model *model;
    float *flat, *h_flat; /* device, host */
    int64_t *at;
} grads;

static inline void *take(int64_t bytes)
{
    void *memory = NULL;
    EXPECT_OK(ops->alloc(device, &memory, bytes));
    return memory;
}

static inline float *grad_buffer(void *user, int64_t param, bool *accumulate)
{
    grads *g = user;
    *accumulate = true;
    return g->flat + g->at[param];
}

static inline void ready(void *user, int64_t param)
{
    (void)user;
    (void)param;
}

static inline void take_grads(grads *g, const p4_model *model)
{
    int64_t count = 0;
    g->model = model;
    g->at = p4_alloc((size_t)model->params_count, sizeof *g->at);
    for (int64_t i = 0; i < model->params_count; i++) {
        g->at[i] = count;
        count += model->params[i].rows * model->params[i].cols;
    }
    g->flat = take(count * 4);
    ops->zero(device, g->flat, count * 4);
    g->h_flat = p4_alloc((size_t)count, sizeof *g->h_flat);
}

static inline void read_grads(grads *g)
{
    const p4_param *last = &g->model->params[g->model->params_count - 1];
    ops->to_host(device, g->h_flat, g->flat,
                 (g->at[g->model->params_count - 1] + last->rows * last->cols) * 4);
    EXPECT_OK(ops->sync(device));
}

static inline void free_grads(grads *g)
{
    ops->release(device, g->flat);
    free(g->h_flat);
    free(g->at);
}

/* Elements of golden tensor `name` as floats; *count of them. NULL: not there. */
static inline float *golden(const p4_safetensors *file, const char *name, int64_t *count)
{
    const p4_safetensor *t = p4_safetensors_find(file, name);
    *count = 1;
    if (t == NULL) {
        return NULL;
    }
    for (int d = 0; d < t->rank; d++) {
        *count *= t->shape[d];
    }
    float *values = p4_alloc((size_t)*count, sizeof *values);
    p4_to_f32(values, t->data, t->dtype, *count);
    return values;
}

#endif
