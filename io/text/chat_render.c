/* Conversations as text, by the rules of each kind of chat template. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/text/chat_state.h"

/* ---- pieces of text ---- */

typedef struct span {
    const char *at;
    size_t bytes;
} span;

static span all_of(const char *text)
{
    return (span){text, strlen(text)};
}

/* Bytes of the white space (Python's str.strip()) that begins at `at`; 0: none begins there. */
static size_t space_bytes(const char *at, const char *end)
{
    static const char *const wide[] = {"\xc2\x85",     "\xc2\xa0",     "\xe1\x9a\x80", "\xe2\x80\xa8",
                                       "\xe2\x80\xa9", "\xe2\x80\xaf", "\xe2\x81\x9f", "\xe3\x80\x80"};
    unsigned char c = (unsigned char)*at;
    if (c == ' ' || (c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x1f)) {
        return 1;
    }
    for (size_t i = 0; i < sizeof wide / sizeof wide[0]; i++) {
        size_t bytes = strlen(wide[i]);
        if ((size_t)(end - at) >= bytes && memcmp(at, wide[i], bytes) == 0) {
            return bytes;
        }
    }
    bool en_quad = end - at >= 3 && memcmp(at, "\xe2\x80", 2) == 0;
    return en_quad && (unsigned char)at[2] >= 0x80 && (unsigned char)at[2] <= 0x8a ? 3 : 0;
}

static span trimmed(span text)
{
    const char *end = text.at + text.bytes, *from = text.at, *to;
    for (size_t space; from < end && (space = space_bytes(from, end)) > 0;) {
        from += space;
    }
    to = from;
    for (const char *at = from; at < end;) { /* `to`: behind the last character that is no space */
        size_t space = space_bytes(at, end);
        at += space > 0 ? space : 1;
        to = space > 0 ? to : at;
    }
    return (span){from, (size_t)(to - from)};
}

/* Without the line ends at the front, and at the back if `both` is set. */
static span without_line_ends(span text, bool both)
{
    while (text.bytes > 0 && text.at[0] == '\n') {
        text.at++;
        text.bytes--;
    }
    while (both && text.bytes > 0 && text.at[text.bytes - 1] == '\n') {
        text.bytes--;
    }
    return text;
}

static void put(FILE *to, span text)
{
    (void)fwrite(text.at, 1, text.bytes, to);
}

static bool is(const p4_chat_message *message, const char *role)
{
    return strcmp(message->role, role) == 0;
}

/* ---- ChatML ---- */

/* An answer split into reasoning and what follows it. */
typedef struct answer {
    span reasoning, text;
} answer;

static const char *last_in(span text, const char *part)
{
    const char *found = NULL;
    for (const char *at = text.at; (at = strstr(at, part)) != NULL && at < text.at + text.bytes; at++) {
        found = at;
    }
    return found;
}

/* Qwen3: the reasoning is a field of the message, or stands in the text before "</think>". */
static answer split_answer(const p4_chat_message *message)
{
    static const char open[] = "<think>", close[] = "</think>";
    answer a = {.reasoning = all_of(""), .text = all_of(message->text)};
    if (message->opt_reasoning != NULL) {
        a.reasoning = all_of(message->opt_reasoning);
        return a;
    }
    const char *first = strstr(message->text, close);
    if (first == NULL) {
        return a;
    }
    span before = {message->text, (size_t)(first - message->text)};
    while (before.bytes > 0 && before.at[before.bytes - 1] == '\n') {
        before.bytes--;
    }
    const char *from = last_in(before, open);
    if (from != NULL) {
        from += strlen(open);
        before = (span){from, (size_t)(before.at + before.bytes - from)};
    }
    a.reasoning = without_line_ends(before, false);
    a.text = without_line_ends(all_of(last_in(a.text, close) + strlen(close)), false);
    return a;
}

/* The last message of a user; `count`: there is none, or only answers of tools. */
static int64_t last_query(const p4_chat_message *messages, int64_t count)
{
    static const char open[] = "<tool_response>", close[] = "</tool_response>";
    for (int64_t i = count - 1; i >= 0; i--) {
        size_t bytes = strlen(messages[i].text);
        bool tool = strncmp(messages[i].text, open, strlen(open)) == 0 && bytes >= strlen(close) &&
                    strcmp(messages[i].text + bytes - strlen(close), close) == 0;
        if (is(&messages[i], "user") && !tool) {
            return i;
        }
    }
    return count;
}

static void put_chatml(const p4_chat *chat, FILE *to, const p4_chat_message *messages, int64_t count)
{
    int64_t query = last_query(messages, count);
    if (chat->starts_with_bos) {
        put(to, all_of(chat->bos));
    }
    if (chat->default_system != NULL && (count == 0 || !is(&messages[0], "system"))) {
        fprintf(to, "<|im_start|>system\n%s<|im_end|>\n", chat->default_system);
    }
    for (int64_t i = 0; i < count; i++) {
        span text = all_of(messages[i].text);
        fprintf(to, "<|im_start|>%s\n", messages[i].role);
        if (chat->thinks && is(&messages[i], "assistant")) {
            answer a = split_answer(&messages[i]);
            text = a.text;
            if (i > query && (i == count - 1 || a.reasoning.bytes > 0)) {
                fputs("<think>\n", to);
                put(to, without_line_ends(a.reasoning, true));
                fputs("\n</think>\n\n", to);
                text = without_line_ends(text, false);
            }
        }
        put(to, chat->trims ? trimmed(text) : text);
        fputs("<|im_end|>\n", to);
    }
}

