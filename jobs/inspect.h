/* inspect.h - looks into the results of a run: everything that can be known from model.h5 and the files
 * beside it. Without MPI. All Local; one thread of a process at a time. */
#ifndef P4_INSPECT_H
#define P4_INSPECT_H

#include "io/out/inspection.h"
#include "jobs/options.h"

extern const p4_program p4_inspect_program;
enum { P4_INSPECT_JSON = P4_OPTION_OWN, P4_INSPECT_DIFF, P4_INSPECT_THREADS, P4_INSPECT_QUIET };

/* Reads every tensor of a model.h5, or of that in a run's output directory, on so many threads (0: one for
 * each core), and compares it with what lies beside the file: dequantized_fp16, the metadata and the inputs
 * that these name. What does not agree is a line of inspection->findings. P4_E_INPUT: the file, or one beside
 * it, cannot be read as what it is. The caller frees, after an error too. */
p4_rc p4_inspect(p4_inspection *inspection, const char *path, int threads);
/* What two results differ in. P4_E_INPUT as above. The caller frees, after an error too. */
p4_rc p4_inspect_compare(p4_result_difference *difference, const char *a, const char *b, int threads);

#endif
