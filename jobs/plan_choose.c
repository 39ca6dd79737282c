/* plan_choose.c - the keys that need less memory, tried in the order of what they cost. */
#include <string.h>

#include "jobs/plan.h"

/* What the changes go to. */
typedef struct limits {
    int ranks;
    int64_t windows; /* of text, where fewer are tried */
} limits;

/* In the order of what they cost: time first, then precision, then what is trained on. A change that does not
 * apply leaves the configuration as it is. */
static void smaller_micro_batch(p4_config *c, const limits *l)
{
    (void)l;
    c->micro_batch_size = 1;
}

static void sharded_teacher(p4_config *c, const limits *l)
{
    bool whole = c->distill_teacher == P4_TEACHER_AUTO || c->distill_teacher == P4_TEACHER_RESIDENT;
    c->distill_teacher = whole && l->ranks > 1 && c->distill != 0 ? P4_TEACHER_SHARDED : c->distill_teacher;
}

static void light_recompute(p4_config *c, const limits *l)
{
    (void)l;
    bool none = c->recompute == P4_RECOMPUTE_NONE || c->recompute == P4_RECOMPUTE_AUTO;
    c->recompute = none ? P4_RECOMPUTE_LIGHT : c->recompute;
}

static void full_recompute(p4_config *c, const limits *l)
{
    (void)l;
    c->recompute = P4_RECOMPUTE_BLOCKS;
}

static void sharded_optimizer(p4_config *c, const limits *l)
{
    c->zero_stage = l->ranks > 1 ? 2 : c->zero_stage;
}

static void half_state(p4_config *c, const limits *l)
{
    (void)l;
    c->optimizer_state = P4_OPTIMIZER_STATE_BF16;
}

static void cached_teacher(p4_config *c, const limits *l)
{
    (void)l;
    bool suffices = c->distill != 0 && c->distill_blocks <= 0; /* it holds no outputs of blocks */
    c->distill_teacher = suffices ? P4_TEACHER_CACHED : c->distill_teacher;
}

static void single_blocks(p4_config *c, const limits *l)
{
    (void)l;
    c->reconstruct_window = 1;
}

static void small_passes(p4_config *c, const limits *l)
{
    (void)l;
    if (c->global_batch_tokens == 0) { /* a training step stays as it is */
        c->global_batch_tokens = (int64_t)c->calibration_batch_size * c->calibration_sequence_length;
    }
    c->calibration_batch_size = 1;
}

/* The states of all windows lie in memory while blocks are reconstructed. */
static void less_reconstruction_text(p4_config *c, const limits *l)
{
    const int64_t T = c->calibration_sequence_length;
    if (p4_settings_reconstruct_windows(c, T) > l->windows) {
        c->reconstruct_tokens = l->windows * T;
    }
}

static void less_calibration(p4_config *c, const limits *l)
{
    c->calibration_samples = p4_min_i64(c->calibration_samples, l->windows);
}

static void no_reconstruction(p4_config *c, const limits *l)
{
    (void)l;
    c->reconstruct = false;
}

static void (*const changes[])(p4_config *, const limits *) = {
    smaller_micro_batch, sharded_teacher,  light_recompute, full_recompute, sharded_optimizer,
    half_state,          cached_teacher,   single_blocks,   small_passes,   less_reconstruction_text,
    less_calibration,    no_reconstruction};
enum { CHANGES = sizeof changes / sizeof changes[0] };

/* The changes of a set, in order. */
static p4_config changed(const p4_config *from, const bool used[CHANGES], const limits *l)
{
    p4_config to = *from;
    for (int i = 0; i < CHANGES; i++) {
        if (used[i]) {
            changes[i](&to, l);
        }
    }
    return to;
}

/* What changes may change. */
static const char *const keys[] = {"micro_batch_size",
                                   "recompute",
                                   "distill_teacher",
                                   "zero_stage",
                                   "optimizer_state",
                                   "reconstruct_window",
                                   "calibration_batch_size",
                                   "global_batch_tokens",
                                   "reconstruct_tokens",
                                   "calibration_samples",
                                   "reconstruct"};
enum { KEYS = sizeof keys / sizeof keys[0] };

static void read_values(int64_t values[KEYS], const p4_config *c)
{
    const int64_t own[KEYS] = {c->micro_batch_size,
                               c->recompute,
                               c->distill_teacher,
                               c->zero_stage,
                               c->optimizer_state,
                               c->reconstruct_window,
                               c->calibration_batch_size,
                               c->global_batch_tokens,
                               c->reconstruct_tokens,
                               c->calibration_samples,
                               c->reconstruct};
    memcpy(values, own, sizeof own);
}

