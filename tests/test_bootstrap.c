/* Which document each predicted token is of (io/text/window_parts.h), and intervals by resampling documents
 * (jobs/train/bootstrap.h). */
#include "byte_tokenizer.h"
#include "dataset_world.h"
#include "io/text/window_parts.h"
#include "io/text/words.h"
#include "jobs/train/bootstrap.h"
#include "src/leaf/rng.h"

#include <math.h>

static void expect_parts(const p4_windows *windows, const p4_window_part *expected, int64_t count)
{
    EXPECT(windows->part_count == count, "%lld parts, expected %lld", (long long)windows->part_count,
           (long long)count);
    for (int64_t i = 0; i < count && i < windows->part_count; i++) {
        const p4_window_part *p = &windows->parts[i], *e = &expected[i];
        EXPECT(p->window == e->window && p->document == e->document && p->from == e->from && p->to == e->to,
               "part %lld: window %lld, document %lld, tokens %lld to %lld", (long long)i,
               (long long)p->window, (long long)p->document, (long long)p->from, (long long)p->to);
    }
    EXPECT(windows->part_documents == expected[count - 1].document + 1, "%lld documents",
           (long long)windows->part_documents);
}

/* ab. | c. | an empty one. | defghij.   in windows of 4: ab.c ..de fghi (j. is dropped) */
static const p4_window_part of_samples[] = {
    {0, 0, 1, 3}, {0, 1, 3, 4}, {1, 2, 1, 2}, {1, 3, 2, 4}, {2, 3, 1, 4}};

static void documents_of_text_are_told_apart(void)
{
    static const char *const samples[] = {"ab", "c", "", "defghij"};
    p4_windowing how = windowing(4, 1);
    p4_windows windows, aside;
    EXPECT_OK(p4_windows_from_samples(&windows, samples, 4, &how, 0));
    expect_parts(&windows, of_samples, 5);
    p4_text_share share = p4_window_parts_text(&windows); /* of 3, 2, 1 and 8 tokens */
    EXPECT_NEAR(share.bytes, 2 * 2 / 3.0 + 1 / 2.0 + 0 + 7 * 5 / 8.0, 1e-12);
    EXPECT_NEAR(share.words, 2 / 3.0 + 1 / 2.0 + 1 + 5 / 8.0, 1e-12);
    /* Both keep the documents apart that they have. */
    EXPECT_OK(p4_windows_set_aside(&windows, &aside, 1, 0));
    EXPECT(aside.part_count + windows.part_count == 5 && windows.count == 2, "%lld and %lld parts",
           (long long)aside.part_count, (long long)windows.part_count);
    int64_t predicted = 0;
    for (int64_t i = 0; i < windows.part_count; i++) {
        const p4_window_part *p = &windows.parts[i];
        EXPECT(p->window < 2 && p->document < windows.part_documents, "window %lld", (long long)p->window);
        predicted += p->to - p->from;
    }
    EXPECT(predicted == 2 * 3, "%lld tokens of the rest are predicted", (long long)predicted);
    p4_windows_free(&windows);
    p4_windows_free(&aside);
    /* Without an end-of-text id too. abc|d efgh ij */
    how.end_id = -1;
    static const p4_window_part plain[] = {{0, 0, 1, 2}, {0, 1, 2, 3}, {0, 2, 3, 4}, {1, 2, 1, 4}};
    EXPECT_OK(p4_windows_from_samples(&windows, samples, 4, &how, 0));
    expect_parts(&windows, plain, 4);
    p4_windows_free(&windows);
}

