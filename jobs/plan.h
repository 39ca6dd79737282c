/* plan.h - what a run will take (docs/scale.md): memory of every rank and stage, disk, traffic and time, from
 * the model's headers and the configuration alone. Bytes come from the functions by which the engines take
 * their memory. */
#ifndef P4_PLAN_H
#define P4_PLAN_H

#include <stdio.h>

#include "jobs/settings.h"
#include "src/phase4/config.h"
#include "src/plan.h"

/* Windows of text: exact for token files, for other text an estimate from its size, to either side. */
typedef struct p4_plan_windows {
    int64_t calibration, eval, train;
    int64_t sets; /* of eval_sets together */
    int64_t longest_set;
    bool train_known;  /* false: `train` is as many as the steps take, or an example */
    int64_t tokenized; /* of `train`: where the files are text, what is drawn for the steps */
    double text_bytes; /* that are tokenized, as far as the sizes tell */
} p4_plan_windows;

/* What a rank is planned from. */
typedef struct p4_plan_input {
    const p4_config *config;
    const p4_original *original; /* open, and divided among the ranks of compute->group */
    p4_compute *compute;         /* ops, device, threads; of the group the numbers of this rank */
    p4_plan_windows windows;
    int64_t room_bytes; /* of the device's memory; on CPUs it does not count */
} p4_plan_input;

/* plan_memory.c. The memory of this rank in every stage. A teacher "auto" counts as resident. Local. */
p4_rc p4_plan_rank_memory(p4_rank_plan *plan, const p4_plan_input *input);

/* plan_text.c. Windows as far as the sizes of the text's files tell: exact for token files, else by a token
 * for three bytes; what the configuration asks for where there is more, or the files are compressed or not
 * there (then train_known is false). Local. */
p4_plan_windows p4_plan_windows_found(const p4_config *config, const p4_original *original);
/* Of these, those that another configuration, which asks for fewer, uses. Local. */
p4_plan_windows p4_plan_windows_within(p4_plan_windows windows, const p4_config *config);
/* Optimizer steps of the training. */
int64_t p4_plan_steps(const p4_config *config, const p4_plan_windows *windows);

/* plan_disk.c. copied_bytes: of files that go along with the model. */
p4_disk_plan p4_plan_disk(const p4_plan_input *input, double copied_bytes, double teacher_file_bytes);

/* plan_time.c. Operations, traffic and seconds of every stage. plan->rates, ranks, disk, train_steps and
 * rank_plans[0] are set. Local. */
void p4_plan_time(p4_plan *plan, const p4_plan_input *input);
/* Operations of a forward pass for a token of a window of T. Local. */
double p4_plan_token_flops(const p4_model *model, int64_t T);

/* plan_rates.c. The built-in table of GPUs or of CPUs. opt_gpu: the GPU's name, by which it is found; of one
 * that is not in the table, and without a name, memory decides. The rates' name says so. cores: processor
 * time for the threads, which is a part of a core where ranks share one. Local. */
void p4_plan_rates_table(p4_rates *rates, bool on_gpu, const char *opt_gpu, double room_bytes, int threads,
                         double cores);
/* The rates of the table that are called H100, H200 or CPU, in upper or lower case; false: name is none of
 * these. Local. */
#define P4_PLAN_RATES_NAMES "H100, H200 or CPU"
bool p4_plan_rates_find(p4_rates *rates, const char *name, int threads, double cores);
/* Memory of a GPU that the table has under such a name; NULL: it has none. Local. */
typedef struct p4_named_gpu {
    const char *name;   /* in the table */
    double room_bytes;  /* by the data sheet */
    const char *taken;  /* which of the GPUs of that name it is */
    const char *others; /* what others of that name have, behind a semicolon; "": the same */
} p4_named_gpu;
const p4_named_gpu *p4_plan_rates_gpu(const char *name);
/* plan->rates_note: rates depend on how many ranks shared a machine and what links there were. sharing: ranks
 * of the job on a machine; threads: of a rank of the plan. Local. */
void p4_plan_rates_compare(p4_plan *plan, int sharing, int threads);
/* plan_trial.c. The table of CPUs, scaled by how fast a training pass over one narrow block of the model's
 * proportions is on this machine, in about 0.1 s of processor time. Local. */
p4_rc p4_plan_rates_here(p4_rates *rates, const p4_arch *arch, int64_t T, int threads, double cores);
/* The name of rates of CPUs: "WHERE, 2 threads a rank", and the cores where they are fewer. */
void p4_plan_rates_name(p4_rates *rates, const char *where, int threads, double cores);
/* Seconds of a training pass, without an update, over two networks: one whose kernels are short and one whose
 * products are long. */
