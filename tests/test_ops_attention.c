/* Self-attention: grouped heads, windows, ragged lengths; gradients against slopes of the double reference.
 * On a GPU with bf16 activations each of the implementations that P4_ATTENTION names is opened and checked on
 * its own. */
#include "ops_cases.h"

enum { LONGEST = 2048, MOST_D = 256 };

typedef struct attention_case {
    p4_attention_shape shape;
    double *qkv, *out, *lse, *weight; /* loss = sum of weight * out */
} attention_case;

static int64_t row_width(const p4_attention_shape *s)
{
    return (s->H + 2 * s->Hkv) * s->D;
}

/* In eight sums, which a compiler may keep in vectors. */
static double dot(const double *a, const double *b, int64_t count)
{
    double sums[8] = {0.0}, sum = 0.0;
    int64_t i = 0;
    for (; i + 8 <= count; i += 8) {
        for (int k = 0; k < 8; k++) {
            sums[k] += a[i + k] * b[i + k];
        }
    }
    for (; i < count; i++) {
        sum += a[i] * b[i];
    }
    for (int k = 0; k < 8; k++) {
        sum += sums[k];
    }
    return sum;
}

/* to += factor * x */
static void add_scaled(double *restrict to, double factor, const double *restrict x, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        to[i] += factor * x[i];
    }
}

/* A raw score, scaled and capped, and the slope of both. */
static double score_of(const p4_attention_shape *s, double raw, double *slope)
{
    double cap = (double)s->cap, t = cap > 0.0 ? tanh(raw * (double)s->scale / cap) : 0.0;
    *slope = (double)s->scale * (1.0 - t * t);
    return cap > 0.0 ? cap * t : raw * (double)s->scale;
}

/* One query of one head. */
static void reference_row(attention_case *k, int64_t batch, int64_t head, int64_t i)
{
    const p4_attention_shape *s = &k->shape;
    int64_t width = row_width(s), kv = head / (s->H / s->Hkv), D = s->D;
    const double *rows = k->qkv + batch * s->T * width, *q = rows + i * width + head * D;
    int64_t first = s->window > 0 ? p4_max_i64(0, i - s->window + 1) : 0;
    double scores[LONGEST], largest = -INFINITY, sum = 0.0, unused;
    for (int64_t j = first; j <= i; j++) {
        scores[j] = score_of(s, dot(q, rows + j * width + (s->H + kv) * D, D), &unused);
        largest = fmax(largest, scores[j]);
    }
    double *out = k->out + (batch * s->T + i) * s->H * D + head * D;
    memset(out, 0, (size_t)D * sizeof *out);
    for (int64_t j = first; j <= i; j++) {
        double p = exp(scores[j] - largest);
        sum += p;
        add_scaled(out, p, rows + j * width + (s->H + s->Hkv + kv) * D, D);
    }
    for (int64_t d = 0; d < D; d++) {
        out[d] /= sum;
    }
    k->lse[(batch * s->H + head) * s->T + i] = largest + log(sum);
}

static double attention_loss(void *context)
{
    attention_case *k = context;
    const p4_attention_shape *s = &k->shape;
    double loss = 0.0;
    for (int64_t batch = 0; batch < s->B; batch++) {
        for (int64_t head = 0; head < s->H; head++) {
            for (int64_t i = 0; i < s->T; i++) {
                reference_row(k, batch, head, i);
            }
        }
    }
    for (int64_t i = 0; i < s->B * s->T * s->H * s->D; i++) {
        loss += k->weight[i] * k->out[i];
    }
    return loss;
}

/* --- the gradient and how far a kernel may be from it ------------------------------------------- */

