/* arch.h - an architecture: its numbers, its features, and the roles of its parameters.
 *
 * One generic block serves every family. Features are the ways in which the blocks of families differ. A
 * family (families.c) is a set of features and a naming scheme for tensors. */
#ifndef P4_ARCH_H
#define P4_ARCH_H

#include "src/leaf/activation.h"
#include "src/leaf/base.h"

/* Rotary positions, by their kind of scaling (src/rope.c). */
typedef enum p4_rope_scaling {
    P4_ROPE_DEFAULT,
    P4_ROPE_LINEAR,
    P4_ROPE_LLAMA3,
    P4_ROPE_DYNAMIC, /* NTK: from original_positions on, theta grows with the length */
    P4_ROPE_YARN,
    P4_ROPE_LONGROPE, /* a factor for each pair, others beyond original_positions */
    P4_ROPE_COUNT
} p4_rope_scaling;

enum { P4_ROPE_PAIRS_MAX = 256 }; /* of LONGROPE */

typedef struct p4_rope {
    p4_rope_scaling scaling;
    double theta;
    double factor;             /* LINEAR, LLAMA3, DYNAMIC, YARN */
    double original_positions; /* that the model was trained with first: all but DEFAULT and LINEAR */
    double low_freq_factor, high_freq_factor; /* LLAMA3 */
    double beta_fast, beta_slow;              /* YARN: turns over original_positions */
    bool no_truncation;                       /* YARN: the range between them is not made whole */
    double attention_factor;                  /* of cosines and sines; 0: 1 */
    float short_factors[P4_ROPE_PAIRS_MAX], long_factors[P4_ROPE_PAIRS_MAX]; /* LONGROPE */
} p4_rope;

/* A norm of queries and keys, before their rotation. */
typedef enum p4_qk_norm {
    P4_QK_NORM_NONE,
    P4_QK_NORM_HEAD,  /* RMSNorm of each head, gain [D] */
    P4_QK_NORM_WHOLE, /* RMSNorm over all heads of a token, gain [H D] or [Hkv D] */
} p4_qk_norm;

enum { P4_ARCH_LAYERS_MAX = 4096 };

/* A set of layers of a whole model. */
typedef struct p4_layer_set {
    uint64_t bits[P4_ARCH_LAYERS_MAX / 64];
} p4_layer_set;

/* All features: X(FEATURE, type, member of p4_arch, name in messages).
 *
 * A member that is 0 means that the architecture does not have the feature. With every feature 0 a block is
 *     x = x + attention(norm(x));  x = x + mlp(norm(x))
 * with RMSNorm, rotary positions, attention to all earlier tokens, an MLP with one input projection
 * and GELU (tanh), no biases, and the model has a head of its own. A row here declares both the member and
 * the feature, and a model that has the feature is refused until net_takes.c lists it. A member that is
 * declared by hand escapes that check. */
