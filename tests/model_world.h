/* model_world.h - what the tests of the parameter table share: an architecture, and what an entry must be. */
#ifndef P4_MODEL_WORLD_H
#define P4_MODEL_WORLD_H

#include "check.h"
#include "src/model.h"

static inline p4_arch llama_arch(void)
{
    p4_arch arch;
    EXPECT_OK(p4_arch_init(&arch, "llama"));
    arch.V = 50;
    arch.C = 20;
    arch.L = 3;
    arch.H = 6;
    arch.Hkv = 2;
    arch.D = 4;
    arch.F = 27;
    arch.positions = 64;
    arch.norm_eps = 1e-5f;
    arch.rope.theta = 1e4;
    arch.attention_scale = 0.5f;
    return arch;
}

static inline void expect_param(const p4_model *model, int64_t index, const char *name, p4_role role,
                                int64_t layer, int64_t row_offset, int64_t rows, int64_t cols)
{
    EXPECT(index >= 0 && index < model->params_count, "%s: index %lld", name, (long long)index);
    const p4_param *p = &model->params[index];
    EXPECT(strcmp(p->name, name) == 0 && p->role == role && p->layer == layer &&
               p->row_offset == row_offset && p->rows == rows && p->cols == cols,
           "entry %lld is %s, role %d, layer %lld, offset %lld, [%lld, %lld], expected %s", (long long)index,
           p->name, (int)p->role, (long long)p->layer, (long long)p->row_offset, (long long)p->rows,
           (long long)p->cols, name);
    const p4_weight *w = &model->weights[index];
    EXPECT(w->data == NULL && w->rows == rows && w->cols == cols && w->transposed == p->transposed,
           "%s: weight", name);
}

#endif
