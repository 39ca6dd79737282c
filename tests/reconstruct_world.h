/* reconstruct_world.h - what the tests of block reconstruction share: a small model that is quantized,
 * windows and a plan of STEPS steps; micro-batches of random states. */
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
    int64_t look_every;         /* as in the plan */
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
    s->plan.look_every = w->look_every;
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

enum { RANK_WINDOWS = 3 };

/* A rank's windows in a step, in micro-batches of 2 and 1; the last of several ranks has none. */
static inline int64_t windows_of(int rank, int ranks)
{
    return rank > 0 && rank == ranks - 1 ? 0 : RANK_WINDOWS;
}

/* The micro-batches of a rank, as any trainer computes them. */
static inline void add_windows_of(p4_block_trainer *t, int rank, int ranks)
{
    int64_t count = t->plan.T * t->part.arch.C, each = t->compute->ops->act_bytes(t->compute->device);
    for (int64_t first = 0; first < windows_of(rank, ranks); first += t->plan.B) {
        int64_t B = p4_min_i64(t->plan.B, windows_of(rank, ranks) - first);
        p4_rng rng = {.seed = 8, .stream = (uint64_t)(2 + rank * RANK_WINDOWS + first)};
        void *to[] = {p4_net_blocks_input(&t->net), t->target};
        for (int i = 0; i < 2; i++) {
            void *h_values = p4_alloc((size_t)(B * count), (size_t)each);
            for (int64_t k = 0; k < B * count; k++) {
                float value = (float)p4_rng_normal(&rng);
                uint32_t bits;
                memcpy(&bits, &value, sizeof bits);
                if (each == 4) {
                    ((float *)h_values)[k] = value;
                } else { /* bf16 */
                    ((uint16_t *)h_values)[k] = (uint16_t)(bits >> 16);
                }
            }
            t->compute->ops->to_device(t->compute->device, to[i], h_values, B * count * each);
            free(h_values);
        }
        p4_block_trainer_add(t, B);
    }
}

static inline int64_t code_bytes(const p4_packed *packed, int64_t i)
{
    const p4_weight *w = &packed->weights[i];
    return w->dtype == P4_TERNARY ? w->rows * p4_code_row_bytes(w->cols) : w->rows * w->cols * 2;
}

/* Tensors that differ in a bit. */
static inline int64_t differing(const p4_packed *a, const p4_packed *b)
{
    int64_t count = 0;
    for (int64_t i = 0; i < a->model->params_count; i++) {
        const p4_weight *x = &a->weights[i], *y = &b->weights[i];
        bool same = memcmp(x->data, y->data, (size_t)code_bytes(a, i)) == 0 &&
                    (x->scale == NULL || memcmp(x->scale, y->scale, (size_t)x->rows * 2) == 0);
        count += !same;
    }
    return count;
}

/* What main returns. */
static inline int run_on_all_ranks(void (*check)(p4_group *all))
{
    p4_machine machine;
    p4_group all;
    if (!device_is_here()) {
        return check_failed == 0 ? P4_SKIPPED : 1;
    }
    EXPECT_OK(p4_machine_open(&machine));
    EXPECT_OK(p4_compute_find_gpus(&machine));
    EXPECT_OK(p4_group_open(&all, &machine, NULL, 60));
    check(&all);
    p4_group_close(&all);
    p4_machine_close(&machine);
    return TEST_END();
}

#endif
