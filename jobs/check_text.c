#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/file/files.h"
#include "io/text/dataset_parts.h"
#include "io/text/sample.h"
#include "io/text/token_file.h"
#include "io/tokenizer/tokenizer.h"
#include "jobs/check.h"
#include "jobs/stages/stages.h"
#include "src/config.h"

enum {
    IDS_LOOKED_AT = 1 << 16,   /* at each end of a token file */
    TEXTS_LOOKED_AT = 16,      /* files of a split whose first document is read */
    DOCUMENTS_TOKENIZED = 8,   /* of such a file, where the tokenizer has ids that the model has not */
    BYTES_TOKENIZED = 64 << 10 /* of such a document */
};
static const int64_t UNKNOWN = INT64_MAX;
/* What --check reads to count windows: in seconds. A file that is compressed is decompressed as a whole. */
static const int64_t TOKENS_COUNTED = 1 << 20, BYTES_COUNTED = 1 << 30, PACKED_COUNTED = 64 << 20;

/* What a split holds. windows: UNKNOWN where it cannot be told. */
typedef struct amount {
    const p4_split_files *files;
    const char *what; /* p4_text_what */
    int64_t stride;
    int64_t windows;
    bool at_most; /* windows: judging by the sizes */
} amount;

static p4_rc open_tokenizer(p4_run *run)
{
    p4_rc rc = P4_OK;
    const p4_arch *arch = &run->original.hf.model.arch;
    if (p4_tokenizer_present(
            run->original.hf.path)) { /* without one, token files are read and text is refused by name */
        TRY(p4_tokenizer_open(&run->tokenizer, run->original.hf.path));
        TRY(p4_chat_open(&run->chat, run->original.hf.path, run->config.chat_template));
        int64_t count = p4_tokenizer_vocab_count(run->tokenizer);
        if (count > arch->V) {
            WARN("warning: the tokenizer of %s has token ids up to %lld, and the model's "
                 "vocabulary has %lld: text that contains the tokens beyond it will be refused",
                 run->original.hf.path, (long long)count - 1, (long long)arch->V);
        } else if (2 * count < arch->V) {
            WARN(
                "warning: the tokenizer of %s has %lld token ids, and the model's vocabulary has %lld: is it "
                "the tokenizer that the model was trained with?",
                run->original.hf.path, (long long)count, (long long)arch->V);
        }
    }
    if (arch->eos_id < 0) {
        WARN("warning: %s: config.json names no eos_token_id: documents are joined without a mark between "
             "them",
             run->original.hf.path);
    }
done:
    return rc;
}

/* Ids at both ends of a token file; the rest is checked when it is read. */
static p4_rc check_tokens(const char *path, int64_t V)
{
    p4_rc rc = P4_OK;
    p4_token_file file = {.path = NULL};
    int64_t ends = 0;
    TRY(p4_token_file_open(&file, path, V));
    int64_t count = p4_min_i64(file.count, IDS_LOOKED_AT);
    TRY(p4_token_file_check(&file, 0, count, V, -1, &ends));
    TRY(p4_token_file_check(&file, file.count - count, count, V, -1, &ends));
done:
    p4_token_file_close(&file);
    return rc;
}

/* How much of a document is tokenized: up to the beginning of a word, where tokens end. */
static size_t bytes_to_tokenize(const p4_document *document)
{
    const char *text = document->text;
    int64_t bytes = document->bytes;
    for (int64_t i = p4_min_i64(bytes, BYTES_TOKENIZED) - 1; i > 0 && bytes > BYTES_TOKENIZED; i--) {
        if (text[i] == ' ' && text[i - 1] != ' ') {
            bytes = i;
        }
    }
    return (size_t)bytes;
}

/* Has the model the tokens of a document? number: the document's in its file, from 1. */
static p4_rc check_ids(const p4_run *run, const char *path, const p4_document *document, int number)
{
    p4_rc rc = P4_OK;
    int64_t V = run->original.hf.model.arch.V;
    p4_ids ids = {0};
    p4_tokenizer_scratch *scratch = NULL;
    TRY(p4_tokenizer_scratch_create(&scratch, run->tokenizer));
    TRY(p4_tokenizer_encode(run->tokenizer, scratch, document->text, bytes_to_tokenize(document), false, &ids,
                            NULL));
    for (int64_t i = 0; i < ids.count; i++) {
        CHECK(ids.ids[i] < V,
              "%s: document %d: the tokenizer gives id %d; the model's vocabulary holds 0 to %lld", path,
              number, (int)ids.ids[i], (long long)V - 1);
    }
done:
    p4_tokenizer_scratch_free(scratch);
    p4_ids_free(&ids);
    return rc;
}

