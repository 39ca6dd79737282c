/* limits.h - what the control groups (cgroup v1 and v2) of this process allow it: containers and batch
 * systems limit processors and memory with them. */
#ifndef P4_LIMITS_H
#define P4_LIMITS_H

#include "src/leaf/base.h"

typedef struct p4_limits {
    double cpus;               /* processors' worth of time; 0: no quota */
    int64_t memory_bytes;      /* 0: no limit */
    int64_t memory_used_bytes; /* of it, without file pages that can be dropped */
} p4_limits;

/* The tightest limits of the process's groups and those around them. root: "" for this machine's /proc and
 * /sys. Local.
 */
p4_limits p4_limits_read(const char *root);

/* The cores that this process may use, by its affinity and its groups' quota of processor time,
 * which may leave a part of one. Local. */
double p4_cores_here(void);

/* The machine's memory: all of it, and what can be had without swapping. 0: unknown. Local. */
void p4_memory_read(const char *root, int64_t *total_bytes, int64_t *available_bytes);
/* Anonymous memory of this process, bytes: without pages of files; 0: unknown. Local. */
double p4_memory_anonymous(void);
/* Resident memory of this process, bytes: with the pages of libraries and those that it shares with other
 * processes; 0: unknown. Local. */
double p4_memory_resident(void);

/* What this process can still have: of the machine's memory and of its control groups' limit. INT64_MAX:
 * unknown. Local. */
int64_t p4_memory_free(const char *root);

#endif
