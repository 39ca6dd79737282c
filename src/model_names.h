/* model_names.h - the family table: which flags of the generic block a family sets, and the Hugging Face
 * names and shapes of its tensors. Inside src only. A new family is a row here and one in io/hf/hf_config.c.
 */
#ifndef P4_MODEL_NAMES_H
#define P4_MODEL_NAMES_H

#include "src/model.h"

/* A dimension of a tensor in terms of the architecture. */
typedef enum p4_dim {
    P4_DIM_ONE, /* as rows: a vector */
    P4_DIM_V,
    P4_DIM_POSITIONS,
    P4_DIM_C,
    P4_DIM_F,
    P4_DIM_Q,   /* H D */
    P4_DIM_KV,  /* Hkv D */
    P4_DIM_QKV, /* (H + 2 Hkv) D */
} p4_dim;

typedef enum p4_when { P4_ALWAYS, P4_WITH_QKV_BIAS, P4_WITH_O_BIAS, P4_WITH_MLP_BIAS, P4_UNTIED } p4_when;

typedef struct p4_tensor_row {
    p4_role role;
    const char *name; /* after the prefix and, inside a block, after "<layers>.<number>." */
    p4_dim rows, cols;
    p4_when when;
} p4_tensor_row;

typedef struct p4_family {
    p4_arch flags;      /* family name and flags; numbers 0 */
    const char *prefix; /* p4_family_prefix */
    const char *layers; /* "model.layers" */
    const p4_tensor_row
        *row; /* in the order of the parameter table: embeddings, one block, final norm, head */
    int64_t row_count;
} p4_family;

/* NULL: not supported. */
const p4_family *p4_family_find(const char *name);

static inline bool p4_role_in_block(p4_role role)
{
    return role > P4_ROLE_POSITION && role < P4_ROLE_FINAL_GAIN;
}

#endif
