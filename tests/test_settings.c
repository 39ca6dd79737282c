/* The recipes, and what "auto" of fine_tune_lr and distill means for a training (docs/quality.md 2): by its
 * tokens, the model's width and the optimizer, and what a configuration sets is left alone. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "jobs/settings.h"
#include "src/config.h"
#include "src/leaf/log_sink.h"
#include "src/model.h"

enum { T = 512, WINDOWS = 16 }; /* of a step: 8,192 tokens */

static p4_config config;

/* The plan of so many steps on a model of a width, of which an epoch holds 100 steps. */
static p4_train_plan plan_of(int64_t steps, int64_t width)
{
    p4_model model;
    memset(&model, 0, sizeof model);
    model.arch.C = width;
    config.calibration_batch_size = WINDOWS;
    config.fine_tune_epochs = 1000000;
    config.fine_tune_max_steps = steps;
    p4_train_plan plan = p4_settings_train(&config, T, NULL);
    p4_settings_fit_tokens(&plan, &config, &model, 100 * WINDOWS, config.reconstruct);
    return plan;
}

static bool near(double a, double b)
{
    return fabs(a - b) <= 1e-12 * fabs(b);
}

static void test_rate(void)
{
    const double tokens = T * WINDOWS;
    p4_config_recipe(&config, P4_RECIPE_QUALITY);
    double rate = plan_of(1000, 256).lr;
    EXPECT(near(rate, 4e-3 * pow(1000 * tokens / 16e6, 0.75)), "8.2M tokens: %g", rate);
    EXPECT(near(plan_of(500, 256).lr, rate * pow(0.5, 0.75)), "half the tokens: %g", plan_of(500, 256).lr);
    EXPECT(near(plan_of(100000, 256).lr, 4e-3) && near(plan_of(2000, 128).lr, 4e-3),
           "many tokens, narrow model");
    EXPECT(near(plan_of(1, 256).lr, 4e-3 * pow(0.25 / 16, 0.75)), "few tokens: %g", plan_of(1, 256).lr);
    EXPECT(near(plan_of(2000, 768).lr, 4e-3 / 3), "width 768: %g", plan_of(2000, 768).lr);
    EXPECT(near(plan_of(2000, 1536).lr, 4e-3 / 12), "width 1536: %g", plan_of(2000, 1536).lr);
    config.optimizer = P4_OPTIMIZER_ADAMW;
    EXPECT(near(plan_of(2000, 256).lr, 2e-3), "AdamW: %g", plan_of(2000, 256).lr);
    config.optimizer = P4_OPTIMIZER_MUGROKFAST;
    config.reconstruct = false;
    EXPECT(near(plan_of(500, 256).lr, 4e-3 * sqrt(500 * tokens / 16e6)), "from rounded weights: %g",
           plan_of(500, 256).lr);
    EXPECT_OK(p4_config_set(&config, "fine_tune_lr", "0.125"));
    EXPECT(plan_of(2000, 256).lr == 0.125, "the key's: %g", plan_of(2000, 256).lr);
}

static void test_distill(void)
{
    p4_config_recipe(&config, P4_RECIPE_QUALITY);
    EXPECT(p4_settings_train(&config, T, NULL).teacher.weight == 0.9, "before the tokens are known");
    EXPECT(plan_of(1, 256).teacher.weight == 0.9 && plan_of(488, 256).teacher.weight == 0.9,
           "up to 4M tokens");
    double middle = plan_of(977, 256).teacher.weight; /* 8M, the middle of the logarithms */
    EXPECT(fabs(middle - 0.7) < 1e-3, "8M tokens: %g", middle);
    EXPECT(near(plan_of(1954, 256).teacher.weight, 0.5) && near(plan_of(1 << 20, 256).teacher.weight, 0.5),
           "from 16M tokens on");
    EXPECT_OK(p4_config_set(&config, "distill", "0.25"));
    EXPECT(plan_of(1954, 256).teacher.weight == 0.25, "the key's");
    EXPECT_OK(p4_config_set(&config, "distill", "0"));
    EXPECT(plan_of(1954, 256).teacher.weight == 0, "none");
    p4_config_recipe(&config, P4_RECIPE_SEED);
    EXPECT(plan_of(1954, 256).teacher.weight == 0, "recipe seed");
    p4_config_recipe(&config, P4_RECIPE_QUALITY);
    config.quantizer = P4_QUANTIZER_NONE; /* the model equals the original */
    EXPECT(plan_of(1954, 256).teacher.weight == 0, "without a quantizer");
}

