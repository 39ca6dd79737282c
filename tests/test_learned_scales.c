/* Learned scales (learn_scales): the gradients of a training step against differences of the loss in double
 * (reference_net.h) and against PyTorch's autograd (fixtures/learned_scales.txt), and the update that
 * follows.
 */
#include "api_world.h"
#include "io/hf/safetensors.h"
#include "jobs/settings.h"
#include "jobs/train/trainer.h"
#include "reference_net.h"

enum { SEQUENCES = 2, T = 13 }; /* of the ids in the fixtures */
#define LR 1e-3

/* A trainer of a fixture's model that trains on the fixture's ids. */
typedef struct subject {
    p4_config config;
    p4_compute compute;
    p4_original original;
    p4_windows windows;
    p4_training_set *set;
    p4_trainer trainer;
    float *scales; /* [scale_count]: before the step */
    float *gradient;
} subject;

static void read_ids(subject *s, const char *name)
{
    char path[600];
    p4_safetensors file;
    s->windows = (p4_windows){.count = SEQUENCES, .T = T};
    s->windows.ids = p4_alloc(SEQUENCES * T, sizeof *s->windows.ids);
    snprintf(path, sizeof path, "%s/golden.safetensors", fixture(name));
    EXPECT_OK(p4_safetensors_open(&file, path));
    const p4_safetensor *ids = p4_safetensors_find(&file, "ids");
    EXPECT(ids != NULL, "%s has no ids", path);
    if (ids != NULL) {
        memcpy(s->windows.ids, ids->data, SEQUENCES * T * sizeof *s->windows.ids);
    }
    p4_safetensors_close(&file);
}

static float *read_scales(const subject *s, const float *from)
{
    const p4_optim *o = &s->trainer.optim;
    float *h_values = p4_alloc((size_t)o->scale_count, sizeof *h_values);
    o->ops->to_host(o->device, h_values, from, o->scale_count * (int64_t)sizeof *h_values);
    EXPECT_OK(o->ops->sync(o->device));
    return h_values;
}

static void open_subject(subject *s, p4_group *group, const char *name, const char *granularity,
                         const char *optimizer)
{
    *s = (subject){.windows.count = 0};
    small_config(&s->config);
    expect_set(&s->config, "calibration_sequence_length", "13");
    expect_set(&s->config, "calibration_batch_size", "2");
    expect_set(&s->config, "sparsity_threshold", "0.5");
    expect_set(&s->config, "scale_granularity", granularity);
    expect_set(&s->config, "optimizer", optimizer);
    if (strcmp(granularity, "tensor") == 0) { /* rows of an odd length */
        expect_set(&s->config, "preserve_layers", "[\"*.down_proj.*\"]");
    }
    expect_set(&s->config, "learn_scales", "true");
    expect_set(&s->config, "warmup_steps", "0");
    snprintf(s->config.model_path, sizeof s->config.model_path, "%s", fixture(name));
    p4_compute_settings settings = p4_settings_compute(&s->config);
    EXPECT_OK(p4_compute_open(&s->compute, group, &settings));
    EXPECT_OK(p4_settings_open_original(&s->original, &s->config, group->ranks));
    read_ids(s, name);
    EXPECT_OK(p4_training_set_of_windows(&s->set, &s->windows));
    p4_train_plan plan = p4_settings_train(&s->config, T, NULL);
    plan.lr = LR;
    EXPECT_OK(p4_trainer_open(&s->trainer, &s->compute, &s->original, s->set, &plan, NULL));
    s->scales = read_scales(s, s->trainer.optim.scales);
}

static void close_subject(subject *s)
{
    p4_trainer_close(&s->trainer);
    p4_training_set_close(s->set);
    p4_windows_free(&s->windows);
    p4_original_close(&s->original);
    p4_compute_close(&s->compute);
    free(s->scales);
    free(s->gradient);
}

/* --- differences of the loss ------------------------------------------------------------------- */

/* The trits of parameter i, [rows * cols]. */
static int8_t *read_trits(const subject *s, int64_t i)
{
    const p4_param *p = &s->trainer.model->params[i];
    const int64_t row_bytes = p4_code_row_bytes(p->cols);
    uint8_t *h_codes = p4_alloc((size_t)(p->rows * row_bytes), 1);
    int8_t *trits = p4_alloc((size_t)(p->rows * p->cols), 1);
    s->compute.ops->to_host(s->compute.device, h_codes, s->trainer.codes.of[i].data, p->rows * row_bytes);
    EXPECT_OK(s->compute.ops->sync(s->compute.device));
    for (int64_t k = 0; k < p->rows * p->cols; k++) {
        int64_t c = k % p->cols;
        trits[k] = (int8_t)((h_codes[k / p->cols * row_bytes + c / 4] >> 2 * (c % 4) & 3) - 1);
    }
    free(h_codes);
    return trits;
}

