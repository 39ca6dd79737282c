/* samples.h - samples.json: how the original and the packed model continue the beginnings of some windows of
 * the evaluation text. */
#ifndef P4_SAMPLES_H
#define P4_SAMPLES_H

#include "jobs/run.h"

/* Writes run->results.output_paths.samples, from the files of the model and of the output, on the CPU. A run
 * for which there is nothing to write, or whose original is too large to be read for this, says so in the log
 * and gets no file. Rank 0. Local. */
p4_rc p4_samples_write(p4_run *run);

/* Host memory that p4_samples_write takes for one model after the other: the model, and its network with the
 * cache of keys and values; bytes. All zeros where it writes nothing. */
typedef struct p4_samples_memory {
    int64_t original, original_pass, packed, packed_pass;
} p4_samples_memory;
/* packed: the compressed model's forms, of which nothing is read but dtypes and shapes. The run has
 * evaluation text. Local. */
p4_rc p4_samples_plan_bytes(p4_samples_memory *bytes, const p4_config *config, const p4_hf_model *hf,
                            const p4_weight *packed, int threads);

#endif
