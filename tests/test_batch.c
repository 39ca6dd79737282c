/* The schedule of a batch: longest first, no rank idle that a model could use, no model overtaken for ever,
 * nodes with room; and which events of a journal count. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "check.h"
#include "io/batch/outcome.h"
#include "jobs/batch/batch.h"

#define HOLDS(ok) EXPECT(ok, "expected to hold")

enum { MOST = 64 };

/* A batch of models with one number of ranks each, of planned seconds; ratio: of the time on twice the ranks.
 */
typedef struct world {
    p4_batch batch;
    p4_queue_entry given[MOST];
    p4_batch_model models[MOST];
    int64_t order[MOST];
    p4_batch_rank rank[MOST];
    p4_batch_node node[MOST];
} world;

static void make_world(world *w, int ranks, int ranks_per_node)
{
    *w = (world){.batch = {.ranks = ranks, .nodes = ranks / ranks_per_node}};
    w->batch.models = w->models;
    w->batch.order = w->order;
    w->batch.rank = w->rank;
    w->batch.node = w->node;
    for (int r = 0; r < ranks; r++) {
        w->rank[r] = (p4_batch_rank){.node = r / ranks_per_node, .model = -1};
    }
}

/* In the order of their lengths, which the caller keeps. */
static void add_model(world *w, int least, double seconds, double ratio)
{
    int64_t i = w->batch.count++;
    p4_batch_model *m = &w->models[i];
    m->given = &w->given[i];
    m->plan = (p4_batch_plan){.known = true, .least = least};
    for (int ranks = least; ranks <= w->batch.ranks; ranks *= 2) {
        m->plan.seconds[m->plan.widths++] = seconds;
        seconds *= ratio;
    }
    w->order[i] = i;
    w->batch.counts[P4_STATE_WAITING]++;
}

static int64_t start(world *w, int *idle, double now_s)
{
    p4_batch_start next = p4_batch_next(&w->batch, *idle, now_s);
    if (next.model >= 0) {
        p4_batch_model *m = &w->models[next.model];
        m->ranks = next.ranks;
        m->began_s = now_s;
        m->planned_s = m->plan.seconds[p4_batch_width(&m->plan, next.ranks)];
        *idle -= next.ranks;
        p4_batch_set_state(&w->batch, m, P4_STATE_RUNNING);
    }
    return next.model;
}

static void longest_first_and_no_rank_idle(void)
{
    static world w;
    int idle = 8;
    make_world(&w, 8, 4);
    for (int i = 0; i < 3; i++) {
        add_model(&w, 1, 100 - 10 * i, 0.5);
    }
    /* Three models on eight ranks: the longest gets most, and all ranks work. */
    HOLDS(start(&w, &idle, 0) == 0 && w.models[0].ranks == 2);
    HOLDS(start(&w, &idle, 0) == 1 && w.models[1].ranks == 2);
    HOLDS(start(&w, &idle, 0) == 2 && w.models[2].ranks == 4);
    HOLDS(idle == 0 && start(&w, &idle, 0) == -1);
}

static void wider_only_where_it_helps(void)
{
    static world w;
    int idle = 8;
    make_world(&w, 8, 8);
    add_model(&w, 1, 100, 0.9);
    add_model(&w, 1, 50, 0.6);
    HOLDS(start(&w, &idle, 0) == 0 && w.models[0].ranks == 1); /* a tenth is not worth twice the ranks */
    w.given[1].max_ranks = 2;
    HOLDS(start(&w, &idle, 0) == 1 && w.models[1].ranks == 2);
    make_world(&w, 8, 8);
    add_model(&w, 2, 100, 0.5);
    w.given[0].ranks = 3; /* exactly */
    idle = 8;
    HOLDS(start(&w, &idle, 0) == 0 && w.models[0].ranks == 3);
}

static void large_ones_are_not_starved(void)
{
    static world w;
    int idle = 4;
    make_world(&w, 4, 4);
    add_model(&w, 2, 100, 1);
    add_model(&w, 4, 90, 1); /* needs all ranks */
    add_model(&w, 1, 60, 1); /* through before the first ends */
    add_model(&w, 1, 120, 1);
    HOLDS(start(&w, &idle, 0) == 0);
    HOLDS(start(&w, &idle, 0) == 2);  /* beside it */
    HOLDS(start(&w, &idle, 0) == -1); /* the other would still run when all ranks could be free */
    p4_batch_set_state(&w.batch, &w.models[2], P4_STATE_DONE);
    idle++;
    HOLDS(start(&w, &idle, 60) == -1);
    p4_batch_set_state(&w.batch, &w.models[0], P4_STATE_DONE);
    idle += 2;
    HOLDS(idle == 4 && start(&w, &idle, 100) == 1 && w.models[1].ranks == 4);
}

