#include "jobs/settings.h"

#include <math.h>
#include <string.h>

#include "src/config.h"

p4_compute_settings p4_settings_compute(const p4_config *c)
{
    return (p4_compute_settings){.device = c->device,
                                 .threads = c->threads_per_rank,
                                 .half = c->mixed_precision,
                                 .exact_sums = c->exact_sums};
}

bool p4_settings_quantizes(const p4_config *c)
{
    return p4_quantizers[c->quantizer].quantizes;
}

p4_quantize_plan p4_settings_quantize(const p4_config *c, const p4_statistics *statistics,
                                      const p4_windows *windows)
{
    const p4_quantizer_row *quantizer = &p4_quantizers[c->quantizer];
    return (p4_quantize_plan){.quantizer = quantizer,
                              .threshold = (float)c->sparsity_threshold,
                              .statistics = quantizer->needs != P4_NEEDS_NO_STATISTICS ? statistics : NULL,
                              .windows = quantizer->needs == P4_NEEDS_HESSIAN ? windows : NULL,
                              .B = c->calibration_batch_size,
                              .activation_bits = c->activation_bits};
}

/* The rule that masters are quantized by in every step of a training. */
static p4_quantize_plan quantize_in_training(const p4_config *c, const p4_statistics *statistics)
{
    const p4_quantizer_row *quantizer = &p4_quantizers[p4_quantizers[c->quantizer].trains_as];
    return (p4_quantize_plan){.quantizer = quantizer,
                              .threshold = (float)c->sparsity_threshold,
                              .statistics = quantizer->needs != P4_NEEDS_NO_STATISTICS ? statistics : NULL};
}

p4_pipeline_plan p4_settings_pipeline(const p4_config *c, int64_t T)
{
    return (p4_pipeline_plan){.B = c->calibration_batch_size, .T = T, .activation_bits = c->activation_bits};
}

static p4_optim_settings optim_settings(const p4_config *c)
{
    return (p4_optim_settings){.muon = c->optimizer == P4_OPTIMIZER_MUGROKFAST,
                               .grokfast = c->enable_grokfast,
                               .ema_alpha = (float)c->grokfast_ema_alpha,
                               .ema_lambda = (float)c->grokfast_lambda,
                               .momentum = 0.95f,
                               .beta1 = 0.9f,
                               .beta2 = 0.95f,
                               .eps = 1e-8f,
                               .weight_decay = (float)c->weight_decay,
                               .clip = (float)c->gradient_clip,
                               .half_state = c->optimizer_state == P4_OPTIMIZER_STATE_BF16,
                               .seed = c->seed,
                               .learn_scales = c->learn_scales};
}

/* A recipe's default keeps the ternary model close to the original where that has learned something; a key
 * that the user set counts always. */
static bool follows_original(const p4_config *c, const char *key)
{
    bool has_learned = c->init == P4_INIT_CHECKPOINT && p4_settings_quantizes(c);
    return has_learned || p4_config_is_user_set(c, p4_config_find(key));
}

void p4_settings_resolve(p4_config *c)
{
    c->distill = follows_original(c, "distill") ? c->distill : 0;
    c->reconstruct = c->reconstruct && follows_original(c, "reconstruct");
    bool trains_codes = p4_settings_quantizes(c) && c->enable_fine_tuning;
    c->learn_scales =
        c->learn_scales && (trains_codes || p4_config_is_user_set(c, p4_config_find("learn_scales")));
}

/* distill "auto" (docs/quality.md 2): 0.9 for few tokens, 0.5 once there is enough text to learn from; the
 * weight falls with the logarithm of the tokens in between. */
static double distill_weight(const p4_config *c, double tokens)
{
    const double most = 0.9, least = 0.5, few = 4e6, enough = 16e6;
    double share = log(fmin(fmax(tokens, few), enough) / few) / log(enough / few);
    double weight = c->distill == P4_DISTILL_AUTO ? most + share * (least - most) : c->distill;
    return follows_original(c, "distill") ? weight : 0;
}

/* Where no plan has decided, nothing is computed again. */
static p4_recompute recompute_of(const p4_config *c)
{
    return c->recompute == P4_RECOMPUTE_AUTO ? P4_RECOMPUTE_NONE : c->recompute;
}

