#include "jobs/train/pipeline.h"

#include <stdlib.h>

enum {
    BATCH_ELEMENTS = 4 << 20, /* of hidden states: more does not make the kernels of an H200 faster */
    LEAST_BATCHES = 16        /* of a text: ranks that share the layers work on several at once */
};

static bool takes_part(const p4_pipeline *pl)
{
    int rank = pl->compute->group->rank;
    return pl->shard->end[rank] > pl->shard->first[rank];
}

static bool runs_head(const p4_pipeline *pl)
{
    return pl->shard->head_stage == pl->compute->group->rank;
}

static p4_net_plan net_plan(const p4_pipeline *pl)
{
    return (p4_net_plan){.B = pl->plan.B,
                         .T = pl->plan.T,
                         .activation_bits = pl->plan.activation_bits,
                         .head = runs_head(pl) && !pl->plan.states_only,
                         .reference = pl->plan.reference};
}

/* Of one buffer of hidden states. */
static int64_t buffer_bytes(const p4_pipeline *pl)
{
    int64_t each = pl->compute->ops->act_bytes(pl->compute->device);
    return (pl->plan.B * pl->plan.T * pl->model->arch.C * each + 63) / 64 * 64;
}

/* Of what comes in and goes out. */
static int buffers_of(const p4_pipeline *pl)
{
    return pl->plan.reference ? 4 : 2;
}

/* This rank's layers whose output needs a buffer of its own. */
static int64_t outputs_of(const p4_pipeline *pl)
{
    int rank = pl->compute->group->rank;
    return pl->plan.blocks ? pl->shard->end[rank] - pl->shard->first[rank] - 1 : 0;
}

int64_t p4_pipeline_bytes(const p4_compute *compute, const p4_model *model, const p4_shard *shard,
                          const p4_pipeline_plan *plan)
{
    const p4_pipeline pl = {
        .compute = (p4_compute *)(uintptr_t)compute, .model = model, .shard = shard, .plan = *plan};
    if (!takes_part(&pl)) {
        return 0;
    }
    const p4_net_plan net = net_plan(&pl);
    int64_t bytes = p4_net_bytes(compute->ops, compute->device, model, &net);
    return bytes < 0 ? -1 : bytes + (buffers_of(&pl) + outputs_of(&pl)) * buffer_bytes(&pl);
}

int64_t p4_pipeline_batch(const p4_compute *compute, const p4_model *model, int64_t least, int64_t T,
                          int64_t windows)
{
    if (compute->ops->host_memory) {
        return least;
    }
    int64_t most = p4_min_i64(BATCH_ELEMENTS / (T * model->arch.C), windows / LEAST_BATCHES);
    return p4_max_i64(least, most);
}

p4_rc p4_pipeline_open(p4_pipeline *pl, p4_compute *compute, const p4_model *model, const p4_shard *shard,
                       const p4_pipeline_plan *plan)
{
    p4_rc rc = P4_OK;
    *pl = (p4_pipeline){.compute = compute, .model = model, .shard = shard, .plan = *plan};
    if (!takes_part(pl)) {
        return P4_OK;
    }
    const p4_ops *ops = compute->ops;
    const p4_net_plan net = net_plan(pl);
    pl->h_first = p4_alloc((size_t)plan->B, sizeof *pl->h_first);
    TRY(pl->h_first != NULL ? P4_OK : P4_E_SYSTEM);
    if (net.head) {
        pl->h_nll = p4_alloc((size_t)(plan->B * plan->T), sizeof *pl->h_nll);
        TRY(pl->h_nll != NULL ? P4_OK : P4_E_SYSTEM);
    }
    TRY(p4_net_open(&pl->net, ops, compute->device, model, &net));
    int64_t bytes = buffer_bytes(pl);
    int buffers = buffers_of(pl);
    TRY(ops->alloc(compute->device, &pl->memory, (buffers + outputs_of(pl)) * bytes));
    for (int i = 0; i < buffers; i++) {
        pl->x[i / 2][i % 2] = (char *)pl->memory + i * bytes;
    }
    if (plan->blocks) {
        pl->outputs = p4_alloc((size_t)shard->layers, sizeof *pl->outputs);
        TRY(pl->outputs != NULL ? P4_OK : P4_E_SYSTEM);
    }
    for (int64_t i = 0; i < outputs_of(pl); i++) {
        pl->outputs[shard->first[compute->group->rank] + i] = (char *)pl->memory + (buffers + i) * bytes;
    }
done:
    if (rc != P4_OK) {
        p4_pipeline_close(pl);
    }
    return rc;
}

