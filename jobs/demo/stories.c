/* stories.c - expands the grammar of story_rules.c into stories.
 *
 * The notation of a rule's text:
 *   {a|b|c}     one of the alternatives, each as likely as the others
 *   [name]      what is bound to name, else one alternative of the rule of that name, the first ones more
 *               often than the last ones, as words in real text; [Name] is the same with a capital letter
 *   [a name]    the same after "a" or "an"; [A name] after "A" or "An"
 *   [#name]     the number word bound to name, then [thing] after "one" and [things] after any other
 *   (name=text) binds name to the expansion of text for the rest of the story, and says nothing itself
 *   (name!other=text) the same, drawn again until it differs from what is bound to other
 * Bindings carry names, pronouns, causes and numbers through a story. */
#include "jobs/demo/demo.h"

#include <ctype.h>
#include <string.h>

#include "src/leaf/rng.h"

enum { MAX_BINDINGS = 96, KEY_BYTES = 16, VALUE_BYTES = 112, MAX_DEPTH = 24, MAX_REDRAWS = 64 };

typedef struct binding {
    char key[KEY_BYTES], value[VALUE_BYTES];
} binding;

typedef struct teller {
    p4_rng rng;
    p4_text *out;
    int depth, bound;
    binding bindings[MAX_BINDINGS];
} teller;

static const char *const number_words[] = {"no",    "one",   "two",  "three", "four",   "five",  "six",
                                           "seven", "eight", "nine", "ten",   "eleven", "twelve"};

static p4_rc expand(teller *t, const char *text, const char *end);

p4_rc p4_text_append(p4_text *text, const char *bytes, size_t byte_count)
{
    p4_rc rc = P4_OK;
    if (text->bytes + byte_count + 1 > text->capacity) {
        size_t capacity = 2 * (text->bytes + byte_count + 1);
        char *grown = p4_resize(text->text, capacity, 1);
        if (grown == NULL) {
            rc = P4_E_SYSTEM;
            goto done;
        }
        text->text = grown;
        text->capacity = capacity;
    }
    memcpy(text->text + text->bytes, bytes, byte_count);
    text->bytes += byte_count;
    text->text[text->bytes] = '\0';
done:
    return rc;
}

static const char *bound_value(const teller *t, const char *key)
{
    for (int i = 0; i < t->bound; i++) {
        if (strcmp(t->bindings[i].key, key) == 0) {
            return t->bindings[i].value;
        }
    }
    return NULL;
}

static p4_rc bind_value(teller *t, const char *key, const char *value, size_t value_bytes)
{
    p4_rc rc = P4_OK;
    int at = 0;
    while (at < t->bound && strcmp(t->bindings[at].key, key) != 0) {
        at++;
    }
    if (at == MAX_BINDINGS || strlen(key) >= KEY_BYTES || value_bytes >= VALUE_BYTES) {
        rc = FAULT("story grammar: no room to bind \"%s\" to %zu bytes", key, value_bytes);
        goto done;
    }
    t->bound += at == t->bound;
    strcpy(t->bindings[at].key, key);
    memcpy(t->bindings[at].value, value, value_bytes);
    t->bindings[at].value[value_bytes] = '\0';
done:
    return rc;
}

/* The end of the alternative that starts at `text`: the next '|' outside any bracket, or `end`. */
static const char *alternative_end(const char *text, const char *end)
{
    int open = 0;
    while (text < end && (open > 0 || *text != '|')) {
        open +=
            (*text == '{' || *text == '(' || *text == '[') - (*text == '}' || *text == ')' || *text == ']');
        text++;
    }
    return text;
}

static p4_rc expand_one_of(teller *t, const char *text, const char *end, bool skewed)
{
    uint64_t count = 1;
    for (const char *at = alternative_end(text, end); at < end; at = alternative_end(at + 1, end)) {
        count++;
    }
    uint64_t chosen = p4_rng_below(&t->rng, count);
    if (skewed) { /* the smaller of two draws: probability falls linearly along the list */
        uint64_t again = p4_rng_below(&t->rng, count);
        chosen = again < chosen ? again : chosen;
    }
    const char *start = text;
    for (uint64_t i = 0; i < chosen; i++) {
        start = alternative_end(start, end) + 1;
    }
    return expand(t, start, alternative_end(start, end));
}

/* name: lower case, NUL-terminated. */
static p4_rc expand_name(teller *t, const char *name)
{
    const char *value = bound_value(t, name);
    if (value != NULL) {
        return p4_text_append(t->out, value, strlen(value));
    }
    for (size_t i = 0; i < p4_story_rules_count; i++) {
        if (strcmp(p4_story_rules[i].name, name) == 0) {
            const char *text = p4_story_rules[i].text;
            return expand_one_of(t, text, text + strlen(text), true);
        }
    }
    return FAULT("story grammar: nothing is called \"%s\"", name);
}

