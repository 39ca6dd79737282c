/* phase4.h on one rank: the quantizer, checkpoints, compressed models, their states and files. */
#include "api_world.h"
#include "io/file/atomic_file.h"
#include "io/file/files.h"
#include "io/h5/artifact.h"
#include "io/hf/safetensors.h"

static p4_session *session;
static p4_checkpoint *llama, *gpt2;
static p4_config config;

/* ---- one tensor ---- */

static void quantizer_follows_the_rule(void)
{
    const float w[] = {0.5f, -0.01f, 0.2f, -0.9f, 0, 0, 0, 0};
    const int8_t want[] = {1, 0, 1, -1, 0, 0, 0, 0};
    int8_t q[8];
    float scale[2], back[8];
    EXPECT_OK(p4_quantize_tensor(q, scale, w, 2, 4, 0.1));
    EXPECT_NEAR(scale[0], 1.61 / 4, 1e-7);
    EXPECT_NEAR(scale[1], 1e-8, 1e-15);
    EXPECT_OK(p4_dequantize_tensor(back, q, scale, 2, 4));
    for (int i = 0; i < 8; i++) {
        EXPECT(q[i] == want[i], "element %d is %d", i, q[i]);
        EXPECT_NEAR(back[i], (float)want[i] * scale[i / 4], 0);
    }
    /* a vector has one scale, and what equals the threshold is kept */
    const float v[] = {1, -1, 3, -3};
    EXPECT_OK(p4_quantize_tensor(q, scale, v, 1, 4, 0.5));
    EXPECT(scale[0] == 2.0f && q[0] == 1 && q[1] == -1 && q[2] == 1 && q[3] == -1, "scale %g",
           (double)scale[0]);
    EXPECT_OK(p4_quantize_tensor(q, scale, v, 1, 4, 0.51));
    EXPECT(q[0] == 0 && q[1] == 0 && q[2] == 1 && q[3] == -1, "what is below the threshold is kept");
}

static void quantizer_refuses(void)
{
    float w[4] = {1, 2, NAN, 4}, scale[4];
    int8_t q[4];
    EXPECT_CODE(p4_quantize_tensor(q, scale, w, 2, 2, 0.1), P4_E_INPUT, "the weight at [1, 0] is nan");
    EXPECT_CODE(p4_quantize_tensor(q, scale, w, 0, 2, 0.1), P4_E_INPUT, "a tensor of 0 x 2");
    EXPECT_CODE(p4_quantize_tensor(q, scale, w, INT64_MAX, 2, 0.1), P4_E_INPUT, "a tensor of");
    EXPECT_CODE(p4_quantize_tensor(q, scale, w, 1, 2, -0.1), P4_E_INPUT, "threshold: found -0.1");
    EXPECT_CODE(p4_quantize_tensor(q, scale, w, 1, 2, NAN), P4_E_INPUT, "threshold: found nan");
    EXPECT_CODE(p4_dequantize_tensor(w, q, scale, 2, -1), P4_E_INPUT, "a tensor of 2 x -1");
    EXPECT_OK(p4_quantize_tensor(q, scale, w, 1, 2, 0.1));
}

static void figures(void)
{
    double ratio;
    EXPECT_NEAR(p4_compression_ratio(100, 12.5), 8, 0);
    EXPECT(isnan(p4_compression_ratio(100, 0)) && isnan(p4_compression_ratio(-1, 1)),
           "a ratio without sizes");
    EXPECT_NEAR(p4_estimate_inference_speedup(100, 100), 1, 1e-12);
    EXPECT_NEAR(p4_estimate_inference_speedup(3.55, 1), 2.71, 0.02); /* as measured for 3B and 70B */
    EXPECT_NEAR(p4_estimate_inference_speedup(7.16, 1), 4.1, 0.02);
    EXPECT(p4_estimate_inference_speedup(1e9, 1) < 8.34, "without a bound");
    EXPECT(isnan(p4_estimate_inference_speedup(0, 1)), "a speedup without a size");
    EXPECT(p4_should_fine_tune(&config, 12.0, 13.5), "12.5 %% worse and no fine-tuning");
    EXPECT(!p4_should_fine_tune(&config, 12.0, 12.1), "0.8 %% worse and fine-tuning");
    EXPECT(p4_validate_compression_quality(10, 10.9, 0.1, &ratio), "a drop of 9 %% is refused");
    EXPECT_NEAR(ratio, 0.09, 1e-12);
    EXPECT(!p4_validate_compression_quality(10, 11.1, 0.1, &ratio), "a drop of 11 %% is accepted");
}