void p4_pipeline_close(p4_pipeline *pl)
{
    if (pl->memory != NULL) {
        pl->compute->ops->release(pl->compute->device, pl->memory);
    }
    if (pl->net.ops != NULL) {
        p4_net_close(&pl->net);
    }
    free(pl->outputs);
    free(pl->h_nll);
    free(pl->h_first);
    *pl = (p4_pipeline){0};
}

/* Micro-batch m of B windows through one form's layers on this rank: in from the previous stage or the
 * embedding, out to the next stage or the final norm. */
static void run_stage(p4_pipeline *pl, const p4_pass *pass, int which, int64_t m, int64_t B)
{
    p4_coll *coll = &pl->compute->coll;
    const p4_shard *shard = pl->shard;
    const p4_form *form = which == 0 ? pass->form : pass->reference;
    int rank = pl->compute->group->rank, parity = (int)(m & 1);
    int64_t first = shard->first[rank], end = shard->end[rank], T = pl->plan.T, N = B * T;
    int64_t bytes = N * pl->model->arch.C * pl->compute->ops->act_bytes(pl->compute->device);
    void *x = pl->x[which][parity];

    coll->wait(coll, &pl->sending[which][parity]); /* the buffer's last send */
    if (first == 0) {
        p4_net_embed(&pl->net, form, x, B, T);
    } else {
        coll->recv(coll, x, bytes, shard->stage[first - 1]);
        p4_coll_join(coll);
        if (m == 0 ||
            B != pl->plan.B) { /* products of a new shape are timed: the host then waits for the device */
            coll->synchronize(coll, "%s: states of micro-batch %lld", pass->label, (long long)m + 1);
        }
    }
    p4_net_pass blocks = {.form = form, .B = B, .T = T, .outputs = which == 0 ? pl->outputs : NULL};
    blocks.probe = which == 0 ? pass->probe : NULL;
    p4_net_layers(&pl->net, &blocks, first, end, x);
    for (int64_t l = first; blocks.outputs != NULL && l < end; l++) {
        pass->on_block(pass->user, l, l < end - 1 ? pl->outputs[l] : x, m * pl->plan.B, B);
    }
    if (end == shard->layers) {
        p4_net_final_norm(&pl->net, form, x, which == 1, N);
    } else {
        pl->sending[which][parity] = coll->isend(coll, x, bytes, shard->stage[end]);
    }
}

/* Do the ranks stop before micro-batch m? They are asked every `ranks` micro-batches, and the answer counts
 * as many later: by then the last rank of the pipeline has come to where it was asked, so that the first need
 * not wait for it. Collective. */
static bool stops_before(p4_pipeline *pl, int64_t m)
{
    p4_group *group = pl->compute->group;
    if (pl->compute->stop == NULL || m % group->ranks != 0) {
        return false;
    }
    bool stops = m > 0 && p4_group_answer(group);
    if (!stops) {
        p4_group_ask(group, p4_stop_is_asked(pl->compute->stop));
    }
    return stops;
}

/* Takes the last answer, for which it is too late when all windows are done. Collective. */
static void end_questions(p4_pipeline *pl, int64_t micro_batches, bool stopped)
{
    if (pl->compute->stop != NULL && !stopped && micro_batches > 0) {
        (void)p4_group_answer(pl->compute->group);
    }
}

/* A rank without layers. */
static bool wait_for_stop(p4_pipeline *pl, int64_t micro_batches)
{
    bool stopped = false;
    for (int64_t m = 0; m < micro_batches && !stopped; m++) {
        stopped = stops_before(pl, m);
    }
    end_questions(pl, micro_batches, stopped);
    return stopped;
}

/* Adds the losses of windows [at, at + B), which were computed last, to those of their parts. *part: the
 * first of these parts; then of those after them. The device has been waited for. */
static void add_to_parts(p4_pipeline *pl, const p4_pass *pass, int64_t at, int64_t B, int64_t *part)
{
    const p4_windows *windows = pass->windows;
    const int64_t T = pl->plan.T;
    p4_net_losses(&pl->net, pl->h_nll, B, T);
    for (; *part < windows->part_count && windows->parts[*part].window < at + B; ++*part) {
        const p4_window_part *of = &windows->parts[*part];
        const float *nll =
            pl->h_nll + (of->window - at) * T - 1; /* a token's loss is that of the one before */
        for (int64_t t = of->from; t < of->to; t++) {
            pass->part_nll[*part] += nll[t];
        }
    }
}

