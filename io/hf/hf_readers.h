/* hf_readers.h - the readers of config.json, one for each model family. For io/hf. */
#ifndef P4_HF_READERS_H
#define P4_HF_READERS_H

#include "io/hf/hf_keys.h"
#include "src/arch.h"

/* Limits far above any real model. They keep every size that is computed from these numbers from overflowing.
 */
enum {
    P4_HF_WIDTH_MAX = 1 << 22,
    P4_HF_LAYERS_MAX = 4096,
    P4_HF_HEADS_MAX = 1 << 16,
    P4_HF_VOCAB_MAX = 1 << 28,
    P4_HF_POSITIONS_MAX = 1 << 30
};

typedef struct p4_hf_reader {
    const char
        *architectures[2]; /* the accepted classes of config.json's "architectures"; the second or NULL */
    /* Gets an architecture with the family's features. Fills in the numbers, sets the features that the file
     * asks for, and fails on keys that ask for anything that the network does not compute. An attention scale
     * of 0 becomes 1/sqrt(D). */
    p4_rc (*read)(const p4_hf_keys *keys, p4_arch *arch);
} p4_hf_reader;

/* NULL when the family is not supported (family_list.h). */
const p4_hf_reader *p4_hf_reader_find(const char *family);

/* Reads rotary positions in both styles of config.json (hf_rope.c). Local. */
p4_rc p4_hf_read_rope(const p4_hf_keys *keys, p4_arch *arch);

#endif
