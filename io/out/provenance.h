/* provenance.h - the object "provenance", which results.json and compression_metadata.json share: where, when
 * and by which software a run was made. All Local. */
#ifndef P4_PROVENANCE_H
#define P4_PROVENANCE_H

#include <cjson/cJSON.h>

#include "src/leaf/base.h"
#include "src/phase4/results.h"

/* Nothing known: null. False when memory runs out. */
bool p4_json_put_provenance(cJSON *object, const char *key, const p4_provenance *provenance);

#endif
