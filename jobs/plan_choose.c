/* plan_choose.c - the keys that need less memory, tried in the order of what they cost. */
#include <string.h>

#include "jobs/plan.h"

/* In the order of what they cost: time first, then precision, then what is trained on. A change that does not
 * apply leaves the configuration as it is. */
static void smaller_micro_batch(p4_config *c, int ranks)
{
    (void)ranks;
    c->micro_batch_size = 1;
}

static void sharded_teacher(p4_config *c, int ranks)
{
    bool whole = c->distill_teacher == P4_TEACHER_AUTO || c->distill_teacher == P4_TEACHER_RESIDENT;
    c->distill_teacher = whole && ranks > 1 && c->distill != 0 ? P4_TEACHER_SHARDED : c->distill_teacher;
}

static void light_recompute(p4_config *c, int ranks)
{
    (void)ranks;
    bool none = c->recompute == P4_RECOMPUTE_NONE || c->recompute == P4_RECOMPUTE_AUTO;
    c->recompute = none ? P4_RECOMPUTE_LIGHT : c->recompute;
}

static void full_recompute(p4_config *c, int ranks)
{
    (void)ranks;
    c->recompute = P4_RECOMPUTE_BLOCKS;
}

static void sharded_optimizer(p4_config *c, int ranks)
{
    c->zero_stage = ranks > 1 ? 2 : c->zero_stage;
}

static void half_state(p4_config *c, int ranks)
{
    (void)ranks;
    c->optimizer_state = P4_OPTIMIZER_STATE_BF16;
}

static void cached_teacher(p4_config *c, int ranks)
{
    (void)ranks;
    bool suffices = c->distill != 0 && c->distill_blocks <= 0; /* it holds no outputs of blocks */
    c->distill_teacher = suffices ? P4_TEACHER_CACHED : c->distill_teacher;
}

static void single_blocks(p4_config *c, int ranks)
{
    (void)ranks;
    c->reconstruct_window = 1;
}

static void small_passes(p4_config *c, int ranks)
{
    (void)ranks;
    if (c->global_batch_tokens == 0) { /* a training step stays as it is */
        c->global_batch_tokens = (int64_t)c->calibration_batch_size * c->calibration_sequence_length;
    }
    c->calibration_batch_size = 1;
}

static void (*const changes[])(p4_config *, int) = {smaller_micro_batch, sharded_teacher,   light_recompute,
                                                    full_recompute,      sharded_optimizer, half_state,
                                                    cached_teacher,      single_blocks,     small_passes};
enum { CHANGES = sizeof changes / sizeof changes[0] };

/* The changes of a set, in order. */
static p4_config changed(const p4_config *from, const bool used[CHANGES], int ranks)
{
    p4_config to = *from;
    for (int i = 0; i < CHANGES; i++) {
        if (used[i]) {
            changes[i](&to, ranks);
        }
    }
    return to;
}

/* What changes may change. */
static const char *const keys[] = {
    "micro_batch_size", "recompute",          "distill_teacher",        "zero_stage",
    "optimizer_state",  "reconstruct_window", "calibration_batch_size", "global_batch_tokens"};
enum { KEYS = sizeof keys / sizeof keys[0] };

static void read_values(int64_t values[KEYS], const p4_config *c)
{
    const int64_t own[KEYS] = {
        c->micro_batch_size, c->recompute,          c->distill_teacher,        c->zero_stage,
        c->optimizer_state,  c->reconstruct_window, c->calibration_batch_size, c->global_batch_tokens};
    memcpy(values, own, sizeof own);
}

/* "key=value ..." for each key in which two configurations differ. */
static void describe(char text[P4_PLAN_ADVICE_BYTES], const p4_config *from, const p4_config *to)
{
    static const char *const recomputes[] = {"none", "light", "blocks", "auto"},
                             *const teachers[] = {"auto", "resident", "sharded", "cached"},
                             *const states[] = {"fp32", "bf16"};
    int64_t before[KEYS], after[KEYS];
    const char *const *words[KEYS] = {NULL, recomputes, teachers, NULL, states, NULL, NULL, NULL};
    text[0] = '\0';
    read_values(before, from);
    read_values(after, to);
    for (int i = 0; i < KEYS; i++) {
        size_t used = strlen(text);
        if (before[i] == after[i]) {
            continue;
        }
        if (words[i] != NULL) {
            snprintf(text + used, P4_PLAN_ADVICE_BYTES - used, "%s%s=%s", used > 0 ? " " : "", keys[i],
                     words[i][after[i]]);
        } else {
            snprintf(text + used, P4_PLAN_ADVICE_BYTES - used, "%s%s=%lld", used > 0 ? " " : "", keys[i],
                     (long long)after[i]);
        }
    }
}

