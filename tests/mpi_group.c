/* The ranks: sums of figures, agreement on errors, the ownership plan. The collectives on arrays: mpi_coll.c.
 */
#include <stdlib.h>
#include <time.h>

#include "check.h"
#include "dist/group.h"
#include "dist/shard.h"

static void check_sums(p4_group *group)
{
    double d[2] = {1.0, group->rank}, largest = group->rank;
    p4_group_sum_f64(group, d, 2);
    p4_group_max_f64(group, &largest, 1);
    EXPECT_NEAR(d[0], group->ranks, 0);
    EXPECT_NEAR(d[1], group->ranks * (group->ranks - 1) / 2, 0);
    EXPECT_NEAR(largest, group->ranks - 1, 0);
}

static p4_rc fail_on(const p4_group *group, int first, int second)
{
    return group->rank == first || group->rank == second ? FAIL("rank %d says no", group->rank) : P4_OK;
}

/* The message of the lowest rank that failed, with its host unless every rank failed. */
static void expect_message(const p4_group *group, int bad, bool all)
{
    char want[128];
    int length = snprintf(want, sizeof want, "rank %d says no", bad);
    if (!all) {
        snprintf(want + length, sizeof want - (size_t)length, " (rank %d on %s)", bad, group->machine->host);
    }
    EXPECT(strcmp(p4_last_error(), want) == 0, "message \"%s\", want \"%s\"", p4_last_error(), want);
    p4_error_clear();
}

static void check_agreement(p4_group *group)
{
    int ranks = group->ranks, last = ranks - 1;
    EXPECT(p4_agree(group, P4_OK) == P4_OK, "nobody failed");
    for (int bad = 0; bad < ranks; bad++) {
        p4_error_clear();
        EXPECT(p4_agree(group, fail_on(group, bad, last)) == P4_E_INPUT, "rank %d failed", bad);
        expect_message(group, bad, (bad == last ? 1 : 2) == ranks);
        EXPECT(p4_agree_soon(group, fail_on(group, bad, bad)) == P4_E_INPUT, "rank %d failed", bad);
        expect_message(group, bad, ranks == 1);
    }
    EXPECT(p4_agree_soon(group, P4_OK) == P4_OK, "nobody failed");
    EXPECT(p4_agree_root(group, fail_on(group, 0, 0)) == P4_E_INPUT, "rank 0 failed");
    expect_message(group, 0, true);
}

/* A rank that works for longer than the limit of a wait inside a step answers for itself meanwhile. */
static void check_patience(p4_machine *machine)
{
    p4_group group;
    EXPECT_OK(p4_group_open(&group, machine, NULL,
                            3.0)); /* its thread waits less for a core, on a busy machine too */
    if (group.rank == group.ranks - 1) {
        nanosleep(&(struct timespec){.tv_sec = 5}, NULL);
    }
    EXPECT_OK(p4_agree(&group, P4_OK));
    p4_group_close(&group);
}

/* Two groups of one machine agree, sum and fail by themselves. */
static void check_split(p4_machine *machine)
{
    p4_group half;
    int color = machine->rank % 2;
    EXPECT_OK(p4_group_split(&half, machine, color, 60));
    EXPECT(half.rank == machine->rank / 2 && half.ranks == (machine->ranks + 1 - color) / 2, "rank %d of %d",
           half.rank, half.ranks);
    double sum = machine->rank;
    p4_group_sum_f64(&half, &sum, 1);
    EXPECT_NEAR(sum, half.ranks * (half.ranks - 1) + color * half.ranks, 0);
    p4_rc rc = p4_agree(&half, color == 1 ? FAIL("odd ranks fail") : P4_OK);
    EXPECT(rc == (color == 1 ? P4_E_INPUT : P4_OK), "group %d: code %d", color, (int)rc);
    p4_error_clear();
    p4_group_close(&half);
}

