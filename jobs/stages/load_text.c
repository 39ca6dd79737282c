#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/file/files.h"
#include "io/out/outputs.h"
#include "io/tokenizer/tokenizer.h"
#include "jobs/resume.h"
#include "jobs/stages/stages.h"
#include "jobs/text_files.h"
#include "jobs/train/windows.h"
#include "src/config.h"
#include "src/leaf/count.h"

p4_windowing p4_text_windowing(const p4_run *run)
{
    const p4_arch *arch = &run->original.hf.model.arch;
    return (p4_windowing){.tokenizer = run->tokenizer,
                          .T = run->config.calibration_sequence_length,
                          .vocab = arch->V,
                          .end_id = arch->eos_id,
                          .threads = run->config.num_workers,
                          .seed = run->config.seed,
                          .json = {.opt_field = run->config.text_field, .chat = run->chat}};
}

/* ---- what trains on what ---- */

/* Windows that the steps of fine-tuning take; 0: all there are. */
static int64_t windows_needed(const p4_config *c)
{
    int64_t needed, sequences = p4_settings_train(c, c->calibration_sequence_length, NULL).sequences;
    return __builtin_mul_overflow(c->fine_tune_max_steps, sequences, &needed) ? 0 : needed;
}

/* The same of a run that may be continued: its state counts its place in the text that it began with. */
static void choose_text(p4_run *run)
{
    int64_t needed = windows_needed(&run->config), kept = needed;
    if (p4_resume_text_windows(run, &kept) && kept != needed && p4_trains_on_files(&run->config)) {
        char part[48] = "all of it";
        if (kept > 0) {
            snprintf(part, sizeof part, "of %lld windows at most", (long long)kept);
        }
        INFO("      fine_tune_max_steps changed since the run began; the training text is unchanged: %s",
             part);
    }
    run->text_windows = kept;
}

/* ---- warnings ---- */

static void warn_of_few(const p4_config *c, const char *key, int64_t wanted, int64_t found)
{
    if (found < wanted && p4_config_is_chosen(c, p4_config_find(key))) {
        WARN("warning: key \"%s\": asked for %lld windows of %d tokens, but there are only %lld", key,
             (long long)wanted, c->calibration_sequence_length, (long long)found);
    }
}

/* The same of each set, which may hold less than the evaluation text. */
static void warn_of_few_in_sets(const p4_run *run)
{
    const p4_config *c = &run->config;
    bool given = p4_config_is_chosen(c, p4_config_find("eval_samples"));
    for (int i = 0; given && i < c->eval_sets.count; i++) {
        int64_t found = run->sets[i].windows.count;
        if (found < c->eval_samples) {
            WARN(
                "warning: key \"eval_samples\": asked for %lld windows of %d tokens, but set \"%s\" has only "
                "%lld",
                (long long)c->eval_samples, c->calibration_sequence_length, c->eval_sets.names[i],
                (long long)found);
        }
    }
}

/* ---- windows of calibration and evaluation ---- */

/* use: what they are for, in messages. */
static p4_rc read_windows(const p4_run *run, p4_windows *windows, const p4_split_files *files,
                          const char *use, const char *key, int64_t limit, int64_t stride)
{
    char what[P4_TEXT_WHAT_BYTES];
    p4_windowing how = p4_text_windowing(run);
    how.stride = stride;
    how.opt_mixture = &files->mixture;
    how.opt_what = p4_text_what(what, use, key);
    return p4_windows_read(windows, files->paths, files->count, &how, limit);
}

/* Those of eval_sets, each as eval_files are read. Local. */
static p4_rc read_sets(p4_run *run, const p4_text_files *files)
{
    p4_rc rc = P4_OK;
    const p4_config *c = &run->config;
    for (int i = 0; i < c->eval_sets.count; i++) {
        char what[sizeof "key \"eval_sets\": set \"\"" + P4_SET_NAME_BYTES];
        p4_windowing how = p4_text_windowing(run);
        snprintf(what, sizeof what, "key \"eval_sets\": set \"%s\"", c->eval_sets.names[i]);
        how.stride = c->eval_stride;
        how.opt_what = what;
        TRY(p4_windows_read(&run->sets[i].windows, files->sets[i].paths, files->sets[i].count, &how,
                            c->eval_samples));
    }
done:
    return rc;
}

