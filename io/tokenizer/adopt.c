#include "io/tokenizer/adopt.h"

#include <stdlib.h>
#include <string.h>

#include "io/tokenizer/added.h"
#include "io/tokenizer/map.h"

enum { FLAGS = 5, DECLARED_MAX = 1 << 20 };
static const char *const flags[FLAGS] = {"single_word", "lstrip", "rstrip", "normalized", "special"};
enum { NORMALIZED = 3, SPECIAL = 4 };

typedef struct token { /* content borrowed from the trees */
    const char *content;
    int64_t id;   /* where it is declared with one */
    size_t order; /* of its declaration */
    bool flag[FLAGS];
} token;

typedef struct tokens {
    token *list; /* heap */
    size_t count, capacity;
    p4_tok_map places; /* content -> the first place in the list */
} tokens;

static void free_tokens(tokens *all)
{
    free(all->list);
    p4_tok_map_free(&all->places);
}

static void index_last(tokens *all)
{
    const char *content = all->list[all->count - 1].content;
    (void)p4_tok_map_put(&all->places, (p4_tok_text){content, strlen(content)}, (int32_t)all->count - 1);
}

static p4_rc grow(tokens *all)
{
    p4_rc rc = P4_OK;
    size_t capacity = 2 * all->capacity + 64, count = all->count;
    CHECK(capacity < DECLARED_MAX, "more than %zu added tokens are not supported", all->capacity);
    token *grown = p4_resize(all->list, capacity, sizeof *grown);
    if (grown == NULL) {
        return P4_E_SYSTEM;
    }
    all->list = grown;
    all->capacity = capacity;
    p4_tok_map_free(&all->places);
    TRY(p4_tok_map_create(&all->places, capacity));
    for (all->count = 0; all->count < count;) {
        all->count++;
        index_last(all);
    }
done:
    return rc;
}

static p4_rc add(tokens *all, const token *one)
{
    p4_rc rc = P4_OK;
    if (all->count == all->capacity) {
        TRY(grow(all));
    }
    all->list[all->count] = *one;
    all->list[all->count].order = all->count;
    all->count++;
    index_last(all);
done:
    return rc;
}

static int by_id(const void *a, const void *b)
{
    const token *x = a, *y = b;
    return x->id != y->id ? (x->id > y->id) - (x->id < y->id) : (x->order > y->order) - (x->order < y->order);
}

/* The first token with a content; NULL: there is none. */
static token *find(const tokens *all, const char *content)
{
    int32_t place = p4_tok_map_find(&all->places, content, strlen(content));
    return place >= 0 ? &all->list[place] : NULL;
}

/* A token's object: flags that it lacks are false, and normalized is what special is not. */
static p4_rc read_token(token *one, const cJSON *object, const char *source, const char *where)
{
    p4_rc rc = P4_OK;
    *one = (token){.id = -1};
    TRY(p4_json_string(&one->content, source, where, object, "content", true));
    TRY(p4_json_bool(&one->flag[SPECIAL], source, where, object, flags[SPECIAL], false));
    one->flag[NORMALIZED] = !one->flag[SPECIAL];
    for (int i = 0; i < FLAGS; i++) {
        TRY(p4_json_bool(&one->flag[i], source, where, object, flags[i], false));
    }
done:
    return rc;
}

/* --- what is declared --- */

/* added_tokens_decoder: {"id": {"content": ...}}. */
static p4_rc declared_by_config(tokens *declared, const cJSON *decoder, const char *source)
{
    p4_rc rc = P4_OK;
    CHECK(cJSON_IsObject(decoder), "%s: added_tokens_decoder must be an object", source);
    for (const cJSON *item = decoder->child; item != NULL; item = item->next) {
        token one;
        char *end;
        TRY(read_token(&one, item, source, "added_tokens_decoder"));
        one.id = strtoll(item->string, &end, 10);
        CHECK(item->string[0] != '\0' && *end == '\0' && one.id >= 0,
              "%s: added_tokens_decoder: \"%.60s\" is no id", source, item->string);
        TRY(add(declared, &one));
    }
done:
    return rc;
}

static bool is_named_special(const p4_tok_sources *sources, const char *content)
{
    const cJSON *const trees[] = {sources->special_map, sources->config};
    for (int i = 0; i < 2; i++) {
        for (int k = 0; k < P4_TOK_NAMED; k++) {
            const cJSON *item = cJSON_GetObjectItemCaseSensitive(trees[i], p4_tok_named[k]);
            item = cJSON_IsObject(item) ? cJSON_GetObjectItemCaseSensitive(item, "content") : item;
            if (cJSON_IsString(item) && strcmp(item->valuestring, content) == 0) {
                return true;
            }
        }
    }
    return false;
}

