#include "jobs/train/reconstruct.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jobs/train/reconstruct_work.h"

int64_t p4_reconstruct_steps(int64_t windows, int64_t T, int64_t sequences)
{
    const int64_t passes = 20, tokens_most = (int64_t)1 << 24;
    int64_t per_pass = p4_max_i64(1, windows / p4_max_i64(1, p4_min_i64(sequences, windows)));
    int64_t fits = tokens_most / (windows * T);
    return per_pass * p4_max_i64(1, p4_min_i64(passes, fits));
}

/* --- memory ----------------------------------------------------------------------------------- */

static p4_rc take_host_memory(p4_reconstruct_work *w)
{
    p4_rc rc = P4_OK;
    w->order = p4_alloc((size_t)w->sequences, sizeof *w->order);
    w->picked = p4_alloc((size_t)w->sequences, sizeof *w->picked);
    TRY(w->order != NULL && w->picked != NULL ? P4_OK : P4_E_SYSTEM);
    if (w->plan->exact_sums) {
        w->errors = p4_alloc((size_t)p4_ceil_div(w->layers.windows->count, w->B), sizeof *w->errors);
        TRY(w->errors != NULL ? P4_OK : P4_E_SYSTEM);
    }
    for (int64_t s = 0; s < w->sequences; s++) {
        w->order[s] = p4_alloc((size_t)p4_reconstruct_part_count(w, s), sizeof **w->order);
        TRY(w->order[s] != NULL ? P4_OK : P4_E_SYSTEM);
    }
done:
    return rc;
}

/* The student begins with what the packed model embeds. Local. */
static p4_rc open_student(p4_reconstruct_work *w)
{
    p4_rc rc = P4_OK;
    p4_layers *l = &w->layers;
    TRY(take_host_memory(w));
    TRY(p4_states_open(&w->student, w->compute, l->high - l->low, p4_reconstruct_window_bytes(w),
                       l->plan.states_on_host));
    TRY(p4_layers_embed(l, w->packed->weights, &w->student));
done:
    return rc;
}

static p4_rc open_work(p4_reconstruct_work *w, const p4_windows *windows)
{
    p4_rc rc = P4_OK;
    p4_block_memory block;
    p4_layers_plan plan = p4_reconstruct_start(w, windows);
    const p4_compute *c = w->compute;
    TRY_ALL(c->group, p4_reconstruct_choose_sizes(w, &plan, c->ops->room_bytes(c->device), &block));
    double sizes[] = {-(double)w->B, -(double)plan.B}; /* the smallest: all ranks divide the windows alike */
    p4_group_max_f64(w->compute->group, sizes, 2);
    w->B = -(int64_t)sizes[0];
    plan.B = -(int64_t)sizes[1];
    TRY(p4_layers_open(&w->layers, w->compute, w->original, windows, &plan));
    TRY_ALL(w->compute->group, open_student(w));
done:
    return rc;
}

static void close_work(p4_reconstruct_work *w)
{
    for (int64_t s = 0; w->order != NULL && s < w->sequences; s++) {
        free(w->order[s]);
    }
    free(w->order);
    free(w->picked);
    free(w->errors);
    p4_block_trainer_close(&w->trainer);
    p4_states_close(&w->student);
    if (w->layers.compute != NULL) {
        p4_layers_close(&w->layers);
    }
}

/* --- one set of blocks ------------------------------------------------------------------------- */

/* With exact_sums: the error of the micro-batch of this rank's windows from `first` on by itself. What a
 * device reports is returned by sum_errors too. Local. */
static void keep_error(p4_reconstruct_work *w, int64_t first)
{
    if (w->errors != NULL) {
        (void)p4_block_trainer_take_error(&w->trainer, &w->errors[(w->layers.low + first) / w->B]);
    }
}

/* *sum: of the errors of all windows, of all ranks, since the call before. Collective. */
static p4_rc sum_errors(p4_reconstruct_work *w, double *sum)
{
    p4_rc rc = P4_OK;
    p4_group *group = w->compute->group;
    int64_t count = p4_ceil_div(w->layers.windows->count, w->B);
    *sum = 0;
    TRY_ALL(group, p4_block_trainer_take_error(&w->trainer, sum));
    if (w->errors != NULL) {
        p4_exact_gather(group, w->errors, count);
        *sum = p4_exact_total(w->errors, count);
        memset(w->errors, 0, (size_t)count * sizeof *w->errors);
    } else {
        p4_group_sum_f64(group, sum, 1);
    }
done:
    return rc;
}

