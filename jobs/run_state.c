#include "jobs/run_state.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/json/evaluation.h"
#include "io/out/report.h"
#include "jobs/train/checkpoint.h"

enum {
    EVALUATION = P4_EVALUATION_MEMBERS,
    EVALUATION_OF_3 = 5,  /* of checkpoints of version 3: no intervals */
    EVALUATION_OF_4 = 12, /* of version 4: no agreement, which is the member AGREEMENT */
    AGREEMENT = 8,
    TUNING = 7,
    HISTORY = 5,
    POINT = 9, /* and block_distance, which is apart */
    TRAINING = 7,
    EVALUATIONS = 3,
    RECONSTRUCTION = 4,
    BLOCK_LOSS = 4
};
/* A field that is added to one of these must be saved as well: all are numbers of 8 bytes. */
_Static_assert(sizeof(p4_history_entry) == HISTORY * sizeof(double),
               "an entry of the history is saved whole");
_Static_assert(sizeof(p4_training_point) == (POINT + 1) * sizeof(double),
               "a point of the curve is saved whole");
_Static_assert(sizeof(p4_tuning_state) == (TRAINING - 1) * sizeof(double),
               "the state of a training is saved whole");
_Static_assert(sizeof(p4_block_loss) == BLOCK_LOSS * sizeof(double), "a block's loss is saved whole");
_Static_assert(offsetof(p4_reconstruction, losses_count) == RECONSTRUCTION * sizeof(double),
               "reconstruction is saved whole");
/* `ran`, the numbers, and of the history its counts and its address. */
_Static_assert(offsetof(p4_fine_tuning, block_distance) == TUNING * sizeof(double),
               "fine-tuning is saved whole");

static const char evaluations_name[] = "run/evaluations", tuning_name[] = "run/fine_tuning",
                  history_name[] = "run/history", curve_name[] = "run/curve",
                  block_distances_name[] = "run/block_distances", training_name[] = "run/training",
                  compressed_name[] = "run/compressed", reconstruction_name[] = "run/reconstruction",
                  block_losses_name[] = "run/block_losses", original_losses_name[] = "run/original_losses",
                  masters_name[] = "masters", set_evaluations_name[] = "run/set_evaluations",
                  texts_name[] = "run/texts_evaluated";

static p4_rc put(p4_arrays_writer *w, const char *name, int64_t rows, int64_t cols, const double *values)
{
    return rows > 0 ? p4_arrays_put(w, name, P4_H5_F64, rows, cols, values) : P4_OK;
}

static p4_rc take(const p4_arrays *arrays, const char *name, int64_t rows, int64_t cols, double *values)
{
    return p4_arrays_read(arrays, name, P4_H5_F64, rows, cols, values);
}

