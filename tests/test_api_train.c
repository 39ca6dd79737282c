/* phase4.h on one rank: calibration data and statistics, evaluation, fine-tuning, the gradient-flow test, the
 * whole run. */
#include <cjson/cJSON.h>

#include "api_world.h"
#include "io/hf/safetensors.h"

enum { VOCAB_GPT2 = 55 }; /* of the model gpt2-plain */

static p4_session *session;
static p4_checkpoint *llama;
static p4_config config;

static p4_loader *load(const p4_config *c)
{
    p4_calib *calib;
    p4_loader *loader;
    EXPECT_OK(p4_calib_create(&calib, llama, c, NULL));
    EXPECT_OK(p4_loader_create(&loader, session, calib));
    p4_calib_free(calib);
    return loader;
}

/* ---- data ---- */

static void loader_gives_all_windows(void)
{
    p4_loader *loader = load(&config);
    const int32_t *ids;
    int64_t B, T, seen = 0;
    EXPECT(p4_loader_windows(loader) == WINDOWS, "%lld windows", (long long)p4_loader_windows(loader));
    for (int pass = 0; pass < 2; pass++) {
        for (p4_loader_next(loader, &ids, &B, &T); B > 0; p4_loader_next(loader, &ids, &B, &T)) {
            EXPECT(T == WINDOW && B == (seen == 39 * WINDOW ? 1 : 8), "[%lld, %lld]", (long long)B,
                   (long long)T);
            for (int64_t i = 0; i < B * T; i++) {
                EXPECT(ids[i] == token_at(seen + i), "token %lld is %d", (long long)(seen + i), (int)ids[i]);
            }
            seen += B * T;
        }
        EXPECT(seen == WINDOWS * WINDOW, "%lld tokens", (long long)seen);
        EXPECT(ids == NULL, "ids at the end");
        seen = 0;
        p4_loader_rewind(loader);
    }
    p4_loader_free(loader);
    p4_config few = config;
    few.calibration_samples = 9;
    few.calibration_batch_size = 6;
    loader = load(&few);
    p4_loader_next(loader, &ids, &B, &T);
    EXPECT(B == 6, "B %lld", (long long)B);
    p4_loader_next(loader, &ids, &B, &T);
    EXPECT(B == 3, "B %lld", (long long)B);
    p4_loader_free(loader);
}

/* The model's directory with a tokenizer of small letters: 'a' is 3, a space is 29. */
static void make_text_model(void)
{
    static const char *const files[] = {"config.json", "model.safetensors"};
    char from[600], to[600], *json = p4_alloc(4096, 1);
    EXPECT_OK(p4_make_directories(at("text")));
    for (int i = 0; i < 2; i++) {
        snprintf(from, sizeof from, "%s/%s", fixture("llama-gqa"), files[i]);
        snprintf(to, sizeof to, "%s/%s", at("text"), files[i]);
        EXPECT(symlink(from, to) == 0, "%s", to);
    }
    int used = sprintf(
        json, "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,\"added_tokens\":[],"
              "\"normalizer\":null,\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,"
              "\"trim_offsets\":true,\"use_regex\":true},\"post_processor\":null,\"decoder\":{\"type\":"
              "\"ByteLevel\",\"add_prefix_space\":true,\"trim_offsets\":true,\"use_regex\":true},"
              "\"model\":{\"type\":\"BPE\",\"dropout\":null,\"unk_token\":null,"
              "\"continuing_subword_prefix\":null,\"end_of_word_suffix\":null,\"fuse_unk\":false,"
              "\"byte_fallback\":false,\"merges\":[],\"vocab\":{\"\\u0120\":29");
    for (int i = 0; i < 26; i++) {
        used += sprintf(json + used, ",\"%c\":%d", 'a' + i, 3 + i);
    }
    used += sprintf(json + used, "}}}");
    EXPECT_OK(p4_atomic_write_all(at("text/tokenizer.json"), json, (size_t)used));
    free(json);
}

