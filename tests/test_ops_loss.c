/* Losses over rows of logits. */
#include <float.h>

#include "loss_cases.h"

/* Multiplies gradients d at z by the slope of the map there. */
static void map_gradient(double *d, const float *z, int64_t count, p4_logit_map map)
{
    double scale = map.scale > 0.0f ? (double)map.scale : 1.0;
    for (int64_t i = 0; i < count; i++) {
        double t = map.cap > 0.0f ? (double)z[i] / (double)map.cap : 0.0;
        d[i] *= scale * (1.0 - t * t);
    }
}

static void check_cross_entropy(rig *r)
{
    for (int s = 0; s < 6 * shapes_to_run(SIZES, SIZES_FEW); s++) {
        int64_t N = sizes[s / 6][0], V = sizes[s / 6][1], ld = row_length(V, s % 6 / 2);
        float scale = 1.0f / (float)N;
        int32_t *targets = rig_ids(r, N, 0, V - 1);
        p4_logit_map map = maps[(s + s / 6) % MAPS];
        float *x = random_logits(r, targets, N, V, s % 2 ? 20.0 : 1.0), *z = map_logits(r, x, N * V, map);
        double *nll = rig_host(r, N * 8), *hit = rig_host(r, N * 8), *d = rig_host(r, N * ld * 8);
        for (int64_t n = 0; n < N; n++) {
            if (targets[n] < 0) {
                continue;
            }
            double lse = log_sum_exp(z + n * V, V);
            nll[n] = lse - (double)z[n * V + targets[n]];
            hit[n] = first_largest(x + n * V, V, targets[n]);
            for (int64_t v = 0; v < V; v++) {
                d[n * ld + v] = (exp((double)z[n * V + v] - lse) - (v == targets[n])) * (double)scale;
            }
            map_gradient(d + n * ld, z + n * V, V, map);
        }
        float *d_nll = rig_put_f32(r, NULL, N), *d_hit = rig_put_f32(r, NULL, N),
              *plain = rig_put_f32(r, NULL, N);
        void *logits = put_rows(r, x, N, V, ld), *dlogits = rig_put_act(r, NULL, N * ld);
        int32_t *d_targets = rig_put(r, targets, N * 4);
        p4_cross_entropy_args args = {.N = N,
                                      .V = V,
                                      .ld = ld,
                                      .logits = logits,
                                      .map = map,
                                      .targets = d_targets,
                                      .scale = scale,
                                      .nll = plain};
        r->ops->cross_entropy(r->device, &args);
        args.nll = d_nll;
        args.opt_hit = d_hit;
        args.opt_dlogits = dlogits;
        r->ops->cross_entropy(r->device, &args);
        double bound = 2e-6, floor = 1e-6 + 1e-6 * (double)map.cap; /* a rounding error of the cap */
        expect_array("cross_entropy without gradient", rig_get_f32(r, plain, N), nll, N, bound, floor);
        expect_array("cross_entropy", rig_get_f32(r, d_nll, N), nll, N, bound, floor);
        expect_array("hit", rig_get_f32(r, d_hit, N), hit, N, 0.0, 0.0);
        float *got = rig_get_act(r, dlogits, N * ld);
        expect_array("dlogits", got, d, N * ld, 4.0 * r->eps + 2e-6 + 1e-6 * (double)map.cap,
                     1e-7 * (double)scale);
        args.opt_dlogits = logits;
        r->ops->cross_entropy(r->device, &args);
        EXPECT(memcmp(got, rig_get_act(r, logits, N * ld), (size_t)(N * ld) * 4) == 0,
               "in place gives other bits");
        rig_clear(r);
    }
}

static void check_nan(rig *r)
{
    float x[3] = {1.0f, NAN, 2.0f};
    int32_t target = 2;
    float *nll = rig_put_f32(r, NULL, 1);
    r->ops->cross_entropy(r->device, &(p4_cross_entropy_args){.N = 1,
                                                              .V = 3,
                                                              .ld = 3,
                                                              .logits = rig_put_act(r, x, 3),
                                                              .targets = rig_put(r, &target, 4),
                                                              .scale = 1.0f,
                                                              .nll = nll});
    EXPECT(isnan(rig_get_f32(r, nll, 1)[0]), "a NaN logit must show in the loss");
    rig_clear(r);
}

