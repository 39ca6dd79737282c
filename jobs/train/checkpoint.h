/* checkpoint.h - the state of the engines as named arrays (io/h5/arrays.h): what a checkpoint saves and
 * another number of ranks reads back. Each tensor's arrays lie under its name:
 *
 *   tensors/NAME/master, momentum, variance, average    of training
 *   tensors/NAME/scale, scale_momentum, scale_variance  of training with learned scales
 *   codes/NAME/codes, scale, error   of a ternary tensor; codes/NAME/half of a preserved one
 *   statistics/NAME/output, input    of calibration
 *   arrays/KIND/NAME                 fp32 arrays that a stage hands to the next (p4_checkpoint_put_arrays)
 *
 * The put_ functions are Local: each rank writes its share, and all shares together are the state, each array
 * once. The take_ functions are Local too, and each rank reads what it holds. */
#ifndef P4_CHECKPOINT_H
#define P4_CHECKPOINT_H

#include "io/h5/arrays.h"
#include "jobs/train/statistics.h"
#include "jobs/train/trainer.h"
#include "src/packed.h"

/* Masters and optimizer state. Replicated tensors are written by the ranks in turn. */
p4_rc p4_checkpoint_put_trainer(p4_arrays_writer *writer, const p4_trainer *trainer);
/* Bytes of this rank's share of a checkpoint in training, which the copy takes that is written while training
 * goes on: of the trainer, also of one that is only laid out, and of the compressed model. Local. */
int64_t p4_checkpoint_copy_bytes(const p4_trainer *trainer);
/* Into an open trainer of the same model and optimizer, whatever its ranks, zero_stage and device. updates:
 * of the checkpoint. p4_trainer_requantize must follow. */
p4_rc p4_checkpoint_take_trainer(const p4_arrays *arrays, p4_trainer *trainer, int64_t updates);

/* The compressed model, of which every rank has all: rank r of `ranks` writes every ranks-th tensor. */
p4_rc p4_checkpoint_put_packed(p4_arrays_writer *writer, const p4_packed *packed, int rank, int ranks);
/* Takes memory for `packed`; the caller releases it, after an error too. */
p4_rc p4_checkpoint_take_packed(const p4_arrays *arrays, p4_packed *packed, const p4_model *model);

/* Statistics of a calibration, of which every rank has all; nothing is written if none were collected. */
p4_rc p4_checkpoint_put_statistics(p4_arrays_writer *writer, const p4_statistics *statistics,
                                   const p4_model *model, int rank, int ranks);
/* Leaves *statistics empty if there are none. The caller frees. */
p4_rc p4_checkpoint_take_statistics(const p4_arrays *arrays, p4_statistics *statistics,
                                    const p4_model *model);

/* fp32 host arrays by parameter, [rows * cols] each, NULL: there is none. kind names them ("masters"). Writes
 * those for which writes[i] is set and that are there. */
p4_rc p4_checkpoint_put_arrays(p4_arrays_writer *writer, const char *kind, float *const *arrays,
                               const bool *writes, const p4_model *model);
/* known[i]: some part has the array of parameter i. Allocates and reads those of them for which wants[i] is
 * set; the others stay as they are. The caller frees each. */
p4_rc p4_checkpoint_take_arrays(const p4_arrays *from, const char *kind, float **arrays, bool *known,
                                const bool *wants, const p4_model *model);

#endif
