/* prepare.c - from the queue and the journal to the models that are to be worked on. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/batch/defaults.h"
#include "io/batch/models.h"
#include "io/batch/outcome.h"
#include "io/file/files.h"
#include "io/json/config.h"
#include "io/out/outputs.h"
#include "jobs/batch/plans.h"

const char *const p4_batch_state_names[P4_STATES] = {
    [P4_STATE_WAITING] = "waiting",        [P4_STATE_RUNNING] = "running", [P4_STATE_DONE] = "done",
    [P4_STATE_VERDICT] = "verdict_failed", [P4_STATE_FAILED] = "failed",   [P4_STATE_STOPPED] = "stopped",
    [P4_STATE_LEFT_OUT] = "left_out"};

enum { PATIENCE = 3 }; /* attempts without an end, after which a model starts behind all others */

void p4_batch_free(p4_batch *batch)
{
    for (int64_t i = 0; batch->models != NULL && i < batch->count; i++) {
        p4_batch_record_free(&batch->models[i].record);
        free(batch->models[i].at);
        free(batch->models[i].output_path);
    }
    free(batch->models);
    free(batch->order);
    free(batch->running);
    free(batch->directory);
    free(batch->own_directory);
    free(batch->rank);
    free(batch->node);
    p4_journal_close(batch->journal);
    p4_queue_free(&batch->queue);
    *batch = (p4_batch){.count = 0};
}

char *p4_batch_directory(const char *given, const char *queue_path)
{
    if (given != NULL) {
        return p4_strdup(given);
    }
    const char *slash = strrchr(queue_path, '/'), *dot = strrchr(queue_path, '.');
    bool ending = dot != NULL && dot > (slash != NULL ? slash + 1 : queue_path);
    return p4_format("%.*s.batch", (int)(ending ? dot - queue_path : (long)strlen(queue_path)), queue_path);
}

char *p4_batch_log_path(const p4_batch *batch, const p4_batch_model *model)
{
    return batch->options->check_only ? p4_strdup("/dev/null")
                                      : p4_format("%s/logs/%s.log", batch->directory, model->given->name);
}

/* ---- one model ---- */

typedef struct preparing {
    p4_batch *batch;
    const p4_journal_state *journal;
    p4_batch_plans *plans;
    p4_config *config;
    char defaults[P4_FINGERPRINT_BYTES]; /* of this version */
    char others[P4_FINGERPRINT_BYTES];   /* of the version whose defaults are in `other` */
    p4_config_defaults *other;           /* NULL: none was needed yet */
} preparing;

static p4_rc copy(char **to, const char *text)
{
    free(*to);
    *to = p4_strdup(text);
    return *to != NULL ? P4_OK : P4_E_SYSTEM;
}

/* Over the keys that decide what the results are: not where they lie, nor how the run is continued. Those
 * with their default, in the version that is asked, do not count: a version with more keys must not take
 * every finished model for a changed one. */
static p4_rc find_fingerprint(char fingerprint[P4_FINGERPRINT_BYTES], const p4_config *config,
                              const p4_config_defaults *opt_defaults)
{
    char *json = NULL;
    p4_rc rc = p4_config_print_chosen(config, opt_defaults, &json);
    if (rc == P4_OK) {
        p4_fingerprint_text(fingerprint, json);
    }
    free(json);
    return rc;
}

