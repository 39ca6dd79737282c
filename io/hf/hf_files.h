/* hf_files.h - where a Hugging Face model's files are: directories, hub caches, shards and their index.
 * Inside io only. */
#ifndef P4_HF_FILES_H
#define P4_HF_FILES_H

#include "io/hf/hf_model.h"

enum {
    P4_HF_CONFIG_LIMIT = 1 << 20,
    P4_HF_INDEX_LIMIT = 16 << 20
}; /* bytes; the JSON tree takes up to 50 times that */

/* The directory that holds config.json: `path`, or the snapshot that refs/main names when it is a hub cache's
 * outer folder. The caller frees. Local. */
p4_rc p4_hf_find_directory(char **directory, const char *path);

/* Opens the weight files of hf->path into hf->shards: all that the index names, else model.safetensors. With
 * an index, the shards hold exactly the tensors it lists, each where it says. Local. */
p4_rc p4_hf_open_shards(p4_hf_model *hf);

/* Names for a message: the first few, then how many more. */
typedef struct p4_name_sample {
    char text[1024];
    int64_t count;
} p4_name_sample;
void p4_name_sample_add(p4_name_sample *sample, const char *name);
const char *p4_name_sample_text(p4_name_sample *sample); /* "a, b and 7 more" */

#endif
