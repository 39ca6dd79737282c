/* sizes_json.h - the object "metrics", which results.json and compression_metadata.json share. */
#ifndef P4_SIZES_JSON_H
#define P4_SIZES_JSON_H

#include <cjson/cJSON.h>

#include "src/leaf/base.h"
#include "src/phase4/results.h"

/* False when memory runs out. Local. */
bool p4_json_put_sizes(cJSON *object, const p4_size_metrics *metrics);
/* null and absent give NaN or 0; anything but numbers is an error that names `source` and the key. Local. */
p4_rc p4_json_take_sizes(p4_size_metrics *metrics, const cJSON *object, const char *source);

#endif
