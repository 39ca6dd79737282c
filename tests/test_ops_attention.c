/* Self-attention: grouped heads, windows, ragged lengths; gradients against slopes of the double reference.
 * On a GPU with bf16 activations each of the implementations that P4_ATTENTION names is opened and checked on
 * its own. */
#include "ops_cases.h"

enum { LONGEST = 2048 };

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

/* One query of one head. */
static void reference_row(attention_case *k, int64_t batch, int64_t head, int64_t i)
{
    const p4_attention_shape *s = &k->shape;
    int64_t width = row_width(s), kv = head / (s->H / s->Hkv), D = s->D;
    const double *rows = k->qkv + batch * s->T * width, *q = rows + i * width + head * D;
    int64_t first = s->window > 0 ? p4_max_i64(0, i - s->window + 1) : 0;
    double scores[LONGEST], largest = -INFINITY, sum = 0.0;
    for (int64_t j = first; j <= i; j++) {
        scores[j] = dot(q, rows + j * width + (s->H + kv) * D, D) * (double)s->scale;
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

/* The analytic gradient in double, for shapes too large for slopes; itself checked by slopes on the small
 * ones. */
static void reference_gradient(const attention_case *k, double *dqkv)
{
    const p4_attention_shape *s = &k->shape;
    int64_t width = row_width(s), D = s->D, H = s->H;
    for (int64_t at = 0; at < s->B * H * s->T; at++) {
        int64_t batch = at / (H * s->T), head = at / s->T % H, i = at % s->T, kv = head / (H / s->Hkv);
        int64_t base = batch * s->T * width, first = s->window > 0 ? p4_max_i64(0, i - s->window + 1) : 0;
        int64_t query = base + i * width + head * D;
        const double *q = k->qkv + query, *dout = k->weight + (batch * s->T + i) * H * D + head * D;
        double delta = dot(dout, k->out + (dout - k->weight), D);
        for (int64_t j = first; j <= i; j++) {
            int64_t key = base + j * width + (H + kv) * D, value = key + s->Hkv * D;
            double score = dot(q, k->qkv + key, D), dp = dot(dout, k->qkv + value, D);
            double p = exp(score * (double)s->scale - k->lse[at]), ds = p * (dp - delta) * (double)s->scale;
            add_scaled(dqkv + query, ds, k->qkv + key, D);
            add_scaled(dqkv + key, ds, q, D);
            add_scaled(dqkv + value, p, dout, D);
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

/* dQ, dK and dV each on its own, as a part that is lost may be small beside the others: element by element,
 * and in the mean. Where a query sees its own key alone, dQ and dK are 0, and what is there is the rounding
 * of `out`. */
static void expect_gradients(const rig *r, const p4_attention_shape *s, const float *got, const double *want,
                             double size)
{
    int64_t N = s->B * s->T, width = row_width(s);
    double bound = 3.0 * r->eps + 1e-6 * fmax(4.0, size * size);
    const struct {
        const char *name;
        int64_t from, to; /* columns */
    } parts[] = {{"attention dQ", 0, s->H * s->D},
                 {"attention dK", s->H * s->D, (s->H + s->Hkv) * s->D},
                 {"attention dV", (s->H + s->Hkv) * s->D, width}};
    double all = 0.0;
    for (int64_t i = 0; i < N * width; i++) {
        all += want[i] * want[i];
    }
    for (int p = 0; p < 3; p++) {
        double error = 0.0, sum = 0.0, worst = 0.0, largest = 0.0;
        for (int64_t i = 0; i < N * width; i++) {
            if (i % width >= parts[p].from && i % width < parts[p].to) {
                double off = (double)got[i] - want[i];
                error += off * off;
                sum += want[i] * want[i];
                worst = fmax(worst, fabs(off));
                largest = fmax(largest, fabs(want[i]));
            }
        }
        bool alone = p < 2 && (s->T == 1 || s->window == 1);
        double noise = alone ? (2.0 * r->eps + 1e-6) * sqrt(all) : 0.0;
        EXPECT(alone || worst <= 2.0 * bound * largest, "%s: off by %.3g, bound %.3g of %.3g", parts[p].name,
               worst, 2.0 * bound, largest);
        EXPECT(sqrt(error) <= bound * sqrt(sum) + noise, "%s: relative error %.3g, bound %.3g", parts[p].name,
               sqrt(error / sum), bound);
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
    double *want_d = rig_host(r, N * width * 8);
    attention_loss(&k);
    reference_gradient(&k, want_d);
    double bound =
        8.0 * r->eps + 4e-6 * fmax(1.0, size * size / 4.0); /* a score's rounding error is relative to it */
    float *got = rig_get_act(r, out, N * out_width), *got_d = rig_get_act(r, dqkv, N * width);
    expect_array("attention out", got, k.out, N * out_width, bound, 0.0);
    EXPECT(memcmp(got, rig_get_act(r, no_lse, N * out_width), (size_t)(N * out_width) * 4) == 0,
           "lse changes out");
    expect_array("attention lse", rig_get_f32(r, lse, rows), k.lse, rows, bound, bound);
    expect_array("attention gradient", got_d, want_d, N * width, 4.0 * bound, 4.0 * bound);
    expect_norm("attention out", got, k.out, N * out_width, 4.0 * bound);
    expect_norm("attention gradient", got_d, want_d, N * width, 4.0 * bound);
    expect_gradients(r, shape, got_d, want_d, size);
    if (slopes) {
        expect_slopes(r, "attention slopes", got_d, k.qkv, N * width, 40, attention_loss, &k,
                      4.0 * bound + 2e-5);
    }
    rig_clear(r);
}

static void check_small(rig *r)
{
    static const p4_attention_shape shapes[] = {
        {2, 5, 2, 1, 3, 0, 0.5f, 0}, {1, 17, 6, 2, 4, 5, 0.5f, 0}, {1, 1, 1, 1, 2, 0, 0.7f, 0},
        {3, 9, 4, 4, 5, 1, 0.4f, 0}, {1, 33, 3, 3, 8, 7, 0.3f, 0}, {2, 12, 4, 2, 16, 100, 0.25f, 0},
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
        {1, 129, 2, 2, 16, 40, 0.25f, 0}, {1, 257, 1, 1, 64, 128, 0.125f, 0}, {1, 127, 2, 1, 16, 0, 0.25f, 0},
        {1, 300, 4, 2, 20, 0, 0.22f, 0},  {1, 300, 2, 1, 16, 150, 0.25f, 0},  {2, 128, 1, 1, 8, 0, 0.35f, 0},
        {1, 520, 2, 1, 64, 0, 0.125f, 0},
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
        {1, 140, 4, 2, 256, 0, 0.06f, 0},
    };
    if (strstr(r->ops->describe(r->device), "emulator")) {
        return; /* minutes there */
    }
    for (int s = 0; s < shapes_to_run(sizeof shapes / sizeof shapes[0], 3); s++) {
        check_shape(r, &shapes[s], 1.0, false);
    }
}

/* Lengths of real training, by the kernels of shorter ones; and so many heads that blocks take several units,
 * more than are taken together (kernels/sm90/attention_backward_64.cuh). */
static void check_longest(rig *r)
{
    static const p4_attention_shape shapes[] = {
        {32, 130, 8, 2, 64, 0, 0.125f, 0},   {48, 130, 9, 3, 64, 100, 0.125f, 0},
        {2, 1024, 2, 2, 64, 0, 0.125f, 0},   {1, LONGEST, 2, 1, 64, 0, 0.125f, 0},
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
