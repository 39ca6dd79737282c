/* models.h - the model directories that a queue names, and whether a model has changed. */
#ifndef P4_BATCH_MODELS_H
#define P4_BATCH_MODELS_H

#include <cjson/cJSON.h>

#include "io/file/fingerprint.h"
#include "src/leaf/base.h"

/* The models of "models": a string or a list of strings, each a directory of models (its subdirectories that
 * hold a config.json or a hub cache) or a pattern of model directories. In the order of their bytes, each
 * once; the caller frees with p4_names_free (io/file/files.h). P4_E_INPUT: a string names no model. Local. */
p4_rc p4_models_find(char ***models, int64_t *count, const cJSON *patterns, const char *source);

/* "crc32:<8 hex digits>:<bytes>" over the names and fingerprints (io/file/fingerprint.h) of the files of a
 * model directory, and the bytes of all of them. Local. */
p4_rc p4_model_fingerprint(char fingerprint[P4_FINGERPRINT_BYTES], const char *model_path);

/* A hash of what tells a model's shape without opening it: config.json, and the bytes of its weight files.
 * P4_E_INPUT: there is no config.json. Local. */
p4_rc p4_model_shape(uint64_t *shape, const char *model_path);

#endif
