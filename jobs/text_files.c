#include "jobs/text_files.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

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
