/* What a run hands on in text: results.json, compression_metadata.json, fingerprints, the final table. */
#include <cjson/cJSON.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "io/file/atomic_file.h"
#include "io/file/files.h"
#include "io/file/fingerprint.h"
#include "io/out/report.h"

static char directory[P4_PATH_BYTES];
static p4_config config; /* of the runs of whose results there are tables */

static const char *in_directory(const char *name)
{
    static char path[2 * P4_PATH_BYTES];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    return path;
}

/* The member at a dotted path, NULL when there is none. */
static const cJSON *member(const cJSON *root, const char *dotted)
{
    char path[256];
    snprintf(path, sizeof path, "%s", dotted);
    char *rest = path;
    for (char *key; root != NULL && (key = strtok_r(rest, ".", &rest)) != NULL;) {
        root = cJSON_GetObjectItemCaseSensitive(root, key);
    }
    return root;
}

static void expect_number(const cJSON *root, const char *path, double want)
{
    const cJSON *item = member(root, path);
    EXPECT(cJSON_IsNumber(item) && item->valuedouble == want, "%s is %g, want %g", path,
           item != NULL ? item->valuedouble : NAN, want);
}

static void expect_null(const cJSON *root, const char *path)
{
    EXPECT(cJSON_IsNull(member(root, path)), "%s is not null", path);
}

static void expect_text(const cJSON *root, const char *path, const char *want)
{
    const char *got = cJSON_GetStringValue(member(root, path));
    EXPECT(got != NULL && strcmp(got, want) == 0, "%s is \"%s\", want \"%s\"", path,
           got != NULL ? got : "(none)", want);
}

static void fill_evaluations(p4_results *r)
{
    r->pre =
        (p4_evaluation){.loss = 2.8721, .perplexity = 17.675, .accuracy = 0.431, .kl = NAN, .tokens = 100352};
    r->pre.perplexity_low = 16.9;
    r->pre.perplexity_high = 18.4;
    r->pre.degradation_low = r->pre.degradation_high = NAN;
    r->pre.documents = 57;
    r->pre.bits_per_byte = 0.8125;
    r->pre.word_perplexity = 61.5;
    r->post =
        (p4_evaluation){.loss = 7.0379, .perplexity = 1139.0, .accuracy = 0.1, .kl = 4.2, .tokens = 100352};
    r->final =
        (p4_evaluation){.loss = 2.9, .perplexity = 18.1741, .accuracy = 0.42, .kl = 0.3, .tokens = 100352};
    r->post.degradation_low = 60.1234; /* in percent wider than a column with a decimal */
    r->post.degradation_high = 66.5;
    r->pre.agreement = r->post.agreement = NAN;
    r->final.agreement = 0.875;
    r->final.perplexity_low = 17.4;
    r->final.perplexity_high = 18.9;
    r->final.degradation_low = 0.021;
    r->final.degradation_high = 0.035;
}

