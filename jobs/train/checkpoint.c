#include "jobs/train/checkpoint.h"

#include <stdlib.h>

#include "src/optim_state.h"

/* A row of numbers. */
static p4_rc put_numbers(p4_arrays_writer *w, const char *group, const char *tensor, const char *what,
                         const double *values, int64_t count)
{
    char *name = p4_format("%s/%s/%s", group, tensor, what);
    p4_rc rc = name != NULL ? p4_arrays_put(w, name, P4_H5_F64, 1, count, values) : P4_E_SYSTEM;
    free(name);
    return rc;
}

static p4_rc take_numbers(const p4_arrays *arrays, const char *group, const char *tensor, const char *what,
                          double *values, int64_t count)
{
    char *name = p4_format("%s/%s/%s", group, tensor, what);
    p4_rc rc = name != NULL ? p4_arrays_read(arrays, name, P4_H5_F64, 1, count, values) : P4_E_SYSTEM;
    free(name);
    return rc;
}

/* ---- training ---- */

/* The array of a part of a parameter, and what it takes. */
typedef struct piece {
    char *name; /* heap */
    p4_h5_type type;
    int64_t rows, cols;
    void *h_values; /* heap */
    int64_t bytes;
} piece;

static void free_piece(piece *p)
{
    free(p->name);
    free(p->h_values);
}

static p4_rc open_piece(piece *p, const p4_trainer *t, int64_t i, p4_optim_part part)
{
    const p4_param *param = &t->model->params[i];
    *p = (piece){.bytes = p4_optim_part_bytes_of(&t->optim, i, part)};
    p4_optim_part_shape(param, part, &p->rows, &p->cols);
    p->type = p->bytes == p->rows * p->cols * 4 ? P4_H5_F32 : P4_H5_U16;
    p->name = p4_format("tensors/%s/%s", param->name, p4_optim_part_name(part));
    p->h_values = p4_alloc((size_t)p->bytes, 1);
    return p->name != NULL && p->h_values != NULL ? P4_OK : P4_E_SYSTEM;
}

static bool writes(const p4_trainer *t, int64_t i)
{
    const p4_group *group = t->compute->group;
    return t->sharded[i] ? t->original->shard.owner[i] == group->rank : i % group->ranks == group->rank;
}

static p4_rc put_part(p4_arrays_writer *w, const p4_trainer *t, int64_t i, p4_optim_part part)
{
    p4_rc rc = P4_OK;
    const p4_param *param = &t->model->params[i];
    piece p;
    TRY(open_piece(&p, t, i, part));
    if (p.bytes > 0) {
        TRY(p4_optim_get(&t->optim, param->name, part, p.h_values, p.bytes));
        TRY(p4_arrays_put(w, p.name, p.type, p.rows, p.cols, p.h_values));
    }
done:
    free_piece(&p);
    return rc;
}

p4_rc p4_checkpoint_put_trainer(p4_arrays_writer *w, const p4_trainer *t)
{
    p4_rc rc = P4_OK;
    for (int64_t i = 0; i < t->model->params_count; i++) {
        for (p4_optim_part part = 0; part < P4_PART_COUNT && writes(t, i); part++) {
            TRY(put_part(w, t, i, part));
        }
    }
done:
    return rc;
}

static p4_rc take_part(const p4_arrays *arrays, p4_trainer *t, int64_t i, p4_optim_part part)
{
    p4_rc rc = P4_OK;
    const p4_param *param = &t->model->params[i];
    piece p;
    TRY(open_piece(&p, t, i, part));
    if (p.bytes > 0) {
        TRY(p4_arrays_read(arrays, p.name, p.type, p.rows, p.cols, p.h_values));
        TRY(p4_optim_set(&t->optim, param->name, part, p.h_values, p.bytes));
    }
done:
    free_piece(&p);
    return rc;
}

p4_rc p4_checkpoint_take_trainer(const p4_arrays *arrays, p4_trainer *t, int64_t updates)
{
    p4_rc rc = P4_OK;
    for (int64_t i = 0; i < t->model->params_count; i++) {
        for (p4_optim_part part = 0; part < P4_PART_COUNT && t->optim.at[i] >= 0; part++) {
            TRY(take_part(arrays, t, i, part));
        }
    }
    t->optim.step = updates;
done:
    return rc;
}

/* ---- the compressed model ---- */

enum { ERROR_NUMBERS = 6 };

static p4_rc put_array(p4_arrays_writer *w, const char *tensor, const char *what, p4_h5_type type,
                       int64_t rows, int64_t cols, const void *values)
{
    char *name = p4_format("codes/%s/%s", tensor, what);
    p4_rc rc = name != NULL ? p4_arrays_put(w, name, type, rows, cols, values) : P4_E_SYSTEM;
    free(name);
    return rc;
}