static p4_rc read_config(preparing *p, p4_batch_model *model)
{
    p4_rc rc = P4_OK;
    const p4_batch_options *o = p->batch->options;
    const p4_queue_entry *given = model->given;
    if (given->text == NULL) {
        return FAIL("%s", given->error);
    }
    CHECK(!p->batch->works || given->ranks <= p->batch->ranks,
          "%s: \"ranks\" is %d, but the job has %d rank%s", given->source, given->ranks, p->batch->ranks,
          p4_plural(p->batch->ranks));
    CHECK(given->ranks == 0 || given->max_ranks == 0 || given->ranks <= given->max_ranks,
          "%s: \"ranks\" is %d, but \"max_ranks\" is %d", given->source, given->ranks, given->max_ranks);
    TRY(p4_config_read_text(p->config, given->text, strlen(given->text), given->source, given->composed,
                            P4_RECIPE_QUALITY, o->overrides, o->override_count));
    CHECK(
        !o->strict || p->config->eval_samples > 0,
        "%s: --strict asks for a verdict, but eval_samples is 0: no quality would be measured to give it by",
        given->source);
    model->floating = strchr(p->config->output_path, '{') != NULL;
    TRY(p4_config_expand_output_path(p->config));
    TRY(copy(&model->output_path, p->config->output_path));
    TRY(copy(&model->record.output_path, p->config->output_path));
    TRY(find_fingerprint(model->record.config, p->config, NULL));
    memcpy(model->record.defaults, p->defaults, sizeof model->record.defaults);
    TRY(p4_batch_plans_make(p->plans, &model->plan, p->config, given));
done:
    return rc;
}

/* Is the configuration that of the known attempt? Another version may have had other defaults: then the keys
 * are compared with those. Journals of versions that kept none are taken as of this one. */
static p4_rc is_same_config(preparing *p, const p4_batch_record *known, const p4_batch_record *mine,
                            bool *same)
{
    p4_rc rc = P4_OK;
    char then[P4_FINGERPRINT_BYTES];
    *same = strcmp(known->config, mine->config) == 0;
    if (known->defaults[0] == '\0' || strcmp(known->defaults, p->defaults) == 0 || known->config[0] == '\0') {
        return P4_OK;
    }
    if (strcmp(p->others, known->defaults) != 0) {
        p4_config_free_defaults(p->other);
        memcpy(p->others, known->defaults, sizeof p->others);
        rc = p4_batch_defaults_read(&p->other, p->batch->directory, known->defaults);
        if (rc == P4_E_INPUT) { /* lost or damaged */
            WARN("warning: %s: the defaults of that version are read as if they were today's",
                 p4_last_error());
            p4_config_free_defaults(p->other);
            p->other = NULL;
            rc = P4_OK;
        }
        TRY(rc);
    }
    TRY(find_fingerprint(then, p->config, p->other));
    *same = strcmp(known->config, then) == 0;
done:
    return rc;
}

/* Are the model's files those of the known attempt? Only looked at where the answer matters. An end without a
 * fingerprint was taken from the output directory, which says what its run has read. */
static p4_rc is_same_model(const preparing *p, const p4_batch_record *known, bool *same)
{
    p4_rc rc = P4_OK;
    char now[P4_FINGERPRINT_BYTES];
    *same = true;
    if (!p->batch->options->contents) {
        return P4_OK;
    }
    if (known->model[0] != '\0') {
        TRY(p4_model_fingerprint(now, p->config->model_path));
        *same = strcmp(now, known->model) == 0;
    } else if (known->event == P4_BATCH_DONE || known->event == P4_BATCH_VERDICT) {
        TRY(p4_outcome_compare_model(same, known->output_path, p->config->model_path));
    }
done:
    return rc;
}

static bool has_results(const p4_batch_record *known)
{
    char *path = p4_format("%s/" P4_RESULTS_FILE, known->output_path);
    bool has = path != NULL && p4_file_exists(path);
    free(path);
    return has;
}

/* A batch that was killed between the end of a run and the line that tells of it: the run is not repeated. */
static bool ended_unseen(const preparing *p, const p4_batch_model *model, const p4_batch_record *known,
                         p4_batch_record *ended)
{
    bool there = model->floating || strcmp(known->output_path, model->record.output_path) == 0;
    return known->event == P4_BATCH_STARTED && p->batch->options->contents && there &&
           p4_outcome_read(ended, known->output_path, known->time);
}

