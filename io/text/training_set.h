/* training_set.h - the windows of tokens that training draws from. No rank holds them: their tokens stay in
 * files, of 2 or 4 bytes a token, which a rank maps and of which it reads what its sequences need.
 *
 * Token files are read in place. Rank 0 tokenizes text into a file (token_cache.h): in the folder
 * token_cache, where a later run finds it, or in a temporary one. All windows of all files are trained on, in
 * the order of a permutation of (seed, epoch), which is the same for any number of ranks. Where text is far
 * more than the steps need, and there are no token files beside it, only a sample of it is tokenized
 * (sample.h), from all files and all of each file.
 *
 * A rank that cannot read the files, or finds others under their names (fingerprints are compared), as on
 * another node, gets from rank 0 what it needs, a few steps at a time. */
#ifndef P4_TRAINING_SET_H
#define P4_TRAINING_SET_H

#include "dist/group.h"
#include "io/file/fingerprint.h"
#include "io/text/dataset.h"

typedef struct p4_training_set p4_training_set;

/* What a set is made of; rank 0's counts. */
typedef struct p4_training_source {
    char *const *paths;
    int64_t path_count;
    p4_windowing how;
    int64_t windows;          /* that training needs at least, if there are as many; 0: all */
    int64_t aside;            /* windows to set aside for evaluation, at most a fifth of all */
    const char *cache_folder; /* "": tokenized text is kept in `temporary`, which goes with the set */
    const char *temporary;    /* the path of a file */
} p4_training_source;

/* *aside, on rank 0: windows that are spread over all and are not trained on; NULL if source->aside is 0.
 * Less than one window to train on is an error, and every id of a token file is checked. The caller closes,
 * and frees *aside. Collective. */
p4_rc p4_training_set_open(p4_training_set **set, p4_group *group, const p4_training_source *source,
                           p4_windows *aside);
/* The same of windows in memory, which every rank has and which must outlive the set. Local. */
p4_rc p4_training_set_of_windows(p4_training_set **set, const p4_windows *windows);
void p4_training_set_close(p4_training_set *set); /* Local. */

int64_t p4_training_set_count(const p4_training_set *set);  /* windows */
int64_t p4_training_set_length(const p4_training_set *set); /* tokens of a window */

/* ids [T]: window `at` of those that are trained on, on rank 0. Local. */
void p4_training_set_window(const p4_training_set *set, int32_t *ids, int64_t at);

/* "crc32:<8 hex digits>:<windows>x<tokens>" of the windows that are trained on, on rank 0; of more than 2^26
 * tokens, of windows evenly spread over all: the same for the same text, wherever its files lie. Local. */
p4_rc p4_training_set_fingerprint(const p4_training_set *set, char fingerprint[P4_FINGERPRINT_BYTES]);

/* How windows are drawn: `sequences` a step, at most as many as there are windows, of which this rank takes
 * [low, high). An epoch has as many steps as the windows fill. The same on every rank but for low and high.
 * To be called before p4_training_set_step. Local. */
p4_rc p4_training_set_schedule(p4_training_set *set, uint64_t seed, int64_t sequences, int64_t low,
                               int64_t high);
/* Goes to a step, from 0. Collective; if every rank reads the files itself, none waits for another. */
void p4_training_set_step(p4_training_set *set, int64_t step);
/* ids [count * T]: sequences [from, from + count) of the step, which are this rank's. Local. */
void p4_training_set_sequences(p4_training_set *set, int32_t *ids, int64_t from, int64_t count);
/* Which window, of those that are trained on, sequence `at` of a step is; after p4_training_set_schedule, the
 * same on every rank. Local. */
int64_t p4_training_set_drawn(p4_training_set *set, int64_t step, int64_t at);

#endif
