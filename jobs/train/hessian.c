#include "jobs/train/hessian.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "jobs/train/layers.h"

enum {
    SWEEPS_MAX = 32,    /* of coordinate descent, which ends by itself when no trit changes */
    SUM_PIECE = 1 << 22 /* elements of h that pass through host memory at a time */
};
/* H is damped by at least DAMPING of the mean of its diagonal, and more where few tokens are behind each
 * input channel: without that, trits are fitted to the noise of H (docs/methods.md 1). The factor gets more
 * where it does not exist. */
static const double DAMPING = 0.01, DAMPING_BY_TOKENS = 4.0, DAMPING_WARNED = 1.0, DAMPING_MAX = 1e6;

/* The arrays of one matrix at work, and of H, in device memory for the largest of them. */
typedef struct arrays {
    double *h;         /* sums of products; then the factor's workspace */
    float *h_mean;     /* one micro-batch's products; then H */
    float *importance; /* the diagonal of H */
    float *feedback, *w, *wh, *t, *work;
    double *fit;
    uint16_t *scale; /* of the matrix at work */
    uint8_t *codes;
} arrays;

typedef struct work {
    p4_packed *packed;
    p4_compute *compute;
    const p4_original *original;
    const p4_quantize_plan *plan;
    p4_form form; /* of the block at work: the original's matrices, then ternary ones slot by slot */
    void *memory;
    arrays a;
    p4_arena block;      /* codes of the block at work, on a device with its own memory */
    int64_t slot;        /* at work: the first of the parameters that read one input */
    double rows;         /* of inputs that h sums: tokens, or those routed to an expert */
    double quantum;      /* of the sums in h */
    float *h_importance; /* host, of the widest slot */
    double *h_sums;      /* host: a piece of h on its way through the sum over ranks; NULL: not needed */
} work;

static bool is_ternary_matrix(const work *w, int64_t i)
{
    const p4_param *p = &w->original->hf.model.params[i];
    return p->ternary && p4_role_is_matrix(p->role);
}

static bool is_mine(const work *w, int64_t i)
{
    return is_ternary_matrix(w, i) && w->original->shard.owner[i] == w->compute->group->rank;
}

/* --- memory ----------------------------------------------------------------------------------- */

typedef struct extent {
    int64_t cols;                      /* of the widest slot */
    int64_t elements, rows, row_codes; /* of the largest of this rank's matrices, each by itself */
} extent;

static extent measure(const work *w)
{
    extent e = {0};
    const p4_model *model = &w->original->hf.model;
    for (int64_t i = 0; i < model->params_count; i++) {
        const p4_param *p = &model->params[i];
        if (is_ternary_matrix(w, i)) {
            e.cols = p4_max_i64(e.cols, p->cols);
        }
        if (is_mine(w, i)) {
            e.rows = p4_max_i64(e.rows, p->rows);
            e.elements = p4_max_i64(e.elements, p->rows * p->cols);
            e.row_codes = p4_max_i64(e.row_codes, p->rows * p4_code_row_bytes(p->cols));
        }
    }
    return e;
}

static void lay_out(work *w, const extent *e, p4_arena *arena)
{
    int64_t square = e->cols * e->cols, each = sizeof(float);
    arrays *a = &w->a;
    a->h = p4_arena_take(arena, square * (int64_t)sizeof(double));
    a->h_mean = p4_arena_take(arena, square * each);
    a->importance = p4_arena_take(arena, e->cols * each);
    if (e->rows > 0) {
        a->feedback = p4_arena_take(arena, square * each);
        a->w = p4_arena_take(arena, e->elements * each);
        a->wh = p4_arena_take(arena, e->elements * each);
        a->t = p4_arena_take(arena, e->elements * each);
        a->work = p4_arena_take(arena, e->rows * P4_HESSIAN_BLOCK * each);
        a->fit = p4_arena_take(arena, e->rows * 2 * (int64_t)sizeof(double));
        a->scale = p4_arena_take(arena, e->rows * 2);
        a->codes = p4_arena_take(arena, e->row_codes);
    }
}

/* On a device with its own memory, the codes and scales of all matrices of a block; of the largest block. */
static int64_t block_bytes(const work *w)
{
    const p4_model *model = &w->original->hf.model;
    int64_t most = 0;
    for (int64_t layer = 0; layer < model->arch.L && !w->compute->ops->host_memory; layer++) {
        p4_arena block = {0};
        for (int64_t i = model->layer_first[layer]; i < model->layer_first[layer + 1]; i++) {
            if (is_ternary_matrix(w, i)) {
                (void)p4_arena_take(&block, model->params[i].rows * p4_code_row_bytes(model->params[i].cols));
                (void)p4_arena_take(&block, model->params[i].rows * 2);
            }
        }
        most = p4_max_i64(most, block.used_bytes);
    }
    return most;
}

