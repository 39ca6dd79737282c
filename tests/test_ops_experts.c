/* Mixtures of experts: routing, the rows of pairs of a token and an expert, and products of each expert's
 * rows; with experts that get no token, and counts of rows that no tile fits. Against plain references in
 * double. */
#include "ops_cases.h"

enum { TRIES = 24 };

typedef struct shape {
    int64_t N, E, K; /* tokens, experts, of which each token takes K */
    int64_t in, out;
    int64_t busy; /* experts that tokens are routed to: others get none */
} shape;

static const shape shapes[] = {
    {1, 1, 1, 3, 5, 1},   {7, 5, 2, 6, 9, 3},      {420, 4, 2, 72, 328, 3}, {70, 3, 1, 65, 33, 1},
    {13, 4, 4, 16, 8, 4}, {150, 40, 3, 18, 70, 6}, {600, 9, 4, 24, 16, 9},  {3, 33, 2, 1, 1, 33},
};

static int shapes_now(void)
{
    return shapes_to_run(sizeof shapes / sizeof shapes[0], 5);
}

/* Logits of which experts from `busy` on are never among the largest; some are equal, some NaN. */
static float *make_logits(rig *r, const shape *s)
{
    float *logits = rig_random_act(r, s->N * s->E, 2.0);
    for (int64_t n = 0; n < s->N; n++) {
        float *row = logits + n * s->E;
        for (int64_t e = s->busy; e < s->E; e++) {
            row[e] = -20.0f;
        }
        if (n % 3 == 1 && s->E > 1) { /* equal ones: the first counts */
            row[1] = row[0];
        }
    }
    return logits;
}

/* Poisoned arrays on the device. */
static p4_routes take_routes(rig *r, const shape *s)
{
    int64_t pairs = s->N * s->K;
    return (p4_routes){.N = s->N,
                       .experts = s->E,
                       .used = s->K,
                       .share = rig_put(r, NULL, pairs * 4),
                       .expert = rig_put(r, NULL, pairs * 4),
                       .row = rig_put(r, NULL, pairs * 4),
                       .first = rig_put(r, NULL, (s->E + 1) * 4),
                       .work = rig_put(r, NULL, p4_routes_work_count(s->N, s->E, s->K) * 4)};
}

/* The routes on the host. */
typedef struct host_routes {
    float *share;
    int32_t *expert, *row, *first;
} host_routes;

static host_routes get_routes(rig *r, const p4_routes *routes)
{
    int64_t pairs = routes->N * routes->used;
    return (host_routes){.share = rig_get(r, routes->share, pairs * 4),
                         .expert = rig_get(r, routes->expert, pairs * 4),
                         .row = rig_get(r, routes->row, pairs * 4),
                         .first = rig_get(r, routes->first, (routes->experts + 1) * 4)};
}

static void make_routes(rig *r, const shape *s, bool normed, p4_routes *routes, host_routes *h)
{
    float *logits = make_logits(r, s);
    *routes = take_routes(r, s);
    r->ops->route(r->device, routes, rig_put_act(r, logits, s->N * s->E), normed);
    *h = get_routes(r, routes);
}

static double share_of(const double *logits, const int32_t *expert, const shape *s, bool normed, int64_t k)
{
    double sum = 0;
    for (int64_t i = 0; i < (normed ? s->K : s->E); i++) {
        sum += exp(logits[normed ? expert[i] : i]);
    }
    return exp(logits[expert[k]]) / sum;
}

/* The experts are the K largest, in order, the first of equal ones first. */
static void expect_chosen(const float *logits, const int32_t *expert, const shape *s)
{
    for (int64_t k = 0; k < s->K; k++) {
        int64_t before = 0;
        for (int64_t e = 0; e < s->E; e++) {
            float a = logits[e], b = logits[expert[k]];
            before += a > b || (a == b && e < expert[k]);
        }
        EXPECT(before == k, "expert %d at place %lld has %lld before it", expert[k], (long long)k,
               (long long)before);
    }
}

