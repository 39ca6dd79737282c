/* Words in the environment that choose how a GPU does things (CONTRIBUTING.md): one that is not known is an error of the
 * user's that names the known ones, and a device is not opened; an empty one is none. And the two ways back through
 * the MLP beside each other, where the GPU has both. Skipped without a GPU. */
#include "ops_cases.h"

static p4_rc open_with(const p4_ops *ops, const char *name, const char *word)
{
    p4_device *device = NULL;
    setenv(name, word, 1);
    p4_rc rc = ops->open(&device, 0, 0, true);
    unsetenv(name);
    EXPECT((device != NULL) == (rc == P4_OK), "%s=%s: a device after an error, or none without", name, word);
    if (device != NULL) {
        ops->close(device);
    }
    return rc;
}

/* --- the MLP's way back ------------------------------------------------------------------------------------------------ */

enum { N = 1100, F = 1304, OUT = 200 }; /* tiles of 256 x 256 beyond the edges, a k that ends within a stage */

typedef struct gradients {
    float *gelu, *bias, *swiglu;
    bool in_one; /* what SwiGLU's product may be written to was left alone */
} gradients;

static gradients go_back(rig *r, p4_device *device, const void *dy, const void *w, const void *x)
{
    float *zeros = rig_host(r, F * 4), *bias = rig_put_f32(r, zeros, F);
    void *d = rig_put_act(r, NULL, N * F), *both = rig_put_act(r, NULL, 2 * N * F), *dh = rig_put_act(r, NULL, N * F);
    EXPECT_OK(r->ops->sync(r->device)); /* another queue reads what was written */
    r->ops->linear_gelu_backward(device, d, bias, dy, w, x, N, F, OUT);
    r->ops->linear_swiglu_backward(device, both, dh, dy, w, x, N, F, OUT);
    EXPECT_OK(r->ops->sync(device));
    const uint16_t *left = rig_get(r, dh, N * F * 2);
    gradients g = {rig_get_act(r, d, N * F), rig_get_f32(r, bias, F), rig_get_act(r, both, 2 * N * F), true};
    for (int64_t i = 0; i < N * F; i++) {
        g.in_one = g.in_one && left[i] == 0xffff;
    }
    return g;
}

static void expect_close(rig *r, const char *what, const float *a, const float *b, int64_t count, double bound)
{
    expect_array(what, a, rig_doubles(r, b, count), count, bound, 0.0);
}

static void check_mlp_backward(const p4_ops *ops)
{
    rig r;
    p4_device *other = NULL;
    setenv("P4_MLP_BACKWARD", "own", 1);
    p4_rc rc = rig_open_as(&r, ops, 0, true, 7);
    if (rc != P4_OK) { /* a GPU of another kind */
        EXPECT(rc == P4_E_INPUT, "P4_MLP_BACKWARD=own: \"%s\"", p4_last_error());
        printf("the MLP's way back: one way only: %s\n", p4_last_error());
        p4_error_clear();
    }
    setenv("P4_MLP_BACKWARD", "cublas", 1);
    if (rc == P4_OK) {
        EXPECT_OK(ops->open(&other, 0, 0, true));
        void *dy = rig_put_act(&r, rig_random_act(&r, N * OUT, 1.0), N * OUT);
        void *w = rig_put_act(&r, rig_random_act(&r, OUT * F, 0.1), OUT * F);
        void *x = rig_put_act(&r, rig_random_act(&r, 2 * N * F, 2.0), 2 * N * F);
        gradients own = go_back(&r, r.device, dy, w, x), cublas = go_back(&r, other, dy, w, x);
        EXPECT(own.in_one && !cublas.in_one, "SwiGLU's way back in one step: own %d, cublas %d", own.in_one,
               cublas.in_one);
        expect_close(&r, "GELU", own.gelu, cublas.gelu, N * F, 4.0 * r.eps);
        expect_close(&r, "GELU's bias", own.bias, cublas.bias, F, 4.0 * r.eps);
        expect_close(&r, "SwiGLU", own.swiglu, cublas.swiglu, 2 * N * F, 4.0 * r.eps);
        ops->close(other);
        rig_close(&r);
    }
    unsetenv("P4_MLP_BACKWARD");
}

int main(void)
{
    static const struct {
        const char *name, *known, *says; /* a word that every GPU takes, and what the error names */
    } ways[] = {{"P4_GRAPH", "off", "expected on or off"},       {"P4_GEMM_EPILOGUE", "off", "expected on or off"},
                {"P4_MUON", "cublas", "cublas"},                 {"P4_INT8", "simple", "cublas or simple"},
                {"P4_GEMM_PICK", "0", "expected a digit"},       {"P4_ATTENTION", "own", "expected own, mma, cudnn"},
                {"P4_MLP_BACKWARD", "cublas", "cublas"}};
    const p4_ops *ops = p4_ops_find("cuda");
    if (ops == NULL) {
        printf("skipped: this build has no CUDA backend\n");
        return getenv("P4_NEED_GPU") ? 1 : 77;
    }
    if (!backend_is_here(ops)) {
        return 77;
    }
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        EXPECT_OK(open_with(ops, ways[i].name, ways[i].known));
        EXPECT_OK(open_with(ops, ways[i].name, ""));
        p4_rc rc = open_with(ops, ways[i].name, "maybe");
        EXPECT(rc == P4_E_INPUT, "%s=maybe: code %d", ways[i].name, (int)rc);
        EXPECT(strstr(p4_last_error(), ways[i].name) && strstr(p4_last_error(), ways[i].says), "%s: \"%s\"",
               ways[i].name, p4_last_error());
        p4_error_clear();
    }
    check_mlp_backward(ops);
    return TEST_END();
}
