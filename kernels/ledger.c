#include "kernels/ledger.h"

#include <stdlib.h>

p4_rc p4_ledger_add(p4_ledger *ledger, const void *memory, int64_t bytes)
{
    p4_ledger_entry *entries = p4_grow(ledger->entries, ledger->count, &ledger->capacity, sizeof *entries);
    if (entries == NULL) {
        return P4_E_SYSTEM;
    }
    ledger->entries = entries;
    ledger->entries[ledger->count++] = (p4_ledger_entry){memory, bytes};
    ledger->held_bytes += bytes;
    ledger->peak_bytes = p4_max_i64(ledger->peak_bytes, ledger->held_bytes);
    return P4_OK;
}

void p4_ledger_remove(p4_ledger *ledger, const void *memory)
{
    for (int64_t i = ledger->count - 1; i >= 0; i--) { /* blocks are usually released in reverse order */
        if (ledger->entries[i].memory == memory) {
            ledger->held_bytes -= ledger->entries[i].bytes;
            ledger->entries[i] = ledger->entries[--ledger->count];
            return;
        }
    }
}

void p4_ledger_close(p4_ledger *ledger)
{
    free(ledger->entries);
    *ledger = (p4_ledger){0};
}