/* Each rank of the node has a GPU of its own, whatever the ranks see, and whoever has none is told why. */
static void check_gpus(p4_machine *machine)
{
    p4_gpu gpus[4] = {{.ordinal = 0}};
    int ranks = machine->node_ranks, mine[8], count = ranks < 4 ? ranks : 4;
    for (int k = 0; k < count; k++) { /* the last rank sees them in reverse order */
        bool reverse = machine->node_rank == ranks - 1;
        gpus[k] = (p4_gpu){.id = {(uint8_t)(1 + (reverse ? count - 1 - k : k))}, .ordinal = k};
    }
    EXPECT_OK(p4_machine_assign_gpus(machine, gpus, count, "none"));
    int id = machine->gpu >= 0 ? gpus[machine->gpu].id[0] : 0;
    p4_group all;
    EXPECT_OK(p4_group_open(&all, machine, NULL, 60));
    p4_group_node_gather(&all, mine, &id, sizeof id);
    for (int r = 0; r < ranks; r++) {
        for (int q = 0; q < r; q++) {
            EXPECT(mine[r] != mine[q] && mine[r] > 0, "ranks %d and %d have GPUs %d and %d", r, q, mine[r],
                   mine[q]);
        }
    }
    machine->gpu = -1;
    EXPECT_OK(p4_machine_assign_gpus(machine, gpus, ranks > 1 ? 1 : 0, "there is none"));
    EXPECT(ranks > 1 || strcmp(machine->no_gpu, "there is none") == 0, "\"%s\"", machine->no_gpu);
    EXPECT(ranks < 3 || machine->gpu >= 0 || strstr(machine->no_gpu, "a GPU serves one rank") != NULL,
           "\"%s\"", machine->no_gpu);
    p4_group_close(&all);
}

/* One node here: its ranks are all ranks. */
static void check_node(p4_group *group)
{
    int64_t mine[2] = {group->rank, 7 * group->rank}, all[2 * 8];
    EXPECT(group->local_ranks == group->ranks && group->ranks <= 8, "%d of %d ranks", group->local_ranks,
           group->ranks);
    p4_group_node_gather(group, all, mine, sizeof mine);
    for (int r = 0; r < group->ranks; r++) {
        EXPECT(all[2 * r] == r && all[2 * r + 1] == 7 * r, "rank %d gave %lld", r, (long long)all[2 * r]);
    }
    p4_rc rc = p4_consult(group, fail_on(group, group->ranks - 1, group->ranks - 1));
    EXPECT(rc == P4_E_INPUT && strstr(p4_last_error(), "says no") != NULL, "\"%s\"", p4_last_error());
    char who[32];
    snprintf(who, sizeof who, "(rank %d on ", group->ranks - 1);
    EXPECT((strstr(p4_last_error(), who) != NULL) == (group->ranks > 1), "\"%s\"", p4_last_error());
    p4_error_clear();
}

static void do_nothing(void *user)
{
    (void)user;
}

/* Hooks of an abort go in any order, and leave the others. */
static void check_hooks(p4_group *group)
{
    p4_abort_hook first = {.call = do_nothing}, second = first, third = first;
    p4_group_add_abort_hook(group, &first);
    p4_group_add_abort_hook(group, &second);
    p4_group_add_abort_hook(group, &third);
    p4_group_remove_abort_hook(group, &second);
    p4_group_remove_abort_hook(group, &second);
    EXPECT(group->abort_hooks == &third && third.next == &first && first.next == NULL, "hooks are lost");
    p4_group_remove_abort_hook(group, &third);
    p4_group_remove_abort_hook(group, &first);
    EXPECT(group->abort_hooks == NULL, "hooks are left");
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
    p4_machine machine;
    p4_group group;
    EXPECT_OK(p4_machine_open(&machine));
    EXPECT_OK(p4_group_open(&group, &machine, NULL, 60));
    check_sums(&group);
    check_agreement(&group);
    check_node(&group);
    check_hooks(&group);
    check_split(&machine);
    check_patience(&machine);
    check_gpus(&machine);
    for (int ranks = 1; ranks <= 9; ranks++) {
        for (int64_t layers = 1; layers <= 12; layers++) {
            check_plan(ranks, layers);
        }
    }
    EXPECT(machine.cores >= 1, "no core");
    p4_group_barrier(&group);
    double failed = check_failed;
    p4_group_sum_f64(&group, &failed, 1);
    p4_group_close(&group);
    p4_machine_close(&machine);
    check_failed = (int)failed;
    return TEST_END();
}
