/* masters.h - full-precision weights that are not the original's: what one engine trained, for the next to
 * start from. */
#ifndef P4_MASTERS_H
#define P4_MASTERS_H

#include "dist/group.h"
#include "dist/shard.h"
#include "src/model.h"
#include "src/packed.h"

typedef struct p4_masters {
    const p4_model *model;
    bool *known; /* [params_count], the same on every rank; false: the original's value counts */
    float **of;  /* [params_count]: host [rows * cols], [out, in]; NULL: unknown, or not held here. A ternary
                  * tensor's is held by its owner, every other by every rank */
} p4_masters;

/* Knows nothing yet. The model must outlive it; the caller closes. Local. */
p4_rc p4_masters_open(p4_masters *masters, const p4_model *model);
/* Bytes of host memory on a rank that tensors of the blocks take once they are known: of what is ternary, of
 * the others. Local. */
int64_t p4_masters_bytes(const p4_model *model, const p4_group *group, const p4_shard *shard, bool ternary,
                         bool others);
void p4_masters_close(p4_masters *masters); /* Also of zeros. Local. */
/* Room for the value of parameter i [rows * cols], which this rank holds from now on; NULL: out of memory.
 * Who calls it sets known[i] on every rank. Local. */
float *p4_masters_take(p4_masters *masters, int64_t i);
/* Every ternary tensor of a block gets masters whose codes, by the rule "exact", are those in `packed`, near
 * the original where they can be (code_masters.h): where a training starts from codes that its own rule would
 * not find. Collective. */
p4_rc p4_masters_of_codes(p4_masters *masters, const p4_packed *packed, p4_group *group,
                          const p4_shard *shard, int threads);
/* *h_value [rows * cols] = the known value of parameter i, on every rank; the caller frees. Collective. */
p4_rc p4_masters_fetch(const p4_masters *masters, p4_group *group, const p4_shard *shard, int64_t i,
                       float **h_value);

#endif
