#include "src/lifetimes.h"

#include <assert.h>

enum { ARRAYS_MAX = 64 };

void p4_lifetime_extend(p4_lifetime *array, int64_t first, int64_t end)
{
    assert(first >= 0 && end <= P4_LIFETIME_STEPS);
    for (int64_t s = first; s < end; s++) {
        array->live[s / 64] |= (uint64_t)1 << s % 64;
    }
}

bool p4_lifetimes_meet(const p4_lifetime *a, const p4_lifetime *b)
{
    uint64_t both = 0;
    for (int w = 0; w < P4_LIFETIME_WORDS; w++) {
        both |= a->live[w] & b->live[w];
    }
    return both != 0;
}

static int64_t rounded(int64_t bytes)
{
    return p4_ceil_div(bytes, 64) * 64;
}

static int64_t steps_of(const p4_lifetime *a)
{
    int64_t steps = 0;
    for (int w = 0; w < P4_LIFETIME_WORDS; w++) {
        steps += __builtin_popcountll(a->live[w]);
    }
    return steps;
}

/* The lowest place that overlaps none of the `placed` arrays that `a` meets. */
static int64_t lowest_place(const p4_lifetime *a, p4_lifetime *const *placed, int64_t count)
{
    int64_t at = 0;
    for (int64_t i = 0; i < count;) {
        const p4_lifetime *other = placed[i++];
        int64_t end = other->at + rounded(other->bytes);
        if (at < end && other->at < at + rounded(a->bytes) && p4_lifetimes_meet(a, other)) {
            at = end;
            i = 0; /* those before may be in the way there */
        }
    }
    return at;
}

/* In this order; returns the bytes of the block. */
static int64_t place_in_order(p4_lifetime *const *order, int64_t count)
{
    int64_t bytes = 0;
    for (int64_t i = 0; i < count; i++) {
        order[i]->at = lowest_place(order[i], order, i);
        bytes = p4_max_i64(bytes, order[i]->at + rounded(order[i]->bytes));
    }
    return bytes;
}

/* What comes first by bytes, by bytes and steps, or by steps. */
static int64_t weight_of(const p4_lifetime *a, int rule)
{
    int64_t bytes = rounded(a->bytes);
    return rule == 0 ? bytes : rule == 1 ? bytes / 64 * steps_of(a) : steps_of(a);
}

static void sort(p4_lifetime **order, int64_t count, int rule)
{
    int64_t weights[ARRAYS_MAX]; /* of order[0, i) */
    for (int64_t i = 0; i < count; i++) {
        p4_lifetime *moved = order[i];
        int64_t at = i, weight = weight_of(moved, rule);
        for (; at > 0 && weights[at - 1] < weight; at--) {
            order[at] = order[at - 1];
            weights[at] = weights[at - 1];
        }
        order[at] = moved;
        weights[at] = weight;
    }
}

int64_t p4_lifetimes_place(p4_lifetime *arrays, int64_t count)
{
    enum { RULES = 3 };
    p4_lifetime *order[ARRAYS_MAX];
    int64_t used = 0, best = INT64_MAX;
    int best_rule = 0;
    assert(count <= ARRAYS_MAX);
    for (int64_t i = 0; i < count; i++) {
        arrays[i].at = 0;
        order[used] = &arrays[i];
        used += arrays[i].bytes > 0;
    }
    for (int rule = 0; rule < RULES; rule++) {
        sort(order, used, rule);
        int64_t bytes = place_in_order(order, used);
        best_rule = bytes < best ? rule : best_rule;
        best = p4_min_i64(best, bytes);
    }
    sort(order, used, best_rule);
    return place_in_order(order, used);
}
