#include "src/net_takes.h"

/* Set a feature or a role here when the network computes it. For each of them tests/test_net.c requires a
 * fixture model, whose logits and gradients it compares with the reference library's. */
const p4_net_takes p4_net_computes = {
    .feature = {[P4_FEATURE_LAYER_NORM] = true,      [P4_FEATURE_NO_NORM_BIAS] = true,
                [P4_FEATURE_ROPE_PAIRS] = true,      [P4_FEATURE_GAIN_OFFSET] = true,
                [P4_FEATURE_NO_PRE_NORM] = true,     [P4_FEATURE_POST_NORM] = true,
                [P4_FEATURE_QK_NORM] = true,         [P4_FEATURE_PARALLEL] = true,
                [P4_FEATURE_RESIDUAL_SCALE] = true,  [P4_FEATURE_LEARNED_POSITIONS] = true,
                [P4_FEATURE_PARTIAL_ROPE] = true,    [P4_FEATURE_SOME_UNROTATED] = true,
                [P4_FEATURE_LOCAL_ROPE] = true,      [P4_FEATURE_WINDOW] = true,
                [P4_FEATURE_SOME_GLOBAL] = true,     [P4_FEATURE_ATTENTION_CAP] = true,
                [P4_FEATURE_QKV_BY_HEAD] = true,     [P4_FEATURE_QKV_BIAS] = true,
                [P4_FEATURE_O_BIAS] = true,          [P4_FEATURE_INVERSE_LAYER_SCALE] = true,
                [P4_FEATURE_ACTIVATION] = true,      [P4_FEATURE_GATED_MLP] = true,
                [P4_FEATURE_MLP_BIAS] = true,        [P4_FEATURE_EXPERTS] = true,
                [P4_FEATURE_NORMED_SHARES] = true,   [P4_FEATURE_SOME_DENSE] = true,
                [P4_FEATURE_EMBEDDING_SCALE] = true, [P4_FEATURE_LOGIT_SCALE] = true,
                [P4_FEATURE_LOGIT_CAP] = true,       [P4_FEATURE_SHARED_NORM] = true,
                [P4_FEATURE_HEAD_BIAS] = true,       [P4_FEATURE_TIED] = true},
    .role = {[P4_ROLE_EMBED] = true,      [P4_ROLE_POSITION] = true,   [P4_ROLE_NORM1_GAIN] = true,
             [P4_ROLE_NORM1_BIAS] = true, [P4_ROLE_NORM2_GAIN] = true, [P4_ROLE_NORM2_BIAS] = true,
             [P4_ROLE_Q_GAIN] = true,     [P4_ROLE_K_GAIN] = true,     [P4_ROLE_POST1_GAIN] = true,
             [P4_ROLE_POST2_GAIN] = true, [P4_ROLE_ROUTER] = true,     [P4_ROLE_QKV] = true,
             [P4_ROLE_O] = true,          [P4_ROLE_UP] = true,         [P4_ROLE_DOWN] = true,
             [P4_ROLE_QKV_BIAS] = true,   [P4_ROLE_O_BIAS] = true,     [P4_ROLE_UP_BIAS] = true,
             [P4_ROLE_DOWN_BIAS] = true,  [P4_ROLE_FINAL_GAIN] = true, [P4_ROLE_FINAL_BIAS] = true,
             [P4_ROLE_HEAD] = true,       [P4_ROLE_HEAD_BIAS] = true},
};

/* p4_bias_of (net.h) and net*.c rely on this order of the roles. */
#define BIAS_DISTANCE (P4_ROLE_QKV_BIAS - P4_ROLE_QKV)
_Static_assert(P4_ROLE_O_BIAS - P4_ROLE_O == BIAS_DISTANCE && P4_ROLE_UP_BIAS - P4_ROLE_UP == BIAS_DISTANCE &&
                   P4_ROLE_DOWN_BIAS - P4_ROLE_DOWN == BIAS_DISTANCE,
               "each projection must be as far from its bias as QKV is");
_Static_assert(P4_ROLE_NORM1_BIAS == P4_ROLE_NORM1_GAIN + 1 && P4_ROLE_NORM2_BIAS == P4_ROLE_NORM2_GAIN + 1 &&
                   P4_ROLE_FINAL_BIAS == P4_ROLE_FINAL_GAIN + 1,
               "the bias of a norm must follow its gain");

p4_rc p4_net_check_arch(const p4_net_takes *takes, const p4_arch *arch, const char *source)
{
    p4_rc rc = P4_OK;
    for (p4_feature f = 0; f < P4_FEATURE_COUNT; f++) {
        CHECK(takes->feature[f] || !p4_arch_has(arch, f),
              "%s: model family \"%s\" needs %s, which this version does not compute", source, arch->family,
              p4_feature_text(f));
    }
done:
    return rc;
}

p4_rc p4_net_check_tensor(const p4_net_takes *takes, const char *family, p4_role role, const char *tensor)
{
    bool taken = (int)role >= 0 && role < P4_ROLE_COUNT && takes->role[role];
    return taken ? P4_OK
                 : FAIL("model family \"%s\" needs the tensor %s, which this version does not compute with",
                        family, tensor);
}
