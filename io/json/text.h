/* text.h - JSON as text beside its cJSON tree, for what the tree does not keep: the line of a value, and how
 * a number is spelled (cJSON has doubles only, and a seed has 64 bits). */
#ifndef P4_JSON_TEXT_H
#define P4_JSON_TEXT_H

#include <cjson/cJSON.h>

#include "src/config.h"

/* A value: its tree, and its characters in the text. */
typedef struct p4_json_value {
    const cJSON *item;
    const char *raw;
    size_t raw_bytes;
    int line;
} p4_json_value;

/* Walks a text that cJSON has accepted, in step with its tree. */
typedef struct p4_json_cursor {
    const char *at;
    int line;
} p4_json_cursor;

/* The text behind a UTF-8 byte order mark, if there is one. Local. */
const char *p4_json_skip_mark(const char *json);
/* The tree of `json` (NUL-terminated, `bytes` without the NUL); NULL and a complaint in the report when it is
 * not JSON: cJSON's grammar without control characters and \u0000, at most 64 levels deep. The caller deletes
 * the tree with cJSON_Delete. Local. */
cJSON *p4_json_parse(const char *json, size_t bytes, p4_config_report *report);

/* Reads the next value of the text, whose tree is `item`. Local. */
p4_json_value p4_json_next_value(p4_json_cursor *cursor, const cJSON *item);
/* Enters the object or list at the cursor; leaves it after its last member. Local. */
void p4_json_enter(p4_json_cursor *cursor);
void p4_json_leave(p4_json_cursor *cursor);
/* Reads the next key of an object and returns its line. Local. */
int p4_json_next_key(p4_json_cursor *cursor);

/* The length of the number at `raw` by JSON's grammar, which knows no "01" and no "1."; 0: there is none.
 * Local. */
size_t p4_json_number_bytes(const char *raw, size_t bytes);
/* Is the value a number by JSON's grammar? cJSON is laxer. Local. */
bool p4_json_is_number(const p4_json_value *value);
/* Is it a number other than 0 that a double cannot tell from 0, as 1e-400? Local. */
bool p4_json_underflows(const p4_json_value *value);
/* A whole number as sign and magnitude, exact to 64 bits when written in digits only; 4.0 and 1e6 are
 * accepted up to 2^53. False: not a whole number, or too large. Local. */
bool p4_json_whole(const p4_json_value *value, bool *negative, uint64_t *magnitude);

#endif