/* Nothing is measured on them yet. */
static void name_sets(p4_run *run)
{
    p4_results *r = &run->results;
    const p4_sets *sets = &run->config.eval_sets;
    r->set_count = sets->count;
    for (int i = 0; i < sets->count; i++) {
        p4_set_results_init(&r->sets[i], sets->names[i]);
    }
}

/* Evaluation without files of its own: windows set aside from the calibration data and used for nothing else.
 * Local. */
static p4_rc hold_out(p4_run *run, const p4_split_files *files)
{
    p4_rc rc = P4_OK;
    int64_t aside;
    TRY(p4_text_set_aside(&aside, &run->config, files, run->calibration.count));
    TRY(p4_windows_set_aside(&run->calibration, &run->eval, aside, run->config.seed));
done:
    return rc;
}

/* The windows of reconstruction, and of those read for both the ones that are calibrated on: the larger
 * number is all of them, the smaller is spread over them. Local. */
static p4_rc divide_calibration(p4_run *run)
{
    p4_rc rc = P4_OK;
    const p4_config *c = &run->config;
    p4_windows read = run->calibration;
    int64_t wanted = p4_settings_reconstruct_windows(c, read.T),
            calibrating = p4_min_i64(read.count, c->calibration_samples);
    if (wanted == 0) {
        return P4_OK;
    }
    TRY(p4_windows_copy_some(&read, &run->reconstruction, p4_min_i64(read.count, wanted), c->seed));
    if (calibrating < read.count) {
        run->calibration = (p4_windows){.ids = NULL};
        rc = p4_windows_copy_some(&read, &run->calibration, calibrating, c->seed);
        p4_windows_free(&read);
    }
done:
    return rc;
}

static void put_bos(p4_windows *windows, int32_t bos_id)
{
    for (int64_t i = 0; i < windows->count; i++) {
        windows->ids[i * windows->T] = bos_id;
    }
}

/* As llama.cpp does it: the tokens that are predicted stay the same. Local. */
static void begin_with_bos(p4_run *run)
{
    int32_t bos_id = run->original.hf.model.arch.bos_id; /* there is one: p4_check_protocol */
    put_bos(&run->eval, bos_id);
    for (int i = 0; i < run->config.eval_sets.count; i++) {
        put_bos(&run->sets[i].windows, bos_id);
    }
}

/* What is calibrated, reconstructed and evaluated on, except windows that are set aside from training data.
 * Local. */
static p4_rc read_samples(p4_run *run, const p4_text_files *files)
{
    p4_rc rc = P4_OK;
    const p4_config *c = &run->config;
    bool held_out = files->eval.held_out;
    bool from_training = p4_text_aside_from_training(c, held_out);
    if (c->eval_samples > 0 && !held_out) {
        TRY(read_windows(run, &run->eval, &files->eval, "evaluation", p4_text_key(c, P4_SPLIT_EVAL),
                         c->eval_samples, c->eval_stride));
    }
    if (c->calibration_samples > 0 || (held_out && !from_training)) {
        TRY(read_windows(run, &run->calibration, &files->calibration, "calibration",
                         p4_text_key(c, P4_SPLIT_CALIBRATION), p4_text_calibration_windows(c, held_out), 0));
    }
    if (held_out && !from_training) {
        TRY(hold_out(run, &files->calibration));
    }
    TRY(divide_calibration(run));
done:
    return rc;
}

/* ---- the stage's part ---- */

static p4_rc remember_files(p4_inputs *inputs, const p4_split_files *files)
{
    p4_rc rc = P4_OK;
    for (int64_t i = 0; rc == P4_OK && i < files->count; i++) {
        rc = p4_inputs_add(inputs, files->paths[i], false);
    }
    return rc;
}

