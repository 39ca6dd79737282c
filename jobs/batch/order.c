/* order.c - the schedule without the work. */
#include <stdlib.h>

#include "jobs/batch/batch.h"

/* The waiting models alone, in their order. */
typedef struct sketch {
    p4_batch batch;
    int64_t *index; /* [count]: where the model is in the batch */
    double *end_s;  /* [count]: of the models that have begun */
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

static p4_rc open_sketch(sketch *s, const p4_batch *batch)
{
    size_t count = (size_t)batch->counts[P4_STATE_WAITING];
    *s = (sketch){.batch = {.ranks = batch->ranks}};
    s->batch.models = p4_alloc(count, sizeof *s->batch.models);
    s->batch.order = p4_alloc(count, sizeof *s->batch.order);
    s->batch.running = p4_alloc((size_t)batch->ranks, sizeof *s->batch.running);
    s->index = p4_alloc(count, sizeof *s->index);
    s->end_s = p4_alloc(count, sizeof *s->end_s);
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
    return P4_OK;
}

/* Runs the schedule without the work: seconds to its end. factor [count]: of the planned seconds, which a
 * model takes; NULL: 1. What starts is decided by the plan, as the coordinator does it. */
static double simulate(sketch *s, const double *factor)
{
    p4_batch *batch = &s->batch;
    double now_s = 0;
    int idle = batch->ranks;
    batch->begun = 0;
    for (int i = 0; i < P4_STATES; i++) {
        batch->counts[i] = i == P4_STATE_WAITING ? batch->count : 0;
    }
    for (int64_t i = 0; i < batch->count; i++) {
        batch->models[i].state = P4_STATE_WAITING;
    }
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
            return now_s;
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

p4_rc p4_batch_forecast(const p4_batch *batch, double *seconds)
{
    sketch s;
    if (open_sketch(&s, batch) != P4_OK) {
        return P4_E_SYSTEM;
    }
    *seconds = simulate(&s, NULL);
    close_sketch(&s);
    return P4_OK;
}