static void fill(p4_results *r)
{
    p4_results_init(r);
    r->success = true;
    strcpy(r->model_type, "llama");
    strcpy(r->method, "exact");
    strcpy(r->packing, "base3x5");
    strcpy(r->output_paths.quantized, "out/model.h5");
    strcpy(r->output_paths.dequantized_fp16, "out/dequantized_fp16");
    strcpy(r->output_paths.primary_output, "out/dequantized_fp16");
    fill_evaluations(r);
    r->fine_tuning = (p4_fine_tuning){.ran = true,
                                      .epochs_completed = 2,
                                      .steps = 500,
                                      .tokens = 1024000,
                                      .final_loss = 2.9,
                                      .final_perplexity = 18.1741,
                                      .best_perplexity = 18.1741};
    for (int64_t i = 0; i < 40; i++) {
        const p4_history_entry entry = {i / 20, i, 3.0, i == 0 ? NAN : 2.9, 18.0};
        EXPECT_OK(p4_fine_tuning_add_history(&r->fine_tuning, &entry));
    }
    r->reconstruction = (p4_reconstruction){.ran = true, .tokens = 65536, .steps = 400, .seconds = 32.5};
    r->reconstruction.losses = p4_alloc(2, sizeof *r->reconstruction.losses);
    r->reconstruction.losses_count = 2;
    r->reconstruction.losses[0] =
        (p4_block_loss){.first_block = 0, .blocks = 2, .before = 0.25, .after = 0.03};
    r->reconstruction.losses[1] =
        (p4_block_loss){.first_block = 2, .blocks = 1, .before = 0.375, .after = 0.0625};
    p4_provenance *p = &r->provenance;
    *p = (p4_provenance){.started = "2026-01-31T12:00:00Z",
                         .device = "cuda",
                         .ranks = 3,
                         .threads = 8,
                         .mpi = "Open MPI v4.1.4",
                         .continued = 2,
                         .checkpoint = "out/checkpoints/step-40",
                         .checkpoint_step = 40,
                         .place_count = 2};
    p->places = p4_alloc(2, sizeof *p->places);
    p->places[0] = (p4_place){.host = "n1", .device = "NVIDIA H200", .ranks = 2};
    p->places[1] = (p4_place){.host = "n2", .device = "NVIDIA H200", .first_rank = 2, .ranks = 1};
    EXPECT_OK(p4_provenance_add_input(p, "the training text", "crc32:1:2"));
    r->gradient_flow = (p4_gradient_flow){.ran = true, .passed = true, .tensors_checked = 75};
    r->quality = (p4_quality){.passed = true,
                              .degradation_ratio = 0.0282377,
                              .degradation_low = 0.021,
                              .degradation_high = 0.035,
                              .max_accuracy_drop = 0.1};
    r->metrics = (p4_size_metrics){.total_params = 70553706496,
                                   .layers_quantized = 28,
                                   .layers_preserved = 20,
                                   .original_size_mb = 32.0,
                                   .stored_size_mb = 16.0,
                                   .compressed_size_mb = 8.0,
                                   .stored_files_mb = 17.0,
                                   .packed_file_mb = 8.5,
                                   .stored_files_ratio = 2.0,
                                   .compression_ratio = 4.0,
                                   .target_compression_ratio = 8.0,
                                   .sparsity_ratio = 0.46,
                                   .ternary_mb = 2.0,
                                   .scales_mb = 0.5,
                                   .embedding_mb = 3.0,
                                   .head_mb = 2.0,
                                   .other_mb = 0.5,
                                   .peak_memory_mb = 812.5};
    EXPECT_OK(p4_results_add_time(r, "load", 1.5));
    EXPECT_OK(p4_results_add_time(r, "fine_tune", 61.0));
    EXPECT_OK(p4_results_add_time(r, "load", 0.5));
    r->total_s = 3725.0;
}

static cJSON *json_of(const p4_results *results)
{
    char *json = NULL;
    EXPECT_OK(p4_results_to_json(results, &json));
    cJSON *root = json != NULL ? cJSON_Parse(json) : NULL;
    EXPECT(root != NULL, "results are no JSON: %s", json != NULL ? json : "nothing");
    free(json);
    return root;
}

