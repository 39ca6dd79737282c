/* The layers' elementwise and row ops: embedding, norms, rotary positions, MLP. Gradients against slopes of
 * the double references. */
#include "ops_cases.h"

static const int64_t sizes[][2] = {{1, 1}, {3, 7}, {17, 64}, {50, 129}, {9, 768}, {130, 33}};
enum { SIZES = sizeof sizes / sizeof sizes[0], TRIES = 24 };

/* --- norms ------------------------------------------------------------------------------------ */

typedef struct norm_case {
    p4_norm_kind kind;
    int64_t N, C;
    double eps, *x, *gain, *bias, *weight; /* loss = sum of weight * y */
    double *y;
} norm_case;

static void norm_reference(norm_case *k)
{
    for (int64_t n = 0; n < k->N; n++) {
        const double *x = k->x + n * k->C;
        double mean = 0.0, square = 0.0;
        for (int64_t c = 0; c < k->C && k->kind == P4_LAYERNORM; c++) {
            mean += x[c] / (double)k->C;
        }
        for (int64_t c = 0; c < k->C; c++) {
            square += (x[c] - mean) * (x[c] - mean) / (double)k->C;
        }
        for (int64_t c = 0; c < k->C; c++) {
            k->y[n * k->C + c] =
                (x[c] - mean) / sqrt(square + k->eps) * k->gain[c] + (k->bias ? k->bias[c] : 0.0);
        }
    }
}

static double norm_loss(void *context)
{
    norm_case *k = context;
    norm_reference(k);
    double loss = 0.0;
    for (int64_t i = 0; i < k->N * k->C; i++) {
        loss += k->weight[i] * k->y[i];
    }
    return loss;
}

static void check_norm_backward(rig *r, norm_case *k, const float *dy, const void *sum, const float *mean,
                                const float *rstd, const float *gain, bool accumulate, bool with_sums)
{
    int64_t N = k->N, C = k->C;
    /* dx is added to something small, so that its rounding does not hide the gradient's */
    float *old_dx = rig_random_act(r, N * C, 0.02), *old_gain = rig_random(r, C, 1.0),
          *old_bias = rig_random(r, C, 1.0), *old_sums = rig_random(r, C, 1.0);
    void *dx = rig_put_act(r, accumulate ? old_dx : NULL, N * C);
    float *dgain = rig_put_f32(r, old_gain, C), *dbias = k->bias ? rig_put_f32(r, old_bias, C) : NULL;
    float *sums = with_sums ? rig_put_f32(r, old_sums, C) : NULL;
    r->ops->norm_backward(r->device, &(p4_norm_backward_args){.kind = k->kind,
                                                              .N = N,
                                                              .C = C,
                                                              .dy = rig_put_act(r, dy, N * C),
                                                              .x = sum,
                                                              .opt_mean = mean,
                                                              .rstd = rstd,
                                                              .gain = gain,
                                                              .dx = dx,
                                                              .accumulate = accumulate,
                                                              .opt_dx_sums = sums,
                                                              .opt_dgain = dgain,
                                                              .opt_dbias = dbias});
    float *got = rig_get_act(r, dx, N * C), *got_gain = rig_get_f32(r, dgain, C);
    float *got_bias = dbias ? rig_get_f32(r, dbias, C) : NULL;
    if (sums) {
        double *want = rig_doubles(r, old_sums, C);
        for (int64_t i = 0; i < N * C; i++) {
            want[i % C] += (double)got[i];
        }
        expect_array("norm dx sums", rig_get_f32(r, sums, C), want, C, 2.0 * r->eps + 2e-6, 2.0 * r->eps);
    }
    for (int64_t i = 0; accumulate && i < N * C; i++) {
        got[i] -= old_dx[i];
    }
    for (int64_t c = 0; c < C; c++) {
        got_gain[c] -= old_gain[c];
        if (got_bias) {
            got_bias[c] -= old_bias[c];
        }
    }
    double bound = 8.0 * r->eps + 2e-5;
    expect_slopes(r, "norm dx", got, k->x, N * C, TRIES, norm_loss, k, bound);
    expect_slopes(r, "norm dgain", got_gain, k->gain, C, TRIES, norm_loss, k, bound);
    if (got_bias) {
        expect_slopes(r, "norm dbias", got_bias, k->bias, C, TRIES, norm_loss, k, bound);
    }
}

