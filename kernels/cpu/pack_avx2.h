/* pack_avx2.h - inside kernels/cpu: base 3 to 2-bit codes with AVX2. */
#ifndef P4_CPU_PACK_AVX2_H
#define P4_CPU_PACK_AVX2_H

#include <stdbool.h>
#include <stdint.h>

/* Does this machine, and this build, have it? */
bool p4_cpu_has_pack_avx2(void);
/* The begin of a row: as many whole groups of 16 packed bytes as can be unpacked without writing behind
 * `code_bytes` bytes of codes. Returns the packed bytes that it took; five bytes of codes are made of four.
 * Only where p4_cpu_has_pack_avx2. Local. */
int64_t p4_cpu_unpack_avx2(uint8_t *codes, const uint8_t *packed, int64_t code_bytes);

#endif
