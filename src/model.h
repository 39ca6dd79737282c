/* model.h - architecture numbers of a transformer, its parameter table, and one model's weights.
 *
 * One generic pre-norm block serves every family; a family is a row of flags and a naming scheme
 * (model_names.c). */
#ifndef P4_MODEL_H
#define P4_MODEL_H

#include "src/leaf/tensor.h"
#include "src/phase4/types.h"

enum { P4_TENSOR_NAME_BYTES = 160 };

typedef enum p4_rope_scaling { P4_ROPE_DEFAULT, P4_ROPE_LINEAR, P4_ROPE_LLAMA3 } p4_rope_scaling;

typedef struct p4_arch {
    char family[32]; /* "llama", "gpt2": config.json's model_type */
    int64_t V, C, L, H, Hkv, D, F;
    int64_t positions; /* longest sequence */
    bool layer_norm;   /* LayerNorm with bias, else RMSNorm */
    float norm_eps;
    bool learned_positions; /* else rotary */
    double rope_theta;
    p4_rope_scaling rope_scaling;
    double rope_factor, rope_low_freq_factor, rope_high_freq_factor, rope_original_positions;
    bool gated_mlp; /* SwiGLU: gate and up; else GELU (tanh) */
    bool qkv_bias, o_bias, mlp_bias;
    bool fused_qkv;         /* one tensor holds q, k and v (GPT-2's c_attn) */
    bool conv1d;            /* matrices are stored [in, out] in files */
    bool tied;              /* the head is the embedding */
    int64_t window;         /* sliding attention window, 0: none */
    float attention_scale;  /* usually 1/sqrt(D) */
    int32_t bos_id, eos_id; /* -1: none */
} p4_arch;

/* What a parameter is in the network. */
typedef enum p4_role {
    P4_ROLE_EMBED,      /* [V, C] */
    P4_ROLE_POSITION,   /* [positions, C] */
    P4_ROLE_NORM1_GAIN, /* [C], and the next three */
    P4_ROLE_NORM1_BIAS,
    P4_ROLE_NORM2_GAIN,
    P4_ROLE_NORM2_BIAS,
    P4_ROLE_QKV,      /* slot: rows q | k | v of [(H + 2 Hkv) D, C], one tensor or three */
    P4_ROLE_O,        /* [C, H D] */
    P4_ROLE_UP,       /* slot: rows gate | up of [2 F, C], or [F, C] when not gated */
    P4_ROLE_DOWN,     /* [C, F] */
    P4_ROLE_QKV_BIAS, /* the slot's bias, in the same parts; so the next three */
    P4_ROLE_O_BIAS,
    P4_ROLE_UP_BIAS,
    P4_ROLE_DOWN_BIAS,
    P4_ROLE_FINAL_GAIN, /* [C] */
    P4_ROLE_FINAL_BIAS,
    P4_ROLE_HEAD, /* [V, C]; absent when tied */
    P4_ROLE_COUNT
} p4_role;

/* One tensor of the model, under its Hugging Face name. */
typedef struct p4_param {
    char name[P4_TENSOR_NAME_BYTES]; /* with the prefix of the checkpoint it came from */
    p4_role role;
    int64_t layer;      /* -1 outside the blocks */
    int64_t row_offset; /* first row inside its slot (q 0, k H*D, v (H+Hkv)*D; gate 0, up F) */
    int64_t rows, cols; /* logical [out, in]; a vector is [1, n] */
    bool vector;        /* one dimension in files */
    bool transposed;    /* [in, out] in files */
    bool ternary;       /* will be (is) quantized: p4_model_select_ternary */
} p4_param;

typedef struct p4_model {
    p4_arch arch;
    int64_t params_count; /* entries: embeddings, then layer by layer, then final norm and head */
    p4_param *params;
    p4_weight *weights;   /* per entry: where its elements are (a mapped file, memory); data NULL: not here */
    int64_t *layer_first; /* [L + 1]: entries [layer_first[l], layer_first[l + 1]) belong to layer l */
} p4_model;

/* Flags of the generic block for a family, every number 0. A name that is not supported is refused with the
 * list of those that are. Local. */
p4_rc p4_arch_init(p4_arch *arch, const char *family);
/* Checks the numbers: positive, below any overflow, heads divisible, even D for rotary. `source` begins
 * messages. Local. */
p4_rc p4_arch_check(const p4_arch *arch, const char *source);
/* What some checkpoints of the family put before the names of all tensors but the head: "transformer." for
 * gpt2, else "". */
const char *p4_family_prefix(const char *family);

/* Builds the parameter table of an architecture that p4_arch_check accepts; prefix is put before names other
 * than the head's ("transformer." or ""). On an error *model is empty. The caller frees with p4_model_close.
 * Local. */
p4_rc p4_model_init(p4_model *model, const p4_arch *arch, const char *prefix);
void p4_model_close(p4_model *model);

/* First entry with this role in this layer (-1 outside), or -1. A slot's other parts follow it directly.
 * Local. */
int64_t p4_model_find(const p4_model *model, p4_role role, int64_t layer);
/* Number of consecutive entries of that slot (1 to 3). Local. */
int64_t p4_model_parts(const p4_model *model, int64_t first);
bool p4_role_is_matrix(p4_role role); /* QKV, O, UP, DOWN */
bool p4_role_is_slot_bias(p4_role role);

/* Marks which tensors are quantized: block matrices; token embedding and head as told (a tied head is the
 * embedding); none whose name matches a glob of preserve. Norms, biases and learned positions never. Local.
 */
void p4_model_select_ternary(p4_model *model, const p4_list *preserve, bool preserve_embedding,
                             bool preserve_output);

/* Does any tensor's name match the glob? Local. */
bool p4_model_has_match(const p4_model *model, const char *glob);

int64_t p4_model_count_elements(const p4_model *model); /* every entry once (tied head counts once) */

/* Rotary frequency of pair i of D/2, radians a position, with the architecture's scaling; computed in fp32
 * with the reference library's rounding steps, which at long positions decide the angle. Local. */
float p4_rope_inv_freq(const p4_arch *arch, int64_t i);
/* Rotary tables [T, D/2]: cos and sin of the fp32 product position * inv_freq. Local. */
void p4_rope_tables(const p4_arch *arch, int64_t T, float *cos_table, float *sin_table);

/* Names of the supported families, for messages: "llama, gpt2". */
const char *p4_supported_families(void);

#endif
