/* The progress lines of evaluations: a run and phase4_evaluate pass over the same text with two models, and
 * over several texts, and each line says with which model it passes over which. */
#include "api_world.h"
#include "jobs/measure.h"
#include "jobs/run.h"
#include "jobs/train/compute.h"
#include "src/leaf/log_sink.h"

enum { PASSES = 8 };

/* The evaluations that had a progress line, each once, in their order. */
typedef struct passes {
    char labels[PASSES][128];
    int count;
} passes;

static void note_pass(const p4_progress *progress, double left_s, void *user)
{
    passes *p = user;
    bool evaluates = strncmp(progress->label, "evaluate", 8) == 0;
    (void)left_s;
    if (evaluates && p->count < PASSES &&
        (p->count == 0 || strcmp(p->labels[p->count - 1], progress->label) != 0)) {
        snprintf(p->labels[p->count++], sizeof p->labels[0], "%s", progress->label);
    }
}

static void expect_passes(const passes *seen, const char *of, const char *const want[4])
{
    EXPECT(seen->count == 4, "%s: %d evaluations have a name of their own, expected 4", of, seen->count);
    for (int i = 0; i < 4; i++) {
        EXPECT(strcmp(seen->labels[i], want[i]) == 0, "%s: \"%s\", expected \"%s\"", of, seen->labels[i],
               want[i]);
    }
}

/* Into at("out"). */
static void configure(p4_config *config)
{
    char sets[600];
    small_config(config);
    snprintf(sets, sizeof sets, "{\"same\": \"%s\"}", at("text.bin"));
    expect_set(config, "eval_files", at("text.bin"));
    expect_set(config, "eval_sets", sets);
    expect_set(config, "eval_samples", "8");
    expect_set(config, "enable_fine_tuning", "false");
    snprintf(config->model_path, sizeof config->model_path, "%s", fixture("llama-gqa"));
    snprintf(config->output_path, sizeof config->output_path, "%s", at("out"));
}

static void passes_are_told_apart(p4_group *group)
{
    /* A run goes through all texts with one model, phase4_evaluate through one text with both. */
    static const char *const run[] = {"evaluate original", "evaluate original, set \"same\"",
                                      "evaluate compressed", "evaluate compressed, set \"same\""},
                             *const again[] = {"evaluate original", "evaluate compressed",
                                               "evaluate original, set \"same\"",
                                               "evaluate compressed, set \"same\""};
    static p4_results results;
    static p4_measurement measured;
    static p4_config config;
    passes seen = {.count = 0};
    configure(&config);
    p4_progress_observe(note_pass, &seen);
    EXPECT_OK(p4_run_execute(group, &config, false, false, NULL, NULL, &results));
    expect_passes(&seen, "the run", run);
    seen.count = 0;
    EXPECT_OK(p4_measure(&measured, group, at("out"), NULL, 0));
    expect_passes(&seen, "phase4_evaluate", again);
    p4_progress_observe(NULL, NULL);
    p4_results_free(&results);
}

int main(void)
{
    p4_machine machine;
    p4_group group;
    if (!device_is_here()) {
        return check_failed > 0 ? TEST_END() : P4_SKIPPED;
    }
    world_fill();
    EXPECT_OK(p4_machine_open(&machine));
    EXPECT_OK(p4_compute_find_gpus(&machine));
    EXPECT_OK(p4_group_open(&group, &machine, NULL, 60));
    p4_group_set_log(&group, P4_LOG_WARN);
    passes_are_told_apart(&group);
    p4_group_close(&group);
    p4_machine_close(&machine);
    world_end();
    return TEST_END();
}