/* w->mean_square of the target over all windows. Collective. */
static p4_rc measure_target(p4_reconstruct_work *w)
{
    p4_rc rc = P4_OK;
    p4_block_trainer *t = &w->trainer;
    const int64_t count = w->layers.high - w->layers.low, T = w->layers.plan.T,
                  C = w->original->hf.model.arch.C;
    double squares = 0;
    for (int64_t first = 0; first < count; first += w->B) {
        int64_t B = p4_min_i64(w->B, count - first);
        p4_states_read(&w->layers.states, first, B, t->target);
        w->compute->ops->squared_error(w->compute->device, &(p4_squared_error_args){.count = B * T * C,
                                                                                    .x = t->target,
                                                                                    .scale = 1.0f,
                                                                                    .sum = &t->own->error});
        keep_error(w, first);
    }
    TRY(sum_errors(w, &squares));
    w->mean_square = squares / (double)(w->layers.windows->count * T * C);
    CHECK(isfinite(squares) && squares > 0,
          "reconstruction of layer %lld: the squares of the original's outputs sum to %g, expected a finite "
          "number above 0",
          (long long)t->layer, squares);
done:
    return rc;
}

/* *relative: the mean squared error of all windows, over that of the target. With `advance` the student's
 * states become the outputs. Collective. */
static p4_rc measure(p4_reconstruct_work *w, bool advance, double *relative)
{
    p4_rc rc = P4_OK;
    p4_block_trainer *t = &w->trainer;
    const int64_t count = w->layers.high - w->layers.low, T = w->layers.plan.T,
                  C = w->original->hf.model.arch.C;
    double error = 0;
    for (int64_t first = 0; first < count; first += w->B) {
        int64_t B = p4_min_i64(w->B, count - first);
        p4_reconstruct_put_windows(w, first, B, 0);
        p4_block_trainer_measure(t, B);
        keep_error(w, first);
        if (advance) {
            p4_net_blocks_output(&t->net, p4_net_blocks_input(&t->net), B, T);
            p4_states_write(&w->student, first, B, p4_net_blocks_input(&t->net));
        }
    }
    TRY(sum_errors(w, &error));
    *relative = error / ((double)(w->layers.windows->count * T * C) * w->mean_square);
done:
    return rc;
}

/* A trainer that has the form of these blocks. Collective. */
static p4_rc open_blocks(p4_reconstruct_work *w, int64_t layer, int64_t blocks)
{
    p4_rc rc = P4_OK;
    if (!p4_block_trainer_suits(&w->trainer, layer, blocks)) {
        p4_block_plan plan = p4_reconstruct_block_plan(w, blocks);
        p4_block_trainer_close(&w->trainer);
        TRY(p4_block_trainer_open(&w->trainer, w->compute, w->original, layer, &plan));
    }
done:
    return rc;
}

/* And their masters, from which they are trained. Collective. */
static p4_rc open_trainer(p4_reconstruct_work *w, int64_t layer, int64_t blocks)
{
    p4_rc rc = P4_OK;
    TRY(open_blocks(w, layer, blocks));
    TRY(p4_block_trainer_start(&w->trainer, layer, w->masters));
done:
    return rc;
}

enum { BLOCKS_BYTES = 64 };

/* "block 1", "blocks 1 to 2". */
static const char *name_blocks(char text[BLOCKS_BYTES], int64_t layer, int64_t blocks)
{
    snprintf(text, BLOCKS_BYTES, blocks > 1 ? "blocks %lld to %lld" : "block %lld", (long long)layer + 1,
             (long long)(layer + blocks));
    return text;
}

static void say_blocks(const p4_reconstruct_work *w, const p4_block_loss *loss)
{
    char which[BLOCKS_BYTES];
    (void)name_blocks(which, loss->first_block, loss->blocks);
    INFO("      %s of %lld: relative error of the output %.4g -> %.4g", which,
         (long long)w->original->hf.model.arch.L, loss->before, loss->after);
}

/* Is a tensor of these blocks ternary? Others are what they were, and have no error to make up for. */
static bool has_ternary(const p4_model *model, int64_t layer, int64_t blocks)
{
    bool any = false;
    for (int64_t i = model->layer_first[layer]; i < model->layer_first[layer + blocks]; i++) {
        any = any || model->params[i].ternary;
    }
    return any;
}

/* The student's states at the blocks from `layer` on, from the embeddings through the ternary blocks before.
 * `layer` begins a set, so that the sets before it are whole. Collective. */
static p4_rc rewind_student(p4_reconstruct_work *w, int64_t layer)
{
    p4_rc rc = P4_OK;
    double relative;
    TRY_ALL(w->compute->group, p4_layers_embed(&w->layers, w->packed->weights, &w->student));
    for (int64_t l = 0; l < layer; l += w->plan->blocks) {
        TRY(p4_stop_agree(w->compute->stop, w->compute->group));
        if (has_ternary(&w->original->hf.model, l, w->plan->blocks)) {
            TRY(open_blocks(w, l, w->plan->blocks));
            TRY(p4_block_trainer_take(&w->trainer, l, w->packed, w->masters));
        } else {
            TRY(open_trainer(w, l, w->plan->blocks));
        }
        TRY(measure(w, true, &relative));
    }
done:
    return rc;
}

