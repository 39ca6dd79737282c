/* text_files.h - the files that a run reads its text from. */
#ifndef P4_TEXT_FILES_H
#define P4_TEXT_FILES_H

#include "io/text/dataset.h"
#include "src/phase4/config.h"

/* What the splits are read from, on rank 0; each is empty where nothing is. */
typedef struct p4_text_files {
    p4_split_files calibration, eval, train;
    p4_split_files sets[P4_SETS_MAX]; /* of eval_sets; they are found with P4_SPLIT_EVAL */
} p4_text_files;

/* Does fine-tuning have windows of its own, and not those of calibration? The same on every rank. */
bool p4_trains_on_files(const p4_config *config);
/* Which files each split is read from. The caller frees, after an error too. Local. */
p4_rc p4_text_files_find(p4_text_files *files, const p4_config *config);
/* The same of one split, if the configuration reads it; P4_SPLIT_EVAL comes first. Local. */
p4_rc p4_text_files_find_split(p4_text_files *files, const p4_config *config, p4_split split);
void p4_text_files_free(p4_text_files *files);
/* By the end of its name. */
bool p4_text_is_compressed(const char *path);
/* One line, if text that the model is evaluated on is trained on as well, under whatever name. Local. */
p4_rc p4_text_files_warn_of_leak(const p4_text_files *files, const p4_config *config);

#endif
