#include "jobs/measure.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "io/file/files.h"
#include "io/file/fingerprint.h"
#include "io/json/config.h"
#include "io/json/evaluation.h"
#include "io/out/outputs.h"
#include "io/out/report.h"
#include "jobs/check.h"
#include "jobs/model_file.h"
#include "jobs/stages/stages.h"
#include "jobs/text_files.h"
#include "jobs/train/evaluate.h"
#include "src/phase4.h"

static const p4_option options[] = {
    {"--json", NULL, NULL, "Print JSON instead of a table."},
    {"--strict", NULL, NULL, "Exit with status 3 if the verdict fails; requires the original."},
    {"--quiet", "-q", NULL, "Print only warnings, errors and the result."},
    {NULL},
};

static const p4_exit_status statuses[] = {
    {"0", "the evaluation is complete (a failed verdict is printed)"},
    {"1", "system failure: memory, MPI, a device, or standard output that cannot be written"},
    {"2", "bad input: the command line, the result, the original, or the text"},
    {"3", "the verdict failed and --strict was given"},
    {NULL},
};

const p4_program p4_evaluate_program = {
    .name = "phase4_evaluate",
    .usage = "[options] DIR|model.h5 [key=value ...]",
    .purpose = "measure the quality of a result of phase4_mpi",
    .description =
        "Evaluates a packed model, and the original beside it where that is at hand, on a text: loss,\n"
        "perplexity, accuracy, KL divergence, agreement and the verdict. DIR is the output directory of a "
        "run.\n"
        "Without keys the text is that of the run, and the numbers are those of its results.json. Keys\n"
        "are those of phase4_mpi's configuration that an evaluation reads: eval_files, eval_sets,\n"
        "eval_samples, eval_bos, eval_stride,\n"
        "calibration_sequence_length, calibration_batch_size, calibration_dataset, dataset_root,\n"
        "calibration_files, text_field, chat_template, seed, num_workers, device, threads_per_rank,\n"
        "mixed_precision, collective_timeout_s, max_accuracy_drop, and model_path: where the original is.\n"
        "It is an MPI program and runs on any number of ranks, or alone.\n",
    .options = options,
    .statuses = statuses,
};

/* What an evaluation reads; any other key would have no effect. */
static const char *const keys[] = {
    "eval_files",
    "eval_sets",
    "eval_samples",
    "eval_bos",
    "eval_stride",
    "calibration_sequence_length",
    "calibration_batch_size",
    "calibration_dataset",
    "dataset_root",
    "calibration_files",
    "text_field",
    "chat_template",
    "seed",
    "num_workers",
    "device",
    "threads_per_rank",
    "model_path",
    "mixed_precision",
    "collective_timeout_s",
    "max_accuracy_drop",
};
enum { KEYS = sizeof keys / sizeof keys[0] };

/* ---- the configuration ---- */

static p4_rc set_key(p4_config *config, const char *override)
{
    p4_rc rc = P4_OK;
    char key[64], excerpt[80];
    const char *equals = strchr(override, '=');
    bool known = false;
    p4_config_format_excerpt(excerpt, override, strlen(override));
    CHECK(equals != NULL && equals != override && (size_t)(equals - override) < sizeof key,
          "found \"%s\" behind the result, expected key=value", excerpt);
    snprintf(key, sizeof key, "%.*s", (int)(equals - override), override);
    for (int i = 0; i < KEYS; i++) {
        known = known || strcmp(key, keys[i]) == 0;
    }
    CHECK(known || p4_config_find(key) < 0,
          "key \"%s\": an evaluation does not read it; the result was made with the value that it has", key);
    TRY(p4_config_set_key(config, key, equals + 1));
done:
    return rc;
}