static void test_full_results(void)
{
    p4_results results;
    fill(&results);
    cJSON *root = json_of(&results);
    EXPECT(cJSON_IsTrue(member(root, "success")), "success");
    expect_text(root, "phase", "phase4_bitnet");
    expect_null(root, "error");
    expect_text(root, "provenance.started", "2026-01-31T12:00:00Z");
    expect_null(root, "provenance.ended");
    expect_text(root, "provenance.device", "cuda");
    expect_number(root, "provenance.ranks", 3);
    expect_number(root, "provenance.threads_per_rank", 8);
    expect_text(root, "provenance.versions.mpi", "Open MPI v4.1.4");
    expect_null(root, "provenance.versions.nccl");
    expect_number(root, "provenance.continued.times", 2);
    expect_number(root, "provenance.continued.step", 40);
    expect_text(root, "provenance.continued.checkpoint", "out/checkpoints/step-40");
    const cJSON *hosts = member(root, "provenance.hosts");
    EXPECT(cJSON_GetArraySize(hosts) == 2, "%d hosts", cJSON_GetArraySize(hosts));
    expect_text(cJSON_GetArrayItem(hosts, 1), "host", "n2");
    expect_number(cJSON_GetArrayItem(hosts, 1), "first_rank", 2);
    expect_number(cJSON_GetArrayItem(hosts, 0), "ranks", 2);
    expect_text(cJSON_GetArrayItem(hosts, 0), "device", "NVIDIA H200");
    expect_text(cJSON_GetArrayItem(member(root, "provenance.inputs"), 0), "name", "the training text");
    expect_text(root, "output_paths.quantized", "out/model.h5");
    expect_text(root, "output_paths.primary_output", "out/dequantized_fp16");
    expect_text(root, "output_paths.dequantized_fp16", "out/dequantized_fp16");
    expect_null(root, "output_paths.tokenizer");
    expect_number(root, "pre_compression.loss", 2.8721);
    expect_number(root, "pre_compression.tokens", 100352);
    expect_null(root, "pre_compression.kl");
    expect_null(root, "pre_compression.agreement");
    expect_number(root, "final.agreement", 0.875);
    expect_number(root, "post_compression.kl", 4.2);
    expect_number(root, "final.accuracy", 0.42);
    expect_number(root, "reconstruction.blocks", 3);
    expect_number(root, "reconstruction.tokens", 65536);
    expect_number(root, "reconstruction.steps", 400);
    expect_number(root, "reconstruction.seconds", 32.5);
    const cJSON *losses = member(root, "reconstruction.losses");
    EXPECT(cJSON_GetArraySize(losses) == 2, "%d losses", cJSON_GetArraySize(losses));
    expect_number(cJSON_GetArrayItem(losses, 1), "first_block", 2);
    expect_number(cJSON_GetArrayItem(losses, 0), "blocks", 2);
    expect_number(cJSON_GetArrayItem(losses, 1), "loss_before", 0.375);
    expect_number(cJSON_GetArrayItem(losses, 0), "loss_after", 0.03);
    expect_number(root, "fine_tuning.epochs_completed", 2);
    expect_number(root, "fine_tuning.best_perplexity", 18.1741);
    const cJSON *history = member(root, "fine_tuning.training_history");
    EXPECT(cJSON_GetArraySize(history) == 40, "%d entries", cJSON_GetArraySize(history));
    expect_null(cJSON_GetArrayItem(history, 0), "eval_loss");
    expect_number(cJSON_GetArrayItem(history, 39), "step", 39);
    EXPECT(cJSON_IsTrue(member(root, "gradient_flow_test.passed")), "gradient flow");
    expect_number(root, "gradient_flow_test.tensors_checked", 75);
    EXPECT(cJSON_IsTrue(member(root, "quality.passed")), "quality");
    expect_number(root, "quality.max_accuracy_drop", 0.1);
    expect_number(root, "metrics.total_params", 70553706496);
    expect_number(root, "metrics.embedding_mb", 3.0);
    expect_number(root, "metrics.packed_file_mb", 8.5);
    expect_number(root, "metrics.stored_files_mb", 17.0);
    expect_number(root, "metrics.stored_files_ratio", 2.0);
    expect_number(root, "metrics.peak_memory_mb", 812.5);
    expect_number(root, "timing.load", 2.0);
    expect_number(root, "timing.total", 3725.0);
    cJSON_Delete(root);
    p4_results_free(&results);
}

static void test_results_of_little(void)
{
    p4_results results;
    p4_results_init(&results);
    snprintf(results.error, sizeof results.error, "cfg \"x\"\n\xff\xc3 stops");
    results.post.perplexity = INFINITY;
    cJSON *root = json_of(&results);
    EXPECT(cJSON_IsFalse(member(root, "success")), "success");
    expect_text(root, "error", "cfg \"x\"\n?? stops");
    expect_null(root, "pre_compression.loss");
    expect_null(root, "post_compression.perplexity");
    expect_null(root, "provenance");
    expect_null(root, "reconstruction");
    expect_null(root, "fine_tuning");
    expect_null(root, "quality.passed");
    expect_null(root, "quality.degradation_ratio");
    expect_null(root, "gradient_flow_test.passed");
    expect_null(root, "metrics.compressed_size_mb");
    cJSON_Delete(root);
    for (int i = 0; i < P4_MAX_STAGES; i++) {
        char stage[32];
        snprintf(stage, sizeof stage, "stage%d", i);
        EXPECT_OK(p4_results_add_time(&results, stage, 1.0));
    }
    EXPECT_REFUSED(p4_results_add_time(&results, "one_more", 1.0), "finds no place");
    EXPECT_OK(p4_results_write(&results, in_directory("results.json")));
    EXPECT(!p4_file_exists(in_directory("results.json.tmp")), "a temporary file is left");
    EXPECT_REFUSED(p4_results_write(&results, in_directory("absent/results.json")),
                   "No such file or directory");
    p4_results_free(&results);
}

static void expect_in_table(const p4_results *results, const char *const *parts, size_t count)
{
    char *table = NULL;
    size_t bytes = 0;
    FILE *stream = open_memstream(&table, &bytes);
    p4_report_table(stream, results, &config);
    fclose(stream);
    for (size_t i = 0; i < count; i++) {
        EXPECT(strstr(table, parts[i]) != NULL, "the table lacks \"%s\":\n%s", parts[i], table);
    }
    free(table);
}

