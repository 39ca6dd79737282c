/* write.h - the one way in which JSON is written: a cJSON tree, printed. Everything here is Local; what
 * returns bool is false when memory runs out. */
#ifndef P4_JSON_WRITE_H
#define P4_JSON_WRITE_H

#include <cjson/cJSON.h>

#include "src/leaf/base.h"

typedef struct p4_json_real {
    const char *key;
    double value; /* not finite: null */
} p4_json_real;
bool p4_json_put_reals(cJSON *object, const p4_json_real *reals, size_t count);
/* Exact, which a double is up to 2^53 only. */
bool p4_json_put_whole(cJSON *object, const char *key, int64_t value);
/* "": null. A byte that is not UTF-8 becomes '?', so that the file stays readable whatever a path consists
 * of. */
bool p4_json_put_text(cJSON *object, const char *key, const char *text);

/* Makes `item`, whatever it was, print as these characters, which must be a JSON value. */
bool p4_json_set_raw(cJSON *item, const char *json, size_t bytes);
/* Makes each number of a tree that was parsed from `json` print as it is spelled there: 10000.0 stays a real
 * number for readers that tell it from 10000, and 18446744073709551615 keeps its last digits. */
bool p4_json_keep_numbers(cJSON *root, const char *json);

/* The text of a tree with a newline at its end, heap; NULL, with the message recorded, when memory runs out
 * or `complete` (what the functions above returned) is false. Deletes the tree. */
char *p4_json_print(cJSON *root, bool complete, bool indented);

#endif
