/* trainer_codes.c - the ternary codes that every rank computes with: where they lie, and how they come from
 * masters.
 *
 * Quantizing and unpacking work row by row. So what a rank owns is laid out by the length of rows: matrices
 * of one length are one run of rows, whose codes, scales, unpacked weights and, in the optimizer, masters
 * follow each other, and a step has a few calls where a model has hundreds of matrices. Small models keep
 * their weights unpacked between steps: DENSE_MOST bytes cost little beside what unpacking them twice a
 * micro-batch costs in launches.
 *
 * Where parts of rows have scales of their own, these follow one another as rows' scales do. Matrices with
 * one scale each are a run each. */
#include <stdlib.h>
#include <string.h>

#include "jobs/train/trainer.h"

enum { LINE = 64 };
#define DENSE_MOST ((int64_t)64 << 20)

/* A place in what is laid out: bytes of codes and scales, elements of unpacked weights. */
typedef struct place {
    int64_t bytes, elements;
} place;

static int64_t lines(int64_t bytes)
{
    return p4_ceil_div(bytes, LINE) * LINE;
}

/* The block of codes of a parameter: codes are grouped by owner, and the replicated ones form the last block,
 * `ranks`. -1: it has none. */
static int64_t block_of(const p4_trainer *t, int64_t i)
{
    return !t->model->params[i].ternary ? -1
           : t->sharded[i]              ? t->original->shard.owner[i]
                                        : t->compute->group->ranks;
}

/* codes.order and block_first, by counting; the order of parameters stays within a block. */
static p4_rc order_blocks(p4_trainer *t)
{
    int64_t blocks = t->compute->group->ranks + 1, params = t->model->params_count;
    int64_t *first = t->codes.block_first = p4_alloc((size_t)blocks + 1, sizeof *first);
    t->codes.order = p4_alloc((size_t)params, sizeof *t->codes.order);
    if (first == NULL || t->codes.order == NULL) {
        return P4_E_SYSTEM;
    }
    int64_t all = 0;
    for (int64_t i = 0; i < params; i++) {
        int64_t block = block_of(t, i);
        if (block >= 0) {
            first[block + 1]++;
            all++;
        }
    }
    for (int64_t b = 0; b < blocks; b++) {
        first[b + 1] += first[b];
    }
    for (int64_t i = params - 1, block; i >= 0; i--) {
        block = block_of(t, i);
        if (block >= 0) {
            t->codes.order[--first[block + 1]] = i; /* each block from its end */
        }
    }
    memmove(first, first + 1, (size_t)blocks * sizeof *first); /* now first[b + 1] is where block b begins */
    first[blocks] = all;
    return P4_OK;
}

/* Appends the rows of parameter i to the last run, or begins a new one where their masters do not follow
 * those of the last, or all of them have one scale. */
static void add_rows(p4_trainer *t, int64_t i, bool begins, void *dense)
{
    const p4_weight *codes = &t->codes.of[i];
    const float *master = t->optim.at[i] >= 0 ? t->optim.master + t->optim.at[i] : NULL;
    p4_code_run *run = t->codes.runs_count > 0 ? &t->codes.runs[t->codes.runs_count - 1] : NULL;
    const float *importance = t->codes.importance_of[i];
    float *learned = t->optim.scale_at[i] >= 0 ? t->optim.scales + t->optim.scale_at[i] : NULL;
    if (begins || codes->scale_group > codes->cols || run->importance != importance ||
        (run->master == NULL) != (master == NULL) ||
        (master != NULL && run->master + run->codes.rows * run->codes.cols != master)) {
        t->codes.runs[t->codes.runs_count++] = (p4_code_run){
            .codes = *codes, .master = master, .importance = importance, .dense = dense, .learned = learned};
        return;
    }
    run->codes.rows += codes->rows;
}

