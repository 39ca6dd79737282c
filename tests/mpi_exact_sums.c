/* Sums of exact_sums (jobs/train/exact_sums.h) are those of one rank, bit for bit: of arrays of less than a
 * message and of several, of fewer micro-batches than ranks and of more, at one root and in shares. GPUs
 * are refused. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "jobs/train/exact_sums.h"
#include "kernels/outline.h"

/* Element i of the leaf of a micro-batch: of 60 binary orders of magnitude, so that the order of a sum shows.
 */
static float leaf_at(int64_t micro_batch, int64_t i)
{
    uint64_t bits =
        (uint64_t)(micro_batch + 1) * 0x9e3779b97f4a7c15u ^ (uint64_t)(i + 1) * 0xff51afd7ed558ccdu;
    bits ^= bits >> 31;
    bits *= 0xc4ceb9fe1a85ec53u;
    float fraction = (float)(bits >> 40) / (float)(1 << 24) - 0.5f;
    return ldexpf(fraction, (int)(bits % 60) - 40);
}

static float expected_at(int64_t micro_batches, int64_t i, bool backwards)
{
    float sum = 0.0f;
    for (int64_t m = 0; m < micro_batches; m++) {
        sum += leaf_at(backwards ? micro_batches - 1 - m : m, i);
    }
    return sum;
}

/* root -1: in shares. */
static void sum_all(p4_exact_sums *sums, float *sum, float *leaf, int64_t count, int64_t micro_batches,
                    int root)
{
    p4_group *group = sums->compute->group;
    memset(sum, 0, (size_t)count * sizeof *sum);
    for (int64_t round = 0; round * group->ranks < micro_batches; round++) {
        int givers = p4_exact_givers(group, micro_batches, round);
        for (int64_t i = 0; i < count && group->rank < givers; i++) {
            leaf[i] = leaf_at(round * group->ranks + group->rank, i);
        }
        if (root >= 0) {
            p4_exact_sums_add(sums, group->rank == root ? sum : NULL, leaf, count, givers, root);
        } else {
            p4_exact_sums_add_shares(sums, sum, leaf, count, givers);
        }
    }
    if (root < 0) {
        p4_exact_sums_share(sums, sum, count);
    }
}

static void check_sum(const p4_group *group, const float *sum, int64_t count, int64_t micro_batches, int root)
{
    int64_t wrong = 0, other = 0;
    for (int64_t i = 0; i < count && (root < 0 || root == group->rank); i++) {
        wrong += sum[i] != expected_at(micro_batches, i, false);
        other += sum[i] != expected_at(micro_batches, i, true);
    }
    EXPECT(wrong == 0, "%lld micro-batches, root %d: %lld of %lld elements differ", (long long)micro_batches,
           root, (long long)wrong, (long long)count);
    EXPECT(other > 0 || micro_batches < 3 || count < 1000 || (root >= 0 && root != group->rank),
           "another order gives the same sums: nothing was checked");
}

static void check_gather(p4_group *group)
{
    enum { COUNT = 9 };
    double figures[COUNT];
    for (int m = 0; m < COUNT; m++) {
        figures[m] = m % group->ranks == group->rank ? 1.0 / (m + 1) : 0.0;
    }
    p4_exact_gather(group, figures, COUNT);
    double total = 0;
    for (int m = 0; m < COUNT; m++) {
        EXPECT(figures[m] == 1.0 / (m + 1), "figure %d is %.17g", m, figures[m]);
        total += 1.0 / (m + 1);
    }
    EXPECT(p4_exact_total(figures, COUNT) == total, "the total");
}

int main(void)
{
    static const int64_t counts[] = {1, 1000, 70001, ((int64_t)2 << 20) + 777}, micro_batches[] = {1, 3, 7};
    const int64_t most = counts[3];
    p4_machine machine;
    p4_group group;
    p4_compute compute, gpu = {.ops = &p4_outline_ops};
    p4_exact_sums sums;
    EXPECT_OK(p4_machine_open(&machine));
    EXPECT_OK(p4_group_open(&group, &machine, NULL, 60));
    EXPECT_OK(p4_compute_open(
        &compute, &group, &(p4_compute_settings){.device = P4_DEVICE_CPU, .threads = 1, .exact_sums = true}));
    EXPECT_OK(p4_exact_sums_open(&sums, &compute));
    float *sum = p4_alloc((size_t)most, sizeof *sum), *leaf = p4_alloc((size_t)most, sizeof *leaf);
    for (size_t c = 0; sum != NULL && leaf != NULL && c < sizeof counts / sizeof counts[0]; c++) {
        for (size_t m = 0; m < sizeof micro_batches / sizeof micro_batches[0]; m++) {
            for (int root = -1; root < group.ranks; root += group.ranks) { /* in shares; at the last rank */
                sum_all(&sums, sum, leaf, counts[c], micro_batches[m], root);
                check_sum(&group, sum, counts[c], micro_batches[m], root);
            }
        }
    }
    check_gather(&group);
    EXPECT_REFUSED(p4_compute_check_exact(&gpu), "key \"exact_sums\": found true, expected false on GPUs");
    free(sum);
    free(leaf);
    p4_exact_sums_close(&sums);
    p4_compute_close(&compute);
    p4_group_close(&group);
    p4_machine_close(&machine);
    return TEST_END();
}
