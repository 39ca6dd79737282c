#include "src/leaf/count.h"

#include <inttypes.h>
#include <stdio.h>

char *p4_format_count(char buffer[P4_COUNT_BYTES], int64_t value)
{
    char digits[24];
    int length = snprintf(digits, sizeof digits, "%" PRId64, value), to = 0;
    for (int i = 0; i < length; i++) {
        if (i > 0 && (length - i) % 3 == 0 && digits[i - 1] != '-') {
            buffer[to++] = ',';
        }
        buffer[to++] = digits[i];
    }
    buffer[to] = '\0';
    return buffer;
}

const char *p4_block_set(char text[P4_BLOCK_SET_BYTES], int64_t blocks)
{
    snprintf(text, P4_BLOCK_SET_BYTES, blocks > 1 ? "set of %" PRId64 " blocks" : "block", blocks);
    return text;
}