p4_train_plan p4_settings_train(const p4_config *c, int64_t T, const p4_statistics *statistics)
{
    return (p4_train_plan){.T = T,
                           .sequences = c->global_batch_tokens > 0 ? c->global_batch_tokens / T
                                                                   : c->calibration_batch_size,
                           .micro_batch = c->micro_batch_size,
                           .epochs = c->fine_tune_epochs,
                           .max_steps = c->fine_tune_max_steps,
                           .lr = c->fine_tune_lr,
                           .lr_final_fraction = c->lr_final_fraction,
                           .warmup = c->warmup_steps,
                           .seed = c->seed,
                           .optim = optim_settings(c),
                           .zero_stage = c->zero_stage,
                           .exact_sums = c->exact_sums,
                           .recompute = recompute_of(c),
                           .activation_bits = c->activation_bits,
                           .quantize = quantize_in_training(c, statistics),
                           .teacher = {.weight = distill_weight(c, 0),
                                       .temperature = c->distill_temperature,
                                       .blocks = c->distill_blocks,
                                       .kind = c->distill_teacher,
                                       .top_k = c->distill_top_k,
                                       .folder = c->output_path,
                                       .T = T}};
}

/* fine_tune_lr "auto" (docs/quality.md 2): the rate that measured best grows with a power of the tokens, and
 * falls with the width: as its inverse as far as was measured, as its inverse square beyond, where others
 * report less. */
static double measured_lr(const p4_config *c, double tokens, double width, bool reconstructed)
{
    const double enough_tokens = 16e6, least_tokens = 0.25e6, base_width = 256, widest = 768;
    double lr = c->optimizer == P4_OPTIMIZER_ADAMW ? 2e-3 : 4e-3;
    double share = fmin(fmax(tokens, least_tokens), enough_tokens) / enough_tokens;
    double length = pow(share, reconstructed ? 0.75 : 0.5);
    double beyond = fmax(1.0, width / widest);
    return lr * length * base_width / (fmin(fmax(width, base_width), widest) * beyond * beyond);
}

void p4_settings_fit_tokens(p4_train_plan *plan, const p4_config *c, const p4_model *model, int64_t windows,
                            bool reconstructed)
{
    double steps = (double)(plan->epochs * (windows / p4_max_i64(1, plan->sequences)));
    steps = plan->max_steps > 0 ? fmin(steps, (double)plan->max_steps) : steps;
    double tokens = steps * (double)(plan->sequences * plan->T);
    plan->teacher.weight = distill_weight(c, tokens);
    if (plan->lr <= 0) {
        plan->lr = measured_lr(c, tokens, (double)model->arch.C, reconstructed);
        INFO("      fine_tune_lr is %.2g, for %.3g M tokens and width %lld", plan->lr, tokens / 1e6,
             (long long)model->arch.C);
    }
}

/* --- reconstruction --------------------------------------------------------------------------- */

int64_t p4_settings_reconstruct_windows(const p4_config *c, int64_t T)
{
    if (!c->reconstruct || !p4_settings_quantizes(c) || c->calibration_samples == 0 ||
        !follows_original(c, "reconstruct")) {
        return 0;
    }
    return c->reconstruct_tokens > 0 ? p4_ceil_div(c->reconstruct_tokens, T) : c->calibration_samples;
}

p4_reconstruct_plan p4_settings_reconstruct(const p4_config *c, int64_t windows, int64_t T,
                                            const p4_statistics *statistics)
{
    enum { SEQUENCES = 16, WARMUP = 20 };
    const p4_optim_settings adamw = {
        .beta1 = 0.9f, .beta2 = 0.95f, .eps = 1e-8f, .clip = 1.0f, .seed = c->seed};
    return (p4_reconstruct_plan){.blocks = c->reconstruct_window,
                                 .sequences = SEQUENCES,
                                 .steps = c->reconstruct_steps > 0
                                              ? c->reconstruct_steps
                                              : p4_reconstruct_steps(windows, T, SEQUENCES),
                                 .lr = c->reconstruct_lr,
                                 .warmup = WARMUP,
                                 .seed = c->seed,
                                 .exact_sums = c->exact_sums,
                                 .recompute = recompute_of(c),
                                 .activation_bits = c->activation_bits,
                                 .optim = adamw,
                                 .quantize = quantize_in_training(c, statistics)};
}

/* --- the model -------------------------------------------------------------------------------- */

/* q, k and v (gate and up) read one input: it is rounded for all of them or for none. Local. */
static p4_rc check_whole_slots(const p4_model *model)
{
    p4_rc rc = P4_OK;
    for (int64_t i = 0; i < model->params_count; i++) {
        const p4_param *p = &model->params[i];
        CHECK(p->row_offset == 0 || !p4_role_is_matrix(p->role) || p->ternary == p[-1].ternary,
              "key \"preserve_layers\": %s is preserved and %s is not; with activation_bits 8 they share one "
              "rounded input, expected both or neither",
              p->ternary ? p[-1].name : p->name, p->ternary ? p->name : p[-1].name);
    }
done:
    return rc;
}

