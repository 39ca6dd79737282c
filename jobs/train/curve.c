#include "jobs/train/curve.h"

#include <stdlib.h>

p4_rc p4_training_curve_add(p4_training_curve *curve, const p4_training_point *point)
{
    p4_training_point *points = p4_grow(curve->points, curve->count, &curve->capacity, sizeof *points);
    if (points == NULL) {
        return P4_E_SYSTEM;
    }
    curve->points = points;
    curve->points[curve->count++] = *point;
    return P4_OK;
}

void p4_training_curve_free(p4_training_curve *curve)
{
    free(curve->points);
    *curve = (p4_training_curve){0};
}
