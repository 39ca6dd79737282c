/* evaluations_json.h - the evaluations of a run and its verdict as members of a JSON object. false: memory is
 * out. All Local. */
#ifndef P4_EVALUATIONS_JSON_H
#define P4_EVALUATIONS_JSON_H

#include "io/json/write.h"
#include "io/out/report.h"

/* pre_compression, post_compression, final and, where there are sets, eval_sets. */
bool p4_json_put_evaluations(cJSON *object, const p4_results *results);
bool p4_json_put_quality(cJSON *object, const p4_quality *quality, p4_verdict verdict);

#endif
