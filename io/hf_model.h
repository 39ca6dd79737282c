/* hf_model.h - Hugging Face model directories: config.json -> p4_arch, shards -> weights, and writing one
 * back. */
#ifndef P4_HF_MODEL_H
#define P4_HF_MODEL_H

#include "model.h"
#include "safetensors.h"

typedef struct p4_hf_model {
    char *path;        /* the directory that holds config.json (hub caches are followed) */
    char *config_json; /* the text as found */
    int64_t shard_count;
    p4_safetensors *shards;
    p4_model model;        /* weights point into the mappings */
    double stored_bytes;   /* bytes of the tensors used */
    char stored_dtype[16]; /* of most elements: "BF16" */
} p4_hf_model;

/* Opens a directory (config.json with model.safetensors or an index and its shards; or a hub cache's outer
 * folder, followed through refs/main). Checks that every parameter is there once with the right shape; drops
 * mask buffers and rotary buffers; names anything unexpected. Maps files, reads no tensor data. The caller
 * closes. Local. */
p4_rc p4_hf_model_open(p4_hf_model *hf, const char *path);
void p4_hf_model_close(p4_hf_model *hf);

/* config.json text -> architecture; `source` names it in messages. For init "random" too. Local. */
p4_rc p4_hf_config_parse(p4_arch *arch, const char *json, size_t json_bytes, const char *source);

/* Tells the kernel that this entry's file pages are no longer needed (streaming through models larger than
 * memory). A weight that does not lie in a mapped file is left alone. */
void p4_hf_model_drop_pages(const p4_hf_model *hf, int64_t param);

/* Writing a directory: config.json as the origin's text with only dtype / torch_dtype changed to "float16",
 * tokenizer, generation and licence files copied, weights as model.safetensors or, above shard_bytes (0:
 * never), sharded with an index. Row producer: fills `rows` rows from first_row of entry `param` as floats in
 * logical [out, in] order; the writer rounds to fp16 (a value beyond its range is an error) and transposes
 * Conv1D back. Memory: a few MB, for Conv1D the whole matrix. The directory appears complete or not at all
 * (it is made as <directory>.tmp and renamed); an older one there is replaced if it holds nothing but files
 * of a model directory, and is never the origin itself. Local. */
typedef p4_rc (*p4_row_source)(void *user, float *rows_out, int64_t param, int64_t first_row, int64_t rows);
p4_rc p4_hf_model_write(const char *directory, const p4_hf_model *origin, uint64_t shard_bytes,
                        p4_row_source source, void *user);

#endif