/* Evaluations that nobody makes. */
static void warn_of_evaluations(const p4_config *c)
{
    if (c->eval_every > 0 && (!c->enable_fine_tuning || c->eval_samples == 0)) {
        WARN("warning: key \"eval_every\": %d has no effect: %s", (int)c->eval_every,
             c->enable_fine_tuning ? "eval_samples is 0" : "enable_fine_tuning is false");
    }
}

/* Keys of distillation that are given where nothing is distilled. */
static void warn_of_distillation(const p4_config *c)
{
    static const char *const keys[] = {"distill_temperature", "distill_teacher", "distill_top_k"};
    char value[64];
    int row = p4_config_find("distill");
    bool given = p4_config_is_chosen(c, row) && c->distill != 0;
    p4_config_format_scalar(value, c, &p4_config_table[row]);
    if (given && !c->enable_fine_tuning) {
        WARN("warning: key \"distill\": %s has no effect: enable_fine_tuning is false", value);
    }
    if (c->distill_blocks > 0 && !c->enable_fine_tuning) {
        WARN("warning: key \"distill_blocks\": %g has no effect: enable_fine_tuning is false",
             c->distill_blocks);
    }
    if (given && !p4_settings_quantizes(c)) {
        WARN("warning: key \"distill\": %s with quantizer \"none\" keeps the model at the original, which it "
             "still equals",
             value);
    }
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        bool is_read = c->distill != 0 && (i < 2 || c->distill_teacher == P4_TEACHER_CACHED);
        /* What a plan records where nothing is distilled. */
        bool planned = i == 1 && c->distill_teacher == P4_TEACHER_RESIDENT;
        if (!is_read && !planned && p4_config_is_chosen(c, p4_config_find(keys[i]))) {
            WARN("warning: key \"%s\" has no effect %s", keys[i],
                 c->distill != 0 ? "unless distill_teacher is \"cached\"" : "while distill is 0");
        }
    }
}

static void warn_of_scales(const p4_config *c)
{
    bool given = p4_config_is_chosen(c, p4_config_find("learn_scales"));
    if (given && c->learn_scales && !(c->enable_fine_tuning && p4_settings_quantizes(c))) {
        WARN("warning: key \"learn_scales\": true has no effect: %s",
             c->enable_fine_tuning ? "quantizer is \"none\"" : "enable_fine_tuning is false");
    }
}

/* Those of `keys` that are given, in one line: a file may hold many that the command line made useless. */
static void warn_of_keys(const p4_config *c, const char *const *keys, size_t count, const char *why)
{
    char named[400] = "";
    for (size_t i = 0; i < count; i++) {
        size_t used = strlen(named);
        if (p4_config_is_chosen(c, p4_config_find(keys[i]))) {
            snprintf(named + used, sizeof named - used, "%s%s", used > 0 ? ", " : "", keys[i]);
        }
    }
    if (named[0] != '\0') {
        WARN("warning: without effect while %s: %s", why, named);
    }
}

/* Keys of a training or of Grokfast that are given where there is none. */
static void warn_of_training(const p4_config *c)
{
    static const char *const training[] = {"train_files",         "train_weights", "fine_tune_epochs",
                                           "fine_tune_max_steps", "fine_tune_lr",  "lr_final_fraction",
                                           "warmup_steps",        "optimizer",     "optimizer_state",
                                           "weight_decay",        "gradient_clip", "fine_tune_threshold"};
    static const char *const grokfast[] = {"grokfast_ema_alpha", "grokfast_lambda"};
    if (!c->enable_fine_tuning) {
        warn_of_keys(c, training, sizeof training / sizeof training[0], "enable_fine_tuning is false");
    }
    if (!c->enable_fine_tuning || !c->enable_grokfast) {
        warn_of_keys(c, grokfast, sizeof grokfast / sizeof grokfast[0],
                     c->enable_fine_tuning ? "enable_grokfast is false" : "enable_fine_tuning is false");
    }
}

/* Settings that are given and change nothing. */
static void warn_without_effect(const p4_config *c, const p4_model *model)
{
    const char *glob = c->preserve_layers.bytes;
    for (int32_t g = 0; g < c->preserve_layers.count; g++, glob += strlen(glob) + 1) {
        if (!p4_model_has_match(model, glob)) {
            WARN("warning: key \"preserve_layers\": \"%s\" matches none of the model's %lld tensors", glob,
                 (long long)model->params_count);
        }
    }
    const p4_quantizer_row *quantizer = &p4_quantizers[c->quantizer];
    if (!quantizer->quantizes && c->scale_granularity != P4_SCALE_ROW) {
        WARN("warning: key \"scale_granularity\": \"%s\" has no effect with quantizer \"%s\"",
             p4_scale_granularity_names[c->scale_granularity], quantizer->name);
    }
    if (!quantizer->has_threshold && p4_config_is_chosen(c, p4_config_find("sparsity_threshold"))) {
        WARN("warning: key \"sparsity_threshold\": %g has no effect with quantizer \"%s\", which has no "
             "threshold",
             c->sparsity_threshold, quantizer->name);
    }
}

