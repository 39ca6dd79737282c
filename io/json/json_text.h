/* json_text.h - JSON that a person wrote, read through cJSON, with what cJSON does not keep: on which line a
 * value stands and how its number was written (cJSON has doubles only, and a seed has 64 bits). */
#ifndef P4_JSON_TEXT_H
#define P4_JSON_TEXT_H

#include <cjson/cJSON.h>

#include "src/config.h"

/* A value: its tree, and its characters as they stand in the text. */
typedef struct p4_json_value {
    const cJSON *item;
    const char *raw;
    size_t raw_bytes;
    int line;
} p4_json_value;

/* Walks a text that p4_json_parse has accepted, in step with its tree. */
typedef struct p4_json_cursor {
    const char *at;
    int line;
} p4_json_cursor;

/* The tree of `json` (NUL-terminated, `bytes` without the NUL); NULL and a complaint in the report when it is
 * no JSON: cJSON's grammar, less control characters and \u0000, at most 64 deep. The caller deletes with
 * cJSON_Delete. Local. */
cJSON *p4_json_parse(const char *json, size_t bytes, p4_config_report *report);

/* Takes the next value of the text, whose tree is `item`. Local. */
p4_json_value p4_json_next_value(p4_json_cursor *cursor, const cJSON *item);
/* Enters the object or list at the cursor. Local. */
void p4_json_enter(p4_json_cursor *cursor);
/* Takes the next key of an object and returns its line. Local. */
int p4_json_next_key(p4_json_cursor *cursor);

/* Is the value a number by JSON's grammar? cJSON also takes "01" and "1.". Local. */
bool p4_json_is_number(const p4_json_value *value);
/* A whole number as sign and magnitude, exact to 64 bits when written in digits only; 4.0 and 1e6 count up to
 * 2^53. False: no whole number, or too large. Local. */
bool p4_json_whole(const p4_json_value *value, bool *negative, uint64_t *magnitude);

#endif
