#include "src/optim.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/leaf/rng.h"

/* Of random numbers under the run's seed; p4_rng_permutation has those that are small. */
static const uint64_t moments_stream = (uint64_t)1 << 40, average_stream = (uint64_t)2 << 40;

static bool uses_muon(const p4_optim *o, int64_t i)
{
    return o->settings.muon && p4_role_is_matrix(o->model->params[i].role);
}

static int64_t elements(const p4_param *p)
{
    return p->rows * p->cols;
}

/* Where element `at` of an array of state lies. */
static char *state_at(const p4_optim *o, char *state, int64_t at)
{
    return state + at * (o->settings.half_state ? 2 : 4);
}

static uint64_t random_key(const p4_optim *o, uint64_t stream)
{
    p4_rng rng = {.seed = o->settings.seed, .stream = stream, .counter = (uint64_t)o->step};
    return p4_rng_u64(&rng);
}

static void put_numbers(p4_optim *o, const p4_step_numbers *numbers)
{
    o->ops->to_device(o->device, o->numbers, numbers, sizeof *numbers);
}

/* --- places ------------------------------------------------------------------------------------ */

/* The class of each parameter, by which places are ordered; returns how many there are. Class 0 is what
 * backward passes add to, so that few calls zero it; then matrices, which products may write, by the length
 * of their rows, as what is done by rows can then take many as one (jobs/train/trainer_codes.c). lengths
 * [params_count] is scratch: a model has few different ones. */
static int64_t classify(const p4_model *model, int64_t *classes, int64_t *lengths)
{
    int64_t count = 0;
    for (int64_t i = 0; i < model->params_count; i++) {
        const p4_param *p = &model->params[i];
        int64_t known = 0;
        if (!p4_role_is_matrix(p->role)) {
            classes[i] = 0;
            continue;
        }
        while (known < count && lengths[known] != p->cols) {
            known++;
        }
        if (known == count) {
            lengths[count++] = p->cols;
        }
        classes[i] = 1 + known;
    }
    return 1 + count;
}

static void place_param(p4_optim *o, int64_t i, bool follows)
{
    const p4_param *p = &o->model->params[i];
    if (p->row_offset == 0 || !follows) {
        o->count = (o->count + 15) / 16 * 16;
    }
    o->at[i] = o->count;
    o->count += elements(p);
    if (!uses_muon(o, i)) {
        o->v_at[i] = o->v_count;
        o->v_count += elements(p);
    }
    if (o->settings.learn_scales && p->ternary) {
        o->scale_at[i] = o->scale_count;
        o->scale_count += p4_param_scale_count(p);
    }
}

/* Held parameters of all classes, sharded ones or the others. Slots start on 64-byte lines; the parts of one
 * follow each other without a gap. */
static void place_all(p4_optim *o, const bool *held, const bool *sharded, bool wanted, const int64_t *classes,
                      int64_t classes_count)
{
    for (int64_t class = 0; class < classes_count; class ++) {
        int64_t last = -1; /* the parameter before, if it has a place here */
        for (int64_t i = 0; i < o->model->params_count; i++) {
            if (classes[i] == class && held[i] && sharded[i] == wanted) {
                place_param(o, i, last == i - 1);
                last = i;
            }
        }
    }
}

static p4_rc place(p4_optim *o, const bool *held, const bool *sharded)
{
    p4_rc rc = P4_OK;
    size_t params = (size_t)o->model->params_count;
    uint64_t index = 0;
    int64_t *classes = p4_alloc(params, sizeof *classes), *lengths = p4_alloc(params, sizeof *lengths);
    TRY(classes != NULL && lengths != NULL ? P4_OK : P4_E_SYSTEM);
    for (size_t i = 0; i < params; i++) {
        o->index[i] = index;
        index += (uint64_t)elements(&o->model->params[i]);
        o->at[i] = o->v_at[i] = o->scale_at[i] = -1;
    }
    int64_t count = classify(o->model, classes, lengths);
    place_all(o, held, sharded, false, classes, count);
    o->count = o->replicated_count = (o->count + 15) / 16 * 16;
    place_all(o, held, sharded, true, classes, count);
done:
    free(classes);
    free(lengths);
    return rc;
}

/* --- items ------------------------------------------------------------------------------------- */

/* The group of this shape; NULL: there is none. */
static p4_muon_group *find_group(const p4_optim *o, int64_t rows, int64_t cols)
{
    for (int64_t g = 0; g < o->groups_count; g++) {
        if (o->groups[g].rows == rows && o->groups[g].cols == cols) {
            return &o->groups[g];
        }
    }
    return NULL;
}

