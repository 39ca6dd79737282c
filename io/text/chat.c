/* Which kind of chat template a model directory has. */
#include "io/text/chat.h"

#include <stdlib.h>
#include <string.h>

#include "io/file/files.h"
#include "io/json/read.h"
#include "io/text/chat_state.h"

static const size_t longest_template = (size_t)1 << 20, longest_config = (size_t)64 << 20;

static const char *const kind_names[] = {
    [P4_CHAT_AUTO] = "none",
    [P4_CHAT_CHATML] = "ChatML",
    [P4_CHAT_LLAMA2] = "Llama-2",
    [P4_CHAT_LLAMA3] = "Llama-3",
};

/* Tokens of templates. The first that a template holds decides; a row without a kind is refused. What would
 * change the text in ways that are not rendered stands before the kind that it resembles. */
static const struct {
    const char *mark;
    p4_chat_kind kind;
} marks[] = {
    {"<|im_sep|>", P4_CHAT_AUTO},            /* Phi-4 */
    {"<|im_middle|>", P4_CHAT_AUTO},         /* Kimi */
    {"Knowledge Cutoff Date", P4_CHAT_AUTO}, /* SmolLM3 */
    {"Reasoning Mode", P4_CHAT_AUTO},
    {"<|im_start|>", P4_CHAT_CHATML},
    {"<|start_header_id|>", P4_CHAT_LLAMA3},
    {"<<SYS>>", P4_CHAT_LLAMA2},
    {"<start_of_turn>", P4_CHAT_AUTO}, /* Gemma */
    {"[INST]", P4_CHAT_AUTO},          /* Mistral */
    {"<|user|>", P4_CHAT_AUTO},        /* Zephyr, Phi-3 */
    {"<|end|>", P4_CHAT_AUTO},
    {"### Instruction", P4_CHAT_AUTO},
    {"USER:", P4_CHAT_AUTO},
};

/* ---- recognizing ---- */

static bool holds(const char *text, const char *part)
{
    return strstr(text, part) != NULL;
}

/* The end of the string literal of a template that `quote` opened before `at`; NULL: it has none. */
static const char *literal_end(const char *at, char quote)
{
    while (*at != '\0' && *at != quote) {
        at += at[0] == '\\' && at[1] != '\0' ? 2 : 1;
    }
    return *at == quote ? at : NULL;
}

/* A heap string: a literal's text, without its escapes. */
static char *unescaped(const char *from, const char *end)
{
    char *text = p4_alloc((size_t)(end - from) + 1, 1), *to = text;
    for (const char *at = from; text != NULL && at < end; at++) {
        bool escape = at[0] == '\\' && at + 1 < end;
        at += escape;
        *to++ = escape && *at == 'n' ? '\n' : escape && *at == 't' ? '\t' : *at;
    }
    return text;
}

/* Behind a literal: is it followed by a text of the conversation ("+ messages[0].content"), or by nothing? */
static bool takes_message(const char *at)
{
    at += strspn(at, " +");
    return strncmp(at, "message", 7) == 0 || strncmp(at, "}}", 2) == 0 || strncmp(at, "-}}", 3) == 0;
}

/* The system message of a ChatML template that stands where a conversation has none: in one string literal,
 * between the tokens. A template that takes it from elsewhere than a literal or the conversation is refused:
 * *refused. *found NULL: there is none. */
static p4_rc find_default_system(char **found, bool *refused, const char *text)
{
    static const char begin[] = "<|im_start|>system";
    *found = NULL;
    *refused = false;
    for (const char *at = text; *found == NULL && (at = strstr(at, begin)) != NULL;) {
        char quote = at > text ? at[-1] : '\0';
        at += strlen(begin);
        bool literal = quote == '\'' || quote == '"', escaped = strncmp(at, "\\n", 2) == 0;
        const char *from = at + (escaped ? 2 : *at == '\n');
        const char *end = literal ? literal_end(from, quote) : NULL, *mark = strstr(from, "<|im_end|>");
        if (end == NULL || from == at) {
            continue;
        }
        if (mark != NULL && mark < end) {
            *found = unescaped(from, mark);
            return *found != NULL ? P4_OK : P4_E_SYSTEM;
        }
        *refused = *refused || end != from || !takes_message(end + 1);
    }
    return P4_OK;
}

/* Qwen3's rules are known by the name that they use for an answer's reasoning. A template that writes
 * thinking blocks by other rules is not rendered. */
static p4_rc recognize_chatml(p4_chat *chat, const char *text)
{
    p4_rc rc = P4_OK;
    bool elsewhere = false;
    const char *message = strstr(text, "<|im_start|>"), *bos = strstr(text, "bos_token");
    chat->starts_with_bos = bos != NULL && bos < message;
    chat->trims = holds(text, "content'] | trim") || holds(text, "content | trim") ||
                  holds(text, "content']|trim") || holds(text, "content|trim");
    chat->thinks = holds(text, "reasoning_content");
    if (holds(text, "think>") && (!chat->thinks || !holds(text, "last_query_index"))) {
        chat->kind = P4_CHAT_AUTO;
        chat->refusal = p4_strdup("is ChatML with thinking blocks by other rules than Qwen3's");
        return chat->refusal != NULL ? P4_OK : P4_E_SYSTEM;
    }
    TRY(find_default_system(&chat->default_system, &elsewhere, text));
    if (elsewhere && chat->default_system == NULL) {
        chat->kind = P4_CHAT_AUTO;
        chat->refusal = p4_strdup("is ChatML with a system message that it takes from elsewhere than the "
                                  "conversation");
        TRY(chat->refusal != NULL ? P4_OK : P4_E_SYSTEM);
    }
done:
    return rc;
}

