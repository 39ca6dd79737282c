/* checkpoints.h - the folder output_path/checkpoints. A checkpoint is the directory step-N in it:
 * part-RANK.h5 of each rank that had something to write, and manifest.json. It is filled under the name
 * step-N.OWNER.tmp, which no other run uses, and gets its own when it is complete; while it replaces another
 * of the same step, that one is step-N.old. Two are kept. Entries with these names belong to the program;
 * others are left alone. All Local; what changes the folder is rank 0's. */
#ifndef P4_CHECKPOINTS_H
#define P4_CHECKPOINTS_H

#include "io/out/hold.h"
#include "io/out/manifest.h"

enum { P4_CHECKPOINTS_KEPT = 2 };

/* The paths of all complete checkpoints in `folder`, the best to continue from first; an absent folder has
 * none. The caller frees with p4_names_free (io/file/files.h). */
p4_rc p4_checkpoints_list(char ***paths, int64_t *count, const char *folder);

/* "HOST.PROCESS" of this process: the owner of the directories that the run of this rank 0 fills. A run that
 * lost its output directory, and does not know yet, shares no unfinished directory with its successor. */
enum { P4_CHECKPOINT_OWNER_BYTES = 96 };
void p4_checkpoint_owner(char owner[P4_CHECKPOINT_OWNER_BYTES]);
/* The directory that the parts of a checkpoint go to, heap; NULL: memory is out. */
char *p4_checkpoint_temporary(const char *folder, int64_t step, const char *owner);
/* Makes it, empty, and removes the other unfinished directories of this owner. */
p4_rc p4_checkpoint_begin(const char *folder, const char *directory, const char *owner);
/* "DIRECTORY/part-RANK.h5", heap; NULL: memory is out. */
char *p4_checkpoint_part_path(const char *directory, int64_t rank);
/* Writes the manifest into that directory and gives it its name, unless `hold` on the output directory is
 * lost by then (P4_E_HOLD); NULL: the caller has the directory. From any thread. */
p4_rc p4_checkpoint_publish(const char *directory, const char *folder, const p4_manifest *manifest,
                            p4_hold *hold);
/* Removes all but the checkpoint of `step` and the one before it: later ones, which are of a course that the
 * run left when it continued from an earlier one, and unfinished ones of any owner. The hold is checked
 * before each. From any thread. */
p4_rc p4_checkpoints_prune(const char *folder, int64_t step, p4_hold *hold);

/* Are the parts there, each of the length that the manifest states? P4_E_INPUT names the first that is not.
 */
p4_rc p4_checkpoint_check_parts(const p4_manifest *manifest, const char *directory);

/* Removes every checkpoint, what a killed run left of one, and the folder if nothing else is in it. */
p4_rc p4_checkpoints_remove(const char *folder);

#endif
