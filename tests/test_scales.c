/* scale_granularity above the ops: which tensors can be divided, model.h5 with scales of rows, of parts of
 * rows and one, and the public interface. tests/test_ops_scales.c has the ops, tests/job_granularity.sh whole
 * runs. */
#include "api_world.h"
#include "io/h5/artifact.h"
#include "src/leaf/rng.h"
#include "src/model.h"
#include "src/quantizer.h"

/* ---- which tensors ---- */

static p4_arch arch_of(int64_t width)
{
    p4_arch arch;
    EXPECT_OK(p4_arch_init(&arch, "llama"));
    arch.V = 64;
    arch.L = 1;
    arch.C = width;
    arch.H = arch.Hkv = 2;
    arch.D = 32;
    arch.F = 128;
    arch.positions = 32;
    arch.norm_eps = 1e-5f;
    arch.rope.theta = 1e4;
    arch.attention_scale = 0.5f;
    return arch;
}

static void test_division(void)
{
    const p4_list none = {0};
    p4_model model;
    p4_arch arch = arch_of(64);
    EXPECT_OK(p4_model_init(&model, &arch, ""));
    p4_model_select_ternary(&model, &none, true, true);
    EXPECT_OK(p4_model_share_scales(&model, P4_SCALE_GROUP64));
    for (int64_t i = 0; i < model.params_count; i++) {
        const p4_param *p = &model.params[i];
        bool several = p->ternary && p->cols > 64;
        EXPECT(p->scale_group == (several ? 64 : 0), "%s: %lld", p->name, (long long)p->scale_group);
        EXPECT(!p->ternary || p4_param_scale_count(p) == p->rows * p->cols / 64, "%s", p->name);
    }
    EXPECT_REFUSED(p4_model_share_scales(&model, P4_SCALE_GROUP128),
                   "key \"scale_granularity\": found \"group128\", but the rows of ");
    EXPECT_OK(p4_model_share_scales(&model, P4_SCALE_TENSOR));
    for (int64_t i = 0; i < model.params_count; i++) {
        EXPECT(!model.params[i].ternary || p4_param_scale_count(&model.params[i]) == 1, "%s",
               model.params[i].name);
    }
    EXPECT_OK(p4_model_share_scales(&model, P4_SCALE_ROW));
    p4_model_close(&model);
    arch = arch_of(63);
    EXPECT_OK(p4_model_init(&model, &arch, ""));
    p4_model_select_ternary(&model, &none, true, true);
    EXPECT_REFUSED(p4_model_share_scales(&model, P4_SCALE_TENSOR), "63 elements, expected a multiple of 4");
    p4_model_close(&model);
}

/* ---- model.h5 ---- */

enum { ROWS = 9, COLS = 136, CODES = ROWS * ((COLS + 4) / 5), SCALES_MOST = ROWS * 17 };

static void put_and_take(int64_t group, int64_t scales, int64_t step)
{
    const p4_artifact_info info = {
        .producer = "test", .model_type = "llama", .model_json = "{}", .phase4_json = "{}"};
    p4_artifact_tensor tensor = {.name = "w",
                                 .ternary = true,
                                 .rows = ROWS,
                                 .cols = COLS,
                                 .encoding = P4_PACKING_BASE3X5,
                                 .scale_group = group,
                                 .method = "absmean"};
    uint8_t codes[CODES], got[CODES];
    uint16_t scale[SCALES_MOST], got_scale[SCALES_MOST] = {0};
    p4_rng rng = {.seed = 5, .stream = (uint64_t)group};
    p4_artifact *artifact = NULL;
    p4_artifact_reader *reader = NULL;
    int64_t row_bytes = p4_artifact_row_bytes(&tensor);
    for (int i = 0; i < CODES; i++) {
        codes[i] = (uint8_t)p4_rng_below(&rng, 243);
    }
    for (int64_t i = 0; i < scales; i++) {
        scale[i] = p4_f32_to_f16((float)(0.1 + p4_rng_uniform(&rng)));
    }
    EXPECT(p4_artifact_scales(&tensor, ROWS) == scales, "group %lld", (long long)group);
    EXPECT_OK(p4_artifact_open(&artifact, at("model.h5"), &info));
    EXPECT_OK(p4_artifact_begin(artifact, &tensor));
    for (int64_t row = 0; row < ROWS; row += step) {
        EXPECT_OK(p4_artifact_append(artifact, codes + row * row_bytes,
                                     scale + p4_artifact_scale_at(&tensor, row),
                                     p4_min_i64(step, ROWS - row)));
    }
    EXPECT_OK(p4_artifact_close(artifact, true));
    EXPECT_OK(p4_artifact_reader_open(&reader, at("model.h5")));
    const p4_artifact_tensor *found = p4_artifact_reader_find(reader, "w");
    EXPECT(found != NULL && found->scale_group == group, "group %lld came back as %lld", (long long)group,
           found != NULL ? (long long)found->scale_group : -1);
    for (int64_t row = 0; found != NULL && row < ROWS; row += 2) {
        EXPECT_OK(p4_artifact_read(reader, found, got + row * row_bytes,
                                   got_scale + p4_artifact_scale_at(found, row), row,
                                   p4_min_i64(2, ROWS - row)));
    }
    EXPECT(memcmp(got, codes, sizeof codes) == 0, "codes, group %lld", (long long)group);
    EXPECT(memcmp(got_scale, scale, (size_t)scales * 2) == 0, "scales, group %lld", (long long)group);
    p4_artifact_reader_close(reader);
}

