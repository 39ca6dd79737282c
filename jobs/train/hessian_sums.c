#include "jobs/train/hessian_sums.h"

#include <math.h>
#include <stdlib.h>

enum { SUM_PIECE = 1 << 22 }; /* elements of h that pass through host memory at a time */

static const p4_role projections[] = {P4_ROLE_QKV, P4_ROLE_O, P4_ROLE_UP, P4_ROLE_DOWN};
enum { PROJECTIONS = sizeof projections / sizeof projections[0] };

bool p4_hessian_has(const p4_model *model, int64_t i)
{
    return model->params[i].ternary && p4_role_is_matrix(model->params[i].role);
}

/* Is any of the matrices that read the input quantized under H? */
static bool is_wanted(const p4_model *model, int64_t param)
{
    bool any = false;
    for (int64_t i = param; i < param + p4_model_readers(model, param); i++) {
        any = any || p4_hessian_has(model, i);
    }
    return any;
}

/* --- memory ----------------------------------------------------------------------------------- */

static int64_t h_bytes_of(const p4_model *model, int64_t param)
{
    int64_t cols = model->params[param].cols;
    return cols * cols * (int64_t)sizeof(double);
}

/* The inputs of a projection that are wanted. */
static int64_t count_wanted(const p4_model *model, int64_t first)
{
    int64_t count = 0;
    for (int64_t i = first; i >= 0; i = p4_model_next_input(model, first, i)) {
        count += is_wanted(model, i);
    }
    return count;
}

/* The bytes of the ternary matrices of the largest block in fp32. */
static int64_t largest_block(const p4_model *model)
{
    int64_t most = 0;
    for (int64_t l = 0; l < model->arch.L; l++) {
        int64_t elements = 0;
        for (int64_t i = model->layer_first[l]; i < model->layer_first[l + 1]; i++) {
            elements += p4_hessian_has(model, i) ? model->params[i].rows * model->params[i].cols : 0;
        }
        most = p4_max_i64(most, elements * 4);
    }
    return most;
}

int64_t p4_hessian_sums_bytes(const p4_compute *compute, const p4_original *original, int64_t h_bytes,
                              int64_t room_bytes)
{
    const p4_model *model = &original->hf.model;
    int64_t most = h_bytes > 0 ? h_bytes : largest_block(model), bytes = 0;
    most = compute->ops->host_memory ? most : p4_min_i64(most, room_bytes);
    for (int64_t l = 0; l < model->arch.L; l++) {
        for (int k = 0; k < PROJECTIONS; k++) {
            int64_t first = p4_model_find(model, projections[k], l), each = h_bytes_of(model, first);
            int64_t fit = p4_min_i64(p4_max_i64(1, most / each), count_wanted(model, first));
            bytes = p4_max_i64(bytes, fit * each);
        }
    }
    return bytes;
}

int64_t p4_hessian_sums_passes(const p4_model *model, int64_t bytes)
{
    int64_t passes = 0;
    for (int64_t l = 0; l < model->arch.L; l++) {
        for (int k = 0; k < PROJECTIONS; k++) {
            int64_t first = p4_model_find(model, projections[k], l), wanted = count_wanted(model, first);
            passes += wanted > 0 ? p4_ceil_div(wanted, bytes / h_bytes_of(model, first)) : 0;
        }
    }
    return passes;
}

p4_rc p4_hessian_sums_open(p4_hessian_sums *s)
{
    p4_rc rc = P4_OK;
    s->slots_most = p4_max_i64(1, s->original->hf.model.arch.experts);
    s->slots = p4_alloc((size_t)s->slots_most, sizeof *s->slots);
    TRY(s->slots != NULL ? P4_OK : P4_E_SYSTEM);
    if (!s->compute->ops->host_memory && s->compute->group->ranks > 1) {
        s->h_piece = p4_alloc(SUM_PIECE, sizeof *s->h_piece);
        TRY(s->h_piece != NULL ? P4_OK : P4_E_SYSTEM);
    }
done:
    return rc;
}