/* "key=value ..." for each key in which two configurations differ. */
static void describe(char text[P4_PLAN_ADVICE_BYTES], const p4_config *from, const p4_config *to)
{
    static const char *const recomputes[] = {"none", "light", "blocks", "auto"},
                             *const teachers[] = {"auto", "resident", "sharded", "cached"},
                             *const states[] = {"fp32", "bf16"}, *const switches[] = {"false", "true"};
    int64_t before[KEYS], after[KEYS];
    const char *const *words[KEYS] = {NULL, recomputes, teachers, NULL, states,  NULL,
                                      NULL, NULL,       NULL,     NULL, switches};
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
static p4_rc test_changed(int64_t tested[KEYS], const p4_config *config, const bool used[CHANGES],
                          const limits *l, p4_plan_test test, void *user, bool *fits)
{
    int64_t values[KEYS];
    const p4_config trial = changed(config, used, l);
    read_values(values, &trial);
    if (memcmp(values, tested, sizeof values) == 0) {
        return P4_OK;
    }
    memcpy(tested, values, sizeof values);
    return test(user, &trial, fits);
}

/* Changes are added until it fits; then each that was not needed after all is taken back. *found: it fits. */
static p4_rc search(bool used[CHANGES], const bool allowed[CHANGES], const p4_config *config, const limits *l,
                    p4_plan_test test, void *user, bool *found)
{
    p4_rc rc = P4_OK;
    int64_t tested[KEYS];
    read_values(tested, config);
    TRY(test(user, config, found));
    for (int i = 0; i < CHANGES && !*found; i++) {
        used[i] = allowed[i];
        TRY(test_changed(tested, config, used, l, test, user, found));
    }
    for (int i = 0; i < CHANGES && *found; i++) {
        int64_t fitting[KEYS];
        bool without = true;
        if (!used[i]) {
            continue;
        }
        used[i] = false;
        memcpy(fitting, tested, sizeof fitting);
        TRY(test_changed(tested, config, used, l, test, user, &without));
        if (!without) {
            used[i] = true;
            memcpy(tested, fitting, sizeof tested);
        }
    }
done:
    return rc;
}

/* As much text as fits, by doubling. */
static p4_rc widen(limits *l, const bool used[CHANGES], const p4_config *config, p4_plan_test test,
                   void *user)
{
    p4_rc rc = P4_OK;
    bool fits = true;
    while (fits && l->windows < INT64_MAX / 4) {
        const limits more = {.ranks = l->ranks, .windows = 2 * l->windows};
        int64_t now[KEYS], then[KEYS];
        const p4_config least = changed(config, used, l), trial = changed(config, used, &more);
        read_values(now, &least);
        read_values(then, &trial);
        if (memcmp(now, then, sizeof now) == 0) { /* no change of the set depends on it */
            break;
        }
        TRY(test(user, &trial, &fits));
        l->windows = fits ? more.windows : l->windows;
    }
done:
    return rc;
}

p4_rc p4_plan_advise(char advice[P4_PLAN_ADVICE_BYTES], const p4_config *config, int ranks, p4_plan_test test,
                     void *user)
{
    enum { FEWEST_WINDOWS = 64 }; /* docs/quality.md has what so few cost */
    p4_rc rc = P4_OK;
    bool used[CHANGES] = {false}, allowed[CHANGES], found = false;
    limits l = {.ranks = ranks, .windows = FEWEST_WINDOWS};
    for (int i = 0; i < CHANGES; i++) {
        allowed[i] = !(changes[i] == sharded_teacher && config->exact_sums);
    }
    advice[0] = '\0';
    TRY(search(used, allowed, config, &l, test, user, &found));
    if (found) {
        TRY(widen(&l, used, config, test, user));
        const p4_config advised = changed(config, used, &l);
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
    const limits l = {.ranks = ranks};
    allow_open(allowed, config);
    TRY(search(used, allowed, config, &l, test, user, fits));
    if (*fits) {
        *config = changed(config, used, &l);
    }
done:
    return rc;
}

p4_rc p4_plan_can_fit(const p4_config *config, int ranks, p4_plan_test test, void *user, bool *fits)
{
    p4_rc rc = P4_OK;
    bool used[CHANGES + 1];
    int64_t tested[KEYS] = {-1}; /* no values of a configuration */
    const limits l = {.ranks = ranks};
    allow_open(used, config);
    *fits = false;
    for (int count = CHANGES; count >= 0 && !*fits; count--) { /* first all: what needs least, as a rule */
        used[count] = false;
        TRY(test_changed(tested, config, used, &l, test, user, fits));
    }
done:
    return rc;
}