static double value_of(const p4_config *c, const p4_config_row *row)
{
    const char *field = (const char *)c + row->offset;
    return row->type == P4_CONFIG_BOOL ? *(const bool *)field : p4_config_number(c, row);
}

/* Each line of the differences names a key and changes it, and only those differ from quality. */
static void test_recipes(void)
{
    static p4_config quality, recipe;
    p4_config_recipe(&quality, P4_RECIPE_QUALITY);
    for (int r = P4_RECIPE_QUICK; r <= P4_RECIPE_THOROUGH; r++) {
        int differ = 0, listed = 0;
        p4_config_recipe(&recipe, (p4_recipe)r);
        EXPECT_OK(p4_config_validate(&recipe));
        for (int i = 0; i < p4_config_rows; i++) {
            const p4_config_row *row = &p4_config_table[i];
            differ += memcmp((char *)&quality + row->offset, (char *)&recipe + row->offset, row->bytes) != 0;
        }
        for (int i = 0; i < p4_config_differences_count; i++) {
            const p4_config_difference *d = &p4_config_differences[i];
            int row = p4_config_find(d->key);
            listed += (int)d->recipe == r;
            EXPECT(row >= 0, "there is no key %s", d->key);
            EXPECT(row < 0 || (int)d->recipe != r || value_of(&recipe, &p4_config_table[row]) == d->value,
                   "%s of recipe %s", d->key, p4_recipe_names[r]);
        }
        EXPECT(differ == listed + 1, "recipe %s: %d keys differ, %d are listed", p4_recipe_names[r], differ,
               listed);
    }
    EXPECT(strcmp(p4_recipe_names[P4_RECIPE_SEED], "seed") == 0 &&
               p4_recipe_names[P4_RECIPE_THOROUGH + 1] == NULL,
           "names of recipes");
}

/* What p4_warn_of_steps writes; the caller frees. */
static char *warnings(int64_t steps_per_epoch)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *to = open_memstream(&text, &bytes);
    p4_log_set_stream(to);
    p4_warn_of_steps(&config, steps_per_epoch);
    p4_log_set_stream(NULL);
    fclose(to);
    return text;
}

/* A recipe that passes many times over little text says so; who asked for the passes is not told. */
static void test_passes(void)
{
    p4_config_recipe(&config, P4_RECIPE_THOROUGH);
    char *many = warnings(62), *few = warnings(300);
    EXPECT(strstr(many, "2441 steps pass over the training text 39 times") != NULL, "%s", many);
    EXPECT(few[0] == '\0', "%s", few);
    EXPECT_OK(p4_config_set(&config, "fine_tune_epochs", "1000"));
    char *asked = warnings(62);
    EXPECT(asked[0] == '\0', "%s", asked);
    free(many);
    free(few);
    free(asked);
}

/* Files that do not say how many steps they hold: what fine_tune_max_steps alone decides is said. */
static void test_unknown_steps(void)
{
    p4_config_recipe(&config, P4_RECIPE_QUALITY);
    char *open_ended = warnings(INT64_MAX);
    EXPECT(open_ended[0] == '\0', "%s", open_ended);
    EXPECT_OK(p4_config_set(&config, "fine_tune_max_steps", "2"));
    char *two = warnings(INT64_MAX);
    EXPECT(strstr(two, "50 steps of warm-up, and there are 2 steps in all") != NULL, "%s", two);
    p4_config_recipe(&config, P4_RECIPE_THOROUGH); /* a million epochs */
    char *thorough = warnings(INT64_MAX);
    EXPECT(thorough[0] == '\0', "%s", thorough);
    free(open_ended);
    free(two);
    free(thorough);
}

/* The effective configuration says what runs. */
static void test_resolve(void)
{
    p4_config_recipe(&config, P4_RECIPE_THOROUGH);
    p4_settings_resolve(&config);
    EXPECT(config.learn_scales, "thorough learns scales");
    config.enable_fine_tuning = false;
    p4_settings_resolve(&config);
    EXPECT(!config.learn_scales, "nothing learns scales without fine-tuning");
}

int main(void)
{
    test_passes();
    test_unknown_steps();
    test_resolve();
    test_recipes();
    test_rate();
    test_distill();
    return TEST_END();
}
