/* families.h - the table of families: which features the models of a family have, and what its checkpoints
 * call their tensors. Core knows no JSON: io/hf/hf_readers.c has the readers of config.json. Both tables are
 * made from family_list.h. */
#ifndef P4_FAMILIES_H
#define P4_FAMILIES_H

#include <stdio.h>

#include "src/arch.h"

/* One tensor of a checkpoint. */
typedef struct p4_tensor_row {
    p4_role role;
    const char *name; /* after the prefix and, inside a block, after "<layers>.<number>." */
    p4_dim out; /* rows of a matrix, elements of a vector: all of its slot's or a part (q of q | k | v) */
} p4_tensor_row;

typedef struct p4_family {
    const char *title;  /* the models, in a list of what is supported */
    p4_arch features;   /* every number 0; config.json may add features */
    const char *prefix; /* p4_family_prefix */
    const char *layers; /* "model.layers" */
    bool transposed;    /* matrices of blocks are stored as [in, out] (Conv1D) */
    int64_t row_count;
    const p4_tensor_row *row; /* in the order of the parameter table: embeddings, one block, final norm, head.
                               * The parts of a slot follow one another: they become one matrix in memory. A
                               * row whose role an architecture does not have (p4_arch_has_role) is skipped */
} p4_family;

/* NULL: not supported. */
const p4_family *p4_family_find(const char *name);
/* Name of family i, from 0; NULL after the last. */
const char *p4_family_name(int64_t i);
/* The names, for messages: "llama, gpt2". */
const char *p4_supported_families(void);
/* What checkpoints of the family may put before the names of all tensors but the head's: "transformer." for
 * gpt2, else "". */
const char *p4_family_prefix(const char *name);

/* One line a family, "  llama    Llama 1, 2 and 3: ...", for --help; as items of a Markdown list for README.
 */
void p4_families_print(FILE *out, bool markdown);

#endif