static p4_rc take_array(const p4_arrays *arrays, const char *tensor, const char *what, p4_h5_type type,
                        int64_t rows, int64_t cols, void *values)
{
    char *name = p4_format("codes/%s/%s", tensor, what);
    p4_rc rc = name != NULL ? p4_arrays_read(arrays, name, type, rows, cols, values) : P4_E_SYSTEM;
    free(name);
    return rc;
}

static p4_rc put_tensor(p4_arrays_writer *w, const p4_packed *c, int64_t i)
{
    p4_rc rc = P4_OK;
    const p4_param *p = &c->model->params[i];
    if (!p->ternary) {
        return put_array(w, p->name, "half", P4_H5_F16, p->rows, p->cols, p4_packed_half(c, i));
    }
    const p4_quant_error *e = &c->errors[i];
    const double error[ERROR_NUMBERS] = {e->sq_error,          e->sq_norm,           (double)e->zeros,
                                         (double)e->scale_min, (double)e->scale_max, (double)e->nonfinite};
    TRY(put_array(w, p->name, "codes", P4_H5_U8, p->rows, p4_code_row_bytes(p->cols), p4_packed_codes(c, i)));
    TRY(put_array(w, p->name, "scale", P4_H5_F16, p4_param_scale_count(p), 1, p4_packed_scale(c, i)));
    TRY(put_numbers(w, "codes", p->name, "error", error, ERROR_NUMBERS));
done:
    return rc;
}

p4_rc p4_checkpoint_put_packed(p4_arrays_writer *w, const p4_packed *c, int rank, int ranks)
{
    p4_rc rc = P4_OK;
    for (int64_t i = rank; i < c->model->params_count; i += ranks) {
        TRY(put_tensor(w, c, i));
    }
done:
    return rc;
}

/* Of the share of p4_checkpoint_put_packed. */
static int64_t packed_bytes(const p4_model *model, int rank, int ranks)
{
    int64_t bytes = 0;
    for (int64_t i = rank; i < model->params_count; i += ranks) {
        const p4_param *p = &model->params[i];
        bytes += p->ternary ? p->rows * p4_code_row_bytes(p->cols) + p4_param_scale_count(p) * 2 +
                                  ERROR_NUMBERS * (int64_t)sizeof(double)
                            : p->rows * p->cols * 2;
    }
    return bytes;
}

int64_t p4_checkpoint_copy_bytes(const p4_trainer *t)
{
    const p4_group *group = t->compute->group;
    int64_t bytes = packed_bytes(t->model, group->rank, group->ranks);
    for (int64_t i = 0; i < t->model->params_count; i++) {
        for (p4_optim_part part = 0; part < P4_PART_COUNT && writes(t, i); part++) {
            bytes += p4_optim_part_bytes_of(&t->optim, i, part);
        }
    }
    return bytes;
}

static p4_rc take_tensor(const p4_arrays *arrays, p4_packed *c, int64_t i)
{
    p4_rc rc = P4_OK;
    const p4_param *p = &c->model->params[i];
    double error[ERROR_NUMBERS];
    if (!p->ternary) {
        return take_array(arrays, p->name, "half", P4_H5_F16, p->rows, p->cols, p4_packed_half(c, i));
    }
    TRY(take_array(arrays, p->name, "codes", P4_H5_U8, p->rows, p4_code_row_bytes(p->cols),
                   p4_packed_codes(c, i)));
    TRY(take_array(arrays, p->name, "scale", P4_H5_F16, p4_param_scale_count(p), 1, p4_packed_scale(c, i)));
    TRY(take_numbers(arrays, "codes", p->name, "error", error, ERROR_NUMBERS));
    c->errors[i] = (p4_quant_error){.sq_error = error[0],
                                    .sq_norm = error[1],
                                    .zeros = (int64_t)error[2],
                                    .scale_min = (float)error[3],
                                    .scale_max = (float)error[4],
                                    .nonfinite = (int64_t)error[5]};
done:
    return rc;
}

p4_rc p4_checkpoint_take_packed(const p4_arrays *arrays, p4_packed *c, const p4_model *model)
{
    p4_rc rc = P4_OK;
    TRY(p4_packed_alloc(c, model));
    for (int64_t i = 0; i < model->params_count; i++) {
        TRY(take_tensor(arrays, c, i));
    }
    c->is_compressed = true;
done:
    return rc;
}

/* ---- statistics ---- */

static const char seen_name[] = "statistics/seen"; /* tokens, loss */

static p4_rc put_entry(p4_arrays_writer *w, const p4_activation_stats *s, const p4_param *p)
{
    p4_rc rc = P4_OK;
    const p4_moments *m = &s->output;
    const double output[] = {m->sum, m->sum_sq, m->count, (double)m->min, (double)m->max};
    TRY(put_numbers(w, "statistics", p->name, "output", output, sizeof output / sizeof *output));
    TRY(s->owns_input ? put_numbers(w, "statistics", p->name, "input", s->input_mean_square, p->cols)
                      : P4_OK);
done:
    return rc;
}

