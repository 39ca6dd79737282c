#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/file/files.h"
#include "io/text/dataset_parts.h"
#include "io/text/token_file.h"
#include "io/tokenizer/tokenizer.h"
#include "jobs/check.h"
#include "src/config.h"

enum {
    IDS_LOOKED_AT = 1 << 16,   /* at each end of a token file */
    TEXTS_LOOKED_AT = 16,      /* files of a split whose first document is read */
    DOCUMENTS_TOKENIZED = 8,   /* of such a file, where the tokenizer has ids that the model has not */
    BYTES_TOKENIZED = 64 << 10 /* of such a document */
};
static const int64_t UNKNOWN = INT64_MAX;

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

/* Tokens that a file can hold at most: a token of text is a byte or more, and so is what ends a document. */
static int64_t most_tokens(const char *path, int64_t bytes)
{
    if (p4_text_is_compressed(path)) {
        return UNKNOWN;
    }
    switch (p4_data_kind_of(path)) {
    case P4_DATA_TOKENS:
        return bytes / 2;
    case P4_DATA_TEXT:
    case P4_DATA_JSONL:
    case P4_DATA_ARTICLES:
        return bytes + 1;
    default:
        return UNKNOWN;
    }
}

/* Can the files be read, and what can they hold at most? *windows: UNKNOWN where it cannot be told. */
static void check_files(const p4_run *run, const p4_split_files *files, bool has_model, int64_t stride,
                        int64_t *windows, p4_findings *f)
{
    int64_t tokens = 0, texts = 0, V = run->original.hf.model.arch.V;
    for (int64_t i = 0; i < files->count; i++) {
        const char *path = files->paths[i];
        struct stat status;
        p4_rc rc = P4_OK;
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
        int64_t most =
            rc == P4_OK && S_ISREG(status.st_mode) ? most_tokens(path, (int64_t)status.st_size) : UNKNOWN;
        tokens = tokens == UNKNOWN || most == UNKNOWN ? UNKNOWN : tokens + most;
    }
    *windows =
        tokens == UNKNOWN ? UNKNOWN : p4_windows_in(tokens, run->config.calibration_sequence_length, stride);
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

/* Less text than one step of training or one window needs is an error now and not in the middle of the run.
 */
static p4_rc expect_windows(const p4_run *run, const char *what, const p4_split_files *files, int64_t windows,
                            int64_t needed)
{
    p4_rc rc = P4_OK;
    const p4_config *c = &run->config;
    char more[40] = "";
    if (files->count > 1) {
        snprintf(more, sizeof more, " and %lld more", (long long)files->count - 1);
    }
    CHECK(windows >= needed || !all_empty(files), "%s: %s%s %s empty", what, files->paths[0], more,
          files->count > 1 ? "are" : "is");
    CHECK(windows >= needed,
          "%s: %s%s: found at most %lld window%s of %d tokens, judging by the sizes, expected at least %lld: "
          "give more text or a smaller %s",
          what, files->paths[0], more, (long long)windows, p4_plural(windows), c->calibration_sequence_length,
          (long long)needed,
          windows == 0                 ? "calibration_sequence_length"
          : c->global_batch_tokens > 0 ? "global_batch_tokens"
                                       : "calibration_batch_size");
done:
    return rc;
}

static void warn_of_few(const p4_config *c, const char *key, int64_t wanted, int64_t most)
{
    if (most < wanted && p4_config_is_user_set(c, p4_config_find(key))) {
        WARN("warning: key \"%s\": asks for %lld windows of %d tokens, "
             "and the files hold at most %lld, judging by their sizes",
             key, (long long)wanted, c->calibration_sequence_length, (long long)most);
    }
}

/* Settings that ask for more than there can be. */
static void warn_of_bounds(const p4_config *c, int64_t calibration, int64_t eval, int64_t train,
                           int64_t sequences)
{
    warn_of_few(c, "calibration_samples", c->calibration_samples, calibration);
    warn_of_few(c, "eval_samples", c->eval_samples, eval);
    if (c->enable_fine_tuning) { /* fine_tune_max_steps bounds them where the files do not */
        p4_warn_of_steps(c, train == UNKNOWN ? UNKNOWN : train / sequences);
    }
}

/* A set without a window ends the run; of one with fewer than there could be, the run itself says how many,
 * unless none follows. */
static void check_sets(p4_run *run, const p4_text_files *files, bool has_model, bool alone, p4_findings *f)
{
    const p4_sets *sets = &run->config.eval_sets;
    for (int i = 0; i < sets->count; i++) {
        int64_t windows;
        char what[sizeof "eval_sets \"\"" + P4_SET_NAME_BYTES];
        int before = f->errors;
        check_files(run, &files->sets[i], has_model, run->config.eval_stride, &windows, f);
        snprintf(what, sizeof what, "eval_sets \"%s\"", sets->names[i]);
        if (f->errors == before && files->sets[i].count > 0) {
            p4_findings_add(f, expect_windows(run, what, &files->sets[i], windows, 1));
        }
        if (alone && f->errors == before && windows < run->config.eval_samples &&
            p4_config_is_user_set(&run->config, p4_config_find("eval_samples"))) {
            WARN("warning: key \"eval_samples\": asks for %lld windows of %d tokens, and the files of set "
                 "\"%s\" "
                 "hold at most %lld, judging by their sizes",
                 (long long)run->config.eval_samples, run->config.calibration_sequence_length, sets->names[i],
                 (long long)windows);
        }
    }
}

/* Is there enough, as far as sizes tell, and does more than there is count for something? */
static void check_amounts(const p4_run *run, const p4_text_files *files, const int64_t windows[3], bool alone,
                          p4_findings *f)
{
    const p4_config *c = &run->config;
    int64_t sequences = p4_settings_train(c, c->calibration_sequence_length, NULL).sequences;
    bool held_out = files->eval.held_out, own = p4_trains_on_files(c);
    int64_t calibration = windows[P4_SPLIT_CALIBRATION],
            eval = held_out ? calibration : windows[P4_SPLIT_EVAL];
    int64_t train = own ? windows[P4_SPLIT_TRAIN] : calibration;
    int before = f->errors;
    if (files->calibration.count > 0) {
        p4_findings_add(f, expect_windows(run, "calibration", &files->calibration, calibration, 1));
    }
    if (c->eval_samples > 0) {
        p4_findings_add(
            f, expect_windows(run, "evaluation", held_out ? &files->calibration : &files->eval, eval, 1));
    }
    if (c->enable_fine_tuning) {
        p4_findings_add(f, expect_windows(run, "fine-tuning", own ? &files->train : &files->calibration,
                                          train, sequences));
    }
    if (alone && f->errors == before) {
        warn_of_bounds(c, calibration, eval, own ? train : p4_min_i64(train, c->calibration_samples),
                       sequences);
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
    p4_text_files files = {.eval = {.paths = NULL}};
    int64_t windows[3];
    int before = f->errors;
    p4_findings_add(f, has_model ? open_tokenizer(run) : P4_OK);
    for (int i = 0; i < 3; i++) {
        p4_findings_add(f, p4_text_files_find_split(&files, &run->config, splits[i]));
    }
    check_files(run, &files.calibration, has_model, 0, &windows[P4_SPLIT_CALIBRATION], f);
    check_files(run, &files.eval, has_model, run->config.eval_stride, &windows[P4_SPLIT_EVAL], f);
    check_files(run, &files.train, has_model, 0, &windows[P4_SPLIT_TRAIN], f);
    check_sets(run, &files, has_model, alone, f);
    if (has_model) {
        p4_findings_add(f, p4_check_protocol(run, files.eval.held_out));
    }
    if (f->errors == before) {
        p4_findings_add(f, p4_text_files_warn_of_leak(&files, &run->config));
        check_amounts(run, &files, windows, alone, f);
    }
    p4_text_files_free(&files);
}