/* Places all of these tensors whose rows have this length; without memory it only counts. */
static void place_class(p4_trainer *t, const int64_t *items, int64_t count, int64_t cols, place *at)
{
    const p4_model *model = t->model;
    int64_t rows = 0, row = 0, scales = 0, scale_at = 0, row_bytes = p4_code_row_bytes(cols),
            each = t->compute->ops->act_bytes(t->compute->device);
    for (int64_t k = 0; k < count; k++) {
        const p4_param *p = &model->params[items[k]];
        rows += p->cols == cols ? p->rows : 0;
        scales += p->cols == cols ? p4_param_scale_count(p) : 0;
    }
    for (int64_t k = 0; k < count && t->codes.memory != NULL; k++) {
        int64_t i = items[k];
        if (model->params[i].cols != cols) {
            continue;
        }
        const char *codes = t->codes.memory + at->bytes;
        const uint16_t *scale = (const uint16_t *)(const void *)(codes + lines(rows * row_bytes));
        t->codes.of[i] = (p4_weight){.dtype = P4_TERNARY,
                                     .rows = model->params[i].rows,
                                     .cols = cols,
                                     .data = codes + row * row_bytes,
                                     .scale = scale + scale_at,
                                     .scale_group = model->params[i].scale_group};
        t->form.weights[i] = t->codes.of[i];
        void *dense = t->codes.dense != NULL ? t->codes.dense + (at->elements + row * cols) * each : NULL;
        if (dense != NULL &&
            p4_role_is_matrix(model->params[i].role)) { /* embeddings are summed before they are rounded */
            t->form.weights[i] = (p4_weight){.dtype = each == 4 ? P4_F32 : P4_BF16,
                                             .rows = model->params[i].rows,
                                             .cols = cols,
                                             .data = dense};
        }
        add_rows(t, i, row == 0, dense);
        row += model->params[i].rows;
        scale_at += p4_param_scale_count(&model->params[i]);
    }
    at->bytes += lines(rows * row_bytes) + lines(scales * 2);
    at->elements += lines(rows * cols);
}

/* Block by block, the lengths of rows in the order in which they first occur. */
static place lay_out(p4_trainer *t)
{
    const p4_model *model = t->model;
    place at = {0};
    for (int64_t block = 0; block <= t->compute->group->ranks; block++) {
        const int64_t *items = t->codes.order + t->codes.block_first[block];
        int64_t count = t->codes.block_first[block + 1] - t->codes.block_first[block];
        t->codes.owner_first[block] = at.bytes;
        for (int64_t k = 0; k < count; k++) {
            int64_t first = 0, cols = model->params[items[k]].cols;
            if (k > 0 && model->params[items[k - 1]].cols == cols) {
                continue; /* experts by the hundred: not the first of their length */
            }
            while (model->params[items[first]].cols != cols) {
                first++;
            }
            if (first == k) {
                place_class(t, items, count, cols, &at);
            }
        }
    }
    return at;
}

/* Is it preceded by a ternary tensor that reads the same input? */
static bool shares_input(const p4_param *p)
{
    return p4_role_is_matrix(p->role) && p->input_offset > 0 && p[-1].ternary;
}

/* The parameter holds what the quantizer weighs its input channels by: those that read one input share it.
 * Calibration sees every matrix of the blocks, except experts that no token was routed to. */
static bool has_importance(const p4_trainer *t, int64_t i)
{
    const p4_param *p = &t->model->params[i];
    return p->ternary && !shares_input(p) && p4_role_is_matrix(p->role) &&
           t->plan.quantize.quantizer->needs == P4_NEEDS_DIAGONAL;
}

/* What the quantizer weighs input channels by, on the device. Local. */
static p4_rc open_importance(p4_trainer *t)
{
    p4_rc rc = P4_OK;
    const p4_model *model = t->model;
    const p4_quantize_plan *plan = &t->plan.quantize;
    int64_t count = t->codes.importance_bytes / 4, at = 0;
    float *h_all = NULL;
    if (count == 0) {
        return P4_OK;
    }
    TRY(t->compute->ops->alloc(t->compute->device, (void **)&t->codes.importance, t->codes.importance_bytes));
    h_all = p4_alloc((size_t)count, sizeof *h_all);
    TRY(h_all != NULL ? P4_OK : P4_E_SYSTEM);
    for (int64_t i = 0; i < model->params_count; i++) {
        const p4_param *p = &model->params[i];
        if (p->ternary && shares_input(p)) {
            t->codes.importance_of[i] = t->codes.importance_of[i - 1];
        } else if (has_importance(t, i) && p4_quantize_importance(plan, i, p->cols, h_all + at)) {
            t->codes.importance_of[i] = t->codes.importance + at;
            at += p->cols;
        }
    }
    t->compute->ops->to_device(t->compute->device, t->codes.importance, h_all, at * 4);
done:
    free(h_all);
    return rc;
}

