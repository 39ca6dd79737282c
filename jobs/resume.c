#include "jobs/resume.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/file/files.h"
#include "io/json/config.h"
#include "io/out/checkpoints.h"
#include "io/out/outputs.h"
#include "jobs/provenance.h"
#include "jobs/resume_state.h"
#include "jobs/run_state.h"
#include "jobs/train/checkpoint.h"
#include "src/leaf/hash.h"

/* ---- opening ---- */

static p4_rc open_state(p4_run *run, const char *const *stages)
{
    p4_rc rc = P4_OK;
    struct p4_resume *r = run->resume = p4_alloc(1, sizeof *r);
    TRY(r != NULL ? P4_OK : P4_E_SYSTEM);
    memcpy(r->stages, stages, sizeof r->stages);
    r->given = run->config;
    r->started_s = r->saved_s = p4_now_s();
    r->folder = p4_format("%s/checkpoints", run->config.output_path);
    run->stop.file =
        run->compute.group->rank == 0 ? p4_format("%s/" P4_STOP_REQUEST_FILE, run->config.output_path) : NULL;
    TRY(r->folder != NULL && (run->stop.file != NULL || run->compute.group->rank != 0) ? P4_OK : P4_E_SYSTEM);
    run->stop.deadline_s = run->config.max_minutes > 0 ? r->started_s + 60.0 * run->config.max_minutes : 0.0;
    run->compute.stop = &run->stop;
done:
    return rc;
}

p4_rc p4_resume_open(p4_run *run, const char *const *stages)
{
    p4_rc rc = P4_OK;
    p4_group *group = run->compute.group;
    TRY_ALL(group, open_state(run, stages));
    p4_checkpoint_owner(run->resume->owner);
    p4_group_bcast(group, run->resume->owner, sizeof run->resume->owner, 0);
done:
    return rc;
}

void p4_resume_close(p4_run *run)
{
    struct p4_resume *r = run->resume;
    free(run->stop.file);
    run->stop.file = NULL;
    if (r != NULL) {
        p4_arrays_close(r->arrays);
        p4_manifest_free(&r->manifest);
        p4_manifest_free(&r->inputs);
        free(r->folder);
        free(r->last);
        free(r);
        run->resume = NULL;
    }
}

char *p4_resume_besides(const p4_run *run, const char *word)
{
    return strcmp(run->config.resume, "auto") == 0 ? p4_strdup("") : p4_format(" %s resume=auto", word);
}

/* ---- which checkpoint ---- */

/* A path that the user gave: a checkpoint, a folder of checkpoints, or an output directory. Rank 0. */
static p4_rc list_given(char ***paths, int64_t *count, const char *given)
{
    p4_rc rc = P4_OK;
    char *manifest = p4_format("%s/%s", given, P4_MANIFEST_FILE),
         *inside = p4_format("%s/checkpoints", given);
    *paths = NULL;
    *count = 0;
    TRY(manifest != NULL && inside != NULL ? P4_OK : P4_E_SYSTEM);
    if (p4_file_exists(manifest)) {
        *paths = p4_alloc(1, sizeof **paths);
        TRY(*paths != NULL ? P4_OK : P4_E_SYSTEM);
        (*paths)[0] = p4_strdup(given);
        *count = 1;
        return (*paths)[0] != NULL ? P4_OK : P4_E_SYSTEM;
    }
    TRY(p4_checkpoints_list(paths, count, inside));
    if (*count == 0) {
        p4_names_free(*paths, *count);
        TRY(p4_checkpoints_list(paths, count, given));
    }
    CHECK(*count > 0,
          "key \"resume\": %s: is no checkpoint, and holds none; expected \"auto\", \"never\" or the "
          "directory of a "
          "checkpoint",
          given);
done:
    free(manifest);
    free(inside);
    return rc;
}

/* Rank 0. */
static p4_rc list_candidates(const p4_run *run, char ***paths, int64_t *count)
{
    const char *how = run->config.resume;
    return strcmp(how, "auto") == 0 ? p4_checkpoints_list(paths, count, run->resume->folder)
                                    : list_given(paths, count, how);
}