static void custom_samples_are_tokenised(void)
{
    const char *const samples[] = {"abc de", "the quick brown fox jumps over the lazy dog"};
    const int32_t want[] = {3, 4, 5, 29, 6, 7, 2, 22, 10, 7, 29, 19, 23, 11, 5, 13}; /* 2: end of text */
    p4_checkpoint *text;
    p4_calib *calib;
    p4_loader *loader;
    const int32_t *ids;
    int64_t B, T;
    p4_config own = config;
    make_text_model();
    EXPECT_OK(p4_checkpoint_open(&text, at("text")));
    EXPECT_OK(p4_calib_create(&calib, text, &own, "custom"));
    EXPECT_CODE(p4_calib_set_custom_samples(calib, NULL, 2), P4_E_INPUT, "none are given");
    EXPECT_OK(p4_calib_set_custom_samples(calib, samples, 1));
    EXPECT_CODE(p4_loader_create(&loader, session, calib), P4_E_INPUT, "the samples");
    EXPECT(loader == NULL, "a handle after an error");
    EXPECT_OK(p4_calib_set_custom_samples(calib, samples, 2));
    EXPECT_OK(p4_loader_create(&loader, session, calib));
    p4_loader_next(loader, &ids, &B, &T);
    EXPECT(B == 3 && memcmp(ids, want, sizeof want) == 0, "%lld windows, first token %d", (long long)B,
           (int)ids[0]);
    p4_loader_free(loader);
    p4_calib_free(calib);
    p4_checkpoint_close(text);
}

static void data_is_refused(void)
{
    p4_calib *calib;
    p4_loader *loader;
    p4_config own = config;
    const char *sample = "abc";
    EXPECT_CODE(p4_calib_create(&calib, llama, &config, "webtext"), P4_E_INPUT, "webtext");
    EXPECT(calib == NULL, "a handle after an error");
    EXPECT_OK(p4_calib_create(&calib, llama, &config, NULL));
    EXPECT_CODE(p4_calib_set_custom_samples(calib, &sample, 1), P4_E_INPUT, "tokenizer.json is not there");
    p4_calib_free(calib);
    expect_set(&own, "dataset_root", at("nothing"));
    EXPECT_OK(p4_calib_create(&calib, llama, &own, "wikitext"));
    EXPECT_CODE(p4_loader_create(&loader, session, calib), P4_E_INPUT, at("nothing"));
    p4_calib_free(calib);
    own = config;
    own.calibration_sequence_length = 100;
    EXPECT_OK(p4_calib_create(&calib, llama, &own, NULL));
    EXPECT_CODE(p4_loader_create(&loader, session, calib), P4_E_INPUT,
                "expected at most the 40 positions of");
    p4_calib_free(calib);
}

/* Mean squares of what enters layer 0's projections: the embedding, RMS-normed. */
static void mean_squares_of_first_layer(double *mean_square, int64_t C)
{
    p4_safetensors file;
    char path[600];
    snprintf(path, sizeof path, "%s/model.safetensors", fixture("llama-gqa"));
    EXPECT_OK(p4_safetensors_open(&file, path));
    const p4_safetensor *embed = p4_safetensors_find(&file, "model.embed_tokens.weight");
    const p4_safetensor *gain = p4_safetensors_find(&file, "model.layers.0.input_layernorm.weight");
    float *e = p4_alloc((size_t)(VOCAB * C), sizeof *e), *g = p4_alloc((size_t)C, sizeof *g);
    p4_to_f32(e, embed->data, embed->dtype, VOCAB * C);
    p4_to_f32(g, gain->data, gain->dtype, C);
    for (int64_t i = 0; i < WINDOWS * WINDOW; i++) {
        const float *x = e + token_at(i) * C;
        double squares = 1e-5 * (double)C;
        for (int64_t c = 0; c < C; c++) {
            squares += (double)x[c] * (double)x[c];
        }
        for (int64_t c = 0; c < C; c++) {
            double normed = (double)x[c] / sqrt(squares / (double)C) * (double)g[c];
            mean_square[c] += normed * normed / (WINDOWS * WINDOW);
        }
    }
    p4_safetensors_close(&file);
    free(e);
    free(g);
}