/* Training that did not help is undone: what it started from is still there but for the student's states,
 * which are computed again. Collective. */
static p4_rc keep_better(p4_reconstruct_work *w, p4_block_loss *loss)
{
    p4_rc rc = P4_OK;
    if (loss->after < loss->before) {
        return P4_OK;
    }
    WARN(
        "warning: reconstruction from block %lld on did not reduce the error (%.4g -> %.4g) and is undone; a "
        "smaller reconstruct_lr (now %g) may help",
        (long long)loss->first_block + 1, loss->before, loss->after, w->plan->lr);
    TRY(rewind_student(w, loss->first_block));
    TRY(open_trainer(w, loss->first_block, loss->blocks));
    TRY(measure(w, true, &loss->after));
done:
    return rc;
}

/* Blocks without ternary tensors: the student's states pass through them, and nothing is trained. Collective.
 */
static p4_rc pass_blocks(p4_reconstruct_work *w, int64_t layer, int64_t blocks)
{
    p4_rc rc = P4_OK;
    double relative = NAN;
    TRY(open_trainer(w, layer, blocks));
    TRY(measure_target(w));
    TRY(measure(w, true, &relative));
    INFO("      %lld block%s from %lld on: nothing is ternary, nothing is trained; "
         "relative error of the output %.4g",
         (long long)blocks, p4_plural(blocks), (long long)layer + 1, relative);
done:
    return rc;
}

/* The progress begins with the first step that this process makes: passing through the blocks of the process
 * before, and measuring the error before the first step, say nothing about how long a step takes. Sets of
 * blocks without ternary tensors have no steps. */
static void begin_progress(p4_reconstruct_work *w)
{
    const p4_model *model = &w->original->hf.model;
    const int64_t L = model->arch.L, blocks = w->plan->blocks;
    int64_t sets = 0;
    if (w->progress.label != NULL) {
        return;
    }
    for (int64_t layer = 0; layer < L; layer += blocks) {
        sets += has_ternary(model, layer, p4_min_i64(blocks, L - layer));
    }
    p4_progress_start(&w->progress, "reconstruct", "steps", (double)(sets * w->plan->steps));
    w->progress.from = (double)(w->record->losses_count * w->plan->steps);
}

enum { STOP_STEPS = P4_BLOCK_STEPS_AHEAD }; /* between two questions whether to stop */

/* Is it time to look at the steps so far? A GPU would have to wait for the host: rarely. */
static bool is_to_look(const p4_reconstruct_work *w, int64_t step)
{
    int64_t every = w->plan->look_every;
    every = every > 0 ? every : w->compute->ops->host_memory ? 1 : P4_BLOCK_STEPS_AHEAD;
    return (step + 1) % every == 0 || step + 1 == w->plan->steps;
}

static p4_rc train_blocks(p4_reconstruct_work *w, int64_t layer, int64_t blocks)
{
    p4_rc rc = P4_OK;
    char note[128], which[BLOCKS_BYTES];
    p4_block_loss *loss = &w->record->losses[w->record->losses_count];
    double error;
    (void)name_blocks(which, layer, blocks);
    TRY(open_trainer(w, layer, blocks));
    *loss = (p4_block_loss){.first_block = layer, .blocks = blocks};
    TRY(measure_target(w));
    TRY(measure(w, false, &loss->before));
    error = loss->before; /* until the first look */
    begin_progress(w);
    for (int64_t step = 0; step < w->plan->steps; step++) {
        TRY(step % STOP_STEPS == 0 ? p4_stop_agree(w->compute->stop, w->compute->group) : P4_OK);
        p4_reconstruct_step(w, layer, step);
        TRY(is_to_look(w, step) ? p4_block_trainer_look(&w->trainer, &error) : P4_OK);
        snprintf(note, sizeof note, "%s of %lld, step %lld/%lld, error %.4g", which,
                 (long long)w->original->hf.model.arch.L, (long long)step + 1, (long long)w->plan->steps,
                 error);
        p4_progress_update(&w->progress, (double)(w->record->losses_count * w->plan->steps + step + 1), note);
    }
    TRY(measure(w, true, &loss->after));
    TRY(keep_better(w, loss));
    TRY(p4_block_trainer_commit(&w->trainer, w->packed, w->masters, w->plan->codes_only));
    w->record->losses_count++;
    say_blocks(w, loss);
    TRY_ROOT(w->compute->group, w->plan->on_blocks != NULL ? w->plan->on_blocks(w->plan->user, loss) : P4_OK);
done:
    return rc;
}