/* *values: all rows of an array with so many columns, heap; NULL and no rows if there is none. */
static p4_rc take_rows(const p4_arrays *arrays, const char *name, int64_t cols, int64_t *rows,
                       double **values)
{
    p4_rc rc = P4_OK;
    p4_array_form form;
    *rows = 0;
    *values = NULL;
    if (!p4_arrays_have(arrays, name)) {
        return P4_OK;
    }
    TRY(p4_arrays_describe(arrays, name, &form));
    *values = p4_alloc((size_t)form.rows, (size_t)cols * sizeof **values);
    TRY(*values != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(take(arrays, name, form.rows, cols, *values));
    *rows = form.rows;
done:
    return rc;
}

/* ---- the results ---- */

static p4_rc put_evaluations(p4_arrays_writer *w, const p4_run *run)
{
    p4_rc rc = P4_OK;
    const p4_results *r = &run->results;
    double numbers[EVALUATIONS * EVALUATION];
    p4_evaluation_to_numbers(numbers, &r->pre);
    p4_evaluation_to_numbers(numbers + EVALUATION, &r->post);
    p4_evaluation_to_numbers(numbers + 2 * EVALUATION, &r->final);
    TRY(put(w, evaluations_name, EVALUATIONS, EVALUATION, numbers));
    TRY(put(w, original_losses_name, run->original_losses.count, 1, run->original_losses.nll));
done:
    return rc;
}

static p4_evaluation evaluation_of_3(const double numbers[EVALUATION_OF_3])
{
    p4_evaluation e = p4_evaluation_none();
    e.loss = numbers[0];
    e.perplexity = numbers[1];
    e.accuracy = numbers[2];
    e.kl = numbers[3];
    e.tokens = (int64_t)numbers[4];
    return e;
}

static p4_evaluation evaluation_of_4(const double numbers[EVALUATION_OF_4])
{
    double whole[EVALUATION];
    memcpy(whole, numbers, AGREEMENT * sizeof *whole);
    whole[AGREEMENT] = NAN;
    memcpy(whole + AGREEMENT + 1, numbers + AGREEMENT, (EVALUATION_OF_4 - AGREEMENT) * sizeof *whole);
    return p4_evaluation_from_numbers(whole);
}

static p4_rc take_evaluations(const p4_arrays *arrays, p4_run *run)
{
    p4_rc rc = P4_OK;
    p4_results *r = &run->results;
    p4_evaluation *all[EVALUATIONS] = {&r->pre, &r->post, &r->final};
    double numbers[EVALUATIONS * EVALUATION];
    p4_array_form form;
    TRY(p4_arrays_describe(arrays, evaluations_name, &form));
    bool old = form.cols == EVALUATION_OF_3 || form.cols == EVALUATION_OF_4;
    int64_t members = old ? form.cols : EVALUATION;
    TRY(take(arrays, evaluations_name, EVALUATIONS, members, numbers));
    for (int i = 0; i < EVALUATIONS; i++) {
        const double *of = numbers + i * members;
        *all[i] = members == EVALUATION_OF_3   ? evaluation_of_3(of)
                  : members == EVALUATION_OF_4 ? evaluation_of_4(of)
                                               : p4_evaluation_from_numbers(of);
    }
    TRY(take_rows(arrays, original_losses_name, 1, &run->original_losses.count, &run->original_losses.nll));
done:
    return rc;
}

/* The losses of one set, whose number the name has. */
static p4_rc put_set_losses(p4_arrays_writer *w, const p4_part_losses *losses, int64_t set)
{
    char name[64];
    snprintf(name, sizeof name, "run/set_losses_%lld", (long long)set);
    return put(w, name, losses->count, 1, losses->nll);
}

static p4_rc take_set_losses(const p4_arrays *arrays, p4_part_losses *losses, int64_t set)
{
    char name[64];
    snprintf(name, sizeof name, "run/set_losses_%lld", (long long)set);
    return take_rows(arrays, name, 1, &losses->count, &losses->nll);
}

/* A run without sets has no such arrays. */
static p4_rc put_sets(p4_arrays_writer *w, const p4_run *run)
{
    p4_rc rc = P4_OK;
    const p4_results *r = &run->results;
    const double texts = (double)run->texts_evaluated;
    double numbers[P4_SETS_MAX * EVALUATIONS * EVALUATION];
    for (int64_t i = 0; i < r->set_count; i++) {
        const p4_set_results *set = &r->sets[i];
        double *rows = numbers + i * EVALUATIONS * EVALUATION;
        p4_evaluation_to_numbers(rows, &set->pre);
        p4_evaluation_to_numbers(rows + EVALUATION, &set->post);
        p4_evaluation_to_numbers(rows + 2 * EVALUATION, &set->final);
        TRY(put_set_losses(w, &run->sets[i].original_losses, i));
    }
    TRY(put(w, set_evaluations_name, EVALUATIONS * r->set_count, EVALUATION, numbers));
    TRY(put(w, texts_name, r->set_count > 0, 1, &texts));
done:
    return rc;
}

/* The sets are those of the configuration, which the checkpoint has alike. */
static p4_rc take_sets(const p4_arrays *arrays, p4_run *run)
{
    p4_rc rc = P4_OK;
    p4_results *r = &run->results;
    double numbers[P4_SETS_MAX * EVALUATIONS * EVALUATION], texts;
    if (r->set_count == 0) {
        return P4_OK;
    }
    TRY(take(arrays, set_evaluations_name, EVALUATIONS * r->set_count, EVALUATION, numbers));
    TRY(take(arrays, texts_name, 1, 1, &texts));
    run->texts_evaluated = (int64_t)texts;
    for (int64_t i = 0; i < r->set_count; i++) {
        p4_set_results *set = &r->sets[i];
        const double *rows = numbers + i * EVALUATIONS * EVALUATION;
        set->pre = p4_evaluation_from_numbers(rows);
        set->post = p4_evaluation_from_numbers(rows + EVALUATION);
        set->final = p4_evaluation_from_numbers(rows + 2 * EVALUATION);
        TRY(take_set_losses(arrays, &run->sets[i].original_losses, i));
    }
done:
    return rc;
}

static p4_rc put_tuning(p4_arrays_writer *w, const p4_fine_tuning *f)
{
    p4_rc rc = P4_OK;
    const double numbers[TUNING] = {(double)f->ran, f->epochs_completed, (double)f->steps,  (double)f->tokens,
                                    f->final_loss,  f->final_perplexity, f->best_perplexity};
    double *rows = p4_alloc((size_t)f->history_count, HISTORY * sizeof *rows);
    TRY(rows != NULL ? P4_OK : P4_E_SYSTEM);
    for (int64_t i = 0; i < f->history_count; i++) {
        const p4_history_entry *h = &f->history[i];
        const double row[HISTORY] = {(double)h->epoch, (double)h->step, h->train_loss, h->eval_loss,
                                     h->eval_perplexity};
        memcpy(rows + i * HISTORY, row, sizeof row);
    }
    TRY(put(w, tuning_name, 1, TUNING, numbers));
    TRY(put(w, history_name, f->history_count, HISTORY, rows));
done:
    free(rows);
    return rc;
}

static p4_rc take_tuning(const p4_arrays *arrays, p4_fine_tuning *f)
{
    p4_rc rc = P4_OK;
    double numbers[TUNING], *rows = NULL;
    int64_t count = 0;
    TRY(take(arrays, tuning_name, 1, TUNING, numbers));
    f->ran = numbers[0] != 0;
    f->epochs_completed = numbers[1];
    f->steps = (int64_t)numbers[2];
    f->tokens = (int64_t)numbers[3];
    f->final_loss = numbers[4];
    f->final_perplexity = numbers[5];
    f->best_perplexity = numbers[6];
    TRY(take_rows(arrays, history_name, HISTORY, &count, &rows));
    for (int64_t i = 0; i < count; i++) {
        const double *row = rows + i * HISTORY;
        TRY(p4_fine_tuning_add_history(f, &(p4_history_entry){.epoch = (int64_t)row[0],
                                                              .step = (int64_t)row[1],
                                                              .train_loss = row[2],
                                                              .eval_loss = row[3],
                                                              .eval_perplexity = row[4]}));
    }
done:
    free(rows);
    return rc;
}

/* ---- reconstruction, and what training starts from ---- */

static p4_rc put_reconstruction(p4_arrays_writer *w, const p4_reconstruction *r)
{
    p4_rc rc = P4_OK;
    const double numbers[RECONSTRUCTION] = {(double)r->ran, (double)r->tokens, (double)r->steps, r->seconds};
    double *rows = p4_alloc((size_t)r->losses_count, BLOCK_LOSS * sizeof *rows);
    TRY(rows != NULL ? P4_OK : P4_E_SYSTEM);
    for (int64_t i = 0; i < r->losses_count; i++) {
        const p4_block_loss *l = &r->losses[i];
        const double row[BLOCK_LOSS] = {(double)l->first_block, (double)l->blocks, l->before, l->after};
        memcpy(rows + i * BLOCK_LOSS, row, sizeof row);
    }
    TRY(put(w, reconstruction_name, 1, RECONSTRUCTION, numbers));
    TRY(put(w, block_losses_name, r->losses_count, BLOCK_LOSS, rows));
done:
    free(rows);
    return rc;
}

static p4_rc take_reconstruction(const p4_arrays *arrays, p4_reconstruction *r)
{
    p4_rc rc = P4_OK;
    double numbers[RECONSTRUCTION], *rows = NULL;
    TRY(take(arrays, reconstruction_name, 1, RECONSTRUCTION, numbers));
    *r = (p4_reconstruction){.ran = numbers[0] != 0,
                             .tokens = (int64_t)numbers[1],
                             .steps = (int64_t)numbers[2],
                             .seconds = numbers[3]};
    int64_t count = 0;
    TRY(take_rows(arrays, block_losses_name, BLOCK_LOSS, &count, &rows));
    r->losses = p4_alloc((size_t)count, sizeof *r->losses);
    TRY(r->losses != NULL ? P4_OK : P4_E_SYSTEM);
    for (; r->losses_count < count; r->losses_count++) {
        const double *row = rows + r->losses_count * BLOCK_LOSS;
        r->losses[r->losses_count] = (p4_block_loss){
            .first_block = (int64_t)row[0], .blocks = (int64_t)row[1], .before = row[2], .after = row[3]};
    }
done:
    free(rows);
    return rc;
}

p4_rc p4_run_state_blocks(const p4_arrays *arrays, int64_t *blocks)
{
    double *rows = NULL;
    int64_t count = 0;
    p4_rc rc = take_rows(arrays, block_losses_name, BLOCK_LOSS, &count, &rows);
    const double *last = rows + (count > 0 ? count - 1 : 0) * BLOCK_LOSS;
    *blocks = rc == P4_OK && count > 0 ? (int64_t)(last[0] + last[1]) : 0;
    free(rows);
    return rc;
}

/* Whose masters this rank writes, or (`all`) holds: [params_count], heap; NULL: memory is out. */
static bool *share_of_masters(const p4_run *run, bool all)
{
    const p4_model *model = &run->original.hf.model;
    int rank = run->compute.group->rank;
    bool *share = p4_alloc((size_t)model->params_count, sizeof *share);
    for (int64_t i = 0; share != NULL && i < model->params_count; i++) {
        share[i] = model->params[i].ternary ? run->original.shard.owner[i] == rank : all || rank == 0;
    }
    return share;
}

/* Training that is under way has its own. */
static p4_rc put_masters(p4_arrays_writer *w, const p4_run *run)
{
    if (run->masters.of == NULL || run->results.fine_tuning.ran) {
        return P4_OK;
    }
    bool *writes = share_of_masters(run, false);
    p4_rc rc = writes == NULL ? P4_E_SYSTEM
                              : p4_checkpoint_put_arrays(w, masters_name, run->masters.of, writes,
                                                         &run->original.hf.model);
    free(writes);
    return rc;
}

/* known is the same on every rank, as every rank looks into all parts. */
static p4_rc take_masters(const p4_arrays *arrays, p4_run *run)
{
    p4_rc rc = P4_OK;
    const p4_model *model = &run->original.hf.model;
    bool any = false, *wants = share_of_masters(run, true);
    TRY(wants != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(p4_masters_open(&run->masters, model));
    TRY(p4_checkpoint_take_arrays(arrays, masters_name, run->masters.of, run->masters.known, wants, model));
    for (int64_t i = 0; i < model->params_count; i++) {
        any = any || run->masters.known[i];
    }
    if (!any) {
        p4_masters_close(&run->masters);
    }
done:
    free(wants);
    return rc;
}

/* ---- the curve ---- */

static p4_rc put_curve(p4_arrays_writer *w, const p4_training_curve *curve)
{
    double *rows = p4_alloc((size_t)curve->count, POINT * sizeof *rows);
    if (rows == NULL) {
        return P4_E_SYSTEM;
    }
    for (int64_t i = 0; i < curve->count; i++) {
        const p4_training_point *p = &curve->points[i];
        const double row[POINT] = {(double)p->step, (double)p->epoch, (double)p->tokens, p->loss, p->lr,
                                   p->grad_norm,    p->tokens_per_s,  p->elapsed_s,      p->kl};
        memcpy(rows + i * POINT, row, sizeof row);
    }
    p4_rc rc = put(w, curve_name, curve->count, POINT, rows);
    free(rows);
    return rc;
}

static p4_rc take_curve(const p4_arrays *arrays, p4_training_curve *curve)
{
    p4_rc rc = P4_OK;
    double *rows = NULL;
    int64_t count = 0;
    TRY(take_rows(arrays, curve_name, POINT, &count, &rows));
    for (int64_t i = 0; i < count; i++) {
        const double *row = rows + i * POINT;
        TRY(p4_training_curve_add(curve, &(p4_training_point){.step = (int64_t)row[0],
                                                              .epoch = (int64_t)row[1],
                                                              .tokens = (int64_t)row[2],
                                                              .loss = row[3],
                                                              .lr = row[4],
                                                              .grad_norm = row[5],
                                                              .tokens_per_s = row[6],
                                                              .elapsed_s = row[7],
                                                              .kl = row[8],
                                                              .block_distance = NAN}));
    }
done:
    free(rows);
    return rc;
}

/* An array of its own, absent where blocks are not compared. */
static p4_rc put_block_distances(p4_arrays_writer *w, const p4_training_curve *curve)
{
    double *rows = p4_alloc((size_t)curve->count, sizeof *rows);
    bool compared = curve->count > 0 && !isnan(curve->points[0].block_distance);
    if (rows == NULL) {
        return P4_E_SYSTEM;
    }
    for (int64_t i = 0; i < curve->count; i++) {
        rows[i] = curve->points[i].block_distance;
    }
    p4_rc rc = put(w, block_distances_name, compared ? curve->count : 0, 1, rows);
    free(rows);
    return rc;
}

/* Of the curve's points; the last is what the results say. */
static p4_rc take_block_distances(const p4_arrays *arrays, p4_training_curve *curve, p4_fine_tuning *f)
{
    p4_rc rc = P4_OK;
    double *rows = NULL;
    int64_t count = 0;
    TRY(take_rows(arrays, block_distances_name, 1, &count, &rows));
    for (int64_t i = 0; i < p4_min_i64(count, curve->count); i++) {
        curve->points[i].block_distance = f->block_distance = rows[i];
    }
done:
    free(rows);
    return rc;
}

/* ---- all of it ---- */

static p4_rc put_numbers(p4_arrays_writer *w, const p4_run *run, const p4_tuning_state *t, int64_t bad_steps)
{
    p4_rc rc = P4_OK;
    const p4_results *r = &run->results;
    const double compressed = run->packed.is_compressed;
    TRY(put_evaluations(w, run));
    TRY(put_sets(w, run));
    TRY(put(w, compressed_name, 1, 1, &compressed));
    TRY(put_tuning(w, &r->fine_tuning));
    TRY(put_reconstruction(w, &r->reconstruction));
    TRY(put_curve(w, &run->curve));
    TRY(put_block_distances(w, &run->curve));
    if (t != NULL) {
        const double training[TRAINING] = {(double)t->step,  (double)t->tokens,  (double)t->epoch_steps,
                                           t->epoch_loss,    t->best_perplexity, t->elapsed_s,
                                           (double)bad_steps};
        TRY(put(w, training_name, 1, TRAINING, training));
    }
done:
    return rc;
}

p4_rc p4_run_state_put(p4_arrays_writer *w, const p4_run *run, const p4_tuning_state *training,
                       int64_t bad_steps)
{
    p4_rc rc = P4_OK;
    const p4_group *group = run->compute.group;
    TRY(group->rank == 0 ? put_numbers(w, run, training, bad_steps) : P4_OK);
    TRY(run->packed.is_compressed ? p4_checkpoint_put_packed(w, &run->packed, group->rank, group->ranks)
                                  : P4_OK);
    TRY(put_masters(w, run));
    TRY(p4_checkpoint_put_statistics(w, &run->statistics, &run->original.hf.model, group->rank,
                                     group->ranks));
done:
    return rc;
}

p4_rc p4_run_state_take(const p4_arrays *arrays, p4_run *run)
{
    p4_rc rc = P4_OK;
    p4_results *r = &run->results;
    const p4_model *model = &run->original.hf.model;
    double compressed;
    TRY(take_evaluations(arrays, run));
    TRY(take_sets(arrays, run));
    TRY(take_tuning(arrays, &r->fine_tuning));
    TRY(take_reconstruction(arrays, &r->reconstruction));
    if (run->compute.group->rank == 0) {
        TRY(take_curve(arrays, &run->curve));
        TRY(take_block_distances(arrays, &run->curve, &run->results.fine_tuning));
    }
    TRY(take(arrays, compressed_name, 1, 1, &compressed));
    TRY(compressed != 0 ? p4_checkpoint_take_packed(arrays, &run->packed, model) : P4_OK);
    TRY(p4_checkpoint_take_statistics(arrays, &run->statistics, model));
    TRY(take_masters(arrays, run));
done:
    return rc;
}

p4_rc p4_run_state_take_training(const p4_arrays *arrays, p4_tuning_state *t, int64_t *bad_steps)
{
    double training[TRAINING];
    p4_rc rc = take(arrays, training_name, 1, TRAINING, training);
    if (rc == P4_OK) {
        *t = (p4_tuning_state){.step = (int64_t)training[0],
                               .tokens = (int64_t)training[1],
                               .epoch_steps = (int64_t)training[2],
                               .epoch_loss = training[3],
                               .best_perplexity = training[4],
                               .elapsed_s = training[5]};
        *bad_steps = (int64_t)training[6];
    }
    return rc;
}
