/* source.h - what the writers of io/export write: a compressed model in host memory. */
#ifndef P4_EXPORT_SOURCE_H
#define P4_EXPORT_SOURCE_H

#include "io/hf/hf_model.h"
#include "io/tokenizer/tokenizer.h"

typedef struct p4_export_source {
    const p4_hf_model *hf; /* names, shapes, architecture, config.json; path: with the tokenizer's files */
    const p4_tokenizer *tokenizer; /* NULL: the model has none */
    const char *option;            /* behind the colon of the writer's name: "tq1_0"; "": none */
    bool tensor_scale;             /* all rows of a matrix have one scale */
    /* What only writing needs. */
    const p4_weight *weights; /* per parameter, in logical [out, in] layout: P4_TERNARY or P4_F16 */
    int threads;
    p4_rc (*go_on)(void *user); /* called by `threads` threads at once; an error ends the writing */
    void *user;
} p4_export_source;

#endif
