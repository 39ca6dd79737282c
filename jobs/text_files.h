/* text_files.h - the files that a run reads its text from, and whether they hold what it needs. */
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
/* ---- is it enough? The check of a run and the run say the same. All Local. ---- */

/* "fine-tuning: key "train_files"": what messages about a text begin with. key: that which names its files.
 */
enum { P4_TEXT_WHAT_BYTES = 80 };
const char *p4_text_key(const p4_config *config, p4_split split);
const char *p4_text_what(char what[P4_TEXT_WHAT_BYTES], const char *use, const char *key);
/* Are evaluation windows set aside from the training data, as nothing is calibrated? held_out: they have no
 * files of their own. */
bool p4_text_aside_from_training(const p4_config *config, bool held_out);
/* Windows of the calibration data that are read: for calibration, and for reconstruction if it takes more;
 * held_out: and those to set aside for evaluation. */
int64_t p4_text_calibration_windows(const p4_config *config, bool held_out);
/* *aside: of so many windows that were read, those to set aside: what calibration and reconstruction leave;
 * where data are short, a fifth. P4_E_INPUT: none would be left to calibrate on. */
p4_rc p4_text_set_aside(int64_t *aside, const p4_config *config, const p4_split_files *files, int64_t count);
/* What there is to train on where fine-tuning has no windows of its own, of so many to calibrate on. */
int64_t p4_text_trained(const p4_config *config, int64_t calibrating);

/* How many windows were found. */
typedef struct p4_text_found {
    int64_t windows;
    int64_t aside; /* set aside for evaluation, besides */
    bool at_most;  /* judging by the sizes of the files */
} p4_text_found;
/* P4_E_INPUT: not one. what: p4_text_what. */
p4_rc p4_text_expect_window(const p4_config *config, const char *what, const p4_split_files *files,
                            const p4_text_found *found);
/* P4_E_INPUT: to train on, fewer than one step takes. */
p4_rc p4_text_expect_step(const p4_config *config, const p4_text_files *files, const p4_text_found *found);

/* By the end of its name. */
bool p4_text_is_compressed(const char *path);
/* One line, if text that the model is evaluated on is trained on as well, under whatever name. Local. */
p4_rc p4_text_files_warn_of_leak(const p4_text_files *files, const p4_config *config);

#endif
