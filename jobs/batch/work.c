#include "jobs/batch/work.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/batch/models.h"
#include "io/json/config.h"
#include "io/out/report.h"
#include "jobs/batch/messages.h"
#include "jobs/run.h"
#include "jobs/settings.h"
#include "jobs/train/compute.h"
#include "src/leaf/limits.h"
#include "src/leaf/log_sink.h"
#include "src/leaf/stop.h"
#include "src/leaf/thread.h"

static const double LISTEN_S = 0.25, PROGRESS_S = 0.5;

/* The thread that listens hands orders to the main thread, and tells it to stop while it computes. */
typedef struct worker {
    p4_machine *machine;
    p4_control *control;
    const p4_batch_options *options;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    p4_order *order; /* heap; NULL: none has come */
    p4_rc failure;   /* of the connection */
    bool ending;     /* the main thread has ended */
    p4_config *config;
    int32_t model; /* that this rank works on */
    double told_s; /* when progress was sent last */
} worker;

/* ---- listening ---- */

static void stop_by_order(const p4_order *order)
{
    static const char *const reasons[] = {"SIGTERM", "SIGUSR1", "SIGINT"}; /* a request keeps its text */
    const char *reason = "the file stop";
    for (size_t i = 0; i < sizeof reasons / sizeof reasons[0]; i++) {
        reason = strcmp(order->reason, reasons[i]) == 0 ? reasons[i] : reason;
    }
    p4_stop_request(reason);
}

static p4_rc listen_once(worker *w, bool *told)
{
    p4_rc rc = P4_OK;
    void *data = NULL;
    int64_t bytes;
    const char *signal_name = p4_stop_signal();
    if (signal_name != NULL && !*told) {
        p4_answer answer = {.kind = P4_ANSWER_STOP};
        snprintf(answer.reason, sizeof answer.reason, "%s", signal_name);
        TRY(p4_control_send(w->control, &answer, sizeof answer));
        *told = true;
    }
    TRY(p4_control_receive(w->control, LISTEN_S, &data, &bytes));
    p4_order *order = data;
    if (order != NULL && order->kind == P4_ORDER_STOP) {
        *told = true;
        stop_by_order(order);
        free(order);
    } else if (order != NULL) {
        pthread_mutex_lock(&w->lock);
        w->order = order; /* the one before it has been taken: the coordinator waits for idle ranks */
        pthread_cond_signal(&w->changed);
        pthread_mutex_unlock(&w->lock);
        return order->kind == P4_ORDER_END ? P4_STOPPED : P4_OK;
    }
done:
    return rc;
}

static void *listen(void *user)
{
    worker *w = user;
    p4_rc rc = P4_OK;
    bool told = false;
    while (rc == P4_OK) {
        rc = listen_once(w, &told);
    }
    if (rc != P4_STOPPED) {
        pthread_mutex_lock(&w->lock);
        w->failure = rc;
        pthread_cond_signal(&w->changed);
        pthread_mutex_unlock(&w->lock);
    }
    return NULL;
}

/* Sleeps until there is an order, which the caller frees. */
static p4_rc take_order(worker *w, p4_order **order)
{
    pthread_mutex_lock(&w->lock);
    while (w->order == NULL && w->failure == P4_OK) {
        pthread_cond_wait(&w->changed, &w->lock);
    }
    *order = w->order;
    w->order = NULL;
    p4_rc rc = *order != NULL ? P4_OK : w->failure;
    pthread_mutex_unlock(&w->lock);
    return rc == P4_OK ? rc
                       : p4_fail(rc, "rank %d: the connection to the coordinator on rank 0 has ended",
                                 w->machine->rank);
}

/* ---- a model ---- */

static void tell_progress(const p4_progress *progress, double left_s, void *user)
{
    worker *w = user;
    double now_s = p4_now_s();
    if (now_s - w->told_s < PROGRESS_S) {
        return;
    }
    w->told_s = now_s;
    p4_answer answer = {.kind = P4_ANSWER_PROGRESS,
                        .model = w->model,
                        .done = progress->done,
                        .total = progress->total,
                        .left_s = left_s};
    snprintf(answer.label, sizeof answer.label, "%s", progress->label);
    (void)p4_control_send(w->control, &answer, sizeof answer); /* the listener notices a lost connection */
}

static void take_results(p4_answer *answer, const p4_results *r)
{
    answer->judged = p4_results_verdict(r) != P4_VERDICT_NONE;
    answer->passed = r->quality.passed;
    if (answer->judged && !answer->passed) {
        char sets[P4_SETS_BYTES] = "";
        if (p4_sets_verdict(&r->quality, r->sets, r->set_count) != P4_VERDICT_PASSED) {
            p4_sets_summary(sets, r->sets, r->set_count);
        }
        (void)p4_quality_explain_failure(answer->error, &r->quality, sets,
                                         r->gradient_flow.ran && !r->gradient_flow.passed);
    }
    memcpy(answer->ended, r->provenance.ended, sizeof answer->ended);
    answer->warnings = r->warning_count;
    answer->pre_perplexity = r->pre.perplexity;
    answer->perplexity = r->final.perplexity;
    answer->compression_ratio = r->metrics.compression_ratio;
    answer->compressed_mb = r->metrics.compressed_size_mb;
    answer->peak_memory_mb = r->metrics.peak_memory_mb;
}

/* The log of the group's first rank; appended to, as a model may be continued. */
static p4_rc open_log(FILE **log, const p4_order *order, const p4_group *group)
{
    p4_rc rc = P4_OK;
    *log = NULL;
    if (group->rank == 0) {
        *log = fopen(order->log_path, "ae");
        CHECK(*log != NULL, "%s: cannot be written: %s", order->log_path, strerror(errno));
        p4_log_set_stream(*log);
    }
done:
    return rc;
}

