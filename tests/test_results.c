/* results.json: the reason that it gives where a text has no bits per byte or no perplexity per word. */
#include <cjson/cJSON.h>
#include <stdlib.h>

#include "check.h"
#include "io/out/report.h"
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

int main(void)
{
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