/* Beside the others, of which some have rows of which a block of a GPU takes several: so many that each block
 * takes more of them. */
static void check_norm(rig *r)
{
    for (int s = 0; s < 2 * (SIZES + 1); s++) {
        int64_t N = s / 2 < SIZES ? sizes[s / 2][0] : 9001, C = s / 2 < SIZES ? sizes[s / 2][1] : 16;
        norm_case k = {.kind = s % 2 ? P4_LAYERNORM : P4_RMSNORM, .N = N, .C = C, .eps = 1e-3};
        float *x = rig_random_act(r, N * C, 1.0), *delta = rig_random_act(r, N * C, 1.0),
              *gain = rig_random(r, C, 1.0);
        float *bias = rig_random(r, C, 1.0), *dy = rig_random_act(r, N * C, 1.0);
        bool with_bias = k.kind == P4_LAYERNORM;
        void *sum = rig_put_act(r, NULL, N * C), *y = rig_put_act(r, NULL, N * C);
        float *mean = with_bias ? rig_put_f32(r, NULL, N) : NULL, *rstd = rig_put_f32(r, NULL, N);
        float *d_gain = rig_put_f32(r, gain, C), *d_bias = with_bias ? rig_put_f32(r, bias, C) : NULL;
        p4_add_norm_forward_args args = {.kind = k.kind,
                                         .N = N,
                                         .C = C,
                                         .eps = (float)k.eps,
                                         .x = rig_put_act(r, x, N * C),
                                         .opt_delta = rig_put_act(r, delta, N * C),
                                         .gain = d_gain,
                                         .opt_bias = d_bias,
                                         .opt_sum = sum,
                                         .opt_y = y,
                                         .opt_mean = mean,
                                         .opt_rstd = rstd};
        r->ops->add_norm_forward(r->device, &args);
        float *got_sum = rig_get_act(r, sum, N * C);
        double *want_sum = rig_doubles(r, x, N * C);
        for (int64_t i = 0; i < N * C; i++) {
            want_sum[i] += (double)delta[i];
        }
        expect_array("add_norm sum", got_sum, want_sum, N * C, 2.0 * r->eps, 0.0);
        k.x = rig_doubles(r, got_sum, N * C); /* the norm is of the stored sum */
        k.gain = rig_doubles(r, gain, C);
        k.bias = with_bias ? rig_doubles(r, bias, C) : NULL;
        k.weight = rig_doubles(r, dy, N * C);
        k.y = rig_host(r, N * C * 8);
        norm_reference(&k);
        float *got = rig_get_act(r, y, N * C);
        expect_array("add_norm y", got, k.y, N * C, 4.0 * r->eps + 2e-6, 0.0);
        void *plain = rig_put_act(r, NULL, N * C); /* without delta the norm reads x; nothing else is kept */
        args.opt_mean = args.opt_rstd = NULL;
        args.opt_delta = args.opt_sum = NULL;
        args.x = sum;
        args.opt_y = plain;
        r->ops->add_norm_forward(r->device, &args);
        expect_array("norm without delta", rig_get_act(r, plain, N * C), k.y, N * C, 4.0 * r->eps + 2e-6,
                     0.0);
        args.x = args.opt_sum = plain; /* the sum may replace x */
        args.opt_delta = sum;
        args.opt_y = y;
        r->ops->add_norm_forward(r->device, &args);
        for (int64_t i = 0; i < N * C; i++) {
            want_sum[i] = k.y[i] + k.x[i];
        }
        expect_array("add_norm in place", rig_get_act(r, plain, N * C), want_sum, N * C, 8.0 * r->eps + 4e-6,
                     2.0 * r->eps); /* of what may cancel */
        check_norm_backward(r, &k, dy, sum, mean, rstd, d_gain, true, with_bias);
        check_norm_backward(r, &k, dy, sum, mean, rstd, d_gain, false, s % 4 < 2);
        rig_clear(r);
    }
}

/* --- embedding -------------------------------------------------------------------------------- */

