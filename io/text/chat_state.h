/* chat_state.h - what is known of a chat template; chat.c finds it out, chat_render.c uses it. */
#ifndef P4_CHAT_STATE_H
#define P4_CHAT_STATE_H

#include "io/text/chat.h"

struct p4_chat {
    p4_chat_kind kind;    /* P4_CHAT_AUTO: not one of those that are rendered */
    char *refusal;        /* why not */
    bool absent;          /* because there is no template */
    char *default_system; /* ChatML: the system message that stands where a conversation has none; or NULL */
    char *bos, *eos;      /* their texts; "" if the tokenizer has none */
    bool starts_with_bos; /* ChatML; the others always do */
    bool trims;           /* ChatML: white space around a message is dropped; the others always do */
    bool thinks;          /* ChatML: Qwen3's thinking blocks */
    bool dated;           /* Llama-3: the system message with dates */
    char *description;
};

#endif