static p4_rc recognize(p4_chat *chat, const char *text)
{
    for (size_t i = 0; i < sizeof marks / sizeof marks[0]; i++) {
        if (!holds(text, marks[i].mark)) {
            continue;
        }
        chat->kind = marks[i].kind;
        chat->dated = holds(text, "Cutting Knowledge Date");
        if (chat->kind == P4_CHAT_AUTO) {
            chat->refusal = p4_format("writes \"%s\"; known are ChatML, Llama-2 and Llama-3", marks[i].mark);
            return chat->refusal != NULL ? P4_OK : P4_E_SYSTEM;
        }
        return chat->kind == P4_CHAT_CHATML ? recognize_chatml(chat, text) : P4_OK;
    }
    chat->refusal = p4_strdup("is none of ChatML, Llama-2 and Llama-3");
    return chat->refusal != NULL ? P4_OK : P4_E_SYSTEM;
}

/* ---- the directory ---- */

/* *text: the template in tokenizer_config.json: a string, or of a list of named ones "default"; NULL: none.
 */
static p4_rc template_of_config(const char **text, const cJSON *root, const char *source)
{
    p4_rc rc = P4_OK;
    const cJSON *item, *each;
    *text = NULL;
    TRY(p4_json_member(&item, source, "", root, "chat_template", false));
    if (!cJSON_IsArray(item)) {
        TRY(p4_json_string(text, source, "", root, "chat_template", false));
        return P4_OK;
    }
    cJSON_ArrayForEach(each, item)
    {
        const char *name;
        TRY(p4_json_string(&name, source, "chat_template", each, "name", true));
        if (strcmp(name, "default") == 0) {
            TRY(p4_json_string(text, source, "chat_template", each, "template", true));
        }
    }
done:
    return rc;
}

/* "bos_token": "<s>", or {"content": "<s>"}, or null. */
static p4_rc token_text(char **text, const cJSON *root, const char *key, const char *source)
{
    p4_rc rc = P4_OK;
    const cJSON *item = NULL;
    const char *content = NULL;
    if (root != NULL) {
        TRY(p4_json_member(&item, source, "", root, key, false));
        TRY(cJSON_IsObject(item) ? p4_json_string(&content, source, key, item, "content", true)
                                 : p4_json_string(&content, source, "", root, key, false));
    }
    *text = p4_strdup(content != NULL ? content : "");
    TRY(*text != NULL ? P4_OK : P4_E_SYSTEM);
done:
    return rc;
}

/* *text: the file's, or NULL if there is none. */
static p4_rc read_if_there(char **text, size_t *bytes, const char *path, size_t limit)
{
    bool there;
    p4_rc rc = p4_file_find(&there, path);
    *text = NULL;
    return rc == P4_OK && there ? p4_file_read(text, bytes, path, limit) : rc;
}

static p4_rc read_directory(p4_chat *chat, const char *directory, p4_chat_kind kind)
{
    p4_rc rc = P4_OK;
    char *jinja = NULL, *json = NULL;
    const char *text = NULL, *source;
    size_t bytes;
    cJSON *root = NULL;
    char *jinja_path = p4_format("%s/chat_template.jinja", directory);
    char *config_path = p4_format("%s/tokenizer_config.json", directory);
    TRY(jinja_path != NULL && config_path != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(read_if_there(&jinja, &bytes, jinja_path, longest_template));
    TRY(read_if_there(&json, &bytes, config_path, longest_config));
    if (json != NULL) {
        TRY(p4_json_read(&root, json, bytes, config_path));
        TRY(template_of_config(&text, root, config_path));
    }
    TRY(token_text(&chat->bos, root, "bos_token", config_path));
    TRY(token_text(&chat->eos, root, "eos_token", config_path));
    source = jinja != NULL ? jinja_path : config_path;
    text = jinja != NULL ? jinja : text;
    if (kind != P4_CHAT_AUTO) {
        chat->kind = kind;
    } else if (text != NULL) {
        TRY(recognize(chat, text));
    }
    if (chat->kind == P4_CHAT_AUTO) {
        char *what = chat->refusal;
        chat->absent = what == NULL;
        chat->refusal = what != NULL ? p4_format("the chat template in %s %s", source, what)
                                     : p4_format("the model in %s has no chat template", directory);
        free(what);
        TRY(chat->refusal != NULL ? P4_OK : P4_E_SYSTEM);
    }
done:
    cJSON_Delete(root);
    free(json);
    free(jinja);
    free(config_path);
    free(jinja_path);
    return rc;
}

const char *p4_chat_refusal(const p4_chat *chat)
{
    return chat->kind == P4_CHAT_AUTO ? chat->refusal : NULL;
}

p4_rc p4_chat_open(p4_chat **chat, const char *directory, p4_chat_kind kind)
{
    p4_rc rc = P4_OK;
    p4_chat *made = p4_alloc(1, sizeof *made);
    TRY(made != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(read_directory(made, directory, kind));
    made->description =
        p4_format("%s%s%s%s%s, begins %s, ends %s, system %s", kind_names[made->kind],
                  made->starts_with_bos ? " from its beginning" : "", made->trims ? " trimmed" : "",
                  made->thinks ? " thinking" : "", made->dated ? " dated" : "", made->bos, made->eos,
                  made->default_system != NULL ? made->default_system : "none");
    TRY(made->description != NULL ? P4_OK : P4_E_SYSTEM);
done:
    if (rc == P4_OK) {
        *chat = made;
    } else {
        p4_chat_close(made);
    }
    return rc;
}

const char *p4_chat_description(const p4_chat *chat)
{
    return chat->description;
}

void p4_chat_close(p4_chat *chat)
{
    if (chat != NULL) {
        free(chat->refusal);
        free(chat->default_system);
        free(chat->bos);
        free(chat->eos);
        free(chat->description);
        free(chat);
    }
}
