/* samples.h - samples.json: how the original and the packed model continue the beginnings of some windows of
 * the evaluation text. */
#ifndef P4_SAMPLES_H
#define P4_SAMPLES_H

#include "jobs/run.h"

/* Writes run->results.output_paths.samples, from the files of the model and of the output, on the CPU. A run
 * for which there is nothing to write, or whose original is too large to be read for this, says so in the log
 * and gets no file. Rank 0. Local. */
p4_rc p4_samples_write(const p4_run *run);

#endif