static void nodes_with_room(void)
{
    static world w;
    int at[MOST];
    make_world(&w, 8, 4);
    w.rank[4].model = 0; /* node 1 has three idle ranks */
    HOLDS(p4_batch_pick_ranks(&w.batch, 3, 0, at) && at[0] == 5 &&
          at[2] == 7); /* the tightest that holds them */
    HOLDS(p4_batch_pick_ranks(&w.batch, 4, 0, at) && at[0] == 0 && at[3] == 3);
    HOLDS(p4_batch_pick_ranks(&w.batch, 7, 0, at) && at[0] == 0 && at[6] == 7);
    HOLDS(!p4_batch_pick_ranks(&w.batch, 8, 0, at));
    w.node[1] = (p4_batch_node){.room_bytes = 100, .used_bytes = 50};
    w.node[0].room_bytes = 100;
    HOLDS(p4_batch_pick_ranks(&w.batch, 1, 50, at) && at[0] == 5);
    HOLDS(p4_batch_pick_ranks(&w.batch, 1, 60, at) && at[0] == 0); /* node 1 has no room for it */
    HOLDS(p4_batch_pick_ranks(&w.batch, 4, 60, at)); /* a node that is free: the run checks it, with advice */
    HOLDS(!p4_batch_pick_ranks(&w.batch, 5, 60, at));
}

static void forecasts(void)
{
    static world w;
    double seconds = 0;
    make_world(&w, 2, 2);
    for (int i = 0; i < 5; i++) {
        add_model(&w, 1, 10, 1);
    }
    EXPECT_OK(p4_batch_forecast(&w.batch, &seconds));
    EXPECT_NEAR(seconds, 30, 1e-9);
    HOLDS(w.models[0].state == P4_STATE_WAITING);
}

/* ---- the journal ---- */

static void append(p4_journal *journal, const char *name, p4_batch_event event, int64_t attempt)
{
    p4_batch_record r;
    p4_batch_record_init(&r);
    r.name = p4_strdup(name);
    r.event = event;
    r.attempt = attempt;
    EXPECT_OK(p4_journal_append(journal, &r));
    p4_batch_record_free(&r);
}

static p4_batch_event event_of(const p4_journal_state *state, const char *name)
{
    const p4_batch_record *found = p4_journal_find(state, name);
    return found != NULL ? found->event : P4_BATCH_EVENTS;
}

static void newest_attempts_count(void)
{
    char folder[] = "/tmp/p4_batch_XXXXXX", *task = NULL, *path = NULL;
    p4_journal *journal, *second;
    p4_journal_state *state;
    HOLDS(mkdtemp(folder) != NULL);
    task = p4_format("%s/task-3", folder);
    EXPECT_OK(p4_journal_open(&journal, folder));
    HOLDS(p4_journal_open(&second, folder) == P4_E_INPUT &&
          strstr(p4_last_error(), "state of a batch") != NULL);
    p4_error_clear();
    append(journal, "a", P4_BATCH_STARTED, 1);
    append(journal, "a", P4_BATCH_STARTED, 2);
    append(journal, "a", P4_BATCH_DONE, 2);
    append(journal, "a", P4_BATCH_FAILED, 1); /* stale */
    append(journal, "a", P4_BATCH_FAILED, 2); /* a second end */
    append(journal, "b", P4_BATCH_STARTED, 1);
    p4_journal_close(journal);
    EXPECT_OK(p4_journal_open(&journal, task));
    append(journal, "b", P4_BATCH_STOPPED, 2);
    for (int i = 0; i < 1200; i++) { /* the table of names grows */
        char name[32];
        snprintf(name, sizeof name, "model %d", i % 600);
        append(journal, name, i < 600 ? P4_BATCH_STARTED : P4_BATCH_DONE, 1);
    }
    p4_journal_close(journal);
    EXPECT_OK(p4_journal_read(&state, folder));
    HOLDS(event_of(state, "a") == P4_BATCH_DONE && event_of(state, "b") == P4_BATCH_STOPPED);
    HOLDS(event_of(state, "model 0") == P4_BATCH_DONE && event_of(state, "model 599") == P4_BATCH_DONE);
    HOLDS(p4_journal_find(state, "c") == NULL);
    p4_journal_state_free(state);
    for (int i = 0; i < 2; i++) {
        path = p4_format("%s/" P4_JOURNAL_FILE, i == 0 ? task : folder);
        HOLDS(unlink(path) == 0 && rmdir(i == 0 ? task : folder) == 0);
        free(path);
    }
    free(task);
}

/* ---- verdicts ---- */

static void expect_reason(double degradation_ratio, bool flow_failed, const char *wanted)
{
    char text[P4_VERDICT_BYTES];
    EXPECT(strcmp(p4_outcome_explain_verdict(text, degradation_ratio, 0.1, "", flow_failed), wanted) == 0,
           "found \"%s\", expected \"%s\"", text, wanted);
}

static void verdicts_say_why(void)
{
    expect_reason(0.552, false, "perplexity rose by 55.2 %, a rise of 10.0 % is allowed");
    expect_reason(1e9, false, "perplexity rose by 1e+11 %, a rise of 10.0 % is allowed");
    expect_reason(NAN, false, "perplexity is not finite");
    expect_reason(INFINITY, false, "perplexity is not finite");
    expect_reason(0.05, true, "the gradient-flow test failed");
    expect_reason(NAN, true, "the gradient-flow test failed"); /* no perplexity was measured */
    expect_reason(0.2, true,
                  "perplexity rose by 20.0 %, a rise of 10.0 % is allowed; the gradient-flow test failed");
}

int main(void)
{
    verdicts_say_why();
    longest_first_and_no_rank_idle();
    wider_only_where_it_helps();
    large_ones_are_not_starved();
    nodes_with_room();
    forecasts();
    newest_attempts_count();
    return TEST_END();
}
