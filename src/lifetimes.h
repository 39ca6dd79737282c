/* lifetimes.h - arrays that are needed during some steps of a computation only, placed in one block of memory
 * so that arrays that are needed in the same step do not overlap. */
#ifndef P4_LIFETIMES_H
#define P4_LIFETIMES_H

#include "src/leaf/base.h"

enum { P4_LIFETIME_STEPS = 512, P4_LIFETIME_WORDS = P4_LIFETIME_STEPS / 64 };

typedef struct p4_lifetime {
    int64_t bytes;                    /* 0: takes no memory */
    uint64_t live[P4_LIFETIME_WORDS]; /* bit s: its contents matter in step s */
    int64_t at;                       /* its place, bytes from the start of the block: a multiple of 64 */
} p4_lifetime;

/* The array lives in steps [first, end). Local. */
void p4_lifetime_extend(p4_lifetime *array, int64_t first, int64_t end);
bool p4_lifetimes_meet(const p4_lifetime *a, const p4_lifetime *b);
/* Sets the place of each array and returns the bytes of the block. Larger arrays are placed first, each as
 * low as those that it meets allow, in several orders of equal ones; the smallest block counts. Local. */
int64_t p4_lifetimes_place(p4_lifetime *arrays, int64_t count);

#endif
