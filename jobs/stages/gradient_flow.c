#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "jobs/job.h"

/* A whole forward and backward pass of the dequantised model on one window of real tokens. Gradients of
 * matrices are looked at slot by slot and forgotten; those of everything else are kept until the end. */
typedef struct flow {
    p4_job *job;
    float *slot_grad, *vector_grads;
    int64_t *at; /* [params_count] into vector_grads; -1: a matrix */
    double *sum; /* device */
    int64_t checked;
    p4_rc rc;
} flow;

static p4_rc check_tensor(flow *f, int64_t i, const float *grad)
{
    p4_rc rc = P4_OK;
    double squares = 0;
    const p4_param *p = &f->job->hf.model.params[i];
    f->job->compute.ops->zero(f->job->compute.device, f->sum, sizeof *f->sum);
    f->job->compute.ops->add_sq_norm(f->job->compute.device, f->sum, grad, p->rows * p->cols);
    f->job->compute.ops->to_host(f->job->compute.device, &squares, f->sum, sizeof squares);
    CHECK(isfinite(squares), "the gradient of %s is not finite", p->name);
    CHECK(squares > 0, "the gradient of %s is zero", p->name);
    f->checked++;
done:
    return rc;
}

static float *grad_buffer(void *user, int64_t param, bool *accumulate)
{
    flow *f = user;
    if (f->at[param] >= 0) {
        return f->vector_grads + f->at[param];
    }
    *accumulate = false;
    return f->slot_grad;
}

static void slot_ready(void *user, int64_t first)
{
    flow *f = user;
    const p4_model *model = &f->job->hf.model;
    for (int64_t i = first; f->rc == P4_OK && i < first + p4_model_parts(model, first); i++) {
        f->rc = check_tensor(f, i, f->slot_grad + model->params[i].row_offset * model->params[i].cols);
    }
}

static p4_rc take_memory(flow *f, void **memory)
{
    const p4_model *model = &f->job->hf.model;
    int64_t count = 0, slot = 0;
    f->at = p4_alloc((size_t)model->params_count, sizeof *f->at);
    if (f->at == NULL) {
        return P4_E_SYSTEM;
    }
    for (int64_t i = 0; i < model->params_count; i++) {
        const p4_param *p = &model->params[i];
        bool matrix = p4_role_is_matrix(p->role);
        f->at[i] = matrix ? -1 : count;
        count += matrix ? 0 : p->rows * p->cols;
        slot = matrix && p->row_offset == 0 ? p4_max_i64(slot, p4_slot_rows(model, i) * p->cols) : slot;
    }
    p4_rc rc = f->job->compute.ops->alloc(f->job->compute.device, memory, (count + slot) * 4 + 64);
    if (rc == P4_OK) {
        f->sum = *memory;
        f->slot_grad = (float *)*memory + 16;
        f->vector_grads = f->slot_grad + slot;
        f->job->compute.ops->zero(f->job->compute.device, *memory, (count + slot) * 4 + 64);
    }
    return rc;
}

/* P4_OK also when the test fails: f->rc tells. */
static p4_rc run_flow(flow *f, const int32_t *h_ids, int64_t T)
{
    p4_rc rc = P4_OK;
    p4_job *job = f->job;
    const p4_model *model = &job->hf.model;
    p4_net net = {0};
    p4_device_form form = {0};
    void *memory = NULL;
    p4_net_plan plan = {.B = 1,
                        .T = T,
                        .train = true,
                        .recompute = P4_RECOMPUTE_BLOCKS,
                        .activation_bits = job->config.activation_bits,
                        .head = true};
    p4_grad_sink sink = {.grad = grad_buffer, .ready = slot_ready, .user = f};
    TRY(take_memory(f, &memory));
    TRY(p4_net_open(&net, job->compute.ops, job->compute.device, model, &plan));
    const p4_weight *weights = job->compressed.is_compressed ? job->compressed.weights : model->weights;
    TRY(p4_device_form_open(&form, job->compute.ops, job->compute.device, model, weights));
    p4_net_set_tokens(&net, h_ids, 1, T);
    p4_net_train(&net, &form.form, 1, T, 1.0f / (float)(T - 1), &sink);
    TRY(job->compute.ops->sync(job->compute.device));
    for (int64_t i = 0; f->rc == P4_OK && i < model->params_count; i++) {
        f->rc = f->at[i] >= 0 ? check_tensor(f, i, f->vector_grads + f->at[i]) : P4_OK;
    }
done:
    p4_device_form_close(&form);
    if (net.ops != NULL) {
        p4_net_close(&net);
    }
    if (memory != NULL) {
        job->compute.ops->release(job->compute.device, memory);
    }
    return rc;
}

p4_rc p4_stage_gradient_flow(p4_job *job)
{
    p4_rc rc = P4_OK;
    flow f = {.job = job};
    p4_gradient_flow *record = &job->results.gradient_flow;
    const p4_windows *windows = job->eval.count > 0    ? &job->eval
                                : job->train.count > 0 ? &job->train
                                                       : &job->calibration;
    if (windows->count == 0) {
        INFO("      not run: there are no tokens (no evaluation, no calibration, no training)");
        return P4_OK;
    }
    if (job->compute.group->rank == 0) {
        rc = run_flow(&f, windows->ids, windows->T);
        record->ran = true;
        record->passed = f.rc == P4_OK;
        record->tensors_checked = f.checked;
        if (rc == P4_OK && f.rc != P4_OK) {
            snprintf(record->error, sizeof record->error, "%s", p4_last_error());
            p4_error_clear();
        }
        free(f.at);
    }
    TRY_ALL(job->compute.group, rc);
    p4_group_bcast(job->compute.group, record, sizeof *record, 0);
    if (record->passed) {
        INFO("      passed: %lld tensor%s, each with a finite, non-zero gradient",
             (long long)record->tensors_checked, p4_plural(record->tensors_checked));
    } else {
        WARN("      FAILED: %s", record->error);
    }
done:
    return rc;
}
