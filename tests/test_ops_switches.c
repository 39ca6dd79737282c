/* The switches in the environment that choose an implementation on a GPU (CONTRIBUTING.md): an unknown word
 * is an input error that names the known ones, and the device is not opened; an empty word counts as unset.
 * And the two implementations of SwiGLU's gradient, compared on a GPU that has both. Skipped without a GPU.
 */
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

/* --- SwiGLU's gradient ------------------------------------------------------------------------ */

enum { OUT = 200 }; /* a k that ends within a stage */

/* dgate | dup [N, 2F]; *in_one: what the product may be written to was left alone. */
static float *swiglu_gradient(rig *r, p4_device *device, const void *dy, const void *w, const void *x,
                              int64_t N, int64_t F, bool *in_one)
{
    void *d = rig_put_act(r, NULL, 2 * N * F), *dh = rig_put_act(r, NULL, N * F);
    EXPECT_OK(r->ops->sync(r->device)); /* another queue reads what was written */
    r->ops->linear_gated_backward(device, &(p4_linear_gated_backward_args){.function = P4_SILU,
                                                                           .N = N,
                                                                           .F = F,
                                                                           .out = OUT,
                                                                           .dy = dy,
                                                                           .w = w,
                                                                           .gate_up = x,
                                                                           .dgate_up = d,
                                                                           .dh_work = dh});
    EXPECT_OK(r->ops->sync(device));
    const uint16_t *left = rig_get(r, dh, N * F * 2);
    *in_one = true;
    for (int64_t i = 0; i < N * F; i++) {
        *in_one = *in_one && left[i] == 0xffff;
    }
    return rig_get_act(r, d, 2 * N * F);
}

static void check_swiglu_backward(const p4_ops *ops)
{
    rig r;
    p4_device *other = NULL;
    setenv("P4_SWIGLU_BACKWARD", "own", 1);
    p4_rc rc = rig_open_as(&r, ops, 0, true, 7);
    if (rc != P4_OK) { /* a GPU of another kind */
        EXPECT(rc == P4_E_INPUT, "P4_SWIGLU_BACKWARD=own: \"%s\"", p4_last_error());
        printf("SwiGLU's gradient: one implementation only: %s\n", p4_last_error());
        p4_error_clear();
    }
    setenv("P4_SWIGLU_BACKWARD", "cublas", 1);
    if (rc == P4_OK) {
        EXPECT_OK(ops->open(&other, 0, 0, true));
        /* Tiles of 256 x 256 beyond the edges, and on a GPU three for each pair of blocks. */
        const bool emulated = strstr(ops->describe(other), "emulator") != NULL;
        const int64_t N = emulated ? 1100 : 4400, F = emulated ? 1304 : 2600;
        void *dy = rig_put_act(&r, rig_random_act(&r, N * OUT, 1.0), N * OUT);
        void *w = rig_put_act(&r, rig_random_act(&r, OUT * F, 0.1), OUT * F);
        void *x = rig_put_act(&r, rig_random_act(&r, 2 * N * F, 2.0), 2 * N * F);
        bool own_in_one, cublas_in_one;
        float *own = swiglu_gradient(&r, r.device, dy, w, x, N, F, &own_in_one);
        float *cublas = swiglu_gradient(&r, other, dy, w, x, N, F, &cublas_in_one);
        EXPECT(own_in_one && !cublas_in_one, "in one step: own %d, cublas %d", own_in_one, cublas_in_one);
        expect_array("SwiGLU's gradient", own, rig_doubles(&r, cublas, 2 * N * F), 2 * N * F, 4.0 * r.eps,
                     0.0);
        ops->close(other);
        rig_close(&r);
    }
    unsetenv("P4_SWIGLU_BACKWARD");
}

int main(void)
{
    static const struct {
        const char *name, *known, *says; /* a word that every GPU accepts; what the error names */
    } switches[] = {{"P4_GRAPH", "off", "expected on or off"},
                    {"P4_GEMM_EPILOGUE", "off", "expected on or off"},
                    {"P4_MUON", "cublas", "cublas"},
                    {"P4_INT8", "simple", "cublas or simple"},
                    {"P4_GEMM_PICK", "0", "expected a digit"},
                    {"P4_ATTENTION", "own", "expected own, mma, cudnn"},
                    {"P4_SWIGLU_BACKWARD", "cublas", "cublas"},
                    {"P4_EXPERTS", "plain", "plain"}};
    const p4_ops *ops = p4_ops_find("cuda");
    if (ops == NULL) {
        printf("skipped: this build has no CUDA backend\n");
        return getenv("P4_NEED_GPU") ? 1 : 77;
    }
    if (!backend_is_here(ops)) {
        return 77;
    }
    for (size_t i = 0; i < sizeof switches / sizeof switches[0]; i++) {
        EXPECT_OK(open_with(ops, switches[i].name, switches[i].known));
        EXPECT_OK(open_with(ops, switches[i].name, ""));
        p4_rc rc = open_with(ops, switches[i].name, "maybe");
        EXPECT(rc == P4_E_INPUT, "%s=maybe: code %d", switches[i].name, (int)rc);
        EXPECT(strstr(p4_last_error(), switches[i].name) && strstr(p4_last_error(), switches[i].says),
               "%s: \"%s\"", switches[i].name, p4_last_error());
        p4_error_clear();
    }
    check_swiglu_backward(ops);
    return TEST_END();
}