/* ---- the public interface ---- */

static void check_api(p4_session *session, const char *granularity, bool one)
{
    p4_checkpoint *checkpoint = NULL;
    p4_compressed *c = NULL, *loaded = NULL;
    p4_output_paths paths;
    static p4_config config;
    p4_state quantized, scales, halves, again, from_file;
    EXPECT_OK(p4_checkpoint_open(&checkpoint, fixture("llama-gqa")));
    small_config(&config);
    expect_set(&config, "scale_granularity", granularity);
    expect_set(&config, "preserve_layers", "[\"*down_proj*\"]"); /* 27 columns */
    EXPECT_OK(p4_quantize_model(&c, session, checkpoint, &config));
    EXPECT_OK(p4_compressed_quantized_state(c, &quantized));
    EXPECT_OK(p4_compressed_scale_factors(c, &scales));
    EXPECT_OK(p4_compressed_dequantized_state(c, &halves));
    EXPECT_OK(p4_dequantize_model(&quantized, &scales, &again));
    EXPECT_OK(p4_compressed_save(c, at(granularity), &paths));
    EXPECT_OK(p4_compressed_load(&loaded, session, paths.quantized));
    EXPECT_OK(p4_compressed_dequantized_state(loaded, &from_file));
    int64_t different = 0;
    for (int64_t i = 0; i < halves.count; i++) {
        size_t bytes = (size_t)(halves.tensors[i].shape[0] * halves.tensors[i].shape[1]) * 2;
        EXPECT(memcmp(again.tensors[i].data, halves.tensors[i].data, bytes) == 0, "%s: states",
               halves.tensors[i].name);
        EXPECT(memcmp(from_file.tensors[i].data, halves.tensors[i].data, bytes) == 0, "%s: model.h5",
               halves.tensors[i].name);
    }
    for (int64_t i = 0; i < scales.count; i++) {
        const float *s = scales.tensors[i].data;
        for (int64_t k = 1; k < scales.tensors[i].shape[0] * scales.tensors[i].shape[1]; k++) {
            different += s[k] != s[0];
        }
    }
    EXPECT((different == 0) == one, "%s: %lld scales differ from the first of a tensor", granularity,
           (long long)different);
    p4_state_free(&quantized);
    p4_state_free(&scales);
    p4_state_free(&halves);
    p4_state_free(&again);
    p4_state_free(&from_file);
    p4_compressed_close(loaded);
    p4_compressed_close(c);
    expect_set(&config, "scale_granularity", "group64");
    EXPECT_REFUSED(p4_quantize_model(&c, session, checkpoint, &config), "expected a multiple of 64");
    p4_checkpoint_close(checkpoint);
}

int main(void)
{
    p4_session *session = NULL;
    world_fill();
    test_division();
    put_and_take(0, ROWS, 4);
    put_and_take(ROWS * COLS, 1, 4);
    put_and_take(8, ROWS * 17, 4);
    put_and_take(68, ROWS * 2, 100);
    EXPECT_OK(p4_session_open(&session));
    check_api(session, "tensor", true);
    check_api(session, "row", false);
    p4_session_close(session);
    world_end();
    return TEST_END();
}
