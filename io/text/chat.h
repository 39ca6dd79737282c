/* chat.h - conversations as text, as the chat template of a tokenizer renders them.
 *
 * A template is a program (Jinja), which is not run. The three common kinds are recognized by the tokens that
 * they write, and chat_render.c renders them by rule: ChatML (Qwen, SmolLM2, ...; with the thinking blocks of
 * Qwen3), Llama-3 (3.1 and later write a system message with dates, always "26 Jul 2024" here, so that a run
 * does not depend on the day), and Llama-2. tests/test_chat.c compares them with what the
 * reference library's template engine rendered (tests/fixtures/make_chats.py). */
#ifndef P4_CHAT_H
#define P4_CHAT_H

#include "src/leaf/base.h"
#include "src/phase4/types.h"

typedef struct p4_chat p4_chat;

typedef struct p4_chat_message {
    const char *role; /* "system", "user" or "assistant" */
    const char *text;
    const char *opt_reasoning; /* "reasoning_content" of an assistant's message; NULL: none */
} p4_chat_message;

/* The template of a model directory: chat_template.jinja, else tokenizer_config.json's chat_template, of
 * which kind `kind` says; automatic: by its text. A directory without a template, or with one of another
 * kind, is no error until a conversation is rendered. The caller closes. Local. */
p4_rc p4_chat_open(p4_chat **chat, const char *directory, p4_chat_kind kind);
void p4_chat_close(p4_chat *chat);

/* Why no conversation can be rendered, as a sentence: there is no template, or none of the known kinds. NULL:
 * they can. */
const char *p4_chat_refusal(const p4_chat *chat);

/* What decides how conversations are rendered, in words, for the key of a cache. */
const char *p4_chat_description(const p4_chat *chat);

/* *text: a heap string, the whole conversation without a prompt for a further answer, as it is to be
 * tokenized without adding special tokens. P4_E_INPUT, in a message that begins with `where`: there is no
 * template, or none of the known kinds; what the template refuses, such as roles out of turn (Llama-2). The
 * caller frees. Local. */
p4_rc p4_chat_render(const p4_chat *chat, char **text, const p4_chat_message *messages, int64_t count,
                     const char *where);
/* The same with the beginning of the assistant's next message behind it. */
p4_rc p4_chat_render_prompt(const p4_chat *chat, char **text, const p4_chat_message *messages, int64_t count,
                            const char *where);
/* The token that ends an assistant's message in this kind of template; NULL: the end of the text does. */
const char *p4_chat_message_end(const p4_chat *chat);

#endif