/* The run's configuration, on this machine's device. *run_T: tokens of its windows. Local. */
static p4_rc read_config(p4_run *run, int32_t *run_T, p4_artifact_reader *reader, const char *file,
                         char *const *overrides, int count)
{
    p4_rc rc = P4_OK;
    p4_config *c = &run->config;
    TRY(p4_model_file_config(c, reader, file));
    *run_T = c->calibration_sequence_length;
    c->device = P4_DEVICE_AUTO;
    c->threads_per_rank = 0;
    bool other_text = false, other_sets = false;
    for (int i = 0; i < count; i++) {
        other_text = other_text || strncmp(overrides[i], "eval_files=", 11) == 0;
        other_sets = other_sets || strncmp(overrides[i], "eval_sets=", 10) == 0;
    }
    if (other_text && !other_sets) { /* the run's sets are not what was asked for, nor need they be here */
        c->eval_sets = (p4_sets){.count = 0};
    }
    for (int i = 0; i < count; i++) {
        TRY(set_key(c, overrides[i]));
    }
    CHECK(c->eval_samples > 0,
          "key \"eval_samples\": found 0, expected a number of windows above 0 to measure");
done:
    return rc;
}

/* ---- the original ---- */

/* Of the folder of the result; p4_metadata_free. *there: they are beside it. Local. */
static p4_rc read_metadata(p4_metadata *metadata, bool *there, const char *file)
{
    p4_rc rc = P4_OK;
    const char *slash = strrchr(file, '/');
    char *folder = p4_format("%.*s.", slash != NULL ? (int)(slash - file) + 1 : 0, file);
    char *path = folder != NULL ? p4_format("%s/" P4_METADATA_FILE, folder) : NULL;
    *metadata = (p4_metadata){.input_count = 0};
    TRY(path != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(p4_file_find(there, path));
    TRY(*there ? p4_metadata_read(metadata, folder) : P4_OK);
done:
    free(folder);
    free(path);
    return rc;
}

/* Are the files of an open model those that the run read, as far as the metadata beside the result tell?
 * *why names one that is not; else it is "". Local. */
static p4_rc compare_files(char why[512], const p4_hf_model *hf, const char *file)
{
    p4_rc rc = P4_OK;
    p4_metadata metadata;
    bool there;
    TRY(read_metadata(&metadata, &there, file));
    for (int64_t s = 0; there && s < hf->shard_count; s++) {
        char now[P4_FINGERPRINT_BYTES];
        bool found = false;
        TRY(p4_fingerprint_file(now, hf->shards[s].path));
        for (int64_t i = 0; i < metadata.input_count; i++) {
            found = found || strcmp(now, metadata.inputs[i].fingerprint) == 0;
        }
        if (!found) {
            snprintf(why, 512, "%.300s: is none of the files that the run read", hf->shards[s].path);
            goto done;
        }
    }
done:
    p4_metadata_free(&metadata);
    return rc;
}

/* The tensors of the original that the packed model has as trits; *why: it is another model. Local. */
static void match_tables(char why[512], p4_model *original, const p4_model *packed)
{
    bool same = original->params_count == packed->params_count;
    for (int64_t i = 0; same && i < packed->params_count; i++) {
        p4_param *p = &original->params[i];
        const p4_param *q = &packed->params[i];
        same = strcmp(p->name, q->name) == 0 && p->rows == q->rows && p->cols == q->cols;
        p->ternary = q->ternary;
        p->scale_group = q->scale_group;
    }
    if (!same) {
        snprintf(why, 512, "its tensors are not those of the packed model");
    }
}

/* Opens the original into run->original, or leaves it empty with the reason in why. Local. */
static p4_rc find_original(p4_run *run, const p4_model *packed, const char *file, char why[512])
{
    p4_rc rc = P4_OK;
    const p4_config *c = &run->config;
    why[0] = '\0';
    if (c->init == P4_INIT_RANDOM) {
        snprintf(why, 512, "the run began with random weights");
        return P4_OK;
    }
    if (!p4_directory_exists(c->model_path)) {
        snprintf(why, 512, "%.400s: is not there; model_path=DIRECTORY says where it is", c->model_path);
        return P4_OK;
    }
    TRY(p4_original_open(&run->original, c->model_path, false, c->seed));
    TRY(compare_files(why, &run->original.hf, file));
    if (why[0] == '\0') {
        match_tables(why, &run->original.hf.model, packed);
    }
    if (why[0] != '\0') {
        p4_original_close(&run->original);
    }
done:
    return rc;
}

/* The original, or the packed model's table in its place; all ranks alike, as the first one that does not
 * have it. A model_path that is given must be it. Collective. */
static p4_rc open_original(p4_run *run, p4_hf_model *table, p4_measurement *m, bool asked)
{
    p4_rc rc = P4_OK;
    p4_group *group = run->compute.group;
    TRY_ALL(group, find_original(run, &table->model, m->path, m->why_not));
    double lacking = m->why_not[0] != '\0';
    p4_group_max_f64(group, &lacking, 1);
    if (lacking > 0 && m->why_not[0] == '\0') {
        snprintf(m->why_not, sizeof m->why_not, "another rank does not have it");
        p4_original_close(&run->original);
    }
    TRY_ALL(group, lacking == 0 || !asked
                       ? P4_OK
                       : FAIL("key \"model_path\": the original was asked for, but %s", m->why_not));
    if (lacking > 0) {
        run->original.hf = *table;
        *table = (p4_hf_model){.path = NULL};
        INFO("      the original is not at hand: %s", m->why_not);
    } else {
        snprintf(m->original_path, sizeof m->original_path, "%s", run->original.hf.path);
    }
    TRY_ALL(group, p4_original_shard(&run->original, group->ranks));
done:
    return rc;
}

/* ---- the text ---- */

/* The tokenizer of a directory, or (NULL) the one that model.h5 holds. Local. */
static p4_rc open_tokenizer(p4_run *run, const char *directory, p4_artifact_reader *reader, const char *file)
{
    p4_rc rc = P4_OK;
    char *json = NULL;
    if (directory != NULL) {
        TRY(p4_tokenizer_open(&run->tokenizer, directory));
        TRY(p4_chat_open(&run->chat, directory, run->config.chat_template));
    } else {
        TRY(p4_artifact_read_text(reader, "tokenizer/tokenizer_json", &json));
        TRY(json != NULL ? p4_tokenizer_parse(&run->tokenizer, json, strlen(json), file) : P4_OK);
    }
done:
    free(json);
    return rc;
}

/* Of the original, of dequantized_fp16, or of the file, in this order. Rank 0. */
static p4_rc find_tokenizer(p4_run *run, p4_artifact_reader *reader, const char *file)
{
    p4_rc rc = P4_OK;
    const char *slash = strrchr(file, '/');
    char *fp16 = p4_format("%.*sdequantized_fp16", slash != NULL ? (int)(slash - file) + 1 : 0, file);
    TRY(fp16 != NULL ? P4_OK : P4_E_SYSTEM);
    const char *directory = p4_tokenizer_present(run->original.hf.path) ? run->original.hf.path
                            : p4_tokenizer_present(fp16)                ? fp16
                                                                        : NULL;
    TRY(open_tokenizer(run, directory, reader, file));
done:
    free(fp16);
    return rc;
}

/* Of the text, only what is evaluated on: where that is set aside from calibration data, as the run did it.
 * Rank 0. */
static p4_rc choose_text(p4_run *run)
{
    p4_rc rc = P4_OK;
    p4_config *c = &run->config;
    p4_text_files files = {.eval = {.paths = NULL}};
    TRY(p4_text_files_find_split(&files, c, P4_SPLIT_EVAL));
    bool held_out = files.eval.held_out;
    CHECK(!held_out || c->calibration_samples > 0 || !p4_trains_on_files(c) || c->train_files.count > 0,
          "key \"eval_files\": found none, and the run evaluated on windows that it set aside from its "
          "training "
          "data; expected files to evaluate on");
    TRY(p4_check_protocol(run, held_out));
    if (!held_out) {
        c->calibration_samples = 0;
        c->reconstruct = false;
    }
    c->enable_fine_tuning = false;
done:
    p4_text_files_free(&files);
    return rc;
}

/* The windows are what a run's provenance has the fingerprint of, in whatever lengths they are cut. */
static p4_same_text compare_windows(const p4_metadata *metadata, const char *name, const p4_windows *windows,
                                    int32_t run_T)
{
    char then[P4_FINGERPRINT_BYTES], now[P4_FINGERPRINT_BYTES];
    if (metadata->provenance_json == NULL) {
        return P4_TEXT_UNKNOWN;
    }
    p4_provenance_find_input(then, metadata->provenance_json, name);
    p4_fingerprint_bytes(now, windows->ids, (size_t)(windows->count * windows->T) * sizeof *windows->ids);
    return then[0] == '\0'                                 ? P4_TEXT_UNKNOWN
           : strcmp(then, now) == 0 && windows->T == run_T ? P4_TEXT_SAME
                                                           : P4_TEXT_OTHER;
}

/* Rank 0. */
static p4_rc compare_texts(p4_measurement *m, const p4_run *run, int32_t run_T)
{
    p4_rc rc = P4_OK;
    p4_metadata metadata;
    bool there;
    TRY(read_metadata(&metadata, &there, m->path));
    m->same_text = compare_windows(&metadata, P4_EVALUATION_TEXT, &run->eval, run_T);
    for (int i = 0; i < run->config.eval_sets.count; i++) {
        char name[sizeof P4_SET_TEXT + P4_SET_NAME_BYTES];
        snprintf(name, sizeof name, P4_SET_TEXT, run->config.eval_sets.names[i]);
        m->set_same_text[i] = compare_windows(&metadata, name, &run->sets[i].windows, run_T);
    }
done:
    p4_metadata_free(&metadata);
    return rc;
}

/* ---- the whole ---- */

/* Both models on one text, and what follows from them. opt_set: the text is that set. The original is loaded
 * where `compare`. Collective. */
static p4_rc evaluate_text(p4_run *run, const char *opt_set, const p4_windows *windows, bool compare,
                           p4_part_losses *losses, p4_evaluation *original, p4_evaluation *compressed,
                           p4_quality *quality)
{
    p4_rc rc = P4_OK;
    p4_evaluator evaluator = {.compute = &run->compute,
                              .original = &run->original,
                              .plan = p4_settings_pipeline(&run->config, windows->T),
                              .windows = windows,
                              .opt_losses = losses,
                              .seed = run->config.seed,
                              .opt_set = opt_set};
    if (compare) {
        TRY(p4_evaluate_original(&evaluator, original));
    }
    TRY(p4_evaluate_packed(&evaluator, &run->packed, compare, compressed));
    p4_quality_judge(quality, original, compressed, run->config.max_accuracy_drop);
done:
    return rc;
}

static p4_rc evaluate(p4_run *run, p4_measurement *m)
{
    p4_rc rc = P4_OK;
    bool compare = m->original_path[0] != '\0';
    if (compare) {
        TRY_ALL(run->compute.group, p4_original_load(&run->original, &run->compute));
    }
    TRY(evaluate_text(run, NULL, &run->eval, compare, &run->original_losses, &m->original, &m->compressed,
                      &m->quality));
    m->original_guesses = p4_evaluation_guesses(run, &m->original);
    m->set_count = run->results.set_count;
    for (int64_t i = 0; i < m->set_count; i++) {
        p4_run_set *of = &run->sets[i];
        p4_set_results *set = &m->sets[i];
        *set = run->results.sets[i];
        m->set_windows[i] = of->windows.count;
        TRY(evaluate_text(run, set->name, &of->windows, compare, &of->original_losses, &set->pre, &set->final,
                          &set->quality));
    }
    m->quality.passed = p4_sets_verdict(&m->quality, m->sets, m->set_count) == P4_VERDICT_PASSED;
done:
    return rc;
}

/* Of the run's sets those that are measured now. */
static p4_rc read_recorded(const p4_run *run, p4_measurement *m, p4_artifact_reader *reader)
{
    p4_rc rc = P4_OK;
    const p4_sets *sets = &run->config.eval_sets;
    TRY(p4_model_file_evaluation(&m->recorded_original, reader, NULL, "pre"));
    TRY(p4_model_file_evaluation(&m->recorded, reader, NULL, "final"));
    for (int i = 0; i < sets->count; i++) {
        p4_set_results *set = &m->recorded_sets[i];
        p4_set_results_init(set, sets->names[i]);
        TRY(p4_model_file_evaluation(&set->pre, reader, set->name, "pre"));
        TRY(p4_model_file_evaluation(&set->final, reader, set->name, "final"));
    }
done:
    return rc;
}

static p4_rc measure(p4_run *run, p4_measurement *m, p4_group *group, p4_artifact_reader *reader, bool asked,
                     int32_t run_T)
{
    p4_rc rc = P4_OK;
    p4_hf_model table = {.path = NULL};
    p4_packing packing;
    p4_compute_settings settings = p4_settings_compute(&run->config);
    group->timeout_s = run->config.collective_timeout_s;
    TRY_ALL(group, p4_model_file_table(&table, reader, m->path));
    snprintf(m->model_type, sizeof m->model_type, "%s", table.model.arch.family);
    TRY_ALL(group, read_recorded(run, m, reader));
    TRY(p4_compute_open(&run->compute, group, &settings));
    TRY(open_original(run, &table, m, asked));
    p4_model *model = &run->original.hf.model;
    CHECK(run->config.calibration_sequence_length <= model->arch.positions,
          "key \"calibration_sequence_length\": found %d, expected at most the %lld positions of the model",
          run->config.calibration_sequence_length, (long long)model->arch.positions);
    TRY_ALL(group, p4_net_check_device(run->compute.ops, run->compute.device, model));
    TRY_ROOT(group, find_tokenizer(run, reader, m->path));
    TRY_ROOT(group, choose_text(run));
    p4_group_bcast(group, &run->config, sizeof run->config, 0);
    TRY(p4_load_text(run));
    TRY_ROOT(group, compare_texts(m, run, run_T));
    p4_group_bcast(group, &m->same_text, sizeof m->same_text, 0);
    p4_group_bcast(group, m->set_same_text, sizeof m->set_same_text, 0);
    m->windows = run->eval.count;
    m->window_tokens = run->eval.T;
    TRY_ALL(group, p4_model_file_read(&run->packed, &packing, reader, model, run->compute.threads));
    TRY(evaluate(run, m));
done:
    p4_hf_model_close(&table);
    return rc;
}

static void close_run(p4_run *run)
{
    p4_windows_free(&run->calibration);
    p4_windows_free(&run->eval);
    p4_windows_free(&run->reconstruction);
    free(run->original_losses.nll);
    p4_free_sets(run);
    p4_packed_release(&run->packed);
    p4_original_close(&run->original);
    p4_inputs_free(&run->inputs);
    p4_chat_close(run->chat);
    p4_tokenizer_close(run->tokenizer);
    p4_compute_close(&run->compute);
    free(run);
}

p4_rc p4_measure(p4_measurement *m, p4_group *group, const char *path, char *const *overrides, int count)
{
    p4_rc rc = P4_OK;
    p4_artifact_reader *reader = NULL;
    bool asked = false;
    int32_t run_T = 0; /* tokens of the run's windows */
    const p4_evaluation nothing = p4_evaluation_none();
    *m = (p4_measurement){
        .original = nothing,
        .compressed = nothing,
        .recorded_original = nothing,
        .recorded = nothing,
        .quality = {.degradation_ratio = NAN, .degradation_low = NAN, .degradation_high = NAN}};
    p4_run *run = p4_alloc(1, sizeof *run);
    TRY_ALL(group, run != NULL ? P4_OK : P4_E_SYSTEM);
    run->only_evaluates = true;
    for (int i = 0; i < count; i++) {
        asked = asked || strncmp(overrides[i], "model_path=", 11) == 0;
    }
    TRY_ALL(group, p4_model_file_find(m->path, path));
    TRY_ALL(group, p4_artifact_reader_open(&reader, m->path));
    TRY_ALL(group, read_config(run, &run_T, reader, m->path, overrides, count));
    TRY(measure(run, m, group, reader, asked, run_T));
done:
    p4_artifact_reader_close(reader);
    if (run != NULL) {
        close_run(run);
    }
    return rc;
}