static void statistics_are_collected(void)
{
    p4_activation_summary *stats;
    int64_t count;
    double want[20] = {0};
    p4_loader *loader = load(&config);
    EXPECT_OK(p4_calib_collect_statistics(session, llama, loader, &stats, &count));
    EXPECT(count == 14, "%lld projections", (long long)count);
    mean_squares_of_first_layer(want, 20);
    EXPECT(count > 0 && strcmp(stats[0].name, "model.layers.0.self_attn.q_proj") == 0, "%s", stats[0].name);
    EXPECT(stats[0].inputs == 20, "%lld inputs", (long long)stats[0].inputs);
    for (int64_t i = 0; i < count; i++) {
        const p4_activation_summary *s = &stats[i];
        EXPECT(s->min < s->mean && s->mean < s->max && s->std > 0 && s->std < s->max - s->min,
               "%s: %g %g %g %g", s->name, s->min, s->mean, s->max, s->std);
    }
    for (int c = 0; c < 20; c++) {
        EXPECT_NEAR(stats[0].input_mean_square[c], want[c], 1e-5 * want[c]);
    }
    p4_activation_summary_free(stats, count);
    p4_loader_free(loader);
}

/* A loader made for a larger vocabulary. */
static void statistics_are_refused(void)
{
    p4_activation_summary *stats;
    int64_t count;
    p4_config wide = config;
    p4_checkpoint *gpt2;
    p4_loader *loader;
    FILE *file = fopen(at("wide.bin"), "wb");
    for (int i = 0; file != NULL && i < WINDOW; i++) {
        EXPECT(fwrite(&(uint16_t){VOCAB_GPT2 - 1}, 2, 1, file) == 1, "wide.bin");
    }
    EXPECT(file != NULL && fclose(file) == 0, "wide.bin");
    EXPECT_OK(p4_checkpoint_open(&gpt2, fixture("gpt2-plain")));
    expect_set(&wide, "calibration_files", at("wide.bin"));
    p4_calib *calib;
    EXPECT_OK(p4_calib_create(&calib, gpt2, &wide, NULL));
    EXPECT_OK(p4_loader_create(&loader, session, calib));
    EXPECT_CODE(p4_calib_collect_statistics(session, llama, loader, &stats, &count), P4_E_INPUT, "token 54");
    EXPECT(stats == NULL && count == 0, "statistics after an error");
    p4_loader_free(loader);
    p4_calib_free(calib);
    p4_checkpoint_close(gpt2);
}

/* ---- quality ---- */

/* The mean loss that the logits of p4_compressed_forward give. */
static double loss_of_logits(p4_compressed *c, p4_loader *loader)
{
    const int32_t *ids;
    int64_t B, T, count = 0;
    double sum = 0;
    float *logits = p4_alloc((size_t)8 * WINDOW * VOCAB, sizeof *logits);
    p4_loader_rewind(loader);
    for (p4_loader_next(loader, &ids, &B, &T); B > 0; p4_loader_next(loader, &ids, &B, &T)) {
        EXPECT_OK(p4_compressed_forward(c, ids, B, T, logits));
        for (int64_t n = 0; n < B * T; n++) {
            if (n % T == T - 1) {
                continue;
            }
            double total = 0;
            for (int v = 0; v < VOCAB; v++) {
                total += exp((double)logits[n * VOCAB + v]);
            }
            sum += log(total) - (double)logits[n * VOCAB + ids[n + 1]];
            count++;
        }
    }
    free(logits);
    return sum / (double)count;
}

static void evaluation_agrees_with_logits(void)
{
    p4_compressed *c;
    p4_evaluation before, after;
    p4_loader *loader = load(&config);
    EXPECT_OK(p4_compressed_create(&c, session, llama, &config));
    EXPECT_OK(p4_compressed_evaluate(c, loader, &before));
    EXPECT_NEAR(before.loss, loss_of_logits(c, loader), 1e-5);
    EXPECT_NEAR(before.perplexity, exp(before.loss), 1e-9);
    EXPECT(before.tokens == WINDOWS * (WINDOW - 1) && isnan(before.kl), "%lld tokens",
           (long long)before.tokens);
    EXPECT_OK(p4_compressed_compress(c));
    EXPECT_OK(p4_compressed_evaluate(c, loader, &after));
    EXPECT_NEAR(after.loss, loss_of_logits(c, loader), 1e-5);
    EXPECT(after.kl > 0 && isfinite(after.kl) && after.loss != before.loss, "KL %g", after.kl);
    p4_compressed_close(c);
    p4_loader_free(loader);
}

