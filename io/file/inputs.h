/* inputs.h - the files that a run reads, as they were when it began with them. A file that changes during the
 * run would make its results those of no model: the run ends instead. */
#ifndef P4_INPUTS_H
#define P4_INPUTS_H

#include "dist/group.h"
#include "io/file/fingerprint.h"

typedef struct p4_read_file {
    char *path;
    uint64_t device, inode, bytes;
    int64_t modified_s, modified_ns;
    char fingerprint[P4_FINGERPRINT_BYTES]; /* "": not taken */
} p4_read_file;

typedef struct p4_inputs {
    p4_read_file *files;
    int64_t count;
} p4_inputs;

/* Remembers a file, if asked with its fingerprint. The list starts as zeros. Local. */
p4_rc p4_inputs_add(p4_inputs *inputs, const char *path, bool fingerprint);
/* P4_E_INPUT names a file that is gone, or whose size, inode or time of change is another now. Local. */
p4_rc p4_inputs_check(const p4_inputs *inputs);
/* P4_E_INPUT names a file whose fingerprint differs from that of the group's first rank: nodes that see
 * different copies. All ranks have added the same files. Collective. */
p4_rc p4_inputs_compare(p4_group *group, const p4_inputs *inputs);
void p4_inputs_free(p4_inputs *inputs);

#endif
