/* parallel.h - independent pieces of host work on several threads: conversions and files, not arithmetic
 * (that is the ops'). */
#ifndef P4_PARALLEL_H
#define P4_PARALLEL_H

#include "src/leaf/base.h"

/* One piece. `buffer`, 0 to p4_parallel_buffers - 1, is of no other item until this one is finished. */
typedef p4_rc (*p4_piece)(void *user, int64_t item, int buffer);

/* Runs work(item) for the items [0, count) on up to `threads` threads, the calling one among them (without
 * in_order it has buffer 0). in_order (or NULL) follows each item's work, one at a time and in the order of
 * the items, while other threads prepare the next ones: what was made side by side is written one after
 * another. Items are begun in order; after a failure no more are begun, and the result is the failure of the
 * lowest item, with its message, whatever the number of threads. Where the system has no more threads it goes
 * on with those it has. Local. */
p4_rc p4_parallel(int threads, int64_t count, p4_piece work, p4_piece in_order, void *user);

/* How many buffers the items of such a call need. Local. */
int p4_parallel_buffers(int threads, int64_t count, bool with_order);

#endif