/* Can the first document of a file be read, as in a line of JSON without the field of its text? Where the
 * tokenizer has ids that the model has not, a few documents are tokenized. The others are looked at when they
 * are read for the work. */
static p4_rc check_first_documents(const p4_run *run, const char *path)
{
    p4_rc rc = P4_OK;
    p4_documents *documents = NULL;
    p4_document document;
    p4_json_reading json = {.opt_field = run->config.text_field, .chat = run->chat};
    bool beyond = p4_tokenizer_vocab_count(run->tokenizer) > run->original.hf.model.arch.V;
    TRY(p4_documents_open(&documents, path));
    p4_documents_read_json(documents, &json);
    TRY(p4_documents_next(documents, &document));
    for (int number = 1; beyond && number <= DOCUMENTS_TOKENIZED && document.bytes >= 0; number++) {
        TRY(check_ids(run, path, &document, number));
        if (document.continues) {
            break;
        }
        rc = p4_documents_next(documents, &document);
        if (rc == P4_E_INPUT) { /* a sample of the file may do without this document */
            p4_error_clear();
            rc = P4_OK;
            break;
        }
        TRY(rc);
    }
done:
    p4_documents_close(documents);
    return rc;
}

/* Tokens that a file can hold at most: a token of text is a byte or more, and so is what ends a document.
 * *exact: it has so many. */
static int64_t most_tokens(const char *path, int64_t bytes, int64_t V, bool *exact)
{
    p4_token_file file = {.path = NULL};
    int64_t tokens = UNKNOWN;
    *exact = false;
    if (p4_text_is_compressed(path)) {
        return UNKNOWN;
    }
    switch (p4_data_kind_of(path)) {
    case P4_DATA_TOKENS:
        *exact = p4_token_file_open(&file, path, V) == P4_OK;
        tokens = *exact ? file.count : bytes / 2;
        p4_token_file_close(&file);
        p4_error_clear(); /* check_tokens has named it */
        return tokens;
    case P4_DATA_TEXT:
    case P4_DATA_JSONL:
    case P4_DATA_ARTICLES:
        return bytes + 1;
    default:
        return UNKNOWN;
    }
}

/* Can the files be read, and what can they hold at most? */
static void check_files(const p4_run *run, amount *a, bool has_model, p4_findings *f)
{
    const p4_split_files *files = a->files;
    int64_t tokens = 0, texts = 0, V = has_model ? run->original.hf.model.arch.V : INT32_MAX;
    a->at_most = false;
    for (int64_t i = 0; i < files->count; i++) {
        const char *path = files->paths[i];
        struct stat status;
        p4_rc rc = P4_OK;
        bool exact = false;
        if (stat(path, &status) != 0 || access(path, R_OK) != 0) {
            rc = FAIL("%s: cannot open: %s", path, strerror(errno));
        } else if (has_model && S_ISREG(status.st_mode) && p4_data_kind_of(path) == P4_DATA_TOKENS &&
                   !p4_text_is_compressed(path)) {
            rc = check_tokens(path, V);
        } else if (run->tokenizer != NULL && S_ISREG(status.st_mode) && texts++ < TEXTS_LOOKED_AT &&
                   p4_data_kind_of(path) != P4_DATA_TOKENS) {
            rc = check_first_documents(run, path);
        }
        p4_findings_add(f, rc);
        int64_t most = rc == P4_OK && S_ISREG(status.st_mode)
                           ? most_tokens(path, (int64_t)status.st_size, V, &exact)
                           : UNKNOWN;
        tokens = tokens == UNKNOWN || most == UNKNOWN ? UNKNOWN : tokens + most;
        a->at_most = a->at_most || !exact;
    }
    a->windows = tokens == UNKNOWN
                     ? UNKNOWN
                     : p4_windows_in(tokens, run->config.calibration_sequence_length, a->stride);
}

static bool all_empty(const p4_split_files *files)
{
    struct stat status;
    for (int64_t i = 0; i < files->count; i++) {
        if (stat(files->paths[i], &status) != 0 || !S_ISREG(status.st_mode) || status.st_size > 0) {
            return false;
        }
    }
    return true;
}

/* Less text than one window or one step of training needs is an error now and not in the middle of the run.
 */
