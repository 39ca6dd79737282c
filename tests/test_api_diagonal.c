/* The quantizer "exact-diagonal" through phase4.h: it needs a calibration, and what calibration sees changes
 * the codes. */
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

int main(void)
{
    static p4_config config;
    p4_session *session;
    p4_checkpoint *llama;
    p4_calib *calib;
    p4_loader *loader;
    p4_compressed *plain, *weighted;
    p4_fine_tuning tuned;
    p4_evaluation before, after;
    int64_t count, same_count;
    if (!device_is_here()) {
        return check_failed == 0 ? P4_SKIPPED : 1;
    }
    world_fill();
    small_config(&config);
    EXPECT_OK(p4_session_open(&session));
    EXPECT_OK(p4_checkpoint_open(&llama, fixture("llama-gqa")));
    EXPECT_OK(p4_calib_create(&calib, llama, &config, NULL));
    EXPECT_OK(p4_loader_create(&loader, session, calib));
    config.quantizer = P4_QUANTIZER_EXACT;
    EXPECT_OK(p4_quantize_model(&plain, session, llama, &config));
    config.quantizer = P4_QUANTIZER_EXACT_DIAGONAL;
    EXPECT_OK(p4_compressed_create(&weighted, session, llama, &config));
    EXPECT_CODE(p4_compressed_compress(weighted), P4_E_STATE, "\"exact-diagonal\" needs the statistics");
    EXPECT_OK(p4_compressed_calibrate(weighted, loader));
    EXPECT_OK(p4_compressed_compress(weighted));
    int8_t *a = codes_of(plain, &count), *b = codes_of(weighted, &same_count);
    EXPECT(count == same_count && count > 0, "%lld and %lld codes", (long long)count, (long long)same_count);
    EXPECT(memcmp(a, b, (size_t)count) != 0, "the statistics change no code");
    EXPECT_OK(p4_compressed_evaluate(weighted, loader, &before));
    EXPECT_OK(p4_fine_tune(weighted, loader, loader, NULL, NULL, NULL, &tuned));
    EXPECT_OK(p4_compressed_evaluate(weighted, loader, &after));
    EXPECT(after.loss < before.loss, "loss %g to %g", before.loss, after.loss);
    p4_fine_tuning_free(&tuned);
    free(a);
    free(b);
    p4_compressed_close(plain);
    p4_compressed_close(weighted);
    p4_loader_free(loader);
    p4_calib_free(calib);
    p4_checkpoint_close(llama);
    p4_session_close(session);
    world_end();
    return TEST_END();
}
