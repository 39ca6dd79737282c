/* byte_tokenizer.h - a tokenizer that gives a byte its value as id, so that what must come out can be written
 * down. */
#ifndef P4_BYTE_TOKENIZER_H
#define P4_BYTE_TOKENIZER_H

#include "check.h"
#include "io/text/dataset.h"

#include <stdio.h>
#include <stdlib.h>

enum { VOCAB = 300, END = 299 };

static p4_tokenizer *tokenizer;

/* Windows of T tokens, made with this tokenizer. */
static inline p4_windowing windowing(int64_t T, int threads)
{
    return (p4_windowing){
        .tokenizer = tokenizer, .T = T, .vocab = VOCAB, .end_id = END, .threads = threads, .seed = 42};
}

/* A tokenizer.json of byte-level BPE without merges: 256 ids, id = byte. */
static inline void make_tokenizer(void)
{
    char *json = malloc(1 << 16);
    int used = sprintf(
        json, "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,\"added_tokens\":[],"
              "\"normalizer\":null,\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,"
              "\"trim_offsets\":true,\"use_regex\":true},\"post_processor\":null,\"decoder\":{\"type\":"
              "\"ByteLevel\",\"add_prefix_space\":true,\"trim_offsets\":true,\"use_regex\":true},"
              "\"model\":{\"type\":\"BPE\",\"dropout\":null,\"unk_token\":null,"
              "\"continuing_subword_prefix\":null,\"end_of_word_suffix\":null,\"fuse_unk\":false,"
              "\"byte_fallback\":false,\"merges\":[],\"vocab\":{");
    for (int byte = 0, moved = 256; byte < 256;
         byte++) { /* GPT-2's letters for bytes: printable ones are themselves */
        bool printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
        used +=
            sprintf(json + used, "%s\"\\u%04x\":%d", byte > 0 ? "," : "", printable ? byte : moved++, byte);
    }
    used += sprintf(json + used, "}}}");
    EXPECT_OK(p4_tokenizer_parse(&tokenizer, json, (size_t)used, "bytes.json"));
    free(json);
}

#endif
