/* directory.h - the output directory: which run owns it, and that no run overwrites what is not its own. */
#ifndef P4_OUT_DIRECTORY_H
#define P4_OUT_DIRECTORY_H

#include "io/out/hold.h"
#include "io/out/report.h"
#include "src/phase4/config.h"
#include "src/phase4/results.h"

/* What a run writes there has fixed names: the rows of the table in outputs.h, results.json, and for each of
 * them a temporary name. While a run is unfinished, the file .phase4_run lists those that were not there when
 * it took the directory: only they can be its own. A successful run removes the list; a run that failed or
 * was killed leaves it, and the next one may replace what it lists. */

/* P4_E_INPUT: a run may not write here. Without `overwrite` everything that has the name of an output,
 * whatever it is (also a link), is protected unless an unfinished run made it; a results.json that says that
 * its run failed is not. With or without it, a foreign file under the temporary name of an output is refused.
 * A directory that does not exist is fine. opt_config: of the run, for the message (earlier.h). Changes
 * nothing. Local. */
p4_rc p4_output_examine(const char *output_path, bool overwrite, const p4_config *opt_config);

/* Creates output_path (with its parents), takes the hold (hold.h), examines the directory, removes what an
 * unfinished run left under temporary names, writes the list, and takes room on the disk for results.json.
 * Older results stay until new files replace them. p4_output_leave must follow, but not an error, which
 * leaves nothing that speaks of a run. Local. */
p4_rc p4_output_take(p4_hold **hold, const char *output_path, bool overwrite);
/* The same for temporary files only: results that are there stay, whosever they are, and no room is taken for
 * results.json, which is not written. P4_E_INPUT also: an unfinished run is there. p4_output_leave, finished,
 * must follow. Local. */
p4_rc p4_output_borrow(p4_hold **hold, const char *output_path);
/* Gives that room back: before results.json is written, which says how the run ended also where the disk is
 * full. Local. */
void p4_output_free_reserve(const char *output_path);
/* Gives the directory back. finished: what is there are results, and no longer the files of an unfinished
 * run. NULL is fine. Local. */
void p4_output_leave(p4_hold *hold, const char *output_path, bool finished);

/* For who looks for results in a directory that has none: P4_E_INPUT if its results.json says why, namely
 * that its run has not ended, or that it failed. Local. */
p4_rc p4_output_check_ended(const char *output_path);

/* Removes the outputs of an older run that this run did not write again (their paths in `written` are empty),
 * so that nothing lies beside results to which it does not belong. Call after the outputs are written. Local.
 */
p4_rc p4_output_drop_stale(const char *output_path, const p4_output_paths *written);

/* Takes the paths of outputs that are ASIDE and are not there out of the list, with a warning for each.
 * Local. */
void p4_output_forget_missing(p4_output_paths *written);
/* P4_E_INPUT names a written output that is not there any more. Local. */
p4_rc p4_output_check(const p4_output_paths *written);

#endif
