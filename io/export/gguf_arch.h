/* gguf_arch.h - what llama.cpp calls an architecture, and how it computes it: which models it is right for,
 * and the keys that describe one. */
#ifndef P4_GGUF_ARCH_H
#define P4_GGUF_ARCH_H

#include "io/export/gguf_file.h"
#include "src/arch.h"

/* What it does with the weights of the experts that a token goes through. */
typedef enum p4_gguf_shares {
    P4_GGUF_SHARES_NONE, /* it has no experts */
    P4_GGUF_SHARES_NORMED,
    P4_GGUF_SHARES_AS_IS,
} p4_gguf_shares;

typedef struct p4_gguf_arch {
    const char *family, *name; /* model_type of config.json, general.architecture */
    /* It rotates neighboring elements of queries and keys: their rows are put in this order. Others rotate
     * element i with i + D/2, as the checkpoints do. */
    bool pairs;
    bool qkv_bias, o_bias, mlp_bias; /* it takes these biases */
    bool needs_biases;               /* and needs all of them */
    bool shared_norm, head_bias;     /* it has them */
    bool only_parallel;              /* attention and MLP are always in parallel */
    bool mlp_norm_first; /* of two norms it calls that of the MLP attn_norm, the other attn_norm_2 */
    bool part_of_heads;  /* it can rotate a part of each head */
    bool whole_heads;    /* H D must be C */
    bool whole_kv_heads; /* and Hkv D too */
    bool writes_head;    /* it needs output.weight: a tied head is written once more */
    bool only_tied;
    bool multipliers;  /* it reads the four factors of Granite */
    bool logit_scale;  /* it reads that of Cohere alone */
    bool neighbors;    /* it rotates neighboring elements as they are stored */
    int most_layers;   /* with more it computes something else; 0: any number */
    bool gemma;        /* it scales embeddings by sqrt(C) */
    int window_period; /* every so many layers one attends to everything; 0: it ignores windows */
    bool one_theta;    /* of all layers; else it reads that of layers with a window */
    int unrotated_period;
    int large_layers; /* with so many layers it scales scores by 1/sqrt(C / H) instead of 1/sqrt(D) */
    bool factors;     /* it reads rope_freqs */
    bool longrope;
    p4_activation activation;
    p4_gguf_shares shares;
} p4_gguf_arch;

/* P4_E_INPUT, with the reason: llama.cpp does not compute this model. `writer` begins messages. Local. */
p4_rc p4_gguf_arch_find(const p4_gguf_arch **found, const p4_arch *arch, const char *writer);
/* The longest context in which llama.cpp computes what the model does: where it ignores a window, the window.
 * Local. */
int64_t p4_gguf_context(const p4_gguf_arch *gguf, const p4_arch *arch);
/* All keys of the architecture. g->arch is gguf->name. Local. */
void p4_gguf_put_arch(p4_gguf *g, const p4_gguf_arch *gguf, const p4_arch *arch);

#endif
