/* host_copy.h - copies in host memory on several threads: one thread alone reads a mapped file at a fraction
 * of what the bus to a device, or the memory itself, can carry. */
#ifndef P4_HOST_COPY_H
#define P4_HOST_COPY_H

#include "src/leaf/base.h"

/* As memcpy, cut into slices over `threads` threads (at least 1); small copies stay on the calling one.
 * Local. */
void p4_host_copy(void *to, const void *from, int64_t bytes, int threads);
/* Of `threads` (0: the cores this process may use) so many as a bus can use. Local. */
int p4_host_copy_threads(int threads);

#endif