/* The bound is that of probabilistic rounding analysis (Higham and Mary, 2019). Roundings of values in the
 * activations' type are independent, zero in the mean, and at most u = rig.eps, one unit in the last place.
 * By Hoeffding's inequality a sum of terms x_k, each rounded by itself, is off by more than C u sqrt(sum
 * x_k^2) with probability 2 exp(-C^2 / 2): for C = 8 that is 3e-14 an element, 1e-6 of a run of 10^8
 * elements. A sum of n terms in fp32 is off by at most C sqrt(n) w sum |x_k|, with w = 2^-24, or 2^-22 on
 * tensor cores, which cut off what they add.
 *
 * With P = probabilities, dP = dO V', D_i = sum_d dO_id O_id and dS = scale P (dP - D), each kernel rounds P
 * and dS before the products dV = P' dO, dQ = dS K and dK = dS' Q, and rounds O, dQ, dK and dV as it stores
 * them:
 *
 *   score       e_s <= w (C sqrt(d) scale |q| |k| + 4)          a product of d terms; exp and log
 *   P           relative error f = 2 e_s + w (6 + |lse|)         exp(score - lse)
 *   D_i         e_D <= C u (sqrt(sum_d (dO O)^2) + sqrt(sum_j (P dP)^2)) + (f + C sqrt(d) w) sum_d |dO| (P
 * |V|) O is rounded, and is P V with a rounded P: sum_d dO_id sum_j r_j P_ij V_jd = sum_j r_j P_ij dP_ij dS
 * fp32 part g_ij = scale P (|dP - D| f + C sqrt(d) w |dO| |v|) + C sqrt(n) w |dS| dQ_i        C u sqrt(sum_j
 * (dS K)^2) + e_D scale |sum_j P K| + sum_j g |K| + u |dQ| dK_j        sqrt(sum_i ((C u dS Q)^2 + (scale P
 * e_D Q)^2)) + sum_i g |Q| + u |dK| dV_j        C u sqrt(sum_i (P dO)^2) + (f + C sqrt(n) w) sum_i P |dO| + u
 * |dV|
 *
 * With a soft cap c tanh(s / c) the score is off by 4 w c more. Then `scale` becomes scale (1 - t^2), t =
 * tanh, which is off by e_t = 2 scale (e_s / c + 4 w), and g_ij by P |dP - D| e_t more.
 *
 * e_D is one error for all keys of a row, but another in each row: it adds up in dQ, and by squares in dK. */
typedef struct gradient {
    double *d, *squares, *rest; /* [N * width]: its value; sums of squares, and what is added to their root */
    double u, w;
} gradient;

static const double C_ROUNDING = 8.0;

/* One row at work: of the query, and of each key that it sees. */
typedef struct gradient_row {
    double p[LONGEST], dp[LONGEST], slope[LONGEST]; /* of the score: scale, and that of the cap */
    double pv[MOST_D], pk[MOST_D];                  /* sum_j P |V|, sum_j P slope K */
    double delta, e_delta, e_slope, f, sum_error, dot_error;
} gradient_row;

static double norm(const double *x, int64_t count)
{
    return sqrt(dot(x, x, count));
}

/* Probabilities, dP, and what rounding does to the row as a whole. q, dout, out: [D] of the query. */
static void open_row(gradient_row *row, const attention_case *k, const gradient *g, const double *q,
                     const double *dout, const double *out, const double *key, const double *value,
                     int64_t count, double lse)
{
    const int64_t D = k->shape.D, width = row_width(&k->shape);
    double keys = 0.0, values = 0.0, squares = 0.0, scale = (double)k->shape.scale, spread = 0.0,
           c = C_ROUNDING, cap = (double)k->shape.cap;
    memset(row->pv, 0, sizeof row->pv);
    memset(row->pk, 0, sizeof row->pk);
    row->delta = dot(dout, out, D);
    for (int64_t j = 0; j < count; j++, key += width, value += width) {
        row->dp[j] = dot(dout, value, D);
        row->p[j] = exp(score_of(&k->shape, dot(q, key, D), &row->slope[j]) - lse);
        squares += row->p[j] * row->dp[j] * row->p[j] * row->dp[j];
        keys = fmax(keys, norm(key, D));
        values = fmax(values, norm(value, D));
        add_scaled(row->pk, row->p[j] * row->slope[j], key, D);
        for (int64_t d = 0; d < D; d++) {
            row->pv[d] += row->p[j] * fabs(value[d]);
        }
    }
    double e_s = g->w * (c * sqrt((double)D) * scale * norm(q, D) * keys + 4.0), own = 0.0;
    e_s += 4.0 * g->w * cap;
    row->e_slope = cap > 0.0 ? 2.0 * scale * (e_s / cap + 4.0 * g->w) : 0.0;
    row->f = 2.0 * e_s + g->w * (6.0 + fabs(lse));
    row->dot_error = c * sqrt((double)D) * g->w * norm(dout, D) * values;
    row->sum_error = c * sqrt((double)k->shape.T) * g->w;
    for (int64_t d = 0; d < D; d++) {
        own += dout[d] * out[d] * dout[d] * out[d];
        spread += fabs(dout[d]) * row->pv[d];
    }
    row->e_delta = c * g->u * (sqrt(own) + sqrt(squares)) + (row->f + c * sqrt((double)D) * g->w) * spread;
}

