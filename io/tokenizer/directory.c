#include "io/tokenizer/directory.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/file/files.h"
#include "io/tokenizer/adopt.h"
#include "io/tokenizer/classes.h"
#include "io/tokenizer/sentencepiece.h"

typedef struct reading {
    const char *directory;
    p4_tok_sources sources;
    cJSON *model_config; /* config.json; NULL: there is none */
    const p4_tok_class *chosen;
    char *path, *text; /* the file that has the vocabulary */
    size_t bytes;
    cJSON *root;
    bool changed; /* root is not what the text says */
} reading;

/* A file of the directory as a tree; NULL: it is not there. */
static p4_rc read_tree(cJSON **root, const char *directory, const char *name)
{
    p4_rc rc = P4_OK;
    char *text = NULL;
    size_t bytes = 0;
    char *path = p4_format("%s/%s", directory, name);
    *root = NULL;
    if (path == NULL) {
        return P4_E_SYSTEM;
    }
    if (p4_file_exists(path)) {
        TRY(p4_file_read(&text, &bytes, path, P4_TOK_FILE_BYTES_MAX));
        TRY(p4_json_read(root, text, bytes, path));
    }
done:
    free(text);
    free(path);
    return rc;
}

static p4_rc read_binary(reading *r, const char *path)
{
    p4_rc rc = P4_OK;
    int fd = -1;
    uint64_t bytes = 0;
    TRY(p4_file_open(&fd, &bytes, path));
    CHECK(bytes <= P4_TOK_FILE_BYTES_MAX, "%s: %llu bytes; at most %d are supported", path,
          (unsigned long long)bytes, P4_TOK_FILE_BYTES_MAX);
    r->text = p4_alloc((size_t)bytes + 1, 1);
    if (r->text == NULL) {
        rc = P4_E_SYSTEM;
        goto done;
    }
    while (r->bytes < bytes) {
        ssize_t got = read(fd, r->text + r->bytes, (size_t)bytes - r->bytes);
        CHECK(got > 0, "%s: byte %zu of %llu cannot be read: %s", path, r->bytes, (unsigned long long)bytes,
              got == 0 ? "the file ends there" : strerror(errno));
        r->bytes += (size_t)got;
    }
done:
    if (fd >= 0) {
        close(fd);
    }
    return rc;
}

/* Reads a file, text unless it is `binary`, if it is there: r->path is then set. */
static p4_rc read_file(reading *r, const char *name, bool binary)
{
    p4_rc rc = P4_OK;
    char *path = p4_format("%s/%s", r->directory, name);
    if (path == NULL) {
        return P4_E_SYSTEM;
    }
    if (p4_file_exists(path)) {
        TRY(binary ? read_binary(r, path) : p4_file_read(&r->text, &r->bytes, path, P4_TOK_FILE_BYTES_MAX));
        r->path = path;
        path = NULL;
    }
done:
    free(path);
    return rc;
}

static const char *string_of(const cJSON *object, const char *key)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    return cJSON_IsString(item) ? item->valuestring : NULL;
}

static void choose_class(reading *r)
{
    const char *named = string_of(r->sources.config, "tokenizer_class");
    const char *type = string_of(r->model_config, "model_type");
    named = named != NULL ? named : string_of(r->model_config, "tokenizer_class");
    bool byte_level = r->root != NULL && strstr(r->text, "\"ByteLevel\"") != NULL;
    r->chosen = p4_tok_class_choose(named, type != NULL ? type : "", byte_level);
}

/* --- tokenizer.json --- */

static p4_rc use_class(reading *r)
{
    p4_rc rc = P4_OK;
    const cJSON *model = cJSON_GetObjectItemCaseSensitive(r->root, "model");
    const char *type = string_of(model, "type");
    bool other = false;
    if (!cJSON_IsObject(cJSON_GetObjectItemCaseSensitive(model, "vocab")) ||
        (type != NULL && strcmp(type, "BPE") != 0)) {
        WARN("%s: tokenizer class %s is for BPE, which this file is not: the file is followed", r->path,
             r->chosen->name);
        r->chosen = NULL;
        return P4_OK;
    }
    TRY(p4_tok_class_apply(r->chosen, r->root, r->sources.config, &other));
    if (other) {
        WARN(
            "%s: transformers 5 takes the vocabulary from this file and builds the tokenizer class %s with a "
            "normalizer, pre_tokenizer or model options of its own, which differ from the file's: "
            "the class is followed. A tokenizer_class of TokenizersBackend in tokenizer_config.json follows "
            "the file",
            r->path, r->chosen->name);
    }
    r->changed = other || r->chosen->resets_post;
done:
    return rc;
}

