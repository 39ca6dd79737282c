#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/file/files.h"
#include "jobs/job.h"
#include "jobs/stages/random_model.h"
#include "src/leaf/parallel.h"

/* Windows kept for the shuffle even when fewer are trained on: a training order should not be the file's
 * order. */
enum { SHUFFLE_WINDOWS = 65536, CHECKED_ELEMENTS = 1 << 21 /* by a thread at a time */ };

/* Does this rank's part of the pipeline run this tensor? */
static bool is_staged_here(const p4_job *job, int64_t i)
{
    const p4_param *p = &job->hf.model.params[i];
    int rank = job->compute.group->rank;
    bool head = job->shard.head_stage == rank;
    if (p->layer >= 0) {
        return job->shard.stage[p->layer] == rank;
    }
    switch (p->role) {
    case P4_ROLE_EMBED:
        return job->shard.stage[0] == rank || (head && job->hf.model.arch.tied);
    case P4_ROLE_POSITION:
        return job->shard.stage[0] == rank;
    default:
        return head;
    }
}

p4_rc p4_job_plan_ownership(p4_job *job)
{
    p4_rc rc = P4_OK;
    const p4_model *model = &job->hf.model;
    int64_t L = model->arch.L, params = model->params_count;
    double *layer_cost = p4_alloc((size_t)L, sizeof *layer_cost),
           *cost = p4_alloc((size_t)params, sizeof *cost);
    int64_t *layer = p4_alloc((size_t)params, sizeof *layer);
    if (layer_cost == NULL || cost == NULL || layer == NULL) {
        rc = P4_E_SYSTEM;
        goto done;
    }
    for (int64_t i = 0; i < params; i++) {
        const p4_param *p = &model->params[i];
        layer[i] = p->layer;
        cost[i] = (double)(p->rows * p->cols);
        if (p->layer >= 0) {
            layer_cost[p->layer] += cost[i];
        }
    }
    double head_cost = (double)(model->arch.V * model->arch.C);
    TRY(p4_shard_plan(&job->shard, job->compute.group->ranks, L, layer_cost, head_cost, params, layer, cost));
done:
    free(layer_cost);
    free(cost);
    free(layer);
    return rc;
}

/* The tensors this rank owns, in pieces that threads look at. */
typedef struct check {
    const p4_job *job;
    int64_t *param, *first; /* [count] of a piece: its tensor, its first element */
    int64_t count;
    p4_progress progress;
} check;

static int64_t piece_elements(const p4_job *job, const check *c, int64_t item)
{
    const p4_weight *w = &job->hf.model.weights[c->param[item]];
    return p4_min_i64(CHECKED_ELEMENTS, w->rows * w->cols - c->first[item]);
}

static p4_rc check_piece(void *user, int64_t item, int buffer)
{
    p4_rc rc = P4_OK;
    check *c = user;
    const p4_job *job = c->job;
    int64_t i = c->param[item], first = c->first[item];
    const p4_weight *w = &job->hf.model.weights[i];
    p4_weight part = {.dtype = w->dtype,
                      .rows = 1,
                      .cols = piece_elements(job, c, item),
                      .data = (const uint8_t *)w->data + first * p4_dtype_bytes(w->dtype)};
    p4_hf_model_fetch_pages(&job->hf, &part);
    int64_t bad = p4_weight_find_nonfinite(&part);
    CHECK(bad < 0, "%s: tensor %s: element %lld is NaN or infinite, expected finite weights", job->hf.path,
          job->hf.model.params[i].name, (long long)(first + bad));
    if (buffer ==
        0) { /* the caller's thread: pieces are begun in order, so those before are done or nearly so */
        p4_progress_update(&c->progress, (double)item / (double)c->count * c->progress.total, NULL);
    }
done:
    return rc;
}

