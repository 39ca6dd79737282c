#include "jobs/batch/launch.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "dist/launcher.h"
#include "io/file/atomic_file.h"
#include "io/file/files.h"
#include "io/out/outputs.h"
#include "jobs/batch/coordinate.h"
#include "jobs/batch/work.h"
#include "jobs/process.h"
#include "jobs/train/compute.h"
#include "src/leaf/stop.h"
#include "src/leaf/thread.h"

static const double TIMEOUT_S = 600;

static int say_error(p4_rc rc)
{
    p4_error_print();
    return p4_process_status(rc);
}

/* Where journal and results lie; a task of an array has journal and results of its own in there, since it may
 * run at the same time as others. */
static p4_rc set_directories(p4_batch *batch, const p4_batch_cli *cli)
{
    batch->directory = p4_batch_directory(cli->state, cli->options.queue_path);
    if (batch->directory != NULL) {
        batch->own_directory = cli->options.task > 0
                                   ? p4_format("%s/task-%lld", batch->directory, (long long)cli->options.task)
                                   : p4_strdup(batch->directory);
    }
    return batch->directory != NULL && batch->own_directory != NULL ? P4_OK : P4_E_SYSTEM;
}

/* ---- with MPI ---- */

typedef struct launch {
    const p4_batch_cli *cli;
    p4_batch_options options;
    p4_machine machine;
    p4_group all;
    p4_control *control;
    p4_batch batch; /* rank 0 */
} launch;

/* Rank 0. A check touches nothing of the state. */
static p4_rc take_state(launch *l)
{
    p4_rc rc = P4_OK;
    p4_batch *batch = &l->batch;
    char *logs = NULL, *stop = NULL;
    TRY(set_directories(batch, l->cli));
    logs = p4_format("%s/logs", batch->directory);
    stop = p4_format("%s/" P4_STOP_REQUEST_FILE, batch->own_directory);
    TRY(logs != NULL && stop != NULL ? P4_OK : P4_E_SYSTEM);
    CHECK(!p4_file_exists(stop), "%s: asks batches in this directory to stop; remove it to start one", stop);
    if (!l->options.check_only) {
        TRY(p4_journal_open(&batch->journal, batch->own_directory));
        TRY(p4_make_directories(logs));
    }
done:
    free(logs);
    free(stop);
    return rc;
}

