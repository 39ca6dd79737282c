/* Speed of linear_forward_int8 on the projections of Llama 1.1B (16,384 tokens), beside linear_forward of the
 * unpacked weight: bench_int8 [backend [tokens]]     P4_INT8=cublas or simple: the other ways of the CUDA
 * column The whole op: rounding the activations, decoding the weight, the product. The best of several
 * rounds, each of CALLS calls. */
#include "ops_cases.h"

enum { ROUNDS = 7, CALLS = 10, PATTERN = 1 << 20 };

typedef struct projection {
    const char *name;
    int64_t in, out;
} projection;

/* bytes on the device: a random pattern, again and again. */
static void *fill(rig *r, int64_t bytes, const void *pattern, int64_t pattern_bytes)
{
    char *to = rig_device(r, bytes);
    for (int64_t at = 0; at < bytes; at += pattern_bytes) {
        r->ops->to_device(r->device, to + at, pattern, p4_min_i64(pattern_bytes, bytes - at));
    }
    return to;
}

static void *random_act(rig *r, int64_t count)
{
    float *values = rig_random(r, PATTERN, 1.0);
    void *to = rig_device(r, count * r->ops->act_bytes(r->device)), *f32 = rig_put_f32(r, values, PATTERN);
    for (int64_t at = 0; at < count; at += PATTERN) {
        r->ops->f32_to_act(r->device, (char *)to + at * r->ops->act_bytes(r->device), f32,
                           p4_min_i64(PATTERN, count - at));
    }
    return to;
}

static void measure(rig *r, const projection *p, int64_t N)
{
    const p4_ops *ops = r->ops;
    int64_t act = ops->act_bytes(r->device), width = p4_int8_width(p->in);
    uint8_t *codes = rig_host(r, PATTERN);
    uint16_t *scale = rig_host(r, p->out * 2);
    for (int64_t i = 0; i < PATTERN; i++) {
        for (int k = 0; k < 4; k++) {
            codes[i] = (uint8_t)(codes[i] | rig_integer(r, 0, 2) << 2 * k);
        }
    }
    for (int64_t i = 0; i < p->out; i++) {
        scale[i] = p4_f32_to_f16(0.01f + 0.01f * (float)(i % 7));
    }
    p4_weight weight = {.dtype = P4_TERNARY, .rows = p->out, .cols = p->in};
    weight.data = fill(r, p->out * p4_code_row_bytes(p->in), codes, PATTERN);
    weight.scale = rig_put(r, scale, p->out * 2);
    void *x = random_act(r, N * p->in), *y = rig_device(r, N * p->out * act);
    void *x_work = rig_device(r, N * width * act), *w_work = rig_device(r, p->out * width * act);
    double best[2] = {1e30, 1e30};
    for (int round = 0; round < 2 * ROUNDS; round++) {
        double start = p4_now_s();
        for (int call = 0; call < CALLS; call++) {
            if (round % 2 == 0) {
                ops->linear_forward_int8(r->device, y, x, &weight, 1, NULL, x_work, w_work, N, p->in, p->out);
            } else {
                ops->weight_unpack(r->device, w_work, &weight);
                ops->linear_forward(r->device, y, x, w_work, NULL, N, p->in, p->out);
            }
        }
        EXPECT_OK(ops->sync(r->device));
        best[round % 2] = fmin(best[round % 2], (p4_now_s() - start) / CALLS);
    }
    double work = 2e-12 * (double)N * (double)p->in * (double)p->out;
    printf(
        "%-5s %6lld x %5lld -> %5lld   int8 %9.1f us %7.1f TOP/s   unpacked %9.1f us %7.1f TFLOP/s   %.2fx\n",
        p->name, (long long)N, (long long)p->in, (long long)p->out, best[0] * 1e6, work / best[0],
        best[1] * 1e6, work / best[1], best[1] / best[0]);
    rig_clear(r);
}

int main(int argc, char **argv)
{
    static const projection llama[] = {
        {"qkv", 2048, 2560}, {"o", 2048, 2048}, {"up", 2048, 11264}, {"down", 5632, 2048}};
    static rig r;
    const p4_ops *ops = p4_ops_find(argc > 1 ? argv[1] : "cuda");
    int64_t N = argc > 2 ? strtoll(argv[2], NULL, 10) : 16384;
    if (!ops || N < 1 || rig_open_as(&r, ops, 0, true, 1) != P4_OK) {
        fprintf(stderr, "bench_int8 [backend [tokens]]: %s\n",
                ops ? p4_last_error() : "no such backend in this build");
        return 2;
    }
    printf("%s\n", ops->describe(r.device));
    for (size_t i = 0; i < sizeof llama / sizeof llama[0]; i++) {
        measure(&r, &llama[i], N);
    }
    rig_close(&r);
    return TEST_END();
}
