/* schedule.c - which model starts next, on which ranks.
 *
 * The first that waits in the batch's order (order.c), on as few ranks as it fits. More, by powers of two,
 * only while fewer models wait than ranks are idle, and while the plan says that each doubling saves a
 * quarter of the time at least. A model that needs more ranks than are idle is not overtaken for ever: others
 * start beside it only if they are through before it could start, or use ranks that it leaves (backfilling,
 * as batch systems do it). */
#include <math.h>

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

void p4_batch_begin(p4_batch *batch, p4_batch_model *model, int ranks, double now_s)
{
    int i = batch->running_count++;
    model->ranks = ranks;
    model->began_s = now_s;
    model->planned_s = planned_s(model, ranks);
    for (; i > 0 &&
           batch->running[i - 1]->began_s + batch->running[i - 1]->planned_s > now_s + model->planned_s;
         i--) {
        batch->running[i] = batch->running[i - 1];
    }
    batch->running[i] = model;
    p4_batch_set_state(batch, model, P4_STATE_RUNNING);
    while (batch->begun < batch->count &&
           batch->models[batch->order[batch->begun]].state != P4_STATE_WAITING) {
        batch->begun++;
    }
}

void p4_batch_end(p4_batch *batch, p4_batch_model *model, p4_batch_state state)
{
    int kept = 0;
    for (int i = 0; i < batch->running_count; i++) {
        if (batch->running[i] != model) {
            batch->running[kept++] = batch->running[i];
        }
    }
    batch->running_count = kept;
    p4_batch_set_state(batch, model, state);
}

/* When enough ranks will be free for the first waiting model, and how many it leaves then. */
typedef struct shadow {
    double at_s;
    int spare, looked;
} shadow;

static shadow find_shadow(const p4_batch *batch, int needs, int idle, double now_s)
{
    shadow s = {.at_s = now_s};
    for (; idle < needs && s.looked < batch->running_count; s.looked++) {
        const p4_batch_model *m = batch->running[s.looked];
        idle += m->ranks;
        s.at_s = fmax(now_s, m->began_s + m->planned_s);
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
    p4_batch_start start = {.model = -1};
    for (int64_t i = batch->begun; i < batch->count && idle > 0; i++) {
        const p4_batch_model *m = &batch->models[batch->order[i]];
        start.looked++;
        if (m->state != P4_STATE_WAITING) {
            continue;
        }
        int least = least_ranks(batch, m), ranks = widen(m, least, share);
        if (first == NULL && least > idle) {
            first = m;
            s = find_shadow(batch, least, idle, now_s);
            start.looked += s.looked;
            continue;
        }
        bool beside = first == NULL || now_s + planned_s(m, least) <= s.at_s || least <= s.spare;
        if (least <= idle && beside) {
            start.model = batch->order[i];
            start.ranks = first == NULL ? ranks : least;
            break;
        }
    }
    return start;
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