/* Reads the manifest, opens the parts, and reads this rank's share of them whole. Local. */
static p4_rc open_checkpoint(p4_run *run, const char *directory)
{
    p4_rc rc = P4_OK;
    struct p4_resume *r = run->resume;
    const p4_group *group = run->compute.group;
    char **paths = NULL;
    TRY(p4_manifest_read(&r->manifest, directory));
    TRY(p4_checkpoint_check_parts(&r->manifest, directory));
    int64_t count = r->manifest.part_count;
    paths = p4_alloc((size_t)count, sizeof *paths);
    TRY(paths != NULL ? P4_OK : P4_E_SYSTEM);
    for (int64_t i = 0; i < count; i++) {
        paths[i] = p4_checkpoint_part_path(directory, r->manifest.parts[i].rank);
        TRY(paths[i] != NULL ? P4_OK : P4_E_SYSTEM);
    }
    TRY(p4_arrays_open(&r->arrays, paths, count));
    for (int64_t i = group->rank; i < count; i += group->ranks) {
        TRY(p4_arrays_verify(r->arrays, i));
    }
done:
    for (int64_t i = 0; paths != NULL && i < r->manifest.part_count; i++) {
        free(paths[i]);
    }
    free(paths);
    return rc;
}

static void close_checkpoint(struct p4_resume *r)
{
    p4_arrays_close(r->arrays);
    r->arrays = NULL;
    p4_manifest_free(&r->manifest);
}

/* P4_E_INPUT with what differs, one a line; "": nothing does. */
static p4_rc refuse_conflicts(const char *directory, const char *of, const char *expected,
                              const char *conflicts)
{
    if (conflicts[0] == '\0') {
        return P4_OK;
    }
    char *lines =
        p4_format("%s: is a checkpoint of %s:\n%s\nexpected %s to continue; set resume to \"never\" to "
                  "start anew, or choose another output_path",
                  directory, of, conflicts, expected);
    p4_rc rc = lines != NULL ? p4_fail_lines(P4_E_INPUT, lines) : P4_E_SYSTEM;
    free(lines);
    return rc;
}