void p4_hessian_sums_close(p4_hessian_sums *s)
{
    free(s->slots);
    free(s->h_piece);
    *s = (p4_hessian_sums){0};
}

/* --- the sums --------------------------------------------------------------------------------- */

/* Sums to be expected are tokens * mean square of the original's inputs. Quanta of 2^-44 of the largest of
 * them leave 2^8 for inputs of the ternary blocks that are larger: up to there any division of the windows
 * among ranks gives the same bits. */
static double quantum_of(const p4_hessian_sums *s, int64_t param)
{
    int64_t cols = s->original->hf.model.params[param].cols;
    const double *mean_square = s->plan->statistics->entries[param].input_mean_square;
    double largest = 0.0;
    for (int64_t c = 0; c < cols; c++) {
        largest = fmax(largest, mean_square[c]);
    }
    largest *= (double)(s->plan->windows->count * s->plan->windows->T);
    return largest > 0.0 && isfinite(largest) ? ldexp(1.0, ilogb(largest) + 1 - 44) : 0.0;
}

void p4_hessian_sums_choose(p4_hessian_sums *s, int64_t first, int64_t param, int64_t *next)
{
    const p4_model *model = &s->original->hf.model;
    int64_t cols = model->params[first].cols;
    int64_t fit = p4_min_i64(s->slots_most, s->capacity_bytes / h_bytes_of(model, first));
    s->count = 0;
    /* What is not wanted takes no room, and may be wider than anything that is. */
    for (; param >= 0 && (s->count < fit || !is_wanted(model, param));
         param = p4_model_next_input(model, first, param)) {
        if (is_wanted(model, param)) {
            s->slots[s->count] = (p4_hessian_slot){
                .param = param, .quantum = quantum_of(s, param), .h = s->h + s->count * cols * cols};
            s->count++;
        }
    }
    *next = param;
}

static void see_slot(void *user, int64_t param, const void *x, int64_t in, const void *y, int64_t out,
                     int64_t N)
{
    p4_hessian_sums *s = user;
    (void)y;
    (void)out;
    for (int64_t k = 0; k < s->count; k++) {
        p4_hessian_slot *slot = &s->slots[k];
        if (slot->param == param) {
            slot->rows += (double)N;
            s->compute->ops->hessian_add(
                s->compute->device,
                &(p4_hessian_add_args){
                    .N = N, .C = in, .x = x, .work = s->work, .h = slot->h, .quantum = slot->quantum});
        }
    }
}

/* Every rank gets the sums of `count` elements of h over ranks. Collective. */
static void sum_over_ranks(p4_hessian_sums *s, int64_t count)
{
    p4_group *group = s->compute->group;
    const p4_ops *ops = s->compute->ops;
    if (group->ranks == 1) {
        return;
    }
    for (int64_t k = 0; k < s->count; k++) {
        p4_group_sum_f64(group, &s->slots[k].rows, 1);
    }
    if (ops->host_memory) {
        p4_group_sum_f64(group, s->h, count);
        return;
    }
    for (int64_t at = 0; at < count; at += SUM_PIECE) {
        int64_t piece = p4_min_i64(SUM_PIECE, count - at), bytes = piece * (int64_t)sizeof(double);
        ops->to_host(s->compute->device, s->h_piece, s->h + at, bytes);
        p4_group_sum_f64(group, s->h_piece, piece);
        ops->to_device(s->compute->device, s->h + at, s->h_piece, bytes);
    }
}

p4_rc p4_hessian_sums_collect(p4_hessian_sums *s, p4_layers *layers, int64_t layer, const p4_form *form)
{
    p4_rc rc = P4_OK;
    p4_probe probe = {.slot = see_slot, .user = s};
    int64_t bytes = s->count * h_bytes_of(&s->original->hf.model, s->slots[0].param);
    s->compute->ops->zero(s->compute->device, s->h, bytes);
    TRY_ALL(s->compute->group, p4_layers_observe(layers, layer, form, &probe));
    sum_over_ranks(s, bytes / (int64_t)sizeof(double));
done:
    return rc;
}
