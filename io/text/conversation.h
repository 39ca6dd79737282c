/* conversation.h - conversations in the forms in which data sets hold them. */
#ifndef P4_CONVERSATION_H
#define P4_CONVERSATION_H

#include <cjson/cJSON.h>

#include "io/text/chat.h"

/* The conversation of a line of JSONL: *item and *key, the field that holds it: "messages" (a list of role
 * and content) or "conversations" (ShareGPT: a list of from and value); the object itself and "instruction"
 * with "output" beside it (Alpaca; "input" too). NULL: there is none. Local. */
void p4_conversation_find(const cJSON *object, const cJSON **item, const char **key);

/* *text: the conversation as the template renders it, a heap string. Errors begin with `where` and name the
 * key. The caller frees. Local. */
p4_rc p4_conversation_render(char **text, const cJSON *item, const char *key, const p4_chat *chat,
                             const char *where);

#endif
