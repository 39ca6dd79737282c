#include "jobs/train/statistics.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SPARE = 64 }; /* bytes: a rank without layers takes some as well */

/* Running sums in device memory of the layers that this rank runs: per matrix the moments of its output, per
 * input (of a slot, or of an expert) the sums of squares of its channels. */
typedef struct probe_state {
    const p4_compute *compute;
    const p4_original *original;
    p4_moments **moments; /* [params_count], NULL where this rank does not run the layer */
    double **sum_sq;      /* [params_count], of the first that reads it */
    void *memory;
} probe_state;

static bool runs(const probe_state *state, int64_t i)
{
    const p4_param *p = &state->original->hf.model.params[i];
    return p4_role_is_matrix(p->role) &&
           state->original->shard.stage[p->layer] == state->compute->group->rank;
}

static void lay_out(probe_state *state, p4_arena *arena)
{
    const p4_model *model = &state->original->hf.model;
    for (int64_t i = 0; i < model->params_count; i++) {
        if (!runs(state, i)) {
            continue;
        }
        p4_moments *moments = p4_arena_take(arena, sizeof *moments);
        double *sum_sq = model->params[i].input_offset == 0
                             ? p4_arena_take(arena, model->params[i].cols * (int64_t)sizeof *sum_sq)
                             : NULL;
        if (state->moments != NULL) {
            state->moments[i] = moments;
            state->sum_sq[i] = sum_sq;
        }
    }
}

int64_t p4_statistics_work_bytes(const p4_compute *compute, const p4_original *original)
{
    probe_state state = {.compute = compute, .original = original};
    p4_arena count = {0};
    lay_out(&state, &count);
    return count.used_bytes + SPARE;
}

int64_t p4_statistics_bytes(const p4_model *model)
{
    int64_t bytes = model->params_count * (int64_t)sizeof(p4_activation_stats);
    for (int64_t i = 0; i < model->params_count; i++) {
        const p4_param *p = &model->params[i];
        bytes += p4_role_is_matrix(p->role) && p->input_offset == 0 ? p->cols * (int64_t)sizeof(double) : 0;
    }
    return bytes;
}

static p4_rc open_probe(probe_state *state)
{
    p4_rc rc = P4_OK;
    const p4_model *model = &state->original->hf.model;
    const p4_ops *ops = state->compute->ops;
    p4_device *device = state->compute->device;
    state->moments = p4_alloc((size_t)model->params_count, sizeof *state->moments);
    state->sum_sq = p4_alloc((size_t)model->params_count, sizeof *state->sum_sq);
    if (state->moments == NULL || state->sum_sq == NULL) {
        return P4_E_SYSTEM;
    }
    int64_t bytes = p4_statistics_work_bytes(state->compute, state->original);
    TRY(ops->alloc(device, &state->memory, bytes));
    p4_arena arena = {.base = state->memory, .capacity_bytes = bytes};
    lay_out(state, &arena);
    ops->zero(device, state->memory, arena.used_bytes);
    p4_moments start = {.min = FLT_MAX, .max = -FLT_MAX};
    for (int64_t i = 0; i < model->params_count; i++) {
        if (runs(state, i)) {
            ops->to_device(device, state->moments[i], &start, sizeof start);
        }
    }
    TRY(ops->sync(device));
done:
    return rc;
}

static void close_probe(probe_state *state)
{
    if (state->memory != NULL) {
        state->compute->ops->release(state->compute->device, state->memory);
    }
    free(state->moments);
    free(state->sum_sq);
}

static void see_slot(void *user, int64_t first, const void *x, int64_t in, const void *y, int64_t out,
                     int64_t N)
{
    probe_state *state = user;
    const p4_ops *ops = state->compute->ops;
    const p4_model *model = &state->original->hf.model;
    ops->channel_sum_sq(state->compute->device, state->sum_sq[first], x, N, in);
    for (int64_t i = first; i < first + p4_model_readers(model, first); i++) {
        const p4_param *p = &model->params[i];
        const char *slice = (const char *)y + p->input_offset * ops->act_bytes(state->compute->device);
        ops->moments(state->compute->device, state->moments[i], slice, N, p->rows, out);
    }
}

/* Every rank gets the input sums of a slot from the rank that ran it, as means over `rows`. Collective. */
static p4_rc gather_input(p4_activation_stats *s, const probe_state *state, int64_t i, double rows)
{
    p4_rc rc = P4_OK;
    const p4_compute *compute = state->compute;
    const p4_param *p = &state->original->hf.model.params[i];
    int from = state->original->shard.stage[p->layer];
    int64_t bytes = p->cols * (int64_t)sizeof(double);
    s->owns_input = true;
    s->input_mean_square = p4_alloc((size_t)p->cols, sizeof *s->input_mean_square);
    TRY_ALL(compute->group, s->input_mean_square != NULL ? P4_OK : P4_E_SYSTEM);
    if (from == compute->group->rank) {
        compute->ops->to_host(compute->device, s->input_mean_square, state->sum_sq[i], bytes);
    }
    p4_group_bcast(compute->group, s->input_mean_square, bytes, from);
    for (int64_t c = 0; c < p->cols; c++) {
        s->input_mean_square[c] /= fmax(rows, 1.0);
    }
done:
    return rc;
}