/* Blocks that a process before has trained: the student's states pass through them. Collective. */
static p4_rc follow_blocks(p4_reconstruct_work *w, int64_t layer, int64_t blocks)
{
    p4_rc rc = P4_OK;
    double relative = NAN;
    TRY(open_blocks(w, layer, blocks));
    TRY(p4_block_trainer_take(&w->trainer, layer, w->packed, w->masters));
    TRY(measure(w, true, &relative));
    if (layer + blocks == w->done) {
        INFO("      continues after block %lld of %lld", (long long)w->done,
             (long long)w->original->hf.model.arch.L);
    }
done:
    return rc;
}

/* The lines of the record so far are in a checkpoint from here on. Collective. */
static p4_rc save(p4_reconstruct_work *w, bool stops)
{
    w->record->seconds = p4_now_s() - w->started_s;
    w->saved = w->record->losses_count;
    return w->plan->save(w->plan->user, stops);
}

/* Collective. */
static p4_rc save_if_due(p4_reconstruct_work *w)
{
    p4_group *group = w->compute->group;
    if (w->plan->save == NULL) {
        return P4_OK;
    }
    double due = group->rank == 0 && w->plan->is_save_due(w->plan->user);
    p4_group_max_f64(group, &due, 1);
    return due > 0 ? save(w, false) : P4_OK;
}

/* The ranks were asked to stop: what is done is saved. Collective. */
static p4_rc stop(p4_reconstruct_work *w)
{
    p4_rc rc = P4_STOPPED;
    if (w->plan->save != NULL && w->record->losses_count > w->saved) {
        p4_error_clear(); /* a failure to save says what ended the run */
        rc = save(w, true);
        rc = rc != P4_OK ? rc : p4_stop_end(w->compute->stop);
    }
    return rc;
}

/* A set of blocks, up to which the original's states have come. Collective. */
static p4_rc visit_blocks(p4_reconstruct_work *w, int64_t layer, int64_t blocks)
{
    p4_rc rc = P4_OK;
    if (!has_ternary(&w->original->hf.model, layer, blocks)) {
        TRY(pass_blocks(w, layer, blocks));
    } else if (layer < w->done) {
        TRY(follow_blocks(w, layer, blocks));
    } else {
        TRY(train_blocks(w, layer, blocks));
        TRY(save_if_due(w));
    }
done:
    return rc;
}

/* The original's states move on; at the end of a set of blocks they are what its ternary form is trained to.
 */
static p4_rc visit_block(void *user, p4_layers *layers, int64_t layer, const p4_form *block)
{
    p4_rc rc = P4_OK;
    p4_reconstruct_work *w = user;
    int64_t L = w->original->hf.model.arch.L, blocks = w->plan->blocks;
    TRY_ALL(w->compute->group, p4_layers_advance(layers, layer, block, NULL));
    if ((layer + 1) % blocks == 0 || layer + 1 == L) {
        int64_t first = layer / blocks * blocks;
        TRY(visit_blocks(w, first, layer + 1 - first));
    }
done:
    return rc;
}

/* Room for a line of each set of blocks, behind those of the process before. Local. */
static p4_rc take_record(p4_reconstruct_work *w)
{
    p4_reconstruction *r = w->record;
    int64_t sets = p4_ceil_div(w->original->hf.model.arch.L, w->plan->blocks);
    p4_block_loss *losses = p4_alloc((size_t)p4_max_i64(sets, r->losses_count), sizeof *losses);
    if (losses == NULL) {
        return P4_E_SYSTEM;
    }
    for (int64_t i = 0; i < r->losses_count; i++) {
        losses[i] = r->losses[i];
        w->done = losses[i].first_block + losses[i].blocks;
    }
    free(r->losses);
    r->losses = losses;
    return P4_OK;
}

p4_rc p4_reconstruct(p4_compute *compute, const p4_original *original, const p4_windows *windows,
                     const p4_reconstruct_plan *plan, p4_packed *packed, p4_masters *masters,
                     p4_reconstruction *record)
{
    p4_rc rc = P4_OK;
    p4_reconstruct_work w = {.compute = compute,
                             .original = original,
                             .plan = plan,
                             .packed = packed,
                             .masters = masters,
                             .record = record,
                             .saved = record->losses_count,
                             .started_s = p4_now_s() - (isnan(record->seconds) ? 0 : record->seconds)};
    TRY_ALL(compute->group, plan->exact_sums ? p4_compute_check_exact(compute) : P4_OK);
    TRY_ALL(compute->group, take_record(&w));
    TRY(open_work(&w, windows));
    record->ran = true;
    record->steps = plan->steps;
    record->tokens = windows->count * windows->T;
    TRY(p4_layers_run(&w.layers, visit_block, &w));
done:
    p4_progress_end(&w.progress);
    rc = rc == P4_STOPPED ? stop(&w) : rc;
    close_work(&w);
    record->seconds = p4_now_s() - w.started_s;
    return rc;
}
