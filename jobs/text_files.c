#include "jobs/text_files.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "jobs/settings.h"

void p4_text_files_free(p4_text_files *files)
{
    p4_split_files_free(&files->calibration);
    p4_split_files_free(&files->eval);
    p4_split_files_free(&files->train);
    for (int i = 0; i < P4_SETS_MAX; i++) {
        p4_split_files_free(&files->sets[i]);
    }
}

bool p4_trains_on_files(const p4_config *c)
{
    return c->enable_fine_tuning && (c->train_files.count > 0 || c->calibration_samples == 0);
}

static p4_rc find_evaluation(p4_text_files *files, const p4_config *c)
{
    p4_rc rc = P4_OK;
    TRY(p4_dataset_files(&files->eval, c, P4_SPLIT_EVAL));
    for (int i = 0; i < c->eval_sets.count; i++) {
        TRY(p4_dataset_set_files(&files->sets[i], c, i));
    }
done:
    return rc;
}

p4_rc p4_text_files_find_split(p4_text_files *files, const p4_config *c, p4_split split)
{
    switch (split) {
    case P4_SPLIT_EVAL:
        return c->eval_samples > 0 ? find_evaluation(files, c) : P4_OK;
    case P4_SPLIT_CALIBRATION:
        return c->calibration_samples > 0 || files->eval.held_out
                   ? p4_dataset_files(&files->calibration, c, split)
                   : P4_OK;
    case P4_SPLIT_TRAIN:
        return p4_trains_on_files(c) ? p4_dataset_files(&files->train, c, split) : P4_OK;
    }
    return P4_OK;
}

p4_rc p4_text_files_find(p4_text_files *files, const p4_config *c)
{
    p4_rc rc = P4_OK;
    *files = (p4_text_files){.eval = {.paths = NULL}};
    TRY(p4_text_files_find_split(files, c, P4_SPLIT_EVAL));
    TRY(p4_text_files_find_split(files, c, P4_SPLIT_CALIBRATION));
    TRY(p4_text_files_find_split(files, c, P4_SPLIT_TRAIN));
done:
    return rc;
}

static p4_rc warn_of_leak(const p4_split_files *eval, const p4_split_files *train)
{
    p4_rc rc = P4_OK;
    struct stat here, *trained = p4_alloc((size_t)train->count, sizeof *trained);
    TRY(trained != NULL ? P4_OK : P4_E_SYSTEM);
    for (int64_t j = 0; j < train->count; j++) {
        CHECK(stat(train->paths[j], &trained[j]) == 0, "%s: cannot examine: %s", train->paths[j],
              strerror(errno));
    }
    for (int64_t i = 0; i < eval->count; i++) {
        CHECK(stat(eval->paths[i], &here) == 0, "%s: cannot examine: %s", eval->paths[i], strerror(errno));
        for (int64_t j = 0; j < train->count; j++) {
            if (here.st_dev == trained[j].st_dev && here.st_ino == trained[j].st_ino) {
                WARN("warning: %s is among the files to evaluate on and "
                     "to train on (as %s): the verdict will be too good",
                     eval->paths[i], train->paths[j]);
                goto done;
            }
        }
    }
done:
    free(trained);
    return rc;
}

p4_rc p4_text_files_warn_of_leak(const p4_text_files *files, const p4_config *c)
{
    p4_rc rc = P4_OK;
    bool calibration_trains = c->enable_fine_tuning && !p4_trains_on_files(c);
    const p4_split_files *trained = calibration_trains ? &files->calibration : &files->train;
    for (int i = 0; i < c->eval_sets.count; i++) {
        TRY(warn_of_leak(&files->sets[i], trained));
    }
    if (!files->eval.held_out || c->train_files.count > 0) {
        TRY(warn_of_leak(&files->eval, files->eval.held_out ? &files->train : trained));
    }
done:
    return rc;
}

/* ---- is it enough? ---- */

const char *p4_text_key(const p4_config *c, p4_split split)
{
    const char *calibration = c->calibration_files.count > 0 ? "calibration_files" : "calibration_dataset";
    switch (split) {
    case P4_SPLIT_EVAL:
        return c->eval_files.count > 0 ? "eval_files" : calibration;
    case P4_SPLIT_TRAIN:
        return c->train_files.count > 0 ? "train_files" : calibration;
    case P4_SPLIT_CALIBRATION:
        break;
    }
    return calibration;
}

const char *p4_text_what(char what[P4_TEXT_WHAT_BYTES], const char *use, const char *key)
{
    snprintf(what, P4_TEXT_WHAT_BYTES, "%s: key \"%s\"", use, key);
    return what;
}

bool p4_text_aside_from_training(const p4_config *c, bool held_out)
{
    return held_out && c->calibration_samples == 0 && p4_trains_on_files(c) && c->train_files.count == 0;
}