static void check_embed(rig *r)
{
    for (int s = 0; s < SIZES; s++) {
        int64_t B = 2, T = sizes[s][0], C = sizes[s][1], V = 11, N = B * T;
        bool positions = s % 2 == 0;
        float *token = rig_random(r, V * C, 1.0), *position = rig_random(r, T * C, 1.0);
        float *dx = rig_random_act(r, N * C, 1.0), *old = rig_random(r, V * C, 1.0);
        int32_t *ids = rig_ids(r, N, 0, V - 1);
        int32_t *d_ids = rig_put(r, ids, N * 4);
        p4_weight w = {.dtype = P4_F32, .rows = V, .cols = C, .data = rig_put_f32(r, token, V * C)};
        p4_weight p = {.dtype = P4_F32, .rows = T, .cols = C, .data = rig_put_f32(r, position, T * C)};
        void *x = rig_put_act(r, NULL, N * C);
        r->ops->embed_forward(r->device, &(p4_embed_forward_args){.B = B,
                                                                  .T = T,
                                                                  .C = C,
                                                                  .ids = d_ids,
                                                                  .token = &w,
                                                                  .opt_position = positions ? &p : NULL,
                                                                  .x = x});
        double *want = rig_host(r, N * C * 8), *want_token = rig_doubles(r, old, V * C);
        double *want_position = rig_host(r, T * C * 8);
        for (int64_t i = 0; i < N * C; i++) {
            int64_t at = ids[i / C] * C + i % C, t = i / C % T;
            want[i] = (double)token[at] + (positions ? (double)position[t * C + i % C] : 0.0);
            want_token[at] += (double)dx[i];
            want_position[t * C + i % C] += (double)dx[i];
        }
        expect_array("embed_forward", rig_get_act(r, x, N * C), want, N * C, 2.0 * r->eps, 0.0);
        float *dtoken = rig_put_f32(r, old, V * C), *dposition = rig_device(r, T * C * 4);
        r->ops->zero(r->device, dposition, T * C * 4);
        r->ops->embed_backward(r->device,
                               &(p4_embed_backward_args){.B = B,
                                                         .T = T,
                                                         .C = C,
                                                         .V = V,
                                                         .ids = d_ids,
                                                         .dx = rig_put_act(r, dx, N * C),
                                                         .dtoken = dtoken,
                                                         .opt_dposition = positions ? dposition : NULL});
        expect_array("embed_backward token", rig_get_f32(r, dtoken, V * C), want_token, V * C, 1e-5, 0.0);
        if (positions) {
            expect_array("embed_backward position", rig_get_f32(r, dposition, T * C), want_position, T * C,
                         1e-6, 0.0);
        }
        rig_clear(r);
    }
}

/* Token tables in the other forms: half precision and ternary, transposed. */
static void check_embed_forms(rig *r)
{
    int64_t V = 13, C = 69, N = 31;
    float *token = rig_random(r, V * C, 1.0);
    int32_t *ids = rig_ids(r, N, 0, V - 1);
    for (int form = 0; form < 5; form++) {
        bool transposed = form >= 3;
        p4_dtype dtype = form % 3 == 0 ? P4_F16 : form % 3 == 1 ? P4_BF16 : P4_TERNARY;
        uint16_t *halves = rig_host(r, V * C * 2), *scale = rig_host(r, V * 2);
        uint8_t *codes = rig_host(r, V * p4_code_row_bytes(C));
        double *want = rig_host(r, N * C * 8);
        for (int64_t i = 0; i < V * C; i++) {
            int64_t v = i / C, c = i % C, at = transposed ? c * V + v : i;
            halves[at] = dtype == P4_F16 ? p4_f32_to_f16(token[i]) : p4_f32_to_bf16(token[i]);
            int code = token[i] > 0.5f ? 2 : token[i] < -0.5f ? 0 : 1;
            codes[v * p4_code_row_bytes(C) + c / 4] |= (uint8_t)(code << 2 * (c % 4));
            scale[v] = p4_f32_to_f16(0.5f + 0.125f * (float)v);
            float value = dtype == P4_F16 ? p4_f16_to_f32(halves[at]) : p4_bf16_to_f32(halves[at]);
            value = dtype == P4_TERNARY ? (float)(code - 1) * p4_f16_to_f32(scale[v]) : value;
            for (int64_t n = 0; n < N; n++) {
                want[n * C + c] = ids[n] == v ? (double)value : want[n * C + c];
            }
        }
        p4_weight w = {.dtype = dtype,
                       .transposed = transposed,
                       .rows = V,
                       .cols = C,
                       .data = dtype == P4_TERNARY ? rig_put(r, codes, V * p4_code_row_bytes(C))
                                                   : rig_put(r, halves, V * C * 2),
                       .scale = rig_put(r, scale, V * 2)};
        void *x = rig_put_act(r, NULL, N * C);
        r->ops->embed_forward(
            r->device, &(p4_embed_forward_args){
                           .B = 1, .T = N, .C = C, .ids = rig_put(r, ids, N * 4), .token = &w, .x = x});
        expect_array("embed_forward", rig_get_act(r, x, N * C), want, N * C, 2.0 * r->eps, 0.0);
    }
    rig_clear(r);
}