#define P4_ARCH_FEATURES(X)                                                                                  \
    /* norms */                                                                                              \
    X(LAYER_NORM, bool, layer_norm, "LayerNorm")                                                             \
    X(NO_NORM_BIAS, bool, no_norm_bias, "LayerNorm without biases")                                          \
    X(GAIN_OFFSET, bool, gain_offset, "RMSNorm gains stored as their difference from 1")                     \
    X(NO_PRE_NORM, bool, no_pre_norm, "attention and MLP without a norm of their inputs")                    \
    X(POST_NORM, bool, post_norm, "norms of the outputs of attention and MLP")                               \
    X(QK_NORM, p4_qk_norm, qk_norm, "norms of queries and keys")                                             \
    /* residual stream */                                                                                    \
    X(PARALLEL, bool, parallel, "attention and MLP in parallel")        /* x + attention(..) + mlp(..) */    \
    X(SHARED_NORM, bool, shared_norm, "one norm for attention and MLP") /* of a parallel block */            \
    X(RESIDUAL_SCALE, float, residual_scale, "scaled outputs of attention and MLP") /* 0: 1 */               \
    /* positions */                                                                                          \
    X(LEARNED_POSITIONS, bool, learned_positions, "learned positions")                                       \
    X(PARTIAL_ROPE, int64_t, rope_dim, "rotary positions of a part of each head") /* elements; 0: D */       \
    X(ROPE_PAIRS, bool, rope_pairs, "rotary positions of neighboring elements")   /* (2i, 2i + 1) */         \
    X(SOME_UNROTATED, bool, some_unrotated, "layers without rotary positions")    /* `unrotated` */          \
    X(LOCAL_ROPE, bool, local_rope, "rotary positions of their own in layers with a window")                 \
    /* attention */                                                                                          \
    X(WINDOW, int64_t, window, "sliding-window attention") /* tokens seen, the query's own included */       \
    X(SOME_GLOBAL, bool, some_global, "layers without the sliding window of others") /* `global` */          \
    X(ATTENTION_CAP, float, attention_cap, "soft-capped attention scores")           /* cap tanh(s / cap) */ \
    X(QKV_BY_HEAD, bool, qkv_by_head, "query, key and value rows side by side for each key/value head")      \
    X(QKV_BIAS, bool, qkv_bias, "biases of the query, key and value projections")                            \
    X(O_BIAS, bool, o_bias, "a bias of the attention output projection")                                     \
    X(INVERSE_LAYER_SCALE, bool, inverse_layer_scale,                                                        \
      "attention scores divided by the layer's number") /* from 1 */                                         \
    /* MLP */                                                                                                \
    X(ACTIVATION, p4_activation, activation, "an MLP activation other than GELU (tanh)")                     \
    X(GATED_MLP, bool, gated_mlp, "a gated MLP")                                                             \
    X(MLP_BIAS, bool, mlp_bias, "biases of the MLP")                                                         \
    /* experts: several MLPs of width F, of which each token goes through `experts_used` (docs/methods.md)   \
     */                                                                                                      \
    X(EXPERTS, int64_t, experts, "a mixture of experts")                                                     \
    X(NORMED_SHARES, bool, normed_shares, "expert weights that are normalized for each token")               \
    X(SOME_DENSE, int64_t, dense_width, "layers without experts beside layers with experts") /* `dense` */   \
    /* embedding and head */                                                                                 \
    X(EMBEDDING_SCALE, float, embedding_scale, "scaled embeddings") /* 0: 1 */                               \
    X(LOGIT_SCALE, float, logit_scale, "scaled logits")             /* 0: 1 */                               \
    X(LOGIT_CAP, float, logit_cap, "soft-capped logits")            /* cap tanh(logit / cap) */              \
    X(HEAD_BIAS, bool, head_bias, "a bias of the head")                                                      \
    X(TIED, bool, tied, "a head tied to the embedding")

typedef struct p4_arch {
    char family[32]; /* config.json's model_type */
    int64_t V, C, L, H, Hkv, D, F;
    int64_t first_layer;  /* 0; of a part of a model (p4_model_part_init): its first block's number there */
    int64_t positions;    /* longest sequence */
    int64_t experts_used; /* with experts: by each token, those with the largest router logits */
    float norm_eps;
    float attention_scale;       /* of all layers, usually 1/sqrt(D): p4_arch_attention_scale */
    p4_rope rope, windowed_rope; /* the second with local_rope: of layers with a window */
    int32_t bos_id, eos_id;      /* -1: none */
    p4_layer_set global;         /* with some_global: layers that attend to all earlier tokens */
    p4_layer_set unrotated;      /* with some_unrotated: layers that do not rotate queries and keys */
    p4_layer_set dense;          /* with dense_width: layers with one MLP of that width instead of experts */
#define P4_MEMBER(feature, type, member, text) type member;
    P4_ARCH_FEATURES(P4_MEMBER)
#undef P4_MEMBER
} p4_arch;

typedef enum p4_feature {
#define P4_ENUMERATOR(feature, type, member, text) P4_FEATURE_##feature,
    P4_ARCH_FEATURES(P4_ENUMERATOR)
#undef P4_ENUMERATOR
        P4_FEATURE_COUNT
} p4_feature;

bool p4_arch_has(const p4_arch *arch, p4_feature feature);
static inline bool p4_arch_has_norm_bias(const p4_arch *arch)
{
    return arch->layer_norm && !arch->no_norm_bias;
}
const char *p4_activation_text(p4_activation activation);
const char *p4_feature_text(p4_feature feature); /* for messages: "model family X needs <text>" */