static p4_rc prepare(launch *l)
{
    p4_rc rc = P4_OK;
    p4_batch *batch = &l->batch;
    batch->started_s = p4_now_s();
    batch->works = true;
    TRY(p4_batch_read_queue(batch, &l->options));
    TRY(take_state(l));
    batch->rank = p4_alloc((size_t)l->machine.ranks, sizeof *batch->rank);
    batch->node = p4_alloc((size_t)l->machine.ranks, sizeof *batch->node);
    batch->running = p4_alloc((size_t)l->machine.ranks, sizeof *batch->running);
    TRY(batch->rank != NULL && batch->node != NULL && batch->running != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(p4_batch_prepare(batch, &l->options, l->machine.ranks, l->machine.node_ranks, l->machine.cores));
    TRY(p4_batch_choose_order(batch, 0, NULL));
done:
    return rc;
}

/* All ranks work; on rank 0 a thread hands out. */
static p4_rc work(launch *l)
{
    p4_rc rc = P4_OK;
    pthread_t thread;
    p4_coordinator coordinator = {.batch = &l->batch, .control = l->control, .all = &l->all};
    const bool coordinates = l->machine.rank == 0;
    TRY_ROOT(&l->all, p4_thread_start(&thread, p4_batch_coordinate, &coordinator) == 0
                          ? P4_OK
                          : FAULT("the system has no thread for the coordinator of the batch"));
    rc = p4_batch_work(&l->machine, l->control, &l->options);
    if (rc != P4_OK) { /* other ranks may wait for this one in MPI */
        p4_abort(&l->all, "%s", p4_last_error());
    }
    if (coordinates) {
        pthread_join(thread, NULL);
    }
done:
    return rc;
}

static p4_rc open_ranks(launch *l)
{
    p4_rc rc = P4_OK;
    TRY(p4_machine_open(&l->machine));
    TRY(p4_group_open(&l->all, &l->machine, NULL, TIMEOUT_S));
    p4_group_set_log(&l->all, P4_LOG_WARN);
    TRY_ALL(&l->all, p4_compute_find_gpus(&l->machine));
    TRY(p4_control_open(&l->control, &l->machine));
done:
    return rc;
}

/* What rank 0 leaves and prints. The results of a batch that lost its directory are another's to write. */
static int report(launch *l)
{
    p4_batch *batch = &l->batch;
    double seconds = p4_now_s() - batch->started_s;
    if (batch->failure == P4_OK && !l->options.check_only) {
        batch->failure = p4_batch_write_results(batch, seconds);
        snprintf(batch->failure_text, sizeof batch->failure_text, "%s", p4_last_error());
    }
    p4_batch_print(batch, seconds);
    if (batch->failure != P4_OK) {
        p4_error_set(batch->failure_text);
        p4_error_print();
    }
    return p4_batch_status(batch);
}

int p4_batch_launch(const p4_batch_cli *cli)
{
    static launch l;
    p4_rc rc = P4_OK;
    double status = 0;
    l = (launch){.cli = cli, .options = cli->options};
    l.options.contents = !cli->options.check_only;
    TRY(open_ranks(&l));
    p4_stop_catch_signals(NULL); /* the coordinator's table says it */
    TRY_ROOT(&l.all, prepare(&l));
    TRY(work(&l));
    status = l.machine.rank == 0 ? report(&l) : 0;
    p4_group_max_f64(&l.all, &status, 1);
done:
    if (rc != P4_OK) {
        status = l.all.state == NULL || l.all.rank == 0 ? say_error(rc) : p4_process_status(rc);
    }
    p4_batch_free(&l.batch);
    signal(SIGTERM, SIG_IGN); /* srun --kill-on-bad-exit ends the other ranks once one has left */
    p4_control_close(l.control);
    p4_group_close(&l.all);
    p4_machine_close(&l.machine);
    return (int)status;
}

/* ---- without MPI ---- */

static void print_list(const p4_batch *batch, const char *which)
{
    bool all = strcmp(which, "all") == 0, open = strcmp(which, "open") == 0, first = true;
    for (int64_t i = 0; i < batch->count; i++) {
        p4_batch_state state = batch->models[i].state;
        if (all || state == (open ? P4_STATE_WAITING : P4_STATE_FAILED)) {
            printf("%s%lld", first ? "" : ",", (long long)i + 1);
            first = false;
        }
    }
    if (!first) {
        putchar('\n');
    }
}

int p4_batch_answer(const p4_batch_cli *cli)
{
    p4_rc rc = P4_OK;
    p4_batch batch = {.count = 0};
    double seconds = 0;
    int status = 0;
    int ranks = cli->options.ranks > 0 ? cli->options.ranks : 1, ranks_per_node = cli->options.ranks_per_node;
    if (p4_launched_rank() > 0) {
        return 0;
    }
    p4_log_setup(P4_LOG_WARN, true);
    TRY(set_directories(&batch, cli));
    TRY(p4_batch_prepare(&batch, &cli->options, ranks, ranks_per_node, 0));
    if (cli->action == P4_BATCH_LIST) {
        print_list(&batch, cli->list);
    } else if (cli->action == P4_BATCH_PLAN) {
        TRY(p4_batch_choose_order(&batch, 0, NULL));
        TRY(p4_batch_forecast(&batch, 0, &seconds));
        p4_batch_print_plan(&batch, seconds);
        status = batch.counts[P4_STATE_FAILED] > 0 ? P4_BATCH_STATUS_FAILED : 0;
    } else {
        TRY(p4_make_directories(batch.own_directory));
        TRY(p4_batch_write_results(&batch, seconds));
        p4_batch_print(&batch, seconds);
        status = p4_batch_status(&batch);
    }
done:
    status = rc != P4_OK ? say_error(rc) : status;
    p4_batch_free(&batch);
    return status;
}