/* ---- checkpoints ---- */

static void checkpoints_are_counted(void)
{
    p4_parameter_counts counts;
    p4_checkpoint *none;
    p4_count_parameters(llama, &counts);
    EXPECT(counts.total == 9300 && counts.trainable == 9300 && counts.frozen == 0, "%lld",
           (long long)counts.total);
    EXPECT_NEAR(p4_model_size_mb(llama), 9300 * 4 / 1048576.0, 1e-12);
    EXPECT_NEAR(p4_sparsity_ratio(llama), 0, 0);
    p4_count_parameters(gpt2, &counts);
    EXPECT(counts.total == 11780, "%lld", (long long)counts.total);
    EXPECT_CODE(p4_checkpoint_open(&none, at("nowhere")), P4_E_INPUT, "nowhere");
    EXPECT(none == NULL, "a handle after an error");
    EXPECT_CODE(p4_checkpoint_open(&none, at("elsewhere")), P4_E_INPUT,
                "elsewhere"); /* not the older message */
}

/* ---- compressed models ---- */

static void nothing_before_compress(void)
{
    p4_compressed *c;
    p4_state state;
    p4_quantizer_stats stats;
    p4_compression_summary summary;
    p4_fine_tuning tuning;
    const char *message = "Model not compressed yet";
    EXPECT_OK(p4_compressed_create(&c, session, llama, &config));
    EXPECT(!p4_compressed_is_compressed(c), "compressed by being created");
    EXPECT(p4_compressed_quantized_state(c, &state) == P4_E_STATE, "a state");
    EXPECT(strcmp(p4_last_error(), message) == 0, "%s", p4_last_error());
    EXPECT_CODE(p4_compressed_dequantized_state(c, &state), P4_E_STATE, message);
    EXPECT_CODE(p4_compressed_scale_factors(c, &state), P4_E_STATE, message);
    EXPECT_CODE(p4_quant_stats(c, &stats), P4_E_STATE, message);
    EXPECT_CODE(p4_compressed_save(c, at("never"), NULL), P4_E_STATE, message);
    EXPECT_CODE(p4_fine_tune(c, NULL, NULL, NULL, NULL, NULL, &tuning), P4_E_STATE, message);
    EXPECT(access(at("never"), F_OK) != 0, "a directory for nothing");
    p4_compression_stats(c, &summary);
    EXPECT(!summary.is_compressed && isnan(summary.compression_ratio), "stats before compressing");
    EXPECT_NEAR(summary.original_size_mb, p4_model_size_mb(llama), 1e-12);
    p4_compressed_close(c);
}