/* The same tokens from a file, in which only the end-of-text id separates documents. */
static void documents_of_token_files_are_told_apart(void)
{
    static const uint16_t ids[] = {'a', 'b', END, 'c', END, END, 'd', 'e', 'f', 'g', 'h', 'i', 'j', END};
    char *path = p4_strdup(put("parts.bin", ids, sizeof ids));
    p4_windowing how = windowing(4, 1);
    p4_windows windows;
    EXPECT_OK(p4_windows_read(&windows, &path, 1, &how, 0));
    expect_parts(&windows, of_samples, 5);
    EXPECT(isnan(p4_window_parts_text(&windows).bytes), "%g", p4_window_parts_text(&windows).bytes);
    p4_windows_free(&windows);
    how.end_id = -1;
    static const p4_window_part whole[] = {{0, 0, 1, 4}, {1, 0, 1, 4}, {2, 0, 1, 4}};
    EXPECT_OK(p4_windows_read(&windows, &path, 1, &how, 0));
    expect_parts(&windows, whole, 3);
    p4_windows_free(&windows);
    free(path);
}

/* Text behind a file of token ids, with an empty document at its end. */
static void documents_of_text_behind_token_ids_are_known(void)
{
    static const uint16_t ids[] = {'a', 'b', 'c', 'd', 'e', 'f'};
    static const char text[] = "{\"text\": \"ghij\"}\n{\"text\": \"\"}\n";
    char *paths[] = {p4_strdup(put("ids.bin", ids, sizeof ids)),
                     p4_strdup(put("text.jsonl", text, sizeof text - 1))};
    static const p4_window_part parts[] = {{0, 0, 1, 4}, {1, 0, 1, 2}, {1, 1, 2, 4}};
    p4_windowing how = windowing(4, 1);
    p4_windows windows;
    how.end_id = -1;
    EXPECT_OK(p4_windows_read(&windows, paths, 2, &how, 0));
    expect_parts(&windows, parts, 3);
    EXPECT(windows.part_documents == 2 && windows.texts[0].bytes == -1 && windows.texts[1].bytes == 4,
           "%lld bytes", (long long)windows.texts[1].bytes);
    p4_windows_free(&windows);
    free(paths[0]);
    free(paths[1]);
}

/* A long document of a file of token ids is one in windows side by side, and counts as several in windows far
 * apart. */
static void long_documents_of_token_files(void)
{
    enum { TOKENS_ALL = 64 * P4_DOCUMENT_SEARCH_TOKENS, DRAWN = 4 };
    uint16_t *ids = p4_alloc(TOKENS_ALL, sizeof *ids);
    for (int i = 0; i < TOKENS_ALL; i++) {
        ids[i] = 'a';
    }
    char *path = p4_strdup(put("long.bin", ids, TOKENS_ALL * sizeof *ids));
    p4_windowing how = windowing(512, 1);
    p4_windows windows;
    EXPECT_OK(p4_windows_read(&windows, &path, 1, &how, 0));
    EXPECT(windows.part_documents == 1, "%lld documents", (long long)windows.part_documents);
    p4_windows_free(&windows);
    EXPECT_OK(p4_windows_read(&windows, &path, 1, &how, DRAWN));
    EXPECT(windows.part_documents == DRAWN, "%lld documents", (long long)windows.part_documents);
    p4_windows_free(&windows);
    free(path);
    free(ids);
}

/* As len(re.split(r"\\s+", text)) in Python, whole and in two pieces at any place between characters. */
static void words_are_counted(void)
{
    static const struct {
        const char *text;
        int64_t words;
    } cases[] = {
        {"", 1},
        {"a", 1},
        {" a", 2},
        {"a ", 2},
        {" \n ", 2},
        {"a b\t\nc", 3},
        {"a\u00a0b\xc2\x85"
         "c",
         3},
        {"x\u2003\u2009y\u3000z\u200bw", 3},
        {"caf\u00e9 \u00e0\u2028 b\x1c"
         "c\x1f"
         "d",
         5},
        {"= Title = \n\n one two . \n", 7},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *text = cases[i].text;
        EXPECT(p4_white_runs_count(text, strlen(text)).count + 1 == cases[i].words, "\"%s\"", text);
        for (size_t cut = 1; cut < strlen(text); cut++) {
            p4_white_runs a = p4_white_runs_count(text, cut),
                          b = p4_white_runs_count(text + cut, strlen(text) - cut);
            bool between = ((unsigned char)text[cut] & 0xc0) != 0x80;
            EXPECT(!between || a.count + b.count - (a.last && b.first) + 1 == cases[i].words,
                   "\"%s\" in two pieces", text);
        }
    }
}

