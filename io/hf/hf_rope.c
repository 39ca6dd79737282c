#include <math.h>
#include <stdio.h>
#include <string.h>

#include "io/hf/hf_readers.h"

/* Rotary positions of all layers, or of those of one kind. */
typedef struct source {
    const p4_hf_rope_facts *facts;
    const p4_arch *arch;
    p4_hf_keys outside, inside; /* config.json; the object that describes the positions, which may be NULL */
    bool nested;                /* the object is one of several, for each kind of layers */
    int64_t R;
} source;

/* A factor that is null is what the longest sequence is of the original one. */
static p4_rc read_stretch(const source *s, p4_rope *rope)
{
    double factor = (double)s->arch->positions / rope->original_positions;
    p4_rc rc = p4_hf_read_number(&s->inside, "factor", &factor, 1e-6, 1e6);
    rope->factor = factor;
    return rc;
}

/* What a class or config.json itself says counts before what the object says; where neither does, the model
 * was trained with its longest sequence. */
static p4_rc read_original_positions(const source *s, p4_rope *rope)
{
    static const char key[] = "original_max_position_embeddings";
    p4_rc rc = P4_OK;
    int64_t original = s->arch->positions, outside = s->facts->original_positions;
    TRY(p4_hf_read_int(&s->inside, key, &original, 1, P4_HF_POSITIONS_MAX));
    if (!s->nested) {
        TRY(p4_hf_read_int(&s->outside, key, &outside, 1, P4_HF_POSITIONS_MAX));
        original = outside > 0 ? outside : original;
    }
    rope->original_positions = (double)original;
done:
    return rc;
}

static p4_rc read_default(const source *s, p4_rope *rope)
{
    (void)s;
    (void)rope;
    return P4_OK;
}

static p4_rc read_linear(const source *s, p4_rope *rope)
{
    return p4_hf_need_number(&s->inside, "factor", &rope->factor, 1, 1e6);
}

static p4_rc read_dynamic(const source *s, p4_rope *rope)
{
    rope->original_positions = (double)s->arch->positions;
    if (s->R < 4) {
        return FAIL("%s: rotary scaling \"dynamic\" of %lld rotated elements a head, expected at least 4",
                    s->inside.source, (long long)s->R);
    }
    return p4_hf_need_number(&s->inside, "factor", &rope->factor, 1, 1e6);
}

static p4_rc read_llama3(const source *s, p4_rope *rope)
{
    p4_rc rc = P4_OK;
    const p4_hf_keys *keys = &s->inside;
    TRY(p4_hf_need_number(keys, "factor", &rope->factor, 1, 1e6));
    TRY(p4_hf_need_number(keys, "low_freq_factor", &rope->low_freq_factor, 1e-6, 1e6));
    TRY(p4_hf_need_number(keys, "high_freq_factor", &rope->high_freq_factor, 1e-6, 1e6));
    TRY(read_original_positions(s, rope));
    CHECK(rope->high_freq_factor > rope->low_freq_factor,
          "%s: \"%shigh_freq_factor\" is %g, expected above low_freq_factor, %g", keys->source, keys->inside,
          rope->high_freq_factor, rope->low_freq_factor);
done:
    return rc;
}

/* A number of turns; 0 is the default, as the reference library takes it. */
static p4_rc read_turns(const source *s, const char *key, double *turns)
{
    double value = *turns;
    p4_rc rc = p4_hf_read_number(&s->inside, key, &value, 0, 1e6);
    *turns = value > 0 ? value : *turns;
    return rc;
}

static double magnitude(double factor, double mscale)
{
    return factor <= 1 ? 1 : 0.1 * mscale * log(factor) + 1;
}

static p4_rc read_yarn(const source *s, p4_rope *rope)
{
    p4_rc rc = P4_OK;
    const p4_hf_keys *keys = &s->inside;
    double mscale = 0, mscale_all_dim = 0;
    bool truncate = true;
    rope->beta_fast = 32;
    rope->beta_slow = 1;
    TRY(read_original_positions(s, rope));
    if (p4_hf_is_null(keys, "factor")) {
        TRY(read_stretch(s, rope));
    } else {
        TRY(p4_hf_need_number(keys, "factor", &rope->factor, 1e-6, 1e6));
    }
    TRY(read_turns(s, "beta_fast", &rope->beta_fast));
    TRY(read_turns(s, "beta_slow", &rope->beta_slow));
    TRY(p4_hf_read_bool(keys, "truncate", &truncate));
    rope->no_truncation = !truncate;
    TRY(p4_hf_read_number(keys, "mscale", &mscale, 0, 1e6));
    TRY(p4_hf_read_number(keys, "mscale_all_dim", &mscale_all_dim, 0, 1e6));
    rope->attention_factor = mscale > 0 && mscale_all_dim > 0
                                 ? magnitude(rope->factor, mscale) / magnitude(rope->factor, mscale_all_dim)
                                 : magnitude(rope->factor, 1);
    TRY(p4_hf_read_number(keys, "attention_factor", &rope->attention_factor, 1e-6, 1e6));
    CHECK(rope->theta > 1, "%s: rotary scaling \"yarn\" needs a theta above 1, found %g", keys->source,
          rope->theta);
done:
    return rc;
}

