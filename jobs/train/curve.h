/* curve.h - the logged steps of a training, on rank 0. */
#ifndef P4_CURVE_H
#define P4_CURVE_H

#include "src/leaf/base.h"
#include "src/phase4/results.h"

typedef struct p4_training_curve {
    p4_training_point *points; /* [count], heap */
    int64_t count, capacity;
} p4_training_curve;

p4_rc p4_training_curve_add(p4_training_curve *curve, const p4_training_point *point); /* Local. */
void p4_training_curve_free(p4_training_curve *curve); /* Leaves it empty. Local. */

#endif
