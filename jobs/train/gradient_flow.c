#include "jobs/train/gradient_flow.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "src/form.h"

/* A whole forward and backward pass of the dequantised model on one window of real tokens. Gradients of
 * matrices are checked slot by slot and dropped; all others are kept until the end. */
typedef struct flow {
    const p4_compute *compute;
    const p4_model *model;
    float *slot_grad, *vector_grads;
    float *scale_grad; /* of a tensor's scales; NULL: they are not trained */
    int64_t *at;       /* [params_count] into vector_grads; -1: a matrix */
    double *sum;       /* device */
    p4_net *net;
    const p4_form *form;
    int64_t T; /* tokens of the window */
    int64_t checked, unused;
    p4_rc rc;
} flow;

/* Does the tensor have no gradient because its expert got no token whose state the loss depends on, or
 * because it is a router whose shares are always 1? Nothing is predicted from the window's last token. Of
 * experts, while their slot is under way. */
static bool is_unused(const flow *f, int64_t i)
{
    const p4_param *p = &f->model->params[i];
    const p4_arch *a = &f->model->arch;
    if (p->expert < 0) {
        return p->role == P4_ROLE_ROUTER && a->experts_used == 1 && (a->normed_shares || a->experts == 1);
    }
    const int32_t *h_first = p4_net_expert_rows(f->net, p->layer);
    int64_t rows = h_first[p->expert + 1] - h_first[p->expert];
    return rows == 0 || (rows == 1 && p4_net_is_routed(f->net, p->layer, f->T - 1, p->expert));
}

static double sum_squares(flow *f, const float *x, int64_t count)
{
    double squares = 0;
    f->compute->ops->zero(f->compute->device, f->sum, sizeof *f->sum);
    f->compute->ops->add_sq_norm(f->compute->device, f->sum, x, count);
    f->compute->ops->to_host(f->compute->device, &squares, f->sum, sizeof squares);
    return squares;
}

static p4_rc check_scales(flow *f, int64_t i, const float *grad)
{
    p4_rc rc = P4_OK;
    const p4_param *p = &f->model->params[i];
    f->compute->ops->scale_gradient(f->compute->device, f->scale_grad, grad, &f->form->weights[i]);
    double squares = sum_squares(f, f->scale_grad, p4_param_scale_count(p));
    CHECK(isfinite(squares), "the gradient of the scales of %s is not finite", p->name);
    CHECK(squares > 0, "the gradient of the scales of %s is zero", p->name);
done:
    return rc;
}

static p4_rc check_tensor(flow *f, int64_t i, const float *grad)
{
    p4_rc rc = P4_OK;
    const p4_param *p = &f->model->params[i];
    double squares = sum_squares(f, grad, p->rows * p->cols);
    CHECK(isfinite(squares), "the gradient of %s is not finite", p->name);
    if (is_unused(f, i)) {
        CHECK(squares == 0, "the gradient of %s is not zero, expected none without tokens", p->name);
        f->unused++;
        return P4_OK;
    }
    CHECK(squares > 0, "the gradient of %s is zero", p->name);
    TRY(p->ternary && f->scale_grad != NULL ? check_scales(f, i, grad) : P4_OK);
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
    const p4_model *model = f->model;
    for (int64_t i = first; f->rc == P4_OK && i < first + p4_model_parts(model, first); i++) {
        f->rc = check_tensor(f, i, f->slot_grad + model->params[i].row_offset * model->params[i].cols);
    }
}

static p4_net_plan net_plan(int64_t T, int activation_bits)
{
    return (p4_net_plan){.B = 1,
                         .T = T,
                         .train = true,
                         .recompute = P4_RECOMPUTE_BLOCKS,
                         .activation_bits = activation_bits,
                         .head = true};
}

/* Elements: of everything but matrices, whose places go to `at` unless it is NULL; of the largest slot; of
 * the scales of the ternary tensor that has most. */
