#include "io/out/cells.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

const char *p4_cell(char text[P4_CELL_BYTES], double value, int decimals, const char *unit)
{
    if (isnan(value)) {
        snprintf(text, P4_CELL_BYTES, "-");
    } else {
        char number[P4_NUMBER_BYTES];
        snprintf(text, P4_CELL_BYTES, "%.30s%s", p4_format_number(number, value, decimals),
                 isinf(value) ? "" : unit);
    }
    return text;
}

const char *p4_cell_interval(char text[P4_CELL_BYTES], double low, double high, int most, const char *unit)
{
    int decimals = most + 1;
    do {
        char from[P4_NUMBER_BYTES], until[P4_NUMBER_BYTES];
        decimals--;
        snprintf(text, P4_CELL_BYTES, isnan(low) ? "-" : "%.16s..%.16s%s",
                 p4_format_number(from, low, decimals), p4_format_number(until, high, decimals), unit);
    } while (strlen(text) > P4_CELL_COLUMN && decimals > 0);
    return text;
}
