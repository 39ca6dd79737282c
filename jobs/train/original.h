/* original.h - the model as it came, on this rank: its files, which rank owns which tensor, and on the device
 * the layers that this rank runs. */
#ifndef P4_ORIGINAL_H
#define P4_ORIGINAL_H

#include "dist/shard.h"
#include "io/hf/hf_model.h"
#include "jobs/train/compute.h"
#include "src/form.h"

typedef struct p4_original {
    p4_hf_model hf;
    float *random_weights; /* of a model without weights of its own: what hf's weights point to */
    p4_shard shard;
    p4_device_form form; /* of this rank's layers; ops NULL: not loaded */
} p4_original;

/* Opens a model directory, or (`random`) its config.json with fresh weights drawn from `seed`. Reads no
 * weights. The caller closes. Local. */
p4_rc p4_original_open(p4_original *original, const char *path, bool random, uint64_t seed);
void p4_original_close(p4_original *original); /* Also of zeros. */
/* Decides which rank owns which tensor and runs which layer, from the model that original->hf describes.
 * Local. */
p4_rc p4_original_shard(p4_original *original, int ranks);
/* Loads this rank's layers to the device, unless they are there. Local. */
p4_rc p4_original_load(p4_original *original, const p4_compute *compute);
/* Device memory that they take, bytes; -1: out of host memory. Local. */
int64_t p4_original_bytes(const p4_original *original, const p4_compute *compute);
/* Releases the device's memory; the layers can be loaded again. Local. */
void p4_original_unload(p4_original *original);
/* Does this rank's stage of the pipeline read this tensor? Local. */
bool p4_original_is_run_by(const p4_original *original, int rank, int64_t param);
bool p4_original_is_loaded(const p4_original *original);
/* P4_E_INPUT names a tensor, of those that this rank owns, and its file, with a value that is NaN or
 * infinite. nonzero[i] (one for each parameter, zeros before the call) becomes 1 for those of this rank's
 * tensors that hold a value other than 0. Reading the weights also brings them into the page cache. Local. */
p4_rc p4_original_check_values(const p4_original *original, const p4_compute *compute, double *nonzero);

#endif
