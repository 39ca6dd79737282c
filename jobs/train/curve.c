#include "jobs/train/curve.h"

#include <stdlib.h>

p4_rc p4_training_curve_add(p4_training_curve *curve, const p4_training_point *point)
{
    if (curve->count == curve->capacity) {
        int64_t capacity = p4_max_i64(256, 2 * curve->capacity);
        p4_training_point *more = p4_resize(curve->points, (size_t)capacity, sizeof *more);
        if (more == NULL) {
            return P4_E_SYSTEM;
        }
        curve->points = more;
        curve->capacity = capacity;
    }
    curve->points[curve->count++] = *point;
    return P4_OK;
}

void p4_training_curve_free(p4_training_curve *curve)
{
    free(curve->points);
    *curve = (p4_training_curve){0};
}
