#include <stdlib.h>
#include <string.h>

#include "io/file/files.h"
#include "jobs/stages/stages.h"
#include "jobs/train/windows.h"

/* Windows kept for the shuffle even when fewer are trained on: a training order should not be the file's
 * order. */
enum { SHUFFLE_WINDOWS = 65536 };

static p4_rc read_split(p4_run *run, p4_windows *windows, p4_split split, int64_t limit, bool *held_out)
{
    p4_rc rc = P4_OK;
    const p4_config *c = &run->config;
    const p4_arch *arch = &run->original.hf.model.arch;
    char **paths = NULL;
    int64_t count = 0;
    TRY(p4_dataset_files(c, split, &paths, &count, held_out));
    if (*held_out) {
        goto done;
    }
    p4_windowing how = {.tokenizer = run->tokenizer,
                        .T = c->calibration_sequence_length,
                        .vocab = arch->V,
                        .end_id = arch->eos_id,
                        .threads = c->num_workers,
                        .seed = c->seed};
    TRY(p4_windows_read(windows, paths, count, &how, limit));
done:
    p4_dataset_files_free(paths, count);
    return rc;
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
static p4_rc hold_out(p4_run *run, bool others_use)
{
    p4_rc rc = P4_OK;
    const p4_config *c = &run->config;
    int64_t count = run->calibration.count,
            free_count = c->calibration_samples > 0 ? count - c->calibration_samples : 0;
    int64_t most = others_use ? p4_max_i64(1, p4_max_i64(count / 5, free_count)) : count;
    int64_t aside = p4_min_i64(c->eval_samples, most);
    CHECK(count > aside || !others_use,
          "calibration data: one window of %lld tokens is all there is, none is left to evaluate on; "
          "give eval_files, or set eval_samples to 0",
          (long long)run->calibration.T);
    TRY(p4_windows_set_aside(&run->calibration, &run->eval, aside, c->seed));
done:
    return rc;
}

/* Rank 0 reads and tokenises. Local. */
static p4_rc read_data(p4_run *run)
{
    p4_rc rc = P4_OK;
    const p4_config *c = &run->config;
    bool held_out = false, shared = false;
    bool train = c->enable_fine_tuning, own_train = c->train_files.count > 0;
    int64_t calibration = c->calibration_samples;
    if (c->eval_samples > 0) {
        TRY(read_split(run, &run->eval, P4_SPLIT_EVAL, c->eval_samples, &held_out));
    }
    if (calibration > 0 || held_out || (train && !own_train)) {
        bool trains_on_all = calibration == 0 && train && !own_train;
        int64_t limit = trains_on_all ? 0 : calibration + (held_out ? c->eval_samples : 0);
        TRY(read_split(run, &run->calibration, P4_SPLIT_CALIBRATION, limit, &shared));
        TRY(check_count(&run->calibration, "calibration"));
    }
    if (held_out) {
        TRY(hold_out(run, calibration > 0 || (train && !own_train)));
    }
    if (c->eval_samples > 0) {
        TRY(check_count(&run->eval, "evaluation"));
    }
    if (train && own_train) {
        TRY(read_split(run, &run->train, P4_SPLIT_TRAIN, train_limit(c), &shared));
        TRY(check_count(&run->train, "training"));
    }
done:
    return rc;
}

static p4_rc read_tokens(p4_run *run)
{
    p4_rc rc = P4_OK;
    const p4_arch *arch = &run->original.hf.model.arch;
    char *path = p4_format("%s/tokenizer.json", run->original.hf.path);
    if (path == NULL) {
        return P4_E_SYSTEM;
    }
    if (p4_file_exists(path)) { /* without one, token files are read and text is refused by name */
        TRY(p4_tokenizer_open(&run->tokenizer, run->original.hf.path));
    }
    if (arch->eos_id < 0) {
        WARN("warning: %s: config.json names no eos_token_id: documents are joined without a mark between "
             "them",
             run->original.hf.path);
    }
    TRY(read_data(run));
done:
    free(path);
    return rc;
}

p4_rc p4_load_text(p4_run *run)
{
    p4_rc rc = P4_OK;
    p4_group *group = run->compute.group;
    TRY_ROOT(group, read_tokens(run));
    TRY(p4_windows_publish(group, &run->calibration));
    TRY(p4_windows_publish(group, &run->eval));
    TRY(p4_windows_publish(group, &run->train));
    INFO("      windows of %d tokens: %lld to calibrate, %lld to evaluate, %lld to train on",
         run->config.calibration_sequence_length,
         (long long)(run->config.calibration_samples > 0 ? run->calibration.count : 0),
         (long long)run->eval.count, (long long)p4_run_train_windows(run)->count);
done:
    return rc;
}
