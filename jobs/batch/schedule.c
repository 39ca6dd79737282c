/* schedule.c - which model starts next, on which ranks.
 *
 * Longest first, on as few ranks as it fits. More, by powers of two, only while fewer models wait than ranks
 * are idle, and while the plan says that each doubling saves a quarter of the time at least. A model that
 * needs more ranks than are idle is not overtaken for ever: others start beside it only if they are through
 * before it could start, or use ranks that it leaves (backfilling, as batch systems do it). */
#include <math.h>
#include <stdlib.h>

#include "jobs/batch/batch.h"

static const double WORTH = 0.75; /* of the time: what twice the ranks must come below */

int p4_batch_width(const p4_batch_plan *plan, int ranks)
{
    int width = 0;
    while (width + 1 < plan->widths && plan->least << (width + 1) <= ranks) {
        width++;
    }
    return width;
}

static double planned_s(const p4_batch_model *model, int ranks)
{
    return model->plan.known ? model->plan.seconds[p4_batch_width(&model->plan, ranks)] : 0;
}

/* The fewest ranks that the model may start on. */
static int least_ranks(const p4_batch *batch, const p4_batch_model *model)
{
    int least = model->given->ranks > 0 ? model->given->ranks : model->plan.known ? model->plan.least : 1;
    return least < batch->ranks ? least : batch->ranks;
}

/* The ranks that it gets if its share of the idle ones is `share`. */
static int widen(const p4_batch_model *model, int least, int share)
{
    const p4_batch_plan *plan = &model->plan;
    int most =
        model->given->max_ranks > 0 && model->given->max_ranks < share ? model->given->max_ranks : share;
    int ranks = least;
    if (model->given->ranks > 0 || !plan->known) {
        return ranks;
    }
    for (int i = 1; i < plan->widths && plan->least << i <= most; i++) {
        if (plan->seconds[i] > WORTH * plan->seconds[i - 1]) {
            break;
        }
        ranks = plan->least << i;
    }
    return ranks > least ? ranks : least;
}

/* When enough ranks will be free for the first waiting model, and how many it leaves then. */
typedef struct shadow {
    double at_s;
    int spare;
} shadow;

static double end_of(const p4_batch_model *m, double now_s)
{
    return fmax(now_s, m->began_s + m->planned_s);
}

/* The running model that ends next after `after` in the order of ends and places; NULL: none. */
static const p4_batch_model *next_to_end(const p4_batch *batch, const p4_batch_model *after, double now_s)
{
    const p4_batch_model *next = NULL;
    for (int64_t i = 0; i < batch->count; i++) {
        const p4_batch_model *m = &batch->models[i];
        double end_s = end_of(m, now_s);
        bool later =
            after == NULL || end_s > end_of(after, now_s) || (end_s == end_of(after, now_s) && m > after);
        if (m->state == P4_STATE_RUNNING && later && (next == NULL || end_s < end_of(next, now_s))) {
            next = m;
        }
    }
    return next;
}

static shadow find_shadow(const p4_batch *batch, int needs, int idle, double now_s)
{
    shadow s = {.at_s = now_s};
    const p4_batch_model *m = NULL;
    while (idle < needs && (m = next_to_end(batch, m, now_s)) != NULL) {
        idle += m->ranks;
        s.at_s = end_of(m, now_s);
    }
    s.spare = idle > needs ? idle - needs : 0;
    return s;
}

p4_batch_start p4_batch_next(const p4_batch *batch, int idle, double now_s)
{
    int64_t waiting = batch->counts[P4_STATE_WAITING];
    int share = waiting > 0 ? (int)((idle + waiting - 1) / waiting) : 0;
    const p4_batch_model *first = NULL; /* waits for ranks */
    shadow s = {.at_s = 0};
    for (int64_t i = 0; i < batch->count && idle > 0; i++) {
        const p4_batch_model *m = &batch->models[batch->order[i]];
        if (m->state != P4_STATE_WAITING) {
            continue;
        }
        int least = least_ranks(batch, m), ranks = widen(m, least, share);
        if (first == NULL && least > idle) {
            first = m;
            s = find_shadow(batch, least, idle, now_s);
            continue;
        }
        bool beside = first == NULL || now_s + planned_s(m, least) <= s.at_s || least <= s.spare;
        ranks = first == NULL ? ranks : least;
        if (least <= idle && beside) {
            return (p4_batch_start){.model = batch->order[i], .ranks = ranks};
        }
    }
    return (p4_batch_start){.model = -1};
}

