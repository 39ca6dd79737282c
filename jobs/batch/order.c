/* order.c - which waiting model is offered idle ranks first.
 *
 * Longest first is a good order however long the models take, but where few of them share the ranks, some
 * ranks may have nothing to do for a long time at the end. So the schedule is simulated, and models change
 * places where it then ends earlier. Plans are not exact, and an order that is chosen for the planned seconds
 * alone is soon worse than longest first: what counts is the mean of many schedules, in which models take
 * longer or shorter than planned. */
#include <math.h>
#include <stdlib.h>

#include "jobs/batch/batch.h"
#include "src/leaf/rng.h"

enum {
    COPIES = 32,
    SEED = 1,
    REORDERED = 16 /* models that wait: the end of a batch, where their order matters, and soon looked at */
};
static const double SPREAD = 0.15; /* deviation of the seconds' logarithm in the last copy; of the first: 0 */
static const double GAIN = 0.005;  /* of the mean: what a change saves at least */
static const double ROUNDING = 1e-9; /* sums of the same seconds in another order */

/* The waiting models in their order, which are the batch's count, and behind them those that run. */
typedef struct sketch {
    p4_batch batch;
    int64_t models; /* of both kinds */
    double now_s;
    int64_t *index; /* [count]: where the model is in the batch */
    double *end_s;  /* [models]: of those that have begun */
    int64_t looked;
} sketch;

static void close_sketch(sketch *s)
{
    free(s->batch.models);
    free(s->batch.order);
    free(s->batch.running);
    free(s->index);
    free(s->end_s);
}

static p4_rc open_sketch(sketch *s, const p4_batch *batch, double now_s)
{
    size_t count = (size_t)batch->counts[P4_STATE_WAITING], models = count + (size_t)batch->running_count;
    *s = (sketch){.batch = {.ranks = batch->ranks}, .models = (int64_t)models, .now_s = now_s};
    s->batch.models = p4_alloc(models, sizeof *s->batch.models);
    s->batch.order = p4_alloc(count, sizeof *s->batch.order);
    s->batch.running = p4_alloc((size_t)batch->ranks, sizeof *s->batch.running);
    s->index = p4_alloc(count, sizeof *s->index);
    s->end_s = p4_alloc(models, sizeof *s->end_s);
    if (s->batch.models == NULL || s->batch.order == NULL || s->batch.running == NULL || s->index == NULL ||
        s->end_s == NULL) {
        close_sketch(s);
        return P4_E_SYSTEM;
    }
    for (int64_t i = 0; i < batch->count; i++) {
        if (batch->models[batch->order[i]].state == P4_STATE_WAITING) {
            int64_t at = s->batch.count++;
            s->batch.models[at] = batch->models[batch->order[i]];
            s->batch.order[at] = at;
            s->index[at] = batch->order[i];
        }
    }
    for (int i = 0; i < batch->running_count; i++) {
        s->batch.models[s->batch.count + i] = *batch->running[i];
    }
    return P4_OK;
}

/* As things are now; idle ranks. */
static int start_over(sketch *s, const double *factor)
{
    p4_batch *batch = &s->batch;
    int idle = batch->ranks;
    batch->begun = 0;
    batch->running_count = 0;
    for (int i = 0; i < P4_STATES; i++) {
        batch->counts[i] = 0;
    }
    for (int64_t i = 0; i < s->models; i++) {
        p4_batch_model *m = &batch->models[i];
        m->state = i < batch->count ? P4_STATE_WAITING : P4_STATE_RUNNING;
        batch->counts[m->state]++;
        if (m->state == P4_STATE_RUNNING) { /* in the order of their planned ends, as they were */
            batch->running[batch->running_count++] = m;
            s->end_s[i] = fmax(s->now_s, m->began_s + m->planned_s * (factor != NULL ? factor[i] : 1));
            idle -= m->ranks;
        }
    }
    return idle;
}

/* Runs the schedule without the work: seconds to its end. factor [models]: of the planned seconds, which a
 * model takes; NULL: 1. What starts is decided by the plan, as the coordinator does it. */
static double simulate(sketch *s, const double *factor)
{
    p4_batch *batch = &s->batch;
    double now_s = s->now_s;
    int idle = start_over(s, factor);
    for (;;) {
        p4_batch_start next;
        while ((next = p4_batch_next(batch, idle, now_s)).model >= 0) {
            p4_batch_model *m = &batch->models[next.model];
            p4_batch_begin(batch, m, next.ranks, now_s);
            s->end_s[next.model] = now_s + m->planned_s * (factor != NULL ? factor[next.model] : 1);
            s->looked += next.looked;
            idle -= next.ranks;
        }
        s->looked += next.looked + batch->running_count;
        if (batch->running_count == 0) {
            return now_s - s->now_s;
        }
        int64_t first = batch->running[0] - batch->models;
        for (int i = 1; i < batch->running_count; i++) {
            int64_t at = batch->running[i] - batch->models;
            first = s->end_s[at] < s->end_s[first] ? at : first;
        }
        now_s = s->end_s[first];
        idle += batch->models[first].ranks;
        p4_batch_end(batch, &batch->models[first], P4_STATE_DONE);
    }
}

p4_rc p4_batch_forecast(const p4_batch *batch, double now_s, double *seconds)
{
    sketch s;
    if (open_sketch(&s, batch, now_s) != P4_OK) {
        return P4_E_SYSTEM;
    }
    *seconds = simulate(&s, NULL);
    close_sketch(&s);
    return P4_OK;
}

/* ---- the choice ---- */

