/* Speed of the ops on the shapes of docs-llama-8M (C 256, F 768, H 4, Hkv 2, D 64, V 8192, 4 x 512 tokens)
 * and of quantize on [4096, 4096]: usage bench_ops [backend [threads]]. The best of several runs; GF/s and
 * GB/s of the data that must move at least, by the clock. The processor time of all threads beside it shows
 * what a busy machine hides. */
#include "ops_cases.h"

enum { B = 4, T = 512, N = B * T, C = 256, F = 768, H = 4, HKV = 2, D = 64, V = 8192, Q = 4096 };
static const p4_attention_shape attention = {B, T, H, HKV, D, 0, 0.125f};
enum { WIDTH = (H + 2 * HKV) * D };

/* Every array is as large as the largest use: a, b, c of [N, V] or [Q, Q] fp32. */
typedef struct bench {
    rig r;
    void *a, *b, *c, *d;
    float *w, *small, *work, *importance;
    double *sums;
    uint8_t *codes, *packed;
    uint16_t *scale;
    int32_t *ids;
    p4_weight matrix, ternary;
} bench;

typedef struct bench_line {
    const char *name;
    void (*run)(bench *x);
    double flop, bytes; /* one call */
} bench_line;

#define OP(name, ...)                                                                                        \
    static void run_##name(bench *x)                                                                         \
    {                                                                                                        \
        const p4_ops *ops = x->r.ops;                                                                        \
        p4_device *device = x->r.device;                                                                     \
        __VA_ARGS__;                                                                                         \
    }

OP(forward_qkv, ops->linear_forward(device, x->c, x->a, x->w, NULL, N, C, WIDTH))
OP(forward_up, ops->linear_forward(device, x->c, x->a, x->w, NULL, N, C, 2 * F))
OP(forward_down, ops->linear_forward(device, x->c, x->a, x->w, NULL, N, F, C))
OP(forward_head, ops->linear_forward(device, x->c, x->a, x->w, NULL, N, C, V))
OP(backward_input_up, ops->linear_backward_input(device, x->c, x->a, x->w, N, C, 2 * F, false))
OP(backward_input_down, ops->linear_backward_input(device, x->c, x->a, x->w, N, F, C, false))
OP(backward_input_head, ops->linear_backward_input(device, x->c, x->a, x->w, N, C, V, false))
OP(backward_weight_qkv, ops->linear_backward_weight(device, x->small, x->a, WIDTH, x->b, N, C, WIDTH, true))
OP(backward_weight_up, ops->linear_backward_weight(device, x->small, x->a, 2 * F, x->b, N, C, 2 * F, true))
OP(backward_weight_down, ops->linear_backward_weight(device, x->small, x->a, C, x->b, N, F, C, true))
OP(backward_weight_head, ops->linear_backward_weight(device, x->small, x->a, V, x->b, N, C, V, true))
OP(attention_forward, ops->attention_forward(device, x->c, x->small, x->a, &attention, x->work))
OP(attention_backward, ops->attention_backward(device, x->b, x->d, x->c, x->small, x->a, &attention, x->work))
OP(cross_entropy, ops->cross_entropy(device, x->small, x->small + N, x->c, x->a, x->ids, N, V, 1e-3f))
OP(cross_entropy_nll, ops->cross_entropy(device, x->small, NULL, NULL, x->a, x->ids, N, V, 1e-3f))
OP(kl_divergence, ops->kl_divergence(device, x->small, x->a, x->b, x->ids, N, V))
OP(add_norm,
   ops->add_norm_forward(device, P4_RMSNORM, x->c, x->d, NULL, x->small, x->a, x->b, x->w, NULL, N, C, 1e-5f))
OP(norm_backward,
   ops->norm_backward(device, P4_RMSNORM, x->c, x->small + N, NULL, x->a, x->b, NULL, x->small, x->w, N, C))
OP(swiglu_forward, ops->swiglu_forward(device, x->c, x->a, N, F))
OP(swiglu_backward, ops->swiglu_backward(device, x->c, x->b, x->a, N, F))
OP(gelu_forward, ops->gelu_forward(device, x->c, x->a, N *F))
OP(gelu_backward, ops->gelu_backward(device, x->c, x->b, x->a, N *F))
OP(rope, ops->rope(device, x->c, x->w, x->w, N, T, H + HKV, D, WIDTH, false))
OP(embed_forward, ops->embed_forward(device, x->c, x->ids, &x->matrix, NULL, B, T, C))
OP(embed_backward, ops->embed_backward(device, x->small, NULL, x->ids, x->a, B, T, C, V))
OP(fake_int8, ops->fake_quantize_int8(device, x->c, x->a, N, F))
OP(channel_sum_sq, ops->channel_sum_sq(device, x->sums, x->a, N, F))
OP(moments, ops->moments(device, (p4_moments *)(void *)x->sums, x->a, N, F, F))
OP(forward_int8_up,
   ops->linear_forward_int8(device, x->c, x->a, &x->ternary, 1, NULL, x->b, x->d, N, C, x->ternary.rows))