static p4_rc check_flags(const reading *r)
{
    p4_rc rc = P4_OK;
    static const char *const flags[] = {"add_bos_token", "add_eos_token"};
    char *path = p4_format("%s/tokenizer_config.json", r->directory);
    if (path == NULL) {
        return P4_E_SYSTEM;
    }
    for (int i = 0; i < 2 && r->sources.config != NULL; i++) {
        const cJSON *item;
        TRY(p4_json_member(&item, path, "", r->sources.config, flags[i], false));
        CHECK(item == NULL || cJSON_IsNull(item) || cJSON_IsBool(item), "%s: %s must be true or false", path,
              flags[i]);
    }
done:
    free(path);
    return rc;
}

/* --- vocab.json and merges.txt --- */

static p4_rc read_merges(reading *r, cJSON *model)
{
    p4_rc rc = P4_OK;
    char *text = NULL, *path = p4_format("%s/merges.txt", r->directory);
    size_t bytes = 0;
    cJSON *merges = cJSON_AddArrayToObject(model, "merges");
    if (path == NULL) {
        return P4_E_SYSTEM;
    }
    CHECK(p4_file_exists(path), "%s: vocab.json is there and this file is not", path);
    TRY(p4_file_read(&text, &bytes, path, P4_TOK_FILE_BYTES_MAX));
    CHECK(memchr(text, '\0', bytes) == NULL, "%s: a NUL byte", path);
    for (char *line = text, *next; line < text + bytes; line = next) {
        char *end = memchr(line, '\n', (size_t)(text + bytes - line));
        next = end != NULL ? end + 1 : text + bytes;
        end = end != NULL ? end : text + bytes;
        end -= end > line && end[-1] == '\r' ? 1 : 0;
        if (end == line || strncmp(line, "#version", 8) == 0) {
            continue;
        }
        char kept = *end; /* the text ends with a NUL, so that there is a place for one */
        *end = '\0';
        bool added = cJSON_AddItemToArray(merges, cJSON_CreateString(line));
        *end = kept;
        CHECK(added, "out of memory: the merges of %s", path);
    }
done:
    free(text);
    free(path);
    return rc;
}

static p4_rc from_vocabulary(reading *r)
{
    p4_rc rc = P4_OK;
    cJSON *vocab = NULL;
    bool ignored;
    CHECK(r->chosen != NULL && r->chosen->reads_merges,
          "%s: vocab.json and merges.txt say no more than a vocabulary, and neither tokenizer_class nor "
          "model_type names a class that is built of them (GPT2Tokenizer, GPTNeoXTokenizer, Qwen2Tokenizer): "
          "a tokenizer.json is needed",
          r->path);
    TRY(p4_json_read(&vocab, r->text, r->bytes, r->path));
    r->root = cJSON_CreateObject();
    cJSON *model = cJSON_AddObjectToObject(r->root, "model");
    cJSON_AddStringToObject(model, "type", "BPE");
    CHECK(cJSON_AddItemToObject(model, "vocab", vocab), "out of memory: the vocabulary of %s", r->path);
    vocab = NULL;
    TRY(read_merges(r, model));
    TRY(p4_tok_class_apply(r->chosen, r->root, r->sources.config, &ignored));
done:
    cJSON_Delete(vocab);
    return rc;
}

static p4_rc from_sentencepiece(reading *r)
{
    p4_rc rc = P4_OK;
    bool ignored;
    CHECK(r->chosen == NULL || r->chosen->reads_sentencepiece,
          "%s: the tokenizer class %s is not built of a SentencePiece model", r->path, r->chosen->name);
    TRY(p4_tok_sentencepiece(&r->root, r->text, r->bytes, r->chosen, r->sources.config, r->path));
    if (r->chosen != NULL) {
        TRY(p4_tok_class_apply(r->chosen, r->root, r->sources.config, &ignored));
    }
done:
    return rc;
}

/* --- the ids around a text, where there is no tokenizer.json --- */

