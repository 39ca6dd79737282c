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