OP(unpack_ternary, ops->weight_unpack(device, x->c, &x->ternary))
OP(add_sq_norm, ops->add_sq_norm(device, x->sums, x->a, (int64_t)V *C))
OP(grokfast, ops->grokfast(device, x->a, x->b, 0.98f, 0.1f, false, (int64_t)V *C))
OP(adamw, ops->adamw(device, x->c, x->a, x->d, x->b, 1.0f, 1e-9f, 0.9f, 0.95f, 1e-8f, 0.0f, 3, (int64_t)V *C))
OP(muon_up, ops->muon(device, x->c, x->d, x->b, 1.0f, 1e-9f, 0.95f, 0.0f, F, C, x->work))
OP(muon_q, ops->muon(device, x->c, x->d, x->b, 1.0f, 1e-9f, 0.95f, 0.0f, C, C, x->work))
OP(muon_large, ops->muon(device, x->c, x->d, x->b, 1.0f, 1e-9f, 0.95f, 0.0f, 1024, 2048, x->work))
OP(quantize_absmean,
   ops->quantize(device, x->codes, x->scale, NULL, &x->matrix, P4_QUANT_ABSMEAN, 0.1f, NULL))
OP(quantize_absmean_report, p4_quant_error e;
   ops->quantize(device, x->codes, x->scale, &e, &x->matrix, P4_QUANT_ABSMEAN, 0.1f, NULL))
OP(quantize_exact, ops->quantize(device, x->codes, x->scale, NULL, &x->matrix, P4_QUANT_EXACT, 0.0f, NULL))
OP(quantize_exact_report, p4_quant_error e;
   ops->quantize(device, x->codes, x->scale, &e, &x->matrix, P4_QUANT_EXACT, 0.0f, NULL))
OP(quantize_exact_weighted,
   ops->quantize(device, x->codes, x->scale, NULL, &x->matrix, P4_QUANT_EXACT, 0.0f, x->importance))
OP(pack_base3, ops->pack_base3(device, x->packed, x->codes, Q, Q))
OP(unpack_base3, ops->unpack_base3(device, x->codes, x->packed, Q, Q))
OP(copy, ops->copy(device, x->c, x->matrix.data, (int64_t)Q *Q * 4))

#define LINE(name, flop, bytes)                                                                              \
    {                                                                                                        \
#name, run_##name, flop, bytes                                                                       \
    }
#define PRODUCT(in, out) (2.0 * N * (in) * (out))
#define ROWS(width) (4.0 * N * (width))
static const double weights = (double)V * C * 4.0, large = (double)Q * Q * 4.0;
#define SCORES (2.0 * B * H * D * T * (T + 1.0) / 2.0) /* one product of the visible scores */
#define MUON(m, n) (5.0 * (4.0 * (m) * (m) * (n) + 2.0 * (m) * (m) * (m)))

static double processor_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void measure(bench *x, const bench_line *line)
{
    double best = 1e30, best_cpu = 1e30, spent = 0.0;
    for (int run = 0; run < 200 && (run < 3 || spent < 0.4); run++) {
        double start = p4_now_s(), start_cpu = processor_s();
        line->run(x);
        EXPECT_OK(x->r.ops->sync(x->r.device));
        double taken = p4_now_s() - start;
        best = fmin(best, taken);
        best_cpu = fmin(best_cpu, processor_s() - start_cpu);
        spent += taken;
    }
    printf("%-26s %9.3f ms %9.3f cpu-ms", line->name, 1e3 * best, 1e3 * best_cpu);
    if (line->flop > 0.0) {
        printf(" %8.1f GF/s", 1e-9 * line->flop / best);
    }
    if (line->bytes > 0.0) {
        printf(" %8.2f GB/s", 1e-9 * line->bytes / best);
    }
    printf("\n");
}

static void prepare(bench *x)
{
    rig *r = &x->r;
    int64_t count = p4_max_i64((int64_t)N * V, (int64_t)Q * Q);
    float *values = rig_host(r, count * 4), *ones = rig_host(r, count * 4);
    for (int64_t i = 0; i < count;
         i++) { /* a sum of uniform numbers is near enough to a Gaussian, and quick */
        uint64_t bits = (uint64_t)(i + 1) * 0x9e3779b97f4a7c15u;
        bits = (bits ^ bits >> 29) * 0xbf58476d1ce4e5b9u;
        bits ^= bits >> 32;
        int64_t sum = (int64_t)(bits & 0xffff) + (int64_t)(bits >> 16 & 0xffff) +
                      (int64_t)(bits >> 32 & 0xffff) + (int64_t)(bits >> 48) - 131070;
        values[i] = (float)sum * 3e-5f;
        ones[i] = 1.0f + 1e-3f * fabsf(values[i]);
    }
    x->a = rig_put_act(r, values, count);
    x->b = rig_put_act(r, values, count);
    x->c = rig_put_act(r, values, count);
    x->d = rig_put_act(r, ones, count);
    x->w = rig_put_f32(r, values, (int64_t)V * C);
    x->small = rig_put_f32(r, ones, (int64_t)V * C);
    x->importance = rig_put_f32(r, ones, Q);
    int64_t work = p4_max_i64(r->ops->attention_work_count(r->device, &attention, true),
                              r->ops->muon_work_count(1024, 2048));
    x->work = rig_put_f32(r, NULL, work);
    x->sums = rig_device(r, F * 8);
    r->ops->zero(r->device, x->sums, F * 8);
    x->codes = rig_device(r, (int64_t)Q * Q / 4);
    x->packed = rig_device(r, (int64_t)Q * (Q + 4) / 5);
    x->scale = rig_device(r, Q * 2);
    x->ids = rig_put(r, rig_ids(r, N, 0, V - 1), N * 4);
    x->matrix =
        (p4_weight){.dtype = P4_F32, .rows = Q, .cols = Q, .data = rig_put_f32(r, values, (int64_t)Q * Q)};
    run_quantize_absmean(x);
    x->ternary =
        (p4_weight){.dtype = P4_TERNARY, .rows = 2 * F, .cols = C, .data = x->codes, .scale = x->scale};
}