static const char *named_token(const reading *r, int index)
{
    const cJSON *const trees[] = {r->sources.special_map, r->sources.config};
    for (int i = 0; i < 2; i++) {
        const cJSON *item = cJSON_GetObjectItemCaseSensitive(trees[i], p4_tok_named[index]);
        item = cJSON_IsObject(item) ? cJSON_GetObjectItemCaseSensitive(item, "content") : item;
        if (cJSON_IsString(item)) {
            return item->valuestring;
        }
    }
    return r->chosen != NULL ? r->chosen->tokens[index] : index == 0 ? "<s>" : "</s>";
}

static void add_piece(cJSON *single, const char *kind, const char *id)
{
    cJSON *piece = cJSON_CreateObject();
    cJSON_AddStringToObject(cJSON_AddObjectToObject(piece, kind), "id", id);
    cJSON_AddItemToArray(single, piece);
}

/* A TemplateProcessing of add_bos_token and add_eos_token. p4_tok_load_post finds the tokens by their names.
 */
static p4_rc add_post(reading *r)
{
    p4_rc rc = P4_OK;
    static const char *const option[] = {"add_bos_token", "add_eos_token"};
    cJSON *post = cJSON_AddObjectToObject(r->root, "post_processor");
    cJSON_AddStringToObject(post, "type", "TemplateProcessing");
    cJSON *single = cJSON_AddArrayToObject(post, "single");
    cJSON *tokens = cJSON_AddObjectToObject(post, "special_tokens");
    for (int i = 0; i < 2; i++) {
        if (i == 1) {
            add_piece(single, "Sequence", "A");
        }
        const char *name = named_token(r, i);
        if (!cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(r->sources.config, option[i])) || name == NULL) {
            continue;
        }
        const cJSON *model = cJSON_GetObjectItemCaseSensitive(r->root, "model");
        const cJSON *id =
            cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(model, "vocab"), name);
        CHECK(cJSON_IsNumber(id), "%s: %s is true, and \"%.60s\" is no token of the vocabulary", r->path,
              option[i], name);
        add_piece(single, "SpecialToken", name);
        if (cJSON_GetObjectItemCaseSensitive(tokens, name) == NULL) {
            cJSON_AddItemToArray(cJSON_AddArrayToObject(cJSON_AddObjectToObject(tokens, name), "ids"),
                                 cJSON_CreateNumber(id->valuedouble));
        }
    }
done:
    return rc;
}

/* --- the whole --- */

static p4_rc find_root(reading *r)
{
    p4_rc rc = P4_OK;
    TRY(read_file(r, "tokenizer.json", false));
    if (r->path != NULL) {
        TRY(p4_json_read(&r->root, r->text, r->bytes, r->path));
        choose_class(r);
        TRY(check_flags(r));
        return r->chosen != NULL ? use_class(r) : P4_OK;
    }
    r->changed = true;
    choose_class(r);
    TRY(read_file(r, "tokenizer.model", true));
    if (r->path != NULL) {
        TRY(from_sentencepiece(r));
        return add_post(r);
    }
    TRY(read_file(r, "vocab.json", false));
    CHECK(r->path != NULL, "%s: no tokenizer.json, tokenizer.model or vocab.json in this directory",
          r->directory);
    TRY(from_vocabulary(r));
    return add_post(r);
done:
    return rc;
}

p4_rc p4_tok_directory_read(char **json, size_t *bytes, char **source, const char *directory)
{
    p4_rc rc = P4_OK;
    reading r = {.directory = directory, .sources = {.directory = directory}};
    bool adopted = false;
    *json = *source = NULL;
    TRY(read_tree(&r.sources.config, directory, "tokenizer_config.json"));
    TRY(read_tree(&r.sources.special_map, directory, "special_tokens_map.json"));
    TRY(read_tree(&r.sources.added, directory, "added_tokens.json"));
    TRY(read_tree(&r.model_config, directory, "config.json"));
    TRY(find_root(&r));
    TRY(p4_tok_adopt(r.root, &r.sources, r.chosen, &adopted));
    if (r.changed || adopted) {
        free(r.text);
        r.text = cJSON_PrintUnformatted(r.root);
        CHECK(r.text != NULL, "%s: out of memory: the tokenizer as JSON", r.path);
        r.bytes = strlen(r.text);
    }
    *json = r.text;
    *bytes = r.bytes;
    *source = r.path;
    r.text = r.path = NULL;
done:
    cJSON_Delete(r.sources.config);
    cJSON_Delete(r.sources.special_map);
    cJSON_Delete(r.sources.added);
    cJSON_Delete(r.model_config);
    cJSON_Delete(r.root);
    free(r.text);
    free(r.path);
    return rc;
}