/* A dimension of a tensor in terms of the architecture. */
typedef enum p4_dim {
    P4_DIM_ONE, /* as rows: a vector */
    P4_DIM_V,
    P4_DIM_POSITIONS,
    P4_DIM_C,
    P4_DIM_F,
    P4_DIM_UP,  /* 2 F with a gated MLP, else F */
    P4_DIM_Q,   /* H D */
    P4_DIM_KV,  /* Hkv D */
    P4_DIM_QKV, /* (H + 2 Hkv) D */
    P4_DIM_QN,  /* of the norm of queries: D or H D */
    P4_DIM_KN,  /* of the norm of keys: D or Hkv D */
    P4_DIM_E,   /* experts */
} p4_dim;
/* F and UP are those of an expert, where layers without experts have others. Local. */
int64_t p4_arch_dim(const p4_arch *arch, p4_dim dim);

/* layer: 0 to P4_ARCH_LAYERS_MAX - 1. Local. */
void p4_layer_set_add(p4_layer_set *set, int64_t layer);
bool p4_layer_set_has(const p4_layer_set *set, int64_t layer);

/* Properties of layer `layer` of a model or of a part of one. Local. */
int64_t p4_arch_window(const p4_arch *arch,
                       int64_t layer); /* tokens that a query sees; 0: all earlier ones */
float p4_arch_attention_scale(const p4_arch *arch, int64_t layer);
bool p4_arch_rotates(const p4_arch *arch, int64_t layer);         /* has rotary positions */
bool p4_arch_uses_local_rope(const p4_arch *arch, int64_t layer); /* and those of layers with a window */
bool p4_arch_has_experts(const p4_arch *arch, int64_t layer);
int64_t p4_arch_mlp_width(const p4_arch *arch, int64_t layer);             /* of its MLP, or of each expert */
int64_t p4_arch_layer_dim(const p4_arch *arch, p4_dim dim, int64_t layer); /* -1: outside the blocks */
/* Do both layers compute the same function of their weights and inputs? Local. */
bool p4_arch_same_layers(const p4_arch *arch, int64_t a, int64_t b);

/* The kind of parameter that a role is. It decides how random init fills the parameter (random_model.c) and
 * whether it may be quantized (p4_model_select_ternary). */
typedef enum p4_kind {
    P4_KIND_TABLE,      /* embeddings and head */
    P4_KIND_PROJECTION, /* a matrix of a block */
    P4_KIND_RESIDUAL,   /* a matrix of a block whose output is added to the residual stream */
    P4_KIND_ROUTER,     /* of a mixture of experts; stays in high precision */
    P4_KIND_GAIN,       /* of a norm */
    P4_KIND_NORM_BIAS,
    P4_KIND_SLOT_BIAS, /* of a projection, split into the same parts as its matrix */
    P4_KIND_HEAD_BIAS,
} p4_kind;

/* All roles: X(ROLE, outside the blocks or in each, kind, rows, columns, whether architecture `a` has it).
 *
 * Projections that read the same input form a slot, which runs as one matrix: q | k | v, gate | up. A
 * checkpoint may hold a slot in one tensor or in several. The shape given here is that of the whole slot;
 * in a layer with experts, UP and DOWN hold those of all experts one below the other, each of this shape
 * (p4_arch_copies). A model with a tensor of a role is refused until net_takes.c lists the role. The order
 * matters: the distance from each projection to its bias is the same, and a norm's bias, if it can have one,
 * follows its gain (net_takes.c asserts both). */
