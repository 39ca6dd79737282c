/* hf_readers.h - one reader of config.json for each family. Inside io/hf only. */
#ifndef P4_HF_READERS_H
#define P4_HF_READERS_H

#include "io/hf/hf_keys.h"
#include "src/arch.h"

/* Numbers beyond these belong to no model. The limits keep sizes computed from them far from overflow. */
enum {
    P4_HF_WIDTH_MAX = 1 << 22,
    P4_HF_LAYERS_MAX = 4096,
    P4_HF_HEADS_MAX = 1 << 16,
    P4_HF_VOCAB_MAX = 1 << 28,
    P4_HF_POSITIONS_MAX = 1 << 30
};

typedef struct p4_hf_reader {
    const char *architectures[2]; /* classes that compute what the network computes; NULL: no second one */
    /* Fills the numbers of an architecture that holds the family's features, and adds the features that the
     * file asks for. Refuses keys that ask for anything else. */
    p4_rc (*read)(const p4_hf_keys *keys, p4_arch *arch);
} p4_hf_reader;

/* The reader of a supported family (family_list.h); NULL: the family is not supported. */
const p4_hf_reader *p4_hf_reader_find(const char *family);

/* Rotary positions, in both styles of config.json (hf_rope.c). Local. */
p4_rc p4_hf_read_rope(const p4_hf_keys *keys, p4_arch *arch);

#endif
