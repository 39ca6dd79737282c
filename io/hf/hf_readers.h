/* hf_readers.h - the readers of config.json, one for each model family. For io/hf. */
#ifndef P4_HF_READERS_H
#define P4_HF_READERS_H

#include "io/hf/hf_keys.h"
#include "src/arch.h"
#include "src/family_list.h"

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

/* Each family's, in a file readers_*.c. */
#define P4_HF_READER(name) extern const p4_hf_reader p4_hf_reader_##name;
P4_FAMILIES(P4_HF_READER)
#undef P4_HF_READER

/* NULL when the family is not supported (family_list.h). */
const p4_hf_reader *p4_hf_reader_find(const char *family);

/* What a family's class does with rotary positions that others do not. With all members 0: theta is
 * "rope_theta", 10000 where it is absent, whole heads are rotated, and all layers alike. */
typedef struct p4_hf_rope_facts {
    const char *theta_key;   /* NULL: "rope_theta" */
    double theta;            /* where the key is absent; 0: 10000 */
    const char *partial_key; /* the rotated part of a head may be smaller; this is its key beside
                              * rope_parameters. NULL: whole heads are rotated */
    double partial;          /* where the key is absent; 0: 1 */
    /* Layers with a window have rotary positions of their own: the key of their theta beside rope_parameters,
     * and what it is where the key is absent. NULL: all layers alike. */
    const char *windowed_theta_key;
    double windowed_theta;
    int64_t original_positions; /* of the class, where the file names none beside rope_parameters; 0: none */
    bool longrope_names;        /* "su" and "yarn" also mean "longrope" */
} p4_hf_rope_facts;

/* Reads rotary positions in both styles of config.json (hf_rope.c): arch->rope, with windowed_theta_key
 * arch->windowed_rope, with partial_key arch->rope_dim. Call it when arch->D and arch->positions are known.
 * Local.
 */
p4_rc p4_hf_read_rope(const p4_hf_keys *keys, const p4_hf_rope_facts *facts, p4_arch *arch);

#endif