int64_t p4_hessian_bytes(const p4_compute *compute, const p4_original *original)
{
    work w = {.compute = (p4_compute *)(uintptr_t)compute, .original = original};
    extent e = measure(&w);
    p4_arena count = {0};
    lay_out(&w, &e, &count);
    return count.used_bytes + block_bytes(&w);
}

static p4_rc open_work(work *w)
{
    p4_rc rc = P4_OK;
    const p4_ops *ops = w->compute->ops;
    const p4_model *model = &w->original->hf.model;
    extent e = measure(w);
    p4_arena count = {0};
    w->block.capacity_bytes = block_bytes(w);
    w->form.weights = p4_alloc((size_t)model->params_count, sizeof *w->form.weights);
    w->h_importance = p4_alloc((size_t)e.cols, sizeof *w->h_importance);
    TRY(w->form.weights != NULL && w->h_importance != NULL ? P4_OK : P4_E_SYSTEM);
    if (!ops->host_memory && w->compute->group->ranks > 1) {
        w->h_sums = p4_alloc(SUM_PIECE, sizeof *w->h_sums);
        TRY(w->h_sums != NULL ? P4_OK : P4_E_SYSTEM);
    }
    lay_out(w, &e, &count);
    TRY(ops->alloc(w->compute->device, &w->memory, count.used_bytes));
    p4_arena arena = {.base = w->memory, .capacity_bytes = count.used_bytes};
    lay_out(w, &e, &arena);
    TRY(ops->alloc(w->compute->device, (void **)&w->block.base, w->block.capacity_bytes));
done:
    return rc;
}

static void close_work(work *w)
{
    const p4_ops *ops = w->compute->ops;
    if (w->memory != NULL) {
        ops->release(w->compute->device, w->memory);
    }
    if (w->block.base != NULL) {
        ops->release(w->compute->device, w->block.base);
    }
    free(w->form.weights);
    free(w->h_importance);
    free(w->h_sums);
}

/* --- H of a slot ------------------------------------------------------------------------------ */

static void see_slot(void *user, int64_t first, const void *x, int64_t in, const void *y, int64_t out,
                     int64_t N)
{
    work *w = user;
    (void)y;
    (void)out;
    if (first == w->slot) {
        w->rows += (double)N;
        w->compute->ops->hessian_add(
            w->compute->device,
            &(p4_hessian_add_args){
                .N = N, .C = in, .x = x, .work = w->a.h_mean, .h = w->a.h, .quantum = w->quantum});
    }
}

/* Sums to be expected are tokens * mean square of the original's inputs. Quanta of 2^-44 of the largest of
 * them leave 2^8 for inputs of the ternary blocks that are larger: up to there any division of the windows
 * among ranks gives the same bits. */
static double quantum_of(const work *w)
{
    int64_t cols = w->original->hf.model.params[w->slot].cols;
    const double *mean_square = w->plan->statistics->entries[w->slot].input_mean_square;
    double largest = 0.0;
    for (int64_t c = 0; c < cols; c++) {
        largest = fmax(largest, mean_square[c]);
    }
    largest *= (double)(w->plan->windows->count * w->plan->windows->T);
    return largest > 0.0 && isfinite(largest) ? ldexp(1.0, ilogb(largest) + 1 - 44) : 0.0;
}

/* Every rank gets the sum over ranks. Collective. */
static void sum_over_ranks(work *w, int64_t count)
{
    p4_group *group = w->compute->group;
    const p4_ops *ops = w->compute->ops;
    if (group->ranks == 1) {
        return;
    }
    if (ops->host_memory) {
        p4_group_sum_f64(group, w->a.h, count);
        return;
    }
    for (int64_t at = 0; at < count; at += SUM_PIECE) {
        int64_t piece = p4_min_i64(SUM_PIECE, count - at), bytes = piece * (int64_t)sizeof(double);
        ops->to_host(w->compute->device, w->h_sums, w->a.h + at, bytes);
        p4_group_sum_f64(group, w->h_sums, piece);
        ops->to_device(w->compute->device, w->a.h + at, w->h_sums, bytes);
    }
}

