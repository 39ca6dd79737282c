/* classes.h - the tokenizer classes of transformers 5 that build their pipeline themselves: they take
 * vocabulary and merges from a file and replace its normalizer, pre_tokenizer and decoder. All Local. */
#ifndef P4_TOK_CLASSES_H
#define P4_TOK_CLASSES_H

#include <cjson/cJSON.h>

#include "src/leaf/base.h"

enum { P4_TOK_NAMED = 7 }; /* bos, eos, unk, sep, pad, cls, mask: the named special tokens in their order */
extern const char *const p4_tok_named[P4_TOK_NAMED];

typedef struct p4_tok_class {
    const char *name;
    const char
        *tokens[P4_TOK_NAMED]; /* the special tokens unless the configuration names others; NULL: none */
    const char *normalizer, *pre_tokenizer,
        *decoder;                           /* JSON; @PREFIX and @SCHEME stand for add_prefix_space */
    const char *model;                      /* JSON: the options of the model */
    bool names_unknown;                     /* model.unk_token is the special token */
    bool prefix;                            /* add_prefix_space unless the configuration has it */
    bool reads_merges, reads_sentencepiece; /* what it reads without a tokenizer.json */
    bool resets_post;                       /* the post_processor of the file is dropped */
} p4_tok_class;

/* The class that AutoTokenizer takes for a `tokenizer_class` (NULL: none is named) and a `model_type` of
 * config.json ("": none): a row, or NULL for the one that follows tokenizer.json. byte_level: that file has a
 * ByteLevel component. */
const p4_tok_class *p4_tok_class_choose(const char *tokenizer_class, const char *model_type, bool byte_level);

/* Replaces normalizer, pre_tokenizer, decoder and model options of the tree `root` by those of the class,
 * with the options of `config` (tokenizer_config.json, may be NULL). *changed: they were others before. */
p4_rc p4_tok_class_apply(const p4_tok_class *chosen, cJSON *root, const cJSON *config, bool *changed);

#endif