/* Before compressing the logits are the reference library's; afterwards they are not. */
static void forward_matches_golden(const p4_checkpoint *checkpoint, const char *name)
{
    p4_compressed *c;
    p4_safetensors file;
    char path[600];
    snprintf(path, sizeof path, "%s/golden.safetensors", fixture(name));
    EXPECT_OK(p4_safetensors_open(&file, path));
    const p4_safetensor *want = p4_safetensors_find(&file, "logits"),
                        *ids = p4_safetensors_find(&file, "ids");
    int64_t B = want->shape[0], T = want->shape[1], V = want->shape[2];
    int32_t *tokens = p4_alloc((size_t)(B * T), sizeof *tokens);
    float *golden = p4_alloc((size_t)(B * T * V), sizeof *golden),
          *logits = p4_alloc((size_t)(B * T * V), sizeof *logits);
    memcpy(tokens, ids->data, (size_t)(B * T) * sizeof *tokens);
    p4_to_f32(golden, want->data, want->dtype, B * T * V);

    EXPECT_OK(p4_compressed_create(&c, session, checkpoint, &config));
    EXPECT(p4_compressed_vocabulary(c) == V, "vocabulary %lld", (long long)p4_compressed_vocabulary(c));
    EXPECT_OK(p4_compressed_forward(c, tokens + T, 1, T, logits)); /* a smaller batch first */
    EXPECT_NEAR(logits[3], golden[T * V + 3], 1e-4);
    EXPECT_OK(p4_compressed_forward(c, tokens, B, T, logits));
    double error = 0, change = 0;
    for (int64_t i = 0; i < B * T * V; i++) {
        error = fmax(error, fabs((double)logits[i] - (double)golden[i]));
    }
    EXPECT(error < 1e-4, "%s: logits differ by %g", name, error);
    EXPECT_OK(p4_compressed_compress(c));
    EXPECT_OK(p4_compressed_forward(c, tokens, B, T, logits));
    for (int64_t i = 0; i < B * T * V; i++) {
        change = fmax(change, fabs((double)logits[i] - (double)golden[i]));
    }
    EXPECT(change > 1e-3 && isfinite(change), "%s: compressing changed logits by %g", name, change);

    tokens[1] = (int32_t)V;
    EXPECT_CODE(p4_compressed_forward(c, tokens, B, T, logits), P4_E_INPUT, "token 1 is");
    EXPECT_CODE(p4_compressed_forward(c, tokens, 1, 1000, logits), P4_E_INPUT, "sequences of 1000 tokens");
    EXPECT_CODE(p4_compressed_forward(c, tokens, 0, T, logits), P4_E_INPUT, "a batch of 0 x");
    p4_compressed_close(c);
    p4_safetensors_close(&file);
    free(tokens);
    free(golden);
    free(logits);
}

/* quantized * scale = dequantized, with the shapes of the files and the codes of the rule. */
static void compare_tensor(const p4_state_tensor *q, const p4_state_tensor *d, const p4_state *scales)
{
    const p4_state_tensor *s = p4_state_find(scales, q->name);
    const int8_t *trits = q->data;
    const uint16_t *halves = d->data;
    EXPECT(q->rank == d->rank && q->shape[0] == d->shape[0] && q->shape[1] == d->shape[1], "%s: shapes",
           q->name);
    EXPECT((q->dtype == P4_STATE_INT8) == (s != NULL), "%s: a scale without trits, or trits without",
           q->name);
    EXPECT(d->dtype == P4_STATE_FP16, "%s: dequantized is no fp16", d->name);
    if (s == NULL) {
        EXPECT(memcmp(q->data, d->data, (size_t)(q->shape[0] * q->shape[1]) * 2) == 0, "%s: preserved",
               q->name);
        return;
    }
    int wrong = 0;
    for (int64_t i = 0; i < q->shape[0] * q->shape[1]; i++) {
        int64_t at_scale = s->shape[1] == 1 ? i / q->shape[1] : i % q->shape[1];
        float product = (float)trits[i] * ((const float *)s->data)[at_scale];
        wrong += trits[i] < -1 || trits[i] > 1 || p4_f16_to_f32(halves[i]) != product;
    }
    EXPECT(wrong == 0, "%s: %d elements are not quantized * scale", q->name, wrong);
}