int64_t p4_text_calibration_windows(const p4_config *c, bool held_out)
{
    int64_t calibrating = p4_max_i64(c->calibration_samples,
                                     p4_settings_reconstruct_windows(c, c->calibration_sequence_length));
    return calibrating + (held_out ? c->eval_samples : 0);
}

/* The first, and how many there are besides. */
enum { NAMED_BYTES = 40 };
static const char *more_files(char more[NAMED_BYTES], const p4_split_files *files)
{
    more[0] = '\0';
    if (files->count > 1) {
        snprintf(more, NAMED_BYTES, " and %lld more", (long long)files->count - 1);
    }
    return more;
}

p4_rc p4_text_set_aside(int64_t *aside, const p4_config *c, const p4_split_files *files, int64_t count)
{
    p4_rc rc = P4_OK;
    char more[NAMED_BYTES], what[P4_TEXT_WHAT_BYTES];
    int64_t wanted = p4_text_calibration_windows(c, false);
    int64_t most = wanted > 0 ? p4_max_i64(1, p4_max_i64(count / 5, count - wanted)) : count;
    *aside = p4_min_i64(c->eval_samples, most);
    CHECK(count > *aside || wanted == 0,
          "%s: %s%s: one window of %d tokens is all there is, none is left to evaluate on; "
          "give eval_files, or set eval_samples to 0",
          p4_text_what(what, "calibration", p4_text_key(c, P4_SPLIT_CALIBRATION)), files->paths[0],
          more_files(more, files), c->calibration_sequence_length);
done:
    return rc;
}

int64_t p4_text_trained(const p4_config *c, int64_t calibrating)
{
    return p4_min_i64(calibrating, c->calibration_samples);
}

/* "found at most 3 windows of 12 tokens, judging by the sizes, besides 1 set aside for evaluation". */
static p4_rc refuse(const p4_config *c, const char *what, const p4_split_files *files,
                    const p4_text_found *found, const char *expected)
{
    char more[NAMED_BYTES], aside[64] = "";
    if (found->aside > 0) {
        snprintf(aside, sizeof aside, ", besides %lld set aside for evaluation", (long long)found->aside);
    }
    return FAIL("%s: %s%s: found %s%lld window%s of %d tokens%s%s, expected at least %s", what,
                files->paths[0], more_files(more, files), found->at_most ? "at most " : "",
                (long long)found->windows, p4_plural(found->windows), c->calibration_sequence_length,
                found->at_most ? ", judging by the sizes" : "", aside, expected);
}

p4_rc p4_text_expect_window(const p4_config *c, const char *what, const p4_split_files *files,
                            const p4_text_found *found)
{
    return found->windows > 0
               ? P4_OK
               : refuse(c, what, files, found, "1: give more text or a smaller calibration_sequence_length");
}

p4_rc p4_text_expect_step(const p4_config *c, const p4_text_files *files, const p4_text_found *found)
{
    const int64_t T = c->calibration_sequence_length, needed = p4_settings_train(c, T, NULL).sequences,
                  windows = found->windows;
    const bool own = p4_trains_on_files(c), few_samples = !own && c->calibration_samples < needed;
    char what[P4_TEXT_WHAT_BYTES], smaller[96] = "a smaller calibration_sequence_length", expected[320];
    const char *key = few_samples ? "calibration_samples"
                      : own       ? p4_text_key(c, P4_SPLIT_TRAIN)
                                  : p4_text_key(c, P4_SPLIT_CALIBRATION);
    if (windows >= needed) {
        return P4_OK;
    }
    if (windows > 0) {
        snprintf(smaller, sizeof smaller, "%s=%lld or less",
                 c->global_batch_tokens > 0 ? "global_batch_tokens" : "calibration_batch_size",
                 (long long)(c->global_batch_tokens > 0 ? windows * T : windows));
    }
    snprintf(expected, sizeof expected, "%lld, as one step takes: give %s or %s", (long long)needed,
             few_samples ? "train_files, more calibration_samples"
             : own       ? "more text"
                         : "train_files, more text",
             smaller);
    return refuse(c, p4_text_what(what, "fine-tuning", key), own ? &files->train : &files->calibration, found,
                  expected);
}

bool p4_text_is_compressed(const char *path)
{
    static const char *const endings[] = {".gz", ".zst", ".zstd", ".xz", ".bz2", ".tgz"};
    size_t length = strlen(path);
    for (size_t i = 0; i < sizeof endings / sizeof endings[0]; i++) {
        size_t part = strlen(endings[i]);
        if (length >= part && strcasecmp(path + length - part, endings[i]) == 0) {
            return true;
        }
    }
    return false;
}
