#include "jobs/batch/coordinate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "io/file/files.h"
#include "io/out/outputs.h"
#include "jobs/batch/messages.h"
#include "jobs/batch/table.h"
#include "jobs/process.h"

enum { TAGS = 32768 };
static const double WAIT_S = 0.25;

typedef struct course {
    p4_batch *batch;
    p4_control *control;
    p4_batch_table table;
    char *stop_file;
    int32_t tag;
    int idle;
    bool told_to_stop, ended; /* ended: a model has, since the order was chosen */
} course;

/* The batch itself cannot go on: what runs is stopped, the first reason is kept. */
static void fail_batch(course *c, p4_rc rc)
{
    p4_batch *batch = c->batch;
    if (rc != P4_OK && batch->failure == P4_OK) {
        batch->failure = rc;
        snprintf(batch->failure_text, sizeof batch->failure_text, "%s", p4_last_error());
        batch->stopping = batch->stopping != NULL ? batch->stopping : "an error of the batch";
    }
    p4_error_clear();
}

/* ---- starting models ---- */

/* The order with its ranks and texts behind it; heap. */
static p4_order *make_order(course *c, const p4_batch_model *m, const int *ranks, int count, int64_t *bytes)
{
    char *log = p4_batch_log_path(c->batch, m);
    size_t text = strlen(m->given->text), source = strlen(m->given->source);
    *bytes = (int64_t)(sizeof(p4_order) + (size_t)count * sizeof(int32_t) + text + source + 2);
    p4_order *order = log != NULL ? p4_alloc((size_t)*bytes, 1) : NULL;
    if (order != NULL) {
        int32_t *at = (void *)(order + 1);
        char *texts = (char *)(at + count);
        order->kind = c->batch->options->check_only ? P4_ORDER_CHECK : P4_ORDER_RUN;
        order->model = (int32_t)(m - c->batch->models);
        order->count = count;
        order->tag = c->tag;
        order->text_bytes = (int32_t)text;
        order->composed = m->given->composed;
        snprintf(order->output_path, sizeof order->output_path, "%s", m->record.output_path);
        snprintf(order->log_path, sizeof order->log_path, "%s", log);
        for (int i = 0; i < count; i++) {
            at[i] = ranks[i];
        }
        memcpy(texts, m->given->text, text + 1);
        memcpy(texts + text + 1, m->given->source, source + 1);
    }
    c->tag = (c->tag + 1) % TAGS;
    free(log);
    return order;
}

static void occupy(course *c, p4_batch_model *m, int *ranks, int count)
{
    p4_batch *batch = c->batch;
    int width = p4_batch_width(&m->plan, count);
    free(m->at);
    m->at = ranks;
    m->busy = count;
    m->bytes = m->plan.known ? m->plan.rank_bytes[width] : 0;
    m->left_s = NAN;
    m->label[0] = '\0';
    m->done = m->total = 0;
    m->earlier = false;
    for (int i = 0; i < count; i++) {
        batch->rank[ranks[i]].model = (int)(m - batch->models);
        batch->node[batch->rank[ranks[i]].node].used_bytes += m->bytes;
    }
    c->idle -= count;
    p4_batch_begin(batch, m, count, p4_now_s());
}

