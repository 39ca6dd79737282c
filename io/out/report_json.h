/* report_json.h - pieces of JSON that results.json, compression_metadata.json and metrics.jsonl share. */
#ifndef P4_REPORT_JSON_H
#define P4_REPORT_JSON_H

#include <cjson/cJSON.h>

#include "io/out/report.h"

typedef struct p4_json_number {
    const char *key;
    double value; /* not finite: null */
} p4_json_number;

/* Each is false when memory is out. Local. */
bool p4_json_put_numbers(cJSON *object, const p4_json_number *numbers, size_t count);
/* "": null. Bytes that are no UTF-8 become '?', so that the file stays readable whatever a path was made of.
 */
bool p4_json_put_text(cJSON *object, const char *key, const char *text);
bool p4_json_put_sizes(cJSON *object, const p4_size_metrics *metrics);
/* null and absent give NaN or 0; anything but numbers is an error that names `source` and the key. Local. */
p4_rc p4_json_take_sizes(p4_size_metrics *metrics, const cJSON *object, const char *source);

/* The text of a tree with a newline at its end, heap; NULL records that memory is out. Deletes the tree.
 * Local. */
char *p4_json_print(cJSON *root, bool complete, bool indented);

#endif
