/* directory.h - the output directory: which run owns it, and that no run overwrites another run's results. */
#ifndef P4_OUT_DIRECTORY_H
#define P4_OUT_DIRECTORY_H

#include "io/out/report.h"
#include "src/phase4/results.h"

/* Creates output_path (with its parents) and checks, by writing to it, that it is writable. A directory that
 * holds another run's results (an output that guards, by the table in outputs.h, or the results.json of a run
 * that succeeded) is refused unless `overwrite` is set or run_fingerprint is that of the run which used the
 * directory last. run_fingerprint identifies a run (fingerprint.h: p4_fingerprint_text of the effective
 * configuration); NULL: never the same run. Old results stay until new files replace them; a file of
 * training tokens that a killed run left is removed. Local. */
p4_rc p4_output_prepare(const char *output_path, bool overwrite, const char *run_fingerprint);

/* Removes the outputs of an older run that this run did not write again (their paths in `written` are empty),
 * so that nothing lies beside results to which it does not belong. Call after the outputs are written. Local.
 */
p4_rc p4_output_drop_stale(const char *output_path, const p4_output_paths *written);

/* P4_E_INPUT names a written output that is not there any more. Local. */
p4_rc p4_output_check(const p4_output_paths *written);

#endif