enum { MANY_PASSES = 10 }; /* over the same text, which a recipe asks for */

void p4_warn_of_steps(const p4_config *c, int64_t steps_per_epoch)
{
    int64_t held, steps = c->fine_tune_max_steps;
    if (__builtin_mul_overflow(steps_per_epoch, (int64_t)c->fine_tune_epochs, &held)) {
        held = INT64_MAX;
    }
    if (steps > held && p4_config_is_chosen(c, p4_config_find("fine_tune_max_steps"))) {
        WARN("warning: key \"fine_tune_max_steps\": asks for %lld steps, "
             "and fine_tune_epochs %d of the training data are %lld",
             (long long)steps, (int)c->fine_tune_epochs, (long long)held);
    }
    steps = steps == 0 ? held : p4_min_i64(steps, held);
    int64_t passes = steps / p4_max_i64(1, steps_per_epoch);
    if (passes > MANY_PASSES && !p4_config_is_chosen(c, p4_config_find("fine_tune_epochs"))) {
        WARN("warning: %lld steps pass over the training text %lld times: more of it in train_files would "
             "help",
             (long long)steps, (long long)passes);
    }
    if (c->warmup_steps >= steps) {
        WARN("warning: key \"warmup_steps\": %d steps of warm-up, and there are %lld "
             "steps in all: the learning rate does not reach its peak before the end",
             (int)c->warmup_steps, (long long)steps);
    }
}

p4_rc p4_settings_open_original(p4_original *original, p4_config *c, int ranks)
{
    p4_rc rc = P4_OK;
    TRY(p4_original_open(original, c->model_path, c->init == P4_INIT_RANDOM, c->seed));
    TRY(p4_settings_fit_window(c, original->hf.path, original->hf.model.arch.positions));
    TRY(p4_settings_mark_original(original, c, ranks));
done:
    return rc;
}

p4_rc p4_settings_fit_window(p4_config *c, const char *path, int64_t positions)
{
    p4_rc rc = P4_OK;
    int row = p4_config_find("calibration_sequence_length");
    bool is_default =
        !p4_config_is_user_set(c, row) && c->calibration_sequence_length == p4_config_table[row].quality;
    if (is_default && positions > 1 && positions < c->calibration_sequence_length) {
        CHECK(c->global_batch_tokens % positions == 0,
              "key \"global_batch_tokens\": found %lld, expected a multiple of the %lld positions of %s",
              (long long)c->global_batch_tokens, (long long)positions, path);
        INFO("      windows are %lld tokens, all positions that %s has", (long long)positions, path);
        c->calibration_sequence_length = (int32_t)positions;
    }
    CHECK(c->calibration_sequence_length <= positions,
          "key \"calibration_sequence_length\": found %d, expected at most the %lld positions of %s",
          c->calibration_sequence_length, (long long)positions, path);
done:
    return rc;
}

p4_rc p4_settings_mark_original(p4_original *original, const p4_config *c, int ranks)
{
    p4_rc rc = P4_OK;
    p4_model *model = &original->hf.model;
    if (p4_settings_quantizes(c)) {
        p4_model_select_ternary(model, &c->preserve_layers, c->preserve_embedding_precision,
                                c->preserve_output_precision);
        TRY(p4_model_share_scales(model, c->scale_granularity));
        warn_without_effect(c, model);
    }
    warn_of_distillation(c);
    warn_of_training(c);
    warn_of_scales(c);
    warn_of_evaluations(c);
    CHECK(c->distill == 0 || c->distill_teacher != P4_TEACHER_CACHED || c->distill_top_k <= model->arch.V,
          "key \"distill_top_k\": found %d, expected at most the %lld tokens of the vocabulary of %s",
          c->distill_top_k, (long long)model->arch.V, original->hf.path);
    CHECK(c->distill_blocks <= 0 || (c->distill != 0 && follows_original(c, "distill")),
          "key \"distill_blocks\": found %g, expected 0 without distillation, which %s turns off unless "
          "\"distill\" is given",
          c->distill_blocks, c->init == P4_INIT_RANDOM ? "init \"random\"" : "quantizer \"none\"");
    TRY(c->activation_bits == 8 ? check_whole_slots(model) : P4_OK);
    TRY(p4_original_shard(original, ranks));
done:
    return rc;
}