int main(int argc, char **argv)
{
    static bench x;
    const bench_line lines[] = {
        LINE(forward_qkv, PRODUCT(C, WIDTH), 0.0),
        LINE(forward_up, PRODUCT(C, 2 * F), 0.0),
        LINE(forward_down, PRODUCT(F, C), 0.0),
        LINE(forward_head, PRODUCT(C, V), 0.0),
        LINE(backward_input_up, PRODUCT(C, 2 * F), 0.0),
        LINE(backward_input_down, PRODUCT(F, C), 0.0),
        LINE(backward_input_head, PRODUCT(C, V), 0.0),
        LINE(backward_weight_qkv, PRODUCT(C, WIDTH), 0.0),
        LINE(backward_weight_up, PRODUCT(C, 2 * F), 0.0),
        LINE(backward_weight_down, PRODUCT(F, C), 0.0),
        LINE(backward_weight_head, PRODUCT(C, V), 0.0),
        LINE(attention_forward, 2.0 * SCORES, 0.0),
        LINE(attention_backward, 5.0 * SCORES, 0.0),
        LINE(cross_entropy, 0.0, 2.0 * ROWS(V)),
        LINE(cross_entropy_nll, 0.0, ROWS(V)),
        LINE(kl_divergence, 0.0, 2.0 * ROWS(V)),
        LINE(add_norm, 0.0, 4.0 * ROWS(C)),
        LINE(norm_backward, 0.0, 4.0 * ROWS(C)),
        LINE(swiglu_forward, 0.0, 3.0 * ROWS(F)),
        LINE(swiglu_backward, 0.0, 5.0 * ROWS(F)),
        LINE(gelu_forward, 0.0, 2.0 * ROWS(F)),
        LINE(gelu_backward, 0.0, 3.0 * ROWS(F)),
        LINE(rope, 0.0, 2.0 * ROWS((H + HKV) * D)),
        LINE(embed_forward, 0.0, 2.0 * ROWS(C)),
        LINE(embed_backward, 0.0, 3.0 * ROWS(C)),
        LINE(fake_int8, 0.0, 2.0 * ROWS(F)),
        LINE(channel_sum_sq, 0.0, ROWS(F)),
        LINE(moments, 0.0, ROWS(F)),
        LINE(forward_int8_up, PRODUCT(C, 2 * F), 0.0),
        LINE(unpack_ternary, 0.0, 4.25 * 2 * F * C),
        LINE(add_sq_norm, 0.0, weights),
        LINE(grokfast, 0.0, 4.0 * weights),
        LINE(adamw, 0.0, 7.0 * weights),
        LINE(muon_q, MUON((double)C, C), 0.0),
        LINE(muon_up, MUON((double)C, F), 0.0),
        LINE(muon_large, MUON(1024.0, 2048.0), 0.0),
        LINE(copy, 0.0, 2.0 * large),
        LINE(quantize_absmean, 0.0, large),
        LINE(quantize_absmean_report, 0.0, large),
        LINE(quantize_exact, 0.0, large),
        LINE(quantize_exact_report, 0.0, large),
        LINE(quantize_exact_weighted, 0.0, large),
        LINE(pack_base3, 0.0, large / 16.0 + large / 20.0),
        LINE(unpack_base3, 0.0, large / 16.0 + large / 20.0),
    };
    const p4_ops *ops = p4_ops_find(argc > 1 ? argv[1] : "cpu");
    if (!ops || rig_open(&x.r, ops, argc > 2 ? atoi(argv[2]) : 0, 1) != P4_OK) {
        fprintf(stderr, "%s\n", ops ? p4_last_error() : "no such backend in this build");
        return 1;
    }
    printf("%s\n", ops->describe(x.r.device));
    prepare(&x);
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        if (argc < 4 || strstr(lines[i].name, argv[3])) {
            measure(&x, &lines[i]);
        }
    }
    rig_close(&x.r);
    return check_failed != 0;
}
