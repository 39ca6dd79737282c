/* plan_text.c - how much text there is, by the sizes of its files. */
#include <sys/stat.h>

#include "io/text/dataset_parts.h"
#include "io/text/sample.h"
#include "io/text/token_file.h"
#include "jobs/plan.h"
#include "jobs/text_files.h"

/* tokens -1: cannot be told. */
typedef struct amount {
    int64_t tokens;
    double bytes;
} amount;

static int64_t tokens_of(const char *path, int64_t bytes, int64_t vocab)
{
    enum { BYTES_A_TOKEN = 3 };
    p4_token_file file = {.path = NULL};
    int64_t tokens;
    if (p4_text_is_compressed(path)) {
        return -1;
    }
    switch (p4_data_kind_of(path)) {
    case P4_DATA_TOKENS:
        tokens = p4_token_file_open(&file, path, vocab) == P4_OK ? file.count : -1;
        p4_token_file_close(&file);
        p4_error_clear(); /* the check of the text names a file that cannot be read */
        return tokens;
    case P4_DATA_TEXT:
    case P4_DATA_JSONL:
    case P4_DATA_ARTICLES:
        return bytes / BYTES_A_TOKEN;
    default:
        return -1;
    }
}

static amount measure(const p4_split_files *files, int64_t vocab)
{
    amount a = {.tokens = files->count > 0 ? 0 : -1};
    for (int64_t i = 0; i < files->count; i++) {
        struct stat status;
        bool there = stat(files->paths[i], &status) == 0 && S_ISREG(status.st_mode);
        int64_t tokens = there ? tokens_of(files->paths[i], (int64_t)status.st_size, vocab) : -1;
        a.tokens = tokens < 0 || a.tokens < 0 ? -1 : a.tokens + tokens;
        a.bytes += there && p4_data_kind_of(files->paths[i]) != P4_DATA_TOKENS ? (double)status.st_size : 0;
    }
    return a;
}

int64_t p4_plan_steps(const p4_config *c, const p4_plan_windows *w)
{
    enum { EXAMPLE = 1000 };
    int64_t T = c->calibration_sequence_length;
    int64_t sequences = p4_max_i64(1, p4_settings_train(c, T, NULL).sequences);
    bool known = w->train_known || !p4_trains_on_files(c);
    int64_t held = known ? w->train / sequences * c->fine_tune_epochs : INT64_MAX;
    int64_t steps = c->fine_tune_max_steps > 0 ? p4_min_i64(held, c->fine_tune_max_steps) : held;
    return steps == INT64_MAX ? EXAMPLE : steps;
}

p4_plan_windows p4_plan_windows_within(p4_plan_windows w, const p4_config *c)
{
    const int64_t wanted = p4_max_i64(c->calibration_samples,
                                      p4_settings_reconstruct_windows(c, c->calibration_sequence_length));
    w.calibration = p4_min_i64(w.calibration, wanted);
    w.eval = p4_min_i64(w.eval, c->eval_samples);
    w.sets = p4_min_i64(w.sets, c->eval_samples * c->eval_sets.count);
    w.longest_set = p4_min_i64(w.longest_set, c->eval_samples);
    if (!p4_trains_on_files(c)) {
        w.train = p4_min_i64(w.train, c->calibration_samples);
        w.tokenized = p4_min_i64(w.tokenized, w.train);
    }
    return w;
}

/* What the configuration asks for. */
static p4_plan_windows asked(const p4_config *c)
{
    int64_t T = c->calibration_sequence_length;
    int64_t reconstruct = p4_settings_reconstruct_windows(c, T);
    return (p4_plan_windows){.calibration = p4_max_i64(c->calibration_samples, reconstruct),
                             .eval = c->eval_samples,
                             .sets = c->eval_samples * c->eval_sets.count,
                             .longest_set = c->eval_sets.count > 0 ? c->eval_samples : 0,
                             .train = p4_trains_on_files(c) ? 0 : c->calibration_samples};
}

/* Evaluation windows that a run sets aside from the calibration data, of `read` that it finds, as
 * jobs/stages/load_text.c does; what is left calibrates. The size of a text may stand for no window at all.
 */
