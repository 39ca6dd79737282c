/* reconstruct_world.h - what the tests of block reconstruction share: a small model that is quantized,
 * windows and a plan of STEPS steps. */
#ifndef P4_RECONSTRUCT_WORLD_H
#define P4_RECONSTRUCT_WORLD_H

#include "api_world.h"
#include "jobs/settings.h"
#include "jobs/train/compute.h"
#include "jobs/train/reconstruct.h"
#include "src/leaf/rng.h"

enum { COUNT = 21, LENGTH = 8, STEPS = 60 };

/* Model, and configuration keys behind those that all share. */
typedef struct way {
    const char *model, *keys[4][2];
    int64_t windows, sequences; /* 0: COUNT, as configured */
} way;

/* A model in a group. */
typedef struct subject {
    p4_config config;
    p4_compute compute;
    p4_original original;
    p4_windows windows;
    p4_packed packed;
    p4_masters masters;
    p4_reconstruct_plan plan;
    p4_reconstruction record;
} subject;

static inline subject *open_subject(p4_group *group, const way *w)
{
    subject *s = p4_alloc(1, sizeof *s);
    p4_rng rng = {.seed = 3, .stream = 9};
    p4_config *c = &s->config;
    small_config(c);
    expect_set(c, "quantizer", "absmean");
    expect_set(c, "sparsity_threshold", "0.5");
    expect_set(c, "reconstruct", "true");
    expect_set(c, "reconstruct_steps", "60");
    expect_set(c, "reconstruct_lr", "3e-3");
    for (int i = 0; i < 4 && w->keys[i][0] != NULL; i++) {
        expect_set(c, w->keys[i][0], w->keys[i][1]);
    }
    snprintf(c->model_path, sizeof c->model_path, "%s", fixture(w->model));
    p4_compute_settings settings = p4_settings_compute(c);
    EXPECT_OK(p4_compute_open(&s->compute, group, &settings));
    EXPECT_OK(p4_settings_open_original(&s->original, c, group->ranks));
    s->windows = (p4_windows){.count = w->windows > 0 ? w->windows : COUNT, .T = LENGTH};
    s->windows.ids = p4_alloc((size_t)(s->windows.count * LENGTH), sizeof *s->windows.ids);
    for (int64_t i = 0; i < s->windows.count * LENGTH; i++) {
        s->windows.ids[i] = (int32_t)p4_rng_below(&rng, (uint64_t)s->original.hf.model.arch.V);
    }
    s->plan = p4_settings_reconstruct(c, s->windows.count, LENGTH, NULL);
    s->plan.sequences = w->sequences > 0 ? w->sequences : s->plan.sequences;
    EXPECT(s->plan.steps == STEPS, "%lld steps", (long long)s->plan.steps);
    p4_quantize_plan quantize = p4_settings_quantize(c, NULL, NULL);
    EXPECT_OK(p4_quantize_original(&s->packed, &s->compute, &s->original, &quantize));
    EXPECT_OK(p4_masters_open(&s->masters, &s->original.hf.model));
    return s;
}

static inline void forget_record(subject *s)
{
    free(s->record.losses);
    s->record = (p4_reconstruction){.ran = false};
}

static inline void close_subject(subject *s)
{
    forget_record(s);
    p4_masters_close(&s->masters);
    p4_packed_release(&s->packed);
    p4_windows_free(&s->windows);
    p4_original_close(&s->original);
    p4_compute_close(&s->compute);
    free(s);
}

#endif