static void measure(const p4_model *model, int64_t *at, int64_t *count, int64_t *slot, int64_t *scales)
{
    *count = *slot = *scales = 0;
    for (int64_t i = 0; i < model->params_count; i++) {
        const p4_param *p = &model->params[i];
        bool matrix = p4_role_is_matrix(p->role);
        if (at != NULL) {
            at[i] = matrix ? -1 : *count;
        }
        *count += matrix ? 0 : p->rows * p->cols;
        *scales = p->ternary ? p4_max_i64(*scales, p4_param_scale_count(p)) : *scales;
        *slot = matrix && p->row_offset == 0 ? p4_max_i64(*slot, p4_slot_rows(model, i) * p->cols) : *slot;
    }
}

int64_t p4_gradient_flow_bytes(const p4_compute *compute, const p4_model *model, int64_t T,
                               int activation_bits, bool scales)
{
    int64_t count, slot, most;
    const p4_net_plan plan = net_plan(T, activation_bits);
    measure(model, NULL, &count, &slot, &most);
    int64_t net = p4_net_bytes(compute->ops, compute->device, model, &plan);
    return net < 0 ? -1 : net + (count + slot + (scales ? most : 0)) * 4 + 64;
}

static p4_rc take_memory(flow *f, void **memory, bool scales)
{
    int64_t count, slot, most;
    f->at = p4_alloc((size_t)f->model->params_count, sizeof *f->at);
    if (f->at == NULL) {
        return P4_E_SYSTEM;
    }
    measure(f->model, f->at, &count, &slot, &most);
    const int64_t bytes = (count + slot + (scales ? most : 0)) * 4 + 64;
    p4_rc rc = f->compute->ops->alloc(f->compute->device, memory, bytes);
    if (rc == P4_OK) {
        f->sum = *memory;
        f->slot_grad = (float *)*memory + 16;
        f->vector_grads = f->slot_grad + slot;
        f->scale_grad = scales ? f->vector_grads + count : NULL;
        f->compute->ops->zero(f->compute->device, *memory, bytes);
    }
    return rc;
}

/* P4_OK also when the test fails: f->rc tells. */
static p4_rc run_flow(flow *f, const p4_flow_test *test)
{
    p4_rc rc = P4_OK;
    const p4_ops *ops = f->compute->ops;
    p4_device *device = f->compute->device;
    const p4_model *model = f->model;
    int64_t T = test->T;
    p4_net net = {0};
    p4_device_form form = {0};
    void *memory = NULL;
    const p4_net_plan plan = net_plan(T, test->activation_bits);
    p4_grad_sink sink = {.grad = grad_buffer, .ready = slot_ready, .user = f};
    TRY(take_memory(f, &memory, test->scales));
    TRY(p4_net_open(&net, ops, device, model, &plan));
    TRY(p4_device_form_open(&form, ops, device, model, test->weights));
    f->net = &net;
    f->form = &form.form;
    f->T = T;
    p4_net_set_tokens(&net, test->ids, 1, T);
    p4_net_train(&net, &form.form, 1, T, 1.0f / (float)(T - 1), &sink);
    TRY(ops->sync(device));
    for (int64_t i = 0; f->rc == P4_OK && i < model->params_count; i++) {
        f->rc = f->at[i] >= 0 ? check_tensor(f, i, f->vector_grads + f->at[i]) : P4_OK;
    }
done:
    p4_device_form_close(&form);
    if (net.ops != NULL) {
        p4_net_close(&net);
    }
    if (memory != NULL) {
        ops->release(device, memory);
    }
    return rc;
}

/* Rank 0. Local. */
static p4_rc test_flow(const p4_flow_test *test, p4_gradient_flow *record)
{
    flow f = {.compute = test->compute, .model = test->model};
    p4_rc rc = run_flow(&f, test);
    record->ran = true;
    record->passed = f.rc == P4_OK;
    record->tensors_checked = f.checked;
    record->tensors_unused = f.unused;
    if (rc == P4_OK && f.rc != P4_OK) {
        snprintf(record->error, sizeof record->error, "%s", p4_last_error());
        p4_error_clear();
    }
    free(f.at);
    return rc;
}

p4_rc p4_gradient_flow_run(const p4_flow_test *test, p4_gradient_flow *record)
{
    p4_rc rc = P4_OK;
    p4_group *group = test->compute->group;
    *record = (p4_gradient_flow){0};
    TRY_ROOT(group, test_flow(test, record));
    p4_group_bcast(group, record, sizeof *record, 0);
done:
    return rc;
}