/* added_tokens.json: {"content": id}. */
static p4_rc declared_by_list(tokens *declared, const p4_tok_sources *sources)
{
    p4_rc rc = P4_OK;
    for (const cJSON *item = sources->added != NULL ? sources->added->child : NULL; item != NULL;
         item = item->next) {
        bool special = is_named_special(sources, item->string);
        token one = {.content = item->string, .flag = {[NORMALIZED] = !special, [SPECIAL] = special}};
        CHECK(p4_json_is_whole(item, INT32_MAX, &one.id),
              "%s/added_tokens.json: the id of \"%.60s\" must be a whole number", sources->directory,
              item->string);
        TRY(add(declared, &one));
    }
done:
    return rc;
}

/* added_tokens of tokenizer.json. */
static p4_rc declared_by_file(tokens *declared, const cJSON *root, const char *source)
{
    p4_rc rc = P4_OK;
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(root, "added_tokens");
    for (const cJSON *item = cJSON_IsArray(list) ? list->child : NULL; item != NULL; item = item->next) {
        token one;
        TRY(read_token(&one, item, source, "added_tokens"));
        TRY(p4_json_integer(&one.id, source, "added_tokens", item, "id", INT32_MAX));
        TRY(add(declared, &one));
    }
done:
    return rc;
}

/* --- special tokens by name --- */

/* A name's token, "<s>" or {"content": "<s>"}, appended unless it is known. */
static p4_rc add_special(tokens *wanted, const tokens *known, const cJSON *item, const char *fallback,
                         const char *source)
{
    p4_rc rc = P4_OK;
    token one = {.content = cJSON_IsString(item) ? item->valuestring
                            : item == NULL       ? fallback
                                                 : NULL,
                 .id = -1};
    one.flag[SPECIAL] = true;
    if (cJSON_IsObject(item) && cJSON_GetObjectItemCaseSensitive(item, "content") != NULL) {
        TRY(read_token(&one, item, source, item->string != NULL ? item->string : "extra_special_tokens"));
        one.flag[SPECIAL] = true;
    }
    token *declared = one.content != NULL ? find(wanted, one.content) : NULL;
    if (declared != NULL) {
        declared->flag[SPECIAL] = true;
    } else if (one.content != NULL && one.content[0] != '\0' && find(known, one.content) == NULL) {
        TRY(add(wanted, &one));
    }
done:
    return rc;
}

static p4_rc add_listed(tokens *wanted, const tokens *known, const cJSON *list, const char *source)
{
    p4_rc rc = P4_OK;
    for (const cJSON *item = list != NULL ? list->child : NULL; item != NULL; item = item->next) {
        TRY(add_special(wanted, known, item, NULL, source));
    }
done:
    return rc;
}

/* The seven names, then other keys that end in _token, then the lists of further ones. */
static p4_rc add_named(tokens *wanted, const tokens *known, const p4_tok_sources *sources,
                       const p4_tok_class *chosen, bool declared_by_config, const char *source)
{
    p4_rc rc = P4_OK;
    const cJSON *map = declared_by_config ? NULL : sources->special_map, *config = sources->config, *item;
    for (int i = 0; i < P4_TOK_NAMED; i++) {
        item = cJSON_GetObjectItemCaseSensitive(map, p4_tok_named[i]);
        item = item != NULL ? item : cJSON_GetObjectItemCaseSensitive(config, p4_tok_named[i]);
        TRY(add_special(wanted, known, item, chosen != NULL ? chosen->tokens[i] : NULL, source));
    }
    for (item = config != NULL ? config->child : NULL; item != NULL; item = item->next) {
        size_t bytes = strlen(item->string);
        if (bytes > 6 && strcmp(item->string + bytes - 6, "_token") == 0 && cJSON_IsString(item)) {
            TRY(add_special(wanted, known, item, NULL, source));
        }
    }
    static const char *const lists[] = {"extra_special_tokens", "additional_special_tokens"};
    for (int i = 0; i < 2; i++) {
        item = cJSON_GetObjectItemCaseSensitive(map, lists[i]);
        item = item != NULL ? item : cJSON_GetObjectItemCaseSensitive(config, lists[i]);
        if (item != NULL && item->child != NULL) {
            return add_listed(wanted, known, item, source);
        }
    }
done:
    return rc;
}

/* --- the new list --- */

static bool equal(const token *a, const token *b)
{
    return strcmp(a->content, b->content) == 0 && memcmp(a->flag, b->flag, sizeof a->flag) == 0;
}

static bool same(const tokens *a, const tokens *b)
{
    bool all = a->count == b->count;
    for (size_t i = 0; all && i < a->count; i++) {
        all = equal(&a->list[i], &b->list[i]);
    }
    return all;
}

/* Of the declared tokens, in the order of their ids, those that are not in `all` as they are declared. An id
 * that is declared twice has its last token. */
static p4_rc choose_declared(tokens *wanted, const tokens *all, const tokens *declared)
{
    p4_rc rc = P4_OK;
    for (size_t i = 0; i < declared->count; i++) {
        const token *one = &declared->list[i];
        if (i + 1 < declared->count && declared->list[i + 1].id == one->id) {
            continue;
        }
        const token *known = find(all, one->content);
        if (known == NULL || !equal(known, one)) {
            TRY(add(wanted, one));
        }
    }
done:
    return rc;
}

