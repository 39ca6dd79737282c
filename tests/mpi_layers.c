/* The layer-major pass against the micro-batch-major one: the second moments H = X'X of every slot's input,
 * summed over ranks, are those that a probe of the pipeline sees; so with fewer ranks than layers, and with
 * more; with states in host memory and in the device's. */
#include "api_world.h"
#include "jobs/settings.h"
#include "jobs/train/layers.h"
#include "jobs/train/pipeline.h"
#include "src/leaf/rng.h"

enum { COUNT = 11, LENGTH = 8, BATCH = 2 };

/* One fp32 [in, in] a slot. */
typedef struct moments {
    p4_compute *compute;
    const p4_model *model;
    float **h;   /* [params_count], device; NULL: not seen */
    float **sum; /* [params_count], host: over ranks */
} moments;

static void see_slot(void *user, int64_t first, const void *x, int64_t in, const void *y, int64_t out,
                     int64_t N)
{
    moments *seen = user;
    (void)y;
    (void)out;
    const p4_ops *ops = seen->compute->ops;
    if (seen->h[first] == NULL) {
        EXPECT_OK(ops->alloc(seen->compute->device, (void **)&seen->h[first], in * in * 4));
        ops->zero(seen->compute->device, seen->h[first], in * in * 4);
    }
    p4_linear_backward_weight_args product = {
        .N = N, .in = in, .out = in, .dy = x, .ld_dy = in, .x = x, .dw = seen->h[first], .accumulate = true};
    ops->linear_backward_weight(seen->compute->device, &product);
}

static void open_moments(moments *seen, p4_compute *compute, const p4_model *model)
{
    *seen = (moments){.compute = compute, .model = model};
    seen->h = p4_alloc((size_t)model->params_count, sizeof *seen->h);
    seen->sum = p4_alloc((size_t)model->params_count, sizeof *seen->sum);
}

static void close_moments(moments *seen)
{
    for (int64_t i = 0; i < seen->model->params_count; i++) {
        if (seen->h[i] != NULL) {
            seen->compute->ops->release(seen->compute->device, seen->h[i]);
        }
        free(seen->sum[i]);
    }
    free(seen->h);
    free(seen->sum);
}

static p4_rc visit_block(void *user, p4_layers *layers, int64_t layer, const p4_form *block)
{
    p4_rc rc = P4_OK;
    p4_probe probe = {.slot = see_slot, .user = user};
    TRY_ALL(layers->compute->group, p4_layers_advance(layers, layer, block, &probe));
done:
    return rc;
}

/* Every rank's sums of every slot, those of ranks that saw none of it too. */
static void sum_over_ranks(moments *seen)
{
    for (int64_t i = 0; i < seen->model->params_count; i++) {
        const p4_param *p = &seen->model->params[i];
        if (!p4_role_is_matrix(p->role) || p->row_offset != 0) {
            continue;
        }
        int64_t count = p->cols * p->cols;
        seen->sum[i] = p4_alloc((size_t)count, sizeof *seen->sum[i]);
        if (seen->h[i] != NULL) {
            seen->compute->ops->to_host(seen->compute->device, seen->sum[i], seen->h[i], count * 4);
        }
        p4_group_sum_f32(seen->compute->group, seen->sum[i], count);
    }
}

static void compare(const moments *got, const moments *want)
{
    for (int64_t i = 0; i < got->model->params_count; i++) {
        const p4_param *p = &got->model->params[i];
        double most = 0, apart = 0;
        for (int64_t k = 0; got->sum[i] != NULL && k < p->cols * p->cols; k++) {
            most = fmax(most, fabs((double)want->sum[i][k]));
            apart = fmax(apart, fabs((double)got->sum[i][k] - (double)want->sum[i][k]));
        }
        EXPECT(got->sum[i] == NULL || (most > 0 && apart <= 1e-5 * most), "%s: %g apart, at most %g", p->name,
               apart, most);
    }
}

static void check_model(p4_group *group, const char *model, bool states_on_host)
{
    static p4_config config;
    p4_rng rng = {.seed = 3, .stream = 9};
    p4_compute compute;
    p4_original original = {0};
    p4_windows windows = {.count = COUNT, .T = LENGTH};
    p4_pipeline pipeline;
    p4_layers layers;
    p4_score score;
    moments major = {0}, minor = {0};
    small_config(&config);
    snprintf(config.model_path, sizeof config.model_path, "%s", fixture(model));
    p4_compute_settings settings = {.device = config.device, .threads = 1};
    p4_pipeline_plan plan = {.B = BATCH, .T = LENGTH};
    p4_layers_plan layers_plan = {.B = BATCH + 1, .T = LENGTH, .states_on_host = states_on_host};
    EXPECT_OK(p4_compute_open(&compute, group, &settings));
    EXPECT_OK(p4_settings_open_original(&original, &config, group->ranks));
    EXPECT_OK(p4_original_load(&original, &compute));
    windows.ids = p4_alloc(COUNT * LENGTH, sizeof *windows.ids);
    for (int64_t i = 0; i < COUNT * LENGTH; i++) {
        windows.ids[i] = (int32_t)p4_rng_below(&rng, (uint64_t)original.hf.model.arch.V);
    }
    open_moments(&minor, &compute, &original.hf.model);
    open_moments(&major, &compute, &original.hf.model);
    p4_probe probe = {.slot = see_slot, .user = &minor};
    p4_pass pass = {.form = &original.form.form, .windows = &windows, .probe = &probe, .label = "test"};
    EXPECT_OK(p4_pipeline_open(&pipeline, &compute, &original.hf.model, &original.shard, &plan));
    EXPECT_OK(p4_pipeline_run(&pipeline, &pass, &score));
    EXPECT_OK(p4_layers_open(&layers, &compute, &original, &windows, &layers_plan));
    EXPECT_OK(p4_layers_run(&layers, visit_block, &major));
    sum_over_ranks(&minor);
    sum_over_ranks(&major);
    compare(&major, &minor);
    p4_layers_close(&layers);
    p4_pipeline_close(&pipeline);
    close_moments(&major);
    close_moments(&minor);
    p4_windows_free(&windows);
    p4_original_close(&original);
    p4_compute_close(&compute);
}

int main(void)
{
    static const char *const models[] = {"llama-gqa", "gpt2-plain", "llama-bias"};
    p4_machine machine;
    p4_group group;
    if (!device_is_here()) {
        return check_failed == 0 ? P4_SKIPPED : 1;
    }
    EXPECT_OK(p4_machine_open(&machine));
    EXPECT_OK(p4_group_open(&group, &machine, NULL, 60));
    for (size_t i = 0; i < sizeof models / sizeof models[0]; i++) {
        check_model(&group, models[i], i % 2 == 0);
    }
    p4_group_close(&group);
    p4_machine_close(&machine);
    return TEST_END();
}