static p4_rc expect_window(const p4_run *run, const amount *a)
{
    p4_rc rc = P4_OK;
    const p4_split_files *files = a->files;
    const p4_text_found found = {.windows = a->windows, .at_most = a->at_most};
    char more[40] = "";
    if (files->count > 1) {
        snprintf(more, sizeof more, " and %lld more", (long long)files->count - 1);
    }
    CHECK(a->windows > 0 || !all_empty(files), "%s: %s%s %s empty", a->what, files->paths[0], more,
          files->count > 1 ? "are" : "is");
    TRY(p4_text_expect_window(&run->config, a->what, files, &found));
done:
    return rc;
}

/* ---- windows that are counted ---- */

/* Are the files small enough to be read for so many tokens, and files that can be read again? */
static bool is_cheap(const p4_split_files *files, int64_t windows, int64_t T)
{
    int64_t bytes = 0, packed = 0;
    for (int64_t i = 0; i < files->count; i++) {
        struct stat status;
        bool exact;
        const char *path = files->paths[i];
        if (stat(path, &status) != 0 || !S_ISREG(status.st_mode)) {
            return false;
        }
        bytes += (int64_t)status.st_size;
        bool whole =
            most_tokens(path, 0, INT32_MAX, &exact) == UNKNOWN || p4_data_kind_of(path) == P4_DATA_ARTICLES;
        packed += whole ? (int64_t)status.st_size : 0;
    }
    return windows <= TOKENS_COUNTED / T && bytes <= BYTES_COUNTED && packed <= PACKED_COUNTED;
}

/* Does the run, which asks for `windows` (0: all), read all of the text? Then what is wrong with a part of it
 * ends the run. */
static bool reads_all(const amount *a, const p4_windowing *how, int64_t windows)
{
    p4_draw *draws = NULL;
    bool all =
        windows == 0 ||
        (p4_plan_draws(&draws, a->files->paths, a->files->count, how, windows, 0) == P4_OK && draws == NULL);
    free(draws);
    p4_error_clear();
    return all;
}

/* Reads as the run does, which asks for `wanted` windows (0: all), or `needed` of them where that is too
 * much: where there are fewer, a->windows is their number. */
static p4_rc count_windows(const p4_run *run, amount *a, int64_t wanted, int64_t needed)
{
    p4_rc rc = P4_OK;
    p4_windows windows = {.ids = NULL};
    p4_windowing how = p4_text_windowing(run);
    how.stride = a->stride;
    how.opt_mixture = &a->files->mixture;
    how.opt_what = a->what;
    bool same = wanted > 0 && is_cheap(a->files, wanted, how.T);
    int64_t limit = same ? wanted : needed;
    if (!a->at_most || !(same || is_cheap(a->files, needed, how.T))) {
        return P4_OK;
    }
    const bool certain = same || reads_all(a, &how, wanted);
    rc = p4_windows_read(&windows, a->files->paths, a->files->count, &how, limit);
    if (rc == P4_OK && windows.count < limit) {
        a->windows = windows.count;
        a->at_most = false;
    } else if (rc == P4_E_INPUT && !certain) {
        p4_error_clear(); /* of a part that the run may not draw */
        rc = P4_OK;
    }
    p4_windows_free(&windows);
    return rc;
}

static void warn_of_few(const p4_config *c, const char *key, int64_t wanted, const amount *a)
{
    if (a->windows < wanted && p4_config_is_chosen(c, p4_config_find(key))) {
        WARN("warning: key \"%s\": asks for %lld windows of %d tokens, and the files hold %s%lld%s", key,
             (long long)wanted, c->calibration_sequence_length, a->at_most ? "at most " : "",
             (long long)a->windows, a->at_most ? ", judging by their sizes" : "");
    }
}

/* Settings that ask for more than there can be. */
static void warn_of_bounds(const p4_config *c, bool held_out, const amount amounts[3], int64_t sequences)
{
    const amount *calibration = &amounts[P4_SPLIT_CALIBRATION];
    int64_t train =
        p4_trains_on_files(c) ? amounts[P4_SPLIT_TRAIN].windows : p4_text_trained(c, calibration->windows);
    warn_of_few(c, "calibration_samples", c->calibration_samples, calibration);
    warn_of_few(c, "eval_samples", c->eval_samples, held_out ? calibration : &amounts[P4_SPLIT_EVAL]);
    if (c->enable_fine_tuning) { /* fine_tune_max_steps bounds them where the files do not */
        p4_warn_of_steps(c, train == UNKNOWN ? UNKNOWN : train / sequences);
    }
}

/* A set without a window ends the run; of one with fewer than there could be, the run itself says how many,
 * unless none follows. */