static void check_route(rig *r)
{
    for (int i = 0; i < shapes_now(); i++) {
        const shape *s = &shapes[i];
        bool normed = i % 2 == 0;
        float *logits = make_logits(r, s);
        double *d = rig_doubles(r, logits, s->N * s->E), *want = rig_host(r, s->N * s->K * 8);
        p4_routes routes = take_routes(r, s);
        r->ops->route(r->device, &routes, rig_put_act(r, logits, s->N * s->E), normed);
        host_routes h = get_routes(r, &routes);
        int64_t *next = rig_host(r, (s->E + 1) * 8), wrong = 0;
        for (int64_t n = 0; n < s->N; n++) {
            expect_chosen(logits + n * s->E, h.expert + n * s->K, s);
            for (int64_t k = 0; k < s->K; k++) {
                want[n * s->K + k] = share_of(d + n * s->E, h.expert + n * s->K, s, normed, k);
                next[h.expert[n * s->K + k] + 1]++;
            }
        }
        for (int64_t e = 0; e < s->E; e++) {
            next[e + 1] += next[e];
        }
        for (int64_t e = 0; e <= s->E; e++) {
            wrong += h.first[e] != next[e];
        }
        for (int64_t p = 0; p < s->N * s->K; p++) {
            wrong += h.row[p] != next[h.expert[p]]++;
        }
        EXPECT(wrong == 0, "shape %d: %lld rows or first rows are wrong", i, (long long)wrong);
        expect_array("shares", h.share, want, s->N * s->K, 2e-6, 0.0);
        rig_clear(r);
    }
}

/* NaN comes last; a token of nothing else takes the first experts. */
static void check_nan(rig *r)
{
    const shape s = {.N = 2, .E = 4, .K = 2};
    const float logits[] = {NAN, 1, NAN, 2, NAN, NAN, NAN, NAN};
    p4_routes routes = take_routes(r, &s);
    r->ops->route(r->device, &routes, rig_put_act(r, logits, 8), true);
    const int32_t *expert = rig_get(r, routes.expert, 16);
    EXPECT(expert[0] == 3 && expert[1] == 1 && expert[2] == 0 && expert[3] == 1, "%d %d %d %d", expert[0],
           expert[1], expert[2], expert[3]);
    EXPECT(isnan(rig_get_f32(r, routes.share, 4)[2]), "shares of NaN");
    rig_clear(r);
}

typedef struct route_case {
    const shape *s;
    const int32_t *expert;
    double *logits, *weight; /* loss = sum of weight * share */
    bool normed;
} route_case;

static double route_loss(void *context)
{
    const route_case *c = context;
    double loss = 0;
    for (int64_t p = 0; p < c->s->N * c->s->K; p++) {
        int64_t n = p / c->s->K;
        loss += c->weight[p] *
                share_of(c->logits + n * c->s->E, c->expert + n * c->s->K, c->s, c->normed, p % c->s->K);
    }
    return loss;
}

static void check_route_backward(rig *r)
{
    for (int i = 0; i < shapes_now(); i++) {
        const shape *s = &shapes[i];
        for (int normed = 0; normed < 2; normed++) {
            float *logits = make_logits(r, s), *dshare = rig_random(r, s->N * s->K, 1.0);
            void *d_logits = rig_put_act(r, logits, s->N * s->E), *d = rig_put_act(r, NULL, s->N * s->E);
            p4_routes routes = take_routes(r, s);
            r->ops->route(r->device, &routes, d_logits, normed);
            r->ops->route_backward(r->device, d, rig_put_f32(r, dshare, s->N * s->K), &routes, d_logits,
                                   normed);
            route_case c = {.s = s,
                            .expert = rig_get(r, routes.expert, s->N * s->K * 4),
                            .logits = rig_doubles(r, logits, s->N * s->E),
                            .weight = rig_doubles(r, dshare, s->N * s->K),
                            .normed = normed};
            expect_slopes(r, "dlogits", rig_get_act(r, d, s->N * s->E), c.logits, s->N * s->E, TRIES,
                          route_loss, &c, 4.0 * r->eps + 1e-4);
            rig_clear(r);
        }
    }
}