static p4_rc remember_tokenizer(p4_run *run)
{
    p4_rc rc = P4_OK;
    for (int i = 0; rc == P4_OK && i < P4_TOKENIZER_FILES; i++) {
        char *path = p4_format("%s/%s", run->original.hf.path, p4_tokenizer_files[i]);
        rc = path == NULL           ? P4_E_SYSTEM
             : p4_file_exists(path) ? p4_inputs_add(&run->inputs, path, true)
                                    : P4_OK;
        free(path);
    }
    return rc;
}

/* What is read from now on: if it changes later, the run ends. Local. */
static p4_rc remember_text(p4_run *run, const p4_text_files *files)
{
    p4_rc rc = P4_OK;
    TRY(run->tokenizer != NULL ? remember_tokenizer(run) : P4_OK);
    TRY(remember_files(&run->inputs, &files->calibration));
    TRY(remember_files(&run->inputs, &files->eval));
    TRY(remember_files(&run->inputs, &files->train));
    for (int i = 0; i < run->config.eval_sets.count; i++) {
        TRY(remember_files(&run->inputs, &files->sets[i]));
    }
done:
    return rc;
}

/* Rank 0 reads and tokenizes. Local. */
static p4_rc read_text(p4_run *run, p4_text_files *files)
{
    p4_rc rc = P4_OK;
    TRY(p4_text_files_find(files, &run->config));
    TRY(remember_text(run, files));
    TRY(read_samples(run, files));
    TRY(read_sets(run, files));
done:
    return rc;
}

/* The windows of fine-tuning: those of files, or those of calibration where it has some and no train_files
 * are given, as the specification's fine-tuner takes the calibration loader. Collective. */
static p4_rc open_training(p4_run *run, const p4_text_files *files)
{
    p4_rc rc = P4_OK;
    const p4_config *c = &run->config;
    p4_group *group = run->compute.group;
    char *temporary = NULL, what[P4_TEXT_WHAT_BYTES];
    if (!p4_trains_on_files(c)) {
        TRY_ALL(group,
                c->enable_fine_tuning ? p4_training_set_of_windows(&run->train, &run->calibration) : P4_OK);
        goto done;
    }
    temporary = p4_format("%s/" P4_TRAINING_TOKENS_FILE, c->output_path);
    TRY_ALL(group, temporary != NULL ? P4_OK : P4_E_SYSTEM);
    bool aside = files->eval.held_out && c->train_files.count == 0;
    p4_training_source source = {.paths = files->train.paths,
                                 .path_count = files->train.count,
                                 .how = p4_text_windowing(run),
                                 .windows = run->text_windows,
                                 .aside = aside ? c->eval_samples : 0,
                                 .cache_folder = c->token_cache,
                                 .temporary = temporary};
    source.how.opt_mixture = &files->train.mixture;
    source.how.opt_what = p4_text_what(what, "fine-tuning", p4_text_key(c, P4_SPLIT_TRAIN));
    TRY(p4_training_set_open(&run->train, group, &source, aside ? &run->eval : NULL));
done:
    free(temporary);
    return rc;
}

/* Training data that hold less than a step are an error now, not when it begins. Rank 0. */
static p4_rc check_training(const p4_run *run, const p4_text_files *files)
{
    p4_rc rc = P4_OK;
    const p4_config *c = &run->config;
    if (run->train == NULL) {
        return P4_OK;
    }
    int64_t windows = p4_training_set_count(run->train);
    int64_t sequences = p4_settings_train(c, c->calibration_sequence_length, NULL).sequences;
    bool aside = files->eval.held_out && c->train_files.count == 0;
    const p4_text_found found = {.windows = windows, .aside = aside ? run->eval.count : 0};
    TRY(p4_text_expect_step(c, files, &found));
    p4_warn_of_steps(c, windows / sequences);
done:
    return rc;
}

/* The shares of a mixture, one line. Where the training files have no weights of their own, nothing. Rank 0.
 */
