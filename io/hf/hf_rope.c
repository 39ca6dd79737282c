#include <stdio.h>
#include <string.h>

#include "io/hf/hf_readers.h"

static p4_rc read_no_scaling(const p4_hf_keys *keys, p4_arch *arch)
{
    (void)keys;
    (void)arch;
    return P4_OK;
}

static p4_rc read_linear(const p4_hf_keys *keys, p4_arch *arch)
{
    return p4_hf_need_number(keys, "factor", &arch->rope_factor, 1, 1e6);
}

static p4_rc read_llama3(const p4_hf_keys *keys, p4_arch *arch)
{
    p4_rc rc = P4_OK;
    int64_t original = arch->positions;
    TRY(p4_hf_need_number(keys, "factor", &arch->rope_factor, 1, 1e6));
    TRY(p4_hf_need_number(keys, "low_freq_factor", &arch->rope_low_freq_factor, 1e-6, 1e6));
    TRY(p4_hf_need_number(keys, "high_freq_factor", &arch->rope_high_freq_factor, 1e-6, 1e6));
    TRY(p4_hf_read_int(keys, "original_max_position_embeddings", &original, 1, P4_HF_POSITIONS_MAX));
    CHECK(arch->rope_high_freq_factor > arch->rope_low_freq_factor,
          "%s: \"%shigh_freq_factor\" is %g, expected above low_freq_factor, %g", keys->source, keys->inside,
          arch->rope_high_freq_factor, arch->rope_low_freq_factor);
    arch->rope_original_positions = (double)original;
done:
    return rc;
}

/* Kinds of rotary scaling by their names in config.json. rope.c computes them. */
static const struct {
    const char *name;
    p4_rope_scaling scaling;
    p4_rc (*read)(const p4_hf_keys *keys, p4_arch *arch);
} scalings[] = {
    {"default", P4_ROPE_DEFAULT, read_no_scaling},
    {"linear", P4_ROPE_LINEAR, read_linear},
    {"llama3", P4_ROPE_LLAMA3, read_llama3},
};
enum { SCALING_COUNT = sizeof scalings / sizeof scalings[0] };

/* Reads the kind that `name` names, with its factors, from the object that names it. */
static p4_rc read_scaling(const p4_hf_keys *keys, const char *name, p4_arch *arch)
{
    char supported[128] = "";
    for (size_t i = 0, used = 0; i < SCALING_COUNT; i++) {
        if (strcmp(scalings[i].name, name) == 0) {
            arch->rope_scaling = scalings[i].scaling;
            return scalings[i].read(keys, arch);
        }
        used += (size_t)snprintf(supported + used, sizeof supported - used, "%s%s", i > 0 ? ", " : "",
                                 scalings[i].name);
    }
    return FAIL("%s: rotary scaling \"%.64s\" is not supported; supported: %s", keys->source, name,
                supported);
}

/* *inside = the object that describes rotary positions; inside->object is NULL when there is none. Older
 * files call it "rope_scaling", newer ones "rope_parameters". If a file has both, the reference library takes
 * the older one unless it is empty. */
static p4_rc find_object(const p4_hf_keys *keys, p4_hf_keys *inside)
{
    static const char *const names[] = {"rope_scaling", "rope_parameters"};
    static const char *const prefixes[] = {"rope_scaling.", "rope_parameters."};
    p4_rc rc = P4_OK;
    const cJSON *child;
    *inside = (p4_hf_keys){.source = keys->source};
    for (int i = 0; i < 2 && (inside->object == NULL || inside->object->child == NULL); i++) {
        TRY(p4_hf_find_key(keys, names[i], &inside->object));
        inside->inside = prefixes[i];
        CHECK(inside->object == NULL || cJSON_IsObject(inside->object),
              "%s: \"%s\" is %s, expected an object", keys->source, names[i],
              p4_hf_json_kind(inside->object));
    }
    cJSON_ArrayForEach(child, inside->object)
    {
        CHECK(!cJSON_IsObject(child),
              "%s: \"%s%.64s\": rotary positions that differ by layer are not supported", keys->source,
              inside->inside, child->string);
    }
done:
    return rc;
}

/* What the inner object does not give is taken from config.json itself. */
static p4_rc read_theta(const p4_hf_keys *keys, p4_arch *arch, bool *found)
{
    p4_rc rc = P4_OK;
    const cJSON *item;
    if (*found || keys->object == NULL) {
        return P4_OK;
    }
    CHECK(!p4_hf_is_null(keys, "rope_theta"), "%s: \"%srope_theta\" is null, expected a number", keys->source,
          keys->inside);
    TRY(p4_hf_find_key(keys, "rope_theta", &item));
    *found = item != NULL;
    TRY(p4_hf_read_number(keys, "rope_theta", &arch->rope_theta, 1, 1e12));
done:
    return rc;
}

p4_rc p4_hf_read_rope(const p4_hf_keys *keys, p4_arch *arch)
{
    p4_rc rc = P4_OK;
    p4_hf_keys inside;
    bool found = false;
    const char *type = "default";
    arch->rope_theta = 1e4;
    TRY(find_object(keys, &inside));
    TRY(read_theta(&inside, arch, &found));
    TRY(read_theta(keys, arch, &found));
    TRY(p4_hf_only_number(keys, "partial_rotary_factor", 1, 0, 1));
    if (inside.object == NULL) {
        return P4_OK;
    }
    TRY(p4_hf_read_word(&inside, "type", &type));
    TRY(p4_hf_read_word(&inside, "rope_type", &type));
    TRY(p4_hf_only_number(&inside, "partial_rotary_factor", 1, 0, 1));
    TRY(read_scaling(&inside, type, arch));
done:
    return rc;
}
