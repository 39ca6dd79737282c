/* The demo's data: stories keep to English spelling rules and to their seed, the BPE trainer learns what the
 * reference library's learns, and the shipped tokenizer is the one this code makes. */
#include <ctype.h>
#include <stdlib.h>

#include "check.h"
#include "io/tokenizer/tokenizer.h"
#include "jobs/demo/demo.h"

enum { SHIPPED_STORIES = 20000, SHIPPED_VOCAB = 1024 }; /* phase4_demo's defaults */

/* Merges of the reference library's trainer (tokenizers 0.22) on this text. */
static const char bpe_text[] =
    "low low lower lowest\nnewest newest widest \xc3\xa9t\xc3\xa9 don't \"x\" \"x\" 12 12";
static const char *const bpe_merges[][2] = {{"e", "s"},          {"l", "o"}, {"es", "t"}, {"lo", "w"},
                                            {"\xc4\xa0", "low"}, {"1", "2"}, {"e", "w"},  {"n", "ew"}};

static char *file_text(const char *path)
{
    FILE *file = fopen(path, "rb");
    char *text = p4_alloc(1 << 20, 1);
    if (file == NULL || text == NULL || fread(text, 1, (1 << 20) - 1, file) == 0) {
        EXPECT(false, "cannot read %s", path);
    }
    if (file != NULL) {
        fclose(file);
    }
    return text;
}

/* tokenizer.json of a trainer, on the heap. */
static char *trainer_json(const p4_bpe_trainer *trainer)
{
    char *json = NULL;
    size_t bytes = 0;
    FILE *stream = open_memstream(&json, &bytes);
    p4_bpe_write(trainer, stream);
    EXPECT(ferror(stream) == 0, "writing to memory failed");
    fclose(stream);
    return json;
}

static bool is_vowel(char c)
{
    return strchr("aeiou", tolower((unsigned char)c)) != NULL;
}

/* What is wrong with the spelling around text[i]; NULL when nothing is. */
static const char *spelling_fault(const char *text, size_t i)
{
    const char *at = text + i;
    if (*at != '\n' && (*at < ' ' || *at > '~' || strchr("[]{}()|=#", *at) != NULL)) {
        return "a character of the notation";
    }
    if (*at == ' ' && strchr(" .,!?\n", at[1]) != NULL) {
        return "a space before a space, an end or a mark";
    }
    if (strchr(".,!?", *at) != NULL && strchr(" \"\n", at[1]) == NULL) {
        return "a mark that nothing separates from what follows";
    }
    if ((i == 0 || text[i - 1] == '\n') && !isupper((unsigned char)*at) && *at != '"') {
        return "a paragraph that starts in lower case";
    }
    if (i > 1 && text[i - 2] == '.' && text[i - 1] == ' ' && islower((unsigned char)*at)) {
        return "a sentence that starts in lower case";
    }
    bool word_start = i == 0 || strchr(" \n\"", text[i - 1]) != NULL;
    if (word_start && tolower((unsigned char)at[0]) == 'a' && at[1] == ' ' && is_vowel(at[2])) {
        return "\"a\" before a vowel";
    }
    if (word_start && tolower((unsigned char)at[0]) == 'a' && at[1] == 'n' && at[2] == ' ' &&
        !is_vowel(at[3])) {
        return "\"an\" before a consonant";
    }
    return NULL;
}

static void test_spelling(void)
{
    p4_text story = {0};
    size_t shortest = SIZE_MAX, longest = 0;
    for (uint64_t stream = 0; stream < 5000; stream++) {
        EXPECT_OK(p4_story_make(&story, 7, stream));
        const char *fault = NULL;
        size_t quotes = 0, at = 0;
        for (; at < story.bytes && (fault = spelling_fault(story.text, at)) == NULL; at++) {
            quotes += story.text[at] == '"';
        }
        EXPECT(fault == NULL, "story %d has %s at \"%.40s\"", (int)stream, fault != NULL ? fault : "",
               story.text + at);
        EXPECT(quotes % 2 == 0 && strlen(story.text) == story.bytes, "story %d: %s", (int)stream, story.text);
        shortest = story.bytes < shortest ? story.bytes : shortest;
        longest = story.bytes > longest ? story.bytes : longest;
    }
    EXPECT(shortest > 150 && longest < 3000, "stories of %zu to %zu bytes", shortest, longest);
    free(story.text);
}

/* The number that a word names, -1 when it is none. */
static int number_of(const char *word)
{
    static const char *const words[] = {"no",    "one",   "two",  "three", "four",   "five",  "six",
                                        "seven", "eight", "nine", "ten",   "eleven", "twelve"};
    for (int i = 0; i < 13; i++) {
        if (strcmp(word, words[i]) == 0) {
            return i;
        }
    }
    return -1;
}

/* "n and k make sum" is true wherever it is said. */
static void test_sums(void)
{
    p4_text story = {0};
    int seen = 0;
    for (uint64_t stream = 0; stream < 3000; stream++) {
        char n[16], k[16], sum[16];
        EXPECT_OK(p4_story_make(&story, 1, stream));
        char *at = strstr(story.text, " make ");
        while (at != NULL && at > story.text && *at != '"') {
            at--;
        }
        if (at != NULL && sscanf(at, "\"%15[A-Za-z] and %15[a-z] make %15[a-z],", n, k, sum) == 3) {
            n[0] = (char)tolower((unsigned char)n[0]);
            EXPECT(number_of(n) > 0 && number_of(n) + number_of(k) == number_of(sum), "%s and %s make %s", n,
                   k, sum);
            seen++;
        }
    }
    EXPECT(seen > 50, "only %d sums in 3000 stories", seen);
    free(story.text);
}