/* What one key adds: to its own gradients and to the query's. At these places of the arrays. */
static void add_pair(const gradient_row *row, const attention_case *k, gradient *g, int64_t j,
                     const double *dout, int64_t query, int64_t key, int64_t value)
{
    const double *x = k->qkv, p = row->p[j], cu = C_ROUNDING * g->u, scale = row->slope[j];
    double ds = p * (row->dp[j] - row->delta) * scale, off = fabs(row->dp[j] - row->delta),
           shared = scale * p * row->e_delta;
    double part =
        p * (off * (scale * row->f + row->e_slope) + scale * row->dot_error) + row->sum_error * fabs(ds);
    for (int64_t d = 0; d < k->shape.D; d++) {
        double q = x[query + d], at = x[key + d];
        g->d[query + d] += ds * at;
        g->squares[query + d] += cu * ds * at * cu * ds * at;
        g->rest[query + d] += part * fabs(at);
        g->d[key + d] += ds * q;
        g->squares[key + d] += (cu * ds * cu * ds + shared * shared) * q * q;
        g->rest[key + d] += part * fabs(q);
        g->d[value + d] += p * dout[d];
        g->squares[value + d] += cu * p * dout[d] * cu * p * dout[d];
        g->rest[value + d] += (row->f + row->sum_error) * p * fabs(dout[d]);
    }
}

/* In double, for shapes too large for slopes; itself checked by slopes on the small ones. */
static void reference_gradient(const attention_case *k, gradient *g)
{
    static gradient_row row;
    const p4_attention_shape *s = &k->shape;
    int64_t width = row_width(s), D = s->D, H = s->H;
    for (int64_t at = 0; at < s->B * H * s->T; at++) {
        int64_t batch = at / (H * s->T), head = at / s->T % H, i = at % s->T, kv = head / (H / s->Hkv);
        int64_t base = batch * s->T * width, first = s->window > 0 ? p4_max_i64(0, i - s->window + 1) : 0;
        int64_t query = base + i * width + head * D, key = base + first * width + (H + kv) * D;
        const double *dout = k->weight + (batch * s->T + i) * H * D + head * D;
        open_row(&row, k, g, k->qkv + query, dout, k->out + (dout - k->weight), k->qkv + key,
                 k->qkv + key + s->Hkv * D, i - first + 1, k->lse[at]);
        for (int64_t j = 0; j <= i - first; j++) {
            add_pair(&row, k, g, j, dout, query, key + j * width, key + j * width + s->Hkv * D);
        }
        for (int64_t d = 0; d < D; d++) {
            g->rest[query + d] += row.e_delta * fabs(row.pk[d]);
        }
    }
}

/* The whole array in the mean: |got - want| / |want| in the 2-norm. */
static void expect_norm(const char *what, const float *got, const double *want, int64_t count, double bound)
{
    double error = 0.0, size = 0.0;
    for (int64_t i = 0; i < count; i++) {
        error += ((double)got[i] - want[i]) * ((double)got[i] - want[i]);
        size += want[i] * want[i];
    }
    EXPECT(error <= bound * bound * size, "%s: relative error %.3g, bound %.3g", what, sqrt(error / size),
           bound);
}

/* dQ, dK and dV each on its own: every element by its own bound, and all in the mean. A rounding of at most u
 * has a mean square of at most u^2: over many elements the squared errors add up to no more than the squares
 * of the bound do without C. */
