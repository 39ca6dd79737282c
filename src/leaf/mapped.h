/* mapped.h - files mapped for reading. A page that is gone when it is read, because the file became shorter
 * or its disk failed, ends the process with a message that names the file. */
#ifndef P4_MAPPED_H
#define P4_MAPPED_H

#include "src/leaf/base.h"

/* Maps `bytes` (above 0) of an open file. The caller unmaps with the same count. Local. */
p4_rc p4_map_file(void **mapping, int fd, uint64_t bytes, const char *path);
void p4_unmap_file(void *mapping, uint64_t bytes); /* NULL: nothing happens. */

#endif
