#include <math.h>
#include <string.h>

#include "jobs/check.h"
#include "jobs/forecast.h"
#include "jobs/resume.h"
#include "src/config.h"

p4_disk_plan p4_check_disk_plan(const p4_run *run, const p4_outlook *outlook)
{
    const p4_plan_input in = {
        .config = &run->config, .original = &run->original, .windows = outlook->windows};
    return p4_plan_disk(&in, (double)outlook->copied_bytes, outlook->rank.teacher_file_bytes);
}

/* Where a stage takes this part of the run, what shortens it is worth a word. */
static const double WORTH = 0.2;
/* What is neither worth a measurement nor a figure. */
static const double SHORT_S = 1;

/* "Fine-tune 12.0 min, Reconstruct blocks 8.1 min": the longest stages. */
static void list_longest(char *text, size_t bytes, const p4_plan *plan)
{
    char time[P4_PLAN_DURATION_BYTES];
    bool said[P4_PLAN_STAGES] = {false};
    text[0] = '\0';
    for (int count = 0; count < 2; count++) {
        int longest = -1;
        for (int s = 0; s < P4_PLAN_STAGES; s++) {
            bool longer = longest < 0 || plan->work[s].seconds > plan->work[longest].seconds;
            longest = !said[s] && longer ? s : longest;
        }
        if (plan->work[longest].seconds >= WORTH * plan->total_s) {
            size_t used = strlen(text);
            snprintf(text + used, bytes - used, "%s%s %s", used > 0 ? ", " : "",
                     p4_plan_stage_titles[longest],
                     p4_plan_format_duration(time, plan->work[longest].seconds));
            said[longest] = true;
        }
    }
}

/* A key that makes the run shorter, and the run with it. */
typedef struct shorter {
    const p4_plan *plan; /* of the run as configured */
    const p4_plan_input *in;
    p4_config with; /* all keys that were named */
    int named;
} shorter;

/* Seconds of a run with this configuration by the same rates. */
static double planned_s(const shorter *s, const p4_config *c)
{
    p4_plan plan = *s->plan;
    p4_plan_input in = *s->in;
    in.config = c;
    in.windows = p4_plan_windows_within(in.windows, c);
    plan.train_steps = p4_plan_steps(c, &in.windows);
    p4_plan_time(&plan, &in);
    return plan.total_s;
}

/* One key alone. p4_config_set would also give every key that the user has not set its default again: what
 * the run took from its model and its memory, such as the length of the windows, would be lost. Local. */
static p4_rc change_key(p4_config *c, const char *key, int64_t value)
{
    p4_rc rc = P4_OK;
    char text[64];
    const p4_config_row *row = &p4_config_table[p4_config_find(key)];
    p4_config set = *c;
    snprintf(text, sizeof text, "%lld", (long long)value);
    TRY(p4_config_set(&set, key, text));
    memcpy((char *)c + row->offset, (const char *)&set + row->offset, row->bytes);
    memcpy(c->user_set, set.user_set, sizeof c->user_set);
done:
    return rc;
}

/* A value of a key that counts something, where the run is shorter with it: with fewer windows a training of
 * so many steps may take more epochs, and evaluate after each. */
static void say_key(shorter *s, const char *key, int64_t now, int64_t value)
{
    char alone[P4_PLAN_DURATION_BYTES];
    p4_config c = *s->in->config;
    if (value < 1 || value >= now) {
        return;
    }
    if (change_key(&c, key, value) != P4_OK) {
        p4_error_clear();
        return;
    }
    double seconds = planned_s(s, &c);
    if (seconds >= s->plan->total_s || change_key(&s->with, key, value) != P4_OK) {
        return;
    }
    if (s->named++ == 0) {
        INFO("      shorter by this plan, at a cost that docs/quality.md shows:");
    }
    INFO("      %s=%lld instead of %lld: about %s", key, (long long)value, (long long)now,
         p4_plan_format_duration(alone, seconds));
}

