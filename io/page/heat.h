/* heat.h - a map of the model: a table of layers x projections whose cells are colored by a value. It is a
 * table, so that it can be read aloud, searched and copied. All Local. */
#ifndef P4_PAGE_HEAT_H
#define P4_PAGE_HEAT_H

#include <stdio.h>

#include "src/leaf/base.h"

enum { P4_HEAT_COLUMNS = 24, P4_HEAT_NAME = 96 };

/* Several tensors of one place, such as the experts of a layer, are one cell: their mean. */
typedef struct p4_heat {
    int64_t layers, columns, left_out;         /* left_out: values whose column had no room */
    char names[P4_HEAT_COLUMNS][P4_HEAT_NAME]; /* of projections: "self_attn.q_proj" */
    double *sums, *counts;                     /* [layers][P4_HEAT_COLUMNS], heap */
} p4_heat;

p4_rc p4_heat_init(p4_heat *heat, int64_t layers);
void p4_heat_free(p4_heat *heat);
/* The value of the tensor with this name, in this layer. One outside the layers or not finite is ignored. */
void p4_heat_add(p4_heat *heat, const char *tensor, double layer, double value);
/* The map; `caption` is a literal. Nothing is written where nothing was added. */
void p4_heat_write(FILE *to, const p4_heat *heat, const char *caption, const char *what, int decimals);

#endif