/* A list of a number for each pair. */
static p4_rc read_factors(const source *s, const char *key, float *factors)
{
    p4_rc rc = P4_OK;
    const p4_hf_keys *keys = &s->inside;
    const cJSON *list, *item;
    int64_t count = 0;
    TRY(p4_hf_find_key(keys, key, &list));
    CHECK(list != NULL && cJSON_IsArray(list) && cJSON_GetArraySize(list) == s->R / 2,
          "%s: \"%s%s\" is not a list of %lld numbers, one for each pair of rotated elements", keys->source,
          keys->inside, key, (long long)(s->R / 2));
    cJSON_ArrayForEach(item, list)
    {
        CHECK(cJSON_IsNumber(item) && item->valuedouble >= 1e-6 && item->valuedouble <= 1e6,
              "%s: \"%s%s\" holds something other than a number from 1e-06 to 1e+06", keys->source,
              keys->inside, key);
        factors[count++] = (float)item->valuedouble;
    }
done:
    return rc;
}

static p4_rc read_longrope(const source *s, p4_rope *rope)
{
    p4_rc rc = P4_OK;
    const p4_hf_keys *keys = &s->inside;
    TRY(read_original_positions(s, rope));
    TRY(read_stretch(s, rope));
    CHECK(s->R / 2 <= P4_ROPE_PAIRS_MAX,
          "%s: rotary scaling \"longrope\" of %lld rotated elements a head, expected at most %d",
          keys->source, (long long)s->R, 2 * P4_ROPE_PAIRS_MAX);
    TRY(read_factors(s, "short_factor", rope->short_factors));
    TRY(read_factors(s, "long_factor", rope->long_factors));
    rope->attention_factor = rope->factor <= 1 || rope->original_positions <= 1
                                 ? 1
                                 : sqrt(1 + log(rope->factor) / log(rope->original_positions));
    TRY(p4_hf_read_number(keys, "attention_factor", &rope->attention_factor, 1e-6, 1e6));
done:
    return rc;
}

/* Kinds of rotary scaling by their names in config.json. rope.c computes them. */
static const struct {
    const char *name;
    p4_rope_scaling scaling;
    p4_rc (*read)(const source *s, p4_rope *rope);
} scalings[] = {
    {"default", P4_ROPE_DEFAULT, read_default}, {"linear", P4_ROPE_LINEAR, read_linear},
    {"llama3", P4_ROPE_LLAMA3, read_llama3},    {"dynamic", P4_ROPE_DYNAMIC, read_dynamic},
    {"yarn", P4_ROPE_YARN, read_yarn},          {"longrope", P4_ROPE_LONGROPE, read_longrope},
};
enum { SCALING_COUNT = sizeof scalings / sizeof scalings[0] };

/* Reads the kind that `name` names, with its numbers. */
static p4_rc read_scaling(const source *s, const char *name, p4_rope *rope)
{
    char supported[128] = "";
    if (s->facts->longrope_names && (strcmp(name, "su") == 0 || strcmp(name, "yarn") == 0)) {
        name = "longrope";
    }
    for (size_t i = 0, used = 0; i < SCALING_COUNT; i++) {
        if (strcmp(scalings[i].name, name) == 0) {
            rope->scaling = scalings[i].scaling;
            return scalings[i].read(s, rope);
        }
        used += (size_t)snprintf(supported + used, sizeof supported - used, "%s%s", i > 0 ? ", " : "",
                                 scalings[i].name);
    }
    return FAIL("%s: rotary scaling \"%.64s\" is not supported; supported: %s", s->inside.source, name,
                supported);
}

/* Theta under this key, unless an earlier call found it. */
static p4_rc read_theta(const p4_hf_keys *keys, const char *key, p4_rope *rope, bool *found)
{
    p4_rc rc = P4_OK;
    const cJSON *item;
    if (*found || keys->object == NULL) {
        return P4_OK;
    }
    CHECK(!p4_hf_is_null(keys, key), "%s: \"%s%s\" is null, expected a number", keys->source, keys->inside,
          key);
    TRY(p4_hf_find_key(keys, key, &item));
    *found = item != NULL;
    TRY(p4_hf_read_number(keys, key, &rope->theta, 1, 1e12));
done:
    return rc;
}

/* *rope from the object; what it does not give is taken from config.json itself, theta under `theta_key`. */
static p4_rc read_positions(const source *s, const char *theta_key, double theta, p4_rope *rope)
{
    p4_rc rc = P4_OK;
    bool found = false;
    const char *type = "default";
    *rope = (p4_rope){.theta = theta};
    TRY(read_theta(&s->inside, "rope_theta", rope, &found));
    TRY(read_theta(&s->outside, theta_key, rope, &found));
    if (s->inside.object != NULL) {
        TRY(p4_hf_read_word(&s->inside, "type", &type));
        TRY(p4_hf_read_word(&s->inside, "rope_type", &type));
        TRY(read_scaling(s, type, rope));
    }
done:
    return rc;
}