static double same_top(const float *a, const float *b, int64_t V)
{
    int64_t best = 0;
    for (int64_t v = 1; v < V; v++) {
        best = a[v] > a[best] ? v : best;
    }
    return first_largest(b, V, (int32_t)best);
}

/* Rows whose largest logit stands more than once: the first column counts, wherever the threads of a block
 * find the others. */
static void check_same_of_equals(rig *r)
{
    enum { V = 3000, N = 6 };
    static const int at[N][4] = {{7, 2900, 7, 8},          {7, 2900, 8, 2900},
                                 {0, 2999, 0, 1},          {1500, 1501, 1500, 2999},
                                 {1501, 1502, 1500, 2999}, {2999, 2999, 2998, 2998}};
    float *a = rig_host(r, N * V * 4), *b = rig_host(r, N * V * 4);
    int32_t *targets = rig_ids(r, N, 0, V - 1);
    double *want = rig_host(r, N * 8);
    for (int64_t n = 0; n < N; n++) {
        a[n * V + at[n][0]] = a[n * V + at[n][1]] = 3.0f;
        b[n * V + at[n][2]] = b[n * V + at[n][3]] = 5.0f;
        want[n] = at[n][0] == at[n][2];
    }
    float *kl = rig_put_f32(r, NULL, N), *same = rig_put_f32(r, NULL, N);
    r->ops->kl_divergence(r->device, &(p4_kl_divergence_args){.N = N,
                                                              .V = V,
                                                              .ld = V,
                                                              .reference = rig_put_act(r, a, N * V),
                                                              .logits = rig_put_act(r, b, N * V),
                                                              .targets = rig_put(r, targets, N * 4),
                                                              .kl = kl,
                                                              .opt_same = same});
    expect_array("the first of equal logits", rig_get_f32(r, same, N), want, N, 0.0, 0.0);
    rig_clear(r);
}

static void check_kl(rig *r)
{
    for (int s = 0; s < 6 * shapes_to_run(SIZES, SIZES_FEW); s++) {
        int64_t N = sizes[s / 6][0], V = sizes[s / 6][1], ld = row_length(V, s % 6 / 2);
        int32_t *targets = rig_ids(r, N, 0, V - 1), *same = rig_ids(r, N, 0, V - 1);
        p4_logit_map map = maps[(s + s / 6) % MAPS];
        float *a = random_logits(r, targets, N, V, s % 2 ? 8.0 : 1.0), *b = random_logits(r, same, N, V, 1.0);
        float *a_z = map_logits(r, a, N * V, map), *b_z = map_logits(r, b, N * V, map);
        double *want = rig_host(r, N * 8), *want_same = rig_host(r, N * 8);
        for (int64_t n = 0; n < N; n++) {
            double lse_a = log_sum_exp(a_z + n * V, V), lse_b = log_sum_exp(b_z + n * V, V);
            for (int64_t v = 0; v < V && targets[n] >= 0; v++) {
                double la = (double)a_z[n * V + v] - lse_a, lb = (double)b_z[n * V + v] - lse_b;
                want[n] += exp(la) * (la - lb);
            }
            want_same[n] = targets[n] >= 0 ? same_top(a + n * V, b + n * V, V) : 0.0;
        }
        float *kl = rig_put_f32(r, NULL, N), *zero = rig_put_f32(r, NULL, N),
              *agrees = rig_put_f32(r, NULL, N);
        void *d_a = put_rows(r, a, N, V, ld), *d_b = put_rows(r, b, N, V, ld);
        int32_t *d_targets = rig_put(r, targets, N * 4);
        p4_kl_divergence_args args = {.N = N,
                                      .V = V,
                                      .ld = ld,
                                      .reference = d_a,
                                      .logits = d_b,
                                      .map = map,
                                      .targets = d_targets,
                                      .kl = kl,
                                      .opt_same = agrees};
        r->ops->kl_divergence(r->device, &args);
        args.opt_same = NULL;
        args.logits = d_a;
        args.kl = zero;
        r->ops->kl_divergence(r->device, &args);
        expect_array("kl_divergence", rig_get_f32(r, kl, N), want, N, 4e-6, 2e-6 + 1e-6 * (double)map.cap);
        expect_array("the same class first", rig_get_f32(r, agrees, N), want_same, N, 0.0, 0.0);
        double *nothing = rig_host(r, N * 8);
        expect_array("kl_divergence of equals", rig_get_f32(r, zero, N), nothing, N, 0.0, 1e-6);
        rig_clear(r);
    }
}