/* The pieces of this rank's tensors, in order; only counted where there is no room for them yet. */
static int64_t cut_pieces(check *c)
{
    int64_t count = 0;
    const p4_model *model = &c->job->hf.model;
    for (int64_t i = 0; i < model->params_count; i++) {
        int64_t elements = c->job->shard.owner[i] == c->job->compute.group->rank
                               ? model->params[i].rows * model->params[i].cols
                               : 0;
        for (int64_t first = 0; first < elements; first += CHECKED_ELEMENTS, count++) {
            if (c->param != NULL) {
                c->param[count] = i;
                c->first[count] = first;
            } else {
                c->progress.total += (double)p4_min_i64(CHECKED_ELEMENTS, elements - first);
            }
        }
    }
    return count;
}

/* What this rank owns must hold numbers; reading it also brings it into the page cache. */
static p4_rc check_finite(p4_job *job)
{
    p4_rc rc = P4_OK;
    check c = {.job = job};
    c.count = cut_pieces(&c);
    p4_progress_start(&c.progress, "load", "weights", c.progress.total);
    c.param = p4_alloc((size_t)c.count, sizeof *c.param);
    c.first = p4_alloc((size_t)c.count, sizeof *c.first);
    if (c.param == NULL || c.first == NULL) {
        rc = P4_E_SYSTEM;
        goto done;
    }
    cut_pieces(&c);
    TRY(p4_parallel(job->compute.threads, c.count, check_piece, NULL, &c));
    p4_progress_update(&c.progress, c.progress.total, NULL);
done:
    p4_progress_end(&c.progress);
    free(c.param);
    free(c.first);
    return rc;
}

/* q, k and v (gate and up) read one input: it is rounded for all of them or for none. Local. */
static p4_rc check_whole_slots(const p4_model *model)
{
    p4_rc rc = P4_OK;
    for (int64_t i = 0; i < model->params_count; i++) {
        const p4_param *p = &model->params[i];
        CHECK(p->row_offset == 0 || !p4_role_is_matrix(p->role) || p->ternary == p[-1].ternary,
              "key \"preserve_layers\": %s is preserved and %s is not; with activation_bits 8 they share one "
              "rounded "
              "input, expected both or neither",
              p->ternary ? p[-1].name : p->name, p->ternary ? p->name : p[-1].name);
    }
done:
    return rc;
}

/* Settings that are given and change nothing. */
static void say_without_effect(const p4_job *job)
{
    const p4_config *c = &job->config;
    const char *glob = c->preserve_layers.bytes;
    for (int32_t g = 0; g < c->preserve_layers.count; g++, glob += strlen(glob) + 1) {
        if (!p4_model_has_match(&job->hf.model, glob)) {
            WARN("warning: key \"preserve_layers\": \"%s\" matches none of the model's %lld tensors", glob,
                 (long long)job->hf.model.params_count);
        }
    }
    p4_config defaults;
    p4_config_default(&defaults);
    if (c->quantizer == P4_QUANTIZER_EXACT && c->sparsity_threshold != defaults.sparsity_threshold) {
        WARN("warning: key \"sparsity_threshold\": %g has no effect, as quantizer \"exact\" finds each row's "
             "own",
             c->sparsity_threshold);
    }
}

p4_rc p4_job_open_model(p4_job *job)
{
    p4_rc rc = P4_OK;
    const p4_config *c = &job->config;
    if (c->init == P4_INIT_RANDOM) {
        TRY(p4_random_model_open(&job->hf, &job->random_weights, c->model_path, c->seed));
    } else {
        TRY(p4_hf_model_open(&job->hf, c->model_path));
    }
    CHECK(c->calibration_sequence_length <= job->hf.model.arch.positions,
          "calibration_sequence_length is %d, but %s has %lld positions", c->calibration_sequence_length,
          job->hf.path, (long long)job->hf.model.arch.positions);
    if (p4_job_quantizes(job)) {
        p4_model_select_ternary(&job->hf.model, &c->preserve_layers, c->preserve_embedding_precision,
                                c->preserve_output_precision);
        say_without_effect(job);
    }
    TRY(c->activation_bits == 8 ? check_whole_slots(&job->hf.model) : P4_OK);
    TRY(p4_job_plan_ownership(job));
done:
    return rc;
}

