#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "jobs/train/pipeline.h"

/* Device memory of one layer-owner's running sums: per matrix of its layers the moments of its output, per
 * slot the sums of squares of its input channels. */
typedef struct probe_state {
    p4_job *job;
    p4_moments **moments; /* [params_count], NULL where this rank does not run the layer */
    double **sum_sq;      /* [params_count], first parts of slots only */
    void *memory;
} probe_state;

static bool runs(const p4_job *job, int64_t i)
{
    const p4_param *p = &job->hf.model.params[i];
    return p4_role_is_matrix(p->role) && job->shard.stage[p->layer] == job->compute.group->rank;
}

static void lay_out(probe_state *state, p4_arena *arena)
{
    const p4_model *model = &state->job->hf.model;
    for (int64_t i = 0; i < model->params_count; i++) {
        if (!runs(state->job, i)) {
            continue;
        }
        state->moments[i] = p4_arena_take(arena, sizeof(p4_moments));
        if (model->params[i].row_offset == 0) {
            state->sum_sq[i] = p4_arena_take(arena, model->params[i].cols * (int64_t)sizeof(double));
        }
    }
}

static p4_rc open_probe(probe_state *state, p4_job *job)
{
    p4_rc rc = P4_OK;
    const p4_model *model = &job->hf.model;
    *state = (probe_state){.job = job};
    state->moments = p4_alloc((size_t)model->params_count, sizeof *state->moments);
    state->sum_sq = p4_alloc((size_t)model->params_count, sizeof *state->sum_sq);
    if (state->moments == NULL || state->sum_sq == NULL) {
        return P4_E_SYSTEM;
    }
    p4_arena count = {0};
    lay_out(state, &count);
    TRY(job->compute.ops->alloc(job->compute.device, &state->memory, count.used_bytes + 64));
    p4_arena arena = {.base = state->memory, .capacity_bytes = count.used_bytes + 64};
    lay_out(state, &arena);
    job->compute.ops->zero(job->compute.device, state->memory, count.used_bytes);
    p4_moments start = {.min = FLT_MAX, .max = -FLT_MAX};
    for (int64_t i = 0; i < model->params_count; i++) {
        if (runs(job, i)) {
            job->compute.ops->to_device(job->compute.device, state->moments[i], &start, sizeof start);
        }
    }
    TRY(job->compute.ops->sync(job->compute.device));
done:
    return rc;
}

static void close_probe(probe_state *state)
{
    if (state->memory != NULL) {
        state->job->compute.ops->release(state->job->compute.device, state->memory);
    }
    free(state->moments);
    free(state->sum_sq);
}

static void see_slot(void *user, int64_t first, const void *x, int64_t in, const void *y, int64_t out,
                     int64_t N)
{
    probe_state *state = user;
    const p4_ops *ops = state->job->compute.ops;
    const p4_model *model = &state->job->hf.model;
    ops->channel_sum_sq(state->job->compute.device, state->sum_sq[first], x, N, in);
    for (int64_t i = first; i < first + p4_model_parts(model, first); i++) {
        const p4_param *p = &model->params[i];
        const char *slice = (const char *)y + p->row_offset * ops->act_bytes(state->job->compute.device);
        ops->moments(state->job->compute.device, state->moments[i], slice, N, p->rows, out);
    }
}

/* Every rank gets the sums of every matrix from the rank that ran it. Collective. */
static p4_rc gather(p4_job *job, probe_state *state, double tokens)
{
    p4_rc rc = P4_OK;
    const p4_model *model = &job->hf.model;
    int64_t slot = -1;
    job->stats = p4_alloc((size_t)model->params_count, sizeof *job->stats);
    TRY_ALL(job->compute.group, job->stats != NULL ? P4_OK : P4_E_SYSTEM);
    for (int64_t i = 0; i < model->params_count; i++) {
        const p4_param *p = &model->params[i];
        if (!p4_role_is_matrix(p->role)) {
            continue;
        }
        int from = job->shard.stage[p->layer];
        p4_activation_stats *s = &job->stats[i];
        slot = p->row_offset == 0 ? i : slot;
        if (from == job->compute.group->rank) {
            job->compute.ops->to_host(job->compute.device, &s->output, state->moments[i], sizeof s->output);
        }
        p4_group_bcast(job->compute.group, &s->output, sizeof s->output, from);
        if (i != slot) {
            s->input_mean_square = job->stats[slot].input_mean_square;
            continue;
        }
        s->owns_input = true;
        s->input_mean_square = p4_alloc((size_t)p->cols, sizeof *s->input_mean_square);
        TRY_ALL(job->compute.group, s->input_mean_square != NULL ? P4_OK : P4_E_SYSTEM);
        if (from == job->compute.group->rank) {
            job->compute.ops->to_host(job->compute.device, s->input_mean_square, state->sum_sq[i],
                                      p->cols * (int64_t)sizeof(double));
        }
        p4_group_bcast(job->compute.group, s->input_mean_square, p->cols * (int64_t)sizeof(double), from);
        for (int64_t c = 0; c < p->cols; c++) {
            s->input_mean_square[c] /= tokens;
        }
    }
done:
    return rc;
}

p4_rc p4_job_summarize(const p4_job *job, int64_t i, p4_activation_summary *summary)
{
    static const char suffix[] = ".weight";
    const p4_param *p = &job->hf.model.params[i];
    const p4_moments *m = &job->stats[i].output;
    double mean = m->sum / m->count, variance = m->sum_sq / m->count - mean * mean;
    size_t length = strlen(p->name), cut = sizeof suffix - 1;
    *summary = (p4_activation_summary){.mean = mean,
                                       .std = sqrt(fmax(variance, 0)),
                                       .min = (double)m->min,
                                       .max = (double)m->max,
                                       .inputs = p->cols};
    summary->name = p4_strdup(p->name);
    summary->input_mean_square = p4_alloc((size_t)p->cols, sizeof *summary->input_mean_square);
    if (summary->name == NULL || summary->input_mean_square == NULL) {
        free(summary->name);
        free(summary->input_mean_square);
        *summary = (p4_activation_summary){0};
        return P4_E_SYSTEM;
    }
    if (length > cut && strcmp(summary->name + length - cut, suffix) == 0) {
        summary->name[length - cut] = '\0';
    }
    memcpy(summary->input_mean_square, job->stats[i].input_mean_square,
           (size_t)p->cols * sizeof *summary->input_mean_square);
    return P4_OK;
}

p4_rc p4_stage_calibrate(p4_job *job)
{
    p4_rc rc = P4_OK;
    p4_pipeline pipeline = {0};
    probe_state state = {.job = job};
    p4_score score;
    if (job->config.calibration_samples == 0) {
        INFO("      off (calibration_samples is 0)");
        return P4_OK;
    }
    TRY_ALL(job->compute.group, open_probe(&state, job));
    TRY_ALL(job->compute.group, p4_pipeline_open(&pipeline, job, false));
    p4_probe probe = {.slot = see_slot, .user = &state};
    TRY(p4_pipeline_run(&pipeline, &job->original.form, NULL, &job->calibration, &probe, "calibrate",
                        &score));
    double tokens = (double)(job->calibration.count * job->calibration.T);
    TRY(gather(job, &state, tokens));
    INFO("      statistics of every projection over %.0f tokens, loss %.4f", tokens, score.nll / score.count);
done:
    p4_pipeline_close(&pipeline);
    close_probe(&state);
    return rc;
}
