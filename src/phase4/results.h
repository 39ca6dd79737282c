/* results.h - what a run measured and wrote: results.json and compression_metadata.json. Part of phase4.h. */
#ifndef PHASE4_RESULTS_H
#define PHASE4_RESULTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "rc.h"
#include "types.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Plain data but for fine_tuning.history, reconstruction.losses, experts.tokens, warnings and two lists of
 * the provenance. A number that was not measured is NaN in memory and null in JSON; MB = 2^20 bytes. */

/* 95 % confidence intervals, bootstrapped over documents, or over windows where there are fewer than 10
 * documents. */
enum { P4_FEWEST_DOCUMENTS = 10 };

typedef struct p4_evaluation {
    double loss, perplexity; /* mean cross-entropy, nats; exp of it */
    double perplexity_low, perplexity_high;
    /* Of the text: bits of cross-entropy, and exp of the cross-entropy a word. NaN where only token ids are
     * known. */
    double bits_per_byte, word_perplexity;
    double accuracy;  /* top-1, 0 to 1 */
    double kl;        /* mean KL to the original model, nats */
    double agreement; /* 0 to 1: predictions whose most likely token is the original's */
    double degradation_low, degradation_high; /* of (perplexity - original's) / original's */
    int64_t tokens;                           /* predictions; 0: not evaluated */
    int64_t documents;                        /* that the predicted tokens are of */
} p4_evaluation;

typedef struct p4_history_entry { /* one evaluation during fine-tuning */
    int64_t epoch, step;
    double train_loss, eval_loss, eval_perplexity;
} p4_history_entry;

typedef struct p4_fine_tuning {
    bool ran;                /* false: null in JSON */
    double epochs_completed; /* 1.5: one and a half */
    int64_t steps, tokens;
    double final_loss, final_perplexity, best_perplexity;
    double block_distance; /* of the last step: p4_training_point; NaN: blocks were not compared */
    int64_t history_count, history_capacity;
    p4_history_entry *history; /* heap: p4_results_free or p4_fine_tuning_free */
} p4_fine_tuning;

typedef struct p4_block_loss { /* blocks that were reconstructed together */
    int64_t first_block, blocks;
    double before, after; /* squared error of their output, over the squares of the original's */
} p4_block_loss;

typedef struct p4_reconstruction {
    bool ran;              /* false: null in JSON */
    int64_t tokens, steps; /* of the windows; of each set of blocks */
    double seconds;
    int64_t losses_count;
    p4_block_loss *losses; /* heap: p4_results_free */
} p4_reconstruction;

typedef struct p4_gradient_flow {
    bool ran, passed;
    char error[512]; /* "": none */
    int64_t tensors_checked;
    int64_t tensors_unused; /* of experts without tokens that the loss depends on, and so without gradient */
} p4_gradient_flow;

/* How the original's router divided the tokens of calibration among experts. */
typedef struct p4_expert_loads {
    int64_t layers, experts, used; /* of the model, in each layer, for each token; 0: no mixture of experts */
    /* [layers, experts] routed to each, zeros in layers without experts; NULL: not measured. Heap:
     * p4_results_free */
    double *tokens;
    int64_t mixtures; /* layers with experts, where tokens were measured */
    int64_t unused;   /* experts of these layers without a token */
} p4_expert_loads;

typedef struct p4_quality {
    /* The ratio is within what is allowed. Of a run: on each set too, and the gradient-flow test did not
     * fail.
     */
    bool passed;
    /* (final - pre) / pre perplexity; NaN: not measured, or the original's is infinite. Then passed is null
     * in JSON, unless the gradient-flow test failed. */
    double degradation_ratio;
    double degradation_low, degradation_high; /* its 95 % interval, as in p4_evaluation */
    double max_accuracy_drop;                 /* what the verdict allows */
} p4_quality;

