/* Ops that families of models differ in: norms of heads, offsets of gains, scales of embeddings and addends,
 * partial rotary positions. Gradients against slopes of double references. */
#include "ops_cases.h"

enum { TRIES = 24 };

/* --- norms of heads --------------------------------------------------------------------------- */

typedef struct head_case {
    int64_t N, heads, D;
    double eps, offset, *x, *gain, *weight, *y; /* [N, heads, D]; loss = sum of weight * y */
} head_case;

static double head_loss(void *context)
{
    head_case *k = context;
    double loss = 0.0;
    for (int64_t part = 0; part < k->N * k->heads; part++) {
        const double *x = k->x + part * k->D;
        double square = 0.0;
        for (int64_t d = 0; d < k->D; d++) {
            square += x[d] * x[d] / (double)k->D;
        }
        for (int64_t d = 0; d < k->D; d++) {
            double y = x[d] / sqrt(square + k->eps) * (k->gain[d] + k->offset);
            k->y[part * k->D + d] = y;
            loss += k->weight[part * k->D + d] * y;
        }
    }
    return loss;
}

/* A column slice of rows `ld` apart, from column `first`: NaN around it. */
static void *put_slice(rig *r, const float *x, int64_t N, int64_t width, int64_t ld, int64_t first)
{
    float *rows = rig_host(r, N * ld * 4);
    for (int64_t i = 0; i < N * ld; i++) {
        int64_t c = i % ld - first;
        rows[i] = x && c >= 0 && c < width ? x[i / ld * width + c] : NAN;
    }
    return rig_put_act(r, rows, N * ld);
}

/* The slice; what lies around it must have stayed NaN. */
static float *get_slice(rig *r, const void *act, int64_t N, int64_t width, int64_t ld, int64_t first)
{
    float *rows = rig_get_act(r, act, N * ld), *x = rig_host(r, N * width * 4);
    int64_t changed = 0;
    for (int64_t i = 0; i < N * ld; i++) {
        int64_t c = i % ld - first;
        if (c >= 0 && c < width) {
            x[i / ld * width + c] = rows[i];
        } else {
            changed += !isnan(rows[i]);
        }
    }
    EXPECT(changed == 0, "%lld elements beside the slice were written", (long long)changed);
    return x;
}

static void *at_column(const rig *r, void *act, int64_t column)
{
    return (char *)act + column * r->ops->act_bytes(r->device);
}

static void check_head_backward(rig *r, head_case *k, const float *x, const float *dy, const float *gain,
                                const float *rstd, int64_t ld, int64_t first, bool in_place)
{
    int64_t N = k->N, D = k->D, width = k->heads * D;
    float *old = rig_random(r, D, 1.0), *dgain = rig_put_f32(r, old, D);
    void *d_x = put_slice(r, x, N, width, ld + 8, first), *d_y = put_slice(r, dy, N, width, ld, first);
    void *dx = in_place ? d_y : put_slice(r, NULL, N, width, ld, first);
    p4_head_norm_backward_args args = {.N = N,
                                       .heads = k->heads,
                                       .D = D,
                                       .dy = at_column(r, d_y, first),
                                       .ld_dy = ld,
                                       .x = at_column(r, d_x, first),
                                       .ld_x = ld + 8,
                                       .rstd = rstd,
                                       .gain = gain,
                                       .gain_offset = (float)k->offset,
                                       .dx = at_column(r, dx, first),
                                       .ld_dx = ld,
                                       .opt_dgain = in_place ? dgain : NULL};
    r->ops->head_norm_backward(r->device, &args);
    double bound = 8.0 * r->eps + 2e-5;
    expect_slopes(r, "head norm dx", get_slice(r, dx, N, width, ld, first), k->x, N * width, TRIES, head_loss,
                  k, bound);
    if (in_place) {
        float *got = rig_get_f32(r, dgain, D);
        for (int64_t d = 0; d < D; d++) {
            got[d] -= old[d];
        }
        expect_slopes(r, "head norm dgain", got, k->gain, D, TRIES, head_loss, k, bound);
    }
}