static void say_mixture(const char *what, const p4_mixture *mixture, const p4_list *files)
{
    char line[1024] = "";
    const char *path = NULL;
    for (int64_t i = 0; i < mixture->source_count && (path = p4_list_next(files, path)) != NULL; i++) {
        size_t used = strlen(line);
        snprintf(line + used, sizeof line - used, "%s%.3g %% %s", i > 0 ? ", " : "", 100 * mixture->share[i],
                 path);
    }
    if (mixture->source_count > 0) {
        INFO("      %s: %s", what, line);
    }
}

static void say_sets(const p4_run *run)
{
    const p4_sets *sets = &run->config.eval_sets;
    for (int i = 0; i < sets->count; i++) {
        const p4_windows *windows = &run->sets[i].windows;
        char count[P4_COUNT_BYTES];
        INFO("      set \"%s\": %s window%s to evaluate", sets->names[i],
             p4_format_count(count, windows->count), p4_plural(windows->count));
    }
}

/* ", 7 to evaluate"; nothing of no windows. */
static void add_windows(char text[200], int64_t count, const char *purpose)
{
    char number[P4_COUNT_BYTES];
    size_t used = strlen(text);
    if (count > 0) {
        snprintf(text + used, 200 - used, "%s%s to %s", used > 0 ? ", " : "", p4_format_count(number, count),
                 purpose);
    }
}

/* Only what the process works on: an evaluation reads calibration text only to leave it out. */
static void say_windows(const p4_run *run)
{
    const p4_config *c = &run->config;
    char text[200] = "";
    if (!run->only_evaluates && c->calibration_samples > 0) {
        add_windows(text, run->calibration.count, "calibrate");
    }
    add_windows(text, run->eval.count, "evaluate");
    add_windows(text, run->train != NULL ? p4_training_set_count(run->train) : 0, "train on");
    INFO("      windows of %d tokens: %s", c->calibration_sequence_length, text[0] != '\0' ? text : "none");
}

void p4_free_sets(p4_run *run)
{
    for (int i = 0; i < P4_SETS_MAX; i++) {
        p4_windows_free(&run->sets[i].windows);
        free(run->sets[i].original_losses.nll);
        run->sets[i].original_losses = (p4_part_losses){.nll = NULL};
    }
}

p4_rc p4_load_text(p4_run *run)
{
    p4_rc rc = P4_OK;
    const p4_config *c = &run->config;
    p4_group *group = run->compute.group;
    p4_text_files files = {.eval = {.paths = NULL}};
    choose_text(run);
    TRY_ROOT(group, read_text(run, &files));
    p4_windows_forget_documents(&run->calibration); /* only what is evaluated is told apart by documents */
    p4_windows_forget_documents(&run->reconstruction);
    TRY(p4_windows_publish(group, &run->calibration));
    TRY(p4_windows_publish(group, &run->reconstruction));
    TRY(open_training(run, &files));
    if (c->eval_bos && group->rank == 0) {
        begin_with_bos(run);
    }
    TRY(p4_windows_publish(group, &run->eval));
    for (int i = 0; i < c->eval_sets.count; i++) {
        TRY(p4_windows_publish(group, &run->sets[i].windows));
    }
    name_sets(run);
    TRY_ROOT(group, check_training(run, &files));
    warn_of_few(c, "calibration_samples", c->calibration_samples, run->calibration.count);
    if (run->reconstruction.count > 0) {
        warn_of_few(c, "reconstruct_tokens", p4_settings_reconstruct_windows(c, run->reconstruction.T),
                    run->reconstruction.count);
    }
    warn_of_few(c, "eval_samples", c->eval_samples, run->eval.count);
    warn_of_few_in_sets(run);
    say_windows(run);
    say_sets(run);
    if (group->rank == 0) {
        say_mixture("calibration text", &files.calibration.mixture, &c->calibration_files);
        say_mixture("training text", &files.train.mixture,
                    c->train_files.count > 0 ? &c->train_files : &c->calibration_files);
    }
done:
    p4_text_files_free(&files);
    return rc;
}