static void test_table(void)
{
    p4_results results;
    fill(&results);
    const char *const passed[] = {
        "70,553,706,496 parameters",
        "ternary by \"exact\", packed as base3x5\n",
        "packed model                   8.00 MiB   the file: 8.50 MiB, with statistics, measurements and "
        "any tokenizer\n",
        "4.00x   against fp32; target 8.0x: not ",
        "reached; largest in the packed model: ternary weights 25 %, embedding 38 %, output head 25 %\n",
        "      against the stored files        2.00x   17.00 MiB to 8.50 MiB\n",
        "17.675     1139.000       18.174",
        "6344.1 %",
        "46.0 %   zeros among the ternary weights\n    tensors                    28 ternary, 20 kept",
        "400 steps per set of 2 blocks on 65,536 tokens, 32.5 s; error of the last block 0.375 -> 0.0625",
        "2 epochs, 500 steps, 1,024,000 tokens",
        "passed: 75 tensors",
        "812 MiB",
        "1 h 02 min, of 3 processes\n    Fine-tune                     1 min 01 s\n",
        "  Outputs\n    packed model               out/model.h5\n"
        "    fp16 model                 out/dequantized_fp16 (for other programs)\n\n",
        "95 % interval            16.90..18.40",
        "bits per byte                    0.8125",
        "perplexity per word              61.500",
        "- 6012..6650 %   2.1..3.5 %\n",
        "measured on 100,352 tokens of 57 documents",
        "PASSED: perplexity rose by 2.8 % (95 % interval: +2.1 to +3.5 %), a rise of 10.0 % is allowed"};
    expect_in_table(&results, passed, sizeof passed / sizeof passed[0]);

    results.quality = (p4_quality){.passed = false,
                                   .degradation_ratio = 0.37,
                                   .degradation_low = NAN,
                                   .degradation_high = NAN,
                                   .max_accuracy_drop = 0.1};
    results.metrics.target_compression_ratio = 4.0;
    results.fine_tuning.ran = false;
    const char *const failed[] = {"FAILED: perplexity rose by 37.0 %, a rise", "target 4.0x: reached",
                                  "Fine-tuning     not run",
                                  "What to try     more calibration_samples (now 0)"};
    expect_in_table(&results, failed, sizeof failed / sizeof failed[0]);

    p4_results_free(&results);
    results.fine_tuning = (p4_fine_tuning){.ran = true, .epochs_completed = 1, .steps = 1, .tokens = 1};
    results.gradient_flow.tensors_checked = results.pre.documents = results.pre.tokens = 1;
    const char *const single[] = {"1 epoch, 1 step, 1 token;", "passed: 1 tensor gets a",
                                  "measured on 1 token of 1 document\n"};
    expect_in_table(&results, single, sizeof single / sizeof single[0]);

    results.output_paths.quantized[0] = '\0';
    const char *const unpacked[] = {"ternary by \"exact\"\n",
                                    "packed model                not written\n    sparsity"};
    expect_in_table(&results, unpacked, sizeof unpacked / sizeof unpacked[0]);
    p4_results_free(&results);

    p4_results_init(&results);
    results.success = true;
    const char *const unmeasured[] = {"perplexity                            -            -            -",
                                      "NONE: perplexity was not measured", "not tested"};
    expect_in_table(&results, unmeasured, sizeof unmeasured / sizeof unmeasured[0]);
    results.success = false;
    strcpy(results.error, "the disk is full");
    const char *const broken[] = {"THE RUN FAILED: the disk is full"};
    expect_in_table(&results, broken, 1);
}