/* Idle ranks of a node that its memory has room for. */
static int usable_ranks(const p4_batch *batch, int node, double rank_bytes)
{
    const p4_batch_node *n = &batch->node[node];
    int idle = 0;
    for (int r = 0; r < batch->ranks; r++) {
        idle += batch->rank[r].node == node && batch->rank[r].model < 0;
    }
    double room = rank_bytes > 0 ? (n->room_bytes - n->used_bytes) / rank_bytes : idle;
    /* A node that is not in use takes what it is given: the run's own check decides, with its advice. */
    return n->room_bytes == 0 || n->used_bytes == 0 || room >= idle ? idle : room > 0 ? (int)room : 0;
}

bool p4_batch_pick_ranks(const p4_batch *batch, int count, double rank_bytes, int *at)
{
    int taken = 0;
    for (int n = 0; n < batch->nodes; n++) {
        batch->node[n].picked = false;
    }
    while (taken < count) {
        int best = -1, best_idle = 0;
        for (int n = 0; n < batch->nodes; n++) {
            int idle = batch->node[n].picked ? 0 : usable_ranks(batch, n, rank_bytes);
            bool fits = idle >= count - taken, best_fits = best_idle >= count - taken;
            /* the tightest node that holds all that are missing, else the largest */
            bool better = fits ? !best_fits || idle < best_idle : !best_fits && idle > best_idle;
            if (idle > 0 && better) {
                best = n;
                best_idle = idle;
            }
        }
        if (best < 0) {
            break;
        }
        batch->node[best].picked = true;
        for (int r = 0; r < batch->ranks && best_idle > 0 && taken < count; r++) {
            if (batch->rank[r].node == best && batch->rank[r].model < 0) {
                at[taken++] = r;
                best_idle--;
            }
        }
    }
    for (int i = 1; i < taken; i++) { /* few: sorted by insertion */
        for (int j = i; j > 0 && at[j - 1] > at[j]; j--) {
            int swap = at[j];
            at[j] = at[j - 1];
            at[j - 1] = swap;
        }
    }
    return taken == count;
}

/* Runs the schedule without the work. */
static void simulate(p4_batch *sketch, double *seconds)
{
    double now_s = 0;
    int idle = sketch->ranks;
    for (;;) {
        p4_batch_start start;
        while ((start = p4_batch_next(sketch, idle, now_s)).model >= 0) {
            p4_batch_model *m = &sketch->models[start.model];
            m->ranks = start.ranks;
            m->began_s = now_s;
            m->planned_s = planned_s(m, start.ranks);
            idle -= start.ranks;
            p4_batch_set_state(sketch, m, P4_STATE_RUNNING);
        }
        p4_batch_model *first = NULL;
        for (int64_t i = 0; i < sketch->count; i++) {
            p4_batch_model *m = &sketch->models[i];
            bool earlier = first == NULL || m->began_s + m->planned_s < first->began_s + first->planned_s;
            first = m->state == P4_STATE_RUNNING && earlier ? m : first;
        }
        if (first == NULL) {
            break;
        }
        now_s = first->began_s + first->planned_s;
        idle += first->ranks;
        p4_batch_set_state(sketch, first, P4_STATE_DONE);
    }
    *seconds = now_s;
}

p4_rc p4_batch_forecast(const p4_batch *batch, double *seconds)
{
    p4_batch sketch = *batch;
    sketch.models = p4_alloc((size_t)batch->count, sizeof *sketch.models);
    if (sketch.models == NULL) {
        return P4_E_SYSTEM;
    }
    for (int64_t i = 0; i < batch->count; i++) {
        sketch.models[i] = batch->models[i];
    }
    simulate(&sketch, seconds);
    free(sketch.models);
    return P4_OK;
}