static void gradients_flow(void)
{
    p4_compressed *c;
    p4_config dead = config;
    bool passed;
    char error[200];
    EXPECT_OK(p4_compressed_create(&c, session, llama, &config));
    EXPECT_OK(p4_test_gradient_flow(c, &passed, error, sizeof error));
    EXPECT(passed && error[0] == '\0', "%s", error);
    EXPECT_OK(p4_compressed_compress(c));
    EXPECT_OK(p4_test_gradient_flow(c, &passed, error, sizeof error));
    EXPECT(passed && error[0] == '\0', "%s", error);
    p4_compressed_close(c);
    dead.sparsity_threshold = 10; /* every weight becomes 0: nothing flows through the blocks */
    EXPECT_OK(p4_quantize_model(&c, session, llama, &dead));
    EXPECT_OK(p4_test_gradient_flow(c, &passed, error, sizeof error));
    EXPECT(!passed && strstr(error, "gradient of model.layers.") != NULL, "%s", error);
    EXPECT_OK(p4_test_gradient_flow(c, &passed, error, 4));
    EXPECT(!passed && strlen(error) == 3, "%s", error);
    p4_compressed_close(c);
}

/* ---- fine-tuning ---- */

typedef struct seen {
    int64_t count;
    double first, last;
} seen;

static void see(const p4_training_point *point, void *user)
{
    seen *s = user;
    s->count++;
    s->first = s->count == 1 ? point->loss : s->first;
    s->last = point->loss;
    EXPECT(point->step == s->count && isfinite(point->loss) && point->lr > 0, "step %lld",
           (long long)point->step);
}

static void check_summary(const p4_fine_tuning *result)
{
    char *json;
    EXPECT_OK(p4_training_summary(result, &json));
    cJSON *root = cJSON_Parse(json);
    const cJSON *history = cJSON_GetObjectItem(root, "training_history");
    EXPECT(cJSON_GetArraySize(history) == result->history_count, "%s", json);
    EXPECT_NEAR(cJSON_GetNumberValue(cJSON_GetObjectItem(root, "epochs_completed")), result->epochs_completed,
                0);
    EXPECT_NEAR(cJSON_GetNumberValue(cJSON_GetObjectItem(root, "final_loss")), result->final_loss, 0);
    cJSON_Delete(root);
    free(json);
}

static void fine_tuning_learns(void)
{
    p4_compressed *c;
    p4_fine_tuning result;
    p4_evaluation before, after, again;
    p4_config own = config;
    seen s = {0};
    p4_loader *train = load(&config), *eval = load(&config);
    own.fine_tune_epochs = 4;
    EXPECT_OK(p4_quantize_model(&c, session, llama, &config));
    EXPECT_OK(p4_compressed_evaluate(c, eval, &before));
    EXPECT_OK(p4_fine_tune(c, train, eval, &own, see, &s, &result));
    EXPECT_OK(p4_compressed_evaluate(c, eval, &after));
    EXPECT(result.ran && result.epochs_completed == 4 && result.steps == 20 && result.history_count == 4,
           "%g epochs, %lld steps", result.epochs_completed, (long long)result.steps);
    EXPECT(s.count == 20 && s.last < s.first, "%lld points, loss %g to %g", (long long)s.count, s.first,
           s.last);
    EXPECT(after.loss < before.loss - 0.05, "loss %g to %g", before.loss, after.loss);
    EXPECT_NEAR(after.perplexity, result.best_perplexity, 1e-4 * after.perplexity);
    EXPECT_NEAR(after.loss, loss_of_logits(c, eval), 1e-5); /* the forward view follows the training */
    check_summary(&result);
    p4_fine_tuning_free(&result);
    p4_fine_tuning_free(&result);
    /* a second run starts from the checkpoint again: the same numbers; without `eval` the last epoch is kept
     */
    EXPECT_OK(p4_compressed_compress(c));
    EXPECT_OK(p4_compressed_evaluate(c, eval, &again));
    EXPECT_NEAR(again.loss, before.loss, 0);
    EXPECT_OK(p4_fine_tune(c, train, NULL, NULL, NULL, NULL, &result));
    EXPECT(result.history_count == 4 && isnan(result.final_loss), "%lld entries",
           (long long)result.history_count);
    EXPECT_OK(p4_compressed_evaluate(c, eval, &again));
    EXPECT_NEAR(again.loss, after.loss, 1e-6);
    p4_fine_tuning_free(&result);
    p4_compressed_close(c);
    p4_loader_free(train);
    p4_loader_free(eval);
}