/* --- rotary positions ------------------------------------------------------------------------- */

static void check_rope(rig *r)
{
    static const int64_t shapes[][4] = {{1, 1, 2, 2}, {5, 3, 4, 8}, {7, 2, 5, 64}, {20, 6, 9, 34}};
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
        int64_t T = shapes[s][0], heads = shapes[s][1], all = shapes[s][2], D = shapes[s][3], N = 3 * T,
                half = D / 2;
        int64_t width = all * D;
        float *x = rig_random_act(r, N * width, 1.0);
        float *cosine = rig_host(r, T * half * 4), *sine = rig_host(r, T * half * 4);
        for (int64_t i = 0; i < T * half; i++) {
            double angle = 6.0 * p4_rng_uniform(&r->rng);
            cosine[i] = (float)cos(angle);
            sine[i] = (float)sin(angle);
        }
        double *want = rig_doubles(r, x, N * width), *back = rig_doubles(r, x, N * width);
        for (int64_t n = 0; n < N; n++) {
            for (int64_t i = 0; i < heads * half; i++) {
                int64_t a = n * width + i / half * D + i % half, b = a + half, at = n % T * half + i % half;
                double c = (double)cosine[at], sn = (double)sine[at], xa = (double)x[a], xb = (double)x[b];
                want[a] = xa * c - xb * sn;
                want[b] = xb * c + xa * sn;
                back[a] = xa * c + xb * sn;
                back[b] = xb * c - xa * sn;
            }
        }
        float *d_cos = rig_put_f32(r, cosine, T * half), *d_sin = rig_put_f32(r, sine, T * half);
        for (int backward = 0; backward < 2; backward++) {
            void *qkv = rig_put_act(r, x, N * width);
            r->ops->rope(r->device, &(p4_rope_args){.N = N,
                                                    .T = T,
                                                    .heads = heads,
                                                    .D = D,
                                                    .qkv = qkv,
                                                    .row_width = width,
                                                    .cos_table = d_cos,
                                                    .sin_table = d_sin,
                                                    .backward = backward});
            expect_array(backward ? "rope backward" : "rope", rig_get_act(r, qkv, N * width),
                         backward ? back : want, N * width, 2.0 * r->eps + 1e-7, 0.0);
        }
        rig_clear(r);
    }
}

/* --- MLP -------------------------------------------------------------------------------------- */

static double silu(double x)
{
    return x / (1.0 + exp(-x));
}

static double gelu(double x)
{
    return 0.5 * x * (1.0 + tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)));
}

static void check_swiglu(rig *r)
{
    for (int s = 0; s < SIZES; s++) {
        int64_t N = sizes[s][0], F = sizes[s][1];
        float *x = rig_random_act(r, N * 2 * F, 3.0);
        x[0] = -120.0f; /* exp overflows: silu is -0 */
        x[N * 2 * F - 2 * F] = s % 2 ? 100.0f : x[N * 2 * F - 2 * F];
        void *h = rig_put_act(r, NULL, N * F);
        r->ops->activate(r->device, h, NULL, rig_put_act(r, x, N * 2 * F), P4_SILU, true, N, F);
        double *want = rig_host(r, N * F * 8);
        for (int64_t i = 0; i < N * F; i++) {
            int64_t at = i / F * 2 * F + i % F;
            want[i] = silu((double)x[at]) * (double)x[at + F];
        }
        expect_array("SwiGLU", rig_get_act(r, h, N * F), want, N * F, 2.0 * r->eps + 5e-7, 1e-30);
        rig_clear(r);
    }
}

