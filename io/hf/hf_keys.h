/* hf_keys.h - keys of one JSON object of config.json, with their types and ranges checked. Inside io/hf only.
 *
 * Messages name the file, the key, what was found and what was expected. A key that appears twice is refused,
 * because readers differ on which of the two counts. A null counts as absent. */
#ifndef P4_HF_KEYS_H
#define P4_HF_KEYS_H

#include <cjson/cJSON.h>

#include "src/leaf/base.h"

typedef struct p4_hf_keys {
    const cJSON *object;
    const char *source; /* the file */
    const char *inside; /* "rope_scaling." in messages before the keys of that object, else "" */
} p4_hf_keys;

/* *item = the key's value; NULL when it is absent. Local. */
p4_rc p4_hf_find_key(const p4_hf_keys *keys, const char *key, const cJSON **item);
/* "a string", "an object": what a value is, for messages. */
const char *p4_hf_json_kind(const cJSON *item);

/* These leave *value as it is when the key is absent: it holds the default. Local. */
p4_rc p4_hf_read_number(const p4_hf_keys *keys, const char *key, double *value, double min, double max);
p4_rc p4_hf_read_int(const p4_hf_keys *keys, const char *key, int64_t *value, int64_t min, int64_t max);
p4_rc p4_hf_read_bool(const p4_hf_keys *keys, const char *key, bool *value);
p4_rc p4_hf_read_word(const p4_hf_keys *keys, const char *key, const char **value); /* the object's memory */
/* These refuse a file without the key. An integer is from 1 to max. Local. */
p4_rc p4_hf_need_number(const p4_hf_keys *keys, const char *key, double *value, double min, double max);
p4_rc p4_hf_need_int(const p4_hf_keys *keys, const char *key, int64_t *value, int64_t max);

/* For keys that change what a model computes when only some values are supported. The key is absent or
 * `wanted`. Local. */
p4_rc p4_hf_only_bool(const p4_hf_keys *keys, const char *key, bool wanted);
p4_rc p4_hf_only_number(const p4_hf_keys *keys, const char *key, double wanted, double min, double max);
/* The key is absent or one of the words, of which the last is followed by NULL. Local. */
p4_rc p4_hf_only_words(const p4_hf_keys *keys, const char *key, const char *const *words);

#endif
