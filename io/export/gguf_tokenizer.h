/* gguf_tokenizer.h - a tokenizer as the keys by which llama.cpp rebuilds it. */
#ifndef P4_GGUF_TOKENIZER_H
#define P4_GGUF_TOKENIZER_H

#include "io/export/gguf_file.h"
#include "io/export/source.h"

/* How llama.cpp encodes: "gpt2", byte-level BPE with the words of `pre`; "llama", SentencePiece's BPE, which
 * merges any two pieces that make a piece, by scores; "none", no tokenizer. */
typedef struct p4_gguf_encoding {
    const char *model, *pre;
    bool add_space_prefix;
} p4_gguf_encoding;

/* P4_E_INPUT, with the reason: llama.cpp would encode text in another way than this tokenizer does, beyond
 * what docs/formats.md says of normalization and white space. `writer` begins messages. Local. */
p4_rc p4_gguf_encoding_find(p4_gguf_encoding *encoding, const p4_export_source *source, const char *writer);
/* P4_E_INPUT: SentencePiece's scores cannot say what the merges of this tokenizer do. Local. */
p4_rc p4_gguf_check_scores(const p4_tokenizer *tokenizer, const char *writer);
/* All keys of the tokenizer, with the chat template where the model has one. Local. */
p4_rc p4_gguf_put_tokenizer(p4_gguf *g, const p4_gguf_encoding *encoding, const p4_export_source *source);

#endif