static p4_rc do_model(worker *w, p4_group *group, const p4_order *order, p4_answer *answer)
{
    p4_rc rc = P4_OK;
    FILE *log = NULL;
    const int32_t *ranks = (const void *)(order + 1);
    const char *text = (const char *)(ranks + order->count), *source = text + order->text_bytes + 1;
    p4_results results;
    p4_results_init(&results);
    TRY_ROOT(group, open_log(&log, order, group));
    p4_group_set_log(group, w->options->quiet ? P4_LOG_WARN : P4_LOG_INFO);
    TRY_ALL(group, p4_config_read_text(w->config, text, (size_t)order->text_bytes, source, order->composed,
                                       P4_RECIPE_QUALITY, w->options->overrides, w->options->override_count));
    memset(w->config->output_path, 0, sizeof w->config->output_path);
    snprintf(w->config->output_path, sizeof w->config->output_path, "%s", order->output_path);
    group->timeout_s = w->config->collective_timeout_s;
    if (order->kind == P4_ORDER_CHECK) {
        TRY(p4_run_check(group, w->config, false));
        goto done;
    }
    TRY_ROOT(group, p4_model_fingerprint(answer->model_print, w->config->model_path));
    p4_progress_observe(tell_progress, w);
    rc = p4_run_execute(group, w->config, false, true, NULL, NULL, &results);
    take_results(answer, &results);
    if (rc == P4_OK && group->rank == 0) {
        p4_report_table(log, &results, w->config);
    }
done:
    p4_progress_observe(NULL, NULL);
    if (rc != P4_OK && log != NULL) {
        fprintf(log, "phase4: %s%s\n", rc == P4_STOPPED ? "" : "error: ", p4_last_error());
    }
    p4_log_set_stream(NULL);
    if (log != NULL) {
        fclose(log);
    }
    p4_results_free(&results);
    return rc;
}

/* Has the failure left a rank of the group a GPU that its process can no longer use? A failure of another
 * kind (memory of the host or of the GPU, a file) is the model's alone. Collective. */
static bool has_lost_device(const worker *w, p4_group *group, p4_rc rc)
{
    double lost = 0;
    if (rc != P4_OK && group->state != NULL) { /* the code is one rank's: another may have lost its GPU */
        lost = !p4_compute_gpu_usable(w->machine);
        p4_group_max_f64(group, &lost, 1);
        p4_error_clear();
    }
    return lost > 0;
}

/* Collective over the ranks of the order. */
static p4_rc follow(worker *w, const p4_order *order)
{
    p4_group group = {0};
    p4_results unmeasured;
    p4_answer answer = {.kind = P4_ANSWER_ENDED, .model = order->model};
    const int32_t *ranks = (const void *)(order + 1);
    int *members = p4_alloc((size_t)order->count, sizeof *members);
    for (int i = 0; members != NULL && i < order->count; i++) {
        members[i] = ranks[i];
    }
    if (members == NULL) { /* the others wait for this rank: there is no way to tell them */
        fprintf(stderr, "phase4: rank %d: %s\n", w->machine->rank, p4_last_error());
        abort();
    }
    w->model = order->model;
    p4_results_init(&unmeasured);
    take_results(&answer, &unmeasured);
    p4_error_clear();
    p4_rc rc = p4_group_open_ranks(&group, w->machine, members, order->count, order->tag, 600);
    answer.leads = members[0] == w->machine->rank;
    rc = rc == P4_OK ? do_model(w, &group, order, &answer) : rc;
    answer.rc = rc;
    if (rc != P4_OK) {
        snprintf(answer.error, sizeof answer.error, "%s", p4_last_error());
    }
    p4_error_clear();
    answer.lost_device = has_lost_device(w, &group, rc);
    p4_group_close(&group);
    answer.held_memory_mb = p4_memory_anonymous() / 1048576.0;
    free(members);
    p4_error_clear();
    return p4_control_send(w->control, &answer, sizeof answer);
}

static p4_rc take_orders(worker *w)
{
    p4_rc rc = P4_OK;
    p4_order *order = NULL;
    int64_t free_bytes = p4_memory_free("");
    p4_answer ready = {.kind = P4_ANSWER_READY};
    snprintf(ready.host, sizeof ready.host, "%s", w->machine->host);
    ready.free_bytes = free_bytes == INT64_MAX ? 0 : (double)free_bytes;
    TRY(p4_control_send(w->control, &ready, sizeof ready));
    for (;;) {
        TRY(take_order(w, &order));
        if (order->kind == P4_ORDER_END) {
            break;
        }
        TRY(follow(w, order));
        free(order);
        order = NULL;
    }
done:
    free(order);
    return rc;
}

p4_rc p4_batch_work(p4_machine *machine, p4_control *control, const p4_batch_options *options)
{
    p4_rc rc = P4_OK;
    pthread_t thread;
    worker w = {.machine = machine, .control = control, .options = options};
    w.config = p4_alloc(1, sizeof *w.config);
    pthread_mutex_init(&w.lock, NULL);
    pthread_cond_init(&w.changed, NULL);
    TRY(w.config != NULL ? P4_OK : P4_E_SYSTEM);
    if (p4_thread_start(&thread, listen, &w) != 0) {
        rc = FAULT("the system has no thread for a rank of the batch");
        goto done;
    }
    rc = take_orders(&w);
    pthread_join(thread, NULL); /* it ends with the order END or the connection */
done:
    pthread_cond_destroy(&w.changed);
    pthread_mutex_destroy(&w.lock);
    free(w.config);
    return rc;
}