typedef struct choice {
    sketch s;
    int64_t movable; /* of the order, from its start */
    double *factor;  /* [COPIES, models]; the first copy is the plan */
    double plan_s;   /* the planned schedule of the best order so far */
    double sum_s;    /* its schedules of all copies */
} choice;

/* No schedule is shorter: seconds of the longest model, and of all if no rank were ever idle. */
static double least_s(const sketch *s)
{
    const p4_batch *batch = &s->batch;
    double work_s = 0, longest_s = 0;
    for (int64_t i = batch->count; i < s->models; i++) {
        const p4_batch_model *m = &batch->models[i];
        double left_s = fmax(0, m->began_s + m->planned_s - s->now_s);
        work_s += m->ranks * left_s;
        longest_s = fmax(longest_s, left_s);
    }
    for (int64_t i = 0; i < batch->count; i++) {
        const p4_batch_plan *plan = &batch->models[i].plan;
        double rank_s = INFINITY, fastest_s = INFINITY;
        for (int w = 0; plan->known && w < plan->widths; w++) {
            rank_s = fmin(rank_s, plan->seconds[w] * fmin(plan->least << w, batch->ranks));
            fastest_s = fmin(fastest_s, plan->seconds[w]);
        }
        work_s += plan->known ? rank_s : 0;
        longest_s = fmax(longest_s, plan->known ? fastest_s : 0);
    }
    return fmax(longest_s, work_s / batch->ranks);
}

static void draw_factors(choice *c)
{
    for (int copy = 0; copy < COPIES; copy++) {
        p4_rng rng = {.seed = SEED, .stream = (uint64_t)copy};
        double *factor = c->factor + copy * c->s.models, spread = SPREAD * copy / (COPIES - 1);
        for (int64_t i = 0; i < c->s.models; i++) {
            factor[i] = exp(spread * p4_rng_normal(&rng));
        }
    }
}

/* Whether the order that the sketch has now is better than the best so far, which it then is. */
static bool accept(choice *c)
{
    double plan_s = 0, sum_s = 0, most_s = (1 - GAIN) * c->sum_s;
    for (int copy = 0; copy < COPIES; copy++) {
        if (c->s.looked >= P4_BATCH_LOOKS) {
            return false;
        }
        sum_s += simulate(&c->s, c->factor + copy * c->s.models);
        plan_s = copy == 0 ? sum_s : plan_s;
        if (plan_s > c->plan_s * (1 + ROUNDING) || sum_s > most_s) {
            return false;
        }
    }
    c->plan_s = plan_s;
    c->sum_s = sum_s;
    return true;
}

/* Models of one plan: that they change places means nothing, whatever the copies say. */
static bool are_alike(const p4_batch_model *a, const p4_batch_model *b)
{
    return a->plan.known == b->plan.known && a->plan.least == b->plan.least &&
           a->plan.widths == b->plan.widths && a->plan.seconds[0] == b->plan.seconds[0] &&
           a->given->ranks == b->given->ranks && a->given->max_ranks == b->given->max_ranks;
}

static void swap(int64_t *a, int64_t *b)
{
    int64_t kept = *a;
    *a = *b;
    *b = kept;
}

/* One change for the better; the last models, which fill the gaps, are tried first. */
static bool improve(choice *c)
{
    const p4_batch *batch = &c->s.batch;
    for (int64_t i = c->movable - 2; i >= 0; i--) {
        for (int64_t j = c->movable - 1; j > i && c->s.looked < P4_BATCH_LOOKS; j--) {
            int64_t *a = &batch->order[i], *b = &batch->order[j];
            if (are_alike(&batch->models[*a], &batch->models[*b])) {
                continue;
            }
            swap(a, b);
            if (accept(c)) {
                return true;
            }
            swap(a, b);
        }
    }
    return false;
}

static void search(choice *c)
{
    c->plan_s = simulate(&c->s, NULL);
    if (c->plan_s * (1 - GAIN) <= least_s(&c->s)) {
        return;
    }
    draw_factors(c);
    c->sum_s = INFINITY;
    for (bool better = accept(c); better;) {
        better = improve(c);
    }
}

p4_rc p4_batch_choose_order(p4_batch *batch, double now_s, int64_t *looked)
{
    choice c = {.movable = 0};
    if (open_sketch(&c.s, batch, now_s) != P4_OK) {
        return P4_E_SYSTEM;
    }
    c.factor = p4_alloc((size_t)c.s.models * COPIES, sizeof *c.factor);
    if (c.factor == NULL) {
        close_sketch(&c.s);
        return P4_E_SYSTEM;
    }
    while (c.movable < c.s.batch.count && !c.s.batch.models[c.movable].breaks_off) {
        c.movable++;
    }
    search(&c);
    for (int64_t i = 0, at = 0; i < batch->count; i++) {
        if (batch->models[batch->order[i]].state == P4_STATE_WAITING) {
            batch->order[i] = c.s.index[c.s.batch.order[at++]];
        }
    }
    if (looked != NULL) {
        *looked = c.s.looked;
    }
    free(c.factor);
    close_sketch(&c.s);
    return P4_OK;
}

p4_rc p4_batch_choose_again(p4_batch *batch, int idle, double now_s, bool *chosen)
{
    int free = batch->ranks;
    for (int i = 0; i < batch->running_count; i++) {
        free -= batch->running[i]->ranks;
    }
    int64_t waiting = batch->counts[P4_STATE_WAITING];
    *chosen = waiting > 1 && waiting <= REORDERED && free == idle;
    return *chosen ? p4_batch_choose_order(batch, now_s, NULL) : P4_OK;
}