static void expect_gradients(const p4_attention_shape *s, const float *got, const gradient *g)
{
    enum { MANY = 1000 };
    int64_t N = s->B * s->T, width = row_width(s);
    const struct {
        const char *name;
        int64_t from, to; /* columns */
    } parts[] = {{"attention dQ", 0, s->H * s->D},
                 {"attention dK", s->H * s->D, (s->H + s->Hkv) * s->D},
                 {"attention dV", (s->H + s->Hkv) * s->D, width}};
    for (int p = 0; p < 3; p++) {
        double error = 0.0, mean = 0.0, worst = -INFINITY;
        int64_t at = 0;
        for (int64_t i = 0; i < N * width; i++) {
            if (i % width >= parts[p].from && i % width < parts[p].to) {
                double off = fabs((double)got[i] - g->d[i]), stored = g->rest[i] + g->u * fabs(g->d[i]);
                double excess = off - (sqrt(g->squares[i]) + stored + 1e-30);
                error += off * off;
                mean += g->squares[i] / (C_ROUNDING * C_ROUNDING) + stored * stored;
                at = worst < excess || isnan(excess) ? i : at;
                worst = isnan(excess) || i == at ? excess : worst;
            }
        }
        EXPECT(worst <= 0.0, "%s: element %lld: got %.9g, want %.9g, bound %.3g", parts[p].name,
               (long long)at, (double)got[at], g->d[at],
               sqrt(g->squares[at]) + g->rest[at] + g->u * fabs(g->d[at]));
        EXPECT(N * (parts[p].to - parts[p].from) < MANY || error <= mean,
               "%s: error %.3g in the mean, bound %.3g", parts[p].name, sqrt(error), sqrt(mean));
    }
}

static void check_shape(rig *r, const p4_attention_shape *shape, double size, bool slopes)
{
    const p4_ops *ops = r->ops;
    int64_t N = shape->B * shape->T, width = row_width(shape), out_width = shape->H * shape->D,
            rows = N * shape->H;
    float *qkv = rig_random_act(r, N * width, size), *dout = rig_random_act(r, N * out_width, 1.0);
    attention_case k = {.shape = *shape,
                        .qkv = rig_doubles(r, qkv, N * width),
                        .weight = rig_doubles(r, dout, N * out_width),
                        .out = rig_host(r, N * out_width * 8),
                        .lse = rig_host(r, rows * 8)};
    void *d_qkv = rig_put_act(r, qkv, N * width), *out = rig_put_act(r, NULL, N * out_width);
    void *dqkv = rig_put_act(r, NULL, N * width), *no_lse = rig_put_act(r, NULL, N * out_width);
    float *lse = rig_put_f32(r, NULL, rows);
    float *work = rig_put_f32(r, NULL, ops->attention_work_count(r->device, shape, false));
    float *back = rig_put_f32(r, NULL, ops->attention_work_count(r->device, shape, true));
    p4_attention_forward_args forward = {
        .shape = *shape, .qkv = d_qkv, .out = out, .opt_lse = lse, .work = work};
    ops->attention_forward(r->device, &forward);
    forward.out = no_lse;
    forward.opt_lse = NULL;
    ops->attention_forward(r->device, &forward);
    ops->attention_backward(r->device,
                            &(p4_attention_backward_args){.shape = *shape,
                                                          .qkv = d_qkv,
                                                          .out = out,
                                                          .lse = lse,
                                                          .dout = rig_put_act(r, dout, N * out_width),
                                                          .dqkv = dqkv,
                                                          .work = back});
    gradient g = {.d = rig_host(r, N * width * 8),
                  .squares = rig_host(r, N * width * 8),
                  .rest = rig_host(r, N * width * 8),
                  .u = r->eps,
                  .w = r->eps > 0x1p-24 ? 0x1p-22 : 0x1p-24};
    attention_loss(&k);
    reference_gradient(&k, &g);
    double bound =
        8.0 * r->eps + 4e-6 * fmax(1.0, size * size / 4.0); /* a score's rounding error is relative to it */
    float *got = rig_get_act(r, out, N * out_width), *got_d = rig_get_act(r, dqkv, N * width);
    expect_array("attention out", got, k.out, N * out_width, bound, 0.0);
    EXPECT(memcmp(got, rig_get_act(r, no_lse, N * out_width), (size_t)(N * out_width) * 4) == 0,
           "lse changes out");
    expect_array("attention lse", rig_get_f32(r, lse, rows), k.lse, rows, bound, bound);
    expect_norm("attention out", got, k.out, N * out_width, 4.0 * bound);
    expect_gradients(shape, got_d, &g);
    if (slopes) {
        expect_slopes(r, "attention slopes", got_d, k.qkv, N * width, 40, attention_loss, &k,
                      4.0 * bound + 2e-5);
    }
    rig_clear(r);
}