/* Tests the changes of a set, unless that leads to the values that were tested last, of which *fits tells:
 * the plan of a model with tens of thousands of tensors takes its time. */
static p4_rc test_changed(int64_t tested[KEYS], const p4_config *config, const bool used[CHANGES], int ranks,
                          p4_plan_test test, void *user, bool *fits)
{
    int64_t values[KEYS];
    const p4_config trial = changed(config, used, ranks);
    read_values(values, &trial);
    if (memcmp(values, tested, sizeof values) == 0) {
        return P4_OK;
    }
    memcpy(tested, values, sizeof values);
    return test(user, &trial, fits);
}

/* Changes are added until it fits; then each that was not needed after all is taken back. *found: it fits. */
static p4_rc search(bool used[CHANGES], const bool allowed[CHANGES], const p4_config *config, int ranks,
                    p4_plan_test test, void *user, bool *found)
{
    p4_rc rc = P4_OK;
    int64_t tested[KEYS];
    read_values(tested, config);
    TRY(test(user, config, found));
    for (int i = 0; i < CHANGES && !*found; i++) {
        used[i] = allowed[i];
        TRY(test_changed(tested, config, used, ranks, test, user, found));
    }
    for (int i = 0; i < CHANGES && *found; i++) {
        int64_t fitting[KEYS];
        bool without = true;
        if (!used[i]) {
            continue;
        }
        used[i] = false;
        memcpy(fitting, tested, sizeof fitting);
        TRY(test_changed(tested, config, used, ranks, test, user, &without));
        if (!without) {
            used[i] = true;
            memcpy(tested, fitting, sizeof tested);
        }
    }
done:
    return rc;
}

p4_rc p4_plan_advise(char advice[P4_PLAN_ADVICE_BYTES], const p4_config *config, int ranks, p4_plan_test test,
                     void *user)
{
    p4_rc rc = P4_OK;
    bool used[CHANGES] = {false}, allowed[CHANGES], found = false;
    for (int i = 0; i < CHANGES; i++) {
        allowed[i] = !(changes[i] == sharded_teacher && config->exact_sums);
    }
    advice[0] = '\0';
    TRY(search(used, allowed, config, ranks, test, user, &found));
    if (found) {
        const p4_config advised = changed(config, used, ranks);
        describe(advice, config, &advised);
    }
done:
    return rc;
}

/* The changes that a run may choose by itself: of keys that are left open. With exact_sums two of them do not
 * depend on the memory, and so not on the ranks. */
static void allow_open(bool allowed[CHANGES], const p4_config *config)
{
    for (int i = 0; i < CHANGES; i++) {
        allowed[i] = false;
    }
    allowed[0] = config->micro_batch_size == 0 && !config->exact_sums;
    allowed[1] = config->distill_teacher == P4_TEACHER_AUTO && !config->exact_sums;
    allowed[2] = allowed[3] = config->recompute == P4_RECOMPUTE_AUTO;
}

p4_rc p4_plan_choose(p4_config *config, int ranks, p4_plan_test test, void *user, bool *fits)
{
    p4_rc rc = P4_OK;
    bool used[CHANGES] = {false}, allowed[CHANGES];
    allow_open(allowed, config);
    TRY(search(used, allowed, config, ranks, test, user, fits));
    if (*fits) {
        *config = changed(config, used, ranks);
    }
done:
    return rc;
}

p4_rc p4_plan_can_fit(const p4_config *config, int ranks, p4_plan_test test, void *user, bool *fits)
{
    p4_rc rc = P4_OK;
    bool used[CHANGES + 1];
    int64_t tested[KEYS] = {-1}; /* no values of a configuration */
    allow_open(used, config);
    *fits = false;
    for (int count = CHANGES; count >= 0 && !*fits; count--) { /* first all: what needs least, as a rule */
        used[count] = false;
        TRY(test_changed(tested, config, used, ranks, test, user, fits));
    }
done:
    return rc;
}
