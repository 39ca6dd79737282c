#include "jobs/train/pipeline.h"

#include <stdio.h>

static bool takes_part(const p4_pipeline *pl)
{
    const p4_shard *shard = &pl->job->shard;
    int rank = pl->job->compute.group->rank;
    return shard->end[rank] > shard->first[rank];
}

static bool runs_head(const p4_pipeline *pl)
{
    return pl->job->shard.head_stage == pl->job->compute.group->rank;
}

p4_rc p4_pipeline_open(p4_pipeline *pl, p4_job *job, bool reference)
{
    p4_rc rc = P4_OK;
    const p4_config *c = &job->config;
    *pl = (p4_pipeline){.job = job, .B = c->calibration_batch_size, .T = c->calibration_sequence_length};
    if (!takes_part(pl)) {
        return P4_OK;
    }
    p4_net_plan plan = {.B = pl->B,
                        .T = pl->T,
                        .activation_bits = c->activation_bits,
                        .head = runs_head(pl),
                        .reference = reference};
    TRY(p4_net_open(&pl->net, job->compute.ops, job->compute.device, &job->hf.model, &plan));
    int64_t bytes =
        (pl->B * pl->T * job->hf.model.arch.C * job->compute.ops->act_bytes(job->compute.device) + 63) / 64 *
        64;
    int buffers = reference ? 4 : 2;
    TRY(job->compute.ops->alloc(job->compute.device, &pl->memory, buffers * bytes));
    for (int i = 0; i < buffers; i++) {
        pl->x[i / 2][i % 2] = (char *)pl->memory + i * bytes;
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
        pl->job->compute.ops->release(pl->job->compute.device, pl->memory);
    }
    if (pl->net.ops != NULL) {
        p4_net_close(&pl->net);
    }
    *pl = (p4_pipeline){0};
}

/* One form's micro-batch through this rank's layers: in from the previous stage or the embedding, out to the
 * next stage or the final norm. */
static void run_stage(p4_pipeline *pl, const p4_form *form, int which, int64_t m, int64_t B,
                      const p4_probe *probe)
{
    p4_job *job = pl->job;
    const p4_shard *shard = &job->shard;
    int rank = job->compute.group->rank, parity = (int)(m & 1);
    int64_t first = shard->first[rank], end = shard->end[rank], N = B * pl->T;
    int64_t bytes = N * job->hf.model.arch.C * job->compute.ops->act_bytes(job->compute.device);
    void *x = pl->x[which][parity];

    job->compute.coll.wait(&job->compute.coll, &pl->sending[which][parity]); /* the buffer's last send */
    if (first == 0) {
        p4_net_embed(&pl->net, form, x, B, pl->T);
    } else {
        job->compute.coll.recv(&job->compute.coll, x, bytes, shard->stage[first - 1]);
        p4_coll_join(&job->compute.coll);
        if (m == 0 ||
            B != pl->B) { /* products of a new shape are timed: the host then waits for the device */
            job->compute.coll.settle(&job->compute.coll, "evaluation: states of micro-batch %lld",
                                     (long long)m + 1);
        }
    }
    p4_net_layers(&pl->net, form, first, end, x, B, pl->T, probe);
    if (end == shard->layers) {
        p4_net_final_norm(&pl->net, form, x, which == 1, N);
    } else {
        pl->sending[which][parity] = job->compute.coll.isend(&job->compute.coll, x, bytes, shard->stage[end]);
    }
}

static void run_micro_batches(p4_pipeline *pl, const p4_form *form, const p4_form *reference,
                              const p4_windows *windows, const p4_probe *probe, p4_progress *progress,
                              p4_score *score)
{
    p4_job *job = pl->job;
    for (int64_t m = 0; m * pl->B < windows->count; m++) {
        int64_t at = m * pl->B, B = p4_min_i64(pl->B, windows->count - at);
        /* What a copy to the device waits for must not wait for other ranks without a deadline. */
        job->compute.coll.settle(&job->compute.coll, "evaluation: micro-batch %lld", (long long)m);
        p4_net_set_tokens(&pl->net, windows->ids + at * pl->T, B, pl->T);
        run_stage(pl, form, 0, m, B, probe);
        if (reference != NULL) {
            run_stage(pl, reference, 1, m, B, NULL);
        }
        if (runs_head(pl)) {
            p4_net_score(&pl->net, form, reference, B, pl->T);
        }
        p4_progress_update(progress, (double)((at + B) * pl->T), NULL);
    }
    for (int i = 0; i < 4; i++) {
        job->compute.coll.wait(&job->compute.coll, &pl->sending[i / 2][i % 2]);
    }
    job->compute.coll.settle(&job->compute.coll, "evaluation: the last micro-batches");
    if (p4_net_take_score(&pl->net, score) != P4_OK) {
        p4_abort(job->compute.group, "evaluation: %s", p4_last_error());
    }
}

p4_rc p4_pipeline_run(p4_pipeline *pl, const p4_form *form, const p4_form *reference,
                      const p4_windows *windows, const p4_probe *probe, const char *label, p4_score *score)
{
    p4_score mine = {0};
    p4_progress progress;
    p4_progress_start(&progress, label, "tokens", (double)(windows->count * windows->T));
    if (takes_part(pl)) {
        run_micro_batches(pl, form, reference, windows, probe, &progress, &mine);
    }
    p4_group_barrier(
        pl->job->compute.group); /* a rank without layers waits here for the whole pass, however long it is */
    double sums[4] = {mine.nll, mine.hits, mine.kl, mine.count};
    p4_group_sum_f64(pl->job->compute.group, sums, 4);
    p4_progress_end(&progress);
    *score = (p4_score){.nll = sums[0], .hits = sums[1], .kl = sums[2], .count = sums[3]};
    return P4_OK;
}
