/* host_copy.h - copies in host memory on several threads: a single thread reads a mapped file at a fraction
 * of the speed of the bus to a device, or of memory. */
#ifndef P4_HOST_COPY_H
#define P4_HOST_COPY_H

#include "src/leaf/base.h"

/* As memcpy, cut into slices over `threads` threads (at least 1); small copies stay on the calling one.
 * Local. */
void p4_host_copy(void *to, const void *from, int64_t bytes, int threads);
/* How many of `threads` (0: the cores this process may use) a copy to a device can use. Local. */
int p4_host_copy_threads(int threads);

#endif
