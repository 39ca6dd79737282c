/* hf_model.h - Hugging Face model directories: reading config.json and weights, and writing a directory. */
#ifndef P4_HF_MODEL_H
#define P4_HF_MODEL_H

#include "io/hf/safetensors.h"
#include "src/model.h"

typedef struct p4_hf_model {
    char *path;        /* the directory that holds config.json (hub caches are followed) */
    char *config_json; /* its text; tie_word_embeddings is false when the file holds a head of its own */
    int64_t shard_count;
    p4_safetensors *shards;
    p4_model model;        /* weights point into the mappings */
    double stored_bytes;   /* bytes of the tensors used */
    char stored_dtype[16]; /* of most elements: "BF16" */
} p4_hf_model;

/* The directory that holds config.json: `path`, or the snapshot that refs/main names if `path` is the outer
 * folder of a hub cache. The caller frees. Local. */
p4_rc p4_hf_find_directory(char **directory, const char *path);

/* Reads config.json of the directory hf->path into hf->config_json and *arch. Local. */
p4_rc p4_hf_read_config(p4_hf_model *hf, p4_arch *arch);
/* Opens a directory: config.json with model.safetensors or an index and its shards, or the outer folder of a
 * hub cache, which is followed through refs/main. Checks that every parameter is there once with its shape.
 * Mask and rotary buffers are ignored; other unexpected tensors are an error that names them. Maps the files
 * and reads no tensor data. The caller closes. Local. */
p4_rc p4_hf_model_open(p4_hf_model *hf, const char *path);
/* The same for a plan: a directory that has no weight files yet, or (weightless) one whose files do not
 * count, is opened from config.json alone. Then the weights are taken as bf16, shard_count is 0, and their
 * data point to what must not be read. Local. */
p4_rc p4_hf_model_outline(p4_hf_model *hf, const char *path, bool weightless);
void p4_hf_model_close(p4_hf_model *hf);

/* config.json text -> architecture; `source` names it in messages. For init "random" too. Local. */
p4_rc p4_hf_config_parse(p4_arch *arch, const char *json, size_t json_bytes, const char *source);

/* For messages: the weight file that holds this weight, or the model's directory when none does. */
const char *p4_hf_model_file_of(const p4_hf_model *hf, const p4_weight *weight);

/* Tells the operating system that the file pages of this weight are no longer needed, so that models larger
 * than memory can be streamed. A weight outside the mapped files is left alone. */
void p4_hf_model_drop_pages(const p4_hf_model *hf, int64_t param);
/* Requests the file pages of this weight all at once, so that the disk reads them in parallel. Advice, as
 * above. Local. */
void p4_hf_model_fetch_pages(const p4_hf_model *hf, const p4_weight *weight);

/* The source of the weights that p4_hf_model_write writes. */
typedef struct p4_hf_source {
    /* Fills `rows` rows from first_row of entry `param` as fp16 bits in logical [out, in] order; called by
     * `threads` threads at once. NaN and infinity are refused by the writer. */
    p4_rc (*rows)(void *user, uint16_t *halves_out, int64_t param, int64_t first_row, int64_t rows);
    /* May be NULL. Called once when everything is written; an error keeps the directory from appearing. */
    p4_rc (*ready)(void *user);
    void *user;
    int threads;
} p4_hf_source;

/* The text of a config.json (one that p4_hf_config_parse accepts) for fp16 weights: "dtype" and "torch_dtype"
 * are "float16"; without either key, "torch_dtype", which every release of the reference library reads, is
 * added. All else stays, numbers as they are spelled. The caller frees; NULL, with the message recorded, when
 * memory runs out. Local. */
char *p4_hf_config_as_fp16(const char *origin_json);

/* The config.json (one that p4_hf_config_parse accepts) of the language model in a model that also takes
 * images; a copy of any other. As above. Local. */
char *p4_hf_config_language_model(const char *json);

/* The text of a config.json with tie_word_embeddings false; all else stays. As above. Local. */
char *p4_hf_config_untied(const char *origin_json);

/* Can a directory be replaced by a model's? Not one that holds anything but files of a model, nor `origin` (a
 * path; NULL: none), which the model is read from; an absent one can. Local. */
p4_rc p4_hf_check_replaced(const char *directory, const char *origin);
/* Can the files be read that are copied from the origin's directory? *bytes: of all of them. Local. */
p4_rc p4_hf_check_copied(const p4_hf_model *origin, int64_t *bytes);

/* Copies tokenizer, generation and licence files of the origin's directory, if it has one. Local. */
p4_rc p4_hf_copy_files(const char *directory, const p4_hf_model *origin);
/* A model's directory, complete or not at all: `fill` writes what is in it under a temporary name,
 * <directory>.tmp. An older directory is replaced as p4_hf_check_replaced allows. Local. */
p4_rc p4_hf_directory_write(const char *directory, const p4_hf_model *origin,
                            p4_rc (*fill)(void *user, const char *directory), void *user);
/* Writes a directory: config.json as p4_hf_config_as_fp16 makes it; tokenizer, generation and licence files
 * copied; weights as model.safetensors or, above shard_bytes (0: never), in shards with an index; Conv1D
 * matrices transposed back. Memory: 2 MB a thread and, for Conv1D, two matrices more. The directory appears
 * complete or not at all (it is filled as <directory>.tmp and renamed). An older directory is replaced if it
 * holds nothing but files of a model directory, and never if it is the origin. Local. */
p4_rc p4_hf_model_write(const char *directory, const p4_hf_model *origin, uint64_t shard_bytes,
                        const p4_hf_source *source);

#endif