static void check_small(rig *r)
{
    static const p4_attention_shape shapes[] = {
        {2, 5, 2, 1, 3, 0, 0.5f, 0},    {1, 17, 6, 2, 4, 5, 0.5f, 0},  {1, 1, 1, 1, 2, 0, 0.7f, 0},
        {3, 9, 4, 4, 5, 1, 0.4f, 0},    {1, 33, 3, 3, 8, 7, 0.3f, 0},  {2, 12, 4, 2, 16, 100, 0.25f, 0},
        {2, 9, 4, 2, 6, 0, 0.5f, 1.5f}, {1, 37, 3, 1, 20, 6, 0.4f, 3},
    };
    for (int s = 0; s < shapes_to_run(sizeof shapes / sizeof shapes[0], 2); s++) {
        check_shape(r, &shapes[s], 1.0, true);
    }
}

/* Lengths around the block of 128 queries; windows that begin inside and before a block; scores far from 0.
 */
static void check_long(rig *r)
{
    static const p4_attention_shape shapes[] = {
        {1, 129, 2, 2, 16, 40, 0.25f, 0},  {1, 257, 1, 1, 64, 128, 0.125f, 0},
        {1, 127, 2, 1, 16, 0, 0.25f, 0},   {1, 300, 4, 2, 20, 0, 0.22f, 0},
        {1, 300, 2, 1, 16, 150, 0.25f, 0}, {2, 128, 1, 1, 8, 0, 0.35f, 0},
        {1, 520, 2, 1, 64, 0, 0.125f, 0},  {1, 150, 2, 1, 64, 70, 0.25f, 2},
        {1, 131, 1, 1, 256, 0, 0.125f, 4},
    };
    for (int s = 0; s < shapes_to_run(sizeof shapes / sizeof shapes[0], 2); s++) {
        check_shape(r, &shapes[s], s == 3 ? 5.0 : 1.0, false);
    }
}

/* Lengths around the tiles of 64 rows and blocks of 128 and 192 of the kernels for compute capability 9.0,
 * with heads as wide as a tile and narrower ones; groups; windows that begin inside a tile, at one and
 * beyond. */
static void check_tiles(rig *r)
{
    static const p4_attention_shape shapes[] = {
        {1, 200, 2, 2, 56, 100, 0.13f, 0},  {1, 257, 4, 1, 64, 0, 0.125f, 0},
        {1, 257, 2, 1, 128, 130, 0.09f, 0}, {1, 65, 3, 1, 64, 0, 0.125f, 0},
        {1, 127, 2, 1, 64, 64, 0.125f, 0},  {1, 129, 2, 1, 64, 65, 0.125f, 0},
        {2, 1, 2, 1, 64, 0, 0.125f, 0},     {1, 63, 1, 1, 64, 0, 0.125f, 0},
        {2, 64, 2, 2, 64, 33, 0.125f, 0},   {1, 257, 2, 1, 64, 1, 0.125f, 0},
        {2, 1, 1, 1, 128, 0, 0.09f, 0},     {1, 63, 2, 1, 128, 0, 0.09f, 0},
        {1, 65, 2, 2, 104, 20, 0.1f, 0},    {1, 127, 1, 1, 128, 0, 0.09f, 0},
        {1, 129, 2, 1, 128, 128, 0.09f, 0}, {2, 200, 1, 1, 128, 0, 0.09f, 0},
        {1, 64, 1, 1, 128, 64, 0.09f, 0},   {1, 130, 1, 1, 40, 0, 0.16f, 0},
    };
    for (int s = 0; s < shapes_to_run(sizeof shapes / sizeof shapes[0], 3); s++) {
        check_shape(r, &shapes[s], s % 4 == 3 ? 3.0 : 1.0, false);
    }
}

