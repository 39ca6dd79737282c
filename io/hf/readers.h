/* readers.h - what the readers of config.json share: keys that several families have. For io/hf/readers_*.c.
 *
 * Names and defaults are those of the reference library, which takes a class's default where a key is absent.
 * All are Local. */
#ifndef P4_HF_READERS_SHARED_H
#define P4_HF_READERS_SHARED_H

#include "io/hf/hf_readers.h"

/* Values of keys that a file may leave out. */
typedef struct p4_hf_sizes {
    int64_t vocab, heads; /* vocab_size, num_attention_heads; 0: a file must have the key */
    int64_t positions;    /* max_position_embeddings */
    int64_t kv_heads;     /* num_key_value_heads; 0: as many as heads */
    int64_t head_dim;     /* 0: hidden_size / num_attention_heads */
    double eps;
    const char *eps_key;
} p4_hf_sizes;

/* V, C, L, H, F, positions, Hkv, D and norm_eps. */
p4_rc p4_hf_read_sizes(const p4_hf_keys *keys, p4_arch *arch, const p4_hf_sizes *absent);
/* The function that `key` names; arch->activation stays when the key is absent. */
p4_rc p4_hf_read_activation(const p4_hf_keys *keys, const char *key, p4_arch *arch);
/* attention_bias: of all four projections. */
p4_rc p4_hf_read_attention_bias(const p4_hf_keys *keys, p4_arch *arch);
/* A factor of which 1 changes nothing: 0 for that, and where the key is absent. */
p4_rc p4_hf_read_scale(const p4_hf_keys *keys, const char *key, float *scale);
/* A cap; 0 for null. The caller sets *cap to the default. */
p4_rc p4_hf_read_cap(const p4_hf_keys *keys, const char *key, float *cap);

/* sliding_window; `absent` where the key is absent, 0 (none) for null. */
p4_rc p4_hf_read_window(const p4_hf_keys *keys, int64_t absent, int64_t *window);
/* Gives `window` (0: none) to the layers that layer_types names "sliding_attention" or, where that key is
 * absent, to those of `sliding`; all others attend to all earlier tokens. */
p4_rc p4_hf_read_layer_types(const p4_hf_keys *keys, p4_arch *arch, int64_t window,
                             const p4_layer_set *sliding);
/* Adds layers [first, L) of which every `period`th, counted from 1, is left out (0: none is). */
void p4_hf_add_layers(p4_layer_set *set, const p4_arch *arch, int64_t first, int64_t period);

#endif
