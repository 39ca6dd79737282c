/* loss_cases.h - rows of logits for tests/test_ops_loss.c, and what is expected of them. */
#ifndef P4_LOSS_CASES_H
#define P4_LOSS_CASES_H

#include "ops_cases.h"

static inline double log_sum_exp(const float *x, int64_t V)
{
    double largest = -INFINITY, sum = 0.0;
    for (int64_t v = 0; v < V; v++) {
        largest = fmax(largest, (double)x[v]);
    }
    for (int64_t v = 0; v < V; v++) {
        sum += exp((double)x[v] - largest);
    }
    return largest + log(sum);
}

static inline bool first_largest(const float *x, int64_t V, int32_t target)
{
    int64_t best = 0;
    for (int64_t v = 1; v < V; v++) {
        best = x[v] > x[best] ? v : best;
    }
    return best == target;
}

static const int64_t sizes[][2] = {{40, 511}, {9, 5000}, {2, 70001}, {1, 1},
                                   {7, 2},    {5, 33},   {33, 513},  {3, 50257}};
enum { SIZES = sizeof sizes / sizeof sizes[0], SIZES_FEW = 3 };

/* Random logits with rows far from 0 and rows with several largest; some targets are skipped, some are hit.
 */
static inline float *random_logits(rig *r, int32_t *targets, int64_t N, int64_t V, double size)
{
    float *x = rig_random_act(r, N * V, size);
    for (int64_t n = 0; n < N; n++) {
        if (n % 5 == 1) {
            for (int64_t v = 0; v < V; v++) {
                x[n * V + v] = n % 2 ? 512.0f : -512.0f; /* all equal: the first is the largest */
            }
            targets[n] = n % 3 == 0 ? 0 : targets[n];
        } else if (n % 5 == 2) {
            x[n * V + targets[n]] = 32.0f;
        } else if (n % 5 == 3) {
            targets[n] = -100;
        }
    }
    return x;
}

/* Row lengths from V on: none to spare, the next multiple of 8 (wide accesses), an odd one. */
static inline int64_t row_length(int64_t V, int kind)
{
    return kind == 0 ? V : kind == 1 ? (V + 7) / 8 * 8 + 8 : V + 3;
}

/* act [N, ld] with the rows of x [N, V]; the columns from V on are NaN. */
static inline void *put_rows(rig *r, const float *x, int64_t N, int64_t V, int64_t ld)
{
    float *rows = rig_host(r, N * ld * 4);
    for (int64_t i = 0; i < N * ld; i++) {
        rows[i] = i % ld < V ? x[i / ld * V + i % ld] : NAN;
    }
    return rig_put_act(r, rows, N * ld);
}

/* Maps of logits: none, Granite's, Gemma 2's, both. */
static const p4_logit_map maps[] = {{0, 0}, {0.125f, 0}, {0, 30}, {0.5f, 8}};
enum { MAPS = sizeof maps / sizeof maps[0] };

/* x[count], mapped. */
static inline float *map_logits(rig *r, const float *x, int64_t count, p4_logit_map map)
{
    double scale = map.scale > 0.0f ? (double)map.scale : 1.0, cap = (double)map.cap;
    float *z = rig_host(r, count * 4);
    for (int64_t i = 0; i < count; i++) {
        z[i] = (float)(cap > 0.0 ? cap * tanh((double)x[i] * scale / cap) : (double)x[i] * scale);
    }
    return z;
}

#endif
