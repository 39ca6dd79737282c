/* decode.h - the decoder of tokenizer.json: tokens -> text. */
#ifndef P4_TOK_DECODE_H
#define P4_TOK_DECODE_H

#include "io/tokenizer/buffer.h"

typedef enum p4_tok_decoding {
    P4_TOK_DECODE_BYTE_LEVEL,
    P4_TOK_DECODE_REPLACE,
    P4_TOK_DECODE_BYTE_FALLBACK,
    P4_TOK_DECODE_FUSE,
    P4_TOK_DECODE_STRIP,
    P4_TOK_DECODE_METASPACE
} p4_tok_decoding;

typedef struct p4_tok_decode_step {
    p4_tok_decoding action;
    p4_tok_text from, to; /* REPLACE; STRIP and METASPACE: the character is `from` */
    int64_t start, stop;  /* STRIP: at most so many at either end */
    bool drop_first;      /* METASPACE: the first token's marks vanish */
} p4_tok_decode_step;

typedef struct p4_tok_decoder {
    p4_tok_decode_step step[P4_TOK_STEPS_MAX];
    int count;
    bool present; /* the file has a decoder */
    char *
        refusal; /* heap: why it is not supported; NULL: it is. A run that decodes nothing does not need it */
} p4_tok_decoder;

/* The texts of `count` tokens through the decoder's steps, joined: a heap string that the caller frees.
 * P4_E_INPUT: a decoder that is not supported. Local. */
p4_rc p4_tok_decode(const p4_tok_decoder *decoder, const char *source, const p4_tok_text *texts,
                    int64_t count, char **text);

#endif
