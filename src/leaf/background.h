/* background.h - one piece of host work beside the caller's. It must not use what the caller uses meanwhile:
 * of libraries that are not thread-safe (HDF5, MPI) that is everything. */
#ifndef P4_BACKGROUND_H
#define P4_BACKGROUND_H

#include "src/leaf/base.h"

typedef struct p4_background p4_background;

/* Starts work(user) on a thread of its own; where the system has no more threads it runs before this returns.
 * p4_background_end must follow, unless this fails (memory). Local. */
p4_rc p4_background_start(p4_background **background, p4_rc (*work)(void *user), void *user);
/* Is it still at work? NULL is not. Local. */
bool p4_background_works(const p4_background *background);
/* Waits for it, frees it, and returns its result; its message is recorded on this thread as by p4_fail. NULL:
 * P4_OK. Local. */
p4_rc p4_background_end(p4_background *background);

#endif