static void check_gelu(rig *r)
{
    static const int64_t counts[] = {1, 15, 17, 1000, 20001};
    for (size_t s = 0; s < sizeof counts / sizeof counts[0]; s++) {
        int64_t count = counts[s];
        float *x = rig_random_act(r, count, 2.0), *more = rig_random_act(r, count, 1.0);
        x[0] = s % 2 ? 60.0f : -60.0f;
        void *d_x = rig_put_act(r, x, count), *h = rig_put_act(r, NULL, count),
             *sum = rig_put_act(r, NULL, count);
        r->ops->activate(r->device, h, NULL, d_x, P4_GELU_TANH, false, 1, count);
        r->ops->add(r->device, sum, d_x, rig_put_act(r, more, count), 1.0f, count);
        double *want = rig_host(r, count * 8), *want_sum = rig_host(r, count * 8);
        for (int64_t i = 0; i < count; i++) {
            want[i] = gelu((double)x[i]);
            want_sum[i] = (double)x[i] + (double)more[i];
        }
        expect_array("GELU", rig_get_act(r, h, count), want, count, 2.0 * r->eps + 5e-7, 1e-30);
        expect_array("add", rig_get_act(r, sum, count), want_sum, count, 2.0 * r->eps, 0.0);
        rig_clear(r);
    }
}

static void check_device(rig *r)
{
    p4_device_identity identity;
    EXPECT(strlen(r->ops->describe(r->device)) > 3, "an empty description");
    r->ops->identify(r->device, &identity);
    EXPECT(identity.name[0] != '\0' && strchr(identity.name, '\n') == NULL, "the device's name is \"%s\"",
           identity.name);
    EXPECT(strstr(identity.blas, "BLAS") != NULL && strpbrk(identity.blas, "123456789") != NULL,
           "the BLAS library is \"%s\"", identity.blas);
    EXPECT((identity.cuda[0] == '\0') == r->ops->host_memory, "CUDA is \"%s\"", identity.cuda);
    float *x = rig_random(r, 1000, 1.0), *from = rig_put_f32(r, x, 1000), *to = rig_put_f32(r, NULL, 1000);
    EXPECT(((uintptr_t)from & 63) == 0, "memory is not aligned to 64 bytes");
    r->ops->copy(r->device, to, from, 4000);
    r->ops->zero(r->device, to, 40);
    float *got = rig_get_f32(r, to, 1000);
    EXPECT(memcmp(got + 10, x + 10, 3960) == 0, "copy changed bytes");
    EXPECT(got[0] == 0.0f && got[9] == 0.0f, "zero did not");
    void *memory = NULL; /* the peak stays when memory goes, and what fits below it does not move it */
    int64_t before = r->ops->peak_bytes(r->device);
    EXPECT_OK(r->ops->alloc(r->device, &memory, before + 1000));
    int64_t peak = r->ops->peak_bytes(r->device);
    EXPECT(peak > before && peak <= 2 * before + 1000, "a peak of %lld bytes after %lld", (long long)peak,
           (long long)before);
    r->ops->release(r->device, memory);
    EXPECT_OK(r->ops->alloc(r->device, &memory, 1000));
    r->ops->release(r->device, memory);
    EXPECT(r->ops->peak_bytes(r->device) == peak, "the peak moved from %lld to %lld", (long long)peak,
           (long long)r->ops->peak_bytes(r->device));
    int64_t room = r->ops->room_bytes(r->device);
    EXPECT(r->ops->host_memory ? room == 0 : room > 0, "room for %lld bytes", (long long)room);
    EXPECT_OK(r->ops->alloc(r->device, &memory, 1000));
    EXPECT(r->ops->host_memory || r->ops->room_bytes(r->device) == room - 1000, "1000 bytes take no room");
    r->ops->release(r->device, memory);
    EXPECT(r->ops->room_bytes(r->device) == room, "what is released makes no room");
    p4_device *other = NULL;
    EXPECT_REFUSED(r->ops->open(&other, 1000, 1, false), "device 1000");
    EXPECT(p4_ops_find("abacus") == NULL, "found a backend that does not exist");
    rig_clear(r);
}

int main(void)
{
    static const ops_case cases[] = {
        {"device", check_device},           {"norm", check_norm}, {"embed", check_embed},
        {"embed forms", check_embed_forms}, {"rope", check_rope}, {"swiglu", check_swiglu},
        {"gelu, add", check_gelu},
    };
    return run_cases(cases, sizeof cases / sizeof cases[0]);
}
