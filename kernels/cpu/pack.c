/* pack.c - 2-bit codes to base 3 and back. A byte holds five trits u = t + 1: sum of u_k 3^(4-k), k = 0
 * first; the missing trits of a row's last byte are u = 1 (t = 0), like the padding of the codes. Bytes above
 * 242 do not occur: readers refuse them. */
#include "kernels/base3.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/pack_avx2.h"

enum { PACK_ROWS = 16, TRITS = 5, QUINTS = 1 << 2 * TRITS };

typedef struct pack_table {
    uint8_t byte_of[QUINTS]; /* five 2-bit codes, first in the low bits -> byte */
} pack_table;
typedef struct unpack_table {
    uint16_t codes_of[256]; /* and back */
} unpack_table;

static void make_pack_table(pack_table *table)
{
    for (unsigned codes = 0; codes < QUINTS; codes++) {
        unsigned byte = 0;
        for (unsigned k = 0; k < TRITS; k++) {
            byte = 3 * byte + (codes >> 2 * k & 3);
        }
        table->byte_of[codes] = (uint8_t)byte;
    }
}

static void make_unpack_table(unpack_table *table)
{
    for (unsigned byte = 0; byte < 256; byte++) {
        unsigned codes = 0, rest = byte;
        for (unsigned k = TRITS; k-- > 0; rest /= 3) {
            codes |= rest % 3 << 2 * k;
        }
        table->codes_of[byte] = (uint16_t)codes;
    }
}

/* Five bytes of codes become four packed bytes, as long as eight bytes can be read. The rest goes through a
 * register: code bytes in, and every complete group of five codes out. */
static void pack_row(uint8_t *packed, const uint8_t *codes, int64_t cols, const pack_table *table)
{
    const uint64_t padding = 0x155; /* five codes 1 */
    int64_t code_bytes = p4_code_row_bytes(cols), bytes = p4_ceil_div(cols, TRITS), next = 0, b = 0;
    uint64_t bits = 0;
    int held = 0;
    for (; next + (int64_t)sizeof bits <= code_bytes; next += 5, b += 4) {
        memcpy(&bits, codes + next, sizeof bits);
        for (int k = 0; k < 4; k++) {
            packed[b + k] = table->byte_of[bits >> 2 * TRITS * k & (QUINTS - 1)];
        }
    }
    bits = 0;
    for (; b < bytes; b++) {
        while (held < 2 * TRITS && next < code_bytes) {
            bits |= (uint64_t)codes[next++] << held;
            held += 8;
        }
        if (held < 2 * TRITS) {
            bits |= padding << held;
        }
        packed[b] = table->byte_of[bits & (QUINTS - 1)];
        bits >>= 2 * TRITS;
        held -= 2 * TRITS;
    }
}

/* Four packed bytes become five bytes of codes, as long as eight bytes can be written. The rest goes through
 * a register. */
static void unpack_row(uint8_t *codes, const uint8_t *packed, int64_t cols, const unpack_table *table)
{
    const uint16_t *of = table->codes_of;
    int64_t code_bytes = p4_code_row_bytes(cols), bytes = p4_ceil_div(cols, TRITS);
    int64_t next = p4_cpu_has_pack_avx2() ? p4_cpu_unpack_avx2(codes, packed, code_bytes) : 0;
    int64_t b = next / 4 * 5;
    uint64_t bits = 0;
    int held = 0;
    for (; b + (int64_t)sizeof bits <= code_bytes; b += 5, next += 4) {
        const uint8_t *p = packed + next;
        bits = of[p[0]] | (uint64_t)of[p[1]] << 10 | (uint64_t)of[p[2]] << 20 | (uint64_t)of[p[3]] << 30;
        memcpy(codes + b, &bits, sizeof bits);
    }
    bits = 0;
    for (; b < code_bytes; b++) {
        while (held < 8) {
            bits |= (uint64_t)(next < bytes ? of[packed[next]] : 0x155u) << held;
            held += 2 * TRITS;
            next++;
        }
        codes[b] = (uint8_t)bits;
        bits >>= 8;
        held -= 8;
    }
    if (cols % 4) { /* padding codes are 1, whatever the last byte held */
        unsigned used = (1u << 2 * (cols % 4)) - 1u;
        codes[code_bytes - 1] = (uint8_t)((codes[code_bytes - 1] & used) | (0x55u & ~used));
    }
}

void p4_cpu_pack_base3(p4_device *device, uint8_t *packed, const uint8_t *codes, int64_t rows, int64_t cols)
{
    pack_table table;
    make_pack_table(&table);
#pragma omp parallel for schedule(static, PACK_ROWS) num_threads(device->threads)
    for (int64_t r = 0; r < rows; r++) {
        pack_row(packed + r * p4_ceil_div(cols, TRITS), codes + r * p4_code_row_bytes(cols), cols, &table);
    }
}

void p4_cpu_unpack_base3(p4_device *device, uint8_t *codes, const uint8_t *packed, int64_t rows, int64_t cols)
{
    unpack_table table;
    make_unpack_table(&table);
#pragma omp parallel for schedule(static, PACK_ROWS) num_threads(device->threads)
    for (int64_t r = 0; r < rows; r++) {
        unpack_row(codes + r * p4_code_row_bytes(cols), packed + r * p4_ceil_div(cols, TRITS), cols, &table);
    }
}

void p4_base3_unpack(uint8_t *codes, const uint8_t *packed, int64_t rows, int64_t cols)
{
    unpack_table table;
    make_unpack_table(&table);
    for (int64_t r = 0; r < rows; r++) {
        unpack_row(codes + r * p4_code_row_bytes(cols), packed + r * p4_ceil_div(cols, TRITS), cols, &table);
    }
}