/* Rank 0. */
static p4_rc compare_config(const p4_run *run, const char *directory)
{
    p4_rc rc = P4_OK;
    const struct p4_resume *r = run->resume;
    char *source = p4_format("%s/%s", directory, P4_MANIFEST_FILE), *conflicts = NULL;
    p4_config *kept = p4_alloc(1, sizeof *kept);
    TRY(source != NULL && kept != NULL ? P4_OK : P4_E_SYSTEM);
    const char *json = r->manifest.config_json;
    TRY(p4_config_parse(kept, json, strlen(json), source, P4_RECIPE_QUALITY));
    conflicts = p4_config_conflicts(&r->given, kept);
    TRY(conflicts != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(refuse_conflicts(directory, "another configuration", "the same values", conflicts));
done:
    free(source);
    free(conflicts);
    free(kept);
    return rc;
}

/* The first of rank 0's candidates that all ranks can open; *directory "": none. Collective. */
static p4_rc open_first(p4_run *run, char *const *paths, int64_t count, char directory[P4_PATH_BYTES])
{
    p4_group *group = run->compute.group;
    p4_group_bcast(group, &count, sizeof count, 0);
    for (int64_t i = 0; i < count; i++) {
        if (group->rank == 0) {
            snprintf(directory, P4_PATH_BYTES, "%s", paths[i]);
        }
        p4_group_bcast(group, directory, P4_PATH_BYTES, 0);
        if (p4_consult(group, open_checkpoint(run, directory)) == P4_OK) {
            return P4_OK;
        }
        close_checkpoint(run->resume);
        if (i + 1 < count) {
            WARN("warning: a checkpoint cannot be used, the one before it is tried: %s", p4_last_error());
            p4_error_clear();
        }
    }
    directory[0] = '\0';
    return P4_OK;
}

/* The message of the last one is recorded, on every rank. */
static p4_rc refuse_all(void)
{
    char why[2048];
    snprintf(why, sizeof why, "%s", p4_last_error());
    p4_error_clear();
    return FAIL("no checkpoint can be used: %s; set resume to \"never\" to start anew", why);
}

p4_rc p4_resume_choose(p4_run *run)
{
    p4_rc rc = P4_OK;
    struct p4_resume *r = run->resume;
    p4_group *group = run->compute.group;
    char **paths = NULL, *directory = NULL;
    int64_t count = 0;
    if (strcmp(run->config.resume, "never") == 0) {
        TRY_ROOT(group, p4_checkpoints_remove(r->folder));
        return P4_OK;
    }
    TRY_ROOT(group, list_candidates(run, &paths, &count));
    directory = p4_alloc(P4_PATH_BYTES, 1);
    TRY_ALL(group, directory != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(open_first(run, paths, count, directory));
    if (directory[0] != '\0') {
        TRY_ROOT(group, compare_config(run, directory));
        r->training = r->manifest.training;
        r->last = directory;
        directory = NULL;
    } else if (p4_last_error()[0] != '\0') {
        rc = refuse_all();
    }
done:
    p4_names_free(paths, count);
    free(directory);
    return rc;
}

bool p4_resume_has(const p4_run *run, p4_resume_content *content)
{
    const struct p4_resume *r = run->resume;
    *content = (p4_resume_content){.step = 0};
    if (r->arrays == NULL) {
        return false;
    }
    for (int i = 0; i < P4_MAX_STAGES; i++) {
        content->done[i] = r->stages[i] != NULL && p4_manifest_has_stage(&r->manifest, r->stages[i]);
    }
    content->step = r->manifest.training ? r->manifest.step : 0;
    if (p4_run_state_blocks(r->arrays, &content->blocks) != P4_OK) {
        p4_error_clear(); /* taking the state names it */
    }
    return true;
}

/* ---- what the run reads ---- */

static p4_rc add_windows(p4_manifest *m, const char *name, const p4_windows *windows)
{
    char fingerprint[P4_FINGERPRINT_BYTES];
    if (windows->count == 0) {
        return P4_OK;
    }
    p4_fingerprint_bytes(fingerprint, windows->ids,
                         (size_t)(windows->count * windows->T) * sizeof *windows->ids);
    return p4_manifest_add_input(m, name, fingerprint);
}

static p4_rc add_file(p4_manifest *m, const char *path)
{
    char fingerprint[P4_FINGERPRINT_BYTES];
    const char *slash = strrchr(path, '/');
    p4_rc rc = p4_fingerprint_file(fingerprint, path);
    return rc != P4_OK ? rc : p4_manifest_add_input(m, slash != NULL ? slash + 1 : path, fingerprint);
}

/* Fingerprints of the model, the tokenizer and the text. Rank 0. */
static p4_rc describe_inputs(const p4_run *run, p4_manifest *m)
{
    p4_rc rc = P4_OK;
    char fingerprint[P4_FINGERPRINT_BYTES];
    const p4_hf_model *hf = &run->original.hf;
    char *config = p4_format("%s/config.json", hf->path);
    TRY(config != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(add_file(m, config));
    for (int64_t i = 0; i < hf->shard_count; i++) {
        TRY(add_file(m, hf->shards[i].path));
    }
    if (run->tokenizer != NULL) {
        p4_fingerprint_text(fingerprint, p4_tokenizer_json(run->tokenizer));
        TRY(p4_manifest_add_input(m, "tokenizer.json", fingerprint));
    }
    TRY(add_windows(m, "the calibration text", &run->calibration));
    TRY(add_windows(m, P4_EVALUATION_TEXT, &run->eval));
    for (int i = 0; i < run->config.eval_sets.count; i++) {
        char name[sizeof P4_SET_TEXT + P4_SET_NAME_BYTES];
        snprintf(name, sizeof name, P4_SET_TEXT, run->config.eval_sets.names[i]);
        TRY(add_windows(m, name, &run->sets[i].windows));
    }
    TRY(add_windows(m, "the text of reconstruction", &run->reconstruction));
    if (run->train != NULL) {
        TRY(p4_training_set_fingerprint(run->train, fingerprint));
        TRY(p4_manifest_add_input(m, "the training text", fingerprint));
    }
done:
    free(config);
    return rc;
}

/* They are known on rank 0. Local. */
static p4_rc record_inputs(p4_run *run)
{
    p4_rc rc = P4_OK;
    const p4_manifest *known = &run->resume->inputs;
    for (int64_t i = 0; i < known->input_count; i++) {
        TRY(p4_provenance_add_input(&run->results.provenance, known->inputs[i].name,
                                    known->inputs[i].fingerprint));
    }
done:
    return rc;
}

/* Rank 0. */
static p4_rc compare_inputs(const struct p4_resume *r)
{
    p4_rc rc = P4_OK;
    char *conflicts = p4_manifest_conflicts(&r->inputs, &r->manifest);
    TRY(conflicts != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(refuse_conflicts(r->last, "other input", "the same", conflicts));
done:
    free(conflicts);
    return rc;
}

/* ---- taking the state ---- */

/* Marks the finished stages, which must be the first ones of this program. The same on every rank. */
static p4_rc mark_stages(p4_run *run)
{
    p4_rc rc = P4_OK;
    const struct p4_resume *r = run->resume;
    const p4_manifest *m = &r->manifest;
    int64_t marked = 0;
    for (int i = 0; i < P4_MAX_STAGES && marked < m->stage_count; i++) {
        if (r->stages[i] != NULL) {
            CHECK(p4_manifest_has_stage(m, r->stages[i]),
                  "%s: was written by %s, in which the stage \"%s\" does not come here; this version cannot "
                  "continue it",
                  r->last, m->producer, r->stages[i]);
            run->done[i] = true;
            marked++;
        }
    }
done:
    return rc;
}

/* Local. */
static p4_rc take_state(p4_run *run)
{
    p4_rc rc = P4_OK;
    struct p4_resume *r = run->resume;
    TRY(mark_stages(run));
    TRY(p4_run_state_take(r->arrays, run));
    for (int64_t i = 0; i < r->manifest.time_count; i++) {
        TRY(p4_results_add_time(&run->results, r->manifest.times[i].stage, r->manifest.times[i].seconds));
    }
    const bool keeps = run->compute.group->rank == 0; /* as with the warnings of this process */
    for (int64_t i = 0; keeps && i < r->manifest.warning_count; i++) {
        p4_warnings_add(&run->warnings, r->manifest.warnings[i]);
    }
    r->earlier_s = r->manifest.elapsed_s;
    p4_provenance_continue(run, r->last, r->manifest.step, r->manifest.started, r->manifest.continued);
done:
    return rc;
}

void p4_resume_say(const p4_run *run, const char *verb)
{
    const struct p4_resume *r = run->resume;
    if (r->arrays != NULL) {
        INFO("      %s from %s of %s, written by %lld rank%s", verb, r->last, r->manifest.created,
             (long long)r->manifest.ranks, p4_plural(r->manifest.ranks));
    }
}

p4_rc p4_resume_restore(p4_run *run)
{
    p4_rc rc = P4_OK;
    struct p4_resume *r = run->resume;
    p4_group *group = run->compute.group;
    TRY_ROOT(group, describe_inputs(run, &r->inputs));
    TRY_ALL(group, record_inputs(run));
    if (r->arrays == NULL) {
        return P4_OK;
    }
    TRY_ROOT(group, compare_inputs(r));
    TRY_ALL(group, take_state(run));
    p4_resume_say(run, "continues");
    if (!r->training) {
        p4_arrays_close(r->arrays);
        r->arrays = NULL;
    }
done:
    return rc;
}

bool p4_resume_has_training(const p4_run *run)
{
    return run->resume->training;
}

uint64_t p4_resume_inputs_key(const p4_run *run)
{
    const p4_manifest *m = &run->resume->inputs;
    uint64_t key = P4_HASH_START;
    for (int64_t i = 0; i < m->input_count; i++) {
        key = p4_hash(key, m->inputs[i].fingerprint, strlen(m->inputs[i].fingerprint));
    }
    return key | 1;
}

double p4_resume_lr(const p4_run *run)
{
    return run->resume->manifest.lr;
}

double p4_resume_distill(const p4_run *run)
{
    return run->resume->manifest.distill;
}

bool p4_resume_text_windows(const p4_run *run, int64_t *windows)
{
    const struct p4_resume *r = run->resume;
    bool continues = r != NULL && r->arrays != NULL;
    if (continues) {
        *windows = r->manifest.text_windows;
    }
    return continues;
}

static p4_rc take_training(struct p4_resume *r, p4_trainer *trainer, p4_tuning_state *state)
{
    p4_rc rc = P4_OK;
    int64_t bad_steps = 0;
    TRY(p4_run_state_take_training(r->arrays, state, &bad_steps));
    TRY(p4_checkpoint_take_trainer(r->arrays, trainer, r->manifest.updates));
    trainer->bad_steps = (int)bad_steps;
done:
    return rc;
}

p4_rc p4_resume_take_training(p4_run *run, p4_trainer *trainer, p4_tuning_state *state)
{
    struct p4_resume *r = run->resume;
    p4_rc rc = p4_agree(run->compute.group, take_training(r, trainer, state));
    p4_arrays_close(r->arrays);
    r->arrays = NULL;
    r->training = false;
    return rc;
}