/* Rows of tokens to rows of pairs and back. */
static void check_rows(rig *r)
{
    for (int i = 0; i < shapes_now(); i++) {
        const shape *s = &shapes[i];
        int64_t C = s->in, rows = s->N * s->K;
        p4_routes routes;
        host_routes h;
        make_routes(r, s, i % 2 == 1, &routes, &h);
        float *x = rig_random_act(r, s->N * C, 1.0), *out = rig_random_act(r, rows * C, 1.0);
        double *want_rows = rig_host(r, rows * C * 8),
               *want[2] = {rig_host(r, s->N * C * 8), rig_host(r, s->N * C * 8)};
        for (int64_t at = 0; at < rows * C; at++) {
            int64_t p = at / C, c = at % C, row = h.row[p], n = p / s->K;
            want_rows[row * C + c] = (double)x[n * C + c];
            want[0][n * C + c] += (double)out[row * C + c];
            want[1][n * C + c] += (double)h.share[p] * (double)out[row * C + c];
        }
        void *got = rig_put_act(r, NULL, rows * C), *d_out = rig_put_act(r, out, rows * C);
        r->ops->experts_gather(r->device, got, rig_put_act(r, x, s->N * C), &routes, C);
        expect_array("gathered", rig_get_act(r, got, rows * C), want_rows, rows * C, 0.0, 0.0);
        for (int weighted = 0; weighted < 2; weighted++) {
            void *y = rig_put_act(r, NULL, s->N * C);
            r->ops->experts_combine(r->device, y, d_out, &routes, weighted, C);
            expect_array("combined", rig_get_act(r, y, s->N * C), want[weighted], s->N * C, r->eps + 1e-6,
                         1e-6);
        }
        rig_clear(r);
    }
}

static void check_share_backward(rig *r)
{
    for (int i = 0; i < shapes_now(); i++) {
        const shape *s = &shapes[i];
        int64_t F = s->in, C = s->out, rows = s->N * s->K;
        p4_routes routes;
        host_routes h;
        make_routes(r, s, true, &routes, &h);
        float *hidden = rig_random_act(r, rows * F, 1.0), *dh = rig_random_act(r, rows * F, 1.0),
              *dy = rig_random_act(r, rows * C, 1.0);
        double *want = rig_host(r, rows * 8), *want_dh = rig_host(r, rows * F * 8),
               *want_dy = rig_host(r, rows * C * 8);
        for (int64_t p = 0; p < rows; p++) {
            int64_t row = h.row[p];
            for (int64_t f = row * F; f < (row + 1) * F; f++) {
                want[p] += (double)dh[f] * (double)hidden[f];
                want_dh[f] = (double)h.share[p] * (double)dh[f];
            }
            for (int64_t c = row * C; c < (row + 1) * C; c++) {
                want_dy[c] = (double)h.share[p] * (double)dy[c];
            }
        }
        p4_share_backward_args args = {.routes = &routes,
                                       .F = F,
                                       .C = C,
                                       .h = rig_put_act(r, hidden, rows * F),
                                       .dh = rig_put_act(r, dh, rows * F),
                                       .dy = rig_put_act(r, dy, rows * C),
                                       .dshare = rig_put(r, NULL, rows * 4)};
        r->ops->share_backward(r->device, &args);
        expect_array("dshare", rig_get_f32(r, args.dshare, rows), want, rows, 1e-5, 1e-6);
        expect_array("dh", rig_get_act(r, args.dh, rows * F), want_dh, rows * F, r->eps + 1e-6, 0.0);
        expect_array("dy", rig_get_act(r, args.dy, rows * C), want_dy, rows * C, r->eps + 1e-6, 0.0);
        rig_clear(r);
    }
}

/* The reference of the three products, row by row. */
typedef struct products {
    double *y, *dx, *dw;
} products;

static products reference(rig *r, const shape *s, const int32_t *first, const float *x, const float *dy,
                          const float *w)
{
    int64_t rows = s->N * s->K, in = s->in, out = s->out;
    products p = {.y = rig_host(r, rows * out * 8),
                  .dx = rig_host(r, rows * in * 8),
                  .dw = rig_host(r, s->E * out * in * 8)};
    for (int64_t e = 0; e < s->E; e++) {
        for (int64_t row = first[e]; row < first[e + 1]; row++) {
            for (int64_t o = 0; o < out; o++) {
                for (int64_t c = 0; c < in; c++) {
                    double weight = (double)w[(e * out + o) * in + c];
                    p.y[row * out + o] += (double)x[row * in + c] * weight;
                    p.dx[row * in + c] += (double)dy[row * out + o] * weight;
                    p.dw[(e * out + o) * in + c] += (double)dy[row * out + o] * (double)x[row * in + c];
                }
            }
        }
    }
    return p;
}

