/* Words in the environment that choose how a GPU does things (CONTRIBUTING.md): one that is not known is an error of the
 * user's that names the known ones, and a device is not opened; an empty one is none. Skipped without a GPU. */
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

int main(void)
{
    static const struct {
        const char *name, *known, *says; /* a word that every GPU takes, and what the error names */
    } ways[] = {{"P4_GRAPH", "off", "expected on or off"},       {"P4_GEMM_EPILOGUE", "off", "expected on or off"},
                {"P4_MUON", "cublas", "cublas"},                 {"P4_INT8", "simple", "cublas or simple"},
                {"P4_GEMM_PICK", "0", "expected a digit"},       {"P4_ATTENTION", "own", "expected own, mma, cudnn"}};
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
    return TEST_END();
}