/* --- distillation ------------------------------------------------------------------------------ */

/* A row of the student and the classes of its teacher, in double: the reference. of[v]: the class that column
 * v belongs to, of `classes`, with probabilities p. */
typedef struct distilled {
    int64_t V, classes;
    int32_t target;
    double weight, temperature, *x, *p;
    int32_t *of;
} distilled;

/* nll, and *kl over the classes at the temperature. */
static double row_losses(const distilled *d, double *kl)
{
    double largest = -INFINITY, sum = 0.0, soft = 0.0;
    double *q = calloc((size_t)d->classes, sizeof *q);
    for (int64_t v = 0; v < d->V; v++) {
        largest = fmax(largest, d->x[v]);
    }
    for (int64_t v = 0; v < d->V; v++) {
        double e = exp((d->x[v] - largest) / d->temperature);
        sum += exp(d->x[v] - largest);
        soft += e;
        q[d->of[v]] += e;
    }
    *kl = 0.0;
    for (int64_t c = 0; c < d->classes; c++) {
        *kl += d->p[c] > 0.0 ? d->p[c] * (log(d->p[c]) - log(q[c] / soft)) : 0.0;
    }
    free(q);
    return log(sum) + largest - d->x[d->target];
}

static double distilled_loss(void *context)
{
    const distilled *d = context;
    double kl, nll = row_losses(d, &kl);
    return (1.0 - d->weight) * nll + d->weight * d->temperature * d->temperature * kl;
}

/* The gradient, from the definition of both losses. */
static void row_gradient(const distilled *d, double *to, double scale)
{
    double lse = -INFINITY, soft_lse = -INFINITY, *q = calloc((size_t)d->classes, sizeof *q);
    for (int64_t v = 0; v < d->V; v++) {
        lse = fmax(lse, d->x[v]);
    }
    double sum = 0.0, soft = 0.0, largest = lse;
    for (int64_t v = 0; v < d->V; v++) {
        sum += exp(d->x[v] - largest);
        soft += exp((d->x[v] - largest) / d->temperature);
    }
    lse = largest + log(sum);
    soft_lse = largest / d->temperature + log(soft);
    for (int64_t v = 0; v < d->V; v++) {
        q[d->of[v]] += exp(d->x[v] / d->temperature - soft_lse);
    }
    for (int64_t v = 0; v < d->V; v++) {
        double share = exp(d->x[v] / d->temperature - soft_lse); /* of the class: p share / q */
        double kl = share - (q[d->of[v]] > 0.0 ? d->p[d->of[v]] * share / q[d->of[v]] : 0.0);
        to[v] = scale * ((1.0 - d->weight) * (exp(d->x[v] - lse) - (v == d->target)) +
                         d->weight * d->temperature * kl);
    }
    free(q);
}

typedef struct distill_way {
    double weight, temperature, student_size, teacher_size;
    int64_t k; /* 0: the whole teacher */
    p4_logit_map map;
} distill_way;