static void hold_out(p4_plan_windows *w, int64_t read)
{
    int64_t wanted = w->calibration, count = p4_min_i64(read, wanted + w->eval);
    int64_t most = wanted > 0 ? p4_max_i64(1, p4_max_i64(count / 5, count - wanted)) : count;
    w->eval = p4_min_i64(count, p4_min_i64(w->eval, most));
    w->calibration = p4_min_i64(wanted, count - w->eval);
}

/* Bytes of text that are tokenized for so many windows: a run draws a sample of what there is. */
static double bytes_for(const amount *a, int64_t windows, int64_t T)
{
    return a->tokens > 0 ? p4_drawn_bytes(a->bytes, windows, T) : a->bytes;
}

/* The windows that they hold: more than those. */
static int64_t drawn_for(const amount *a, int64_t windows, int64_t T)
{
    return a->bytes > 0 && a->tokens > 0
               ? (int64_t)((double)(a->tokens / T) * bytes_for(a, windows, T) / a->bytes)
               : windows;
}

/* Training windows that the steps take, as jobs/stages/load_text.c asks for them. */
static int64_t taken_by_steps(const p4_config *c, int64_t train, int64_t sequences)
{
    int64_t needed;
    bool all = c->fine_tune_max_steps == 0 ||
               __builtin_mul_overflow((int64_t)c->fine_tune_max_steps, sequences, &needed);
    return all ? train : p4_min_i64(train, needed);
}

static void measure_sets(p4_plan_windows *w, const p4_config *c, const p4_text_files *files, int64_t V)
{
    w->sets = w->longest_set = 0;
    for (int i = 0; i < c->eval_sets.count; i++) {
        amount a = measure(&files->sets[i], V);
        int64_t most = p4_windows_in(p4_max_i64(0, a.tokens), c->calibration_sequence_length, c->eval_stride);
        int64_t windows = a.tokens < 0 ? c->eval_samples : p4_min_i64(c->eval_samples, most);
        w->sets += windows;
        w->longest_set = p4_max_i64(w->longest_set, windows);
        w->text_bytes += bytes_for(&a, windows, c->calibration_sequence_length);
    }
}

p4_plan_windows p4_plan_windows_found(const p4_config *c, const p4_original *original)
{
    p4_plan_windows w = asked(c);
    p4_text_files files;
    int64_t T = c->calibration_sequence_length, V = original->hf.model.arch.V,
            sequences = p4_max_i64(1, p4_settings_train(c, T, NULL).sequences);
    if (p4_text_files_find(&files, c) == P4_OK) {
        amount calibration = measure(&files.calibration, V), eval = measure(&files.eval, V),
               train = measure(&files.train, V);
        bool held_out = files.eval.held_out;
        if (calibration.tokens >= 0) {
            int64_t read = calibration.tokens / T;
            if (held_out) {
                hold_out(&w, read);
            } else {
                w.calibration = p4_min_i64(w.calibration, read);
            }
        }
        if (eval.tokens >= 0 && !held_out) {
            w.eval = p4_min_i64(w.eval, p4_windows_in(eval.tokens, T, c->eval_stride));
        }
        w.train_known = p4_trains_on_files(c) && train.tokens >= 0;
        w.train = w.train_known ? train.tokens / T : p4_min_i64(w.calibration, p4_max_i64(0, w.train));
        int64_t read = w.calibration + (held_out ? w.eval : 0), taken = taken_by_steps(c, w.train, sequences);
        w.tokenized = p4_trains_on_files(c) ? drawn_for(&train, taken, T) : taken;
        w.text_bytes = bytes_for(&calibration, read, T) + (held_out ? 0 : bytes_for(&eval, w.eval, T)) +
                       (p4_trains_on_files(c) ? bytes_for(&train, taken, T) : 0);
        measure_sets(&w, c, &files, V);
    }
    p4_error_clear();
    p4_text_files_free(&files);
    if (p4_trains_on_files(c) && !w.train_known) {
        w.train = p4_plan_steps(c, &w) * sequences;
        w.tokenized = w.train;
    }
    return w;
}
