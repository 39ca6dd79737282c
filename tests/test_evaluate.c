/* The progress lines of evaluations: a run passes over the same text with two models, and over several texts,
 * and each line says with which model it passes over which. */
#include "api_world.h"
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

static void passes_are_told_apart(p4_session *session)
{
    static const char *const want[] = {"evaluate original", "evaluate original, set \"same\"",
                                       "evaluate compressed", "evaluate compressed, set \"same\""};
    static p4_results results;
    static p4_config config;
    char sets[600];
    passes seen = {.count = 0};
    small_config(&config);
    snprintf(sets, sizeof sets, "{\"same\": \"%s\"}", at("text.bin"));
    expect_set(&config, "eval_sets", sets);
    expect_set(&config, "eval_samples", "8");
    expect_set(&config, "enable_fine_tuning", "false");
    snprintf(config.model_path, sizeof config.model_path, "%s", fixture("llama-gqa"));
    snprintf(config.output_path, sizeof config.output_path, "%s", at("out"));
    p4_progress_observe(note_pass, &seen);
    EXPECT_OK(p4_execute(session, &config, NULL, NULL, &results));
    p4_progress_observe(NULL, NULL);
    EXPECT(seen.count == 4, "%d evaluations have a name of their own, expected 4", seen.count);
    for (int i = 0; i < 4; i++) {
        EXPECT(strcmp(seen.labels[i], want[i]) == 0, "\"%s\", expected \"%s\"", seen.labels[i], want[i]);
    }
    p4_results_free(&results);
}

int main(void)
{
    p4_session *session;
    if (!device_is_here()) {
        return check_failed > 0 ? TEST_END() : P4_SKIPPED;
    }
    world_fill();
    EXPECT_OK(p4_session_open(&session));
    passes_are_told_apart(session);
    p4_session_close(session);
    world_end();
    return TEST_END();
}
