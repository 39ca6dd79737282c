/* count.h - counts in text for people. In JSON, in values of keys and in what a program reads they are plain
 * digits. */
#ifndef P4_COUNT_H
#define P4_COUNT_H

#include <stdint.h>

enum { P4_COUNT_BYTES = 32 };
/* 1234567 as "1,234,567": into a caller's buffer, which is returned. Local. */
char *p4_format_count(char buffer[P4_COUNT_BYTES], int64_t value);

enum { P4_BLOCK_SET_BYTES = 48 };
/* What a step of reconstruction trains, for "per ...": "block", or "set of 2 blocks" where they are trained
 * together. Returns text. Local. */
const char *p4_block_set(char text[P4_BLOCK_SET_BYTES], int64_t blocks);

#endif
