/* states.h - hidden states of windows between two blocks, on this rank. */
#ifndef P4_STATES_H
#define P4_STATES_H

#include "jobs/train/compute.h"

typedef struct p4_states {
    const p4_compute *compute;
    int64_t window_bytes; /* of [T, C] in activation type */
    bool on_host;         /* in host memory, though the device has its own */
    char *memory;         /* [windows][window_bytes] */
} p4_states;

/* Room for so many windows, in the device's memory or (on_host) in the host's; on CPUs that is the same.
 * compute must outlive it; the caller closes. Local. */
p4_rc p4_states_open(p4_states *states, const p4_compute *compute, int64_t windows, int64_t window_bytes,
                     bool on_host);
void p4_states_close(p4_states *states); /* Also of zeros. Local. */
/* x (device) = the windows of these numbers. Local. */
void p4_states_gather(const p4_states *states, const int64_t *windows, int64_t count, void *x);
/* x (device) = windows [first, first + count); and back. Local. */
void p4_states_read(const p4_states *states, int64_t first, int64_t count, void *x);
void p4_states_write(p4_states *states, int64_t first, int64_t count, const void *x);

#endif
