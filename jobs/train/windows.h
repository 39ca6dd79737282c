/* windows.h - windows of tokens that rank 0 has read, on every rank. */
#ifndef P4_TRAIN_WINDOWS_H
#define P4_TRAIN_WINDOWS_H

#include "dist/group.h"
#include "io/text/dataset.h"

/* Rank 0's windows to every rank; what the others hold is overwritten, not freed. Collective. */
p4_rc p4_windows_publish(p4_group *group, p4_windows *windows);

#endif