/* Takes the state of the journal over, as far as it still holds. */
static p4_rc take_known(preparing *p, p4_batch_model *model, const p4_batch_record *known)
{
    p4_rc rc = P4_OK;
    p4_batch_record *mine = &model->record;
    if (known == NULL) {
        return P4_OK;
    }
    bool same;
    p4_batch_record now = *known;
    now.name = mine->name;
    now.error = NULL;
    mine->attempt = known->attempt;
    TRY(is_same_config(p, known, mine, &same));
    same =
        same && !(known->event == P4_BATCH_FAILED && known->ranks == 0); /* what was missing then is there */
    bool unseen = same && ended_unseen(p, model, known, &now);
    TRY(same ? is_same_model(p, &now, &same) : P4_OK);
    if (!same || now.event == P4_BATCH_STARTED || now.event == P4_BATCH_STOPPED) { /* to do */
        bool continues = same && model->floating && p4_directory_exists(known->output_path);
        model->breaks_off = same && now.event == P4_BATCH_STARTED && now.attempt >= PATIENCE;
        TRY(continues ? copy(&mine->output_path, known->output_path) : P4_OK);
        goto done;
    }
    bool failed = now.event == P4_BATCH_FAILED;
    if (!failed && !has_results(known)) {
        goto done; /* somebody has removed them */
    }
    TRY(unseen ? p4_model_fingerprint(now.model, p->config->model_path)
               : copy(&now.error, known->error != NULL ? known->error : ""));
    TRY(copy(&mine->output_path, known->output_path));
    now.output_path = mine->output_path;
    *mine = now;
    now.error = NULL;
    model->earlier = true;
    p4_batch_set_state(p->batch, model,
                       failed                          ? P4_STATE_FAILED
                       : now.event == P4_BATCH_VERDICT ? P4_STATE_VERDICT
                                                       : P4_STATE_DONE);
    TRY(unseen && p->batch->journal != NULL ? p4_journal_append(p->batch->journal, mine) : P4_OK);
done:
    free(now.error);
    return rc;
}

/* A completed attempt behind which others came that did not touch its results: they were refused because of
 * them. *stands: the model is done. */
static p4_rc take_done(preparing *p, p4_batch_model *model, const p4_batch_record *done, bool *stands)
{
    p4_rc rc = P4_OK;
    p4_batch_record *mine = &model->record, now = *done;
    now.output_path = now.error = NULL;
    *stands = false;
    TRY(is_same_config(p, done, mine, stands));
    *stands = *stands && p4_outcome_stands(done);
    TRY(*stands ? is_same_model(p, done, stands) : P4_OK);
    if (!*stands) {
        goto done;
    }
    TRY(copy(&now.error, done->error));
    TRY(copy(&mine->output_path, done->output_path));
    now.name = mine->name;
    now.output_path = mine->output_path;
    *mine = now;
    now.error = NULL;
    model->earlier = true;
    p4_batch_set_state(p->batch, model, done->event == P4_BATCH_VERDICT ? P4_STATE_VERDICT : P4_STATE_DONE);
done:
    free(now.error);
    return rc;
}

/* The state that the journal knows. *failed: it is that of an attempt that failed, whatever has changed
 * since.
 */
static p4_rc take_journal(preparing *p, p4_batch_model *model, const p4_batch_record *known, bool *failed)
{
    p4_rc rc = P4_OK;
    const p4_batch_record *done = p4_journal_find_done(p->journal, known != NULL ? known->name : "");
    bool stands = false;
    *failed = false;
    if (done != NULL && known->attempt > done->attempt) {
        TRY(take_done(p, model, done, &stands));
    }
    if (!stands) {
        *failed = known != NULL && known->event == P4_BATCH_FAILED;
        TRY(take_known(p, model, known));
    }
done:
    return rc;
}

/* As the rank would that had worked on the model. */
static void write_log(const p4_batch *batch, const p4_batch_model *model)
{
    char *path = p4_batch_log_path(batch, model);
    FILE *log = path != NULL ? fopen(path, "ae") : NULL;
    bool written = log != NULL && fprintf(log, "phase4: error: %s\n", model->record.error) > 0;
    if (log != NULL) {
        written = fclose(log) == 0 && written;
    }
    if (!written) {
        WARN("warning: %s: cannot be written: %s", path != NULL ? path : model->given->name, strerror(errno));
    }
    free(path);
}