static void check_products(rig *r)
{
    for (int i = 0; i < shapes_now(); i++) {
        const shape *s = &shapes[i];
        int64_t rows = s->N * s->K, in = s->in, out = s->out, weights = s->E * out * in;
        p4_routes routes;
        host_routes h;
        make_routes(r, s, true, &routes, &h);
        float *x = rig_random_act(r, rows * in, 1.0), *dy = rig_random_act(r, rows * out, 1.0),
              *w = rig_random_act(r, weights, 1.0), *old = rig_random(r, weights, 1.0);
        products want = reference(r, s, h.first, x, dy, w);
        p4_experts_args args = {.experts = s->E,
                                .rows = rows,
                                .in = in,
                                .out = out,
                                .first = routes.first,
                                .w = rig_put_act(r, w, weights),
                                .x = rig_put_act(r, x, rows * in),
                                .y = rig_put_act(r, NULL, rows * out),
                                .dy = rig_put_act(r, dy, rows * out),
                                .dx = rig_put_act(r, NULL, rows * in),
                                .dw = rig_put(r, NULL, weights * 4)};
        r->ops->experts_forward(r->device, &args);
        r->ops->experts_backward_input(r->device, &args);
        r->ops->experts_backward_weight(r->device, &args);
        expect_array("experts_forward", rig_get_act(r, args.y, rows * out), want.y, rows * out, r->eps + 4e-6,
                     1e-6);
        expect_array("experts_backward_input", rig_get_act(r, args.dx, rows * in), want.dx, rows * in,
                     r->eps + 4e-6, 1e-6);
        expect_array("experts_backward_weight", rig_get_f32(r, args.dw, weights), want.dw, weights, 4e-6,
                     0.0);
        for (int64_t k = 0; k < weights; k++) {
            want.dw[k] += (double)old[k];
        }
        args.dw = rig_put_f32(r, old, weights);
        args.accumulate = true;
        r->ops->experts_backward_weight(r->device, &args);
        expect_array("experts_backward_weight, added", rig_get_f32(r, args.dw, weights), want.dw, weights,
                     4e-6, 0.0);
        rig_clear(r);
    }
}

/* The gradient of an activation alone is that of linear_gated_backward with a product by 1. */
static void check_gated_backward(rig *r)
{
    const int64_t N = 37, F = 29;
    float *one = rig_host(r, F * F * 4), *dh = rig_random_act(r, N * F, 1.0),
          *gate_up = rig_random_act(r, N * 2 * F, 2.0);
    for (int64_t f = 0; f < F; f++) {
        one[f * F + f] = 1.0f;
    }
    void *d_dh = rig_put_act(r, dh, N * F), *d_gate_up = rig_put_act(r, gate_up, N * 2 * F),
         *alone = rig_put_act(r, NULL, N * 2 * F);
    p4_linear_gated_backward_args args = {.function = P4_GELU_ERF,
                                          .N = N,
                                          .F = F,
                                          .out = F,
                                          .dy = d_dh,
                                          .w = rig_put_act(r, one, F * F),
                                          .gate_up = d_gate_up,
                                          .dgate_up = rig_put_act(r, NULL, N * 2 * F),
                                          .dh_work = rig_put_act(r, NULL, N * F)};
    r->ops->linear_gated_backward(r->device, &args);
    r->ops->gated_backward(r->device, alone, d_dh, d_gate_up, P4_GELU_ERF, N, F);
    double *want = rig_doubles(r, rig_get_act(r, args.dgate_up, N * 2 * F), N * 2 * F);
    expect_array("gated_backward", rig_get_act(r, alone, N * 2 * F), want, N * 2 * F, 2.0 * r->eps, 0.0);
    rig_clear(r);
}

int main(void)
{
    static const ops_case cases[] = {{"route", check_route},
                                     {"NaN", check_nan},
                                     {"route backward", check_route_backward},
                                     {"rows", check_rows},
                                     {"share backward", check_share_backward},
                                     {"products", check_products},
                                     {"gated backward", check_gated_backward}};
    return run_cases(cases, sizeof cases / sizeof cases[0]);
}
