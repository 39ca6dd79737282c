/* output.h - the output directory: whose it is, and that one run does not write over another's results. */
#ifndef P4_OUTPUT_H
#define P4_OUTPUT_H

#include "io/out/report.h"
#include "src/phase4/results.h"

/* Makes output_path (with its parents) and checks by writing that it can be written. One that holds the
 * results of another run (model.h5, dequantized_fp16, compression_metadata.json, or the results.json of a run
 * that succeeded) is refused unless overwrite is set, or run_fingerprint is the one of the run that took the
 * directory before. run_fingerprint: what tells runs apart (fingerprint.h: p4_fingerprint_text of the
 * effective configuration); NULL: never the same run. Old results stay until new files replace them. Local.
 */
p4_rc p4_output_prepare(const char *output_path, bool overwrite, const char *run_fingerprint);

/* After the outputs of an overwriting run are written: removes the older run's model.h5, dequantized_fp16 and
 * metrics.jsonl where this run wrote none (an empty path), so that nothing stands beside results it does not
 * belong to. Local. */
p4_rc p4_output_drop_stale(const char *output_path, const p4_output_paths *written);

#endif
