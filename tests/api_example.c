/* api_example.c MODEL_DIRECTORY: compresses a model with the installed library, as its users would: quantize,
 * fine-tune when the drop asks for it, write both outputs, load the packed one again. Needs only phase4.h;
 * compiles as C11 and as C++. */
#include <phase4.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { T = 16, WINDOWS = 32 };

#define DO(call)                                                 \
    do {                                                         \
        if ((call) != P4_OK) {                                   \
            fprintf(stderr, "%s: %s\n", #call, p4_last_error()); \
            exit(EXIT_FAILURE);                                  \
        }                                                        \
    } while (0)
#define EXPECT(ok)                                                         \
    do {                                                                   \
        if (!(ok)) {                                                       \
            fprintf(stderr, "line %d: %s does not hold\n", __LINE__, #ok); \
            exit(EXIT_FAILURE);                                            \
        }                                                                  \
    } while (0)

/* Text as token ids, raw uint16, in a language of 20 words. */
static void write_tokens(const char *path)
{
    FILE *file = fopen(path, "wb");
    EXPECT(file != NULL);
    for (int i = 0; i < T * WINDOWS; i++) {
        uint16_t id = (uint16_t)(3 + i * i / 3 % 20);
        EXPECT(fwrite(&id, sizeof id, 1, file) == 1);
    }
    EXPECT(fclose(file) == 0);
}

static void configure(p4_config *config, const p4_checkpoint *checkpoint)
{
    static const char *const keys[][2] = {{"calibration_dataset", "custom"},
                                          {"calibration_files", "tokens.bin"},
                                          {"calibration_sequence_length", "16"},
                                          {"fine_tune_lr", "3e-3"},
                                          {"distill", "0"}, /* random weights teach nothing */
                                          {"warmup_steps", "2"},
                                          {"device", "cpu"}};
    p4_parameter_counts counts;
    p4_config_recipe(config, P4_RECIPE_QUALITY);
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        DO(p4_config_set(config, keys[i][0], keys[i][1]));
    }
    p4_count_parameters(checkpoint, &counts);
    p4_config_adapt_to_model_size(config, counts.total);
    printf("%lld parameters (%s), %.3f MB\n", (long long)counts.total,
           p4_size_category_name(p4_config_size_category(counts.total)), p4_model_size_mb(checkpoint));
}

static void print_step(const p4_training_point *point, void *user)
{
    if (point->step % 10 == 0) {
        printf("%s %lld: loss %.4f\n", (const char *)user, (long long)point->step, point->loss);
    }
}

/* Trains a compressed model whatever its drop, so that the example shows how; returns the perplexity it ends
 * with. */
static double tune(p4_compressed *model, const p4_loader *loader)
{
    char *summary = NULL, step[] = "step";
    p4_fine_tuning result;
    DO(p4_fine_tune(model, loader, loader, NULL, print_step, step, &result));
    DO(p4_training_summary(&result, &summary));
    EXPECT(strstr(summary, "training_history") != NULL);
    double perplexity = result.best_perplexity;
    free(summary);
    p4_fine_tuning_free(&result);
    return perplexity;
}

/* The packed file gives the same logits as the model in memory. */
static void compare_with_file(p4_compressed *model, p4_session *session, const char *path)
{
    p4_compressed *loaded = NULL;
    int32_t tokens[T];
    size_t count = (size_t)T * (size_t)p4_compressed_vocabulary(model);
    float *logits = (float *)malloc(2 * count * sizeof(float));
    EXPECT(logits != NULL);
    for (int i = 0; i < T; i++) {
        tokens[i] = 3 + i;
    }
    DO(p4_compressed_load(&loaded, session, path));
    DO(p4_compressed_forward(model, tokens, 1, T, logits));
    DO(p4_compressed_forward(loaded, tokens, 1, T, logits + count));
    EXPECT(memcmp(logits, logits + count, count * sizeof(float)) == 0);
    p4_compressed_close(loaded);
    free(logits);
}

static void compress(p4_session *session, const p4_checkpoint *checkpoint, const p4_config *config)
{
    static p4_output_paths paths;
    p4_calib *calib = NULL;
    p4_loader *loader = NULL;
    p4_compressed *model = NULL;
    p4_state state;
    p4_evaluation before, after;
    p4_compression_summary stats;
    double drop = 0;
    bool passed = false;
    char error[256];
    DO(p4_calib_create(&calib, checkpoint, config, NULL));
    DO(p4_loader_create(&loader, session, calib));
    DO(p4_compressed_create(&model, session, checkpoint, config));
    EXPECT(p4_compressed_quantized_state(model, &state) == P4_E_STATE);
    EXPECT(strcmp(p4_last_error(), "Model not compressed yet") == 0);
    DO(p4_compressed_evaluate(model, loader, &before));
    DO(p4_compressed_compress(model));
    DO(p4_compressed_evaluate(model, loader, &after));
    p4_compression_stats(model, &stats);
    printf("perplexity %.2f, quantized %.2f (fine-tuning %s); %.2f times smaller, %.1f %% zeros\n",
           before.perplexity, after.perplexity,
           p4_should_fine_tune(config, before.perplexity, after.perplexity) ? "recommended" : "not needed",
           stats.compression_ratio, 100.0 * stats.sparsity_ratio);
    double tuned = tune(model, loader);
    EXPECT(tuned < after.perplexity);
    printf("fine-tuned %.2f: %s\n", tuned,
           p4_validate_compression_quality(before.perplexity, tuned, config->max_accuracy_drop, &drop)
               ? "passed"
               : "failed");
    DO(p4_test_gradient_flow(model, &passed, error, sizeof error));
    EXPECT(passed && error[0] == '\0');
    DO(p4_compressed_save(model, "compressed", &paths));
    compare_with_file(model, session, paths.quantized);
    printf("wrote %s and %s\n", paths.quantized, paths.primary_output);
    p4_compressed_close(model);
    p4_loader_free(loader);
    p4_calib_free(calib);
}

int main(int argc, char **argv)
{
    static p4_config config;
    p4_session *session = NULL;
    p4_checkpoint *checkpoint = NULL;
    if (argc != 2) {
        fprintf(stderr, "usage: api_example MODEL_DIRECTORY\n");
        return EXIT_FAILURE;
    }
    printf("phase4 %s\n", p4_version());
    write_tokens("tokens.bin");
    DO(p4_session_open(&session));
    DO(p4_checkpoint_open(&checkpoint, argv[1]));
    configure(&config, checkpoint);
    compress(session, checkpoint, &config);
    p4_checkpoint_close(checkpoint);
    p4_session_close(session);
    return EXIT_SUCCESS;
}
