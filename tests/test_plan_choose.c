/* The search for keys with which a run fits: what it finds, and that it plans no values twice in a row. A
 * plan of a model with tens of thousands of tensors takes 10 ms a rank. */
#include "check.h"
#include "jobs/plan.h"
#include "src/config.h"

enum { VALUES = 10, ROOM = 100, LENGTH = 512 };

typedef struct world {
    int room, tests, repeated;
    int64_t last[VALUES];
} world;

/* Windows whose states lie in memory while blocks are reconstructed, and those of calibration. So few as a
 * configuration usually has need nothing. */
enum { UNIT = 2048 };
static int64_t text_needs(const int64_t v[VALUES])
{
    int64_t reconstructed = v[9] == 0 ? 0 : v[7] > 0 ? v[7] / LENGTH : v[8];
    return reconstructed + v[8] / 4;
}

/* Memory in a unit of its own: each key's part is its own, so that it is known which ones are needed. */
static int needs(const int64_t v[VALUES])
{
    int activations = v[0] == 1 ? 10 : 40;
    activations /= v[1] == P4_RECOMPUTE_BLOCKS ? 4 : v[1] == P4_RECOMPUTE_LIGHT ? 2 : 1;
    int teacher = v[2] == P4_TEACHER_SHARDED ? 5 : v[2] == P4_TEACHER_CACHED ? 1 : 30;
    int state = (v[3] == 2 ? 10 : 40) / (v[4] == P4_OPTIMIZER_STATE_BF16 ? 2 : 1);
    return activations + teacher + state + (v[5] == 1 ? 0 : 4) + (v[6] == 1 ? 0 : 4) +
           (int)(text_needs(v) / UNIT);
}

static p4_rc test(void *user, const p4_config *c, bool *fits)
{
    world *w = user;
    const int64_t values[VALUES] = {
        c->micro_batch_size,    c->recompute,          c->distill_teacher,        c->zero_stage,
        c->optimizer_state,     c->reconstruct_window, c->calibration_batch_size, c->reconstruct_tokens,
        c->calibration_samples, c->reconstruct};
    w->repeated += w->tests > 0 && memcmp(values, w->last, sizeof values) == 0;
    w->tests++;
    memcpy(w->last, values, sizeof values);
    *fits = needs(values) <= w->room;
    return P4_OK;
}

static p4_config given(void)
{
    static p4_config c;
    p4_config_recipe(&c, P4_RECIPE_QUALITY);
    c.zero_stage = 1;
    c.optimizer_state = P4_OPTIMIZER_STATE_FP32;
    c.reconstruct_window = 2;
    c.calibration_sequence_length = LENGTH;
    return c;
}

/* The values that a test sees last, and how often it was asked. */
#define EXPECT_TESTS(w, count)                        \
    EXPECT((w).tests == (count) && (w).repeated == 0, \
           "%d tests, %d of them of the same values, expected %d", (w).tests, (w).repeated, (int)(count))
#define EXPECT_CHOSEN(c, batch, passes, teacher)                                                             \
    EXPECT((c).micro_batch_size == (batch) && (c).recompute == (passes) && (c).distill_teacher == (teacher), \
           "micro_batch_size %d, recompute %d, distill_teacher %d", (int)(c).micro_batch_size,               \
           (int)(c).recompute, (int)(c).distill_teacher)

static void the_cheapest_keys_are_chosen(void)
{
    bool fits;
    p4_config c = given();
    world w = {.room = 118};
    EXPECT_OK(p4_plan_choose(&c, 4, test, &w, &fits)); /* 40 + 30 + 40 + 8 fits as it is */
    EXPECT(fits, "does not fit");
    EXPECT_CHOSEN(c, 0, P4_RECOMPUTE_AUTO, P4_TEACHER_AUTO);
    EXPECT_TESTS(w, 1);
    w = (world){.room = 88}; /* 10 + 30 + 40 + 8, which is too much without the smaller micro-batch */
    EXPECT_OK(p4_plan_choose(&c, 4, test, &w, &fits));
    EXPECT(fits, "does not fit");
    EXPECT_CHOSEN(c, 1, P4_RECOMPUTE_AUTO, P4_TEACHER_AUTO);
    EXPECT_TESTS(w, 3);
    c = given();
    w = (world){.room = 60}; /* 10 / 2 + 5 + 40 + 8 */
    EXPECT_OK(p4_plan_choose(&c, 4, test, &w, &fits));
    EXPECT(fits, "does not fit");
    EXPECT_CHOSEN(c, 1, P4_RECOMPUTE_LIGHT, P4_TEACHER_SHARDED);
    c = given();
    w = (world){.room = 20};
    EXPECT_OK(p4_plan_choose(&c, 4, test, &w, &fits));
    EXPECT(!fits, "fits");
    EXPECT_CHOSEN(c, 0, P4_RECOMPUTE_AUTO, P4_TEACHER_AUTO);
    EXPECT_TESTS(w, 5);
}

