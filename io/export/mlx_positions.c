#include "io/export/mlx_positions.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <string.h>

#include "io/hf/hf_model.h"

/* How a class finds the layers with a sliding window. */
typedef enum windows {
    NO_WINDOWS,  /* every layer attends to all earlier tokens */
    LAYER_TYPES, /* those that config.json's list layer_types says; without it there are none */
    PATTERN,     /* all but every sliding_window_pattern-th */
} windows;

/* mlx-lm 0.32.2, file by file of its models/. */
static const struct family {
    const char *name;
    bool scales; /* by rope_utils.initialize_rope; other classes know theta alone */
    windows windows;
} families[] = {
    {"llama", true, LAYER_TYPES},      {"mistral", true, LAYER_TYPES}, /* its class is llama's */
    {"smollm3", true, LAYER_TYPES},    {"qwen2", true, NO_WINDOWS},     {"qwen3", true, NO_WINDOWS},
    {"olmo2", true, NO_WINDOWS},       {"granite", true, NO_WINDOWS},   {"gemma3_text", true, PATTERN},
    {"phi3", false, NO_WINDOWS},       {"gemma", false, NO_WINDOWS},    {"gemma2", false, NO_WINDOWS},
    {"starcoder2", false, NO_WINDOWS}, {"gpt_neox", false, NO_WINDOWS}, {"qwen3_moe", false, NO_WINDOWS},
    {"mixtral", false, NO_WINDOWS},    {"olmoe", false, NO_WINDOWS},
};

/* Elements of config.json that mlx-lm reads; what is absent is the class's default. */
static double number(const cJSON *object, const char *key, double otherwise)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    return cJSON_IsNumber(item) ? item->valuedouble : otherwise;
}

/* rope_scaling, or what mlx.c writes under that name. */
static const cJSON *scaling_of(const cJSON *config)
{
    const cJSON *old = cJSON_GetObjectItemCaseSensitive(config, "rope_scaling"),
                *parameters = cJSON_GetObjectItemCaseSensitive(config, "rope_parameters");
    bool flat = cJSON_IsString(cJSON_GetObjectItemCaseSensitive(parameters, "rope_type"));
    return cJSON_IsObject(old) ? old : flat ? parameters : NULL;
}

static bool near(double a, double b)
{
    return fabs(a - b) <= 1e-6 * fabs(b);
}

static double magnitude(double factor, double mscale)
{
    return factor <= 1 ? 1 : 0.1 * mscale * log(factor) + 1;
}

/* Does the class read these numbers of a scaling? */
static bool reads(const p4_rope *rope, const cJSON *scaling)
{
    double original =
        number(scaling, "original_max_position_embeddings", rope->scaling == P4_ROPE_LLAMA3 ? 8192 : 4096);
    if (!near(number(scaling, "factor", 0), rope->factor)) {
        return false;
    }
    if (rope->scaling == P4_ROPE_YARN) {
        double of_class = magnitude(rope->factor, number(scaling, "mscale", 1)) /
                          magnitude(rope->factor, number(scaling, "mscale_all_dim", 0));
        return near(original, rope->original_positions) && !rope->no_truncation &&
               near(of_class, rope->attention_factor);
    }
    return rope->scaling == P4_ROPE_LINEAR || near(original, rope->original_positions);
}

static p4_rc check_scaling(const p4_arch *a, const struct family *family, const cJSON *config,
                           const char *writer)
{
    static const char *const names[P4_ROPE_COUNT] = {"default", "linear", "llama3",
                                                     "dynamic", "yarn",   "longrope"};
    p4_rc rc = P4_OK;
    const p4_rope *rope = &a->rope;
    if (a->learned_positions || rope->scaling == P4_ROPE_DEFAULT) {
        return P4_OK;
    }
    CHECK(family->scales, "%s: mlx-lm's %s does not scale rotary positions", writer, a->family);
    CHECK(rope->scaling != P4_ROPE_DYNAMIC,
          "%s: mlx-lm keeps keys that were rotated for a shorter text; "
          "rotary scaling \"dynamic\" is not written",
          writer);
    CHECK(rope->scaling != P4_ROPE_LONGROPE,
          "%s: mlx-lm takes the long factors of rotary scaling \"longrope\" for short texts too", writer);
    CHECK(scaling_of(config) != NULL && reads(rope, scaling_of(config)),
          "%s: mlx-lm's %s takes other numbers for rotary scaling \"%s\" than this config.json gives", writer,
          a->family, names[rope->scaling]);
done:
    return rc;
}