static void states_agree(const p4_compressed *c, int64_t tensors, int64_t ternary)
{
    p4_state quantized, scales, halves, again;
    p4_quantizer_stats stats;
    EXPECT_OK(p4_compressed_quantized_state(c, &quantized));
    EXPECT_OK(p4_compressed_scale_factors(c, &scales));
    EXPECT_OK(p4_compressed_dequantized_state(c, &halves));
    EXPECT_OK(p4_dequantize_model(&quantized, &scales, &again));
    EXPECT(quantized.count == tensors && halves.count == tensors && scales.count == ternary,
           "%lld tensors, %lld scales", (long long)quantized.count, (long long)scales.count);
    EXPECT_OK(p4_quant_stats(c, &stats));
    EXPECT(stats.layers_quantized == ternary && stats.layers_preserved == tensors - ternary,
           "layers in the stats");
    int64_t zeros = 0, all = 0;
    for (int64_t i = 0; i < quantized.count; i++) {
        const p4_state_tensor *q = &quantized.tensors[i];
        int64_t count = q->shape[0] * q->shape[1];
        compare_tensor(q, &halves.tensors[i], &scales);
        EXPECT(memcmp(again.tensors[i].data, halves.tensors[i].data, (size_t)count * 2) == 0,
               "%s: p4_dequantize_model", q->name);
        for (int64_t k = 0; q->dtype == P4_STATE_INT8 && k < count; k++) {
            zeros += ((const int8_t *)q->data)[k] == 0;
        }
        all += q->dtype == P4_STATE_INT8 ? count : 0;
    }
    EXPECT(stats.quantized_params == all, "%lld of %lld", (long long)stats.quantized_params, (long long)all);
    EXPECT_NEAR(stats.sparsity_ratio, (double)zeros / (double)all, 1e-12);

    scales.tensors[0].shape[0]++;
    p4_state_free(&again);
    EXPECT_CODE(p4_dequantize_model(&quantized, &scales, &again), P4_E_INPUT, "and its scale [");
    scales.tensors[0].shape[0]--;
    ((float *)scales.tensors[0].data)[0] = 1e6f;
    EXPECT_CODE(p4_dequantize_model(&quantized, &scales, &again), P4_E_INPUT, "which fp16 cannot hold");
    scales.tensors[0].name[0] = '?';
    EXPECT_CODE(p4_dequantize_model(&quantized, &scales, &again), P4_E_INPUT, "has no scale");
    p4_state_free(&quantized);
    p4_state_free(&quantized);
    p4_state_free(&scales);
    p4_state_free(&halves);
}

static void codes_follow_the_rule(const p4_compressed *c)
{
    const char *name = "model.layers.1.self_attn.o_proj.weight";
    p4_safetensors file;
    p4_state state;
    char path[600];
    snprintf(path, sizeof path, "%s/model.safetensors", fixture("llama-gqa"));
    EXPECT_OK(p4_safetensors_open(&file, path));
    EXPECT_OK(p4_compressed_quantized_state(c, &state));
    const p4_safetensor *w = p4_safetensors_find(&file, name);
    const p4_state_tensor *q = p4_state_find(&state, name);
    int64_t count = w->shape[0] * w->shape[1];
    float *weights = p4_alloc((size_t)count, sizeof *weights),
          *scale = p4_alloc((size_t)w->shape[0], sizeof *scale);
    int8_t *want = p4_alloc((size_t)count, 1);
    p4_to_f32(weights, w->data, w->dtype, count);
    EXPECT_OK(p4_quantize_tensor(want, scale, weights, w->shape[0], w->shape[1], config.sparsity_threshold));
    EXPECT(q != NULL && memcmp(q->data, want, (size_t)count) == 0,
           "p4_quantize_tensor and the model differ in %s", name);
    EXPECT(p4_state_find(&state, "no such tensor") == NULL, "a tensor of that name");
    p4_safetensors_close(&file);
    p4_state_free(&state);
    free(weights);
    free(scale);
    free(want);
}