/* h becomes h_mean, with importance. Local. */
static p4_rc finish(work *w, const p4_param *p)
{
    p4_rc rc = P4_OK;
    const p4_ops *ops = w->compute->ops;
    double tokens = fmax(w->rows, 1.0);
    ops->hessian_finish(
        w->compute->device,
        &(p4_hessian_finish_args){.C = p->cols,
                                  .sums = w->a.h,
                                  .scale = 1.0 / tokens,
                                  .damping = fmax(DAMPING, DAMPING_BY_TOKENS * (double)p->cols / tokens),
                                  .importance = w->a.importance,
                                  .h = w->a.h_mean});
    ops->to_host(w->compute->device, w->h_importance, w->a.importance, p->cols * 4);
    TRY(ops->sync(w->compute->device));
    for (int64_t c = 0; c < p->cols; c++) {
        CHECK(isfinite(w->h_importance[c]),
              "%s: with the blocks before it ternary, input channel %lld of %s is NaN or infinite",
              w->original->hf.path, (long long)c, p->name);
    }
done:
    return rc;
}

/* H of the slot at work, on every rank. Collective. */
static p4_rc collect(work *w, p4_layers *layers, int64_t layer)
{
    p4_rc rc = P4_OK;
    p4_probe probe = {.slot = see_slot, .user = w};
    const p4_param *p = &w->original->hf.model.params[w->slot];
    int64_t elements = p->cols * p->cols;
    w->quantum = quantum_of(w);
    w->rows = 0;
    w->compute->ops->zero(w->compute->device, w->a.h, elements * (int64_t)sizeof(double));
    TRY_ALL(w->compute->group, p4_layers_observe(layers, layer, &w->form, &probe));
    sum_over_ranks(w, elements);
    p4_group_sum_f64(w->compute->group, &w->rows, 1);
    TRY_ALL(w->compute->group, finish(w, p));
done:
    return rc;
}

/* --- the matrices of a slot ------------------------------------------------------------------- */

/* With more and more damping beyond that of H, until there is one. Local. */
static p4_rc factor(work *w, const p4_param *p)
{
    bool definite = false;
    double damping = 0.0;
    while (!definite && damping < DAMPING_MAX) {
        w->compute->ops->hessian_factor(w->compute->device,
                                        &(p4_hessian_factor_args){.C = p->cols,
                                                                  .h = w->a.h_mean,
                                                                  .feedback = w->a.feedback,
                                                                  .work = w->a.h,
                                                                  .damping = damping,
                                                                  .h_definite = &definite});
        damping = definite ? damping : fmax(DAMPING, damping * 10.0);
    }
    if (!definite) {
        return FAULT("%s: the second moments of its inputs have no Cholesky factor", p->name);
    }
    if (damping > DAMPING_WARNED) {
        WARN("warning: %s: the second moments of its inputs needed a damping of %g times their mean", p->name,
             damping);
    }
    return P4_OK;
}

static void solve_rows(work *w, const p4_hessian_rows *rows)
{
    const p4_ops *ops = w->compute->ops;
    int64_t changed = 1;
    ops->gptq(w->compute->device, rows);
    ops->descend_start(w->compute->device, rows);
    for (int sweep = 0; w->plan->quantizer->descends && sweep < SWEEPS_MAX && changed > 0; sweep++) {
        ops->descend(w->compute->device, rows, &changed);
    }
}

/* Does the matrix have inputs? An expert has none if no token is routed to it, by the original or with the
 * blocks before it ternary. */
static bool is_reached(const work *w)
{
    return w->rows > 0 && p4_statistics_reached(w->plan->statistics, w->slot);
}

/* One of this rank's matrices, from the original's weight on the device to the packed model. Local. */
static p4_rc solve(work *w, const p4_weight *weight, int64_t i)
{
    p4_rc rc = P4_OK;
    const p4_ops *ops = w->compute->ops;
    p4_device *device = w->compute->device;
    p4_quant_error error, *found = &w->packed->errors[i];
    const char *name = w->original->hf.model.params[i].name;
    arrays *a = &w->a;
    p4_hessian_rows rows = {.rows = weight->rows,
                            .cols = weight->cols,
                            .w = a->w,
                            .h = a->h_mean,
                            .feedback = a->feedback,
                            .wh = a->wh,
                            .t = a->t,
                            .fit = a->fit,
                            .scale = a->scale,
                            .work = a->work};
    bool reached = is_reached(w);
    ops->quantize(device, a->codes, a->scale, &error, weight, P4_QUANT_EXACT, 0.0f,
                  reached ? a->importance : NULL);
    CHECK(error.nonfinite == 0, "%s: tensor %s holds values that are NaN or infinite, %lld of them",
          w->original->hf.path, name, (long long)error.nonfinite);
    if (reached) {
        ops->hessian_weights(device, a->w, weight, a->importance);
        solve_rows(w, &rows);
        ops->pack_trits(device, a->codes, found, a->t, a->scale, weight);
    } else {
        *found = error;
    }
    ops->to_host(device, p4_packed_codes(w->packed, i), a->codes,
                 weight->rows * p4_code_row_bytes(weight->cols));
    ops->to_host(device, p4_packed_scale(w->packed, i), a->scale, weight->rows * 2);
    TRY(ops->sync(device));
    CHECK(isfinite(found->scale_max), "%s: tensor %s has a row whose scale fp16 cannot hold (up to 65504)",
          w->original->hf.path, name);
done:
    return rc;
}

