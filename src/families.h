/* families.h - the table of model families: the features that all models of a family have, and the names of
 * its tensors in checkpoints. Its partner, the table of config.json readers, is in io/hf/hf_readers.c,
 * because core reads no files. Both are generated from family_list.h. */
#ifndef P4_FAMILIES_H
#define P4_FAMILIES_H

#include <stdio.h>

#include "src/arch.h"

/* One tensor of a checkpoint. */
typedef struct p4_tensor_row {
    p4_role role;
    /* After the prefix and, inside a block, after "<layers>.<number>.". A '*' stands for the number of an
     * expert: the row and those next to it with the same role are repeated for each. */
    const char *name;
    p4_dim
        out; /* rows of a matrix or elements of a vector: of the whole slot, or of its part in this tensor */
} p4_tensor_row;

/* Tensors whose names begin with `from` in some checkpoints, and with `to` in the table. */
typedef struct p4_tensor_alias {
    const char *from, *to;
} p4_tensor_alias;

enum { P4_FAMILY_ALIASES = 2, P4_FAMILY_FOREIGN = 4 };

typedef struct p4_family p4_family;
struct p4_family {
    const char *title;                        /* names the models, for lists of what is supported */
    p4_arch features;                         /* of all models; numbers are 0. A reader may add more */
    const char *prefix;                       /* p4_family_prefix */
    const char *layers;                       /* "model.layers" */
    bool transposed;                          /* projections are stored as [in, out] (Conv1D) */
    p4_tensor_alias alias[P4_FAMILY_ALIASES]; /* up to the first whose `from` is NULL */
    /* Other names, after "<layers>.<number>.", that a checkpoint may use for a mixture of experts: of the
     * router, and of tensors that hold all experts, [experts, rows of UP or DOWN of one, cols]. NULL: none.
     */
    const char *other_router, *fused_up, *fused_down;
    /* Beginnings of the names of tensors that are no part of the language model; up to the first NULL. */
    const char *foreign[P4_FAMILY_FOREIGN];
    int64_t row_count;
    /* In the order embeddings, one block, final norm, head. The parts of a slot are adjacent, as they become
     * one matrix in memory. Rows whose role an architecture does not have (p4_arch_has_role) are skipped. */
    const p4_tensor_row *row;
    const p4_family *two_branches; /* names of blocks whose attention and MLP, in parallel, have a norm each;
                                      NULL: the same */
};

/* NULL when the family is not supported. */
const p4_family *p4_family_find(const char *name);
/* The name of family i, counted from 0; NULL after the last. */
const char *p4_family_name(int64_t i);
/* The name of the tensor of a role outside the blocks, without the prefix; NULL: the family has none. */
const char *p4_family_tensor(const p4_family *family, p4_role role);
/* The names, for messages: "llama, gpt2". */
const char *p4_supported_families(void);
/* The prefix that some checkpoints of the family put before all tensor names except the head's:
 * "transformer." for gpt2, "" for most. */
const char *p4_family_prefix(const char *name);

/* Prints one line for each family, for --help ("  llama        Llama 1, 2 and 3 ...") or as a Markdown list.
 */
void p4_families_print(FILE *out, bool markdown);

#endif
