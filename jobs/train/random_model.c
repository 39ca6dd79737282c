#include "jobs/train/random_model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/file/files.h"
#include "src/leaf/rng.h"

static void fill(float *to, int64_t count, float value)
{
    for (int64_t i = 0; i < count; i++) {
        to[i] = value;
    }
}

static void draw(float *to, int64_t count, double deviation, uint64_t seed, uint64_t stream)
{
    p4_rng rng = {.seed = seed, .stream = stream};
    for (int64_t i = 0; i < count; i++) {
        to[i] = (float)(deviation * p4_rng_normal(&rng));
    }
}

/* No default: the compiler names a kind of parameter that has no rule. */
static void init_param(float *to, const p4_arch *arch, const p4_param *p, uint64_t seed, uint64_t stream)
{
    int64_t count = p->rows * p->cols;
    switch (p4_roles[p->role].kind) {
    case P4_KIND_TABLE:
    case P4_KIND_PROJECTION:
    case P4_KIND_ROUTER:
        draw(to, count, 0.02, seed, stream);
        break;
    case P4_KIND_RESIDUAL:
        draw(to, count, 0.02 / sqrt(2.0 * (double)arch->L), seed, stream);
        break;
    case P4_KIND_GAIN:
        fill(to, count, arch->gain_offset ? 0.0f : 1.0f);
        break;
    case P4_KIND_NORM_BIAS:
    case P4_KIND_SLOT_BIAS:
    case P4_KIND_HEAD_BIAS:
        fill(to, count, 0.0f);
        break;
    }
}

p4_rc p4_random_model_open(p4_hf_model *hf, float **weights, const char *path, uint64_t seed)
{
    p4_rc rc = P4_OK;
    p4_arch arch;
    *hf = (p4_hf_model){0};
    *weights = NULL;
    if ((hf->path = p4_strdup(path)) == NULL) {
        rc = P4_E_SYSTEM;
        goto done;
    }
    TRY(p4_hf_read_config(hf, &arch));
    TRY(p4_model_init(&hf->model, &arch, p4_family_prefix(arch.family)));
    int64_t count = p4_model_count_elements(&hf->model);
    if ((*weights = p4_alloc((size_t)count, sizeof **weights)) == NULL) {
        rc = P4_E_SYSTEM;
        goto done;
    }
    float *to = *weights;
    for (int64_t i = 0; i < hf->model.params_count; i++) {
        const p4_param *p = &hf->model.params[i];
        init_param(to, &arch, p, seed, ((uint64_t)1 << 32) + (uint64_t)i);
        hf->model.weights[i] = (p4_weight){.dtype = P4_F32, .rows = p->rows, .cols = p->cols, .data = to};
        to += p->rows * p->cols;
    }
    hf->stored_bytes = 4.0 * (double)count;
    snprintf(hf->stored_dtype, sizeof hf->stored_dtype, "F32");
done:
    if (rc != P4_OK) {
        free(*weights);
        *weights = NULL;
        p4_hf_model_close(hf);
    }
    return rc;
}
