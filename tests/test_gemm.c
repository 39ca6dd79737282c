/* Every algorithm that the CUDA column may choose for a product gives the same bits (kernels/cuda/gemm.cu):
 * what is chosen by timing must not show in results. Skipped without a GPU. */
#include "ops_cases.h"

enum { PICKS = 8, SHAPES = 7 };
static const int64_t shapes[SHAPES][3] = {/* N, in, out */
                                          {4096, 2048, 2560}, {2048, 2048, 11264}, {2048, 5632, 2048},
                                          {8192, 768, 2304},  {4096, 3072, 768},   {2048, 256, 8192},
                                          {1000, 1032, 1544}};

/* Bits spread over [-1, 1): quicker than random numbers for so many elements, and as good here. */
static void *put_spread(rig *r, int64_t count, uint32_t seed)
{
    float *values = rig_host(r, count * 4);
    for (int64_t i = 0; i < count; i++) {
        uint32_t bits = ((uint32_t)i + seed) * 2654435761u;
        values[i] = (float)(int32_t)(bits ^ bits >> 15) * 0x1p-31f;
    }
    return rig_put_act(r, values, count);
}

enum { FORWARD, BACKWARD_INPUT, BACKWARD_WEIGHT, CHOSEN, GELU_FORWARD = CHOSEN, GELU_BACKWARD, KINDS };
static const char *const kinds[KINDS] = {"forward", "backward to the input", "weight gradients",
                                         "GELU behind forward", "GELU's slope behind backward"};

/* Goes on with the digest of `kind`. */
static void digest_more(rig *r, uint64_t digests[KINDS], int kind, const void *array, int64_t bytes)
{
    r->digest = digests[kind];
    rig_get(r, array, bytes);
    digests[kind] = r->digest;
}

/* The products of one shape into the digests. */
static void digest_shape(rig *r, uint64_t digests[KINDS], int64_t N, int64_t in, int64_t out)
{
    const p4_ops *ops = r->ops;
    void *x = put_spread(r, N * in, 1), *w = put_spread(r, out * in, 77), *dy = put_spread(r, N * out, 999);
    void *y = rig_put_act(r, NULL, N * out), *dx = rig_put_act(r, NULL, N * in),
         *up = rig_put_act(r, NULL, N * out);
    float *dw = rig_put_f32(r, NULL, out * in), *bias = rig_put_f32(r, NULL, p4_max_i64(in, out));
    ops->zero(r->device, bias, p4_max_i64(in, out) * 4);
    ops->linear_forward(r->device, y, x, w, NULL, N, in, out);
    digest_more(r, digests, FORWARD, y, N * out * 2);
    ops->linear_backward_input(r->device, dx, dy, w, N, in, out, false);
    digest_more(r, digests, BACKWARD_INPUT, dx, N * in * 2);
    p4_linear_backward_weight_args weight = {
        .N = N, .in = in, .out = out, .dy = dy, .ld_dy = out, .x = x, .dw = dw};
    ops->linear_backward_weight(r->device, &weight);
    weight.accumulate = true;
    ops->linear_backward_weight(r->device, &weight);
    digest_more(r, digests, BACKWARD_WEIGHT, dw, out * in * 4);
    ops->linear_activate_forward(
        r->device, &(p4_linear_activate_forward_args){
                       .N = N, .in = in, .out = out, .x = x, .w = w, .opt_bias = bias, .up = up, .h = y});
    digest_more(r, digests, GELU_FORWARD, y, N * out * 2);
    digest_more(r, digests, GELU_FORWARD, up, N * out * 2);
    ops->linear_activate_backward(
        r->device, &(p4_linear_activate_backward_args){
                       .N = N, .F = in, .out = out, .dy = dy, .w = w, .up = x, .dup = dx, .opt_db = bias});
    digest_more(r, digests, GELU_BACKWARD, dx, N * in * 2);
    digest_more(r, digests, GELU_BACKWARD, bias, in * 4);
    rig_clear(r);
}

/* Digests of the products of every shape, all with candidate `pick`. */
static void digest_of(const p4_ops *ops, int pick, uint64_t digests[KINDS])
{
    char text[16];
    rig r;
    snprintf(text, sizeof text, "%d", pick);
    setenv("P4_GEMM_PICK", text, 1);
    if (rig_open_as(&r, ops, 0, true, 5) != P4_OK) {
        fprintf(stderr, "%s\n", p4_last_error());
        exit(1);
    }
    for (int kind = 0; kind < KINDS; kind++) {
        digests[kind] = r.digest;
    }
    for (int s = 0; s < SHAPES; s++) {
        digest_shape(&r, digests, shapes[s][0], shapes[s][1], shapes[s][2]);
    }
    rig_close(&r);
}

int main(void)
{
    const p4_ops *ops = p4_ops_find("cuda");
    uint64_t first[KINDS], other[KINDS];
    if (ops == NULL) {
        printf("skipped: this build has no CUDA backend\n");
        return getenv("P4_NEED_GPU") ? 1 : 77;
    }
    if (!backend_is_here(ops)) {
        return 77;
    }
    digest_of(ops, 0, first);
    for (int pick = 1; pick < PICKS;
         pick++) { /* behind CHOSEN there is no choice: the same again on another device */
        digest_of(ops, pick, other);
        for (int kind = 0; kind < KINDS; kind++) {
            EXPECT(other[kind] == first[kind], "%s: candidate %d gives other bits than candidate 0",
                   kinds[kind], pick);
        }
    }
    /* In two steps GELU is taken of what was rounded: other bits tell that at least one of the shapes is
     * computed in one. */
    setenv("P4_GEMM_EPILOGUE", "off", 1);
    digest_of(ops, 0, other);
    for (int kind = 0; kind < KINDS; kind++) {
        EXPECT((other[kind] == first[kind]) == (kind < CHOSEN), "%s: %s bits in two steps", kinds[kind],
               kind < CHOSEN ? "other" : "the same");
    }
    return TEST_END();
}