p4_rc p4_trainer_codes_lay_out(p4_trainer *t)
{
    p4_rc rc = P4_OK;
    t->codes.owner_first = p4_alloc((size_t)t->compute->group->ranks + 1, sizeof *t->codes.owner_first);
    TRY(t->codes.owner_first != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(order_blocks(t));
    place end = lay_out(t);
    int64_t dense_bytes = end.elements * t->compute->ops->act_bytes(t->compute->device);
    bool keeps_dense = t->plan.activation_bits == 0 && dense_bytes <= DENSE_MOST;
    for (int64_t i = 0; i < t->model->params_count; i++) {
        t->codes.importance_bytes += has_importance(t, i) ? t->model->params[i].cols * 4 : 0;
    }
    t->codes.codes_bytes = end.bytes + LINE;
    t->codes.dense_bytes = keeps_dense ? dense_bytes : 0; /* integer products take codes */
    t->codes.bytes = t->codes.codes_bytes + t->codes.dense_bytes + t->codes.importance_bytes;
done:
    return rc;
}

p4_rc p4_trainer_codes_open(p4_trainer *t)
{
    p4_rc rc = P4_OK;
    const p4_ops *ops = t->compute->ops;
    size_t params = (size_t)t->model->params_count;
    TRY(p4_trainer_codes_lay_out(t));
    t->codes.of = p4_alloc(params, sizeof *t->codes.of);
    t->codes.runs = p4_alloc(params, sizeof *t->codes.runs);
    t->codes.importance_of = p4_alloc(params, sizeof *t->codes.importance_of);
    TRY(t->codes.of != NULL && t->codes.runs != NULL && t->codes.importance_of != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(open_importance(t));
    if (t->codes.dense_bytes > 0) {
        TRY(ops->alloc(t->compute->device, (void **)&t->codes.dense, t->codes.dense_bytes));
    }
    TRY(ops->alloc(t->compute->device, (void **)&t->codes.memory, t->codes.codes_bytes));
    (void)lay_out(t);
done:
    return rc;
}

void p4_trainer_codes_close(p4_trainer *t)
{
    if (t->codes.memory != NULL) {
        t->compute->ops->release(t->compute->device, t->codes.memory);
    }
    if (t->codes.dense != NULL) {
        t->compute->ops->release(t->compute->device, t->codes.dense);
    }
    if (t->codes.importance != NULL) {
        t->compute->ops->release(t->compute->device, t->codes.importance);
    }
    free(t->codes.importance_of);
    free(t->codes.order);
    free(t->codes.block_first);
    free(t->codes.of);
    free(t->codes.runs);
    free(t->codes.owner_first);
}

void p4_trainer_quantize_run(p4_trainer *t, const p4_code_run *run, p4_quant_error *h_error)
{
    const p4_weight *codes = &run->codes;
    p4_quantize_masters(t->compute, &t->plan.quantize, codes, run->master, run->importance, h_error);
    if (run->learned != NULL) {
        t->compute->ops->store_scales(t->compute->device, (uint16_t *)(uintptr_t)codes->scale, run->learned,
                                      h_error, codes, run->master);
    }
}

void p4_trainer_quantize(p4_trainer *t, p4_quant_error *h_errors)
{
    for (int64_t r = 0; r < t->codes.runs_count && h_errors == NULL; r++) {
        if (t->codes.runs[r].master != NULL) {
            p4_trainer_quantize_run(t, &t->codes.runs[r], NULL);
        }
    }
    for (int64_t i = 0; i < t->model->params_count && h_errors != NULL; i++) {
        if (t->codes.of[i].data != NULL && t->optim.at[i] >= 0) {
            p4_code_run one = {.codes = t->codes.of[i],
                               .master = t->optim.master + t->optim.at[i],
                               .importance = t->codes.importance_of[i],
                               .learned =
                                   t->optim.scale_at[i] >= 0 ? t->optim.scales + t->optim.scale_at[i] : NULL};
            p4_trainer_quantize_run(t, &one, &h_errors[i]);
        }
    }
}

bool p4_trainer_publishes(const p4_trainer *t)
{
    return t->compute->group->ranks > 1 && t->codes.owner_first[t->compute->group->ranks] > 0;
}

void p4_trainer_publish_codes(p4_trainer *t)
{
    if (p4_trainer_publishes(t)) {
        t->compute->coll.begin(&t->compute->coll); /* one launch: every owner sends at once */
        for (int r = 0; r < t->compute->group->ranks; r++) {
            t->compute->coll.bcast(&t->compute->coll, t->codes.memory + t->codes.owner_first[r],
                                   t->codes.owner_first[r + 1] - t->codes.owner_first[r], r);
        }
        t->compute->coll.end(&t->compute->coll);
        p4_coll_join(&t->compute->coll);
    }
}

void p4_trainer_unpack(p4_trainer *t)
{
    for (int64_t r = 0; r < t->codes.runs_count && t->codes.runs[r].dense != NULL; r++) {
        t->compute->ops->weight_unpack(t->compute->device, t->codes.runs[r].dense, &t->codes.runs[r].codes);
    }
}