static const distill_way distill_ways[] = {
    {0.9, 1.0, 1.0, 2.0, 0, {0, 0}},     {0.5, 2.0, 3.0, 8.0, 0, {0, 30}},
    {1.0, 0.5, 1.0, 1.0, 0, {0, 0}},     {0.0, 1.0, 2.0, 1.0, 0, {0, 0}},
    {0.9, 1.0, 1.0, 2.0, 16, {0, 0}},    {0.5, 2.0, 3.0, 8.0, 1, {0, 0}},
    {1.0, 0.7, 1.0, 1.0, 600, {0, 0}},   {0.9, 1.0, 8.0, 9.0, 16, {0.5f, 8}},
    {0.5, 2.0, 3.0, 8.0, 0, {0.125f, 0}}};
enum { DISTILL_WAYS = sizeof distill_ways / sizeof distill_ways[0] };

/* The teacher's row t as classes: every column its own, or its top k (by rank in `ids`) and all others. */
static void make_classes(distilled *d, const float *t, const int32_t *ids, int64_t k)
{
    double *scaled = malloc((size_t)d->V * sizeof *scaled), largest = -INFINITY, sum = 0.0;
    for (int64_t v = 0; v < d->V; v++) {
        scaled[v] = (double)t[v] / d->temperature;
        largest = fmax(largest, scaled[v]);
    }
    for (int64_t v = 0; v < d->V; v++) {
        sum += exp(scaled[v] - largest);
    }
    d->classes = k > 0 ? k + 1 : d->V;
    memset(d->p, 0, (size_t)d->classes * sizeof *d->p);
    for (int64_t v = 0; v < d->V; v++) {
        d->of[v] = (int32_t)(k > 0 ? k : v);
    }
    for (int64_t i = 0; i < k; i++) {
        d->of[ids[i]] = (int32_t)i;
    }
    for (int64_t v = 0; v < d->V; v++) {
        d->p[d->of[v]] += exp(scaled[v] - largest) / sum;
    }
    free(scaled);
}

/* The reference's own gradient of a row is that of its loss. */
static void check_reference(rig *r, distilled *d, const double *gradient, double scale)
{
    float *slopes = rig_host(r, d->V * 4);
    for (int64_t v = 0; v < d->V; v++) {
        slopes[v] = (float)(gradient[v] / scale);
    }
    expect_slopes(r, "distilled reference", slopes, d->x, d->V, 8, distilled_loss, d, 1e-4);
}