p4_rc p4_checkpoint_put_statistics(p4_arrays_writer *w, const p4_statistics *s, const p4_model *model,
                                   int rank, int ranks)
{
    p4_rc rc = P4_OK;
    const double seen[] = {s->tokens, s->loss};
    if (s->entries == NULL) {
        return P4_OK;
    }
    TRY(rank == 0 ? p4_arrays_put(w, seen_name, P4_H5_F64, 1, 2, seen) : P4_OK);
    for (int64_t i = rank; i < s->count; i += ranks) {
        TRY(p4_statistics_has(s, i) ? put_entry(w, &s->entries[i], &model->params[i]) : P4_OK);
    }
done:
    return rc;
}

/* slot: the entry whose input this one shares, if it has none of its own. */
static p4_rc take_entry(const p4_arrays *arrays, p4_activation_stats *s, const p4_activation_stats *slot,
                        const p4_param *p)
{
    p4_rc rc = P4_OK;
    double output[5];
    TRY(take_numbers(arrays, "statistics", p->name, "output", output, 5));
    s->output = (p4_moments){.sum = output[0],
                             .sum_sq = output[1],
                             .count = output[2],
                             .min = (float)output[3],
                             .max = (float)output[4]};
    if (p->input_offset > 0) {
        s->input_mean_square = slot->input_mean_square;
        return P4_OK;
    }
    s->owns_input = true;
    s->input_mean_square = p4_alloc((size_t)p->cols, sizeof *s->input_mean_square);
    TRY(s->input_mean_square != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(take_numbers(arrays, "statistics", p->name, "input", s->input_mean_square, p->cols));
done:
    return rc;
}

p4_rc p4_checkpoint_take_statistics(const p4_arrays *arrays, p4_statistics *s, const p4_model *model)
{
    p4_rc rc = P4_OK;
    double seen[2];
    const p4_activation_stats *slot = NULL;
    *s = (p4_statistics){0};
    if (!p4_arrays_have(arrays, seen_name)) {
        return P4_OK;
    }
    TRY(p4_arrays_read(arrays, seen_name, P4_H5_F64, 1, 2, seen));
    *s = (p4_statistics){.count = model->params_count, .tokens = seen[0], .loss = seen[1]};
    s->entries = p4_alloc((size_t)s->count, sizeof *s->entries);
    TRY(s->entries != NULL ? P4_OK : P4_E_SYSTEM);
    for (int64_t i = 0; i < s->count; i++) {
        const p4_param *p = &model->params[i];
        if (p4_role_is_matrix(p->role)) {
            slot = p->input_offset == 0 ? &s->entries[i] : slot;
            TRY(take_entry(arrays, &s->entries[i], slot, p));
        }
    }
done:
    return rc;
}

/* ---- arrays that a stage hands to the next ---- */

p4_rc p4_checkpoint_put_arrays(p4_arrays_writer *w, const char *kind, float *const *arrays,
                               const bool *writes_it, const p4_model *model)
{
    p4_rc rc = P4_OK;
    for (int64_t i = 0; rc == P4_OK && i < model->params_count; i++) {
        const p4_param *p = &model->params[i];
        if (writes_it[i] && arrays[i] != NULL) {
            char *name = p4_format("arrays/%s/%s", kind, p->name);
            rc = name != NULL ? p4_arrays_put(w, name, P4_H5_F32, p->rows, p->cols, arrays[i]) : P4_E_SYSTEM;
            free(name);
        }
    }
    return rc;
}

static p4_rc take_named(const p4_arrays *from, const char *name, float **to, bool wants, const p4_param *p)
{
    if (!wants) {
        return P4_OK;
    }
    *to = p4_alloc((size_t)(p->rows * p->cols), sizeof **to);
    return *to != NULL ? p4_arrays_read(from, name, P4_H5_F32, p->rows, p->cols, *to) : P4_E_SYSTEM;
}

p4_rc p4_checkpoint_take_arrays(const p4_arrays *from, const char *kind, float **arrays, bool *known,
                                const bool *wants, const p4_model *model)
{
    p4_rc rc = P4_OK;
    for (int64_t i = 0; rc == P4_OK && i < model->params_count; i++) {
        char *name = p4_format("arrays/%s/%s", kind, model->params[i].name);
        known[i] = name != NULL && p4_arrays_have(from, name);
        rc = name != NULL ? take_named(from, name, &arrays[i], known[i] && wants[i], &model->params[i])
                          : P4_E_SYSTEM;
        free(name);
    }
    return rc;
}
