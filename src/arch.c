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
    }
    return 0;
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
