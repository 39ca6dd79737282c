/* outline.h - a GPU that is not at hand, for plans: a column of the table that knows sizes and computes
 * nothing.
 *
 * Set are host_memory, logits_chunk, act_bytes, room_bytes, attention_work_count and muon_work_count: what
 * layouts ask for. Muon's workspace is that of the CUDA column for most shapes. Attention's is an upper bound
 * over its implementations, of which the real device chooses. */
#ifndef P4_OUTLINE_H
#define P4_OUTLINE_H

#include "kernels/ops.h"

extern const p4_ops p4_outline_ops;

/* A device with so much memory, and bf16 (half) or fp32 activations. The caller frees with free(); NULL: out
 * of memory. Local. */
p4_device *p4_outline_open(int64_t memory_bytes, bool half);

#endif