/* Every rank gets the sums of every matrix from the rank that ran it. Collective. */
static p4_rc gather(p4_statistics *statistics, const probe_state *state)
{
    p4_rc rc = P4_OK;
    const p4_compute *compute = state->compute;
    const p4_model *model = &state->original->hf.model;
    int64_t first = -1;
    for (int64_t i = 0; i < model->params_count; i++) {
        const p4_param *p = &model->params[i];
        if (!p4_role_is_matrix(p->role)) {
            continue;
        }
        int from = state->original->shard.stage[p->layer];
        p4_activation_stats *s = &statistics->entries[i];
        if (from == compute->group->rank) {
            compute->ops->to_host(compute->device, &s->output, state->moments[i], sizeof s->output);
        }
        p4_group_bcast(compute->group, &s->output, sizeof s->output, from);
        if (p->input_offset == 0) {
            first = i;
            TRY(gather_input(s, state, i, p4_statistics_rows(statistics, model, i)));
        } else {
            s->input_mean_square = statistics->entries[first].input_mean_square;
        }
    }
done:
    return rc;
}

p4_rc p4_statistics_collect(p4_statistics *statistics, p4_compute *compute, const p4_original *original,
                            const p4_pipeline_plan *plan, const p4_windows *windows)
{
    p4_rc rc = P4_OK;
    const p4_model *model = &original->hf.model;
    p4_pipeline pipeline = {0};
    probe_state state = {.compute = compute, .original = original};
    p4_probe probe = {.slot = see_slot, .user = &state};
    p4_pass pass = {.form = &original->form.form, .windows = windows, .probe = &probe, .label = "calibrate"};
    p4_score score;
    *statistics =
        (p4_statistics){.count = model->params_count, .tokens = (double)(windows->count * windows->T)};
    statistics->entries = p4_alloc((size_t)model->params_count, sizeof *statistics->entries);
    TRY_ALL(compute->group, statistics->entries != NULL ? open_probe(&state) : P4_E_SYSTEM);
    TRY_ALL(compute->group, p4_pipeline_open(&pipeline, compute, model, &original->shard, plan));
    TRY(p4_pipeline_run(&pipeline, &pass, &score));
    statistics->loss = score.nll / score.count;
    TRY(gather(statistics, &state));
done:
    p4_pipeline_close(&pipeline);
    close_probe(&state);
    if (rc != P4_OK) {
        p4_statistics_free(statistics);
    }
    return rc;
}

void p4_statistics_free(p4_statistics *statistics)
{
    for (int64_t i = 0; statistics->entries != NULL && i < statistics->count; i++) {
        if (statistics->entries[i].owns_input) {
            free(statistics->entries[i].input_mean_square);
        }
    }
    free(statistics->entries);
    *statistics = (p4_statistics){0};
}

bool p4_statistics_has(const p4_statistics *statistics, int64_t i)
{
    return statistics->entries != NULL && statistics->entries[i].input_mean_square != NULL;
}

bool p4_statistics_reached(const p4_statistics *statistics, int64_t i)
{
    return p4_statistics_has(statistics, i) && statistics->entries[i].output.count > 0;
}

double p4_statistics_rows(const p4_statistics *statistics, const p4_model *model, int64_t i)
{
    return statistics->entries[i].output.count / (double)model->params[i].rows;
}

p4_rc p4_statistics_loads(const p4_statistics *statistics, const p4_model *model, p4_expert_loads *loads)
{
    const p4_arch *a = &model->arch;
    free(loads->tokens);
    *loads = (p4_expert_loads){.layers = a->L, .experts = a->experts, .used = a->experts_used};
    if (a->experts == 0 || statistics->entries == NULL) {
        return P4_OK;
    }
    loads->tokens = p4_alloc((size_t)(a->L * a->experts), sizeof *loads->tokens);
    if (loads->tokens == NULL) {
        return P4_E_SYSTEM;
    }
    for (int64_t l = 0; l < a->L; l++) {
        loads->mixtures += p4_arch_has_experts(a, l);
    }
    for (int64_t i = 0; i < model->params_count; i++) {
        const p4_param *p = &model->params[i];
        if (p->role == P4_ROLE_UP && p->expert >= 0 && p->input_offset == 0) {
            double tokens = p4_statistics_rows(statistics, model, i);
            loads->tokens[p->layer * a->experts + p->expert] = tokens;
            loads->unused += tokens == 0;
        }
    }
    return P4_OK;
}

p4_rc p4_statistics_summarize(const p4_statistics *statistics, const p4_model *model, int64_t i,
                              p4_activation_summary *summary)
{
    static const char suffix[] = ".weight";
    const p4_param *p = &model->params[i];
    const p4_moments *m = &statistics->entries[i].output;
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
    memcpy(summary->input_mean_square, statistics->entries[i].input_mean_square,
           (size_t)p->cols * sizeof *summary->input_mean_square);
    return P4_OK;
}