p4_rc p4_job_open_original(p4_job *job)
{
    if (job->original.ops != NULL) {
        return P4_OK;
    }
    const p4_model *model = &job->hf.model;
    p4_weight *source = p4_alloc((size_t)model->params_count, sizeof *source);
    if (source == NULL) {
        return P4_E_SYSTEM;
    }
    for (int64_t i = 0; i < model->params_count; i++) {
        source[i] = model->weights[i];
        source[i].data = is_staged_here(job, i) ? source[i].data : NULL;
    }
    p4_rc rc = p4_device_form_open(&job->original, job->compute.ops, job->compute.device, model, source);
    free(source);
    return rc;
}

static p4_rc read_split(p4_job *job, p4_windows *windows, p4_split split, int64_t limit, bool *held_out)
{
    p4_rc rc = P4_OK;
    const p4_config *c = &job->config;
    const p4_arch *arch = &job->hf.model.arch;
    char **paths = NULL;
    int64_t count = 0;
    TRY(p4_dataset_files(c, split, &paths, &count, held_out));
    if (*held_out) {
        goto done;
    }
    TRY(p4_windows_read(windows, paths, count, job->tokenizer, c->calibration_sequence_length, limit, arch->V,
                        arch->eos_id, c->num_workers));
done:
    p4_dataset_files_free(paths, count);
    return rc;
}

/* Moves the last `count` windows of one set into another. Local. */
static p4_rc split_off(p4_windows *from, p4_windows *to, int64_t count)
{
    *to = (p4_windows){.count = count, .T = from->T, .tokens_total = count * from->T};
    to->ids = p4_alloc((size_t)(count * from->T), sizeof *to->ids);
    if (to->ids == NULL) {
        return P4_E_SYSTEM;
    }
    from->count -= count;
    memcpy(to->ids, from->ids + from->count * from->T, (size_t)(count * from->T) * sizeof *to->ids);
    return P4_OK;
}

/* Sequences that fine-tuning may draw: what its steps need, and no fewer than a good shuffle. 0: all there
 * are. */
static int64_t train_limit(const p4_config *c)
{
    if (c->fine_tune_max_steps == 0) {
        return 0;
    }
    int64_t sequences = c->global_batch_tokens > 0 ? c->global_batch_tokens / c->calibration_sequence_length
                                                   : c->calibration_batch_size;
    int64_t needed;
    bool all = __builtin_mul_overflow(c->fine_tune_max_steps, sequences, &needed);
    return all ? 0 : p4_max_i64(SHUFFLE_WINDOWS, needed);
}

static p4_rc check_count(const p4_windows *windows, const char *what)
{
    return windows->count > 0 ? P4_OK
                              : FAIL("%s data: found %lld token%s, not enough for one window of %lld", what,
                                     (long long)windows->tokens_total, p4_plural(windows->tokens_total),
                                     (long long)windows->T);
}

/* Evaluation without files of its own: windows set aside from the calibration data and used for nothing else.
 * They are what calibration_samples leaves; where data are short, a fifth. `others_use`: something else needs
 * windows too. Local. */
static p4_rc hold_out(p4_job *job, bool others_use)
{
    p4_rc rc = P4_OK;
    const p4_config *c = &job->config;
    int64_t count = job->calibration.count,
            free_count = c->calibration_samples > 0 ? count - c->calibration_samples : 0;
    int64_t most = others_use ? p4_max_i64(1, p4_max_i64(count / 5, free_count)) : count;
    int64_t aside = p4_min_i64(c->eval_samples, most);
    CHECK(count > aside || !others_use,
          "calibration data: one window of %lld tokens is all there is, none is left to evaluate on; "
          "give eval_files, or set eval_samples to 0",
          (long long)job->calibration.T);
    TRY(split_off(&job->calibration, &job->eval, aside));
done:
    return rc;
}

