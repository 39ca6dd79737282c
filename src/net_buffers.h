/* net_buffers.h - the buffers of the network (net*.c), and how their memory is found.
 *
 * The code of a pass names its buffers: p4_net_read gives one whose contents the op at hand needs,
 * p4_net_write one that the op fills, and p4_net_step ends the step that the op is. Before memory is taken
 * the same code runs without calling ops (p4_net.trace), on two blocks of each kind, and notes in which steps
 * each buffer is needed. What both blocks need at once, one buffer each, is kept by every block; all else
 * shares memory wherever lifetimes allow. So the plan of the memory cannot differ from its use. */
#ifndef P4_NET_BUFFERS_H
#define P4_NET_BUFFERS_H

#include "src/lifetimes.h"
#include "src/net.h"

/* X(NAME, BLOCK: each block has its own contents, or PASS; unit; units a token). The units: ACT elements of
 * the activation type; F32 elements; CODES: int8 elements with a scale for each token; ROUTES: p4_routes
 * (0 units); NOTED: what p4_net_write_bytes asks for. `a` is the architecture; of the layer, `used` are the
 * MLPs that a token goes through, 1 or a->experts_used, and `width` is their width. */
#define P4_NET_BUFFERS(X)                                                                        \
    X(X1, BLOCK, ACT, a->C)         /* the block's input */                                      \
    X(N1, BLOCK, ACT, a->C)         /* its norm, the input of QKV, of UP if they share it ... */ \
    X(N1_CODES, BLOCK, CODES, a->C) /* ... or as codes, where QKV multiplies codes */            \
    X(RAW, BLOCK, ACT, qkv)         /* QKV's product, where more follows before its rotation */  \
    X(QKV, BLOCK, ACT, qkv)         /* rotated queries and keys, values */                       \
    X(ATT, BLOCK, ACT, q)           /* the output of attention, the input of O */                \
    X(ATT_CODES, BLOCK, CODES, q)                                                                \
    X(OUT1, BLOCK, ACT, a->C) /* O's product, where a norm follows */                            \
    X(X2, BLOCK, ACT, a->C)   /* X1 and the attention's addend */                                \
    X(N2, BLOCK, ACT, a->C)   /* the norm before the MLP, the input of UP */                     \
    X(N2_CODES, BLOCK, CODES, a->C)                                                              \
    X(ROUTER, BLOCK, ACT, a->experts) /* its logits */                                           \
    X(ROUTES, BLOCK, ROUTES, 0)                                                                  \
    X(GATHERED, BLOCK, ACT, used * a->C) /* N2 in the order of experts, the input of UP */       \
    X(UP, BLOCK, ACT, used *up)                                                                  \
    X(H, BLOCK, ACT, used *width) /* activated, the input of DOWN */                             \
    X(H_CODES, BLOCK, CODES, width)                                                              \
    X(OUT2, BLOCK, ACT, a->C)       /* DOWN's product, where more follows */                     \
    X(OUTS, PASS, ACT, used * a->C) /* those of experts */                                       \
    X(MEAN1, BLOCK, F32, 1)         /* statistics for the backward pass */                       \
    X(RSTD1, BLOCK, F32, 1)                                                                      \
    X(Q_RSTD, BLOCK, F32, q_groups)                                                              \
    X(K_RSTD, BLOCK, F32, k_groups)                                                              \
    X(LSE, BLOCK, F32, a->H)                                                                     \
    X(POST1_RSTD, BLOCK, F32, 1)                                                                 \
    X(MEAN2, BLOCK, F32, 1)                                                                      \
    X(RSTD2, BLOCK, F32, 1)                                                                      \
    X(POST2_RSTD, BLOCK, F32, 1)                                                                 \
    X(DELTA, PASS, ACT, a->C)       /* the addend of the sum that the next norm computes */      \
    X(FINAL_X, PASS, ACT, a->C)     /* the last block's output */                                \
    X(FINAL_N, PASS, ACT, a->C)     /* its norm */                                               \
    X(REFERENCE_N, PASS, ACT, a->C) /* the reference's */                                        \
    X(FINAL_MEAN, PASS, F32, 1)                                                                  \
    X(FINAL_RSTD, PASS, F32, 1)                                                                  \
    X(LOGITS, PASS, NOTED, 0)                                                                    \
    X(REFERENCE_LOGITS, PASS, NOTED, 0)                                                          \
    X(NLL, PASS, F32, 1)                                                                         \
    X(HIT, PASS, F32, 1)                                                                         \
    X(KL, PASS, F32, 1)                                                                          \
    X(SAME, PASS, F32, 1)                                                                        \
    X(WEIGHT, PASS, NOTED, 0)    /* one unpacked slot, or the head */                            \
    X(HEAD_BIAS, PASS, NOTED, 0) /* padded to a row of logits */                                 \
    X(XQ, PASS, NOTED, 0)        /* an input converted back to activations */                    \
    X(ATTENTION_WORK, PASS, NOTED, 0)                                                            \
    X(DX, PASS, ACT, a->C)      /* gradient at X1, X2 or a block's output */                     \
    X(DY, PASS, ACT, a->C)      /* at the output of O or DOWN, where that is not DX */           \
    X(DN, PASS, ACT, a->C)      /* at a norm's output */                                         \
    X(DN2, PASS, ACT, a->C)     /* at that of the second norm of a parallel block */             \
    X(DUP, PASS, ACT, used *up) /* at UP */                                                      \
    X(DH, PASS, ACT, used *width)                                                                \
    X(DOUTS, PASS, ACT, used * a->C)     /* at OUTS */                                           \
    X(DGATHERED, PASS, ACT, used * a->C) /* at GATHERED */                                       \
    X(DSHARE, PASS, F32, used)           /* at the routes' shares */                             \
    X(DROUTER, PASS, ACT, a->experts)                                                            \
    X(DATT, PASS, ACT, q)                                                                        \
    X(DQKV, PASS, ACT, qkv)                                                                      \
    X(DRAW, PASS, ACT, qkv)                                                                      \
    X(AGAIN_N1, PASS, ACT, a->C) /* inputs computed again, or converted from codes */            \
    X(AGAIN_ATT, PASS, ACT, q)                                                                   \
    X(AGAIN_N2, PASS, ACT, a->C)                                                                 \
    X(AGAIN_GATHERED, PASS, ACT, used * a->C)                                                    \
    X(AGAIN_H, PASS, ACT, used *width)