static p4_rc solve_slot(work *w, const p4_form *block)
{
    p4_rc rc = P4_OK;
    const p4_model *model = &w->original->hf.model;
    bool factored = false;
    for (int64_t i = w->slot; i < w->slot + p4_model_readers(model, w->slot); i++) {
        if (is_mine(w, i)) {
            TRY(factored || !is_reached(w) ? P4_OK : factor(w, &model->params[i]));
            factored = true;
            TRY(solve(w, &block->weights[i], i));
        }
    }
done:
    return rc;
}

/* Every rank gets the codes of the slot's matrices, and the form of the block too. Collective. */
static void publish_slot(work *w)
{
    const p4_model *model = &w->original->hf.model;
    const p4_compute *compute = w->compute;
    p4_packed *packed = w->packed;
    for (int64_t i = w->slot; i < w->slot + p4_model_readers(model, w->slot); i++) {
        if (!is_ternary_matrix(w, i)) {
            continue;
        }
        p4_weight weight = packed->weights[i];
        int owner = w->original->shard.owner[i];
        int64_t code_bytes = weight.rows * p4_code_row_bytes(weight.cols), scale_bytes = weight.rows * 2;
        p4_group_bcast(compute->group, p4_packed_codes(packed, i), code_bytes, owner);
        p4_group_bcast(compute->group, p4_packed_scale(packed, i), scale_bytes, owner);
        p4_group_bcast(compute->group, &packed->errors[i], sizeof packed->errors[i], owner);
        if (!compute->ops->host_memory) {
            void *codes = p4_arena_take(&w->block, code_bytes),
                 *scale = p4_arena_take(&w->block, scale_bytes);
            compute->ops->to_device(compute->device, codes, weight.data, code_bytes);
            compute->ops->to_device(compute->device, scale, weight.scale, scale_bytes);
            weight.data = codes;
            weight.scale = scale;
        }
        w->form.weights[i] = weight;
    }
}

static bool slot_is_ternary(const work *w)
{
    bool any = false;
    for (int64_t i = w->slot; i < w->slot + p4_model_readers(&w->original->hf.model, w->slot); i++) {
        any = any || is_ternary_matrix(w, i);
    }
    return any;
}

/* One block: input by input, then its outputs. Collective. */
static p4_rc visit_block(void *user, p4_layers *layers, int64_t layer, const p4_form *block)
{
    static const p4_role slots[] = {P4_ROLE_QKV, P4_ROLE_O, P4_ROLE_UP, P4_ROLE_DOWN};
    p4_rc rc = P4_OK;
    work *w = user;
    const p4_model *model = &w->original->hf.model;
    p4_group *group = w->compute->group;
    memcpy(w->form.weights, block->weights, (size_t)model->params_count * sizeof *w->form.weights);
    w->form.vectors = block->vectors;
    w->block.used_bytes = 0;
    for (size_t k = 0; k < sizeof slots / sizeof slots[0]; k++) {
        int64_t first = p4_model_find(model, slots[k], layer);
        for (w->slot = first; w->slot >= 0; w->slot = p4_model_next_input(model, first, w->slot)) {
            if (slot_is_ternary(w)) {
                TRY(collect(w, layers, layer));
                TRY_ALL(group, solve_slot(w, block));
                publish_slot(w);
            }
        }
    }
    TRY_ALL(group, p4_layers_advance(layers, layer, &w->form, NULL));
done:
    return rc;
}

p4_rc p4_hessian_quantize_blocks(p4_packed *packed, p4_compute *compute, const p4_original *original,
                                 const p4_quantize_plan *plan)
{
    p4_rc rc = P4_OK;
    work w = {.packed = packed, .compute = compute, .original = original, .plan = plan};
    p4_layers layers = {0};
    p4_layers_plan pass = {.B = plan->B, .T = plan->windows->T, .activation_bits = plan->activation_bits};
    TRY_ALL(compute->group, open_work(&w));
    TRY(p4_layers_open(&layers, compute, original, plan->windows, &pass));
    TRY(p4_layers_run(&layers, visit_block, &w));
done:
    p4_layers_close(&layers);
    close_work(&w);
    return rc;
}