/* Takes `ranks` over. The journal knows of the attempt before a rank does. */
static p4_rc start_model(course *c, p4_batch_model *m, int *ranks, int count)
{
    p4_rc rc = P4_OK;
    p4_batch *batch = c->batch;
    int64_t bytes = 0;
    p4_batch_record *r = &m->record;
    p4_order *order = make_order(c, m, ranks, count, &bytes);
    r->event = P4_BATCH_STARTED;
    r->attempt++;
    r->ranks = count;
    r->first_rank = ranks[0];
    r->status = r->warnings = 0;
    r->model[0] = '\0';
    (void)p4_utc_now(r->time);
    free(r->error);
    r->error = NULL;
    occupy(c, m, ranks, count);
    TRY(order != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(batch->journal != NULL ? p4_journal_append(batch->journal, r) : P4_OK);
    for (int i = 0; i < count; i++) {
        TRY(p4_control_post(c->control, ranks[i], order, bytes));
    }
    p4_batch_table_say(&c->table, "%s %s on %d rank%s from rank %d, attempt %lld",
                       batch->options->check_only ? "check" : "start", r->name, count, p4_plural(count),
                       ranks[0], (long long)r->attempt);
done:
    free(order);
    return rc;
}

/* Models took longer or shorter than planned: those that are left are put in order anew. */
static void choose_again(course *c)
{
    bool chosen = false;
    if (c->ended && c->batch->stopping == NULL) {
        fail_batch(c, p4_batch_choose_again(c->batch, c->idle, p4_now_s(), &chosen));
        c->ended = !chosen;
    }
}

static void hand_out(course *c)
{
    p4_batch *batch = c->batch;
    choose_again(c);
    while (batch->stopping == NULL && c->idle > 0) {
        p4_batch_start next = p4_batch_next(batch, c->idle, p4_now_s());
        if (next.model < 0) {
            return;
        }
        p4_batch_model *m = &batch->models[next.model];
        int *ranks = p4_alloc((size_t)next.ranks, sizeof *ranks);
        double bytes = m->plan.known ? m->plan.rank_bytes[p4_batch_width(&m->plan, next.ranks)] : 0;
        if (ranks == NULL) {
            fail_batch(c, P4_E_SYSTEM);
            return;
        }
        if (!p4_batch_pick_ranks(batch, next.ranks, bytes, ranks)) {
            free(ranks);
            return; /* memory of the nodes: a model that ends makes room */
        }
        fail_batch(c, start_model(c, m, ranks, next.ranks));
    }
}

/* ---- what ranks say ---- */

static void take_ending(p4_batch_record *r, const p4_answer *a, double seconds)
{
    r->event = a->rc == P4_STOPPED       ? P4_BATCH_STOPPED
               : a->rc != P4_OK          ? P4_BATCH_FAILED
               : a->judged && !a->passed ? P4_BATCH_VERDICT
                                         : P4_BATCH_DONE;
    r->status = p4_process_status((p4_rc)a->rc);
    (void)p4_utc_now(r->time);
    r->ended[0] = '\0';
    if (r->event == P4_BATCH_DONE || r->event == P4_BATCH_VERDICT) {
        memcpy(r->ended, a->ended, sizeof r->ended);
    }
    r->seconds = seconds;
    r->warnings = a->warnings;
    memcpy(r->model, a->model_print, sizeof r->model);
    r->pre_perplexity = a->pre_perplexity;
    r->perplexity = a->perplexity;
    r->compression_ratio = a->compression_ratio;
    r->compressed_mb = a->compressed_mb;
    r->peak_memory_mb = a->peak_memory_mb;
    r->held_memory_mb = a->held_memory_mb;
}

static p4_batch_state state_of(const p4_batch_record *r)
{
    switch (r->event) {
    case P4_BATCH_DONE:
        return P4_STATE_DONE;
    case P4_BATCH_VERDICT:
        return P4_STATE_VERDICT;
    case P4_BATCH_STOPPED:
        return P4_STATE_STOPPED;
    default:
        return P4_STATE_FAILED;
    }
}

static void say_ending(course *c, const p4_batch_model *m)
{
    char took[32], perplexity[P4_NUMBER_BYTES], first[512];
    const p4_batch_record *r = &m->record;
    p4_batch_format_seconds(took, r->seconds);
    snprintf(first, sizeof first, "%.*s", (int)strcspn(r->error != NULL ? r->error : "", "\n"),
             r->error != NULL ? r->error : "");
    if (m->state == P4_STATE_DONE && c->batch->options->check_only) {
        p4_batch_table_say(&c->table, "no error in %s", r->name);
    } else if (m->state == P4_STATE_FAILED || m->state == P4_STATE_STOPPED) {
        p4_batch_table_say(&c->table, "%s %s after %s: %s", p4_batch_state_names[m->state], r->name, took,
                           first);
    } else {
        const bool passed = m->state != P4_STATE_VERDICT;
        p4_batch_table_say(&c->table, "done %s in %s: perplexity %s, %.2f times smaller%s%s", r->name, took,
                           isnan(r->perplexity) ? "not measured"
                                                : p4_format_number(perplexity, r->perplexity, 2),
                           r->compression_ratio, passed ? "" : "; verdict failed: ", passed ? "" : first);
    }
}

/* Models whose configuration or plan is an error: no rank will work on them. */
static void say_unstarted(course *c)
{
    for (int64_t i = 0; i < c->batch->count; i++) {
        const p4_batch_model *m = &c->batch->models[i];
        if (m->state == P4_STATE_FAILED && !m->earlier) {
            p4_batch_table_say(&c->table, "failed %s before its start: %.*s", m->record.name,
                               (int)strcspn(m->record.error, "\n"), m->record.error);
        }
    }
}

/* The model's work has ended on its first rank, which knows the results. */
static p4_rc end_model(course *c, p4_batch_model *m, const p4_answer *a)
{
    p4_rc rc = P4_OK;
    p4_batch *batch = c->batch;
    take_ending(&m->record, a, p4_now_s() - m->began_s);
    free(m->record.error);
    m->record.error = p4_strdup(a->error);
    TRY(m->record.error != NULL ? P4_OK : P4_E_SYSTEM);
    p4_batch_end(batch, m, state_of(&m->record));
    if (a->lost_device) { /* the attempt has no end: the model starts again in the next process */
        return FAULT("%s: %s: after an error of a GPU the job must be started again", m->record.name,
                     a->error);
    }
    bool fails = m->state == P4_STATE_FAILED || (m->state == P4_STATE_VERDICT && batch->options->strict);
    batch->fails += fails;
    if (batch->options->max_fails > 0 && batch->fails >= batch->options->max_fails &&
        batch->stopping == NULL) {
        batch->stopping = "--max-fails";
    }
    TRY(batch->journal != NULL ? p4_journal_append(batch->journal, &m->record) : P4_OK);
    say_ending(c, m);
done:
    return rc;
}

static void free_rank(course *c, p4_batch_model *m, int rank)
{
    p4_batch *batch = c->batch;
    p4_batch_node *node = &batch->node[batch->rank[rank].node];
    batch->rank[rank].model = -1;
    m->busy--;
    c->idle++;
    node->used_bytes -= m->bytes;
    bool in_use = false;
    for (int r = 0; r < batch->ranks; r++) {
        in_use |= batch->rank[r].node == batch->rank[rank].node && batch->rank[r].model >= 0;
    }
    node->used_bytes = in_use ? node->used_bytes : 0; /* without what rounding leaves */
}

static void take_answer(course *c, int rank, const p4_answer *a)
{
    p4_batch *batch = c->batch;
    p4_batch_model *m = &batch->models[a->model];
    switch (a->kind) {
    case P4_ANSWER_PROGRESS:
        snprintf(m->label, sizeof m->label, "%s", a->label);
        m->done = a->done;
        m->total = a->total;
        m->left_s = a->left_s;
        break;
    case P4_ANSWER_ENDED:
        fail_batch(c, a->leads ? end_model(c, m, a) : P4_OK);
        c->ended = c->ended || a->leads;
        free_rank(c, m, rank);
        break;
    case P4_ANSWER_STOP:
        batch->stopping = strcmp(a->reason, "SIGUSR1") == 0  ? "SIGUSR1"
                          : strcmp(a->reason, "SIGINT") == 0 ? "SIGINT"
                                                             : "SIGTERM";
        break;
    case P4_ANSWER_READY: /* taken before */
        break;
    }
}

/* ---- the whole ---- */

/* Every rank says where it is. */
static p4_rc gather_ranks(course *c)
{
    p4_rc rc = P4_OK;
    p4_batch *batch = c->batch;
    char(*hosts)[64] = p4_alloc((size_t)batch->ranks, sizeof *hosts);
    TRY(hosts != NULL ? P4_OK : P4_E_SYSTEM);
    for (int heard = 0; heard < batch->ranks;) {
        int rank, node = 0;
        void *data = NULL;
        int64_t bytes;
        TRY(p4_control_collect(c->control, WAIT_S, &rank, &data, &bytes));
        const p4_answer *a = data;
        if (a != NULL && a->kind == P4_ANSWER_READY) {
            while (node < batch->nodes && strcmp(hosts[node], a->host) != 0) {
                node++;
            }
            memcpy(hosts[node], a->host, sizeof hosts[node]);
            batch->nodes += node == batch->nodes;
            batch->node[node].room_bytes = fmax(batch->node[node].room_bytes, a->free_bytes);
            batch->rank[rank] = (p4_batch_rank){.node = node, .model = -1};
            heard++;
        } else if (a != NULL) {
            take_answer(c, rank, a); /* a signal came early */
        }
        free(data);
    }
    c->idle = batch->ranks;
done:
    free(hosts);
    return rc;
}

/* What stops models is told once, to every rank: one that is idle remembers it. --max-fails lets them end. */
static void tell_to_stop(course *c)
{
    p4_batch *batch = c->batch;
    if (batch->stopping == NULL && p4_file_exists(c->stop_file)) {
        batch->stopping = "the file stop";
    }
    if (batch->stopping == NULL || c->told_to_stop || strcmp(batch->stopping, "--max-fails") == 0) {
        return;
    }
    c->told_to_stop = true;
    p4_batch_table_say(&c->table, "stopping: %s", batch->stopping);
    p4_order order = {.kind = P4_ORDER_STOP};
    snprintf(order.reason, sizeof order.reason, "%s", batch->stopping);
    for (int r = 0; r < batch->ranks; r++) {
        fail_batch(c, p4_control_post(c->control, r, &order, sizeof order));
    }
}

static p4_rc run_course(course *c)
{
    p4_rc rc = P4_OK;
    p4_batch *batch = c->batch;
    TRY(gather_ranks(c));
    for (;;) {
        int rank;
        void *data = NULL;
        int64_t bytes;
        tell_to_stop(c);
        hand_out(c);
        if (c->idle == batch->ranks && (batch->stopping != NULL || batch->counts[P4_STATE_WAITING] == 0)) {
            break;
        }
        TRY(p4_control_collect(c->control, WAIT_S, &rank, &data, &bytes));
        if (data != NULL) {
            take_answer(c, rank, data);
        }
        free(data);
        p4_batch_table_draw(&c->table, batch, false);
    }
done:
    return rc;
}

void *p4_batch_coordinate(void *user)
{
    const p4_coordinator *given = user;
    p4_batch *batch = given->batch;
    course c = {.batch = batch, .control = given->control};
    p4_order end = {.kind = P4_ORDER_END};
    p4_batch_table_open(&c.table, batch->options);
    say_unstarted(&c);
    c.stop_file = p4_format("%s/" P4_STOP_REQUEST_FILE, batch->own_directory);
    p4_rc rc = c.stop_file != NULL ? run_course(&c) : P4_E_SYSTEM;
    if (rc != P4_OK) { /* a rank or its connection is lost: the others may wait for it in MPI */
        p4_abort(given->all, "%s", p4_last_error());
    }
    for (int r = 0; r < batch->ranks; r++) {
        fail_batch(&c, p4_control_post(given->control, r, &end, sizeof end));
    }
    free(c.stop_file);
    return NULL;
}
