/* experts_json.h - the object "experts", which results.json and compression_metadata.json share: how tokens
 * were divided among the experts of each layer. All Local. */
#ifndef P4_EXPERTS_JSON_H
#define P4_EXPERTS_JSON_H

#include <cjson/cJSON.h>

#include "src/leaf/base.h"
#include "src/phase4/results.h"

/* No mixture of experts: null. False when memory runs out. */
bool p4_json_put_experts(cJSON *object, const char *key, const p4_expert_loads *loads);
/* Share of a layer's tokens that its least or (largest) most used expert got, times the number of experts: 1
 * if all got equally many. NaN: not measured. */
double p4_expert_loads_extreme(const p4_expert_loads *loads, int64_t layer, bool largest);

#endif
