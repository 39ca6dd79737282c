/* hf_files.h - finding the files of a Hugging Face model: directories, hub caches, shards and their index.
 * Inside io/hf only. */
#ifndef P4_HF_FILES_H
#define P4_HF_FILES_H

#include "io/hf/hf_model.h"

enum {
    P4_HF_CONFIG_LIMIT = 1 << 20,
    P4_HF_INDEX_LIMIT = 16 << 20
}; /* bytes; the JSON tree takes up to 50 times that */

/* Opens the weight files of hf->path into hf->shards: model.safetensors, or else those that the index names.
 * The shards of an index must hold exactly the tensors that it lists, each where it says. Local. */
p4_rc p4_hf_open_shards(p4_hf_model *hf);

#endif
