#include "io/text/conversation.h"

#include <stdlib.h>
#include <string.h>

void p4_conversation_find(const cJSON *object, const cJSON **item, const char **key)
{
    static const char *const lists[] = {"messages", "conversations", "conversation"};
    *item = NULL;
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        const cJSON *list = cJSON_GetObjectItemCaseSensitive(object, lists[i]);
        if (cJSON_IsArray(list)) {
            *item = list;
            *key = lists[i];
            return;
        }
    }
    if (cJSON_IsString(cJSON_GetObjectItemCaseSensitive(object, "instruction")) &&
        cJSON_IsString(cJSON_GetObjectItemCaseSensitive(object, "output"))) {
        *item = object;
        *key = "instruction";
    }
}

/* The names of roles in data sets, and in templates. */
static const struct {
    const char *name, *role;
} roles[] = {
    {"system", "system"},       {"user", "user"},       {"human", "user"},        {"prompter", "user"},
    {"assistant", "assistant"}, {"gpt", "assistant"},   {"chatgpt", "assistant"}, {"bing", "assistant"},
    {"bard", "assistant"},      {"model", "assistant"},
};

static p4_rc find_role(const char **role, const char *name, const char *where, const char *key, int64_t at)
{
    for (size_t i = 0; i < sizeof roles / sizeof roles[0]; i++) {
        if (strcmp(roles[i].name, name) == 0) {
            *role = roles[i].role;
            return P4_OK;
        }
    }
    return FAIL("%s: %s[%lld] is of role \"%.60s\", expected system, user or assistant", where, key,
                (long long)at, name);
}

/* *text: a message's content: a string, or a list of parts of which each is text: these are joined into
 * *joined, which the caller frees. */
static p4_rc find_text(const char **text, char **joined, const cJSON *content, const char *where,
                       const char *key, int64_t at)
{
    p4_rc rc = P4_OK;
    const cJSON *part;
    if (cJSON_IsString(content)) {
        *text = content->valuestring;
        return P4_OK;
    }
    CHECK(cJSON_IsArray(content), "%s: %s[%lld] has no text: expected a string, or a list of text parts",
          where, key, (long long)at);
    *joined = p4_strdup("");
    cJSON_ArrayForEach(part, content)
    {
        const char *piece = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(part, "text"));
        CHECK(piece != NULL, "%s: %s[%lld] has a part that is no text", where, key, (long long)at);
        char *longer = *joined != NULL ? p4_format("%s%s", *joined, piece) : NULL;
        free(*joined);
        *joined = longer;
    }
    TRY(*joined != NULL ? P4_OK : P4_E_SYSTEM);
    *text = *joined;
done:
    return rc;
}

static const cJSON *either(const cJSON *object, const char *name, const char *other)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);
    return item != NULL ? item : cJSON_GetObjectItemCaseSensitive(object, other);
}

/* A list of messages: role and content, or from and value. */
static p4_rc render_list(char **text, const cJSON *list, const char *key, const p4_chat *chat,
                         const char *where)
{
    p4_rc rc = P4_OK;
    const int64_t count = cJSON_GetArraySize(list);
    int64_t at = 0;
    const cJSON *item;
    p4_chat_message *messages = p4_alloc((size_t)count, sizeof *messages);
    char **joined = p4_alloc((size_t)count, sizeof *joined);
    TRY(messages != NULL && joined != NULL ? P4_OK : P4_E_SYSTEM);
    CHECK(count > 0, "%s: %s holds no messages", where, key);
    cJSON_ArrayForEach(item, list)
    {
        const char *role = cJSON_GetStringValue(either(item, "role", "from"));
        CHECK(role != NULL, "%s: %s[%lld] names no role (\"role\", or \"from\")", where, key, (long long)at);
        TRY(find_role(&messages[at].role, role, where, key, at));
        TRY(find_text(&messages[at].text, &joined[at], either(item, "content", "value"), where, key, at));
        messages[at].opt_reasoning =
            cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(item, "reasoning_content"));
        at++;
    }
    TRY(p4_chat_render(chat, text, messages, count, where));
done:
    for (int64_t i = 0; joined != NULL && i < count; i++) {
        free(joined[i]);
    }
    free(joined);
    free(messages);
    return rc;
}

/* Alpaca: the user's message is the instruction and, if there is one, the input below it. */
static p4_rc render_instruction(char **text, const cJSON *object, const p4_chat *chat, const char *where)
{
    p4_rc rc = P4_OK;
    const char *instruction = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, "instruction"));
    const char *input = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, "input"));
    const char *system = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, "system"));
    bool has_input = input != NULL && input[0] != '\0', has_system = system != NULL && system[0] != '\0';
    char *user = p4_format("%s%s%s", instruction, has_input ? "\n\n" : "", has_input ? input : "");
    TRY(user != NULL ? P4_OK : P4_E_SYSTEM);
    p4_chat_message messages[] = {
        {.role = "system", .text = system},
        {.role = "user", .text = user},
        {.role = "assistant",
         .text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, "output"))},
    };
    TRY(p4_chat_render(chat, text, messages + !has_system, 2 + has_system, where));
done:
    free(user);
    return rc;
}

p4_rc p4_conversation_render(char **text, const cJSON *item, const char *key, const p4_chat *chat,
                             const char *where)
{
    *text = NULL;
    if (chat == NULL) {
        return FAIL("%s: \"%s\" is a conversation, and there is no tokenizer with a chat template", where,
                    key);
    }
    return cJSON_IsArray(item) ? render_list(text, item, key, chat, where)
                               : render_instruction(text, item, chat, where);
}