static void compressed_models_agree(void)
{
    p4_compressed *c;
    p4_compression_summary summary;
    EXPECT_OK(p4_quantize_model(&c, session, llama, &config));
    states_agree(c, 21, 14);
    codes_follow_the_rule(c);
    p4_compression_stats(c, &summary);
    EXPECT(summary.is_compressed && summary.layers_quantized == 14 && summary.layers_preserved == 7,
           "summary");
    EXPECT(summary.quantized_size_mb > 0 && summary.quantized_size_mb < summary.original_size_mb, "%g MB",
           summary.quantized_size_mb);
    EXPECT_NEAR(summary.compression_ratio, summary.original_size_mb / summary.quantized_size_mb, 1e-9);
    p4_compressed_close(c);
    EXPECT_OK(p4_quantize_model(&c, session, gpt2, &config));
    states_agree(c, 28, 8);
    p4_compressed_close(c);
}

static void creation_refuses(void)
{
    p4_compressed *c;
    p4_config wrong = config;
    wrong.quantization_bits = 8;
    EXPECT_CODE(p4_compressed_create(&c, session, llama, &wrong), P4_E_INPUT,
                "Phase 4 uses BitNet 1.58-bit quantization only");
    EXPECT(c == NULL, "a handle after an error");
    wrong = config;
    wrong.max_accuracy_drop = 1.5;
    EXPECT_CODE(p4_quantize_model(&c, session, llama, &wrong), P4_E_INPUT,
                "max_accuracy_drop must be between 0.0 and 0.5");
    wrong = config;
    wrong.init = P4_INIT_RANDOM;
    EXPECT_CODE(p4_compressed_create(&c, session, llama, &wrong), P4_E_INPUT, "key \"init\"");
    wrong = config;
    wrong.calibration_sequence_length = 41;
    EXPECT_CODE(p4_compressed_create(&c, session, llama, &wrong), P4_E_INPUT,
                "expected at most the 40 positions of");
    if (strcmp(test_device(), "cuda") == 0) { /* a GPU that cannot be used as asked: not the CPU instead */
        wrong = config;
        wrong.device = P4_DEVICE_AUTO;
        setenv("P4_GRAPH", "maybe", 1);
        EXPECT_CODE(p4_compressed_create(&c, session, llama, &wrong), P4_E_INPUT,
                    "a GPU was found, but cannot be used: P4_GRAPH: found \"maybe\"");
        unsetenv("P4_GRAPH");
    }
    p4_compressed_close(NULL);
}

/* ---- files ---- */

static void same_state(const p4_compressed *a, const p4_compressed *b)
{
    static const size_t bytes[] = {1, 2, 4};
    p4_state x, y;
    EXPECT_OK(p4_compressed_quantized_state(a, &x));
    EXPECT_OK(p4_compressed_quantized_state(b, &y));
    EXPECT(x.count == y.count, "%lld tensors", (long long)y.count);
    for (int64_t i = 0; i < x.count && i < y.count; i++) {
        const p4_state_tensor *t = &x.tensors[i], *u = &y.tensors[i];
        bool same = strcmp(t->name, u->name) == 0 && t->dtype == u->dtype && t->shape[0] == u->shape[0] &&
                    memcmp(t->data, u->data, (size_t)(t->shape[0] * t->shape[1]) * bytes[t->dtype]) == 0;
        EXPECT(same, "%s is not what was saved", t->name);
    }
    p4_state_free(&x);
    p4_state_free(&y);
}