/* Odd heads, one head (a whole projection), heads that vectors fit and others. */
static void check_head_norm(rig *r)
{
    static const int64_t shapes[][5] = {/* N, heads, D, ld, first */
                                        {1, 1, 1, 3, 1},      {5, 3, 7, 40, 2},    {9, 4, 64, 512, 64},
                                        {33, 5, 128, 640, 0}, {6, 1, 960, 968, 8}, {70, 2, 20, 80, 40},
                                        {3, 2, 256, 512, 0}};
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
        int64_t N = shapes[s][0], heads = shapes[s][1], D = shapes[s][2], ld = shapes[s][3],
                first = shapes[s][4], width = heads * D;
        float *x = rig_random_act(r, N * width, 1.0), *gain = rig_random(r, D, 0.5),
              *dy = rig_random_act(r, N * width, 1.0), *d_gain = rig_put_f32(r, gain, D);
        head_case k = {.N = N,
                       .heads = heads,
                       .D = D,
                       .eps = 1e-3,
                       .offset = s % 2 == 0 ? 0.0 : 1.0,
                       .x = rig_doubles(r, x, N * width),
                       .gain = rig_doubles(r, gain, D),
                       .weight = rig_doubles(r, dy, N * width),
                       .y = rig_host(r, N * width * 8)};
        void *d_x = put_slice(r, x, N, width, ld, first), *y = put_slice(r, NULL, N, width, ld + 16, first);
        float *rstd = rig_put_f32(r, NULL, N * heads);
        p4_head_norm_forward_args args = {.N = N,
                                          .heads = heads,
                                          .D = D,
                                          .eps = (float)k.eps,
                                          .x = at_column(r, d_x, first),
                                          .ld_x = ld,
                                          .gain = d_gain,
                                          .gain_offset = (float)k.offset,
                                          .y = at_column(r, y, first),
                                          .ld_y = ld + 16,
                                          .opt_rstd = rstd};
        r->ops->head_norm_forward(r->device, &args);
        head_loss(&k);
        float *got = get_slice(r, y, N, width, ld + 16, first);
        expect_array("head norm", got, k.y, N * width, 4.0 * r->eps + 2e-6, 0.0);
        args.y = at_column(r, d_x, first);
        args.ld_y = ld;
        args.opt_rstd = NULL;
        r->ops->head_norm_forward(r->device, &args);
        EXPECT(memcmp(got, get_slice(r, d_x, N, width, ld, first), (size_t)(N * width) * 4) == 0,
               "in place gives other bits");
        check_head_backward(r, &k, x, dy, d_gain, rstd, ld, first, true);
        check_head_backward(r, &k, x, dy, d_gain, rstd, ld, first, false);
        rig_clear(r);
    }
}

/* --- scales and offsets ----------------------------------------------------------------------- */

/* A norm with gain + 1 of x + scale delta, and its gradients. */
typedef struct offset_case {
    int64_t N, C;
    double *x, *gain, *weight, *y;
} offset_case;

static double offset_loss(void *context)
{
    offset_case *k = context;
    double loss = 0.0;
    for (int64_t n = 0; n < k->N; n++) {
        double square = 0.0;
        for (int64_t c = 0; c < k->C; c++) {
            square += k->x[n * k->C + c] * k->x[n * k->C + c] / (double)k->C;
        }
        for (int64_t c = 0; c < k->C; c++) {
            int64_t i = n * k->C + c;
            k->y[i] = k->x[i] / sqrt(square + 1e-3) * (k->gain[c] + 1.0);
            loss += k->weight[i] * k->y[i];
        }
    }
    return loss;
}