/* State in bf16 learns as much; the same run gives the same numbers, and `light` changes none of a model
 * without GELU. */
static void fine_tuning_saves_memory(void)
{
    const p4_optimizer optimizers[] = {P4_OPTIMIZER_MUGROKFAST, P4_OPTIMIZER_ADAMW};
    p4_loader *train = load(&config), *eval = load(&config);
    for (int i = 0; i < 2; i++) {
        double losses[4];
        for (int run = 0; run < 4; run++) {
            p4_compressed *c;
            p4_fine_tuning result;
            p4_evaluation after;
            p4_config own = config;
            own.optimizer = optimizers[i];
            own.enable_grokfast = true;
            own.fine_tune_epochs = 4;
            own.optimizer_state = run == 0 ? P4_OPTIMIZER_STATE_FP32 : P4_OPTIMIZER_STATE_BF16;
            own.recompute = run == 2 ? P4_RECOMPUTE_LIGHT : P4_RECOMPUTE_NONE;
            EXPECT_OK(p4_quantize_model(&c, session, llama, &config));
            EXPECT_OK(p4_fine_tune(c, train, eval, &own, NULL, NULL, &result));
            EXPECT_OK(p4_compressed_evaluate(c, eval, &after));
            losses[run] = after.loss;
            p4_fine_tuning_free(&result);
            p4_compressed_close(c);
        }
        EXPECT_NEAR(losses[1], losses[0], 0.02);
        EXPECT(losses[1] != losses[0], "the state's form changes nothing");
        EXPECT(losses[1] == losses[2] && losses[1] == losses[3], "losses %.17g %.17g %.17g", losses[1],
               losses[2], losses[3]);
    }
    p4_loader_free(train);
    p4_loader_free(eval);
}

static void fine_tuning_refuses(void)
{
    p4_compressed *c;
    p4_fine_tuning result;
    p4_config own = config;
    p4_loader *train = load(&config);
    own.calibration_sequence_length = 12;
    p4_loader *other = load(&own);
    EXPECT_OK(p4_quantize_model(&c, session, llama, &config));
    EXPECT_CODE(p4_fine_tune(c, train, other, NULL, NULL, NULL, &result), P4_E_INPUT, "expected the same");
    own = config;
    own.calibration_batch_size = 41;
    EXPECT_CODE(p4_fine_tune(c, train, NULL, &own, NULL, NULL, &result), P4_E_INPUT, "40 windows");
    EXPECT(!result.ran && result.history == NULL, "a result of nothing");
    own.fine_tune_lr = -1;
    EXPECT_CODE(p4_fine_tune(c, train, NULL, &own, NULL, NULL, &result), P4_E_INPUT, "fine_tune_lr");
    EXPECT(p4_compressed_is_compressed(c), "the model is gone");
    p4_compressed_close(c);
    p4_loader_free(train);
    p4_loader_free(other);
}

/* ---- the whole run ---- */

static void execute_fails(p4_config *own, const char *message)
{
    static p4_results results;
    EXPECT_CODE(p4_execute(session, own, NULL, NULL, &results), P4_E_INPUT, message);
    EXPECT(!results.success && strcmp(results.error, p4_last_error()) == 0, "%s", results.error);
    p4_results_free(&results);
}