/* A token that is there already gets the options of the new one and keeps its place. */
static p4_rc append(tokens *all, const tokens *wanted)
{
    p4_rc rc = P4_OK;
    for (size_t i = 0; i < wanted->count; i++) {
        token *known = find(all, wanted->list[i].content);
        if (known != NULL) {
            memcpy(known->flag, wanted->list[i].flag, sizeof known->flag);
        } else if (wanted->list[i].content[0] != '\0') {
            TRY(add(all, &wanted->list[i]));
        }
    }
done:
    return rc;
}

/* The tokens of model.vocab with their ids: {"token": id} or, in Unigram, [["token", score]]. The keys are
 * borrowed from the tree. What is malformed is left out: loading the tokenizer refuses it. */
static p4_rc index_model(p4_tok_map *ids, int32_t *count, const cJSON *root)
{
    p4_rc rc = P4_OK;
    const cJSON *model = cJSON_GetObjectItemCaseSensitive(root, "model"),
                *vocab = cJSON_GetObjectItemCaseSensitive(model, "vocab");
    const bool pairs = cJSON_IsArray(vocab);
    *count = vocab != NULL ? (int32_t)cJSON_GetArraySize(vocab) : 0;
    TRY(p4_tok_map_create(ids, (size_t)*count));
    int32_t place = 0;
    for (const cJSON *item = vocab != NULL ? vocab->child : NULL; item != NULL; item = item->next, place++) {
        const char *content = pairs ? cJSON_GetStringValue(item->child) : item->string;
        int64_t id = place;
        if (content != NULL && (pairs || p4_json_is_whole(item, INT32_MAX, &id))) {
            (void)p4_tok_map_put(ids, (p4_tok_text){content, strlen(content)}, (int32_t)id);
        }
    }
done:
    return rc;
}

/* A token that no file gives an id is written with the one that loading gives it. */
static p4_rc write_list(cJSON *root, const tokens *all)
{
    p4_rc rc = P4_OK;
    p4_tok_map model_ids = {0};
    int32_t model_tokens, last = -1;
    cJSON *list = cJSON_CreateArray();
    TRY(index_model(&model_ids, &model_tokens, root));
    for (size_t i = 0; list != NULL && i < all->count; i++) {
        const char *content = all->list[i].content;
        int32_t id =
            p4_tok_added_id(&last, (p4_tok_text){content, strlen(content)}, &model_ids, model_tokens);
        cJSON *object = cJSON_CreateObject();
        cJSON_AddNumberToObject(object, "id", (double)(all->list[i].id >= 0 ? all->list[i].id : id));
        cJSON_AddStringToObject(object, "content", all->list[i].content);
        for (int k = 0; k < FLAGS; k++) {
            cJSON_AddBoolToObject(object, flags[k], all->list[i].flag[k]);
        }
        CHECK(cJSON_AddItemToArray(list, object), "out of memory: the added tokens");
    }
    cJSON_DeleteItemFromObjectCaseSensitive(root, "added_tokens");
    CHECK(list != NULL && cJSON_AddItemToObject(root, "added_tokens", list),
          "out of memory: the added tokens");
    list = NULL;
done:
    p4_tok_map_free(&model_ids);
    cJSON_Delete(list);
    return rc;
}

p4_rc p4_tok_adopt(cJSON *root, const p4_tok_sources *sources, const p4_tok_class *chosen, bool *changed)
{
    p4_rc rc = P4_OK;
    tokens file = {0}, declared = {0}, all = {0}, wanted = {0};
    char *config_path = p4_format("%s/tokenizer_config.json", sources->directory);
    char *file_path = p4_format("%s/tokenizer.json", sources->directory);
    const cJSON *decoder = cJSON_GetObjectItemCaseSensitive(sources->config, "added_tokens_decoder");
    *changed = false;
    if (config_path == NULL || file_path == NULL) {
        rc = P4_E_SYSTEM;
        goto done;
    }
    TRY(declared_by_file(&file, root, file_path));
    if (decoder != NULL) {
        TRY(declared_by_config(&declared, decoder, config_path));
    } else {
        TRY(declared_by_list(&declared, sources));
        for (size_t i = 0; i < file.count; i++) {
            TRY(add(&declared, &file.list[i]));
        }
    }
    for (size_t i = 0; chosen == NULL && i < file.count; i++) {
        TRY(add(&all, &file.list[i]));
    }
    if (declared.count > 0) {
        qsort(declared.list, declared.count, sizeof *declared.list, by_id);
    }
    TRY(choose_declared(&wanted, &all, &declared));
    TRY(add_named(&wanted, &all, sources, chosen, decoder != NULL, config_path));
    TRY(append(&all, &wanted));
    *changed = !same(&all, &file);
    if (*changed) {
        TRY(write_list(root, &all));
    }
done:
    free_tokens(&file);
    free_tokens(&declared);
    free_tokens(&all);
    free_tokens(&wanted);
    free(config_path);
    free(file_path);
    return rc;
}
