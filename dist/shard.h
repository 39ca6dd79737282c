/* shard.h - the ownership plan: which rank loads, calibrates, quantizes and trains each weight
 * (docs/design.md 3). */
#ifndef P4_SHARD_H
#define P4_SHARD_H

#include "src/leaf/base.h"

/* Layers are contiguous per rank, balanced by cost. With more ranks than layers a layer's items are spread
 * over the ranks of its group; its stage (the rank that runs it in the pipeline) is the group's first rank.
 */
typedef struct p4_shard {
    int ranks;
    int64_t layers;
    int *stage;           /* [layers]: the rank that runs the layer in the evaluation pipeline */
    int64_t *first, *end; /* [ranks]: the layers rank r runs, [first[r], end[r]); empty when it runs none */
    int64_t items;
    int *owner;     /* [items]: the owner of each weight */
    int head_stage; /* the rank that runs the final norm, head and loss: the last layer's */
} p4_shard;

/* layer_cost[L] and head_cost in any unit (bytes); item_layer[items] (-1: no layer), item_cost[items]. The
 * caller frees. Local. */
p4_rc p4_shard_plan(p4_shard *shard, int ranks, int64_t layers, const double *layer_cost, double head_cost,
                    int64_t items, const int64_t *item_layer, const double *item_cost);
void p4_shard_free(p4_shard *shard);

#endif
