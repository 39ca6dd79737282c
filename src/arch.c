#include "src/arch.h"

bool p4_arch_has(const p4_arch *arch, p4_feature feature)
{
    switch (feature) {
#define P4_CASE(feature, type, member, text) \
    case P4_FEATURE_##feature:               \
        return arch->member != 0;
        P4_ARCH_FEATURES(P4_CASE)
#undef P4_CASE
    case P4_FEATURE_COUNT:
        break;
    }
    return false;
}

const char *p4_feature_text(p4_feature feature)
{
    static const char *const texts[] = {
#define P4_TEXT(feature, type, member, text) text,
        P4_ARCH_FEATURES(P4_TEXT)
#undef P4_TEXT
    };
    return texts[feature];
}

const char *p4_activation_text(p4_activation activation)
{
    static const char *const texts[] = {[P4_GELU_TANH] = "GELU (tanh)",
                                        [P4_GELU_ERF] = "GELU (erf)",
                                        [P4_SILU] = "SiLU",
                                        [P4_RELU] = "ReLU",
                                        [P4_RELU_SQ] = "ReLU squared"};
    return texts[activation];
}

int64_t p4_arch_dim(const p4_arch *arch, p4_dim dim)
{
    switch (dim) {
    case P4_DIM_ONE:
        return 1;
    case P4_DIM_V:
        return arch->V;
    case P4_DIM_POSITIONS:
        return arch->positions;
    case P4_DIM_C:
        return arch->C;
    case P4_DIM_F:
        return arch->F;
    case P4_DIM_UP:
        return arch->gated_mlp ? 2 * arch->F : arch->F;
    case P4_DIM_Q:
        return arch->H * arch->D;
    case P4_DIM_KV:
        return arch->Hkv * arch->D;
    case P4_DIM_QKV:
        return (arch->H + 2 * arch->Hkv) * arch->D;
    case P4_DIM_QN:
        return arch->qk_norm == P4_QK_NORM_WHOLE ? arch->H * arch->D : arch->D;
    case P4_DIM_KN:
        return arch->qk_norm == P4_QK_NORM_WHOLE ? arch->Hkv * arch->D : arch->D;
    case P4_DIM_E:
        return arch->experts;
    }
    return 0;
}

bool p4_arch_has_experts(const p4_arch *arch, int64_t layer)
{
    bool dense = arch->dense_width > 0 && p4_layer_set_has(&arch->dense, arch->first_layer + layer);
    return arch->experts > 0 && !dense;
}

int64_t p4_arch_mlp_width(const p4_arch *arch, int64_t layer)
{
    return arch->dense_width > 0 && !p4_arch_has_experts(arch, layer) ? arch->dense_width : arch->F;
}

int64_t p4_arch_layer_dim(const p4_arch *arch, p4_dim dim, int64_t layer)
{
    if (layer < 0 || (dim != P4_DIM_F && dim != P4_DIM_UP)) {
        return p4_arch_dim(arch, dim);
    }
    int64_t width = p4_arch_mlp_width(arch, layer);
    return dim == P4_DIM_UP && arch->gated_mlp ? 2 * width : width;
}

int64_t p4_arch_copies(const p4_arch *arch, p4_role role, int64_t layer)
{
    bool of_mlp = role == P4_ROLE_UP || role == P4_ROLE_DOWN;
    return of_mlp && p4_arch_has_experts(arch, layer) ? arch->experts : 1;
}

int64_t p4_arch_rope_dim(const p4_arch *arch)
{
    return arch->rope_dim > 0 ? arch->rope_dim : arch->D;
}

void p4_layer_set_add(p4_layer_set *set, int64_t layer)
{
    set->bits[layer / 64] |= (uint64_t)1 << layer % 64;
}

bool p4_layer_set_has(const p4_layer_set *set, int64_t layer)
{
    return set->bits[layer / 64] >> layer % 64 & 1;
}

int64_t p4_arch_window(const p4_arch *arch, int64_t layer)
{
    bool all = arch->some_global && p4_layer_set_has(&arch->global, arch->first_layer + layer);
    return all ? 0 : arch->window;
}

float p4_arch_attention_scale(const p4_arch *arch, int64_t layer)
{
    return arch->inverse_layer_scale ? arch->attention_scale / (float)(arch->first_layer + layer + 1)
                                     : arch->attention_scale;
}

bool p4_arch_rotates(const p4_arch *arch, int64_t layer)
{
    bool unrotated = arch->some_unrotated && p4_layer_set_has(&arch->unrotated, arch->first_layer + layer);
    return !arch->learned_positions && !unrotated;
}

bool p4_arch_uses_local_rope(const p4_arch *arch, int64_t layer)
{
    return arch->local_rope && p4_arch_window(arch, layer) > 0;
}

bool p4_arch_same_layers(const p4_arch *arch, int64_t a, int64_t b)
{
    return p4_arch_has_experts(arch, a) == p4_arch_has_experts(arch, b) &&
           p4_arch_window(arch, a) == p4_arch_window(arch, b) &&
           p4_arch_attention_scale(arch, a) == p4_arch_attention_scale(arch, b) &&
           p4_arch_rotates(arch, a) == p4_arch_rotates(arch, b) &&
           p4_arch_uses_local_rope(arch, a) == p4_arch_uses_local_rope(arch, b);
}

enum { MODEL = false, BLOCK = true };

const p4_role_facts p4_roles[P4_ROLE_COUNT] = {
#define P4_FACTS(role, part, kind, rows, cols, condition) \
    {#role, part, P4_KIND_##kind, P4_DIM_##rows, P4_DIM_##cols},
    P4_ROLES(P4_FACTS)
#undef P4_FACTS
};

bool p4_arch_has_role(const p4_arch *a, p4_role role)
{
    switch (role) {
#define P4_CASE(role, part, kind, rows, cols, condition) \
    case P4_ROLE_##role:                                 \
        return condition;
        P4_ROLES(P4_CASE)
#undef P4_CASE
    case P4_ROLE_COUNT:
        break;
    }
    return false;
}

bool p4_arch_layer_has_role(const p4_arch *arch, p4_role role, int64_t layer)
{
    return p4_arch_has_role(arch, role) && (role != P4_ROLE_ROUTER || p4_arch_has_experts(arch, layer));
}
