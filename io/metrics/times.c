#include "io/metrics/times.h"

#include <stdio.h>
#include <time.h>

double p4_time_seconds(const char *utc)
{
    struct tm t = {.tm_mday = 1};
    if (sscanf(utc, "%d-%d-%dT%d:%d:%dZ", &t.tm_year, &t.tm_mon, &t.tm_mday, &t.tm_hour, &t.tm_min,
               &t.tm_sec) != 6) {
        return 0;
    }
    t.tm_year -= 1900;
    t.tm_mon -= 1;
    return (double)timegm(&t);
}

void p4_time_stamp(char stamp[P4_STAMP_BYTES], const char *utc)
{
    time_t seconds = (time_t)p4_time_seconds(utc);
    struct tm t;
    gmtime_r(&seconds, &t);
    strftime(stamp, P4_STAMP_BYTES, "%Y%m%d_%H%M%S", &t);
}
