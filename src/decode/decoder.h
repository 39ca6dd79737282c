/* decoder.h - a model that continues a text: the network on new tokens, and a cache of the keys and values of
 * those before them.
 *
 * Decoding is the evaluation's network (src/net.h) with two differences: attention reads the cache, and
 * weights are multiplied as they are stored where a pass has few tokens. Without activations in int8 its
 * logits are those of a forward pass over the whole text, up to the order of sums and, with a cache in fp16,
 * its rounding. */
#ifndef P4_DECODER_H
#define P4_DECODER_H

#include "src/net.h"

typedef struct p4_decoder_plan {
    int64_t capacity;    /* tokens of the longest text. Rotary positions that depend on a text's length are
                          * those of this length */
    int64_t batch;       /* tokens of a pass, at most: a longer prompt takes several */
    int activation_bits; /* 8: inputs of ternary projections are rounded to int8 per token; 0: they are not */
    p4_dtype cache_type; /* P4_F16 or P4_F32 */
} p4_decoder_plan;

typedef struct p4_decoder {
    p4_net net;
    const p4_form *form;
    p4_net_cache cache;
    int64_t batch;
    void *memory;       /* device: the cache and x */
    void *x;            /* act [batch, C] */
    p4_recording *step; /* of the layers on one token */
} p4_decoder;

/* Takes all memory. P4_E_INPUT: more tokens than the model has positions. The form must outlive the decoder;
 * the caller closes. Local. */
p4_rc p4_decoder_open(p4_decoder *decoder, const p4_ops *ops, p4_device *device, const p4_model *model,
                      const p4_form *form, const p4_decoder_plan *plan);
void p4_decoder_close(p4_decoder *decoder); /* Also of zeros. */
/* Device memory that p4_decoder_open takes, bytes. Local. */
int64_t p4_decoder_bytes(const p4_ops *ops, p4_device *device, const p4_model *model,
                         const p4_decoder_plan *plan);

/* The next `count` tokens of the text, all below V. h_logits [V], or NULL: what the model expects to follow
 * them. P4_E_INPUT: the text becomes longer than the capacity. Waits for the device and returns its failure,
 * if any. Local. */
p4_rc p4_decoder_append(p4_decoder *decoder, const int32_t *h_ids, int64_t count, float *h_logits);
/* The text becomes its first `count` tokens again. Local. */
void p4_decoder_rewind(p4_decoder *decoder, int64_t count);
static inline int64_t p4_decoder_length(const p4_decoder *decoder)
{
    return decoder->cache.past;
}

/* Bytes of weights that a pass over one token reads: all matrices as they are stored, of an embedding that is
 * not the head one row, of experts as many as a token goes through. Local. */
double p4_decoder_weight_bytes(const p4_model *model, const p4_weight *weights);

#endif
