/* count.h - counts in text for people. In JSON, in values of keys and in what a program reads they are plain
 * digits. */
#ifndef P4_COUNT_H
#define P4_COUNT_H

#include <stdint.h>

enum { P4_COUNT_BYTES = 32 };
/* 1234567 as "1,234,567": into a caller's buffer, which is returned. Local. */
char *p4_format_count(char buffer[P4_COUNT_BYTES], int64_t value);

#endif
