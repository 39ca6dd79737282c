/* packed.h - a compressed model in host memory: 2-bit codes and fp16 scales of the ternary tensors, fp16 of
 * the rest. Every rank holds all of it (docs/design.md 3). What is evaluated is these values, and they are
 * what is written. */
#ifndef P4_PACKED_H
#define P4_PACKED_H

#include "kernels/ops.h"
#include "src/model.h"

typedef struct p4_packed {
    const p4_model *model;
    bool is_compressed;
    p4_weight *weights; /* [params_count]: P4_TERNARY or P4_F16, logical [out, in] layout, never transposed */
    p4_quant_error *errors; /* [params_count], of ternary tensors */
    char *memory;
    int64_t memory_bytes;
} p4_packed;

/* Takes memory for every tensor of the model (its ternary flags decide the form). The caller closes. Local.
 */
p4_rc p4_packed_alloc(p4_packed *compressed, const p4_model *model);
void p4_packed_release(p4_packed *compressed);
/* Bytes of host memory that it takes. Local. */
int64_t p4_packed_bytes(const p4_model *model);

static inline uint8_t *p4_packed_codes(const p4_packed *c, int64_t i)
{
    return (uint8_t *)(uintptr_t)c->weights[i].data;
}
static inline uint16_t *p4_packed_scale(const p4_packed *c, int64_t i)
{
    return (uint16_t *)(uintptr_t)c->weights[i].scale;
}
static inline uint16_t *p4_packed_half(const p4_packed *c, int64_t i)
{
    return (uint16_t *)(uintptr_t)c->weights[i].data;
}

/* Rounds a preserved tensor to fp16, on so many threads. P4_E_INPUT when a value does not fit, with the
 * tensor's name behind `source`, a file or what made it. Local. */
p4_rc p4_packed_preserve(p4_packed *compressed, int64_t param, const p4_weight *weight, const char *source,
                         int threads);

/* Bytes of what is stored: ternary codes packed with `bits_per_byte` trits a byte (5: base-3, 4: 2-bit),
 * scales, halves. */
typedef struct p4_stored_bytes {
    double codes, scales, embedding, head, other;
} p4_stored_bytes;
p4_stored_bytes p4_packed_stored_bytes(const p4_packed *compressed, int trits_per_byte);

/* Fraction of zeros among ternary weights. Local. */
double p4_packed_sparsity(const p4_packed *compressed);

/* First element that is NaN or infinite, or -1. Local. */
int64_t p4_weight_find_nonfinite(const p4_weight *weight);

#endif