/* ---- Llama-3 ---- */

static void put_llama3(const p4_chat *chat, FILE *to, const p4_chat_message *messages, int64_t count)
{
    int64_t first = 0;
    put(to, all_of(chat->bos));
    if (chat->dated) {
        first = count > 0 && is(&messages[0], "system");
        fputs("<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n"
              "Today Date: 26 Jul 2024\n\n",
              to);
        if (first > 0) {
            put(to, trimmed(all_of(messages[0].text)));
        }
        fputs("<|eot_id|>", to);
    }
    for (int64_t i = first; i < count; i++) {
        fprintf(to, "<|start_header_id|>%s<|end_header_id|>\n\n", messages[i].role);
        put(to, trimmed(all_of(messages[i].text)));
        fputs("<|eot_id|>", to);
    }
}

/* ---- Llama-2 ---- */

static p4_rc put_with_system(FILE *to, const p4_chat_message *messages)
{
    char *text = p4_format("<<SYS>>\n%s\n<</SYS>>\n\n%s", messages[0].text, messages[1].text);
    if (text == NULL) {
        return P4_E_SYSTEM;
    }
    put(to, trimmed(all_of(text)));
    free(text);
    return P4_OK;
}

/* A system message goes into the first message of the user; users and assistants take turns. */
static p4_rc put_llama2(const p4_chat *chat, FILE *to, const p4_chat_message *messages, int64_t count,
                        const char *where)
{
    p4_rc rc = P4_OK;
    int64_t first = count > 0 && is(&messages[0], "system");
    for (int64_t i = first; i < count; i++) {
        bool user = (i - first) % 2 == 0;
        CHECK(
            is(&messages[i], user ? "user" : "assistant"),
            "%s: message %lld is of role \"%s\", expected \"%s\": in Llama-2's chat template they take turns",
            where, (long long)i + 1, messages[i].role, user ? "user" : "assistant");
        if (!user) {
            fputc(' ', to);
            put(to, trimmed(all_of(messages[i].text)));
            fputc(' ', to);
            put(to, all_of(chat->eos));
            continue;
        }
        put(to, all_of(chat->bos));
        fputs("[INST] ", to);
        if (i == 1 && first == 1) { /* they are trimmed together */
            TRY(put_with_system(to, messages));
        } else {
            put(to, trimmed(all_of(messages[i].text)));
        }
        fputs(" [/INST]", to);
    }
done:
    return rc;
}

/* ---- the interface ---- */

p4_rc p4_chat_render(const p4_chat *chat, char **text, const p4_chat_message *messages, int64_t count,
                     const char *where)
{
    p4_rc rc = P4_OK;
    size_t bytes;
    FILE *to = NULL;
    *text = NULL;
    CHECK(chat->kind != P4_CHAT_AUTO, "%s: is a conversation, and %s%s", where, chat->refusal,
          chat->absent ? "; key \"chat_template\" can name one" : "");
    CHECK(chat->kind == P4_CHAT_CHATML || chat->bos[0] != '\0',
          "%s: is a conversation, and the tokenizer has no bos_token, which its chat template writes", where);
    to = open_memstream(text, &bytes);
    TRY(to != NULL ? P4_OK : FAULT("out of memory"));
    if (chat->kind == P4_CHAT_CHATML) {
        put_chatml(chat, to, messages, count);
    } else if (chat->kind == P4_CHAT_LLAMA3) {
        put_llama3(chat, to, messages, count);
    } else {
        TRY(put_llama2(chat, to, messages, count, where));
    }
done:
    if (to != NULL && fclose(to) != 0 && rc == P4_OK) {
        rc = FAULT("out of memory");
    }
    if (rc != P4_OK) {
        free(*text);
        *text = NULL;
    }
    return rc;
}

p4_rc p4_chat_render_prompt(const p4_chat *chat, char **text, const p4_chat_message *messages, int64_t count,
                            const char *where)
{
    const char *begin = chat->kind == P4_CHAT_CHATML   ? "<|im_start|>assistant\n"
                        : chat->kind == P4_CHAT_LLAMA3 ? "<|start_header_id|>assistant<|end_header_id|>\n\n"
                                                       : "";
    p4_rc rc = P4_OK;
    char *conversation = NULL;
    *text = NULL;
    TRY(p4_chat_render(chat, &conversation, messages, count, where));
    *text = p4_format("%s%s", conversation, begin);
    rc = *text != NULL ? P4_OK : P4_E_SYSTEM;
done:
    free(conversation);
    return rc;
}

const char *p4_chat_message_end(const p4_chat *chat)
{
    return chat->kind == P4_CHAT_CHATML ? "<|im_end|>" : chat->kind == P4_CHAT_LLAMA3 ? "<|eot_id|>" : NULL;
}