static void check_sets(p4_run *run, const p4_text_files *files, bool has_model, bool alone, p4_findings *f)
{
    const p4_config *c = &run->config;
    for (int i = 0; i < c->eval_sets.count; i++) {
        char what[sizeof "key \"eval_sets\": set \"\"" + P4_SET_NAME_BYTES];
        amount a = {.files = &files->sets[i], .what = what, .stride = c->eval_stride};
        int before = f->errors;
        snprintf(what, sizeof what, "key \"eval_sets\": set \"%s\"", c->eval_sets.names[i]);
        check_files(run, &a, has_model, f);
        if (f->errors == before && a.files->count > 0) {
            p4_findings_add(f, expect_window(run, &a));
        }
        if (alone && has_model && f->errors == before && a.files->count > 0) {
            p4_findings_add(f, count_windows(run, &a, c->eval_samples, 1));
        }
        if (alone && f->errors == before && a.windows < c->eval_samples &&
            p4_config_is_chosen(c, p4_config_find("eval_samples"))) {
            WARN("warning: key \"eval_samples\": asks for %lld windows of %d tokens, and the files of set "
                 "\"%s\" hold %s%lld%s",
                 (long long)c->eval_samples, c->calibration_sequence_length, c->eval_sets.names[i],
                 a.at_most ? "at most " : "", (long long)a.windows,
                 a.at_most ? ", judging by their sizes" : "");
        }
    }
}

/* The windows that there are to train on. P4_E_INPUT: none is left to calibrate on. */
static p4_rc find_trained(const p4_run *run, const p4_text_files *files, const amount amounts[3],
                          p4_text_found *found)
{
    p4_rc rc = P4_OK;
    const p4_config *c = &run->config;
    const amount *calibration = &amounts[P4_SPLIT_CALIBRATION], *train = &amounts[P4_SPLIT_TRAIN];
    const bool own = p4_trains_on_files(c), held_out = files->eval.held_out,
               from_training = p4_text_aside_from_training(c, held_out);
    const int64_t wanted = p4_text_calibration_windows(c, held_out),
                  read = p4_min_i64(calibration->windows, wanted);
    int64_t aside = 0;
    if (held_out && !from_training && read > 0) {
        TRY(p4_text_set_aside(&aside, c, &files->calibration, read));
    } else if (from_training && train->windows != UNKNOWN) { /* as io/text/training_layout.c */
        aside = p4_min_i64(train->windows, p4_min_i64(c->eval_samples, p4_max_i64(1, train->windows / 5)));
    }
    if (own) {
        *found = (p4_text_found){.windows = train->windows - (from_training ? aside : 0),
                                 .aside = from_training ? aside : 0,
                                 .at_most = train->at_most};
    } else {
        *found = (p4_text_found){.windows = p4_text_trained(c, read - aside),
                                 .aside = aside,
                                 .at_most = calibration->at_most && calibration->windows < wanted};
    }
done:
    return rc;
}

/* Are there windows enough, as far as is known? */
static void expect_all(const p4_run *run, const p4_text_files *files, const amount amounts[3], p4_findings *f)
{
    const p4_config *c = &run->config;
    const int before = f->errors;
    p4_text_found found = {.windows = 0};
    if (files->calibration.count > 0 && !p4_text_aside_from_training(c, files->eval.held_out)) {
        p4_findings_add(f, expect_window(run, &amounts[P4_SPLIT_CALIBRATION]));
    }
    if (files->train.count > 0) {
        p4_findings_add(f, expect_window(run, &amounts[P4_SPLIT_TRAIN]));
    }
    if (f->errors == before && files->calibration.count + files->train.count > 0) {
        p4_findings_add(f, find_trained(run, files, amounts, &found));
        if (f->errors == before && c->enable_fine_tuning) {
            p4_findings_add(f, p4_text_expect_step(c, files, &found));
        }
    }
    if (c->eval_samples > 0 && !files->eval.held_out) {
        p4_findings_add(f, expect_window(run, &amounts[P4_SPLIT_EVAL]));
    }
}

/* Windows that tell whether a step can be made where a fifth of them is set aside. */
static int64_t windows_for(int64_t sequences)
{
    return p4_ceil_div(5 * sequences, 4) + 2;
}