/* The model's tokenizer.json is in model.h5 and beside the fp16 model. */
static void tokenizer_is_saved(void)
{
    static const char tokenizer[] = "{\"version\": \"1.0\"}";
    static p4_output_paths paths;
    char command[2048], *text = NULL;
    p4_checkpoint *checkpoint;
    p4_compressed *c;
    p4_artifact_reader *reader;
    snprintf(command, sizeof command, "cp -r '%s' '%s'", fixture("llama-gqa"), at("spoken"));
    EXPECT(system(command) == 0, "%s", command);
    EXPECT_OK(p4_atomic_write_all(at("spoken/tokenizer.json"), tokenizer, strlen(tokenizer)));
    EXPECT_OK(p4_checkpoint_open(&checkpoint, at("spoken")));
    EXPECT_OK(p4_quantize_model(&c, session, checkpoint, &config));
    EXPECT_OK(p4_compressed_save(c, at("spoken_out"), &paths));
    EXPECT(access(paths.tokenizer, F_OK) == 0, "no file \"%s\"", paths.tokenizer);
    EXPECT_OK(p4_artifact_reader_open(&reader, paths.quantized));
    EXPECT_OK(p4_artifact_read_text(reader, "tokenizer/tokenizer_json", &text));
    EXPECT(text != NULL && strcmp(text, tokenizer) == 0, "\"%s\"", text != NULL ? text : "nothing");
    p4_artifact_reader_close(reader);
    p4_compressed_close(c);
    p4_checkpoint_close(checkpoint);
    free(text);
}

static void saved_model_comes_back(const p4_checkpoint *checkpoint, const char *directory,
                                   const char *packing)
{
    int32_t tokens[12];
    float *logits = p4_alloc((size_t)12 * 64, sizeof *logits),
          *again = p4_alloc((size_t)12 * 64, sizeof *again);
    p4_compressed *c, *loaded, *halves;
    p4_checkpoint *written;
    static p4_output_paths paths;
    p4_config own = config;
    p4_fine_tuning tuning;
    expect_set(&own, "packing", packing);
    for (int i = 0; i < 12; i++) {
        tokens[i] = token_at(i);
    }
    EXPECT_OK(p4_quantize_model(&c, session, checkpoint, &own));
    EXPECT_OK(p4_compressed_save(c, at(directory), &paths));
    EXPECT(strcmp(paths.primary_output, paths.dequantized_fp16) == 0, "primary output %s",
           paths.primary_output);
    EXPECT_CODE(p4_compressed_save(c, at(directory), NULL), P4_E_INPUT,
                directory); /* not over other results */
    EXPECT_OK(p4_compressed_load(&loaded, session, paths.quantized));
    same_state(c, loaded);
    p4_compression_summary before, after;
    p4_compression_stats(c, &before);
    p4_compression_stats(loaded, &after);
    EXPECT_NEAR(before.quantized_size_mb, after.quantized_size_mb, 0);
    EXPECT_NEAR(before.sparsity_ratio, after.sparsity_ratio, 0);
    EXPECT_OK(p4_compressed_forward(c, tokens, 1, 12, logits));
    EXPECT_OK(p4_compressed_forward(loaded, tokens, 1, 12, again));
    int64_t count = 12 * p4_compressed_vocabulary(c);
    for (int64_t i = 0; i < count; i++) {
        EXPECT(again[i] == logits[i], "logit %lld of the loaded model is %.9g, not %.9g", (long long)i,
               again[i], logits[i]);
    }
    /* the fp16 directory is the same model as an ordinary checkpoint */
    EXPECT_OK(p4_checkpoint_open(&written, paths.dequantized_fp16));
    EXPECT_OK(p4_compressed_create(&halves, session, written, &own));
    EXPECT_OK(p4_compressed_forward(halves, tokens, 1, 12, again));
    for (int64_t i = 0; i < count; i++) {
        EXPECT_NEAR(again[i], logits[i], 1e-5);
    }
    EXPECT_CODE(p4_compressed_compress(loaded), P4_E_STATE, "no original weights");
    EXPECT_CODE(p4_compressed_save(loaded, at("more"), NULL), P4_E_STATE, "a loaded model");
    EXPECT_CODE(p4_fine_tune(loaded, NULL, NULL, NULL, NULL, NULL, &tuning), P4_E_STATE,
                "no original weights");
    p4_compressed_close(c);
    p4_compressed_close(halves);
    p4_compressed_close(loaded);
    p4_checkpoint_close(written);
    free(logits);
    free(again);
}

