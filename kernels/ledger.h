/* ledger.h - the device memory that a column has handed out: behind the op peak_bytes of both columns. */
#ifndef P4_KERNELS_LEDGER_H
#define P4_KERNELS_LEDGER_H

#include "src/leaf/base.h"

typedef struct p4_ledger_entry {
    const void *memory;
    int64_t bytes;
} p4_ledger_entry;

/* An empty ledger is all zeros. Used by one thread at a time, like the device that it belongs to. */
typedef struct p4_ledger {
    p4_ledger_entry *entries; /* [count] blocks handed out and not yet given back; host heap */
    int64_t count, capacity;
    int64_t held_bytes, peak_bytes; /* now, and the most so far */
} p4_ledger;

/* Records a block that was handed out. P4_E_SYSTEM: out of host memory, and the block is not counted.
 * Local. */
p4_rc p4_ledger_add(p4_ledger *ledger, const void *memory, int64_t bytes);
/* Records that a block came back; a block that is not in the ledger (NULL) changes nothing. Local. */
void p4_ledger_remove(p4_ledger *ledger, const void *memory);
void p4_ledger_close(p4_ledger *ledger);

#endif
