/* hf_tensors.h - the tensors of all weight files of a model, by the names of its family's table. For io/hf.
 */
#ifndef P4_HF_TENSORS_H
#define P4_HF_TENSORS_H

#include "io/hf/hf_model.h"

typedef struct p4_hf_tensor {
    const char *name; /* in the family's table; owned by the file or by `renamed` */
    const p4_safetensor *tensor;
    const p4_safetensors *shard;
    bool used;
} p4_hf_tensor;

typedef struct p4_hf_tensors {
    p4_hf_tensor *tensors; /* sorted by name */
    int64_t count;
    char *renamed; /* names that are not those in the file */
} p4_hf_tensors;

/* Lists the tensors of the open files, whose names differ (p4_hf_open_shards). Refuses two tensors of which
 * one has a name and the other an alias of it. The caller closes. Local. */
p4_rc p4_hf_tensors_open(p4_hf_tensors *all, const p4_hf_model *hf, const p4_family *family);
void p4_hf_tensors_close(p4_hf_tensors *all);
p4_hf_tensor *p4_hf_tensors_find(const p4_hf_tensors *all, const char *name); /* NULL: not there. Local. */

/* *differs = whether the two matrices hold other values. Their types and shapes are checked when they are
 * attached; here others count as different. Local. */
p4_rc p4_hf_tensors_compare(bool *differs, const p4_hf_tensor *a, const p4_hf_tensor *b);

#endif