/* This model fails before a rank has worked on it, the others go on. Said once. */
static p4_rc fail_model(preparing *p, p4_batch_model *model, const p4_batch_record *known)
{
    p4_rc rc = P4_OK;
    p4_batch_record *mine = &model->record;
    TRY(copy(&mine->error, p4_last_error()));
    p4_error_clear();
    bool said = known != NULL && known->event == P4_BATCH_FAILED && strcmp(known->error, mine->error) == 0;
    mine->event = P4_BATCH_FAILED;
    mine->status = P4_E_INPUT;
    mine->attempt = known == NULL ? 1 : known->attempt + !said;
    (void)p4_utc_now(mine->time);
    p4_batch_set_state(p->batch, model, P4_STATE_FAILED);
    if (!said && p->batch->journal != NULL) {
        TRY(p4_journal_append(p->batch->journal, mine));
        write_log(p->batch, model);
    }
done:
    return rc;
}

/* Earlier versions named the models of one configuration file alike, so that what they kept is this model's
 * only if the configuration is. */
static p4_rc find_former(preparing *p, const p4_batch_model *model, const p4_batch_record **known)
{
    p4_rc rc = P4_OK;
    bool same = false;
    const char *name = model->given->former_name;
    const p4_batch_record *former = name != NULL ? p4_journal_find(p->journal, name) : NULL,
                          *done = name != NULL ? p4_journal_find_done(p->journal, name) : NULL;
    TRY(former != NULL ? is_same_config(p, former, &model->record, &same) : P4_OK);
    TRY(!same && done != NULL ? is_same_config(p, done, &model->record, &same) : P4_OK);
    *known = same ? former : NULL;
done:
    return rc;
}

static p4_rc prepare_model(preparing *p, p4_batch_model *model)
{
    p4_rc rc = P4_OK;
    const p4_batch_options *o = p->batch->options;
    const p4_batch_record *known = p4_journal_find(p->journal, model->given->name);
    p4_batch_record_init(&model->record);
    TRY(copy(&model->record.name, model->given->name));
    rc = read_config(p, model);
    if (rc == P4_E_INPUT) {
        rc = fail_model(p, model, known);
        goto done;
    }
    TRY(rc);
    TRY(known == NULL ? find_former(p, model, &known) : P4_OK);
    bool again;
    TRY(take_journal(p, model, known, &again));
    if (o->failed_only) {
        bool open = model->state == P4_STATE_WAITING;
        p4_batch_set_state(p->batch, model,
                           again  ? P4_STATE_WAITING
                           : open ? P4_STATE_LEFT_OUT
                                  : model->state);
        model->earlier = model->earlier && !again;
    }
done:
    return rc;
}

/* ---- all ---- */

/* A directory in which a model has results, or is to have them. */
typedef struct placed {
    const char *path;
    const p4_batch_model *model;
} placed;

static int by_path(const void *a, const void *b)
{
    return strcmp(((const placed *)a)->path, ((const placed *)b)->path);
}

/* Two models must not write to one directory. Of a model that is done that counts where it lies and what the
 * queue says: it may be asked for again. What depends on the day is another directory now. */
static p4_rc check_outputs(const p4_batch *batch)
{
    p4_rc rc = P4_OK;
    size_t count = 0;
    placed *sorted = p4_alloc(2 * (size_t)batch->count, sizeof *sorted);
    TRY(sorted != NULL ? P4_OK : P4_E_SYSTEM);
    for (int64_t i = 0; i < batch->count; i++) {
        const p4_batch_model *m = &batch->models[i];
        if (m->record.output_path != NULL && m->state != P4_STATE_LEFT_OUT) {
            sorted[count++] = (placed){m->record.output_path, m};
            if (!m->floating && m->output_path != NULL) {
                sorted[count++] = (placed){m->output_path, m};
            }
        }
    }
    qsort(sorted, count, sizeof *sorted, by_path);
    for (size_t i = 1; i < count; i++) {
        const placed *one = &sorted[i - 1], *other = &sorted[i];
        CHECK(one->model == other->model || strcmp(one->path, other->path) != 0,
              "%s and %s: both have the output_path \"%s\", expected a separate directory for each model: "
              "\"output_path\": \"out/{model}\" has the model's name in it",
              one->model->given->source, other->model->given->source, one->path);
    }
done:
    free(sorted);
    return rc;
}