static void test_streams(void)
{
    p4_text one = {0}, two = {0};
    EXPECT_OK(p4_story_make(&one, 1, 12));
    EXPECT_OK(p4_story_make(&two, 1, 13));
    EXPECT(strcmp(one.text, two.text) != 0, "two streams tell one story");
    EXPECT_OK(p4_story_make(&two, 1, 12));
    EXPECT(strcmp(one.text, two.text) == 0, "a stream tells two stories");
    EXPECT_OK(p4_story_make(&two, 2, 12));
    EXPECT(strcmp(one.text, two.text) != 0, "two seeds tell one story");
    free(one.text);
    free(two.text);
}

static void test_reference_merges(void)
{
    p4_bpe_trainer *trainer = NULL;
    const int count = (int)(sizeof bpe_merges / sizeof bpe_merges[0]);
    EXPECT_OK(p4_bpe_open(&trainer));
    EXPECT_OK(p4_bpe_feed(trainer, bpe_text, strlen(bpe_text)));
    EXPECT_OK(p4_bpe_learn(trainer, 257 + count));
    char *json = trainer_json(trainer);
    const char *at = strstr(json, "\"merges\"");
    for (int i = 0; i < count && at != NULL; i++) {
        char wanted[64];
        snprintf(wanted, sizeof wanted, "[\n        \"%s\",\n        \"%s\"\n      ]", bpe_merges[i][0],
                 bpe_merges[i][1]);
        at = strchr(at + 1, '[');
        at = at != NULL && i == 0 ? strchr(at + 1, '[') : at;
        EXPECT(at != NULL && strncmp(at, wanted, strlen(wanted)) == 0, "merge %d: wanted %s, found %.60s", i,
               wanted, at != NULL ? at : "the end");
    }
    EXPECT_REFUSED(p4_bpe_learn(trainer, 256), "vocabulary of 256 entries");
    free(json);
    p4_bpe_close(trainer);
}

static void test_refusals(void)
{
    p4_bpe_trainer *trainer = NULL;
    EXPECT_OK(p4_bpe_open(&trainer));
    EXPECT_REFUSED(p4_bpe_feed(trainer, "good \xff bad", 10), "not UTF-8");
    EXPECT_REFUSED(p4_bpe_learn(trainer, 100000), "vocabulary of 100000 entries");
    EXPECT_OK(p4_bpe_feed(trainer, "ab ab", 5));
    EXPECT_REFUSED(p4_bpe_learn(trainer, 300), "repeats too little");
    p4_bpe_close(trainer);
}

/* The shipped weights belong to this tokenizer: a change to the grammar or the trainer must remake them. The
 * job's own reader takes the file and gives the text back. */
static void test_shipped_tokenizer(void)
{
    p4_bpe_trainer *trainer = NULL;
    p4_tokenizer *tokenizer = NULL;
    p4_tokenizer_scratch *scratch = NULL;
    p4_text story = {0};
    p4_ids ids = {0};
    char *again = NULL;
    EXPECT_OK(p4_bpe_open(&trainer));
    for (uint64_t stream = 0; stream < SHIPPED_STORIES; stream++) {
        if (p4_story_make(&story, 1, stream) != P4_OK ||
            p4_bpe_feed(trainer, story.text, story.bytes) != P4_OK) {
            EXPECT(false, "story %d: %s", (int)stream, p4_last_error());
            break;
        }
    }
    EXPECT_OK(p4_bpe_learn(trainer, SHIPPED_VOCAB));
    char *json = trainer_json(trainer),
         *shipped = file_text(P4_FIXTURES "/../../jobs/demo/model/tokenizer.json");
    EXPECT(strcmp(json, shipped) == 0,
           "jobs/demo/model was made from other stories: run jobs/demo/train_demo.sh");
    EXPECT_OK(p4_tokenizer_parse(&tokenizer, json, strlen(json), "tokenizer.json"));
    EXPECT_OK(p4_tokenizer_scratch_create(&scratch, tokenizer));
    EXPECT_OK(p4_tokenizer_encode(tokenizer, scratch, story.text, story.bytes, false, &ids, NULL));
    EXPECT(p4_tokenizer_vocab_count(tokenizer) == SHIPPED_VOCAB, "%d entries",
           (int)p4_tokenizer_vocab_count(tokenizer));
    EXPECT(ids.count > 20 && 2 * ids.count < (int64_t)story.bytes, "%d tokens for %zu bytes", (int)ids.count,
           story.bytes);
    EXPECT_OK(p4_tokenizer_decode(tokenizer, ids.ids, ids.count, &again));
    EXPECT(again != NULL && strcmp(again, story.text) == 0, "decoded to %s",
           again != NULL ? again : "nothing");
    free(again);
    p4_ids_free(&ids);
    p4_tokenizer_scratch_free(scratch);
    p4_tokenizer_close(tokenizer);
    free(json);
    free(shipped);
    free(story.text);
    p4_bpe_close(trainer);
}

int main(void)
{
    test_spelling();
    test_sums();
    test_streams();
    test_reference_merges();
    test_refusals();
    test_shipped_tokenizer();
    return TEST_END();
}
