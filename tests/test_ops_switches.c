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

/* dgate | dup [N, 2F]; *in_one: what the product may be written to was left alone. */
static float *swiglu_gradient(rig *r, p4_device *device, const void *dy, const void *w, const void *x,
                              int64_t N, int64_t F, int64_t out, bool *in_one)
{
    void *d = rig_put_act(r, NULL, 2 * N * F), *dh = rig_put_act(r, NULL, N * F);
    EXPECT_OK(r->ops->sync(r->device)); /* another queue reads what was written */
    r->ops->linear_gated_backward(device, &(p4_linear_gated_backward_args){.function = P4_SILU,
                                                                           .N = N,
                                                                           .F = F,
                                                                           .out = out,
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

/* All three take the same arrays: own and cublas, as they are named, and what the shape decides, which is
 * own's if `large`. */
static void compare_swiglu(rig *r, p4_device *cublas, p4_device *by_shape, int64_t N, int64_t F, int64_t out,
                           bool large)
{
    void *dy = rig_put_act(r, rig_random_act(r, N * out, 1.0), N * out);
    void *w = rig_put_act(r, rig_random_act(r, out * F, 0.1), out * F);
    void *x = rig_put_act(r, rig_random_act(r, 2 * N * F, 2.0), 2 * N * F);
    bool own_in_one, cublas_in_one, chosen_in_one;
    float *own = swiglu_gradient(r, r->device, dy, w, x, N, F, out, &own_in_one);
    float *other = swiglu_gradient(r, cublas, dy, w, x, N, F, out, &cublas_in_one);
    float *chosen = swiglu_gradient(r, by_shape, dy, w, x, N, F, out, &chosen_in_one);
    EXPECT(own_in_one && !cublas_in_one, "in one step: own %d, cublas %d", own_in_one, cublas_in_one);
    EXPECT(chosen_in_one == large, "[%lld, %lld] x [%lld, %lld]: in one step %d", (long long)N,
           (long long)out, (long long)out, (long long)F, chosen_in_one);
    expect_array("SwiGLU's gradient", own, rig_doubles(r, other, 2 * N * F), 2 * N * F, 4.0 * r->eps, 0.0);
    EXPECT(memcmp(chosen, large ? own : other, (size_t)(2 * N * F) * sizeof *chosen) == 0,
           "SwiGLU's gradient: not the bits of the implementation that was chosen");
    rig_clear(r);
}

static void compare_all(rig *r, p4_device *cublas, p4_device *by_shape)
{
    enum { RANDOM = 6, DEEP = 1024 };
    const bool emulated = strstr(r->ops->describe(cublas), "emulator") != NULL;
    /* Tiles of 256 x 256 beyond the edges, and on a GPU three for each pair of blocks; a depth that ends
     * within a stage. */
    compare_swiglu(r, cublas, by_shape, emulated ? 1100 : 4400, emulated ? 1304 : 2600, 200, false);
    for (int i = 0; i < RANDOM; i++) { /* few tiles, ragged */
        compare_swiglu(r, cublas, by_shape, rig_integer(r, 1, 600), 8 * rig_integer(r, 1, 60),
                       8 * rig_integer(r, 1, 40), false);
    }
    compare_swiglu(r, cublas, by_shape, 300, 264, DEEP, false);
    if (!emulated) { /* the emulator needs minutes */
        compare_swiglu(r, cublas, by_shape, 4400, 2600, DEEP, true);
    }
}

static void check_swiglu_backward(const p4_ops *ops)
{
    rig r;
    p4_device *cublas = NULL, *by_shape = NULL;
    const char *seed = getenv("P4_TEST_SEED");
    setenv("P4_SWIGLU_BACKWARD", "own", 1);
    p4_rc rc = rig_open_as(&r, ops, 0, true, seed ? strtoull(seed, NULL, 10) : (uint64_t)time(NULL));
    if (rc != P4_OK) { /* a GPU of another kind */
        EXPECT(rc == P4_E_INPUT, "P4_SWIGLU_BACKWARD=own: \"%s\"", p4_last_error());
        printf("SwiGLU's gradient: one implementation only: %s\n", p4_last_error());
        p4_error_clear();
    }
    setenv("P4_SWIGLU_BACKWARD", "cublas", 1);
    if (rc == P4_OK) {
        printf("seed %llu (P4_TEST_SEED repeats it)\n", (unsigned long long)r.rng.seed);
        EXPECT_OK(ops->open(&cublas, 0, 0, true));
        unsetenv("P4_SWIGLU_BACKWARD");
        EXPECT_OK(ops->open(&by_shape, 0, 0, true));
        compare_all(&r, cublas, by_shape);
        ops->close(by_shape);
        ops->close(cublas);
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