/* Verdicts by something other than a rise in perplexity. */
static void test_verdicts(void)
{
    p4_results results;
    cJSON *root;
    fill(&results);
    results.gradient_flow = (p4_gradient_flow){.ran = true, .error = "the gradient of x is zero"};
    results.quality.passed = false;
    const char *const no_flow[] = {"FAILED: the gradient of x is zero",
                                   "FAILED: perplexity rose by 2.8 % (95 % interval: +2.1 to +3.5 %), a rise "
                                   "of 10.0 % is allowed; the gradient-flow test failed"};
    expect_in_table(&results, no_flow, sizeof no_flow / sizeof no_flow[0]);
    results.quality.degradation_ratio = NAN; /* passed is false, not null */
    root = json_of(&results);
    EXPECT(cJSON_IsFalse(member(root, "quality.passed")), "quality.passed");
    cJSON_Delete(root);

    results.gradient_flow.passed = true;
    results.quality.degradation_ratio = results.final.perplexity = INFINITY;
    const char *const infinite[] = {"17.675     1139.000     infinite", "FAILED: perplexity became infinite"};
    expect_in_table(&results, infinite, sizeof infinite / sizeof infinite[0]);
    results.quality.degradation_ratio = NAN;
    results.pre.perplexity = INFINITY;
    const char *const hopeless[] = {"infinite     1139.000     infinite",
                                    "NONE: the original's perplexity is infinite"};
    expect_in_table(&results, hopeless, sizeof hopeless / sizeof hopeless[0]);
    p4_results_free(&results);
}

static void test_metadata(void)
{
    p4_results results;
    p4_metadata saved, loaded;
    char fingerprint[P4_FINGERPRINT_BYTES];
    fill(&results);
    EXPECT_OK(p4_atomic_write_all(in_directory("input.bin"), "hello", 5));
    p4_metadata_init(&saved);
    EXPECT_OK(p4_metadata_take_results(&saved, &results));
    strcpy(saved.producer, "phase4 1.0.0");
    saved.bits = 1.58;
    saved.config_json = p4_strdup("{\"seed\": 18446744073709551615, \"recipe\": \"quality\"}");
    EXPECT_OK(p4_provenance_print(&results.provenance, &saved.provenance_json));
    EXPECT_OK(p4_metadata_add_input(&saved, in_directory("input.bin")));
    EXPECT_REFUSED(p4_metadata_add_input(&saved, in_directory("absent.bin")), "absent.bin");
    EXPECT_OK(p4_metadata_save(directory, &saved));
    EXPECT_OK(p4_metadata_load(&loaded, directory));
    EXPECT(strcmp(loaded.method, "exact") == 0 && strcmp(loaded.packing, "base3x5") == 0 &&
               strcmp(loaded.model_type, "llama") == 0 && strcmp(loaded.producer, saved.producer) == 0 &&
               strcmp(loaded.created, saved.created) == 0,
           "texts differ");
    EXPECT(loaded.bits == 1.58 && loaded.final_perplexity == 18.1741, "numbers differ");
    EXPECT(memcmp(&loaded.metrics, &saved.metrics, sizeof loaded.metrics) == 0, "metrics differ");
    EXPECT(loaded.config_json != NULL && strstr(loaded.config_json, "\"quality\"") != NULL &&
               strstr(loaded.config_json, "18446744073709551615") != NULL,
           "the configuration became %s", loaded.config_json);
    EXPECT(loaded.provenance_json != NULL && strstr(loaded.provenance_json, "the training text") != NULL,
           "the provenance became %s", loaded.provenance_json);
    p4_fingerprint_text(fingerprint, "hello");
    EXPECT(loaded.input_count == 1 && strcmp(loaded.inputs[0].fingerprint, fingerprint) == 0,
           "fingerprint differs");
    p4_metadata_free(&loaded);
    p4_metadata_free(&saved);
    p4_results_free(&results);
}