/* One shape one way: losses, gradient, slopes, the columns beyond V, rows without a target. */
static void check_distilled(rig *r, const distill_way *way, int64_t N, int64_t V, int64_t ld)
{
    const int64_t k = p4_min_i64(way->k, V);
    const float scale = 1.0f / (float)N;
    int32_t *targets = rig_ids(r, N, 0, V - 1), *same = rig_ids(r, N, 0, V - 1);
    float *x = random_logits(r, targets, N, V, way->student_size),
          *t = random_logits(r, same, N, V, way->teacher_size);
    float *z = map_logits(r, x, N * V, way->map), *t_z = map_logits(r, t, N * V, way->map);
    void *logits = put_rows(r, x, N, V, ld), *teacher = put_rows(r, t, N, V, ld);
    float *nll = rig_put_f32(r, NULL, N), *hit = rig_put_f32(r, NULL, N), *kl = rig_put_f32(r, NULL, N);
    p4_top_rows top = {.k = k};
    int32_t *h_ids = NULL;
    if (k > 0) {
        top.ids = rig_put(r, NULL, N * k * 4);
        top.logp = rig_put_f32(r, NULL, N * (k + 1));
        r->ops->top_k(r->device, &(p4_top_k_args){.N = N,
                                                  .V = V,
                                                  .ld = ld,
                                                  .logits = teacher,
                                                  .map = way->map,
                                                  .temperature = (float)way->temperature,
                                                  .top = top});
        h_ids = rig_get(r, top.ids, N * k * 4);
    }
    r->ops->distill_loss(r->device, &(p4_distill_loss_args){.N = N,
                                                            .V = V,
                                                            .ld = ld,
                                                            .logits = logits,
                                                            .opt_teacher = k > 0 ? NULL : teacher,
                                                            .top = top,
                                                            .map = way->map,
                                                            .targets = rig_put(r, targets, N * 4),
                                                            .scale = scale,
                                                            .weight = (float)way->weight,
                                                            .temperature = (float)way->temperature,
                                                            .nll = nll,
                                                            .hit = hit,
                                                            .kl = kl});
    float *got = rig_get_act(r, logits, N * ld);
    double *want = rig_host(r, N * ld * 8), *want_nll = rig_host(r, N * 8), *want_kl = rig_host(r, N * 8),
           *want_hit = rig_host(r, N * 8);
    distilled d = {.V = V,
                   .weight = way->weight,
                   .temperature = (double)(float)way->temperature,
                   .p = rig_host(r, (V + 1) * 8),
                   .of = rig_host(r, V * 4)};
    for (int64_t n = 0; n < N; n++) {
        if (targets[n] < 0) {
            continue;
        }
        d.x = rig_doubles(r, z + n * V, V);
        d.target = targets[n];
        make_classes(&d, t_z + n * V, h_ids + n * k, k);
        want_nll[n] = row_losses(&d, &want_kl[n]);
        want_hit[n] = first_largest(x + n * V, V, targets[n]);
        row_gradient(&d, want + n * ld, (double)scale);
        if (n == 0) {
            check_reference(r, &d, want, (double)scale);
        }
        map_gradient(want + n * ld, z + n * V, V, way->map);
    }
    const double cap = 1e-6 * (double)way->map.cap;
    expect_array("distill_loss: nll", rig_get_f32(r, nll, N), want_nll, N, 2e-6, 1e-6 + cap);
    expect_array("distill_loss: hit", rig_get_f32(r, hit, N), want_hit, N, 0.0, 0.0);
    expect_array("distill_loss: kl", rig_get_f32(r, kl, N), want_kl, N, 4e-6, 4e-6 + cap);
    expect_array("distill_loss: gradient", got, want, N * ld, 4.0 * r->eps + 4e-6 + cap,
                 4e-7 * (double)scale);
}

static void check_distill(rig *r)
{
    for (int s = 0; s < shapes_to_run(SIZES, SIZES_FEW); s++) {
        for (int w = 0; w < DISTILL_WAYS; w++) {
            int64_t V = sizes[s][1];
            check_distilled(r, &distill_ways[w], p4_min_i64(sizes[s][0], 10), V, row_length(V, (s + w) % 3));
            rig_clear(r);
        }
    }
}

/* The op against a sort: which classes, in which order, and their probabilities. */
static const float *sorted_row;
static int by_logit(const void *a, const void *b)
{
    int32_t i = *(const int32_t *)a, j = *(const int32_t *)b;
    return sorted_row[i] != sorted_row[j] ? (sorted_row[i] > sorted_row[j] ? -1 : 1) : i - j;
}

static int by_id(const void *a, const void *b)
{
    return *(const int32_t *)a - *(const int32_t *)b;
}