/* arch->rope_dim and s->R. */
static p4_rc read_partial(source *s, p4_arch *arch)
{
    p4_rc rc = P4_OK;
    const char *key = s->facts->partial_key;
    double partial = s->facts->partial > 0 ? s->facts->partial : 1;
    s->R = arch->D;
    if (key == NULL) {
        TRY(p4_hf_only_number(&s->outside, "partial_rotary_factor", 1, 0, 1));
        TRY(p4_hf_only_number(&s->inside, "partial_rotary_factor", 1, 0, 1));
        return P4_OK;
    }
    TRY(p4_hf_read_number(&s->outside, key, &partial, 0, 1));
    TRY(p4_hf_read_number(&s->inside, "partial_rotary_factor", &partial, 0, 1));
    s->R = (int64_t)((double)arch->D * partial);
    CHECK(s->R >= 2 && s->R % 2 == 0,
          "%s: %g of heads of %lld elements are %lld rotated elements, expected an even number above 0",
          s->outside.source, partial, (long long)arch->D, (long long)s->R);
    arch->rope_dim = s->R < arch->D ? s->R : 0;
done:
    return rc;
}

/* *inside = the object `name`; inside->object stays when it is absent. */
static p4_rc find_object(const p4_hf_keys *keys, const char *name, const char *prefix, p4_hf_keys *inside)
{
    p4_rc rc = P4_OK;
    const cJSON *object;
    TRY(p4_hf_find_key(keys, name, &object));
    CHECK(object == NULL || cJSON_IsObject(object), "%s: \"%s%s\" is %s, expected an object", keys->source,
          keys->inside, name, p4_hf_json_kind(object));
    if (object != NULL) {
        *inside = (p4_hf_keys){.object = object, .source = keys->source, .inside = prefix};
    }
done:
    return rc;
}

/* Positions of all layers alike: older files call their object "rope_scaling", newer ones "rope_parameters".
 * If a file has both, the reference library takes the older one unless it is empty. */
static p4_rc read_alike(source *s, p4_arch *arch)
{
    p4_rc rc = P4_OK;
    const cJSON *child;
    const p4_hf_rope_facts *facts = s->facts;
    TRY(find_object(&s->outside, "rope_scaling", "rope_scaling.", &s->inside));
    if (s->inside.object == NULL || s->inside.object->child == NULL) {
        TRY(find_object(&s->outside, "rope_parameters", "rope_parameters.", &s->inside));
    }
    cJSON_ArrayForEach(child, s->inside.object)
    {
        CHECK(!cJSON_IsObject(child),
              "%s: \"%s%.64s\": rotary positions that differ by layer are not supported in model family "
              "\"%s\"",
              s->outside.source, s->inside.inside, child->string, arch->family);
    }
    TRY(read_partial(s, arch));
    TRY(read_positions(s, facts->theta_key != NULL ? facts->theta_key : "rope_theta",
                       facts->theta > 0 ? facts->theta : 1e4, &arch->rope));
done:
    return rc;
}

/* Positions of two kinds of layers: newer files have an object for each in "rope_parameters", in older ones
 * "rope_scaling" is of the layers without a window. */
static p4_rc read_by_kind(source *s, p4_arch *arch)
{
    p4_rc rc = P4_OK;
    const cJSON *child;
    p4_hf_keys both = s->inside, none = s->inside, older = s->inside;
    const p4_hf_rope_facts *facts = s->facts;
    s->nested = true;
    TRY(find_object(&s->outside, "rope_parameters", "rope_parameters.", &both));
    TRY(find_object(&s->outside, "rope_scaling", "rope_scaling.", &older));
    CHECK(both.object == NULL || older.object == NULL || older.object->child == NULL,
          "%s: \"rope_scaling\" beside \"rope_parameters\", expected one of them", s->outside.source);
    cJSON_ArrayForEach(child, both.object)
    {
        CHECK(strcmp(child->string, "full_attention") == 0 || strcmp(child->string, "sliding_attention") == 0,
              "%s: \"rope_parameters.%.64s\", expected only full_attention and sliding_attention",
              s->outside.source, child->string);
    }
    s->inside = older;
    TRY(find_object(&both, "full_attention", "rope_parameters.full_attention.", &s->inside));
    TRY(read_partial(s, arch));
    TRY(read_positions(s, facts->theta_key != NULL ? facts->theta_key : "rope_theta",
                       facts->theta > 0 ? facts->theta : 1e4, &arch->rope));
    s->inside = none;
    TRY(find_object(&both, "sliding_attention", "rope_parameters.sliding_attention.", &s->inside));
    TRY(p4_hf_only_number(&s->inside, "partial_rotary_factor", 1, 0, 1));
    TRY(read_positions(s, facts->windowed_theta_key, facts->windowed_theta, &arch->windowed_rope));
done:
    return rc;
}

p4_rc p4_hf_read_rope(const p4_hf_keys *keys, const p4_hf_rope_facts *facts, p4_arch *arch)
{
    source s = {
        .facts = facts, .arch = arch, .outside = *keys, .inside = {.source = keys->source, .inside = ""}};
    return facts->windowed_theta_key != NULL ? read_by_kind(&s, arch) : read_alike(&s, arch);
}
