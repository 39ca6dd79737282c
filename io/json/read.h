/* read.h - JSON that another program wrote: the tree with the checks that cJSON leaves out, and its members
 * by key.
 *
 * Messages name `source` (the file) and `where` (the object's place in it, "" for the whole: "model",
 * "decoder"). For JSON that a person wrote, with line numbers, see text.h. All Local. */
#ifndef P4_JSON_READ_H
#define P4_JSON_READ_H

#include <cjson/cJSON.h>

#include "src/leaf/base.h"

/* The tree of a text that must be one JSON object in UTF-8. Strings with \u0000 are refused, because cJSON
 * would cut them short. The caller deletes *root with cJSON_Delete; it is NULL after an error. */
p4_rc p4_json_read(cJSON **root, const char *json, size_t bytes, const char *source);

/* The member `key` of an object. A key that occurs twice or holds the wrong type is refused, and so is a
 * missing one if it is required; otherwise *item is NULL, and *value is left as it is (p4_json_string: NULL,
 * also for null). */
p4_rc p4_json_member(const cJSON **item, const char *source, const char *where, const cJSON *object,
                     const char *key, bool required);
p4_rc p4_json_bool(bool *value, const char *source, const char *where, const cJSON *object, const char *key,
                   bool required);
p4_rc p4_json_string(const char **value, const char *source, const char *where, const cJSON *object,
                     const char *key, bool required);
/* Required; from 0 to limit - 1. */
p4_rc p4_json_integer(int64_t *value, const char *source, const char *where, const cJSON *object,
                      const char *key, int64_t limit);

/* Whether the item is a whole number from 0 to limit - 1; *value is -1 when it is not. limit <= 2^53. */
bool p4_json_is_whole(const cJSON *item, int64_t limit, int64_t *value);

#endif