static void whether_it_can_fit_takes_fewer_tests(void)
{
    bool fits;
    const p4_config c = given();
    world w = {.room = 20};
    EXPECT_OK(p4_plan_can_fit(&c, 4, test, &w, &fits));
    EXPECT(!fits, "fits");
    EXPECT_TESTS(w, 5);
    w = (world){.room = 56}; /* with all of them: 10 / 4 + 5 + 40 + 8 */
    EXPECT_OK(p4_plan_can_fit(&c, 4, test, &w, &fits));
    EXPECT(fits, "does not fit");
    EXPECT_TESTS(w, 1);
}

/* Keys that have the value of a change already are not tried again. */
static void values_are_planned_once(void)
{
    char advice[P4_PLAN_ADVICE_BYTES];
    bool fits;
    p4_config c = given();
    c.micro_batch_size = 1;
    c.recompute = P4_RECOMPUTE_BLOCKS;
    c.distill_teacher = P4_TEACHER_SHARDED;
    c.zero_stage = 2;
    c.optimizer_state = P4_OPTIMIZER_STATE_BF16;
    c.reconstruct_window = c.calibration_batch_size = 1;
    c.global_batch_tokens = 4096;
    world w = {.room = 1};
    EXPECT_OK(p4_plan_choose(&c, 4, test, &w, &fits));
    EXPECT(!fits, "fits");
    EXPECT_TESTS(w, 1);
    w = (world){.room = 1};
    EXPECT_OK(p4_plan_can_fit(&c, 4, test, &w, &fits));
    EXPECT_TESTS(w, 1);
    w = (world){.room = 1};
    EXPECT_OK(p4_plan_advise(advice, &c, 4, test, &w));
    EXPECT(advice[0] == '\0', "advice \"%s\"", advice);
    EXPECT_TESTS(w, 5); /* as given, with a cached teacher, less text for each of two, no reconstruction */
}

/* Where much text is what does not fit, the advice is less of it, as much as fits. */
static void less_text_is_advised(void)
{
    static const struct {
        int64_t samples, tokens;
        const char *advice;
    } cases[] = {{1000000, 0, "reconstruct_tokens=33554432"},
                 {100, 1000000LL * LENGTH, "reconstruct_tokens=134217728"},
                 {10000000, 0, "calibration_samples=262144"}}; /* a quarter of so many is too much alone */
    char advice[P4_PLAN_ADVICE_BYTES];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        p4_config c = given();
        world w = {.room = 40 + 30 + 40 + 8 + 167};
        c.calibration_samples = (int32_t)cases[i].samples;
        c.reconstruct_tokens = cases[i].tokens;
        EXPECT_OK(p4_plan_advise(advice, &c, 4, test, &w));
        EXPECT(strcmp(advice, cases[i].advice) == 0, "%lld windows: \"%s\"", (long long)cases[i].samples,
               advice);
        EXPECT(w.repeated == 0, "%d tests of the same values", w.repeated);
    }
}

static void advice_is_what_is_needed(void)
{
    static const struct {
        int room;
        const char *advice;
    } cases[] = {
        {88, "micro_batch_size=1"},
        {63, "micro_batch_size=1 distill_teacher=sharded"},
        {33, "recompute=blocks distill_teacher=sharded zero_stage=2"},
        {25, "micro_batch_size=1 recompute=blocks distill_teacher=sharded zero_stage=2"},
        {12, "micro_batch_size=1 recompute=blocks distill_teacher=cached zero_stage=2 optimizer_state=bf16 "
             "reconstruct_window=1"},
        {1, ""}};
    char advice[P4_PLAN_ADVICE_BYTES];
    const p4_config c = given();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        world w = {.room = cases[i].room};
        EXPECT_OK(p4_plan_advise(advice, &c, 4, test, &w));
        EXPECT(strcmp(advice, cases[i].advice) == 0, "room %d: \"%s\"", cases[i].room, advice);
        EXPECT(w.repeated == 0, "room %d: %d tests of the same values", cases[i].room, w.repeated);
    }
}

int main(void)
{
    the_cheapest_keys_are_chosen();
    whether_it_can_fit_takes_fewer_tests();
    values_are_planned_once();
    advice_is_what_is_needed();
    less_text_is_advised();
    return TEST_END();
}