/* A text of `eval_sets`, which is judged beside the evaluation text. */
typedef struct p4_set_results {
    char name[P4_SET_NAME_BYTES];
    p4_evaluation pre, post, final;
    p4_quality quality; /* of this text alone */
} p4_set_results;

typedef struct p4_size_metrics {
    int64_t total_params, layers_quantized, layers_preserved;
    double original_size_mb;   /* parameters as fp32 */
    double stored_size_mb;     /* as the original's files have them */
    double stored_files_mb;    /* bytes of the original's weight files; NaN: its weights are random */
    double compressed_size_mb; /* bytes of the packed model: codes, scales, preserved tensors */
    double packed_file_mb; /* bytes of model.h5, which also holds the tokenizer, statistics, measurements */
    double compression_ratio, target_compression_ratio; /* of original_size_mb */
    double stored_files_ratio; /* stored_files_mb / packed_file_mb: what compression saves on the disk */
    double sparsity_ratio;     /* zeros among the ternary weights */
    double ternary_mb, scales_mb, embedding_mb, head_mb, other_mb; /* what fills compressed_size_mb */
    double peak_memory_mb;                                         /* of the largest rank */
} p4_size_metrics;

typedef struct p4_output_paths { /* "": not written */
    char quantized[P4_PATH_BYTES], dequantized_fp16[P4_PATH_BYTES], primary_output[P4_PATH_BYTES];
    char gguf[P4_PATH_BYTES], compressed_tensors[P4_PATH_BYTES], mlx[P4_PATH_BYTES], bitnet[P4_PATH_BYTES];
    char tokenizer[P4_PATH_BYTES], config[P4_PATH_BYTES], metrics[P4_PATH_BYTES], metadata[P4_PATH_BYTES];
    char samples[P4_PATH_BYTES], details[P4_PATH_BYTES], report[P4_PATH_BYTES];
    char wandb[P4_PATH_BYTES], tensorboard[P4_PATH_BYTES];
} p4_output_paths;

enum { P4_MAX_STAGES = 16 };
typedef struct p4_stage_time {
    char stage[32];
    double seconds;
} p4_stage_time;

typedef struct p4_input_file {
    char *path, *fingerprint; /* heap. path: or the name of a text; fingerprint: checksum and length */
} p4_input_file;

typedef struct p4_place { /* consecutive ranks of one host with devices of one name */
    char host[64], device[P4_NAME_BYTES];
    int64_t first_rank, ranks;
} p4_place;

/* Where, when and by which software a run was made; "": not known, or not used. */
typedef struct p4_provenance {
    char started[32], ended[32]; /* UTC, "2026-01-31T12:00:00Z"; started: by the first process of the run */
    char device[16];             /* the backend that computed: "cpu" or "cuda" */
    int64_t ranks, threads;      /* 0 ranks: nothing is known, null in JSON; threads of each rank's host */
    char program[P4_NAME_BYTES], mpi[P4_NAME_BYTES], hdf5[32], blas[P4_NAME_BYTES], cuda[64], nccl[32];
    int64_t continued; /* how often a checkpoint was continued: the last one, and its step */
    char checkpoint[P4_PATH_BYTES];
    int64_t checkpoint_step;
    int64_t place_count, input_count;
    p4_place *places;      /* heap: p4_results_free */
    p4_input_file *inputs; /* model files, tokenizer, texts; on rank 0 alone. Heap: p4_results_free */
} p4_provenance;

enum { P4_WARNINGS_MAX = 32 };