static p4_rc count_matrix(p4_optim *o, int64_t rows, int64_t cols)
{
    p4_muon_group *group = find_group(o, rows, cols);
    if (group == NULL) {
        p4_muon_group *more = p4_resize(o->groups, (size_t)o->groups_count + 1, sizeof *more);
        if (more == NULL) {
            return P4_E_SYSTEM;
        }
        o->groups = more;
        group = &more[o->groups_count++];
        *group = (p4_muon_group){.rows = rows, .cols = cols};
    }
    group->count++;
    o->muon_items_count++;
    return P4_OK;
}

/* Counts what is held by shape, so that a step is few calls. Muon takes the matrices of a tensor one by one:
 * Newton-Schulz of their union would mix them. */
static p4_rc count_items(p4_optim *o)
{
    p4_rc rc = P4_OK;
    int64_t first = 0, rows;
    for (int64_t i = 0; i < o->model->params_count; i++) {
        if (o->at[i] >= 0 && !uses_muon(o, i)) {
            o->adamw_items_count++;
        }
        bool muon = o->at[i] >= 0 && uses_muon(o, i);
        for (int64_t m = 0; muon && (rows = p4_model_matrix_rows(o->model, i, m)) > 0; m++) {
            TRY(count_matrix(o, rows, o->model->params[i].cols));
        }
    }
    for (int64_t g = 0; g < o->groups_count; g++) {
        o->groups[g].first = first;
        first += o->groups[g].count;
    }
done:
    return rc;
}

/* Where every item lies, when the arrays do. */
static p4_rc list_items(p4_optim *o)
{
    int64_t adamw = 0, rows;
    o->muon_items = p4_alloc((size_t)o->muon_items_count, sizeof *o->muon_items);
    o->adamw_items = p4_alloc((size_t)o->adamw_items_count, sizeof *o->adamw_items);
    if (o->muon_items == NULL || o->adamw_items == NULL) {
        return P4_E_SYSTEM;
    }
    for (int64_t g = 0; g < o->groups_count; g++) {
        o->groups[g].count = 0;
    }
    for (int64_t i = 0; i < o->model->params_count; i++) {
        const p4_param *p = &o->model->params[i];
        int64_t at = o->at[i];
        if (at >= 0 && !uses_muon(o, i)) {
            o->adamw_items[adamw++] = (p4_adamw_item){.w = o->master + at,
                                                      .m = state_at(o, o->m, at),
                                                      .v = state_at(o, o->v, o->v_at[i]),
                                                      .g = o->grad + at,
                                                      .count = elements(p),
                                                      .index = o->index[i],
                                                      .decay = p->vector ? 0.0f : o->settings.weight_decay};
        }
        bool muon = at >= 0 && uses_muon(o, i);
        for (int64_t m = 0; muon && (rows = p4_model_matrix_rows(o->model, i, m)) > 0; m++) {
            p4_muon_group *group = find_group(o, rows, p->cols);
            o->muon_items[group->first + group->count++] =
                (p4_muon_item){.w = o->master + at,
                               .buf = state_at(o, o->m, at),
                               .g = o->grad + at,
                               .index = o->index[i] + (uint64_t)(at - o->at[i])};
            at += rows * p->cols;
        }
    }
    return P4_OK;
}

static int64_t largest_work(const p4_optim *o)
{
    int64_t most = 0;
    for (int64_t g = 0; g < o->groups_count; g++) {
        const p4_muon_group *group = &o->groups[g];
        most = p4_max_i64(most, o->ops->muon_work_count(o->device, group->count, group->rows, group->cols));
    }
    return most;
}

static void lay_out(p4_optim *o, p4_arena *arena)
{
    o->master = p4_arena_take(arena, o->count * 4);
    o->grad = p4_arena_take(arena, o->count * 4);
    int64_t each = o->settings.half_state ? 2 : 4;
    o->m = p4_arena_take(arena, o->count * each);
    o->v = p4_arena_take(arena, o->v_count * each);
    o->ema = o->settings.grokfast ? p4_arena_take(arena, o->count * each) : NULL;
    o->work = p4_arena_take(arena, largest_work(o) * 4);
    if (o->scale_count > 0) {
        o->scales = p4_arena_take(arena, o->scale_count * 4);
        o->scale_grad = p4_arena_take(arena, o->scale_count * 4);
        o->scale_m = p4_arena_take(arena, o->scale_count * 4);
        o->scale_v = p4_arena_take(arena, o->scale_count * 4);
    }
    o->sums = p4_arena_take(arena, 2 * sizeof *o->sums);
    o->numbers = p4_arena_take(arena, sizeof *o->numbers);
}

