/* compute.h - what a rank of a group computes with: a backend's operations on a device, collectives on the
 * device's arrays, threads of the host. Every engine is given one. */
#ifndef P4_COMPUTE_H
#define P4_COMPUTE_H

#include "dist/coll.h"
#include "jobs/train/stop.h"
#include "kernels/ops.h"
#include "src/phase4/types.h"

typedef struct p4_compute {
    p4_group *group;
    p4_coll coll; /* of the group, on the device */
    const p4_ops *ops;
    p4_device *device;
    int threads;   /* of the host, for this rank */
    p4_stop *stop; /* the owner's; NULL: nobody stops the engines early */
} p4_compute;

typedef struct p4_compute_settings {
    p4_device_kind device; /* AUTO: a GPU for every rank where there is one, else the CPU for all */
    int threads;           /* 0: the cores that this rank may use */
    bool half;             /* bf16 activations on GPUs */
    bool exact_sums;       /* will be asked for: GPUs are an error (exact_sums.h) */
} p4_compute_settings;

/* Lists this rank's GPUs and lets the machine give each rank of the node one of its own; the second call does
 * nothing. A caller that divides the machine into groups calls it first, on all ranks, and agrees with the
 * other nodes on the result. Collective over the node's ranks. */
p4_rc p4_compute_find_gpus(p4_machine *machine);

/* Can this rank still use its GPU and NCCL, if it has used them? Asked after a failure, with all devices
 * closed. Local. */
bool p4_compute_gpu_usable(const p4_machine *machine);

/* P4_E_INPUT: CUDA is asked for and a rank has no GPU; P4_E_SYSTEM: a GPU was found and cannot be used. The
 * caller closes. Collective. */
p4_rc p4_compute_open(p4_compute *compute, p4_group *group, const p4_compute_settings *settings);
/* P4_E_INPUT: exact_sums is asked for, and the ranks compute on GPUs. Local. */
p4_rc p4_compute_check_exact(const p4_compute *compute);
/* Also of one that was never opened (zeros). Collective. */
void p4_compute_close(p4_compute *compute);

#endif