typedef enum p4_net_buffer {
#define P4_ENUMERATOR(name, scope, unit, width) P4_BUFFER_##name,
    P4_NET_BUFFERS(P4_ENUMERATOR)
#undef P4_ENUMERATOR
        P4_BUFFER_COUNT
} p4_net_buffer;

/* Two, and two more where some layers have experts and some have none. */
enum { P4_TRACED_BLOCKS = 4 };

/* What a trace has noted: block by block, of buffers that belong to the pass in the first. */
struct p4_net_trace {
    int64_t step;
    p4_lifetime lifetime[P4_TRACED_BLOCKS][P4_BUFFER_COUNT];
    int64_t since[P4_TRACED_BLOCKS][P4_BUFFER_COUNT]; /* the last step that wrote it or needed it; -1: none */
    bool used[P4_TRACED_BLOCKS][P4_BUFFER_COUNT];     /* by this block, also of buffers of the pass */
    int64_t noted_bytes[P4_BUFFER_COUNT];
};

/* `block`: whose buffer; of a buffer of the pass any. Contents that the step needs, and may change. */
void *p4_net_read(p4_net *net, int64_t block, p4_net_buffer buffer);
/* Contents are undefined before. */
void *p4_net_write(p4_net *net, int64_t block, p4_net_buffer buffer);
void *p4_net_write_bytes(p4_net *net, p4_net_buffer buffer, int64_t bytes);
p4_int8_rows p4_net_read_codes(p4_net *net, int64_t block, p4_net_buffer buffer);
p4_int8_rows p4_net_write_codes(p4_net *net, int64_t block, p4_net_buffer buffer);
p4_routes p4_net_read_routes(p4_net *net, int64_t block);
p4_routes p4_net_write_routes(p4_net *net, int64_t block);
/* Ends a step: is its op to be called? */
bool p4_net_step(p4_net *net);

/* In a block of this layer. trace: that noted the bytes of buffers which are NOTED. */
int64_t p4_net_buffer_bytes(const p4_net *net, const p4_net_trace *trace, p4_net_buffer buffer,
                            int64_t layer);

/* The blocks of a pass over the whole model; in a trace, two of each kind. */
int64_t p4_net_blocks(const p4_net *net);
/* The layer that block `block` is; in a trace the first of its kind. */
int64_t p4_net_layer(const p4_net *net, int64_t block);
/* Of a trace: the layer that a block is, and the first of the blocks that stand for a layer. */
int64_t p4_net_traced_layer(const p4_net *net, int64_t block);
int64_t p4_net_traced_block(const p4_net *net, int64_t layer);

#endif