static void test_hostile_metadata(void)
{
#define HEAD "{\"format\": \"phase4-compression-metadata\", \"format_version\": 1, "
    static const struct {
        const char *json, *expected;
    } cases[] = {
        {"", "byte 0: not valid JSON"},
        {"[1]", "the JSON value is not an object"},
        {"{\"format\": 3}", "format is not a text"},
        {"{\"format\": \"x\"}", "its format is \"x\""},
        {"{\"format\": \"phase4-compression-metadata\", \"format_version\": 2}", "format version 2"},
        {HEAD "\"method\": {}}", "method is not a text"},
        {HEAD "\"bits\": \"1.58\", \"metrics\": {}, \"perplexity\": {}}", "bits is not a number"},
        {HEAD "\"metrics\": 1}", "has no object metrics"},
        {HEAD "\"metrics\": {}}", "has no object perplexity"},
        {HEAD "\"metrics\": {\"total_params\": 1e300}, \"perplexity\": {}}",
         "total_params is not a whole number"},
        {HEAD "\"metrics\": {\"total_params\": -1}, \"perplexity\": {}}",
         "total_params is not a whole number"},
        {HEAD "\"metrics\": {\"head_mb\": \"1\"}, \"perplexity\": {}}", "head_mb is not a number"},
        {HEAD "\"metrics\": {}, \"perplexity\": {\"pre\": []}}", "pre is not a number"},
        {HEAD "\"metrics\": {}, \"perplexity\": {}, \"config\": []}", "config is not an object"},
        {HEAD "\"metrics\": {}, \"perplexity\": {}, \"config\": {}, \"provenance\": 1}",
         "provenance is not an object"},
        {HEAD "\"metrics\": {}, \"perplexity\": {}, \"config\": {}, \"inputs\": {}}", "inputs is not a list"},
        {HEAD "\"metrics\": {}, \"perplexity\": {}, \"inputs\": [{\"path\": 1}]}", "entry 0 of inputs"},
    };
    p4_metadata metadata;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        EXPECT_REFUSED(p4_metadata_parse(&metadata, cases[i].json, strlen(cases[i].json), "m.json"),
                       cases[i].expected);
        EXPECT(metadata.config_json == NULL && metadata.provenance_json == NULL && metadata.inputs == NULL,
               "memory is left of a refused text");
    }
    static const char good[] = HEAD "\"metrics\": {}, \"perplexity\": {\"pre\": null}}";
    EXPECT_OK(p4_metadata_parse(&metadata, good, sizeof good - 1, "m.json"));
    EXPECT(isnan(metadata.pre_perplexity) && metadata.metrics.total_params == 0, "absent numbers");
    p4_metadata_free(&metadata);
    char deep[4000];
    memset(deep, '[', sizeof deep);
    EXPECT_REFUSED(p4_metadata_parse(&metadata, deep, sizeof deep, "m.json"),
                   "not valid JSON, or nested deeper");
    EXPECT_REFUSED(p4_metadata_load(&metadata, in_directory("absent")), "compression_metadata.json");
#undef HEAD
}

static void test_fingerprints(void)
{
    enum { MIB = 1 << 20, LARGE = 40 * MIB + 12345 };
    char text[P4_FINGERPRINT_BYTES], first[P4_FINGERPRINT_BYTES], other[P4_FINGERPRINT_BYTES];
    const char *path = in_directory("large.bin");
    p4_fingerprint_text(text, "123456789");
    EXPECT(strcmp(text, "crc32:cbf43926:9") == 0, "%s", text); /* the check value of CRC-32 */
    EXPECT_OK(p4_atomic_write_all(path, "123456789", 9));
    EXPECT_OK(p4_fingerprint_file(first, path));
    EXPECT(strcmp(text, first) == 0, "file %s, text %s", first, text);
    uint8_t *bytes = p4_alloc(LARGE, 1);
    const int64_t stride = (LARGE - MIB) / 15;
    /* In each of the 16 blocks, at both ends of the file, and between two blocks, where no change is seen. */
    const int64_t seen[] = {0, MIB - 1, stride, 7 * stride + 100, 14 * stride, LARGE - MIB, LARGE - 1};
    EXPECT_OK(p4_atomic_write_all(path, bytes, LARGE));
    EXPECT_OK(p4_fingerprint_file(first, path));
    EXPECT(strncmp(first, "crc32x16:", 9) == 0, "%s", first);
    for (size_t i = 0; i < sizeof seen / sizeof seen[0]; i++) {
        bytes[seen[i]] ^= 1;
        EXPECT_OK(p4_atomic_write_all(path, bytes, LARGE));
        EXPECT_OK(p4_fingerprint_file(other, path));
        EXPECT(strcmp(first, other) != 0, "a change at byte %lld is not seen", (long long)seen[i]);
        bytes[seen[i]] ^= 1;
    }
    bytes[MIB + 10] ^= 1;
    EXPECT_OK(p4_atomic_write_all(path, bytes, LARGE));
    EXPECT_OK(p4_fingerprint_file(other, path));
    EXPECT(strcmp(first, other) == 0, "what is read is not what the header says");
    EXPECT_REFUSED(p4_fingerprint_file(other, directory), "not a regular file");
    free(bytes);
    unlink(path);
}

int main(void)
{
    snprintf(directory, sizeof directory, "%s/phase4_report_XXXXXX",
             getenv("TMPDIR") != NULL ? getenv("TMPDIR") : "/tmp");
    EXPECT(mkdtemp(directory) != NULL, "mkdtemp: %s", strerror(errno));
    test_full_results();
    test_results_of_little();
    test_table();
    test_verdicts();
    test_metadata();
    test_hostile_metadata();
    test_fingerprints();
    EXPECT_OK(p4_remove_tree(directory));
    return TEST_END();
}
