/* Every algorithm that the CUDA column may choose for a product gives the same bits (kernels/gemm_cuda.cu): what is chosen
 * by timing must not show in results. Skipped without a GPU. */
#include "ops_cases.h"

enum { PICKS = 8, SHAPES = 7 };
static const int64_t shapes[SHAPES][3] = {/* N, in, out */
                                          {4096, 2048, 2560}, {4096, 2048, 11264}, {4096, 5632, 2048},
                                          {8192, 768, 2304},  {8192, 3072, 768},   {4096, 256, 8192},
                                          {1000, 1032, 1544}};

/* Digest of the three products of every shape, all with candidate `pick`. */
static uint64_t digest_of(const p4_ops *ops, int pick)
{
    char text[16];
    rig r;
    snprintf(text, sizeof text, "%d", pick);
    setenv("P4_GEMM_PICK", text, 1);
    if (rig_open_as(&r, ops, 0, true, 5) != P4_OK) {
        fprintf(stderr, "%s\n", p4_last_error());
        exit(1);
    }
    for (int s = 0; s < SHAPES; s++) {
        int64_t N = shapes[s][0], in = shapes[s][1], out = shapes[s][2];
        void *x = rig_put_act(&r, rig_random_act(&r, N * in, 1.0), N * in);
        void *w = rig_put_act(&r, rig_random_act(&r, out * in, 1.0), out * in);
        void *dy = rig_put_act(&r, rig_random_act(&r, N * out, 1.0), N * out);
        void *y = rig_put_act(&r, NULL, N * out), *dx = rig_put_act(&r, NULL, N * in);
        float *dw = rig_put_f32(&r, NULL, out * in);
        ops->linear_forward(r.device, y, x, w, NULL, N, in, out);
        ops->linear_backward_input(r.device, dx, dy, w, N, in, out, false);
        ops->linear_backward_weight(r.device, dw, dy, out, x, N, in, out, false);
        ops->linear_backward_weight(r.device, dw, dy, out, x, N, in, out, true);
        rig_get(&r, y, N * out * 2);
        rig_get(&r, dx, N * in * 2);
        rig_get(&r, dw, out * in * 4);
        rig_clear(&r);
    }
    uint64_t digest = r.digest;
    rig_close(&r);
    return digest;
}

int main(void)
{
    const p4_ops *ops = p4_ops_find("cuda");
    p4_device *device;
    if (ops == NULL || (getenv("P4_NEED_GPU") == NULL && ops->open(&device, 0, 1, true) != P4_OK)) {
        printf("skipped: %s\n", ops == NULL ? "this build has no CUDA backend" : p4_last_error());
        return 77;
    }
    uint64_t first = digest_of(ops, 0);
    for (int pick = 1; pick < PICKS; pick++) {
        EXPECT(digest_of(ops, pick) == first, "candidate %d gives other bits than candidate 0", pick);
    }
    return TEST_END();
}
