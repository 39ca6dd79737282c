/* measure_rates.h - phase4_mpi --measure-rates: how fast the ranks at hand train a model, for plans. */
#ifndef P4_MEASURE_RATES_H
#define P4_MEASURE_RATES_H

#include "dist/group.h"
#include "io/text/dataset.h"
#include "src/phase4/config.h"

/* `count` windows of T tokens below V, the same each time; the caller frees. Local. */
p4_rc p4_random_windows(p4_windows *windows, int64_t count, int64_t T, int64_t V);
/* Times passes and training steps of the model on random tokens, copies, a sum over the ranks, and the disk
 * of the file's folder, and writes the file that --rates reads (docs/formats.md). Every rank gives the same
 * configuration. Collective. */
p4_rc p4_rates_measure(p4_group *group, const p4_config *config, const char *path);

#endif
