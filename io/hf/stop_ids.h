/* stop_ids.h - the tokens that end a text, as a model's files list them. */
#ifndef P4_STOP_IDS_H
#define P4_STOP_IDS_H

#include "src/leaf/base.h"

enum { P4_STOP_IDS_MAX = 32 };

typedef struct p4_stop_ids {
    int32_t ids[P4_STOP_IDS_MAX];
    int count;
} p4_stop_ids;

/* Adds an id that is not negative and not there yet. P4_E_INPUT: there are too many. Local. */
p4_rc p4_stop_ids_add(p4_stop_ids *stop, int32_t id);
bool p4_stop_ids_has(const p4_stop_ids *stop, int32_t id);
/* Adds eos_token_id, a number or a list of numbers, of the text of a config.json or generation_config.json,
 * if it has that key; `source` names it in messages. P4_E_INPUT: the key holds something else. Local. */
p4_rc p4_stop_ids_read(p4_stop_ids *stop, const char *json, const char *source);
/* The same of generation_config.json in a directory, if it is there. Local. */
p4_rc p4_stop_ids_of_directory(p4_stop_ids *stop, const char *directory);

#endif
