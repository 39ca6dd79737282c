/* hash.h - FNV-1a with 64 bits: names of cache files, keys of what they hold, slots of tables. It guards
 * against mix-ups, not against attacks. */
#ifndef P4_HASH_H
#define P4_HASH_H

#include <stddef.h>
#include <stdint.h>

#define P4_HASH_START UINT64_C(14695981039346656037)

/* Continues the hash of the bytes before, or P4_HASH_START, with these. */
static inline uint64_t p4_hash(uint64_t hash, const void *bytes, size_t count)
{
    const unsigned char *each = (const unsigned char *)bytes;
    for (size_t i = 0; i < count; i++) {
        hash = (hash ^ each[i]) * UINT64_C(1099511628211);
    }
    return hash;
}

#endif
