/* The quantizers that need a calibration, through phase4.h: without one they are refused, and what
 * calibration sees changes the codes. */
#include "api_world.h"

/* The codes of all ternary tensors, one after another; the caller frees. */
static int8_t *codes_of(const p4_compressed *c, int64_t *count)
{
    p4_state state;
    int8_t *codes = NULL;
    *count = 0;
    EXPECT_OK(p4_compressed_quantized_state(c, &state));
    for (int64_t i = 0; i < state.count; i++) {
        const p4_state_tensor *t = &state.tensors[i];
        int64_t elements = t->dtype == P4_STATE_INT8 ? t->shape[0] * t->shape[1] : 0;
        codes = p4_resize(codes, (size_t)(*count + elements + 1), 1);
        memcpy(codes + *count, t->data, (size_t)elements);
        *count += elements;
    }
    p4_state_free(&state);
    return codes;
}

static p4_session *session;
static p4_checkpoint *llama;
static p4_config config;

static void check(const char *quantizer)
{
    p4_calib *calib;
    p4_loader *loader;
    p4_compressed *plain, *weighted;
    p4_fine_tuning tuned;
    p4_evaluation before, after;
    int64_t count, same_count;
    EXPECT_OK(p4_calib_create(&calib, llama, &config, NULL));
    EXPECT_OK(p4_loader_create(&loader, session, calib));
    expect_set(&config, "quantizer", "exact");
    EXPECT_OK(p4_quantize_model(&plain, session, llama, &config));
    expect_set(&config, "quantizer", quantizer);
    EXPECT_OK(p4_compressed_create(&weighted, session, llama, &config));
    EXPECT_CODE(p4_compressed_compress(weighted), P4_E_STATE, "needs the statistics of a calibration");
    EXPECT(strstr(p4_last_error(), quantizer) != NULL, "\"%s\" lacks %s", p4_last_error(), quantizer);
    EXPECT_OK(p4_compressed_calibrate(weighted, loader));
    p4_loader_free(loader);
    EXPECT_OK(p4_compressed_compress(weighted));
    EXPECT_OK(p4_loader_create(&loader, session, calib));
    int8_t *a = codes_of(plain, &count), *b = codes_of(weighted, &same_count);
    EXPECT(count == same_count && count > 0, "%lld and %lld codes", (long long)count, (long long)same_count);
    EXPECT(memcmp(a, b, (size_t)count) != 0, "%s: the statistics change no code", quantizer);
    EXPECT_OK(p4_compressed_evaluate(weighted, loader, &before));
    EXPECT_OK(p4_fine_tune(weighted, loader, loader, NULL, NULL, NULL, &tuned));
    EXPECT_OK(p4_compressed_evaluate(weighted, loader, &after));
    EXPECT(after.loss < before.loss, "%s: loss %g to %g", quantizer, before.loss, after.loss);
    p4_fine_tuning_free(&tuned);
    free(a);
    free(b);
    p4_compressed_close(plain);
    p4_compressed_close(weighted);
    p4_loader_free(loader);
    p4_calib_free(calib);
}

int main(void)
{
    if (!device_is_here()) {
        return check_failed == 0 ? P4_SKIPPED : 1;
    }
    world_fill();
    small_config(&config);
    EXPECT_OK(p4_session_open(&session));
    EXPECT_OK(p4_checkpoint_open(&llama, fixture("llama-gqa")));
    check("exact-diagonal");
    check("gptq");
    check("gptq-cd");
    p4_checkpoint_close(llama);
    p4_session_close(session);
    world_end();
    return TEST_END();
}