/* Rank 0 reads and tokenises. Local. */
static p4_rc read_data(p4_job *job)
{
    p4_rc rc = P4_OK;
    const p4_config *c = &job->config;
    bool held_out = false, shared = false;
    bool train = c->enable_fine_tuning, own_train = c->train_files.count > 0;
    int64_t calibration = c->calibration_samples;
    if (c->eval_samples > 0) {
        TRY(read_split(job, &job->eval, P4_SPLIT_EVAL, c->eval_samples, &held_out));
    }
    if (calibration > 0 || held_out || (train && !own_train)) {
        bool trains_on_all = calibration == 0 && train && !own_train;
        int64_t limit = trains_on_all ? 0 : calibration + (held_out ? c->eval_samples : 0);
        TRY(read_split(job, &job->calibration, P4_SPLIT_CALIBRATION, limit, &shared));
        TRY(check_count(&job->calibration, "calibration"));
    }
    if (held_out) {
        TRY(hold_out(job, calibration > 0 || (train && !own_train)));
    }
    if (c->eval_samples > 0) {
        TRY(check_count(&job->eval, "evaluation"));
    }
    if (train && own_train) {
        TRY(read_split(job, &job->train, P4_SPLIT_TRAIN, train_limit(c), &shared));
        TRY(check_count(&job->train, "training"));
    }
done:
    return rc;
}

p4_rc p4_share_windows(p4_group *group, p4_windows *windows)
{
    p4_rc rc = P4_OK;
    int64_t header[3] = {windows->count, windows->T, windows->tokens_total};
    p4_group_bcast(group, header, sizeof header, 0);
    if (group->rank != 0) {
        *windows = (p4_windows){.count = header[0], .T = header[1], .tokens_total = header[2]};
        windows->ids = header[0] > 0 ? p4_alloc((size_t)(header[0] * header[1]), sizeof *windows->ids) : NULL;
    }
    TRY_ALL(group, windows->ids != NULL || header[0] == 0 ? P4_OK : P4_E_SYSTEM);
    p4_group_bcast(group, windows->ids, header[0] * header[1] * (int64_t)sizeof *windows->ids, 0);
done:
    return rc;
}

static p4_rc read_tokens(p4_job *job)
{
    p4_rc rc = P4_OK;
    const p4_arch *arch = &job->hf.model.arch;
    char *path = p4_format("%s/tokenizer.json", job->hf.path);
    if (path == NULL) {
        return P4_E_SYSTEM;
    }
    if (p4_file_exists(path)) { /* without one, token files are read and text is refused by name */
        TRY(p4_tokenizer_open(&job->tokenizer, job->hf.path));
    }
    if (arch->eos_id < 0) {
        WARN("warning: %s: config.json names no eos_token_id: documents are joined without a mark between "
             "them",
             job->hf.path);
    }
    TRY(read_data(job));
done:
    free(path);
    return rc;
}

p4_rc p4_stage_load(p4_job *job)
{
    p4_rc rc = P4_OK;
    TRY_ALL(job->compute.group, p4_job_open_model(job));
    TRY_ALL(job->compute.group, check_finite(job));
    /* Only what evaluates or calibrates runs the original; quantizing alone takes one matrix at a time. */
    bool runs = job->config.eval_samples > 0 || job->config.calibration_samples > 0;
    TRY_ALL(job->compute.group, runs ? p4_job_open_original(job) : P4_OK);
    const p4_arch *a = &job->hf.model.arch;
    char stored[32];
    int64_t params = p4_model_count_elements(&job->hf.model);
    INFO("      %s, %lld layer%s, hidden %lld, vocabulary %lld: %.4g M parameters, %s as %s", a->family,
         (long long)a->L, p4_plural(a->L), (long long)a->C, (long long)a->V, (double)params * 1e-6,
         p4_format_bytes(stored, job->hf.stored_bytes), job->hf.stored_dtype);
    p4_config_adapt_to_model_size(&job->config, params);
    TRY_ROOT(job->compute.group, read_tokens(job));
    TRY(p4_share_windows(job->compute.group, &job->calibration));
    TRY(p4_share_windows(job->compute.group, &job->eval));
    TRY(p4_share_windows(job->compute.group, &job->train));
    INFO("      windows of %d tokens: %lld to calibrate, %lld to evaluate, %lld to train on",
         job->config.calibration_sequence_length,
         (long long)(job->config.calibration_samples > 0 ? job->calibration.count : 0),
         (long long)job->eval.count,
         (long long)(job->train.count > 0 ? job->train.count : job->calibration.count));
    if (job->train.count == 0) { /* the specification's fine-tuner trains on the calibration loader */
        job->train = job->calibration;
    }
done:
    return rc;
}