/* [name], [Name], [a name], [A name] or [#name]; text is what stands between the brackets. */
static p4_rc expand_reference(teller *t, const char *text, const char *end)
{
    p4_rc rc = P4_OK;
    char name[KEY_BYTES];
    bool number = text[0] == '#';
    bool article = end - text > 2 && text[1] == ' ';
    bool capital = isupper((unsigned char)text[0]) != 0;
    const char *start = text + (number ? 1 : article ? 2 : 0);
    size_t mark = t->out->bytes;
    if (end - start >= KEY_BYTES) {
        rc = FAULT("story grammar: the name \"%.*s\" is too long", (int)(end - start), start);
        goto done;
    }
    memcpy(name, start, (size_t)(end - start));
    name[end - start] = '\0';
    name[0] = (char)tolower((unsigned char)name[0]);
    if (article) {
        TRY(p4_text_append(t->out, "an ", 3));
    }
    size_t word = t->out->bytes;
    TRY(expand_name(t, name));
    if (article && strchr("aeiou", t->out->text[word]) == NULL) { /* "an pear": take the n out */
        memmove(t->out->text + mark + 1, t->out->text + mark + 2, t->out->bytes - mark - 1);
        t->out->bytes--;
    }
    if (number) {
        bool one = strcmp(t->out->text + word, "one") == 0;
        TRY(p4_text_append(t->out, " ", 1));
        TRY(expand_name(t, one ? "thing" : "things"));
    }
    if (capital && t->out->bytes > mark) {
        t->out->text[mark] = (char)toupper((unsigned char)t->out->text[mark]);
    }
done:
    return rc;
}

/* (name=text) or (name!other=text); text is what stands between the parentheses. */
static p4_rc expand_binding(teller *t, const char *text, const char *end)
{
    p4_rc rc = P4_OK;
    char key[KEY_BYTES], other[KEY_BYTES] = "";
    int parsed = 0;
    if (sscanf(text, "%15[a-z0-9]%n", key, &parsed) != 1) {
        rc = FAULT("story grammar: no name in \"(%.*s)\"", (int)(end - text), text);
        goto done;
    }
    text += parsed;
    if (*text == '!' && sscanf(text, "!%15[a-z0-9]%n", other, &parsed) == 1) {
        text += parsed;
    }
    if (*text != '=') {
        rc = FAULT("story grammar: no '=' after \"(%s\"", key);
        goto done;
    }
    const char *taken = other[0] != '\0' ? bound_value(t, other) : NULL;
    size_t mark = t->out->bytes;
    for (int draw = 0; draw < MAX_REDRAWS; draw++) {
        t->out->bytes = mark;
        TRY(expand(t, text + 1, end));
        TRY(p4_text_append(t->out, "", 0));
        if (taken == NULL || strcmp(taken, t->out->text + mark) != 0) {
            break;
        }
    }
    TRY(bind_value(t, key, t->out->text + mark, t->out->bytes - mark));
    t->out->bytes = mark;
done:
    return rc;
}

/* The bracket that closes the one at `open`, or NULL. */
static const char *closing(const char *open, const char *end)
{
    int depth = 0;
    for (const char *at = open; at < end; at++) {
        depth += (strchr("{([", *at) != NULL) - (strchr("})]", *at) != NULL);
        if (depth == 0) {
            return at;
        }
    }
    return NULL;
}

static p4_rc expand(teller *t, const char *text, const char *end)
{
    p4_rc rc = P4_OK;
    t->depth++;
    while (text < end) {
        size_t plain = strcspn(text, "{([");
        plain = plain < (size_t)(end - text) ? plain : (size_t)(end - text);
        TRY(p4_text_append(t->out, text, plain));
        text += plain;
        if (text == end) {
            break;
        }
        const char *close = closing(text, end);
        if (close == NULL || t->depth > MAX_DEPTH) {
            rc = FAULT("story grammar: unbalanced or too deep at \"%.*s\"", (int)(end - text), text);
            goto done;
        }
        TRY(*text == '{'   ? expand_one_of(t, text + 1, close, false)
            : *text == '[' ? expand_reference(t, text + 1, close)
                           : expand_binding(t, text + 1, close));
        text = close + 1;
    }
done:
    t->depth--;
    return rc;
}

/* n, k, left = n - k, sum = n + k, next = n + 1 as words, and the count up to n. */
static p4_rc bind_numbers(teller *t)
{
    p4_rc rc = P4_OK;
    uint64_t n = 2 + p4_rng_below(&t->rng, 7);
    uint64_t k = 1 + p4_rng_below(&t->rng, n < 4 ? n : 4);
    const struct {
        const char *key;
        uint64_t value;
    } numbers[] = {{"n", n}, {"k", k}, {"left", n - k}, {"sum", n + k}, {"next", n + 1}};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        const char *word = number_words[numbers[i].value];
        TRY(bind_value(t, numbers[i].key, word, strlen(word)));
    }
    char counting[VALUE_BYTES] = "one";
    for (uint64_t i = 2; i <= n; i++) {
        strcat(strcat(counting, ", "), number_words[i]);
    }
    TRY(bind_value(t, "counting", counting, strlen(counting)));
done:
    return rc;
}

p4_rc p4_story_make(p4_text *story, uint64_t seed, uint64_t stream)
{
    p4_rc rc = P4_OK;
    teller t = {.rng = {seed, stream, 0}, .out = story};
    story->bytes = 0;
    TRY(bind_numbers(&t));
    TRY(expand_name(&t, "story"));
done:
    return rc;
}