/* What the loss is computed from: the part's own place in its slot's array. */
static double *place_of(const reference *r, int64_t i)
{
    const p4_param *p = &r->model->params[i];
    int64_t first = p4_model_find(r->model, p->role, p->layer);
    return r->param[first] + (p->vector ? p->row_offset : p->row_offset * p->cols);
}

/* Elements of the slot that begins at parameter `first`. */
static int64_t slot_count(const p4_model *model, int64_t first)
{
    int64_t count = 0;
    for (int64_t i = first; i < first + p4_model_parts(model, first); i++) {
        count += model->params[i].rows * model->params[i].cols;
    }
    return count;
}

/* The model before the step: scales times trits, and the original's values of what is not ternary. */
static void open_reference(reference *r, const subject *s, int8_t **trits)
{
    const p4_model *model = s->trainer.model;
    *r = (reference){.model = model, .ids = s->windows.ids, .B = SEQUENCES, .T = T};
    r->logits = p4_alloc((size_t)(SEQUENCES * T * model->arch.V), sizeof *r->logits);
    r->param = p4_alloc((size_t)model->params_count, sizeof *r->param);
    for (int64_t i = 0; i < model->params_count; i++) {
        const p4_param *p = &model->params[i];
        r->param[i] = p->row_offset == 0 ? p4_alloc((size_t)slot_count(model, i), sizeof **r->param) : NULL;
        float *values = p4_alloc((size_t)(p->rows * p->cols), sizeof *values);
        p4_weight_rows_f32(values, &model->weights[i], 0, p->rows);
        trits[i] = p->ternary ? read_trits(s, i) : NULL;
        for (int64_t k = 0; k < p->rows * p->cols; k++) {
            int64_t scale = k / p4_scale_group(p->scale_group, p->cols);
            place_of(r, i)[k] =
                p->ternary ? (double)s->scales[s->trainer.optim.scale_at[i] + scale] * (double)trits[i][k]
                           : (double)values[k];
        }
        free(values);
    }
}

static void close_reference(reference *r, int8_t **trits)
{
    for (int64_t i = 0; i < r->model->params_count; i++) {
        free(r->param[i]);
        free(trits[i]);
    }
    free(r->param);
    free(r->logits);
    free(trits);
}

/* d loss / d scale, by central differences of the weights that share it. */
static double difference(reference *r, int64_t i, int64_t scale, double value, const int8_t *trits)
{
    const double step = 1e-5;
    const p4_param *p = &r->model->params[i];
    const int64_t each = p4_scale_group(p->scale_group, p->cols);
    double *weights = place_of(r, i) + scale * each, loss[2];
    for (int side = 0; side < 2; side++) {
        for (int64_t k = 0; k < each; k++) {
            weights[k] = (value + (side == 0 ? step : -step)) * (double)trits[scale * each + k];
        }
        loss[side] = reference_loss(r);
    }
    for (int64_t k = 0; k < each; k++) {
        weights[k] = value * (double)trits[scale * each + k];
    }
    return (loss[0] - loss[1]) / (2 * step) / sqrt((double)each);
}

static void compare_differences(const subject *s, reference *r, int8_t **trits, const char *what)
{
    int64_t compared = 0;
    double worst = 0, largest = 0;
    for (int64_t i = 0; i < r->model->params_count; i++) {
        const p4_param *p = &r->model->params[i];
        for (int64_t k = 0; p->ternary && k < p4_param_scale_count(p); k++) {
            int64_t at = s->trainer.optim.scale_at[i] + k;
            double want = difference(r, i, k, (double)s->scales[at], trits[i]);
            worst = fmax(worst, fabs((double)s->gradient[at] - want));
            largest = fmax(largest, fabs(want));
            compared++;
        }
    }
    EXPECT(compared == s->trainer.optim.scale_count, "%s: %lld scales compared", what, (long long)compared);
    EXPECT(largest > 1e-3 && worst <= 1e-5 * largest + 1e-8, "%s: gradients differ by %.3g of %.3g", what,
           worst, largest);
}

/* --- what PyTorch computes --------------------------------------------------------------------- */