static void execute_runs(void)
{
    static p4_results results;
    p4_config own = config;
    char *json;
    seen s = {0};
    snprintf(own.model_path, sizeof own.model_path, "%s", fixture("llama-gqa"));
    snprintf(own.output_path, sizeof own.output_path, "%s", at("out"));
    own.eval_samples = 8;
    own.enable_fine_tuning = false;
    EXPECT_OK(p4_execute(session, &own, see, &s, &results));
    EXPECT(results.success && results.error[0] == '\0', "%s", results.error);
    EXPECT(results.metrics.layers_quantized == 14 && results.gradient_flow.passed, "results");
    EXPECT(access(results.output_paths.primary_output, F_OK) == 0, "no %s",
           results.output_paths.primary_output);
    EXPECT(s.count == 0 && !results.fine_tuning.ran, "%lld points without fine-tuning", (long long)s.count);
    EXPECT_OK(p4_results_to_json(&results, &json));
    cJSON *root = cJSON_Parse(json);
    EXPECT(cJSON_IsTrue(cJSON_GetObjectItem(root, "success")), "%s", json);
    cJSON_Delete(root);
    free(json);
    EXPECT_OK(p4_results_write(&results, at("again.json")));
    EXPECT_CODE(p4_results_write(&results, at("no/such/folder.json")), P4_E_INPUT, "folder.json");
    p4_results_free(&results);
    p4_results_free(&results);
    execute_fails(&own, at("out")); /* holds results */
    /* without quantizing it always trains */
    own.overwrite = own.enable_fine_tuning = true;
    own.quantizer = P4_QUANTIZER_NONE;
    EXPECT_OK(p4_execute(session, &own, see, &s, &results));
    EXPECT(s.count == results.fine_tuning.steps && s.count > 0, "%lld points", (long long)s.count);
    p4_results_free(&results);
    snprintf(own.model_path, sizeof own.model_path, "%s", at("nowhere"));
    execute_fails(&own, "nowhere");
    own.fine_tune_epochs = 0;
    execute_fails(&own, "fine_tune_epochs");
}

static void config_is_read(void)
{
    static p4_config read;
    char *overrides[] = {"seed=7"};
    const char *text = "{\"recipe\": \"seed\", \"fine_tune_epochs\": 3}\n",
               *wrong = "{\"fine_tune_epochs\": 0}\n";
    char model[600], files[600], *all[3] = {model, files, overrides[0]};
    snprintf(model, sizeof model, "model_path=%s", fixture("llama-gqa"));
    snprintf(files, sizeof files, "calibration_files=%s", at("text.bin"));
    char *four[] = {"calibration_dataset=custom", all[0], all[1], all[2]};
    EXPECT_OK(p4_atomic_write_all(at("cfg.json"), text, strlen(text)));
    EXPECT_OK(p4_session_read_config(session, &read, at("cfg.json"), P4_RECIPE_QUALITY, four, 4));
    EXPECT(read.seed == 7 && read.fine_tune_epochs == 3 && read.recipe == P4_RECIPE_SEED, "seed %llu",
           (unsigned long long)read.seed);
    EXPECT_OK(p4_atomic_write_all(at("cfg.json"), wrong, strlen(wrong)));
    EXPECT_CODE(p4_session_read_config(session, &read, at("cfg.json"), P4_RECIPE_QUALITY, four, 4),
                P4_E_INPUT, "fine_tune_epochs");
}

int main(void)
{
    if (!device_is_here()) {
        return check_failed > 0 ? TEST_END() : P4_SKIPPED;
    }
    world_fill();
    EXPECT_OK(p4_session_open(&session));
    small_config(&config);
    EXPECT_OK(p4_checkpoint_open(&llama, fixture("llama-gqa")));
    loader_gives_all_windows();
    custom_samples_are_tokenised();
    data_is_refused();
    statistics_are_collected();
    statistics_are_refused();
    evaluation_agrees_with_logits();
    gradients_flow();
    fine_tuning_learns();
    fine_tuning_saves_memory();
    fine_tuning_refuses();
    execute_runs();
    config_is_read();
    p4_checkpoint_close(llama);
    p4_session_close(session);
    world_end();
    return TEST_END();
}