typedef struct p4_network_times {
    double narrow_s, wide_s;
} p4_network_times;
/* On this device, in some seconds. Local. */
p4_rc p4_plan_networks_measure(p4_network_times *times, const p4_compute *compute);
/* By these rates. Local. */
p4_network_times p4_plan_networks(const p4_rates *rates, const p4_compute *compute);
/* The other way around: sets forward_flops, train_flops and kernel_s of rates, whose memory_bytes are known.
 * P4_E_SYSTEM: no rates give these seconds. Local. */
p4_rc p4_plan_rates_of_networks(p4_rates *rates, const p4_network_times *times, const p4_compute *compute);

/* plan_fit.c. rank_plans of all ranks: those with the same numbers once. The caller frees with p4_plan_free.
 * Local. */
p4_rc p4_plan_ranks(p4_plan *plan, const p4_plan_input *input);
/* Ranks on a node that has most. Local. */
static inline int p4_plan_node_ranks(const p4_plan *plan)
{
    return plan->ranks < plan->ranks_per_node ? plan->ranks : plan->ranks_per_node;
}
/* Nodes of so many ranks. Local. */
static inline int64_t p4_plan_nodes(const p4_plan *plan, int64_t ranks)
{
    return p4_ceil_div(ranks, plan->ranks_per_node);
}
/* Host memory that the ranks of a node take, if all take what the largest does. Local. */
double p4_plan_node_needs(const p4_plan *plan);
/* Does every rank's peak, with process_bytes on CPUs and reserve_bytes, fit into plan->room_bytes, and what a
 * node's ranks need on the host into plan->node_bytes? Local. */
bool p4_plan_fits(const p4_plan *plan);
/* A plan with another configuration or number of ranks: what p4_plan_choose and p4_plan_advise try. The
 * caller frees `plan`. */
typedef struct p4_plan_trial {
    p4_plan plan; /* ranks and room as given; its rank_plans are replaced */
    const p4_plan_input *in;
} p4_plan_trial;
p4_rc p4_plan_try(void *trial, const p4_config *config, bool *fits); /* a p4_plan_test. Local. */
/* plan->least_ranks, up to `most`, each number with the values that it chooses for the keys that
 * input->config leaves open. Divides the original anew, and for plan->ranks at the end. Local. */
p4_rc p4_plan_least_ranks(p4_plan *plan, p4_original *original, const p4_plan_input *input, int64_t most);

/* plan_choose.c. Does a run with this configuration fit? */
typedef p4_rc (*p4_plan_test)(void *user, const p4_config *config, bool *fits);
/* Gives recompute and distill_teacher "auto" and micro_batch_size 0 the values of least cost with which it
 * fits; *config stays as it is if no values are. As collective as the test. */
p4_rc p4_plan_choose(p4_config *config, int ranks, p4_plan_test test, void *user, bool *fits);
/* Are there such values? Fewer tests tell. */
p4_rc p4_plan_can_fit(const p4_config *config, int ranks, p4_plan_test test, void *user, bool *fits);
/* advice: keys that make it fit, tried in the order of what they cost; "" if none do. */
enum { P4_PLAN_ADVICE_BYTES = 512 };
p4_rc p4_plan_advise(char advice[P4_PLAN_ADVICE_BYTES], const p4_config *config, int ranks, p4_plan_test test,
                     void *user);

/* plan_job.c */
typedef struct p4_plan_request {
    int ranks, ranks_per_node; /* 0: 1; 8 on GPUs and all of them on CPUs */
    int job_ranks;             /* that share the nodes, where other models run beside this one; 0: `ranks` */
    double memory_bytes;       /* of a rank; 0: of the GPU that rates_path names, else of what is at hand */
    double host_bytes; /* of a node; 0: of this machine, unless memory_bytes describes another's GPU */
    const char
        *rates_path;  /* of phase4_mpi --measure-rates, or a name of the built-in table; NULL: that, or */
    bool measures;    /* the CPUs of this machine, unless memory_bytes or host_bytes describe another */
    bool mpi_started; /* in this process, whose memory then has what that takes */
} p4_plan_request;
/* The whole plan, without MPI. config: as given. The caller frees with p4_plan_free, after an error too.
 * P4_E_INPUT: the model, the file of rates, a number of ranks. Local. */
p4_rc p4_plan_make(p4_plan *plan, const p4_config *config, const p4_plan_request *request);

/* plan_report.c. Local. */
enum { P4_PLAN_DURATION_BYTES = 32 };
/* "40.0 s", "12.0 min", "3.5 h", "2.5 days". */
const char *p4_plan_format_duration(char text[P4_PLAN_DURATION_BYTES], double seconds);
void p4_plan_print(FILE *out, const p4_plan *plan);

#endif