static void check_top_k(rig *r)
{
    static const int64_t ks[] = {1, 7, 64, 600};
    for (int s = 0; s < 4 * shapes_to_run(SIZES, SIZES_FEW); s++) {
        int64_t N = p4_min_i64(sizes[s / 4][0], 10), V = sizes[s / 4][1], ld = row_length(V, s % 3),
                k = p4_min_i64(ks[s % 4], V);
        const float temperature = s % 2 ? 2.0f : 1.0f;
        int32_t *targets = rig_ids(r, N, 0, V - 1), *order = rig_host(r, V * 4);
        p4_logit_map map = maps[(s + s / 4) % MAPS];
        float *x = random_logits(r, targets, N, V, 4.0), *z = map_logits(r, x, N * V, map);
        p4_top_rows top = {
            .k = k, .ids = rig_put(r, NULL, N * k * 4), .logp = rig_put_f32(r, NULL, N * (k + 1))};
        r->ops->top_k(r->device, &(p4_top_k_args){.N = N,
                                                  .V = V,
                                                  .ld = ld,
                                                  .logits = put_rows(r, x, N, V, ld),
                                                  .map = map,
                                                  .temperature = temperature,
                                                  .top = top});
        const int32_t *ids = rig_get(r, top.ids, N * k * 4);
        const float *logp = rig_get_f32(r, top.logp, N * (k + 1));
        double *want = rig_host(r, (k + 1) * 8);
        for (int64_t n = 0; n < N; n++) {
            double *scaled = rig_doubles(r, z + n * V, V), others = 0.0, sum = 0.0;
            sorted_row = x + n * V;
            for (int64_t v = 0; v < V; v++) {
                order[v] = (int32_t)v;
            }
            qsort(order, (size_t)V, sizeof *order, by_logit);
            double largest = scaled[order[0]];
            for (int64_t v = 0; v < V; v++) {
                double e = exp((scaled[order[v]] - largest) / (double)temperature);
                sum += e;
                others += v >= k ? e : 0.0;
            }
            qsort(order, (size_t)k, sizeof *order, by_id);
            EXPECT(memcmp(order, ids + n * k, (size_t)k * sizeof *ids) == 0,
                   "row %lld of %lld, k %lld: other classes", (long long)n, (long long)V, (long long)k);
            for (int64_t i = 0; i < k; i++) {
                want[i] = (scaled[order[i]] - largest) / (double)temperature - log(sum);
            }
            expect_array("top_k", logp + n * (k + 1), want, k, 2e-6, 1e-6 + 1e-6 * (double)map.cap);
            EXPECT(k < V ? fabs((double)logp[n * (k + 1) + k] - log(others / sum)) < 1e-4
                         : isinf(logp[n * (k + 1) + k]),
                   "the others: got %g, want %g", (double)logp[n * (k + 1) + k], log(others / sum));
        }
        rig_clear(r);
    }
}

/* The largest vocabularies: rows that no cache of a thread holds. */
static void check_large(rig *r)
{
    const int64_t N = 2, V = 262144;
    const distill_way ways[] = {{0.9, 1.0, 2.0, 2.0, 0, {0, 30}}, {0.9, 1.0, 2.0, 2.0, 64, {0, 0}}};
    for (int w = 0; w < 2; w++) {
        check_distilled(r, &ways[w], N, V, V);
        rig_clear(r);
    }
    int32_t targets[2] = {-1, 262143};
    float *x = random_logits(r, targets, N, V, 2.0);
    double *d = rig_host(r, N * V * 8), lse = log_sum_exp(x + V, V),
           nll[2] = {0.0, lse - (double)x[N * V - 1]};
    for (int64_t v = 0; v < V; v++) {
        d[V + v] = (exp((double)x[V + v] - lse) - (v == V - 1)) * 0.5;
    }
    float *got = rig_put_f32(r, NULL, N);
    void *logits = put_rows(r, x, N, V, V);
    r->ops->cross_entropy(r->device, &(p4_cross_entropy_args){.N = N,
                                                              .V = V,
                                                              .ld = V,
                                                              .logits = logits,
                                                              .targets = rig_put(r, targets, N * 4),
                                                              .scale = 0.5f,
                                                              .nll = got,
                                                              .opt_dlogits = logits});
    expect_array("cross_entropy of 262144 classes", rig_get_f32(r, got, N), nll, N, 2e-6, 1e-6);
    expect_array("its gradient", rig_get_act(r, logits, N * V), d, N * V, 4.0 * r->eps + 2e-6, 0.0);
    rig_clear(r);
}

int main(void)
{
    static const ops_case cases[] = {
        {"cross_entropy", check_cross_entropy},
        {"cross_entropy of NaN", check_nan},
        {"kl_divergence", check_kl},
        {"kl_divergence_of_equals", check_same_of_equals},
        {"262144 classes", check_large},
        {"distill_loss", check_distill},
        {"top_k", check_top_k},
    };
    return run_cases(cases, sizeof cases / sizeof cases[0]);
}
