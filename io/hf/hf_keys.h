/* hf_keys.h - reads the keys of one JSON object of config.json and checks their types and ranges. For io/hf.
 *
 * Errors name the file, the key, what was found and what was expected. A key that appears twice is an error,
 * because JSON readers differ on which of the two counts. A key whose value is null counts as absent. */
#ifndef P4_HF_KEYS_H
#define P4_HF_KEYS_H

#include <cjson/cJSON.h>

#include "src/leaf/base.h"

typedef struct p4_hf_keys {
    const cJSON *object;
    const char *source; /* the file */
    const char *inside; /* precedes keys in messages: "rope_scaling." for a nested object, else "" */
} p4_hf_keys;

/* *item = the key's value, NULL when it is absent. Local. */
p4_rc p4_hf_find_key(const p4_hf_keys *keys, const char *key, const cJSON **item);
/* Whether the key is there and null, which p4_hf_find_key takes for absent. Local. */
bool p4_hf_is_null(const p4_hf_keys *keys, const char *key);
/* The type of a value, for messages: "a string", "an object". */
const char *p4_hf_json_kind(const cJSON *item);

/* These leave *value, which holds the default, unchanged when the key is absent. Local. */
p4_rc p4_hf_read_number(const p4_hf_keys *keys, const char *key, double *value, double min, double max);
p4_rc p4_hf_read_int(const p4_hf_keys *keys, const char *key, int64_t *value, int64_t min, int64_t max);
p4_rc p4_hf_read_bool(const p4_hf_keys *keys, const char *key, bool *value);
p4_rc p4_hf_read_word(const p4_hf_keys *keys, const char *key, const char **value); /* owned by the object */
/* These fail when the key is absent. An integer must be from 1 to max. Local. */
p4_rc p4_hf_need_number(const p4_hf_keys *keys, const char *key, double *value, double min, double max);
p4_rc p4_hf_need_int(const p4_hf_keys *keys, const char *key, int64_t *value, int64_t max);

/* For keys that change what a model computes and of which only some values are supported. These fail unless
 * the key is absent or `wanted`. Local. */
p4_rc p4_hf_only_bool(const p4_hf_keys *keys, const char *key, bool wanted);
p4_rc p4_hf_only_number(const p4_hf_keys *keys, const char *key, double wanted, double min, double max);
/* Fails unless the key is absent or one of the words, a list that ends with NULL. Local. */
p4_rc p4_hf_only_words(const p4_hf_keys *keys, const char *key, const char *const *words);

#endif
