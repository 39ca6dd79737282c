#include "io/out/sizes_json.h"

#include <math.h>

#include "io/json/write.h"

static const double EXACT_INTEGERS = 9007199254740992.0; /* 2^53: below it a double holds every integer */

/* Rows of "metrics", in the order of the file; written and read by the same table. */
static const struct {
    const char *key;
    size_t offset;
    bool whole; /* an int64_t, else a double */
} size_fields[] = {
    {"total_params", offsetof(p4_size_metrics, total_params), true},
    {"original_size_mb", offsetof(p4_size_metrics, original_size_mb), false},
    {"stored_size_mb", offsetof(p4_size_metrics, stored_size_mb), false},
    {"stored_files_mb", offsetof(p4_size_metrics, stored_files_mb), false},
    {"compressed_size_mb", offsetof(p4_size_metrics, compressed_size_mb), false},
    {"packed_file_mb", offsetof(p4_size_metrics, packed_file_mb), false},
    {"compression_ratio", offsetof(p4_size_metrics, compression_ratio), false},
    {"target_compression_ratio", offsetof(p4_size_metrics, target_compression_ratio), false},
    {"stored_files_ratio", offsetof(p4_size_metrics, stored_files_ratio), false},
    {"sparsity_ratio", offsetof(p4_size_metrics, sparsity_ratio), false},
    {"layers_quantized", offsetof(p4_size_metrics, layers_quantized), true},
    {"layers_preserved", offsetof(p4_size_metrics, layers_preserved), true},
    {"ternary_mb", offsetof(p4_size_metrics, ternary_mb), false},
    {"scales_mb", offsetof(p4_size_metrics, scales_mb), false},
    {"embedding_mb", offsetof(p4_size_metrics, embedding_mb), false},
    {"head_mb", offsetof(p4_size_metrics, head_mb), false},
    {"other_mb", offsetof(p4_size_metrics, other_mb), false},
    {"peak_memory_mb", offsetof(p4_size_metrics, peak_memory_mb), false},
};
enum { SIZE_FIELDS = sizeof size_fields / sizeof size_fields[0] };

bool p4_json_put_sizes(cJSON *object, const p4_size_metrics *metrics)
{
    bool ok = true;
    for (int i = 0; ok && i < SIZE_FIELDS; i++) {
        const char *at = (const char *)metrics + size_fields[i].offset;
        const p4_json_real real = {size_fields[i].key, size_fields[i].whole ? 0.0 : *(const double *)at};
        ok = size_fields[i].whole ? p4_json_put_whole(object, size_fields[i].key, *(const int64_t *)at)
                                  : p4_json_put_reals(object, &real, 1);
    }
    return ok;
}

p4_rc p4_json_take_sizes(p4_size_metrics *metrics, const cJSON *object, const char *source)
{
    for (int i = 0; i < SIZE_FIELDS; i++) {
        const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, size_fields[i].key);
        char *at = (char *)metrics + size_fields[i].offset;
        bool missing = item == NULL || cJSON_IsNull(item);
        double value = missing ? NAN : item->valuedouble;
        bool fits = missing || (cJSON_IsNumber(item) && isfinite(value));
        if (size_fields[i].whole && !missing) {
            fits = fits && value >= 0 && value < EXACT_INTEGERS && floor(value) == value;
        }
        if (!fits) {
            return FAIL("%s: metrics.%s is not a %s", source, size_fields[i].key,
                        size_fields[i].whole ? "whole number" : "number");
        }
        if (size_fields[i].whole) {
            *(int64_t *)at = missing ? 0 : (int64_t)value;
        } else {
            *(double *)at = value;
        }
    }
    return P4_OK;
}
