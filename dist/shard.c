#include "dist/shard.h"

#include <stdlib.h>
#include <string.h>

/* True when layers (the head rides on the last) can be cut into at most `parts` contiguous pieces of cost <=
 * limit. */
static bool fits(const double *cost, int64_t layers, double head_cost, int parts, double limit)
{
    int used = 1;
    double sum = 0;
    for (int64_t l = 0; l < layers; l++) {
        double c = cost[l] + (l == layers - 1 ? head_cost : 0);
        if (sum > 0 && sum + c > limit) {
            used++;
            sum = 0;
        }
        sum += c;
    }
    return used <= parts;
}

/* The smallest limit of the most loaded piece, by bisection. */
static double best_limit(const double *cost, int64_t layers, double head_cost, int parts)
{
    double low = 0, high = head_cost;
    for (int64_t l = 0; l < layers; l++) {
        double c = cost[l] + (l == layers - 1 ? head_cost : 0);
        low = c > low ? c : low;
        high += cost[l];
    }
    for (int i = 0; i < 60 && low < high; i++) {
        double middle = 0.5 * (low + high);
        if (fits(cost, layers, head_cost, parts, middle)) {
            high = middle;
        } else {
            low = middle;
        }
    }
    return high;
}

static void plan_stages(p4_shard *shard, const double *cost, double head_cost)
{
    int64_t L = shard->layers;
    if (shard->ranks >= L) { /* a group of ranks a layer; its first rank is the stage */
        for (int64_t l = 0; l < L; l++) {
            shard->stage[l] = (int)(l * shard->ranks / L);
        }
    } else {
        double limit = best_limit(cost, L, head_cost, shard->ranks), sum = 0;
        int rank = 0;
        for (int64_t l = 0; l < L; l++) {
            double c = cost[l] + (l == L - 1 ? head_cost : 0);
            bool must = L - l == shard->ranks - rank - 1; /* a layer for each rank that is left */
            if (l > 0 && rank + 1 < shard->ranks && (sum + c > limit * (1 + 1e-9) || must)) {
                rank++;
                sum = 0;
            }
            sum += c;
            shard->stage[l] = rank;
        }
    }
    for (int64_t l = L - 1; l >= 0; l--) {
        shard->first[shard->stage[l]] = l;
    }
    for (int64_t l = 0; l < L; l++) {
        shard->end[shard->stage[l]] = l + 1;
    }
    shard->head_stage = shard->stage[L - 1];
}

/* Items of a layer go to the least loaded rank of its group; items outside layers to the least loaded of all.
 */
static void plan_owners(p4_shard *shard, double *load, const int64_t *item_layer, const double *item_cost)
{
    for (int pass = 0; pass < 2; pass++) {
        for (int64_t i = 0; i < shard->items; i++) {
            int64_t l = item_layer[i];
            if ((l >= 0) != (pass == 0)) {
                continue;
            }
            int from = 0, to = shard->ranks;
            if (l >= 0) {
                from = shard->stage[l];
                to = from + 1;
                if (shard->ranks > shard->layers) {
                    to = l + 1 < shard->layers ? shard->stage[l + 1] : shard->ranks;
                }
            }
            int best = from;
            for (int r = from + 1; r < to; r++) {
                best = load[r] < load[best] ? r : best;
            }
            shard->owner[i] = best;
            load[best] += item_cost[i];
        }
    }
}

p4_rc p4_shard_plan(p4_shard *shard, int ranks, int64_t layers, const double *layer_cost, double head_cost,
                    int64_t items, const int64_t *item_layer, const double *item_cost)
{
    p4_rc rc = P4_OK;
    *shard = (p4_shard){.ranks = ranks, .layers = layers, .items = items};
    shard->stage = p4_alloc((size_t)layers, sizeof *shard->stage);
    shard->first = p4_alloc((size_t)ranks, sizeof *shard->first);
    shard->end = p4_alloc((size_t)ranks, sizeof *shard->end);
    shard->owner = p4_alloc((size_t)items, sizeof *shard->owner);
    double *load = p4_alloc((size_t)ranks, sizeof *load);
    if (shard->stage == NULL || shard->first == NULL || shard->end == NULL || shard->owner == NULL ||
        load == NULL) {
        rc = P4_E_SYSTEM;
        goto done;
    }
    plan_stages(shard, layer_cost, head_cost);
    plan_owners(shard, load, item_layer, item_cost);
done:
    free(load);
    if (rc != P4_OK) {
        p4_shard_free(shard);
    }
    return rc;
}

void p4_shard_free(p4_shard *shard)
{
    free(shard->stage);
    free(shard->first);
    free(shard->end);
    free(shard->owner);
    *shard = (p4_shard){0};
}
