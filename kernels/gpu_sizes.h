/* gpu_sizes.h - numbers that decide memory on a GPU, for the CUDA column and for plans made without one. */
#ifndef P4_GPU_SIZES_H
#define P4_GPU_SIZES_H

#define P4_GPU_LOGITS_CHUNK ((int64_t)1 << 27)    /* elements of logits at a time */
#define P4_GPU_MUON_WORK_BYTES ((int64_t)1 << 30) /* most workspace of Muon, unless one matrix needs more */
enum { P4_GPU_MUON_LANES = 2 };                   /* streams that share the matrices of a shape */

#endif
