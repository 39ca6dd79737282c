/* job.h - what every stage of a run gets, and the stages in the order execute.c runs them. */
#ifndef P4_JOB_H
#define P4_JOB_H

#include "dist/shard.h"
#include "io/hf/hf_model.h"
#include "io/out/report.h"
#include "io/text/dataset.h"
#include "io/tokenizer/tokenizer.h"
#include "jobs/train/compute.h"
#include "src/form.h"
#include "src/packed.h"
#include "src/phase4.h"

/* Activation statistics of one projection (calibration): moments of its output, mean square of each input
 * channel. */
typedef struct p4_activation_stats {
    p4_moments output;
    double *input_mean_square; /* host [cols]; the parts of a slot share it */
    bool owns_input;           /* this entry frees it */
} p4_activation_stats;

typedef struct p4_job {
    p4_config config; /* effective */
    p4_compute compute;
    p4_hf_model hf;
    float *random_weights;   /* init "random": what hf's weights point to */
    p4_tokenizer *tokenizer; /* rank 0; NULL when all data are token files */
    p4_shard shard;
    p4_windows calibration, train, eval; /* the same on every rank */
    p4_device_form original;             /* this rank's layers as they came */
    p4_packed compressed;
    p4_activation_stats *stats; /* [params_count] after calibration, the same on every rank; or NULL */
    p4_results results;         /* the same on every rank where stages decide by it */
    p4_metrics_log metrics_log; /* rank 0 */
    p4_training_point *curve;   /* [curve_count] the logged steps */
    int64_t curve_count, curve_capacity;
    p4_log_callback log_callback;
    void *log_user;
} p4_job;

/* Each stage is Collective. */
p4_rc p4_stage_load(p4_job *job);           /* model, ownership plan, tokenizer, windows of tokens */
p4_rc p4_stage_evaluate_pre(p4_job *job);   /* the original's perplexity */
p4_rc p4_stage_calibrate(p4_job *job);      /* activation statistics */
p4_rc p4_stage_quantize(p4_job *job);       /* owners quantize, everyone gets the codes */
p4_rc p4_stage_evaluate_post(p4_job *job);  /* perplexity, accuracy, KL after quantizing */
p4_rc p4_stage_finetune(p4_job *job);       /* when the drop asks for it */
p4_rc p4_stage_evaluate_final(p4_job *job); /* what will be written */
p4_rc p4_stage_gradient_flow(p4_job *job);  /* forward and backward of the dequantised model */
p4_rc p4_stage_export(p4_job *job);         /* every output file */
void p4_job_close(p4_job *job);

/* Shared by stages. */
/* The model directory (or fresh weights), which tensors become ternary, and who owns them. Local. */
p4_rc p4_job_open_model(p4_job *job);
/* Who owns which tensor. Local. */
p4_rc p4_job_plan_ownership(p4_job *job);
/* Backend, threads and collectives as the configuration asks: a GPU for each rank, or the CPU for all.
 * Collective. */
p4_rc p4_job_open_compute(p4_job *job, p4_group *group);
/* This rank's layers of the original on the device, once. Local. */
p4_rc p4_job_open_original(p4_job *job);
/* Rank 0's windows to everyone; what the others hold is overwritten, not freed. Collective. */
p4_rc p4_share_windows(p4_group *group, p4_windows *windows);
/* Path of a file in the output directory (heap, the caller frees; NULL when memory is out). */
char *p4_job_output(const p4_job *job, const char *name);
/* The largest rank's peak resident memory so far, bytes. Collective. */
double p4_job_peak_memory(p4_job *job);
/* What calibration saw of projection i, as copies the caller frees. Local. */
p4_rc p4_job_summarize(const p4_job *job, int64_t i, p4_activation_summary *summary);
/* Perplexity, accuracy and, with a reference form, KL on the evaluation windows. Collective. */
p4_rc p4_job_evaluate(p4_job *job, const p4_form *form, const p4_form *reference, const char *label,
                      p4_evaluation *quality);
/* The same of job->compressed, with KL where the original is open. Collective. */
p4_rc p4_job_evaluate_compressed(p4_job *job, const char *label, p4_evaluation *quality);
/* Trains on job->train whatever the drop, judges by job->eval and by results.post, and fills
 * results.fine_tuning. Collective. */
p4_rc p4_job_fine_tune(p4_job *job);
/* results.metrics but for the peak memory, once there is a compressed model. Local. */
void p4_job_measure_sizes(p4_job *job);
/* Whether the run quantizes, and with which rule. */
bool p4_job_quantizes(const p4_job *job);
p4_quant_method p4_job_method(const p4_job *job);

#endif
