#include "jobs/train/hessian.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "jobs/train/hessian_sums.h"

enum { SWEEPS_MAX = 32 }; /* of coordinate descent, which ends by itself when no trit changes */
/* H is damped by at least DAMPING of the mean of its diagonal, and more where few tokens are behind each
 * input channel: without that, trits are fitted to the noise of H (docs/methods.md 1). The factor gets more
 * where it does not exist. */
static const double DAMPING = 0.01, DAMPING_BY_TOKENS = 4.0, DAMPING_WARNED = 1.0, DAMPING_MAX = 1e6;

/* The arrays of one matrix at work, and of H, in device memory for the largest of them. */
typedef struct arrays {
    double *h;         /* sums of products, of all inputs of a pass */
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
    p4_arena block;              /* codes of the block at work, on a device with its own memory */
    p4_hessian_sums sums;        /* of the inputs of a pass */
    const p4_hessian_slot *slot; /* at work, of these */
    float *h_importance;         /* host, of the widest slot */
} work;

static bool is_ternary_matrix(const work *w, int64_t i)
{
    return p4_hessian_has(&w->original->hf.model, i);
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

/* All but h. */
static void lay_out(work *w, const extent *e, p4_arena *arena)
{
    int64_t square = e->cols * e->cols, each = sizeof(float);
    arrays *a = &w->a;
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

p4_hessian_memory p4_hessian_plan_bytes(const p4_compute *compute, const p4_original *original,
                                        int64_t h_bytes, int64_t room_bytes)
{
    const double MEMORY_PART = 0.8; /* of what is left on a GPU */
    work w = {.compute = (p4_compute *)(uintptr_t)compute, .original = original};
    extent e = measure(&w);
    p4_arena count = {0};
    lay_out(&w, &e, &count);
    int64_t others = count.used_bytes + block_bytes(&w);
    int64_t sums = p4_hessian_sums_bytes(compute, original, h_bytes,
                                         (int64_t)(MEMORY_PART * (double)(room_bytes - others)));
    return (p4_hessian_memory){
        .sums = sums, .others = others, .passes = p4_hessian_sums_passes(&original->hf.model, sums)};
}

/* The bytes of sums, the same on every rank: what the rank with least room has. Collective. */
static p4_rc choose_sums(work *w, const p4_layers_plan *pass, int64_t *bytes)
{
    p4_rc rc = P4_OK;
    const p4_compute *c = w->compute;
    p4_layers_memory layers;
    TRY_ALL(c->group, p4_layers_bytes(&layers, c, w->original, w->plan->windows->count, pass));
    int64_t room = c->ops->room_bytes(c->device) - layers.work - layers.states;
    double least = -(double)p4_hessian_plan_bytes(c, w->original, w->plan->h_bytes, room).sums;
    p4_group_max_f64(c->group, &least, 1);
    *bytes = (int64_t)-least;
done:
    return rc;
}

/* sums_bytes: from choose_sums. Local. */
static p4_rc open_work(work *w, int64_t sums_bytes)
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
    lay_out(w, &e, &count);
    TRY(ops->alloc(w->compute->device, &w->memory, count.used_bytes));
    p4_arena arena = {.base = w->memory, .capacity_bytes = count.used_bytes};
    lay_out(w, &e, &arena);
    TRY(ops->alloc(w->compute->device, (void **)&w->a.h, sums_bytes));
    TRY(ops->alloc(w->compute->device, (void **)&w->block.base, w->block.capacity_bytes));
    w->sums = (p4_hessian_sums){.compute = w->compute,
                                .original = w->original,
                                .plan = w->plan,
                                .capacity_bytes = sums_bytes,
                                .h = w->a.h,
                                .work = w->a.h_mean};
    TRY(p4_hessian_sums_open(&w->sums));
done:
    return rc;
}

static void close_work(work *w)
{
    const p4_ops *ops = w->compute->ops;
    void *const memory[] = {w->memory, w->a.h, w->block.base};
    for (size_t i = 0; i < sizeof memory / sizeof memory[0]; i++) {
        if (memory[i] != NULL) {
            ops->release(w->compute->device, memory[i]);
        }
    }
    p4_hessian_sums_close(&w->sums);
    free(w->form.weights);
    free(w->h_importance);
}

/* --- H of a slot ------------------------------------------------------------------------------ */

/* h becomes h_mean, with importance. Local. */
static p4_rc finish(work *w, const p4_param *p)
{
    p4_rc rc = P4_OK;
    const p4_ops *ops = w->compute->ops;
    double tokens = fmax(w->slot->rows, 1.0);
    ops->hessian_finish(
        w->compute->device,
        &(p4_hessian_finish_args){.C = p->cols,
                                  .sums = w->slot->h,
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
                                                                  .work = w->slot->h,
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
    return w->slot->rows > 0 && p4_statistics_reached(w->plan->statistics, w->slot->param);
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
    int64_t first = w->slot->param;
    bool factored = false;
    for (int64_t i = first; i < first + p4_model_readers(model, first); i++) {
        if (is_mine(w, i)) {
            TRY(factored || !is_reached(w) ? P4_OK : factor(w, &model->params[i]));
            factored = true;
            TRY(solve(w, &block->weights[i], i));
        }
    }
done:
    return rc;
}

/* Every rank gets the codes of the slot's matrices. Collective. */
static void publish_slot(work *w)
{
    const p4_model *model = &w->original->hf.model;
    p4_group *group = w->compute->group;
    p4_packed *packed = w->packed;
    int64_t first = w->slot->param;
    for (int64_t i = first; i < first + p4_model_readers(model, first); i++) {
        const p4_weight *weight = &packed->weights[i];
        int owner = w->original->shard.owner[i];
        if (is_ternary_matrix(w, i)) {
            p4_group_bcast(group, p4_packed_codes(packed, i), weight->rows * p4_code_row_bytes(weight->cols),
                           owner);
            p4_group_bcast(group, p4_packed_scale(packed, i), weight->rows * 2, owner);
            p4_group_bcast(group, &packed->errors[i], sizeof packed->errors[i], owner);
        }
    }
}

/* The form of the block gets the codes of a projection: of all its inputs at once, as activations are rounded
 * once its matrices are ternary. Local. */
static void adopt(work *w, int64_t first)
{
    const p4_compute *compute = w->compute;
    for (int64_t i = first; i < first + p4_model_parts(&w->original->hf.model, first); i++) {
        if (!is_ternary_matrix(w, i)) {
            continue;
        }
        p4_weight weight = w->packed->weights[i];
        if (!compute->ops->host_memory) {
            int64_t code_bytes = weight.rows * p4_code_row_bytes(weight.cols), scale_bytes = weight.rows * 2;
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

/* The inputs of one pass: their sums, then matrix by matrix. Collective. */
static p4_rc quantize_pass(work *w, p4_layers *layers, int64_t layer, const p4_form *block)
{
    p4_rc rc = P4_OK;
    p4_group *group = w->compute->group;
    const p4_model *model = &w->original->hf.model;
    TRY(p4_hessian_sums_collect(&w->sums, layers, layer, &w->form));
    for (int64_t k = 0; k < w->sums.count; k++) {
        w->slot = &w->sums.slots[k];
        TRY_ALL(group, finish(w, &model->params[w->slot->param]));
        TRY_ALL(group, solve_slot(w, block));
        publish_slot(w);
    }
done:
    return rc;
}

/* One block: pass by pass, then its outputs. Collective. */
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
        for (int64_t param = first; param >= 0;) {
            p4_hessian_sums_choose(&w->sums, first, param, &param);
            TRY(w->sums.count > 0 ? quantize_pass(w, layers, layer, block) : P4_OK);
        }
        adopt(w, first);
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
    int64_t sums_bytes;
    TRY(choose_sums(&w, &pass, &sums_bytes));
    TRY_ALL(compute->group, open_work(&w, sums_bytes));
    TRY(p4_layers_open(&layers, compute, original, plan->windows, &pass));
    TRY(p4_layers_run(&layers, visit_block, &w));
done:
    p4_layers_close(&layers);
    close_work(&w);
    return rc;
}
