#include "jobs/details.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

/* ---- the time line ---- */

/* Processor time of this process so far, seconds. */
static double cpu_s(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           1e-6 * (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

void p4_timeline_begin(p4_run *run, const char *stage)
{
    p4_run_timeline *line = &run->timeline;
    line->keys[line->count] = stage;
    line->stages[line->count] = (p4_stage_detail){.started_s = p4_now_s() - run->started_s,
                                                  .cpu_s = -cpu_s(),
                                                  .waited_s = -run->compute.group->waited_s};
}

void p4_timeline_end(p4_run *run)
{
    p4_stage_detail *stage = &run->timeline.stages[run->timeline.count++];
    stage->seconds = p4_now_s() - run->started_s - stage->started_s;
    stage->cpu_s += cpu_s();
    stage->waited_s += run->compute.group->waited_s;
}

double p4_timeline_last_s(const p4_run *run)
{
    return run->timeline.stages[run->timeline.count - 1].seconds;
}

const char *p4_timeline_running(const p4_run *run, double *seconds)
{
    const p4_run_timeline *line = &run->timeline;
    const char *stage = line->count < P4_MAX_STAGES ? line->keys[line->count] : NULL;
    *seconds = stage != NULL ? p4_now_s() - run->started_s - line->stages[line->count].started_s : 0;
    return stage;
}

/* ---- tensors and activations ---- */

static double mean_scale(const p4_packed *packed, int64_t param)
{
    double sum = 0;
    int64_t count = p4_param_scale_count(&packed->model->params[param]);
    for (int64_t i = 0; i < count; i++) {
        sum += (double)p4_f16_to_f32(p4_packed_scale(packed, param)[i]);
    }
    return sum / (double)count;
}

static p4_tensor_detail describe_tensor(const p4_run *run, int64_t i)
{
    const p4_param *p = &run->original.hf.model.params[i];
    const p4_quant_error *e = &run->packed.errors[i];
    int64_t trits = run->config.packing == P4_PACKING_2BIT ? 4 : 5;
    p4_tensor_detail detail = {
        .name = p->name, .layer = p->layer, .rows = p->rows, .cols = p->cols, .ternary = p->ternary};
    if (!p->ternary) {
        detail.bytes = 2.0 * (double)(p->rows * p->cols);
        return detail;
    }
    detail.bytes = (double)(p->rows * p4_ceil_div(p->cols, trits) + 2 * p4_param_scale_count(p));
    detail.relative_error = e->sq_norm > 0 ? e->sq_error / e->sq_norm : 0.0;
    detail.sparsity = (double)e->zeros / (double)(p->rows * p->cols);
    detail.scale_min = (double)e->scale_min;
    detail.scale_mean = mean_scale(&run->packed, i);
    detail.scale_max = (double)e->scale_max;
    return detail;
}

static p4_rc describe_activation(const p4_run *run, int64_t i, p4_activation_detail *detail)
{
    p4_activation_summary seen;
    p4_rc rc = p4_statistics_summarize(&run->statistics, &run->original.hf.model, i, &seen);
    if (rc != P4_OK) {
        return rc;
    }
    double sum = 0, largest = 0;
    for (int64_t c = 0; c < seen.inputs; c++) {
        sum += seen.input_mean_square[c];
        largest = fmax(largest, seen.input_mean_square[c]);
    }
    *detail = (p4_activation_detail){.tensor = i,
                                     .mean = seen.mean,
                                     .std = seen.std,
                                     .min = seen.min,
                                     .max = seen.max,
                                     .input_peak = sum > 0 ? largest * (double)seen.inputs / sum : NAN};
    free(seen.name);
    free(seen.input_mean_square);
    return P4_OK;
}

/* Rank 0. The lists are the caller's, heap, also after an error. */
static p4_rc describe(const p4_run *run, p4_details *details, p4_tensor_detail **tensors,
                      p4_activation_detail **activations)
{
    p4_rc rc = P4_OK;
    int64_t count = run->original.hf.model.params_count;
    *tensors = p4_alloc((size_t)count, sizeof **tensors);
    *activations = p4_alloc((size_t)count, sizeof **activations);
    TRY(*tensors != NULL && *activations != NULL ? P4_OK : P4_E_SYSTEM);
    for (int64_t i = 0; i < count; i++) {
        (*tensors)[i] = describe_tensor(run, i);
        if (p4_statistics_has(&run->statistics, i)) {
            TRY(describe_activation(run, i, &(*activations)[details->activation_count++]));
        }
    }
    details->tensor_count = count;
    details->tensors = *tensors;
    details->activations = *activations;
done:
    return rc;
}

/* ---- the ranks ---- */

enum { STAGE_NUMBERS = sizeof(p4_stage_detail) / sizeof(double) };
_Static_assert(sizeof(p4_stage_detail) == STAGE_NUMBERS * sizeof(double), "it is sent as numbers");

p4_rc p4_timeline_gather(p4_run *run, double **numbers)
{
    p4_group *group = run->compute.group;
    int64_t stages = STAGE_NUMBERS * run->timeline.count, ranks = group->ranks;
    double *all = *numbers = p4_alloc((size_t)(ranks * (stages + 1)), sizeof *all);
    p4_rc rc = p4_consult(group, all != NULL ? P4_OK : P4_E_SYSTEM);
    if (rc != P4_OK) {
        return rc;
    }
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    memcpy(all + group->rank * stages, run->timeline.stages, (size_t)stages * sizeof *all);
    all[ranks * stages + group->rank] = (double)usage.ru_maxrss / 1024.0;
    p4_group_sum_f64(group, all, ranks * (stages + 1));
    return P4_OK;
}

p4_rc p4_details_write(const p4_run *run, const char *path, const double *numbers)
{
    p4_rc rc = P4_OK;
    p4_tensor_detail *tensors = NULL;
    p4_activation_detail *activations = NULL;
    int64_t ranks = run->compute.group->ranks, stages = run->timeline.count;
    p4_details details = {.stage_count = stages, .rank_count = ranks};
    p4_stage_detail *lived = p4_alloc((size_t)(ranks * stages), sizeof *lived);
    TRY(lived != NULL ? P4_OK : P4_E_SYSTEM);
    memcpy(lived, numbers, (size_t)(ranks * stages) * sizeof *lived);
    memcpy(details.stage_names, run->timeline.keys, sizeof run->timeline.keys);
    details.stages = lived;
    details.peak_memory_mb = numbers + ranks * stages * STAGE_NUMBERS;
    TRY(describe(run, &details, &tensors, &activations));
    TRY(p4_details_store(path, &details));
done:
    free(tensors);
    free(activations);
    free(lived);
    return rc;
}