static void check_offset(rig *r)
{
    static const int64_t shapes[][2] = {{3, 7}, {9, 768}, {2, 8192}};
    for (int s = 0; s < 3; s++) {
        int64_t N = shapes[s][0], C = shapes[s][1];
        const float scale = 0.22f;
        float *x = rig_random_act(r, N * C, 1.0), *delta = rig_random_act(r, N * C, 1.0),
              *gain = rig_random(r, C, 0.3), *dy = rig_random_act(r, N * C, 1.0);
        void *sum = rig_put_act(r, NULL, N * C), *y = rig_put_act(r, NULL, N * C),
             *dx = rig_put_act(r, NULL, N * C);
        float *rstd = rig_put_f32(r, NULL, N), *d_gain = rig_put_f32(r, gain, C), *zeros = rig_host(r, C * 4),
              *dgain = rig_put_f32(r, zeros, C);
        r->ops->add_norm_forward(r->device,
                                 &(p4_add_norm_forward_args){.kind = P4_RMSNORM,
                                                             .N = N,
                                                             .C = C,
                                                             .eps = 1e-3f,
                                                             .x = rig_put_act(r, x, N * C),
                                                             .opt_delta = rig_put_act(r, delta, N * C),
                                                             .delta_scale = scale,
                                                             .gain = d_gain,
                                                             .gain_offset = 1.0f,
                                                             .opt_sum = sum,
                                                             .opt_y = y,
                                                             .opt_rstd = rstd});
        r->ops->norm_backward(r->device, &(p4_norm_backward_args){.kind = P4_RMSNORM,
                                                                  .N = N,
                                                                  .C = C,
                                                                  .dy = rig_put_act(r, dy, N * C),
                                                                  .x = sum,
                                                                  .rstd = rstd,
                                                                  .gain = d_gain,
                                                                  .gain_offset = 1.0f,
                                                                  .dx = dx,
                                                                  .opt_dgain = dgain});
        float *got_sum = rig_get_act(r, sum, N * C);
        double *want_sum = rig_doubles(r, x, N * C);
        for (int64_t i = 0; i < N * C; i++) {
            want_sum[i] += (double)scale * (double)delta[i];
        }
        expect_array("scaled sum", got_sum, want_sum, N * C, 2.0 * r->eps, 0.0);
        offset_case k = {.N = N,
                         .C = C,
                         .x = rig_doubles(r, got_sum, N * C),
                         .gain = rig_doubles(r, gain, C),
                         .weight = rig_doubles(r, dy, N * C),
                         .y = rig_host(r, N * C * 8)};
        offset_loss(&k);
        expect_array("norm with gain + 1", rig_get_act(r, y, N * C), k.y, N * C, 4.0 * r->eps + 2e-6, 0.0);
        double bound = 8.0 * r->eps + 2e-5;
        expect_slopes(r, "its dx", rig_get_act(r, dx, N * C), k.x, N * C, TRIES, offset_loss, &k, bound);
        expect_slopes(r, "its dgain", rig_get_f32(r, dgain, C), k.gain, C, TRIES, offset_loss, &k, bound);
        rig_clear(r);
    }
}

/* Scaled addends: add, with and without the first array, and squared_error. */
static void check_addends(rig *r)
{
    static const int64_t counts[] = {1, 15, 1000, 20001};
    for (int s = 0; s < 4; s++) {
        int64_t count = counts[s];
        const float scale = -0.35f, delta_scale = 0.22f;
        float *a = rig_random_act(r, count, 1.0), *b = rig_random_act(r, count, 1.0);
        void *d_a = rig_put_act(r, a, count), *d_b = rig_put_act(r, b, count),
             *out = rig_put_act(r, NULL, count), *alone = rig_put_act(r, NULL, count),
             *dx = rig_put_act(r, NULL, count);
        double *want = rig_host(r, count * 8), *want_alone = rig_host(r, count * 8),
               *want_dx = rig_host(r, count * 8), zero = 0.0, squares = 0.0;
        double *sum = rig_put(r, &zero, sizeof zero);
        r->ops->add(r->device, out, d_a, d_b, scale, count);
        r->ops->add(r->device, alone, NULL, d_b, scale, count);
        r->ops->squared_error(r->device, &(p4_squared_error_args){.count = count,
                                                                  .x = d_a,
                                                                  .opt_delta = d_b,
                                                                  .delta_scale = delta_scale,
                                                                  .scale = 2.0f,
                                                                  .sum = sum,
                                                                  .opt_dx = dx});
        for (int64_t i = 0; i < count; i++) {
            double e = (double)a[i] + (double)delta_scale * (double)b[i];
            want[i] = (double)a[i] + (double)scale * (double)b[i];
            want_alone[i] = (double)scale * (double)b[i];
            want_dx[i] = 2.0 * e;
            squares += e * e;
        }
        expect_array("add", rig_get_act(r, out, count), want, count, 2.0 * r->eps, 0.0);
        expect_array("add of nothing", rig_get_act(r, alone, count), want_alone, count, 2.0 * r->eps, 0.0);
        expect_array("squared_error's dx", rig_get_act(r, dx, count), want_dx, count, 4.0 * r->eps, 0.0);
        double *got = rig_get(r, sum, sizeof *got);
        EXPECT_NEAR(*got, squares, 1e-5 * squares);
        rig_clear(r);
    }
}

