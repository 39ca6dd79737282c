/* plan.h - what a run will take, before a weight is read: plain numbers that jobs/plan.h fills in. */
#ifndef P4_PLAN_NUMBERS_H
#define P4_PLAN_NUMBERS_H

#include "src/leaf/base.h"

/* What memory is for. */
typedef enum p4_purpose {
    P4_MEMORY_ORIGINAL,    /* the original's weights */
    P4_MEMORY_CODES,       /* compressed models: packed on the host, codes on the device */
    P4_MEMORY_MASTERS,     /* full-precision weights */
    P4_MEMORY_GRADIENTS,   /* of what this rank holds */
    P4_MEMORY_OPTIMIZER,   /* moments, Grokfast's average */
    P4_MEMORY_STAGING,     /* gradients on their way to owners */
    P4_MEMORY_ACTIVATIONS, /* of forward and backward passes */
    P4_MEMORY_WORKSPACE,   /* of Muon, GPTQ, statistics, writers */
    P4_MEMORY_STATES,      /* hidden states of reconstruction */
    P4_MEMORY_TEACHER,
    P4_MEMORY_WINDOWS, /* tokens, and the order in which training draws them */
    P4_MEMORY_PURPOSES
} p4_purpose;

/* In the order of a run. */
typedef enum p4_plan_stage_id {
    P4_PLAN_LOAD,
    P4_PLAN_EVALUATE_PRE,
    P4_PLAN_CALIBRATE,
    P4_PLAN_QUANTIZE,
    P4_PLAN_RECONSTRUCT,
    P4_PLAN_EVALUATE_POST,
    P4_PLAN_FINE_TUNE,
    P4_PLAN_EVALUATE_FINAL,
    P4_PLAN_GRADIENT_FLOW,
    P4_PLAN_EXPORT,
    P4_PLAN_STAGES
} p4_plan_stage_id;

extern const char *const p4_plan_stage_names[P4_PLAN_STAGES]; /* the keys of results.json's timing */
/* What people read: in the log, the plan and the final table. */
extern const char *const p4_plan_stage_titles[P4_PLAN_STAGES];
/* The title of a stage by its key; the key itself if there is none. */
const char *p4_plan_stage_title(const char *key);
extern const char *const p4_purpose_names[P4_MEMORY_PURPOSES];

/* Bytes of a rank while a stage has most. On a CPU all are the host's, where mapped files are not counted. */
typedef struct p4_memory_use {
    double host[P4_MEMORY_PURPOSES], device[P4_MEMORY_PURPOSES];
} p4_memory_use;
double p4_memory_sum(const double bytes[P4_MEMORY_PURPOSES]);

typedef struct p4_rank_plan {
    int rank;                             /* the first of those alike */
    int alike;                            /* ranks with the same numbers */
    bool runs[P4_PLAN_STAGES];            /* does the stage do anything? */
    p4_memory_use stages[P4_PLAN_STAGES]; /* zeros for those that do nothing */
    int64_t hessian_passes;               /* over the calibration, of all blocks; 0: none */
    int64_t micro_batch;                  /* sequences at once in fine-tuning */
    int64_t reconstruct_batch;            /* windows at once in reconstruction */
    int64_t reconstruct_pass_batch; /* and in the passes beside it, which divides them among the ranks */
    double teacher_file_bytes;      /* on disk; 0: the teacher is not cached */
    /* Of the host, beside fine-tuning, for a copy that is written while training goes on; not in `stages`:
     * where it is not free, training waits instead. */
    double checkpoint_copy_bytes;
} p4_rank_plan;
/* The stage with most memory of the host or of the device, and its bytes. */
p4_plan_stage_id p4_rank_plan_peak(const p4_rank_plan *plan, bool device, double *bytes);

/* Of which devices rates are: those of one kind say nothing about the other. */
typedef enum p4_rates_device { P4_RATES_OF_CPU, P4_RATES_OF_GPU } p4_rates_device;

/* How fast a machine is; `phase4_mpi --measure-rates` measures them. Bytes and operations a second, of one
 * rank. */
typedef struct p4_rates {
    char name[96]; /* of the table, or the file that they come from */
    p4_rates_device device;
    double forward_flops; /* products of a forward pass */
    double train_flops;   /* of a training step */
    double memory_bytes;  /* of the device, read and written */
    double kernel_s;      /* a small kernel; 0: the rates of products count all the work of a pass */
    double disk_read, disk_write;
    double node_link;  /* between ranks of a node */
    double net_link;   /* between nodes */
    double text_bytes; /* tokenized */
    /* How they were measured: the ranks, those on a node at most, and the threads of each; 0: not said. */
    int ranks, ranks_per_node, threads;
} p4_rates;

/* All ranks together. */
typedef struct p4_stage_work {
    double flops, read_bytes, written_bytes, sent_bytes, seconds;
} p4_stage_work;

typedef struct p4_disk_plan {
    double outputs;    /* of the finished run */
    double checkpoint; /* the largest one */
    double kept;       /* checkpoints at once: two, and one being written; 0: none is saved */
    double scratch;    /* while it runs: training tokens, a cached teacher */
} p4_disk_plan;

typedef struct p4_plan {
    int ranks, ranks_per_node;
    bool placement_assumed; /* nobody said how many ranks a node has */
    char model[256], device[160];
    double params;        /* elements */
    double room_bytes;    /* device memory of a rank, or its part of the host's */
    bool room_of_node;    /* it is the part of node_bytes that a rank has where ranks share a node */
    double node_bytes;    /* host memory of a node; 0: unknown, so that it is not judged */
    double process_bytes; /* host memory of a rank before the first stage: the process, libraries, MPI */
    double reserve_bytes; /* of room_bytes, for what the plan does not count */
    bool on_gpu;
    int64_t rank_plans_count;
    p4_rank_plan *rank_plans; /* heap */
    p4_stage_work work[P4_PLAN_STAGES];
    double total_s;
    int64_t train_steps;
    bool steps_assumed; /* the training data are not known: so many steps for an example */
    p4_disk_plan disk;
    p4_rates rates;
    char rates_note[320]; /* how the ranks that were measured are unlike those planned; "": in nothing */
    bool fits;
    int64_t least_ranks; /* smallest number that fits; 0: none up to the most that was tried */
    int64_t most_tried;
    char advice[512]; /* keys that make it fit with these ranks, "" if none does or none is needed */
} p4_plan;
void p4_plan_free(p4_plan *plan);

#endif
