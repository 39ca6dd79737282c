/* mlx_positions.h - which rotary positions and sliding windows mlx-lm's model classes compute. */
#ifndef P4_MLX_POSITIONS_H
#define P4_MLX_POSITIONS_H

#include "io/export/source.h"

/* P4_E_INPUT, with the family and what of it: mlx-lm's class computes this model's positions or windows in
 * another way from the config.json that mlx.c writes. `writer` begins the message. Local. */
p4_rc p4_mlx_check_positions(const p4_export_source *source, const char *writer);

#endif
