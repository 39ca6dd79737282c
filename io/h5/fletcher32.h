/* fletcher32.h - HDF5's checksum of a chunk. */
#ifndef P4_H5_FLETCHER32_H
#define P4_H5_FLETCHER32_H

#include "src/leaf/base.h"

enum { P4_FLETCHER32_BYTES = 4 }; /* behind the data of a chunk */

typedef struct p4_fletcher32 { /* begins {0} */
    uint64_t first, second;    /* sums of all words, and of `first` after each word, modulo 65535 */
} p4_fletcher32;

/* Continues with these bytes: big-endian words of 16 bits. The number of bytes is even but for the last
 * ones; a last odd byte is the high one of its word. Local. */
void p4_fletcher32_add(p4_fletcher32 *sums, const void *bytes, int64_t byte_count);
/* Is what lies behind the data of a chunk the checksum of these sums? Local. */
bool p4_fletcher32_matches(const p4_fletcher32 *sums, const void *stored);

#endif