/* Of layers with a window, which have one theta and no scaling; the other layers' is not looked for under
 * rope_parameters. */
static p4_rc check_local(const p4_arch *a, const cJSON *config, const char *writer)
{
    p4_rc rc = P4_OK;
    double theta = number(config, "rope_theta", 1e6), local = number(config, "rope_local_base_freq", 1e4);
    CHECK(near(theta, a->rope.theta) && near(local, a->windowed_rope.theta),
          "%s: mlx-lm's %s takes the thetas %g and, in layers with a window, %g for this config.json, the "
          "model has %g and %g",
          writer, a->family, theta, local, a->rope.theta, a->windowed_rope.theta);
    CHECK(a->windowed_rope.scaling == P4_ROPE_DEFAULT,
          "%s: mlx-lm's %s does not scale rotary positions of layers with a window", writer, a->family);
done:
    return rc;
}

/* The window that the class gives a layer; 0: none. */
static int64_t window_of(const struct family *family, const cJSON *config, int64_t layer)
{
    const cJSON *types = cJSON_GetObjectItemCaseSensitive(config, "layer_types");
    const char *type = cJSON_GetStringValue(cJSON_GetArrayItem(types, (int)layer));
    int64_t pattern = (int64_t)number(config, "sliding_window_pattern", 6);
    bool has = family->windows == LAYER_TYPES ? type != NULL && strcmp(type, "sliding_attention") == 0
               : family->windows == PATTERN   ? (layer + 1) % p4_max_i64(1, pattern) != 0
                                              : false;
    return has ? (int64_t)number(config, "sliding_window", family->windows == PATTERN ? 512 : 0) : 0;
}

/* A window that no text exceeds is none. */
static int64_t effective(int64_t window, const p4_arch *a)
{
    return window < a->positions ? window : 0;
}

static p4_rc check_windows(const p4_arch *a, const struct family *family, const cJSON *config,
                           const char *writer)
{
    p4_rc rc = P4_OK;
    int64_t all_earlier = 0; /* layers */
    for (int64_t l = 0; l < a->L; l++) {
        int64_t own = effective(p4_arch_window(a, l), a), read = window_of(family, config, l);
        CHECK(own == 0 || family->windows != NO_WINDOWS,
              "%s: mlx-lm's %s attends to all earlier tokens, this model to the last %lld", writer, a->family,
              (long long)own);
        CHECK(own == effective(read, a),
              "%s: layer %lld: mlx-lm's %s has a window of %lld tokens, this model of %lld (0: none)", writer,
              (long long)l, a->family, (long long)effective(read, a), (long long)own);
        all_earlier += read == 0;
    }
    CHECK(family->windows == NO_WINDOWS || all_earlier > 0, "%s: mlx-lm's %s needs a layer without a window",
          writer, a->family);
done:
    return rc;
}

p4_rc p4_mlx_check_positions(const p4_export_source *source, const char *writer)
{
    p4_rc rc = P4_OK;
    const p4_arch *a = &source->hf->model.arch;
    const struct family *family = NULL;
    cJSON *root = cJSON_Parse(source->hf->config_json);
    const cJSON *text = cJSON_GetObjectItemCaseSensitive(root, "text_config"),
                *config = cJSON_IsObject(text) ? text : root;
    TRY(root != NULL ? P4_OK : P4_E_SYSTEM); /* it was parsed before */
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++) {
        family = strcmp(families[i].name, a->family) == 0 ? &families[i] : family;
    }
    CHECK(family != NULL, "%s: model family %s is not written", writer, a->family);
    TRY(check_scaling(a, family, config, writer));
    TRY(a->local_rope ? check_local(a, config, writer) : P4_OK);
    TRY(check_windows(a, family, config, writer));
done:
    cJSON_Delete(root);
    return rc;
}
