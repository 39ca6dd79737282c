/* The ranks: sums of figures, agreement on errors, the ownership plan. The collectives on arrays: mpi_coll.c.
 */
#include <stdlib.h>

#include "check.h"
#include "dist/dist.h"
#include "dist/shard.h"

static void check_sums(p4_dist *dist)
{
    double d[2] = {1.0, dist->rank}, largest = dist->rank;
    int64_t whole = dist->rank;
    p4_dist_sum_f64(dist, d, 2);
    p4_dist_max_f64(dist, &largest, 1);
    p4_dist_sum_i64(dist, &whole, 1);
    EXPECT_NEAR(d[0], dist->ranks, 0);
    EXPECT_NEAR(d[1], dist->ranks * (dist->ranks - 1) / 2, 0);
    EXPECT_NEAR(largest, dist->ranks - 1, 0);
    EXPECT(whole == dist->ranks * (dist->ranks - 1) / 2, "%lld", (long long)whole);
}

static p4_rc fail_on(const p4_dist *dist, int first, int second)
{
    return dist->rank == first || dist->rank == second ? FAIL("rank %d says no", dist->rank) : P4_OK;
}

static void check_agreement(p4_dist *dist)
{
    EXPECT(p4_agree(dist, P4_OK) == P4_OK, "nobody failed");
    for (int bad = 0; bad < dist->ranks; bad++) {
        char want[64];
        snprintf(want, sizeof want, "rank %d says no", bad);
        p4_error_clear();
        EXPECT(p4_agree(dist, fail_on(dist, bad, dist->ranks - 1)) == P4_E_INPUT, "rank %d failed", bad);
        EXPECT(strcmp(p4_last_error(), want) == 0, "message \"%s\", want \"%s\"", p4_last_error(), want);
        p4_error_clear();
        EXPECT(p4_agree_soon(dist, fail_on(dist, bad, bad)) == P4_E_INPUT, "rank %d failed", bad);
        EXPECT(strcmp(p4_last_error(), want) == 0, "message \"%s\", want \"%s\"", p4_last_error(), want);
    }
    EXPECT(p4_agree_soon(dist, P4_OK) == P4_OK, "nobody failed");
    p4_error_clear();
}

/* One node here: its ranks are all ranks. */
static void check_node(p4_dist *dist)
{
    int64_t mine[2] = {dist->rank, 7 * dist->rank}, all[2 * 8];
    EXPECT(dist->local_ranks == dist->ranks && dist->ranks <= 8, "%d of %d ranks", dist->local_ranks,
           dist->ranks);
    p4_dist_node_gather(dist, all, mine, sizeof mine);
    for (int r = 0; r < dist->ranks; r++) {
        EXPECT(all[2 * r] == r && all[2 * r + 1] == 7 * r, "rank %d gave %lld", r, (long long)all[2 * r]);
    }
    p4_rc rc = p4_consult(dist, fail_on(dist, dist->ranks - 1, dist->ranks - 1));
    EXPECT(rc == P4_E_INPUT && strstr(p4_last_error(), "says no") != NULL, "\"%s\"", p4_last_error());
    p4_error_clear();
}

/* Every layer has a stage, stages never go back, every item an owner of its layer's group; no rank is idle
 * without need. */
static void check_plan(int ranks, int64_t layers)
{
    enum { PER_LAYER = 7 };
    int64_t items = layers * PER_LAYER + 2, *item_layer = p4_alloc((size_t)items, sizeof *item_layer);
    double *layer_cost = p4_alloc((size_t)layers, 8), *cost = p4_alloc((size_t)items, 8);
    p4_shard shard;
    for (int64_t i = 0; i < items; i++) {
        item_layer[i] = i < layers * PER_LAYER ? i / PER_LAYER : -1;
        cost[i] = 1.0 + (double)(i % 3);
        if (item_layer[i] >= 0) {
            layer_cost[item_layer[i]] += cost[i];
        }
    }
    EXPECT_OK(p4_shard_plan(&shard, ranks, layers, layer_cost, 5.0, items, item_layer, cost));
    int stages = 0;
    int64_t covered = 0;
    for (int r = 0; r < ranks; r++) {
        stages += shard.end[r] > shard.first[r];
        covered += shard.end[r] - shard.first[r];
    }
    EXPECT(stages == p4_min_i64(ranks, layers), "%d ranks, %lld layers: %d stages", ranks, (long long)layers,
           stages);
    EXPECT(covered == layers, "%lld of %lld layers covered", (long long)covered, (long long)layers);
    for (int64_t l = 0; l + 1 < layers; l++) {
        EXPECT(shard.stage[l] <= shard.stage[l + 1], "stages go back at layer %lld", (long long)l);
    }
    for (int64_t i = 0; i < items; i++) {
        EXPECT(shard.owner[i] >= 0 && shard.owner[i] < ranks, "owner %d", shard.owner[i]);
        if (item_layer[i] >= 0 && ranks <= layers) {
            EXPECT(shard.owner[i] == shard.stage[item_layer[i]], "item %lld is not with its layer",
                   (long long)i);
        }
    }
    EXPECT(shard.head_stage == shard.stage[layers - 1], "head stage %d", shard.head_stage);
    p4_shard_free(&shard);
    free(item_layer);
    free(layer_cost);
    free(cost);
}

int main(void)
{
    p4_dist dist;
    EXPECT_OK(p4_dist_open(&dist, 60));
    check_sums(&dist);
    check_agreement(&dist);
    check_node(&dist);
    for (int ranks = 1; ranks <= 9; ranks++) {
        for (int64_t layers = 1; layers <= 12; layers++) {
            check_plan(ranks, layers);
        }
    }
    EXPECT(p4_dist_cores(&dist) >= 1, "no core");
    p4_dist_barrier(&dist);
    double failed = check_failed;
    p4_dist_sum_f64(&dist, &failed, 1);
    p4_dist_close(&dist);
    check_failed = (int)failed;
    return TEST_END();
}
