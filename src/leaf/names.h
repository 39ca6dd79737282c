/* names.h - a list of names for a message. Local. */
#ifndef P4_NAMES_H
#define P4_NAMES_H

#include <stdint.h>

/* The first few names, then how many more; starts as zeros. */
typedef struct p4_name_sample {
    char text[1024];
    int64_t count;
} p4_name_sample;
void p4_name_sample_add(p4_name_sample *sample, const char *name);
const char *p4_name_sample_text(p4_name_sample *sample); /* "a, b and 7 more"; called once, at the end */

#endif
