/* base3.h - base 3 to 2-bit codes outside the table of operations: for bytes in host memory, on one thread,
 * without a device. */
#ifndef P4_BASE3_H
#define P4_BASE3_H

#include <stdint.h>

/* packed [rows, ceil(cols / 5)], no byte above 242 -> codes [rows, p4_code_row_bytes(cols)], as the operation
 * unpack_base3 of kernels/op_list.h. Local. */
void p4_base3_unpack(uint8_t *codes, const uint8_t *packed, int64_t rows, int64_t cols);

#endif