/* The keys that decide how long the long stages take, each with a quarter of its value. */
static void say_shorter(const p4_plan *plan, const p4_plan_input *in)
{
    enum { PART = 4, FEWEST_WINDOWS = 64 };
    const p4_config *c = in->config;
    const int64_t T = c->calibration_sequence_length;
    const double least = WORTH * plan->total_s;
    char together[P4_PLAN_DURATION_BYTES];
    shorter s = {.plan = plan, .in = in, .with = *c};
    bool reconstructs = plan->work[P4_PLAN_RECONSTRUCT].seconds >= least,
         by_samples = c->reconstruct_steps == 0 && c->reconstruct_tokens == 0;
    if (plan->work[P4_PLAN_CALIBRATE].seconds >= least || (reconstructs && by_samples)) {
        int64_t used = p4_min_i64(c->calibration_samples, in->windows.calibration);
        say_key(&s, "calibration_samples", used, p4_max_i64(FEWEST_WINDOWS, used / PART));
    }
    if (reconstructs && c->reconstruct_tokens > 0 && c->reconstruct_steps == 0) {
        say_key(&s, "reconstruct_tokens", c->reconstruct_tokens, c->reconstruct_tokens / PART);
    }
    if (reconstructs &&
        !(by_samples && s.named > 0)) { /* fewer samples have fewer steps, perhaps still fewer */
        int64_t windows = p4_min_i64(p4_settings_reconstruct_windows(c, T), in->windows.calibration),
                steps = p4_settings_reconstruct(c, windows, T, NULL).steps;
        say_key(&s, "reconstruct_steps", steps, steps / PART);
    }
    if (plan->work[P4_PLAN_FINE_TUNE].seconds >= least) {
        say_key(&s, "fine_tune_max_steps", plan->train_steps, plan->train_steps / PART);
    }
    if (plan->work[P4_PLAN_EVALUATE_POST].seconds + plan->work[P4_PLAN_EVALUATE_FINAL].seconds >= least) {
        int64_t used = p4_min_i64(c->eval_samples, in->windows.eval);
        say_key(&s, "eval_samples", used, used / PART);
    }
    if (s.named > 1) {
        INFO("      all of these together: about %s",
             p4_plan_format_duration(together, planned_s(&s, &s.with)));
    }
}

void p4_check_time(p4_run *run, const p4_outlook *outlook, bool measures)
{
    const double LONG_S = 300; /* on CPUs, where a newcomer starts */
    p4_compute *compute = &run->compute;
    bool cpu = compute->ops->host_memory;
    double cores = compute->group->machine->core_share;
    char time[P4_PLAN_DURATION_BYTES], longest[128];
    p4_rank_plan rank = outlook->rank;
    const p4_plan_input in = {
        .config = &run->config, .original = &run->original, .compute = compute, .windows = outlook->windows};
    p4_plan plan = {.ranks = compute->group->ranks,
                    .ranks_per_node = compute->group->local_ranks,
                    .on_gpu = !cpu,
                    .rank_plans_count = 1,
                    .rank_plans = &rank,
                    .train_steps = p4_plan_steps(&run->config, &outlook->windows),
                    .disk = p4_check_disk_plan(run, outlook)};
    p4_plan_rates_table(&plan.rates, !cpu, compute->ops->describe(compute->device),
                        (double)compute->ops->room_bytes(compute->device), compute->threads, cores);
    p4_plan_time(&plan, &in);
    if (cpu && measures && plan.total_s > SHORT_S) {
        if (p4_plan_rates_here(&plan.rates, &run->original.hf.model.arch,
                               run->config.calibration_sequence_length, compute->threads, cores) != P4_OK) {
            p4_error_clear(); /* the table serves: no result depends on it */
        }
        p4_plan_time(&plan, &in);
    }
    for (int s = 0; s < P4_PLAN_STAGES; s++) {
        run->planned_s[s] = plan.work[s].seconds;
    }
    run->planned_steps = plan.train_steps;
    list_longest(longest, sizeof longest, &plan);
    if (plan.total_s < SHORT_S) {
        INFO("      time: less than a second (rates: %s)", plan.rates.name);
    } else {
        INFO("      time: about %s from beginning to end%s%s (rates: %s)",
             p4_plan_format_duration(time, plan.total_s), longest[0] != '\0' ? ", of which " : "", longest,
             plan.rates.name);
    }
    if (cpu && plan.total_s > LONG_S) {
        say_shorter(&plan, &in);
    }
}

void p4_check_time_left(const p4_run *run)
{
    p4_resume_content has;
    char time[P4_PLAN_DURATION_BYTES], at[64] = "";
    double done[P4_MAX_STAGES] = {0};
    const int64_t L = run->original.hf.model.arch.L;
    if (!p4_resume_has(run, &has)) {
        return;
    }
    done[P4_PLAN_FINE_TUNE] =
        run->planned_steps > 0 ? fmin(1, (double)has.step / (double)run->planned_steps) : 0;
    done[P4_PLAN_RECONSTRUCT] = fmin(1, (double)has.blocks / (double)L);
    for (int i = 0; i < P4_PLAN_STAGES; i++) {
        done[i] = has.done[i] ? 1 : done[i];
    }
    double left_s = p4_forecast_left(run->planned_s, done);
    if (has.step > 0 && has.step <= run->planned_steps) {
        snprintf(at, sizeof at, ", with %lld of %lld training steps done", (long long)has.step,
                 (long long)run->planned_steps);
    } else if (has.blocks > 0 && !has.done[P4_PLAN_RECONSTRUCT]) {
        snprintf(at, sizeof at, ", with %lld of %lld blocks reconstructed", (long long)has.blocks,
                 (long long)L);
    }
    bool is_short = left_s < SHORT_S;
    INFO("      time left from %s: %s%s%s", p4_resume_last(run), is_short ? "" : "about ",
         is_short ? "less than a second" : p4_plan_format_duration(time, left_s), at);
}