typedef struct p4_results {
    bool success;
    char error[2048]; /* "": none */
    char model_type[32], method[64], scale_granularity[16], packing[16];
    p4_provenance provenance;
    p4_output_paths output_paths;
    p4_evaluation pre, post, final; /* final: after fine-tuning, or post again */
    int64_t set_count;
    p4_set_results sets[P4_SETS_MAX];
    p4_reconstruction reconstruction;
    p4_fine_tuning fine_tuning;
    p4_expert_loads experts;
    p4_gradient_flow gradient_flow;
    p4_quality quality;
    /* The original's perplexity is not below that of guessing among its vocabulary, which makes the verdict
     * say little. false for init "random". */
    bool original_guesses;
    p4_size_metrics metrics;
    int64_t warning_count;           /* different texts; on rank 0 alone, as the texts are */
    char *warnings[P4_WARNINGS_MAX]; /* heap: the first of them, without "warning: ". p4_results_free */
    int64_t stage_count;
    p4_stage_time stages[P4_MAX_STAGES];
    double total_s;
} p4_results;

/* What calibration saw of one projection of the original model. */
typedef struct p4_activation_summary {
    char *name;                 /* of the module: the tensor's without ".weight" */
    double mean, std, min, max; /* of its output */
    int64_t inputs;
    double *input_mean_square; /* [inputs] of each input channel */
} p4_activation_summary;

typedef struct p4_training_point { /* one logged step; NaN: not measured */
    int64_t step, epoch, tokens;   /* tokens: trained on since the start */
    double loss;                   /* cross-entropy */
    double kl;                     /* of the teacher to the model at distill_temperature; NaN: no teacher */
    double block_distance; /* mean cosine distance of block outputs to the teacher's; NaN: not compared */
    double lr, grad_norm, tokens_per_s, elapsed_s;
} p4_training_point;

/* Sees each logged training step, on rank 0. The point is the caller's only during the call. The other ranks
 * wait for it: after collective_timeout_s the job is aborted. */
typedef void (*p4_log_callback)(const p4_training_point *point, void *user);

/* Nothing measured yet. The caller frees with p4_results_free, which may be called twice. Local. */
P4_PUBLIC void p4_results_init(p4_results *results);
P4_PUBLIC void p4_results_free(p4_results *results);
/* results.json, complete or not there at all. P4_E_INPUT: `path` cannot be written. Local. */
P4_PUBLIC p4_rc p4_results_write(const p4_results *results, const char *path);
/* The same as text. The caller frees *json with free(). Local. */
P4_PUBLIC p4_rc p4_results_to_json(const p4_results *results, char **json);
/* A fine-tuning as JSON, as under "fine_tuning" in results.json. The caller frees *json with free(). Local.
 */
P4_PUBLIC p4_rc p4_training_summary(const p4_fine_tuning *result, char **json);

/* ---- compression_metadata.json: what a packed model was made from, and how ---- */

typedef struct p4_metadata {
    char producer[128], created[32], model_type[32]; /* created: UTC, "2025-01-31T12:00:00Z" */
    char method[64], scale_granularity[16], packing[16];
    double bits;
    p4_size_metrics metrics;
    double pre_perplexity, post_perplexity, final_perplexity;
    char *config_json;     /* heap (malloc): the effective configuration, a JSON object; NULL: none */
    char *provenance_json; /* the same of p4_provenance, as in results.json */
    char *experts_json;    /* the same of p4_expert_loads */
    char *quality_json;    /* the same of all evaluations and the verdict */
    int64_t input_count;
    p4_input_file *inputs;
} p4_metadata;

/* Empty, created now. The caller frees with p4_metadata_free, which may be called twice. Local. */
P4_PUBLIC void p4_metadata_init(p4_metadata *metadata);
P4_PUBLIC void p4_metadata_free(p4_metadata *metadata);
/* <directory>/compression_metadata.json, complete or not at all. P4_E_INPUT: cannot be written. Local. */
P4_PUBLIC p4_rc p4_metadata_save(const char *directory, const p4_metadata *metadata);
/* And back, into a metadata that need not be initialised; the caller frees. P4_E_INPUT: the file. Local. */
P4_PUBLIC p4_rc p4_metadata_load(p4_metadata *metadata, const char *directory);

#ifdef __cplusplus
}
#endif
#endif