static void check_embedding_scale(rig *r)
{
    enum { B = 2, T = 37, C = 40, V = 9, N = B * T };
    const float scale = sqrtf(1152.0f);
    /* Of activations in bf16 the scale is the one that bf16 holds, as the reference library rounds it. */
    const double applied =
        (double)(r->ops->act_bytes(r->device) == 2 ? p4_bf16_to_f32(p4_f32_to_bf16(scale)) : scale);
    float *token = rig_random(r, V * C, 1.0), *position = rig_random(r, T * C, 1.0),
          *dx = rig_random_act(r, N * C, 1.0), *old = rig_random(r, V * C, 1.0);
    int32_t *ids = rig_ids(r, N, 0, V - 1), *d_ids = rig_put(r, ids, N * 4);
    p4_weight w = {.dtype = P4_F32, .rows = V, .cols = C, .data = rig_put_f32(r, token, V * C)};
    p4_weight p = {.dtype = P4_F32, .rows = T, .cols = C, .data = rig_put_f32(r, position, T * C)};
    void *x = rig_put_act(r, NULL, N * C);
    float *dtoken = rig_put_f32(r, old, V * C);
    r->ops->embed_forward(
        r->device,
        &(p4_embed_forward_args){
            .B = B, .T = T, .C = C, .ids = d_ids, .token = &w, .opt_position = &p, .scale = scale, .x = x});
    r->ops->embed_backward(r->device, &(p4_embed_backward_args){.B = B,
                                                                .T = T,
                                                                .C = C,
                                                                .V = V,
                                                                .ids = d_ids,
                                                                .dx = rig_put_act(r, dx, N * C),
                                                                .scale = scale,
                                                                .dtoken = dtoken});
    double *want = rig_host(r, N * C * 8), *want_token = rig_doubles(r, old, V * C);
    for (int64_t i = 0; i < N * C; i++) {
        int64_t at = ids[i / C] * C + i % C;
        want[i] = applied * (double)token[at] + (double)position[i / C % T * C + i % C];
        want_token[at] += applied * (double)dx[i];
    }
    expect_array("scaled embedding", rig_get_act(r, x, N * C), want, N * C, 2.0 * r->eps, 0.0);
    expect_array("its gradient", rig_get_f32(r, dtoken, V * C), want_token, V * C, 1e-6, 0.0);
    rig_clear(r);
}

/* --- rotary positions of a part of each head, and of neighbors -------------------------------- */

static void check_rope(rig *r)
{
    static const int64_t shapes[][5] = {/* T, heads, all heads, D, R */
                                        {1, 1, 2, 4, 2},
                                        {5, 3, 4, 20, 6},
                                        {7, 2, 5, 64, 32},
                                        {9, 6, 8, 80, 64},
                                        {6, 3, 3, 8, 8}};
    for (int s = 0; s < 2 * 5; s++) {
        const int64_t *shape = shapes[s / 2], T = shape[0], heads = shape[1], D = shape[3], R = shape[4],
                      half = R / 2, N = 2 * T, width = shape[2] * D;
        bool neighbors = s % 2;
        float *x = rig_random_act(r, N * width, 1.0), *cosine = rig_random(r, T * half, 1.0),
              *sine = rig_random(r, T * half, 1.0);
        float *d_cos = rig_put_f32(r, cosine, T * half), *d_sin = rig_put_f32(r, sine, T * half);
        for (int backward = 0; backward < 2; backward++) {
            double *want = rig_doubles(r, x, N * width);
            for (int64_t i = 0; i < N * heads * half; i++) {
                int64_t n = i / (heads * half), head = i / half % heads, k = i % half;
                int64_t a = n * width + head * D + (neighbors ? 2 * k : k), b = a + (neighbors ? 1 : half);
                double c = (double)cosine[n % T * half + k],
                       sn = (double)sine[n % T * half + k] * (backward ? -1.0 : 1.0);
                want[a] = (double)x[a] * c - (double)x[b] * sn;
                want[b] = (double)x[b] * c + (double)x[a] * sn;
            }
            void *qkv = rig_put_act(r, x, N * width);
            r->ops->rope(r->device, &(p4_rope_args){.N = N,
                                                    .T = T,
                                                    .heads = heads,
                                                    .D = D,
                                                    .R = R,
                                                    .neighbors = neighbors,
                                                    .qkv = qkv,
                                                    .row_width = width,
                                                    .cos_table = d_cos,
                                                    .sin_table = d_sin,
                                                    .backward = backward});
            expect_array("partial rope", rig_get_act(r, qkv, N * width), want, N * width, 2.0 * r->eps + 2e-7,
                         0.0);
        }
        rig_clear(r);
    }
}

int main(void)
{
    static const ops_case cases[] = {{"head norm", check_head_norm},
                                     {"gain + 1, scaled delta", check_offset},
                                     {"scaled addends", check_addends},
                                     {"scaled embedding", check_embedding_scale},
                                     {"partial rope", check_rope}};
    return run_cases(cases, sizeof cases / sizeof cases[0]);
}