typedef struct ordered {
    bool last;
    double seconds;
    int64_t index;
} ordered;

static int longer_first(const void *a, const void *b)
{
    const ordered *x = a, *y = b;
    if (x->last != y->last) {
        return x->last - y->last;
    }
    return x->seconds != y->seconds ? (x->seconds < y->seconds) - (x->seconds > y->seconds)
                                    : (x->index > y->index) - (x->index < y->index);
}

static p4_rc sort_models(p4_batch *batch)
{
    p4_rc rc = P4_OK;
    ordered *list = p4_alloc((size_t)batch->count, sizeof *list);
    batch->order = p4_alloc((size_t)batch->count, sizeof *batch->order);
    TRY(list != NULL && batch->order != NULL ? P4_OK : P4_E_SYSTEM);
    for (int64_t i = 0; i < batch->count; i++) {
        const p4_batch_model *m = &batch->models[i];
        list[i] = (ordered){.last = m->breaks_off,
                            .seconds = m->plan.known ? m->plan.seconds[0] * m->plan.least : 0,
                            .index = i};
    }
    qsort(list, (size_t)batch->count, sizeof *list, longer_first);
    for (int64_t i = 0; i < batch->count; i++) {
        batch->order[i] = list[i].index;
    }
done:
    free(list);
    return rc;
}

static p4_rc prepare_models(p4_batch *batch, const p4_journal_state *journal, p4_batch_plans *plans)
{
    p4_rc rc = P4_OK;
    preparing p = {.batch = batch, .journal = journal, .plans = plans};
    p.config = p4_alloc(1, sizeof *p.config);
    batch->count = batch->queue.count;
    batch->models = p4_alloc((size_t)batch->count, sizeof *batch->models);
    TRY(p.config != NULL && batch->models != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(p4_batch_defaults_keep(p.defaults, batch->journal != NULL ? batch->directory : NULL));
    batch->counts[P4_STATE_WAITING] = batch->count;
    for (int64_t i = 0; i < batch->count; i++) {
        batch->models[i].given = &batch->queue.entries[i];
        if (batch->options->task == 0 || batch->options->task == i + 1) {
            TRY(prepare_model(&p, &batch->models[i]));
        } else {
            p4_batch_record_init(&batch->models[i].record);
            p4_batch_set_state(batch, &batch->models[i], P4_STATE_LEFT_OUT);
        }
    }
    TRY(check_outputs(batch));
    TRY(sort_models(batch));
done:
    p4_config_free_defaults(p.other);
    free(p.config);
    return rc;
}

p4_rc p4_batch_read_queue(p4_batch *batch, const p4_batch_options *options)
{
    p4_rc rc = P4_OK;
    TRY(p4_queue_read(&batch->queue, options->queue_path, options->template_path));
    CHECK(options->task <= batch->queue.count,
          "--task: found %lld, expected 1 to %lld: the queue %s has as many models", (long long)options->task,
          (long long)batch->queue.count, options->queue_path);
done:
    return rc;
}

p4_rc p4_batch_prepare(p4_batch *batch, const p4_batch_options *options, int ranks, int ranks_per_node,
                       int cores)
{
    p4_rc rc = P4_OK;
    p4_journal_state *journal = NULL;
    p4_batch_plans *plans = NULL;
    batch->options = options;
    batch->ranks = ranks;
    TRY(batch->queue.count == 0 ? p4_batch_read_queue(batch, options) : P4_OK);
    TRY(p4_journal_read(&journal, batch->directory));
    TRY(p4_batch_plans_open(&plans, options, ranks, ranks_per_node, cores));
    TRY(prepare_models(batch, journal, plans));
done:
    p4_batch_plans_close(plans);
    p4_journal_state_free(journal);
    return rc;
}