static void compare_pytorch(const subject *s, const char *name)
{
    char found_model[64], tensor[P4_TENSOR_NAME_BYTES];
    long long rows;
    int64_t compared = 0;
    double worst = 0, largest = 0;
    const p4_model *model = s->trainer.model;
    FILE *file = fopen(P4_FIXTURES "/learned_scales.txt", "r");
    EXPECT(file != NULL, "no learned_scales.txt");
    while (file != NULL && fscanf(file, "%63s %159s %lld", found_model, tensor, &rows) == 3) {
        int64_t i = 0;
        bool here = strcmp(found_model, name) == 0;
        while (here && i < model->params_count && strcmp(model->params[i].name, tensor) != 0) {
            i++;
        }
        EXPECT(!here || (i < model->params_count && p4_param_scale_count(&model->params[i]) == rows),
               "%s %s: %lld rows", name, tensor, rows);
        for (long long k = 0; k < rows; k++) {
            double want = 0;
            EXPECT(fscanf(file, "%lf", &want) == 1, "%s %s: row %lld", found_model, tensor, k);
            if (here) {
                double got = (double)s->gradient[s->trainer.optim.scale_at[i] + k];
                worst = fmax(worst, fabs(got - want));
                largest = fmax(largest, fabs(want));
                compared++;
            }
        }
    }
    if (file != NULL) {
        fclose(file);
    }
    EXPECT(compared == s->trainer.optim.scale_count, "%s: %lld scales of %lld", name, (long long)compared,
           (long long)s->trainer.optim.scale_count);
    EXPECT(worst <= 1e-5 * largest, "%s: gradients differ from PyTorch's by %.3g of %.3g", name, worst,
           largest);
}

/* --- the step ---------------------------------------------------------------------------------- */

/* AdamW's first step, whatever the optimizer of the matrices; gradients are clipped with those of the
 * masters. The codes have what was learned, in fp16. */
static void check_update(const subject *s, double norm, const char *what)
{
    const p4_optim *o = &s->trainer.optim;
    const double clip = (double)o->settings.clip, g_scale = norm > clip ? clip / norm : 1.0;
    float *after = read_scales(s, o->scales);
    int64_t wrong = 0, moved = 0;
    for (int64_t k = 0; k < o->scale_count; k++) {
        double g = g_scale * (double)s->gradient[k], want = (double)s->scales[k] - LR * g / (fabs(g) + 1e-8);
        wrong += !(fabs((double)after[k] - want) <= 1e-6 * fabs(want) + 1e-9);
        moved += after[k] != s->scales[k];
    }
    EXPECT(wrong == 0 && moved > o->scale_count / 2, "%s: %lld of %lld scales are wrong, %lld moved", what,
           (long long)wrong, (long long)o->scale_count, (long long)moved);
    for (int64_t i = 0; i < s->trainer.model->params_count; i++) {
        const p4_weight *codes = &s->trainer.codes.of[i];
        int64_t count = codes->data != NULL ? p4_weight_scale_count(codes) : 0;
        uint16_t *h_scale = p4_alloc((size_t)count + 1, sizeof *h_scale);
        o->ops->to_host(o->device, h_scale, codes->scale, count * 2);
        for (int64_t k = 0; k < count; k++) {
            EXPECT(h_scale[k] == p4_f32_to_f16(after[o->scale_at[i] + k]), "%s: %s, scale %lld", what,
                   s->trainer.model->params[i].name, (long long)k);
        }
        free(h_scale);
    }
    free(after);
}

static void check(p4_group *group, const char *name, const char *granularity, const char *optimizer)
{
    char what[128];
    subject *s = p4_alloc(1, sizeof *s);
    reference r;
    p4_step_result result;
    snprintf(what, sizeof what, "%s, a scale a %s, %s", name, granularity, optimizer);
    open_subject(s, group, name, granularity, optimizer);
    int8_t **trits = p4_alloc((size_t)s->trainer.model->params_count, sizeof *trits);
    open_reference(&r, s, trits);
    EXPECT_OK(p4_trainer_step(&s->trainer, 0, &result));
    s->gradient = read_scales(s, s->trainer.optim.scale_grad);
    EXPECT_NEAR(result.loss, reference_loss(&r), 1e-5);
    compare_differences(s, &r, trits, what);
    if (strcmp(granularity, "row") == 0) {
        compare_pytorch(s, name);
    }
    check_update(s, result.grad_norm, what);
    close_reference(&r, trits);
    close_subject(s);
    free(s);
}

int main(void)
{
    p4_machine machine;
    p4_group group;
    if (!device_is_here()) {
        return check_failed == 0 ? P4_SKIPPED : 1;
    }
    world_fill();
    EXPECT_OK(p4_machine_open(&machine));
    EXPECT_OK(p4_group_open(&group, &machine, NULL, 60));
    check(&group, "llama-bias", "row", "adamw");
    check(&group, "gpt2-plain", "row", "mugrokfast");
    check(&group, "llama-bias", "tensor", "adamw");
    p4_group_close(&group);
    p4_machine_close(&machine);
    world_end();
    return TEST_END();
}