/* What the sizes leave open. */
static void count_all(const p4_run *run, const p4_text_files *files, amount amounts[3], p4_findings *f)
{
    const p4_config *c = &run->config;
    const int64_t sequences = p4_settings_train(c, c->calibration_sequence_length, NULL).sequences;
    const bool own = p4_trains_on_files(c), held_out = files->eval.held_out,
               calibrates = files->calibration.count > 0 && !p4_text_aside_from_training(c, held_out);
    int64_t drawn;
    bool all =
        c->fine_tune_max_steps == 0 ||
        __builtin_mul_overflow((int64_t)c->fine_tune_max_steps, sequences, &drawn) ||
        __builtin_add_overflow(drawn, p4_text_aside_from_training(c, held_out) ? c->eval_samples : 0, &drawn);
    if (calibrates) {
        int64_t wanted = p4_text_calibration_windows(c, held_out);
        bool trains = !own && c->enable_fine_tuning;
        p4_findings_add(f, count_windows(run, &amounts[P4_SPLIT_CALIBRATION], wanted,
                                         p4_min_i64(wanted, trains ? windows_for(sequences) : 2)));
    }
    if (c->eval_samples > 0 && !held_out) {
        p4_findings_add(f, count_windows(run, &amounts[P4_SPLIT_EVAL], c->eval_samples, 1));
    }
    if (own) {
        p4_findings_add(
            f, count_windows(run, &amounts[P4_SPLIT_TRAIN], all ? 0 : drawn, windows_for(sequences)));
    }
}

/* Is there enough, as far as sizes tell and then as far as it can be counted, and does more than there is
 * count for something? */
static void check_amounts(const p4_run *run, const p4_text_files *files, amount amounts[3], bool counts,
                          bool alone, p4_findings *f)
{
    const p4_config *c = &run->config;
    int64_t sequences = p4_settings_train(c, c->calibration_sequence_length, NULL).sequences;
    int before = f->errors;
    expect_all(run, files, amounts, f);
    if (counts && f->errors == before) {
        count_all(run, files, amounts, f);
        if (f->errors == before) {
            expect_all(run, files, amounts, f);
        }
    }
    if (alone && f->errors == before) {
        warn_of_bounds(c, files->eval.held_out, amounts, sequences);
    }
}

p4_rc p4_check_protocol(const p4_run *run, bool held_out)
{
    p4_rc rc = P4_OK;
    const p4_config *c = &run->config;
    bool evaluates = c->eval_samples > 0 || c->eval_sets.count > 0;
    CHECK(!evaluates || !c->eval_bos || run->original.hf.model.arch.bos_id >= 0,
          "key \"eval_bos\": found true, but config.json of %s names no bos_token_id", run->original.hf.path);
    CHECK(!held_out || c->eval_samples == 0 || c->eval_stride == 0,
          "key \"eval_stride\": found %d, expected 0 where windows are set aside from the calibration data; "
          "give eval_files",
          c->eval_stride);
done:
    return rc;
}

void p4_check_text(p4_run *run, bool has_model, bool alone, p4_findings *f)
{
    static const p4_split splits[] = {P4_SPLIT_EVAL, P4_SPLIT_CALIBRATION, P4_SPLIT_TRAIN};
    static const char *const uses[] = {[P4_SPLIT_CALIBRATION] = "calibration",
                                       [P4_SPLIT_TRAIN] = "fine-tuning",
                                       [P4_SPLIT_EVAL] = "evaluation"};
    p4_text_files files = {.eval = {.paths = NULL}};
    char what[3][P4_TEXT_WHAT_BYTES];
    amount amounts[3] = {[P4_SPLIT_CALIBRATION] = {.files = &files.calibration},
                         [P4_SPLIT_TRAIN] = {.files = &files.train},
                         [P4_SPLIT_EVAL] = {.files = &files.eval, .stride = run->config.eval_stride}};
    int before = f->errors;
    p4_findings_add(f, has_model ? open_tokenizer(run) : P4_OK);
    for (int i = 0; i < 3; i++) {
        p4_findings_add(f, p4_text_files_find_split(&files, &run->config, splits[i]));
    }
    for (int i = 0; i < 3; i++) {
        amounts[i].what = p4_text_what(what[i], uses[i], p4_text_key(&run->config, (p4_split)i));
        check_files(run, &amounts[i], has_model, f);
    }
    check_sets(run, &files, has_model, alone, f);
    if (has_model) {
        p4_findings_add(f, p4_check_protocol(run, files.eval.held_out));
    }
    if (f->errors == before) {
        p4_findings_add(f, p4_text_files_warn_of_leak(&files, &run->config));
        check_amounts(run, &files, amounts, alone && has_model, alone, f);
    }
    p4_text_files_free(&files);
}