#define P4_ROLES(X)                                                                                         \
    X(EMBED, MODEL, TABLE, V, C, true)                                                                      \
    X(POSITION, MODEL, TABLE, POSITIONS, C, a->learned_positions)                                           \
    X(NORM1_GAIN, BLOCK, GAIN, ONE, C, !a->no_pre_norm)                                                     \
    X(NORM1_BIAS, BLOCK, NORM_BIAS, ONE, C, p4_arch_has_norm_bias(a) && !a->no_pre_norm)                    \
    X(NORM2_GAIN, BLOCK, GAIN, ONE, C, !a->no_pre_norm && !a->shared_norm)                                  \
    X(NORM2_BIAS, BLOCK, NORM_BIAS, ONE, C, p4_arch_has_norm_bias(a) && !a->no_pre_norm && !a->shared_norm) \
    X(Q_GAIN, BLOCK, GAIN, ONE, QN, a->qk_norm != P4_QK_NORM_NONE)                                          \
    X(K_GAIN, BLOCK, GAIN, ONE, KN, a->qk_norm != P4_QK_NORM_NONE)                                          \
    X(POST1_GAIN, BLOCK, GAIN, ONE, C, a->post_norm) /* of the attention's output */                        \
    X(POST2_GAIN, BLOCK, GAIN, ONE, C, a->post_norm) /* of the MLP's output */                              \
    X(ROUTER, BLOCK, ROUTER, E, C, a->experts > 0)                                                          \
    X(QKV, BLOCK, PROJECTION, QKV, C, true)                                                                 \
    X(O, BLOCK, RESIDUAL, C, Q, true)                                                                       \
    X(UP, BLOCK, PROJECTION, UP, C, true)                                                                   \
    X(DOWN, BLOCK, RESIDUAL, C, F, true)                                                                    \
    X(QKV_BIAS, BLOCK, SLOT_BIAS, ONE, QKV, a->qkv_bias)                                                    \
    X(O_BIAS, BLOCK, SLOT_BIAS, ONE, C, a->o_bias)                                                          \
    X(UP_BIAS, BLOCK, SLOT_BIAS, ONE, UP, a->mlp_bias)                                                      \
    X(DOWN_BIAS, BLOCK, SLOT_BIAS, ONE, C, a->mlp_bias)                                                     \
    X(FINAL_GAIN, MODEL, GAIN, ONE, C, true)                                                                \
    X(FINAL_BIAS, MODEL, NORM_BIAS, ONE, C, p4_arch_has_norm_bias(a))                                       \
    X(HEAD, MODEL, TABLE, V, C, !a->tied)                                                                   \
    X(HEAD_BIAS, MODEL, HEAD_BIAS, ONE, V, a->head_bias)

/* What a parameter is in the network. */
typedef enum p4_role {
#define P4_ENUMERATOR(role, part, kind, rows, cols, condition) P4_ROLE_##role,
    P4_ROLES(P4_ENUMERATOR)
#undef P4_ENUMERATOR
        P4_ROLE_COUNT
} p4_role;

typedef struct p4_role_facts {
    const char *name; /* "QKV" */
    bool in_block;
    p4_kind kind;
    p4_dim rows, cols; /* of the whole slot; rows ONE: a vector */
} p4_role_facts;
extern const p4_role_facts p4_roles[P4_ROLE_COUNT];

bool p4_arch_has_role(const p4_arch *arch, p4_role role); /* in any layer */
bool p4_arch_layer_has_role(const p4_arch *arch, p4_role role, int64_t layer);
/* How many matrices of the shape in p4_roles the slot holds one below the other: with experts, UP and DOWN
 * one for each. Local. */
int64_t p4_arch_copies(const p4_arch *arch, p4_role role, int64_t layer);

static inline bool p4_role_is_matrix(p4_role role) /* QKV, O, UP, DOWN */
{
    return p4_roles[role].kind == P4_KIND_PROJECTION || p4_roles[role].kind == P4_KIND_RESIDUAL;
}
static inline bool p4_role_is_slot_bias(p4_role role)
{
    return p4_roles[role].kind == P4_KIND_SLOT_BIAS;
}

/* Elements of each head that are rotated, R: rope_dim or D. Local. */
int64_t p4_arch_rope_dim(const p4_arch *arch);
/* Rotary frequency of pair i of R/2, radians a position, in a sequence of T positions; computed in fp32 with
 * the reference library's rounding steps, which at long positions decide the angle. Local. */
float p4_rope_inv_freq(const p4_rope *rope, int64_t R, int64_t T, int64_t i);
/* Do the frequencies depend on T? Local. */
static inline bool p4_rope_needs_length(const p4_rope *rope)
{
    return rope->scaling == P4_ROPE_DYNAMIC || rope->scaling == P4_ROPE_LONGROPE;
}
/* Rotary tables [T, R/2] of a sequence of T positions: cos and sin of the fp32 product position * inv_freq,
 * times the attention factor. Local. */
void p4_rope_tables(const p4_rope *rope, int64_t R, int64_t T, float *cos_table, float *sin_table);

#endif