/* progress NULL: not shown. *stopped: the ranks were asked to stop before all windows were done; NULL: they
 * are not asked. */
static void run_micro_batches(p4_pipeline *pl, const p4_pass *pass, p4_progress *progress, bool *stopped)
{
    p4_coll *coll = &pl->compute->coll;
    const p4_windows *windows = pass->windows;
    int64_t T = pl->plan.T, m = 0, part = 0;
    bool tells_parts = pass->part_nll != NULL && runs_head(pl);
    for (; m * pl->plan.B < windows->count; m++) {
        if (stopped != NULL && (*stopped = stops_before(pl, m))) {
            break;
        }
        int64_t at = m * pl->plan.B, B = p4_min_i64(pl->plan.B, windows->count - at);
        /* What a copy to the device waits for must not wait for other ranks without a deadline. */
        coll->synchronize(coll, "%s: micro-batch %lld", pass->label, (long long)m);
        if (tells_parts && m > 0) {
            add_to_parts(pl, pass, at - pl->plan.B, pl->plan.B, &part);
        }
        for (int64_t b = 0; b < B; b++) {
            pl->h_first[b] = p4_window_first(windows, at + b);
        }
        p4_net_set_windows(&pl->net, windows->ids + at * T, pl->h_first, B, T);
        run_stage(pl, pass, 0, m, B);
        if (pass->reference != NULL) {
            run_stage(pl, pass, 1, m, B);
        }
        if (runs_head(pl) && pl->plan.states_only) {
            pass->on_states(pass->user, pl->net.final_n, at, B);
        } else if (runs_head(pl)) {
            p4_net_score(&pl->net, pass->form, pass->reference, B, T);
        }
        if (progress != NULL) {
            p4_progress_update(progress, (double)((at + B) * T), NULL);
        }
    }
    for (int i = 0; i < 4; i++) {
        coll->wait(coll, &pl->sending[i / 2][i % 2]);
    }
    if (stopped != NULL) {
        end_questions(pl, windows->count, *stopped);
    }
    coll->synchronize(coll, "%s: the last micro-batches", pass->label);
    if (tells_parts && m > 0) {
        int64_t at = (m - 1) * pl->plan.B;
        add_to_parts(pl, pass, at, p4_min_i64(pl->plan.B, windows->count - at), &part);
    }
}

void p4_pipeline_flow(p4_pipeline *pl, const p4_pass *pass)
{
    if (takes_part(pl)) {
        run_micro_batches(pl, pass, NULL, NULL);
    }
}

bool p4_pipeline_flow_or_stop(p4_pipeline *pl, const p4_pass *pass)
{
    bool stopped = false;
    if (takes_part(pl)) {
        run_micro_batches(pl, pass, NULL, &stopped);
    } else {
        stopped = wait_for_stop(pl, p4_ceil_div(pass->windows->count, pl->plan.B));
    }
    return stopped;
}

p4_rc p4_pipeline_run(p4_pipeline *pl, const p4_pass *pass, p4_score *score)
{
    p4_score mine = {0};
    bool stopped = false;
    p4_progress progress;
    p4_progress_start(&progress, pass->label, "tokens", (double)(pass->windows->count * pass->windows->T));
    if (takes_part(pl)) {
        run_micro_batches(pl, pass, &progress, &stopped);
        if (p4_net_take_score(&pl->net, &mine) != P4_OK) {
            p4_abort(pl->compute->group, "%s: %s", pass->label, p4_last_error());
        }
    } else {
        stopped = wait_for_stop(pl, p4_ceil_div(pass->windows->count, pl->plan.B));
    }
    p4_group_barrier(
        pl->compute->group); /* a rank without layers waits here for the whole pass, however long it is */
    double sums[] = {mine.nll, mine.hits, mine.kl, mine.same, mine.count};
    p4_group_sum_f64(pl->compute->group, sums, sizeof sums / sizeof *sums);
    p4_progress_end(&progress);
    *score = (p4_score){.nll = sums[0], .hits = sums[1], .kl = sums[2], .same = sums[3], .count = sums[4]};
    return stopped ? p4_stop_end(pl->compute->stop) : P4_OK;
}
