/* ledger.h - how much memory a device has handed out: the count behind the op peak_bytes, for both columns.
 */
#ifndef P4_KERNELS_LEDGER_H
#define P4_KERNELS_LEDGER_H

#include "src/leaf/base.h"

typedef struct p4_ledger_entry {
    const void *memory;
    int64_t bytes;
} p4_ledger_entry;

/* Zeroed is empty. Used by one thread at a time, as the device it belongs to. */
typedef struct p4_ledger {
    p4_ledger_entry *entries; /* [count] blocks handed out and not yet given back; host heap */
    int64_t count, capacity;
    int64_t held_bytes, peak_bytes; /* now, and the most so far */
} p4_ledger;

/* A block was handed out. P4_E_SYSTEM when host memory is out: the block is not counted. Local. */
p4_rc p4_ledger_add(p4_ledger *ledger, const void *memory, int64_t bytes);
/* It came back; a block that is not in the ledger (NULL) changes nothing. Local. */
void p4_ledger_remove(p4_ledger *ledger, const void *memory);
void p4_ledger_close(p4_ledger *ledger);

#endif
