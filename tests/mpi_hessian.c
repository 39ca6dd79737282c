/* Quantizing under H does not depend on the number of ranks: every rank by itself finds the same codes and
 * scales as all of them together, for every family of shapes, with windows that do not divide evenly, more
 * ranks than micro-batches, preserved matrices inside a slot, and rounded activations. Nor does it depend on
 * how many experts a pass over the windows collects H of; the passes are as many as planned. */
#include "api_world.h"
#include "jobs/settings.h"
#include "jobs/train/hessian.h"
#include "jobs/train/layers.h"
#include "jobs/train/quantize.h"
#include "src/leaf/rng.h"

enum { COUNT = 7, LENGTH = 16, BATCH = 2, AMPLE = 1 << 20 /* for H of all experts of a projection */ };

static p4_config config;

/* The CPU's operations, which count how often a block of experts is run. */
static p4_ops counting;
static const p4_ops *cpu;
static int64_t routed;

static void count_route(p4_device *device, const p4_routes *routes, const void *logits, bool normed)
{
    routed++;
    cpu->route(device, routes, logits, normed);
}

static p4_windows make_windows(int64_t vocabulary)
{
    p4_rng rng = {.seed = 5, .stream = 2};
    p4_windows windows = {.count = COUNT, .T = LENGTH};
    windows.ids = p4_alloc(COUNT * LENGTH, sizeof *windows.ids);
    for (int64_t i = 0; i < COUNT * LENGTH; i++) {
        windows.ids[i] = (int32_t)p4_rng_below(&rng, (uint64_t)vocabulary);
    }
    return windows;
}

/* In the quantizing that is over, each block has been run over all windows for each planned pass, and once
 * for the next block. */
static void check_passes(const p4_compute *compute, const p4_original *original, int64_t h_bytes)
{
    const p4_group *group = compute->group;
    int64_t passes = p4_hessian_plan_bytes(compute, original, h_bytes, 0).passes;
    int64_t low = p4_layers_first(COUNT, BATCH, group->rank, group->ranks),
            high = p4_layers_first(COUNT, BATCH, group->rank + 1, group->ranks);
    const p4_arch *arch = &original->hf.model.arch;
    /* Passes through layers without experts route nothing; there the widest input may be theirs. */
    bool all = arch->dense_width == 0;
    EXPECT(!all || routed == (passes + arch->L) * p4_ceil_div(high - low, BATCH),
           "%lld blocks run, %lld passes planned", (long long)routed, (long long)passes);
    EXPECT(!all || h_bytes != 1 || config.preserve_layers.count > 0 ||
               passes >= arch->L * (3 + arch->experts),
           "%lld passes, expected one for H of each expert's widest input", (long long)passes);
    EXPECT(h_bytes != AMPLE || passes == arch->L * 4, "%lld passes, expected four a block",
           (long long)passes);
}

/* The model's codes by the ranks of a group. *original must outlive *packed. */
static p4_rc quantize(p4_packed *packed, p4_original *original, p4_group *group, int64_t h_bytes)
{
    p4_rc rc = P4_OK;
    p4_compute compute;
    p4_statistics statistics = {0};
    p4_windows windows = {0};
    p4_compute_settings settings = {.device = config.device, .threads = 1};
    p4_pipeline_plan pass = {.B = BATCH, .T = LENGTH, .activation_bits = config.activation_bits};
    TRY(p4_compute_open(&compute, group, &settings));
    cpu = compute.ops;
    counting = *cpu;
    counting.route = count_route;
    compute.ops = &counting;
    TRY_ALL(group, p4_settings_open_original(original, &config, group->ranks));
    windows = make_windows(original->hf.model.arch.V);
    TRY_ALL(group, p4_original_load(original, &compute));
    TRY(p4_statistics_collect(&statistics, &compute, original, &pass, &windows));
    p4_quantize_plan plan = p4_settings_quantize(&config, &statistics, &windows);
    plan.h_bytes = h_bytes;
    routed = 0;
    TRY(p4_quantize_original(packed, &compute, original, &plan));
    if (original->hf.model.arch.experts > 0) {
        check_passes(&compute, original, h_bytes);
    }
done:
    p4_original_unload(original);
    p4_statistics_free(&statistics);
    p4_windows_free(&windows);
    p4_compute_close(&compute);
    return rc;
}

