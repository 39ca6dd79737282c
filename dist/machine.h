/* machine.h - this process among the processes of the job: MPI, the node it runs on, and its GPU. Opened once
 * a process; the groups that work on models (group.h) are made of its ranks. */
#ifndef P4_MACHINE_H
#define P4_MACHINE_H

#include "src/leaf/base.h"

enum { P4_GPUS_MAX = 32 /* that one rank may see */ };

/* A GPU as this process sees it. */
typedef struct p4_gpu {
    uint8_t id[16];  /* the same in every process that sees this GPU */
    int32_t ordinal; /* in this process */
} p4_gpu;

typedef struct p4_machine {
    int rank, ranks;           /* in MPI_COMM_WORLD */
    int node_rank, node_ranks; /* of this node */
    double cpu_quota; /* processors' worth of time that control groups allow this rank; 0: no limit */
    int cores; /* that this rank may use: its affinity mask and its quota, divided by the ranks that share
                  them */
    double core_share; /* of the processor time of its node: below `cores` where the node has more ranks than
                          cores or quota */
    char host[64];
    char mpi[128];     /* the library: "Open MPI v4.1.4" */
    double timeout_s;  /* the longest of its groups' */
    bool owns_mpi;     /* p4_machine_open called MPI_Init */
    bool knows_gpus;   /* p4_machine_assign_gpus was called */
    int gpu;           /* ordinal of this rank's own GPU; -1: it has none */
    char no_gpu[512];  /* why it has none */
    bool has_used_gpu; /* this process has opened it: it has a context there */
    bool nccl_failed;  /* NCCL gave this rank no communicator: the next one may fail in the same way */
    struct p4_machine_state *state;
} p4_machine;

/* Starts MPI unless the caller has. A process started without mpirun or srun is a job of one rank; one of
 * several that MPI sees alone is refused (launcher.h). The caller closes. Collective over MPI_COMM_WORLD. */
p4_rc p4_machine_open(p4_machine *machine);
/* Ends MPI if p4_machine_open started it. Collective over MPI_COMM_WORLD. */
void p4_machine_close(p4_machine *machine);
/* Before there is a group: P4_E_SYSTEM on all ranks if one of them gives an error, and the message says so
 * where the rank has none of its own. Collective over MPI_COMM_WORLD. */
p4_rc p4_machine_agree(p4_machine *machine, p4_rc rc);

/* Gives each rank of a node a GPU of its own, whatever group it belongs to: the node_rank-th where all ranks
 * see the same GPUs, else a matching of ranks and the GPUs that they see (Slurm's binding,
 * CUDA_VISIBLE_DEVICES). gpus [count]: what this rank sees, at most P4_GPUS_MAX; without any, `why` says why.
 * The outcome is machine->gpu or machine->no_gpu. P4_E_SYSTEM: out of memory, on all ranks of a node alike;
 * other nodes do not know of it. Collective over the node's ranks. */
p4_rc p4_machine_assign_gpus(p4_machine *machine, const p4_gpu *gpus, int count, const char *why);

#endif
