/* tensorboard.h - a run as TensorBoard's events: output_path/tensorboard/events.out.tfevents.*. A process
 * that continues a run writes them again from the start. All Local, rank 0. */
#ifndef P4_METRICS_TENSORBOARD_H
#define P4_METRICS_TENSORBOARD_H

#include "io/metrics/measurement.h"

typedef struct p4_tensorboard p4_tensorboard;

/* Replaces output_path/tensorboard; the configuration becomes a text. P4_E_INPUT: cannot be written. */
p4_rc p4_tensorboard_open(p4_tensorboard **board, const p4_watched_run *run);
p4_rc p4_tensorboard_add(p4_tensorboard *board, const p4_measurement *measurement);
p4_rc p4_tensorboard_close(p4_tensorboard *board); /* NULL does nothing. */

#endif
