/* model.h - a model of an architecture: its parameter table and its weights. */
#ifndef P4_MODEL_H
#define P4_MODEL_H

#include "src/families.h"
#include "src/leaf/tensor.h"
#include "src/phase4/types.h"

enum { P4_TENSOR_NAME_BYTES = 160 };

/* One tensor of the model, under its Hugging Face name. */
typedef struct p4_param {
    char name[P4_TENSOR_NAME_BYTES]; /* with the prefix of the checkpoint it came from */
    p4_role role;
    int64_t layer;      /* -1 outside the blocks */
    int64_t expert;     /* -1: of none */
    int64_t row_offset; /* first row inside its slot (q 0, k H*D, v (H+Hkv)*D; gate 0, up F) */
    int64_t
        input_offset;   /* first row among the parts of the slot that read the same input; 0: the first of
                         * them. Those of one expert read what is routed to it; without experts: row_offset */
    int64_t rows, cols; /* logical [out, in]; a vector is [1, n] */
    bool vector;        /* one dimension in files */
    bool transposed;    /* [in, out] in files */
    bool ternary;       /* will be (is) quantized: p4_model_select_ternary */
    /* Of a ternary tensor: as in p4_weight (src/leaf/tensor.h); 0: a scale a row. p4_model_share_scales. */
    int64_t scale_group;
} p4_param;

static inline int64_t p4_param_scale_count(const p4_param *p)
{
    return p->rows * p->cols / p4_scale_group(p->scale_group, p->cols);
}

typedef struct p4_model {
    p4_arch arch;
    int64_t params_count; /* entries: embeddings, then layer by layer, then final norm and head */
    p4_param *params;
    p4_weight *weights;   /* per entry: where its elements are (a mapped file, memory); data NULL: not here */
    int64_t *layer_first; /* [L + 1]: entries [layer_first[l], layer_first[l + 1]) belong to layer l */
} p4_model;

/* Sets the features of the family and every number to 0. Fails with the list of supported families when the
 * family is none of them. Local. */
p4_rc p4_arch_init(p4_arch *arch, const char *family);
/* Checks the numbers (positive, far from overflow, heads divisible, D even for rotary positions) and that the
 * network computes every feature. Messages begin with `source`. Local. */
p4_rc p4_arch_check(const p4_arch *arch, const char *source);

/* Builds the parameter table of an architecture that p4_arch_check accepts. All names except the head's get
 * the prefix ("transformer." or ""). Fails for a family whose tensors are not those that the network uses. On
 * an error *model is empty. The caller frees with p4_model_close. Local. */
p4_rc p4_model_init(p4_model *model, const p4_arch *arch, const char *prefix);
/* The same for a family that need not be in the table of families. Local. */
p4_rc p4_model_init_family(p4_model *model, const p4_arch *arch, const p4_family *family, const char *prefix);
void p4_model_close(p4_model *model);

/* A model of `blocks` blocks of another, of the kinds of those from `layer` on: its entries inside blocks are
 * to be taken from there with p4_model_part_take, those outside have no data. The caller frees with
 * p4_model_close. Local. */
p4_rc p4_model_part_init(p4_model *part, const p4_model *whole, int64_t layer, int64_t blocks);
/* The part stands for the blocks from `layer` on, which have the same tensors: their names, flags, weights
 * and properties by layer. Local. */
void p4_model_part_take(p4_model *part, const p4_model *whole, int64_t layer);
/* The entry of `whole` that entry i of a part that begins at `layer` is; i lies inside a block. Local. */
static inline int64_t p4_model_part_entry(const p4_model *part, const p4_model *whole, int64_t layer,
                                          int64_t i)
{
    return whole->layer_first[layer] + i - part->layer_first[0];
}

/* First entry with this role in this layer (-1 outside), or -1. A slot's other parts follow it directly.
 * Local. */
int64_t p4_model_find(const p4_model *model, p4_role role, int64_t layer);
/* Number of consecutive entries of that slot: 1 to 3, with experts up to 2 for each. Local. */
int64_t p4_model_parts(const p4_model *model, int64_t first);
/* Number of consecutive entries from `first` on (input_offset 0) that read the same input (1 to 3). Local. */
int64_t p4_model_readers(const p4_model *model, int64_t first);
/* The next entry of the slot that begins at `first` with an input of its own, after entry i; -1: none. Local.
 */
int64_t p4_model_next_input(const p4_model *model, int64_t first, int64_t i);
/* A tensor may hold several matrices one below the other: q, k and v (GPT-2's c_attn; with rows by head,
 * those of every head), gate and up (Phi-3's gate_up_proj). The rows of matrix `m`; 0 after the last. Local.
 */
int64_t p4_model_matrix_rows(const p4_model *model, int64_t param, int64_t m);

/* Marks which tensors are quantized: block matrices; token embedding and head as told (a tied head is the
 * embedding); none whose name matches a glob of preserve. Norms, biases and learned positions never. Local.
 */
void p4_model_select_ternary(p4_model *model, const p4_list *preserve, bool preserve_embedding,
                             bool preserve_output);

/* How many weights of each ternary tensor share a scale. P4_E_INPUT names a tensor whose rows cannot be
 * divided so. Local. */
p4_rc p4_model_share_scales(p4_model *model, p4_scale_granularity granularity);

/* Does any tensor's name match the glob? Local. */
bool p4_model_has_match(const p4_model *model, const char *glob);

int64_t p4_model_count_elements(const p4_model *model); /* every entry once (tied head counts once) */

#endif