p4_rc p4_optim_lay_out(p4_optim *o, const p4_ops *ops, p4_device *device, const p4_model *model,
                       const p4_optim_settings *settings, const bool *held, const bool *sharded)
{
    p4_rc rc = P4_OK;
    *o = (p4_optim){.ops = ops, .device = device, .model = model, .settings = *settings};
    o->at = p4_alloc((size_t)model->params_count, sizeof *o->at);
    o->v_at = p4_alloc((size_t)model->params_count, sizeof *o->v_at);
    o->scale_at = p4_alloc((size_t)model->params_count, sizeof *o->scale_at);
    o->index = p4_alloc((size_t)model->params_count, sizeof *o->index);
    TRY(o->at != NULL && o->v_at != NULL && o->scale_at != NULL && o->index != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(place(o, held, sharded));
    TRY(count_items(o));
    p4_arena count = {0};
    lay_out(o, &count);
    o->memory_bytes = count.used_bytes;
done:
    if (rc != P4_OK) {
        p4_optim_close(o);
    }
    return rc;
}

p4_optim_memory p4_optim_bytes(const p4_optim *o)
{
    int64_t each = o->settings.half_state ? 2 : 4, averages = o->settings.grokfast ? o->count : 0;
    p4_optim_memory bytes = {.masters = (o->count + o->scale_count) * 4,
                             .gradients = (o->count + o->scale_count) * 4,
                             .state = (o->count + o->v_count + averages) * each + 2 * o->scale_count * 4};
    bytes.work = o->memory_bytes - bytes.masters - bytes.gradients - bytes.state;
    return bytes;
}

p4_rc p4_optim_open(p4_optim *o, const p4_ops *ops, p4_device *device, const p4_model *model,
                    const p4_optim_settings *settings, const bool *held, const bool *sharded)
{
    p4_rc rc = P4_OK;
    TRY(p4_optim_lay_out(o, ops, device, model, settings, held, sharded));
    TRY(ops->alloc(device, &o->memory, o->memory_bytes));
    p4_arena arena = {.base = o->memory, .capacity_bytes = o->memory_bytes};
    lay_out(o, &arena);
    TRY(list_items(o));
    ops->zero(device, o->memory, o->memory_bytes);
    TRY(ops->sync(device));
done:
    if (rc != P4_OK) {
        p4_optim_close(o);
    }
    return rc;
}

void p4_optim_close(p4_optim *o)
{
    if (o->memory != NULL) {
        o->ops->release(o->device, o->memory);
    }
    free(o->at);
    free(o->v_at);
    free(o->scale_at);
    free(o->index);
    free(o->groups);
    free(o->muon_items);
    free(o->adamw_items);
    *o = (p4_optim){0};
}

/* The items lie in the order of their parameters. */
void p4_optim_update_only(p4_optim *o, const bool *updated)
{
    int64_t from = 0, kept = 0;
    assert(!o->settings.muon);
    for (int64_t i = 0; i < o->model->params_count; i++) {
        if (o->at[i] >= 0) {
            o->adamw_items[kept] = o->adamw_items[from++];
            kept += updated[i];
        }
    }
    o->adamw_items_count = kept;
}

void p4_optim_restart(p4_optim *o)
{
    o->ops->zero(o->device, o->memory, o->memory_bytes);
    o->step = 0;
}

p4_rc p4_optim_set_master(p4_optim *o, int64_t param, const p4_weight *weight)
{
    float *master = o->master + o->at[param], *grad = o->grad + o->at[param];
    int64_t bytes = weight->rows * weight->cols * p4_dtype_bytes(weight->dtype);
    if (weight->dtype == P4_F32 && !weight->transposed) {
        o->ops->to_device(o->device, master, weight->data, bytes);
        return o->ops->sync(o->device);
    }
    p4_weight there = *weight; /* as it is stored, where the gradient will be */
    there.data = grad;
    o->ops->to_device(o->device, grad, weight->data, bytes);
    o->ops->weight_f32(o->device, master, &there);
    o->ops->zero(o->device, grad, bytes);
    return o->ops->sync(o->device);
}

void p4_optim_sq_norms(p4_optim *o)
{
    o->ops->zero(o->device, o->sums, 2 * sizeof *o->sums);
    o->ops->add_sq_norm(o->device, &o->sums[0], o->grad, o->replicated_count);
    o->ops->add_sq_norm(o->device, &o->sums[1], o->grad + o->replicated_count,
                        o->count - o->replicated_count);
}

void p4_optim_put_grokfast(p4_optim *o)
{
    put_numbers(o, &(p4_step_numbers){.key = random_key(o, average_stream), .first = o->step == 0});
}

void p4_optim_grokfast(p4_optim *o)
{
    const p4_optim_settings *s = &o->settings;
    p4_grokfast_args args = {.count = o->count,
                             .alpha = s->ema_alpha,
                             .lambda = s->ema_lambda,
                             .half = s->half_state,
                             .g = o->grad,
                             .ema = o->ema,
                             .numbers = o->numbers};
    if (!s->half_state) {
        o->ops->grokfast(o->device, &args);
        return;
    }
    int64_t first = 0, end; /* parameters that follow each other here as in the model are one call */
    for (; first < o->model->params_count; first = end) {
        int64_t count = o->at[first] >= 0 ? elements(&o->model->params[first]) : 0;
        for (end = first + 1; count > 0 && end < o->model->params_count && o->at[end] == o->at[first] + count;
             end++) {
            count += elements(&o->model->params[end]);
        }
        if (count > 0) {
            args.count = count;
            args.index = o->index[first];
            args.g = o->grad + o->at[first];
            args.ema = state_at(o, o->ema, o->at[first]);
            o->ops->grokfast(o->device, &args);
        }
    }
}

/* Counts the step. */
static p4_step_numbers next_numbers(p4_optim *o, float lr)
{
    const uint64_t key = random_key(o, moments_stream);
    const double step = (double)++o->step;
    return (p4_step_numbers){.lr = lr,
                             .m_correction = (float)(1.0 / (1.0 - pow((double)o->settings.beta1, step))),
                             .v_correction = (float)(1.0 / (1.0 - pow((double)o->settings.beta2, step))),
                             .key = key};
}

void p4_optim_put_update(p4_optim *o, float lr, float g_scale)
{
    p4_step_numbers numbers = next_numbers(o, lr);
    numbers.g_scale = g_scale;
    put_numbers(o, &numbers);
}

void p4_optim_put_unclipped(p4_optim *o, float lr, double divisor)
{
    p4_step_numbers numbers = next_numbers(o, lr);
    numbers.divisor = divisor;
    put_numbers(o, &numbers);
}

void p4_optim_clip(p4_optim *o, const p4_clip_figures *figures, int64_t ranks, p4_clip_result *result)
{
    o->ops->clip(o->device, &(p4_clip_args){.figures = figures,
                                            .ranks = ranks,
                                            .squares = &o->sums[0],
                                            .clip = (double)o->settings.clip,
                                            .numbers = o->numbers,
                                            .result = result});
}

void p4_optim_update(p4_optim *o)
{
    const p4_optim_settings *s = &o->settings;
    for (int64_t g = 0; g < o->groups_count; g++) {
        const p4_muon_group *group = &o->groups[g];
        o->ops->muon(o->device, &(p4_muon_args){.h_items = o->muon_items + group->first,
                                                .items = group->count,
                                                .rows = group->rows,
                                                .cols = group->cols,
                                                .momentum = s->momentum,
                                                .decay = s->weight_decay,
                                                .half = s->half_state,
                                                .work = o->work,
                                                .numbers = o->numbers});
    }
    o->ops->adamw(o->device, o->adamw_items, o->adamw_items_count, s->beta1, s->beta2, s->eps, s->half_state,
                  o->numbers);
    if (o->scale_count > 0) { /* their state is always fp32 */
        const p4_adamw_item scales = {
            .w = o->scales, .m = o->scale_m, .v = o->scale_v, .g = o->scale_grad, .count = o->scale_count};
        o->ops->adamw(o->device, &scales, 1, s->beta1, s->beta2, s->eps, false, o->numbers);
    }
}

double p4_schedule_lr(double peak, double final_fraction, int64_t warmup, int64_t step, int64_t steps)
{
    if (step < warmup) {
        return peak * (double)(step + 1) / (double)warmup;
    }
    int64_t span = steps - warmup;
    double done = span > 1 ? (double)(step - warmup) / (double)(span - 1) : 0.0;
    return peak * (1.0 - (1.0 - final_fraction) * (done < 1.0 ? done : 1.0));
}