/* Head dimensions, groups, windows and lengths around the tiles of every implementation on tensor cores. */
static void check_heads(rig *r)
{
    static const p4_attention_shape shapes[] = {
        {1, 129, 2, 2, 96, 40, 0.1f, 0},  {1, 131, 2, 1, 200, 64, 0.07f, 0}, {1, 127, 2, 1, 40, 0, 0.16f, 0},
        {2, 17, 6, 2, 32, 5, 0.18f, 0},   {1, 2, 2, 1, 64, 0, 0.125f, 0},    {2, 64, 4, 4, 48, 1, 0.14f, 0},
        {1, 150, 4, 2, 72, 33, 0.12f, 0}, {1, 200, 2, 1, 128, 90, 0.09f, 0}, {3, 70, 4, 1, 104, 0, 0.1f, 0},
        {1, 140, 4, 2, 256, 0, 0.06f, 0}, {1, 140, 4, 2, 256, 60, 0.06f, 1}, {1, 129, 2, 1, 128, 0, 0.2f, 2},
    };
    if (strstr(r->ops->describe(r->device), "emulator")) {
        return; /* minutes there */
    }
    for (int s = 0; s < shapes_to_run(sizeof shapes / sizeof shapes[0], 3); s++) {
        check_shape(r, &shapes[s], 1.0, false);
    }
}

/* Lengths of real training, by the kernels of shorter ones; few heads, each of which is a unit by itself, and
 * so many that blocks take several units of two, more than are taken together
 * (kernels/sm90/attention_backward_64.cuh). */
static void check_longest(rig *r)
{
    static const p4_attention_shape shapes[] = {
        {32, 130, 8, 2, 64, 0, 0.125f, 0},   {48, 130, 9, 3, 64, 100, 0.125f, 0},
        {2, 1024, 2, 2, 64, 0, 0.125f, 0},   {1, LONGEST, 2, 1, 64, 0, 0.125f, 0},
        {4, 512, 4, 2, 64, 0, 0.125f, 0},    {1, 600, 8, 2, 64, 0, 0.125f, 0},
        {1, 1024, 2, 1, 128, 700, 0.09f, 0}, {1, 600, 2, 1, 256, 0, 0.06f, 0},
    };
    for (int s = 0; s < shapes_to_run(sizeof shapes / sizeof shapes[0], 0); s++) {
        check_shape(r, &shapes[s], 1.0, false);
    }
}

/* Everything once more on a device opened with P4_ATTENTION=`name`; *digest gets its bits. */
static void check_named(rig *r, const char *name, uint64_t *digest)
{
    static rig named;
    setenv("P4_ATTENTION", name, 1);
    p4_rc rc = rig_open_as(&named, r->ops, 0, true, r->rng.seed);
    if (rc == P4_OK) {
        if (strcmp(name, "own") == 0) {
            check_tiles(&named);
        }
        check_heads(&named);
        check_longest(&named);
        *digest = named.digest;
        rig_close(&named);
    } else {
        printf("P4_ATTENTION=%s is not checked: %s\n", name, p4_last_error());
        EXPECT(strstr(p4_last_error(), "cannot use cuDNN") && !strstr(r->ops->describe(r->device), "cuDNN"),
               "%s: %s", name, p4_last_error());
        p4_error_clear();
    }
}

/* On a GPU: the same bits on every run, but where they are said to differ. */
static void check_implementations(rig *r)
{
    const char *given = getenv("P4_ATTENTION"), *describe = r->ops->describe(r->device);
    char *kept = given ? p4_strdup(given) : NULL;
    uint64_t digest = 0, unused = 0;
    if (r->ops->host_memory || r->ops->act_bytes(r->device) != 2 || strstr(describe, "emulator")) {
        free(kept);
        return;
    }
    printf("%s\n", describe);
    check_named(r, "own", &digest);
    r->digest ^= digest;
    digest = 0;
    check_named(r, "mma", &digest); /* on compute capability 9.0 not the same kernels */
    r->digest ^= digest;
    digest = 0;
    check_named(r, "cudnn", &digest);
    r->digest ^= digest;
    check_named(r, "cudnn-any-order", &unused);
    if (kept) {
        setenv("P4_ATTENTION", kept, 1);
    } else {
        unsetenv("P4_ATTENTION");
    }
    free(kept);
}

int main(void)
{
    static const ops_case cases[] = {{"attention, small", check_small},
                                     {"attention, long", check_long},
                                     {"attention, tiles", check_tiles},
                                     {"attention, heads", check_heads},
                                     {"attention, implementations", check_implementations}};
    return run_cases(cases, sizeof cases / sizeof cases[0]);
}
