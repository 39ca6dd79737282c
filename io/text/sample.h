/* sample.h - which part of the data is drawn where fewer windows are wanted than there are. Everything here
 * is a function of the seed, the files, the window length and the number of windows wanted.
 *
 * 1. Text (p4_plan_draws). If it is small compared with what is wanted, all of it is tokenized. Otherwise
 * blocks of 32 T bytes, at least 16 KiB, are drawn: one for each window wanted, up to 4,096, or as many as
 * hold 8 bytes a token of the windows, whichever is more. They are divided among the files by size, at least
 * one for each file if there are enough, and spread over each file (p4_draw in dataset.h). So 128 windows of
 * 512 tokens take 2 MiB of text, whether there are 5 MB or 50 GB. A plain file is read only where it is
 * drawn; one that is compressed has to be decompressed as a whole. A file of which no block is drawn is not
 * opened. The size of a compressed file is taken as twice its bytes. That is less than usual, so more is
 * drawn than needed. If too little was drawn, the caller draws again, twice as much, until everything is
 * read.
 *
 * 2. What was drawn is a stream of tokens like any other: documents in the order of the files, each with its
 * end of text. Token files belong to it as a whole: they cost nothing.
 *
 * 3. Windows (p4_pick_windows). Of the windows of that stream as many are picked as are wanted, in the same
 * way: divided among the files by the number of windows that each has (of text, for what each block stands
 * for), at least one for each, and spread over each file. They stay in the order of the stream. */
#ifndef P4_SAMPLE_H
#define P4_SAMPLE_H

#include "io/text/dataset.h"

/* *draws [path_count], which the caller frees: what is read of each file to get `windows` windows of T
 * tokens, or NULL: all of all files. attempt: 0, then 1, 2, ... where what was drawn fell short. Local. */
p4_rc p4_plan_draws(p4_draw **draws, char *const *paths, int64_t path_count, const p4_windowing *how,
                    int64_t windows, int attempt);

/* Bytes of text that the first attempt reads of so many in one file. Local. */
double p4_drawn_bytes(double bytes, int64_t windows, int64_t T);

/* Windows of a stream that begin in one file. */
typedef struct p4_window_range {
    int64_t count;
    double weight; /* windows of the file that each of them stands for */
} p4_window_range;

/* picks [wanted], rising: of the windows of ranges[0], then those of ranges[1], ..., `wanted` of them; they
 * have at least as many. A mixture counts where not all are wanted: a source gives its share as far as it has
 * windows. Local. */
p4_rc p4_pick_windows(int64_t *picks, int64_t wanted, const p4_window_range *ranges, int64_t range_count,
                      const p4_mixture *opt_mixture, uint64_t seed);

#endif