/* A well-formed model.h5 without tensors. */
static void put_empty_artifact(const char *name, const char *model_json, const char *phase4_json)
{
    p4_artifact *artifact;
    p4_artifact_info info = {
        .producer = "test", .model_type = "llama", .model_json = model_json, .phase4_json = phase4_json};
    EXPECT_OK(p4_artifact_open(&artifact, at(name), &info));
    EXPECT_OK(p4_artifact_close(artifact, true));
}

static void loading_refuses(void)
{
    p4_compressed *c;
    char path[600], *model_json;
    size_t bytes;
    EXPECT_CODE(p4_compressed_load(&c, session, at("none.h5")), P4_E_INPUT, "none.h5");
    EXPECT(c == NULL, "a handle after an error");
    EXPECT_CODE(p4_compressed_load(&c, session, at("text.bin")), P4_E_INPUT, "text.bin");
    snprintf(path, sizeof path, "%s/config.json", fixture("llama-gqa"));
    EXPECT_OK(p4_file_read(&model_json, &bytes, path, 1 << 20));
    put_empty_artifact("empty.h5", model_json, "{}");
    EXPECT_CODE(p4_compressed_load(&c, session, at("empty.h5")), P4_E_INPUT, "holds 0 tensors");
    put_empty_artifact("config.h5", model_json, "{\"fine_tune_epochs\": 0}");
    EXPECT_CODE(p4_compressed_load(&c, session, at("config.h5")), P4_E_INPUT, "fine_tune_epochs");
    put_empty_artifact("model.h5", "{\"model_type\": \"alpaca\"}", "{}");
    EXPECT_CODE(p4_compressed_load(&c, session, at("model.h5")), P4_E_INPUT, "alpaca");
    EXPECT(c == NULL, "a handle after an error");
    free(model_json);
}

static void metadata_comes_back(void)
{
    p4_metadata metadata;
    EXPECT_OK(p4_metadata_load(&metadata, at("llama")));
    EXPECT(metadata.bits == 1.58 && metadata.input_count == 1, "bits %g, %lld inputs", metadata.bits,
           (long long)metadata.input_count);
    EXPECT(metadata.metrics.layers_quantized == 14 && strcmp(metadata.method, "absmean") == 0, "method %s",
           metadata.method);
    snprintf(metadata.producer, sizeof metadata.producer, "someone else");
    EXPECT_OK(p4_metadata_save(world, &metadata));
    p4_metadata_free(&metadata);
    EXPECT_OK(p4_metadata_load(&metadata, world));
    EXPECT(strcmp(metadata.producer, "someone else") == 0, "producer %s", metadata.producer);
    p4_metadata_free(&metadata);
    EXPECT_CODE(p4_metadata_load(&metadata, at("nowhere")), P4_E_INPUT, "nowhere");
    p4_metadata_free(&metadata);
}

int main(void)
{
    if (!device_is_here()) {
        return check_failed > 0 ? TEST_END() : P4_SKIPPED;
    }
    world_fill();
    EXPECT_OK(p4_session_open(&session));
    EXPECT(p4_session_rank(session) == 0 && p4_session_ranks(session) == 1, "one rank");
    small_config(&config);
    EXPECT_OK(p4_checkpoint_open(&llama, fixture("llama-gqa")));
    EXPECT_OK(p4_checkpoint_open(&gpt2, fixture("gpt2-prefix")));
    quantizer_follows_the_rule();
    quantizer_refuses();
    figures();
    checkpoints_are_counted();
    nothing_before_compress();
    forward_matches_golden(llama, "llama-gqa");
    forward_matches_golden(gpt2, "gpt2-prefix");
    compressed_models_agree();
    creation_refuses();
    saved_model_comes_back(llama, "llama", "base3x5");
    tokenizer_is_saved();
    saved_model_comes_back(gpt2, "gpt2", "2bit");
    loading_refuses();
    metadata_comes_back();
    p4_checkpoint_close(llama);
    p4_checkpoint_close(gpt2);
    p4_session_close(session);
    world_end();
    return TEST_END();
}
