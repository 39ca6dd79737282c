/* The quantizer table: every row has a name of its own that the configuration knows, and its rule runs on
 * every backend of this build; a rule that no backend knows is an error there, never another rule. */
#include "api_world.h"
#include "kernels/ops.h"
#include "src/config.h"
#include "src/leaf/rng.h"
#include "src/quantizer.h"

enum { ROWS = 5, COLS = 19 };

static p4_rc quantize(const p4_ops *ops, p4_device *device, p4_quant_method method, const float *importance,
                      uint8_t *codes)
{
    float w[ROWS * COLS];
    p4_rng rng = {.seed = 4};
    p4_weight weight = {.dtype = P4_F32, .rows = ROWS, .cols = COLS};
    void *memory = NULL;
    for (int i = 0; i < ROWS * COLS; i++) {
        w[i] = (float)p4_rng_normal(&rng);
    }
    EXPECT_OK(ops->alloc(device, &memory, 4096));
    char *at = memory;
    ops->to_device(device, at, w, sizeof w);
    ops->zero(device, at + 1024, ROWS * p4_code_row_bytes(COLS) + ROWS * 2);
    if (importance != NULL) {
        ops->to_device(device, at + 2048, importance, COLS * 4);
    }
    weight.data = at;
    ops->quantize(device, (uint8_t *)at + 1024, (uint16_t *)(void *)(at + 1536), NULL, &weight, method, 0.5f,
                  importance != NULL ? (float *)(void *)(at + 2048) : NULL);
    ops->to_host(device, codes, at + 1024, ROWS * p4_code_row_bytes(COLS));
    p4_rc rc = ops->sync(device);
    ops->release(device, memory);
    return rc;
}

static void check_backend(const char *name)
{
    const p4_ops *ops = p4_ops_find(name);
    p4_device *device = NULL;
    p4_device_info info;
    int count = 0;
    float importance[COLS];
    uint8_t codes[ROWS * (COLS + 3) / 4 + 8], plain[sizeof codes], other[sizeof codes];
    if (ops == NULL || ops->list(&info, 1, &count) != P4_OK || count == 0) {
        p4_error_clear();
        return;
    }
    for (int c = 0; c < COLS; c++) {
        importance[c] = c % 3 == 0 ? 10.0f : 0.1f;
    }
    EXPECT_OK(ops->open(&device, info.ordinal, 1, false));
    for (int q = 0; q < P4_QUANTIZER_COUNT; q++) {
        const p4_quantizer_row *row = &p4_quantizers[q];
        const float *h = row->needs == P4_NEEDS_DIAGONAL ? importance : NULL;
        EXPECT_OK(quantize(ops, device, row->method, h, codes));
        EXPECT(codes[0] != 0, "%s wrote nothing on %s", row->name, name);
    }
    EXPECT_OK(quantize(ops, device, P4_QUANT_EXACT, NULL, plain));
    EXPECT_OK(quantize(ops, device, P4_QUANT_EXACT, importance, other));
    EXPECT(memcmp(plain, other, (size_t)(ROWS * p4_code_row_bytes(COLS))) != 0,
           "importance changes nothing on %s", name);
    p4_rc rc = quantize(ops, device, (p4_quant_method)99, NULL, codes);
    EXPECT(rc != P4_OK && strstr(p4_last_error(), "99") != NULL,
           "%s took a rule that it does not know: %d, \"%s\"", name, (int)rc, p4_last_error());
    p4_error_clear();
    ops->close(device);
}

/* What a plan counts is what the device keeps: fp32 needs no tile, other weights one a thread, the exact rule
 * its work, and a matrix of few rows occupies one thread. */
static void scratch_is_what_is_planned(void)
{
    enum { THREADS = 3, MANY = 40, WIDE = 70 };
    static const struct {
        p4_dtype dtype;
        bool transposed;
        int64_t rows;
        p4_quant_method method;
        bool none;
    } cases[] = {
        {P4_F32, false, MANY, P4_QUANT_ABSMEAN, true},   {P4_F32, true, MANY, P4_QUANT_ABSMEAN, false},
        {P4_BF16, false, MANY, P4_QUANT_ABSMEAN, false}, {P4_BF16, false, MANY, P4_QUANT_EXACT, false},
        {P4_F32, false, MANY, P4_QUANT_EXACT, false},    {P4_BF16, false, 5, P4_QUANT_EXACT, false}};
    const p4_ops *ops = p4_ops_find("cpu");
    static const float zeros[MANY * WIDE];
    uint8_t codes[MANY * (WIDE + 3) / 4 + 64];
    uint16_t scale[MANY];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        p4_device *device = NULL;
        const p4_weight weight = {.dtype = cases[i].dtype,
                                  .transposed = cases[i].transposed,
                                  .rows = cases[i].rows,
                                  .cols = WIDE,
                                  .data = zeros};
        EXPECT_OK(ops->open(&device, 0, THREADS, false));
        int64_t planned = ops->quantize_scratch_bytes(device, &weight, cases[i].method);
        ops->quantize(device, codes, scale, NULL, &weight, cases[i].method, 0.5f, NULL);
        EXPECT_OK(ops->sync(device));
        EXPECT(ops->peak_bytes(device) == planned && (planned == 0) == cases[i].none,
               "case %zu: %lld bytes, planned %lld", i, (long long)ops->peak_bytes(device),
               (long long)planned);
        ops->close(device);
    }
}

int main(void)
{
    for (int q = 0; q < P4_QUANTIZER_COUNT; q++) {
        static p4_config config;
        p4_config_default(&config);
        EXPECT_OK(p4_config_set(&config, "quantizer", p4_quantizer_names[q]));
        EXPECT((int)config.quantizer == q, "\"%s\" is value %d", p4_quantizer_names[q],
               (int)config.quantizer);
        EXPECT(p4_quantizers[q].quantizes == (q != P4_QUANTIZER_NONE), "%s", p4_quantizer_names[q]);
        const p4_quantizer_row *training = &p4_quantizers[p4_quantizers[q].trains_as];
        EXPECT(training->trains_as == p4_quantizers[q].trains_as && training->needs != P4_NEEDS_HESSIAN &&
                   training->quantizes == p4_quantizers[q].quantizes,
               "%s trains by \"%s\"", p4_quantizer_names[q], training->name);
        for (int other = 0; other < q; other++) {
            EXPECT(strcmp(p4_quantizer_names[q], p4_quantizer_names[other]) != 0, "two rows named %s",
                   p4_quantizer_names[q]);
        }
    }
    check_backend("cpu");
    check_backend("cuda");
    scratch_is_what_is_planned();
    return TEST_END();
}