static void compare(const p4_packed *all, const p4_packed *alone)
{
    for (int64_t i = 0; i < all->model->params_count; i++) {
        const p4_param *p = &all->model->params[i];
        if (!p->ternary) {
            continue;
        }
        size_t code_bytes = (size_t)(p->rows * p4_code_row_bytes(p->cols)), scale_bytes = (size_t)p->rows * 2;
        const uint16_t *scale = p4_packed_scale(all, i);
        EXPECT(memcmp(p4_packed_codes(all, i), p4_packed_codes(alone, i), code_bytes) == 0, "codes of %s",
               p->name);
        EXPECT(memcmp(scale, p4_packed_scale(alone, i), scale_bytes) == 0, "scales of %s", p->name);
        EXPECT(memcmp(&all->errors[i], &alone->errors[i], sizeof all->errors[i]) == 0, "figures of %s",
               p->name);
        EXPECT(all->errors[i].zeros > 0 && all->errors[i].zeros < p->rows * p->cols &&
                   all->errors[i].sq_error > 0 && all->errors[i].sq_error < all->errors[i].sq_norm,
               "%s: %lld zeros, error %g of %g", p->name, (long long)all->errors[i].zeros,
               all->errors[i].sq_error, all->errors[i].sq_norm);
    }
}

/* h_bytes: of the ranks together; each by itself takes input by input. */
static void check(p4_group *ranks, p4_group *self, const char *model, const char *quantizer,
                  const char *preserve, const char *bits, int64_t h_bytes)
{
    p4_original together = {0}, by_itself = {0};
    p4_packed all = {0}, alone = {0};
    small_config(&config);
    expect_set(&config, "quantizer", quantizer);
    expect_set(&config, "preserve_layers", preserve);
    expect_set(&config, "activation_bits", bits);
    expect_set(&config, "calibration_batch_size", "2");
    snprintf(config.model_path, sizeof config.model_path, "%s", fixture(model));
    EXPECT_OK(quantize(&all, &together, ranks, h_bytes));
    EXPECT_OK(quantize(&alone, &by_itself, self, 1));
    if (check_failed == 0) {
        compare(&all, &alone);
    }
    p4_packed_release(&all);
    p4_packed_release(&alone);
    p4_original_close(&together);
    p4_original_close(&by_itself);
}

int main(void)
{
    p4_machine machine;
    p4_group ranks, self;
    setenv("P4_TEST_DEVICE", "cpu", 1); /* GPUs may choose other algorithms for other shapes */
    EXPECT(device_is_here(), "no CPU");
    EXPECT_OK(p4_machine_open(&machine));
    EXPECT_OK(p4_group_open(&ranks, &machine, NULL, 60));
    EXPECT_OK(p4_group_split(&self, &machine, machine.rank, 60));
    check(&ranks, &self, "llama-gqa", "gptq", "[]", "0", 0);
    check(&ranks, &self, "llama-gqa", "gptq-cd", "[]", "0", 0);
    check(&ranks, &self, "llama-bias", "gptq-cd", "[]", "8", 0);
    check(&ranks, &self, "llama-gqa", "gptq-cd", "[\"*k_proj*\", \"*.1.*up_proj*\", \"*.0.*o_proj*\"]", "0",
          0);
    check(&ranks, &self, "gpt2-plain", "gptq-cd", "[]", "0", 0);
    check(&ranks, &self, "qwen3_moe-plain", "gptq-cd", "[]", "0", AMPLE);
    check(&ranks, &self, "qwen3_moe-plain", "gptq", "[]", "0", 6000);
    check(&ranks, &self, "mixtral-plain", "gptq", "[\"*.1.*experts.1.*\", \"*experts.2.*\"]", "0", 0);
    check(&ranks, &self, "olmoe-plain", "gptq-cd", "[]", "8", AMPLE);
    check(&ranks, &self, "qwen3_moe-dense", "gptq-cd", "[]", "0", AMPLE);
    check(&ranks, &self, "qwen3_moe-step", "gptq", "[]", "8", 0);
    p4_group_close(&self);
    p4_group_close(&ranks);
    p4_machine_close(&machine);
    return TEST_END();
}
