/* metrics.jsonl: one line a measurement, readable at once. */
#include <cjson/cJSON.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "check.h"
#include "io/file/atomic_file.h"
#include "io/file/files.h"
#include "io/out/report.h"

static char directory[P4_PATH_BYTES];

static const char *in_directory(const char *name)
{
    static char path[2 * P4_PATH_BYTES];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    return path;
}

static void expect_lines(const char *path, int want)
{
    char *text = NULL;
    size_t bytes = 0;
    int lines = 0;
    EXPECT_OK(p4_file_read(&text, &bytes, path, 1 << 20));
    char *rest = text;
    for (char *line; text != NULL && (line = strtok_r(rest, "\n", &rest)) != NULL; lines++) {
        cJSON *root = cJSON_Parse(line);
        const cJSON *step = cJSON_GetObjectItemCaseSensitive(root, "step");
        EXPECT(cJSON_IsNumber(step) && step->valuedouble == lines + 1, "line %d: %s", lines + 1, line);
        cJSON_Delete(root);
    }
    EXPECT(lines == want, "%d lines, want %d", lines, want);
    free(text);
}

static void test_metrics_log(void)
{
    char path[2 * P4_PATH_BYTES];
    p4_metrics_log log;
    p4_training_point point = {.step = 1,
                               .epoch = 0,
                               .tokens = 2048,
                               .loss = 3.25,
                               .kl = 0.5,
                               .block_distance = 0.125,
                               .lr = 1e-3,
                               .grad_norm = NAN,
                               .tokens_per_s = 1234.5,
                               .elapsed_s = 0.5};
    snprintf(path, sizeof path, "%s", in_directory("metrics.jsonl"));
    EXPECT_OK(p4_metrics_log_open(&log, path));
    EXPECT_OK(p4_metrics_log_write(&log, &point));
    expect_lines(path, 1); /* flushed: readable during the run */
    point.step = 2;
    EXPECT_OK(p4_metrics_log_write(&log, &point));
    EXPECT_OK(p4_metrics_log_close(&log));
    char *text = NULL;
    size_t bytes = 0;
    EXPECT_OK(p4_file_read(&text, &bytes, path, 1 << 20));
    const char *want = "{\"kind\":\"train\",\"step\":1,\"epoch\":0,\"loss\":3.25,\"kl\":0.5,"
                       "\"block_distance\":0.125,\"lr\":0.001,\"grad_norm\":null,\"tokens\":2048,"
                       "\"tokens_per_s\":1234.5,\"elapsed_s\":0.5}\n";
    EXPECT(text != NULL && strncmp(text, want, strlen(want)) == 0, "got %s", text);
    free(text);
    EXPECT_OK(p4_metrics_log_open(&log, path));
    EXPECT_OK(p4_metrics_log_blocks(
        &log, &(p4_block_loss){.first_block = 2, .blocks = 1, .before = 0.5, .after = 0.25}));
    EXPECT_OK(p4_metrics_log_evaluation(&log, "post", NULL, 0,
                                        &(p4_evaluation){.loss = 3.5,
                                                         .perplexity = INFINITY,
                                                         .perplexity_low = 30.5,
                                                         .perplexity_high = INFINITY,
                                                         .bits_per_byte = 1.25,
                                                         .word_perplexity = 99.5,
                                                         .accuracy = 0.5,
                                                         .kl = NAN,
                                                         .agreement = 0.75,
                                                         .degradation_low = 0.25,
                                                         .degradation_high = NAN,
                                                         .tokens = 7,
                                                         .documents = 3}));
    EXPECT_OK(p4_metrics_log_close(&log));
    EXPECT_OK(p4_file_read(&text, &bytes, path, 1 << 20));
    want =
        "{\"kind\":\"reconstruct\",\"first_block\":2,\"blocks\":1,\"loss_before\":0.5,\"loss_after\":0.25}\n"
        "{\"kind\":\"evaluation\",\"stage\":\"post\",\"step\":0,\"loss\":3.5,\"perplexity\":null,"
        "\"perplexity_low\":30.5,\"perplexity_high\":null,\"bits_per_byte\":1.25,\"word_perplexity\":99.5,"
        "\"accuracy\":0.5,\"kl\":null,\"agreement\":0.75,"
        "\"degradation_low\":0.25,\"degradation_high\":null,\"tokens\":7,\"documents\":3}\n";
    EXPECT(text != NULL && strcmp(text, want) == 0, "got %s", text);
    free(text);
    point.step = 1;
    EXPECT_OK(p4_metrics_log_open(&log, path));
    EXPECT_OK(p4_metrics_log_write(&log, &point));
    EXPECT_OK(p4_metrics_log_close(&log));
    expect_lines(path, 1);
    EXPECT_OK(p4_metrics_log_open(&log, "/dev/full"));
    EXPECT_REFUSED(p4_metrics_log_write(&log, &point),
                   "/dev/full: cannot write: No space left on device (the disk is full)");
    p4_metrics_log_close(&log);
    p4_error_clear();
    EXPECT_REFUSED(p4_metrics_log_open(&log, in_directory("absent/metrics.jsonl")),
                   "No such file or directory");
    EXPECT_OK(p4_metrics_log_close(&log));
}

int main(void)
{
    snprintf(directory, sizeof directory, "%s/phase4_metrics_XXXXXX",
             getenv("TMPDIR") != NULL ? getenv("TMPDIR") : "/tmp");
    EXPECT(mkdtemp(directory) != NULL, "mkdtemp: %s", strerror(errno));
    test_metrics_log();
    EXPECT_OK(p4_remove_tree(directory));
    return TEST_END();
}