/* A document that is longer than a piece of it has the bytes and words of the whole. */
static void long_documents_keep_their_size(void)
{
    enum { WORDS = 700000, EACH = 8 };
    char *text = p4_alloc(WORDS * EACH + 1, 1);
    for (int i = 0; i < WORDS; i++) {
        snprintf(text + EACH * (size_t)i, EACH + 1, i % 9 == 8 ? "word   \n" : "word    ");
    }
    char *path = p4_strdup(put("long.txt", text, WORDS * EACH));
    p4_windowing how = windowing(1000, 1);
    p4_windows windows;
    EXPECT_OK(p4_windows_read(&windows, &path, 1, &how, 0));
    EXPECT(windows.part_documents == 1 && windows.texts[0].bytes == WORDS * EACH &&
               windows.texts[0].words == WORDS + 1 && windows.texts[0].tokens == WORDS * EACH + 1,
           "%lld words", (long long)windows.texts[0].words);
    p4_windows_free(&windows);
    free(path);
    free(text);
}

/* ---- intervals ---- */

enum { DOCUMENTS = 400, TOKENS = 50 };

static p4_windows made_windows(int64_t documents)
{
    p4_windows windows = {.count = DOCUMENTS, .T = TOKENS + 1, .part_count = DOCUMENTS};
    windows.part_documents = documents;
    windows.parts = p4_alloc(DOCUMENTS, sizeof *windows.parts);
    for (int64_t i = 0; i < DOCUMENTS; i++) {
        windows.parts[i] = (p4_window_part){i, i * documents / DOCUMENTS, 1, TOKENS + 1};
    }
    return windows;
}

/* Half the width of an interval of a mean by the normal distribution. */
static double half_width(const double *values, int64_t count)
{
    double mean = 0, square = 0;
    for (int64_t i = 0; i < count; i++) {
        mean += values[i] / (double)count;
    }
    for (int64_t i = 0; i < count; i++) {
        square += (values[i] - mean) * (values[i] - mean) / (double)count;
    }
    return 1.96 * sqrt(square / (double)count);
}

static void intervals_have_their_width(void)
{
    p4_windows windows = made_windows(DOCUMENTS);
    double original[DOCUMENTS], nll[DOCUMENTS], mean = 0;
    p4_rng rng = {.seed = 5};
    for (int i = 0; i < DOCUMENTS;
         i++) { /* documents differ by 0.5 nats a token, the models by 0.1 +- 0.02 */
        original[i] = TOKENS * (3.0 + 0.5 * p4_rng_normal(&rng));
        nll[i] = original[i] + TOKENS * (0.1 + 0.02 * p4_rng_normal(&rng));
        mean += nll[i] / (DOCUMENTS * TOKENS);
    }
    p4_interval perplexity, rise, again, again_rise;
    EXPECT_OK(p4_bootstrap(&perplexity, &rise, &windows, nll, original, 42, NULL));
    double expected = half_width(nll, DOCUMENTS) / TOKENS;
    EXPECT_NEAR(log(perplexity.low), mean - expected, 0.15 * expected);
    EXPECT_NEAR(log(perplexity.high), mean + expected, 0.15 * expected);
    double difference[DOCUMENTS], difference_mean = 0;
    for (int i = 0; i < DOCUMENTS; i++) {
        difference[i] = nll[i] - original[i];
        difference_mean += difference[i] / (DOCUMENTS * TOKENS);
    }
    expected = half_width(difference, DOCUMENTS) / TOKENS; /* of pairs: 25 times as narrow */
    EXPECT_NEAR(log(1 + rise.low), difference_mean - expected, 0.15 * expected);
    EXPECT_NEAR(log(1 + rise.high), difference_mean + expected, 0.15 * expected);
    /* The same seed, the same numbers; another one, others. */
    EXPECT_OK(p4_bootstrap(&again, &again_rise, &windows, nll, original, 42, NULL));
    EXPECT(again.low == perplexity.low && again_rise.high == rise.high, "%g", again.low - perplexity.low);
    EXPECT_OK(p4_bootstrap(&again, NULL, &windows, nll, NULL, 43, NULL));
    EXPECT(again.low != perplexity.low, "%g", again.low);
    free(windows.parts);
}

