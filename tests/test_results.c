/* results.json: the reason that it gives where a text has no bits per byte or no perplexity per word. */
#include <cjson/cJSON.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "io/out/report.h"
#include "io/out/warnings.h"
#include "src/phase4.h"

/* why_no_bits_per_byte of the evaluation text, and of a set that was evaluated in the same way. */
static void expect_reason(p4_evaluation pre, const char *want)
{
    static p4_results results;
    results = (p4_results){.success = true, .pre = pre, .set_count = 1};
    char *json = NULL;
    results.sets[0].pre = pre;
    EXPECT_OK(p4_results_print(&results, &json));
    cJSON *root = cJSON_Parse(json);
    const cJSON *sets = cJSON_GetObjectItemCaseSensitive(root, "eval_sets");
    const cJSON *places[] = {root, cJSON_GetArrayItem(sets, 0)};
    for (int i = 0; i < 2; i++) {
        const cJSON *item = cJSON_GetObjectItemCaseSensitive(places[i], "why_no_bits_per_byte");
        const char *text = cJSON_GetStringValue(item);
        EXPECT(item != NULL &&
                   (want == NULL ? cJSON_IsNull(item) : text != NULL && strstr(text, want) != NULL),
               "place %d: \"%s\", expected \"%s\"", i, text != NULL ? text : "null",
               want != NULL ? want : "null");
    }
    cJSON_Delete(root);
    free(json);
}

/* Each warning once and without what stands in front of it; more than fit are counted, also once. */
static void test_warnings(void)
{
    static p4_results results;
    p4_warnings warnings;
    char text[64];
    p4_results_init(&results);
    p4_warnings_open(&warnings);
    p4_warnings_add(&warnings, "warning: the disk is nearly full");
    p4_warnings_copy(&warnings, &results);
    p4_warnings_add(&warnings, "the disk is nearly full");
    for (int i = 0; i < 2 * (P4_WARNINGS_MAX + 4); i++) {
        snprintf(text, sizeof text, "warning: number %d", i / 2);
        p4_warnings_add(&warnings, text);
    }
    p4_warnings_copy(&warnings, &results);
    p4_warnings_close(&warnings);
    EXPECT(results.warning_count == P4_WARNINGS_MAX + 5, "%lld warnings", (long long)results.warning_count);
    char *json = NULL;
    EXPECT_OK(p4_results_print(&results, &json));
    cJSON *root = cJSON_Parse(json);
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(root, "warnings");
    EXPECT(cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(root, "warning_count")) ==
               P4_WARNINGS_MAX + 5,
           "results.json counts others");
    const char *first = cJSON_GetStringValue(cJSON_GetArrayItem(list, 0)),
               *last = cJSON_GetStringValue(cJSON_GetArrayItem(list, P4_WARNINGS_MAX));
    EXPECT(cJSON_GetArraySize(list) == P4_WARNINGS_MAX + 1, "%d entries", cJSON_GetArraySize(list));
    EXPECT(first != NULL && strcmp(first, "the disk is nearly full") == 0, "the first is \"%s\"", first);
    EXPECT(last != NULL && strcmp(last, "and 5 more, which the log has") == 0, "the last is \"%s\"", last);
    cJSON_Delete(root);
    free(json);
    p4_results_free(&results);
    EXPECT(results.warning_count == 0 && results.warnings[0] == NULL, "warnings that were freed");
}

static void test_next_steps(void)
{
    static const struct {
        p4_next_values now;
        const char *part;
    } cases[] = {
        {{1, 64, 1, 100, 2, 0, 0},
         "more calibration_samples (now 64), more text in train_files (now 1 entry), a longer fine-tuning: "
         "fine_tune_max_steps (now 100); docs"},
        {{1, 64, 0, 0, 2, 0, 0},
         "train_files (now none: the calibration text), a longer fine-tuning: fine_tune_epochs (now 2); "
         "docs"},
        {{0, 64, 3, 100, 2, 0, 0}, "(now 3 entries), fine-tuning: enable_fine_tuning (now false); docs"},
        {{1, 64, 1, 100, 2, 0.04, 100},
         "(now 64), a longer fine-tuning: fine_tune_max_steps (now 100); docs"},
        {{1, 64, 1, 40, 2, 2, 24}, "a longer fine-tuning: fine_tune_epochs (now 2); docs"},
        {{1, 64, 1, 40, 2, 2, 40},
         "a longer fine-tuning: fine_tune_max_steps (now 40) and fine_tune_epochs (now 2); docs"},
        {{1, 64, 1, 100, 2, 1.5, 100}, "(now 64), more text in train_files (now 1 entry), a longer"},
        {{-1, -1, -1, -1, -1, -1, -1},
         "more calibration_samples, more text in train_files, a longer fine-tuning: fine_tune_max_steps; "
         "docs"},
    };
    char text[P4_NEXT_STEPS_BYTES];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        EXPECT(strstr(p4_next_steps(text, &cases[i].now), cases[i].part) != NULL, "%s", text);
    }
}

static void *warn(void *user)
{
    char text[64];
    for (int i = 0; i < 400; i++) {
        snprintf(text, sizeof text, "warning: number %d", i % 100);
        p4_warnings_add(user, text);
    }
    return NULL;
}

/* Threads that warn while the results are written. */
static void test_warnings_of_threads(void)
{
    enum { THREADS = 3 };
    static p4_results results;
    p4_warnings warnings;
    pthread_t threads[THREADS];
    p4_results_init(&results);
    p4_warnings_open(&warnings);
    for (int t = 0; t < THREADS; t++) {
        EXPECT(pthread_create(&threads[t], NULL, warn, &warnings) == 0, "no thread");
    }
    for (int i = 0; i < 100; i++) {
        p4_warnings_copy(&warnings, &results);
        for (int64_t k = 0; k < p4_min_i64(results.warning_count, P4_WARNINGS_MAX); k++) {
            EXPECT(strncmp(results.warnings[k], "number ", 7) == 0, "\"%s\"", results.warnings[k]);
        }
    }
    for (int t = 0; t < THREADS; t++) {
        pthread_join(threads[t], NULL);
    }
    p4_warnings_copy(&warnings, &results);
    EXPECT(results.warning_count == 100, "%lld warnings", (long long)results.warning_count);
    for (int i = 0; i < 2 * P4_WARNINGS_TOLD_APART; i++) {
        char text[64];
        snprintf(text, sizeof text, "another, %d", i);
        p4_warnings_add(&warnings, text);
    }
    p4_warnings_copy(&warnings, &results);
    EXPECT(results.warning_count == P4_WARNINGS_TOLD_APART, "%lld warnings",
           (long long)results.warning_count);
    p4_warnings_close(&warnings);
    p4_results_free(&results);
}

int main(void)
{
    test_warnings();
    test_warnings_of_threads();
    test_next_steps();
    p4_evaluation e = {.loss = 2, .perplexity = 7.4, .bits_per_byte = 1, .word_perplexity = 99, .tokens = 10};
    e.documents = 3;
    expect_reason(e, NULL);
    e.word_perplexity = INFINITY;
    expect_reason(e, "too few words");
    e.bits_per_byte = INFINITY;
    expect_reason(e, "empty texts");
    e.bits_per_byte = e.word_perplexity = NAN;
    expect_reason(e, "are token ids without their text");
    e.documents = 0;
    expect_reason(e, "an earlier version");
    e.tokens = 0;
    expect_reason(e, NULL);
    return TEST_END();
}