/* Documents whose tokens are alike vary less than their number of tokens says; few are replaced by windows.
 */
static void the_unit_is_the_document(void)
{
    double nll[DOCUMENTS], width[3];
    static const int64_t documents[] = {DOCUMENTS, 20, P4_FEWEST_DOCUMENTS - 1};
    for (int k = 0; k < 3; k++) {
        p4_windows windows = made_windows(documents[k]);
        p4_interval perplexity;
        for (int i = 0; i < DOCUMENTS; i++) {
            nll[i] = TOKENS * (3.0 + 0.05 * (double)(i / (DOCUMENTS / 20)));
        }
        EXPECT_OK(p4_bootstrap(&perplexity, NULL, &windows, nll, NULL, 42, NULL));
        width[k] = log(perplexity.high / perplexity.low);
        free(windows.parts);
    }
    EXPECT(width[1] > 3.5 * width[0], "20 documents: %g, %d documents: %g", width[1], (int)DOCUMENTS,
           width[0]);
    EXPECT(width[2] == width[0], "few documents: %g, windows: %g", width[2], width[0]);
}

static void one_window_says_nothing(void)
{
    p4_window_part part = {0, 0, 1, 5};
    p4_windows windows = {.count = 1, .T = 5, .parts = &part, .part_count = 1, .part_documents = 1};
    double nll = 12;
    p4_interval perplexity, rise;
    EXPECT_OK(p4_bootstrap(&perplexity, &rise, &windows, &nll, &nll, 42, NULL));
    EXPECT(isnan(perplexity.low) && isnan(perplexity.high) && isnan(rise.low), "%g", perplexity.low);
}

/* All ranks resample the same, and each may be the one that is asked to stop. */
static void resampling_can_be_stopped(void)
{
    p4_windows windows = made_windows(DOCUMENTS);
    double nll[DOCUMENTS];
    p4_stop stop = {.deadline_s = 1e-9}; /* has passed */
    p4_interval perplexity = {.low = 7, .high = 8};
    for (int i = 0; i < DOCUMENTS; i++) {
        nll[i] = 1;
    }
    p4_error_clear();
    p4_rc rc = p4_bootstrap(&perplexity, NULL, &windows, nll, NULL, 42, &stop);
    EXPECT(rc == P4_STOPPED && strstr(p4_last_error(), "max_minutes") != NULL, "%d: %s", (int)rc,
           p4_last_error());
    EXPECT(isnan(perplexity.low) && isnan(perplexity.high), "%g to %g", perplexity.low, perplexity.high);
    p4_error_clear();
    free(windows.parts);
}

int main(void)
{
    world_begin();
    make_tokenizer();
    documents_of_text_are_told_apart();
    documents_of_token_files_are_told_apart();
    documents_of_text_behind_token_ids_are_known();
    long_documents_of_token_files();
    words_are_counted();
    long_documents_keep_their_size();
    intervals_have_their_width();
    the_unit_is_the_document();
    one_window_says_nothing();
    resampling_can_be_stopped();
    p4_tokenizer_close(tokenizer);
    world_end();
    return TEST_END();
}
