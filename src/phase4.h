/* phase4.h - libphase4: ternary (BitNet 1.58-bit) compression of transformer language models.
 *
 * A function that can fail returns p4_rc; p4_last_error() then says what was wrong. A handle that a call
 * makes is NULL after an error, and is used by one thread at a time. `Local.` functions involve this process
 * only, `Collective.` functions are called by all ranks of the job together. */
#ifndef PHASE4_H
#define PHASE4_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "phase4/config.h"
#include "phase4/rc.h"
#include "phase4/results.h"
#include "phase4/types.h"

#ifdef __cplusplus
extern "C" {
#endif

/* "1.0.0 (...)": version and what was built in. Local. */
P4_PUBLIC const char *p4_version(void);

/* ---- The ranks ---- */

/* This process among the ranks of the job. Started without mpirun or srun the job is one rank. Everything
 * made with a session is closed before it, and its Collective functions are called on the thread that opened
 * it. */
typedef struct p4_session p4_session;

/* All ranks of the job as one session. Starts MPI unless the caller has. The caller closes *session.
 * Collective. */
P4_PUBLIC p4_rc p4_session_open(p4_session **session);
/* The ranks of `communicator`, which points to an MPI_Comm and is duplicated, as a session of their own: the
 * ranks of a job can be divided to work on several models side by side. Ranks of one node take different
 * GPUs, whatever their session, so all ranks of MPI_COMM_WORLD open (and close) a session at the same time,
 * each with its own communicator, which contains it. NULL, on every rank: all ranks. P4_E_INPUT, on every
 * rank: one of them gave MPI_COMM_NULL. The caller closes *session. Collective over MPI_COMM_WORLD. */
P4_PUBLIC p4_rc p4_session_open_on(p4_session **session, const void *communicator);
/* Ends MPI if p4_session_open started it: once a process. NULL does nothing. Collective. */
P4_PUBLIC void p4_session_close(p4_session *session);
P4_PUBLIC int p4_session_rank(const p4_session *session);                   /* from 0. Local. */
P4_PUBLIC int p4_session_ranks(const p4_session *session);                  /* 1 or more. Local. */
P4_PUBLIC void p4_session_set_log(p4_session *session, p4_log_level level); /* Local. */

/* The configuration of a job: the defaults of the recipe that the file names (else `recipe`), the keys of the
 * JSON file at `path`, then `count` overrides "key=value". Rank 0 reads and checks, also that the files it
 * names are there; all ranks get the same. P4_E_INPUT: every problem of the file on a line of its own.
 * Collective. */
P4_PUBLIC p4_rc p4_session_read_config(p4_session *session, p4_config *config, const char *path,
                                       p4_recipe recipe, char *const *overrides, int count);

/* What p4_execute looks at before its work, alone: are the files readable, can the outputs be written, do
 * memory and disk hold what the run needs, do all settings take effect? From headers and the configuration;
 * changes nothing on the disk. P4_E_INPUT: every error, one a line, in p4_last_error(); warnings go to the
 * log. Rank 0's configuration counts. Collective. */
P4_PUBLIC p4_rc p4_check(p4_session *session, const p4_config *config);

/* The whole run: load, evaluate, calibrate, quantize, fine-tune where the drop asks for it, test the gradient
 * flow, write config->output_path (docs/formats.md). Rank 0's configuration counts. *results is the same on
 * every rank and is filled as far as the run came, with `error` when it failed; the caller frees it with
 * p4_results_free in either case. A model worse than max_accuracy_drop allows is no error: results->quality
 * says so. callback may be NULL. Collective. */
P4_PUBLIC p4_rc p4_execute(p4_session *session, const p4_config *config, p4_log_callback callback, void *user,
                           p4_results *results);

/* ---- A checkpoint on the disk ---- */

/* A Hugging Face model directory (config.json and safetensors), mapped: weights are read when they are used.
 */
typedef struct p4_checkpoint p4_checkpoint;
typedef struct p4_parameter_counts {
    int64_t total, trainable, frozen; /* elements; a tied head counts once, masks and other buffers do not */
} p4_parameter_counts;

/* Checks that each tensor that config.json describes is there once with its shape. The caller closes.
 * P4_E_INPUT names the file and the tensor. Local. */
P4_PUBLIC p4_rc p4_checkpoint_open(p4_checkpoint **checkpoint, const char *path);
P4_PUBLIC void p4_checkpoint_close(p4_checkpoint *checkpoint); /* NULL does nothing. Local. */
/* Every parameter of a checkpoint can be trained: frozen is 0. Local. */
P4_PUBLIC void p4_count_parameters(const p4_checkpoint *checkpoint, p4_parameter_counts *counts);
/* The parameters as fp32, in MB of 2^20 bytes: 25 million parameters are 95.4 MB. Local. */
P4_PUBLIC double p4_model_size_mb(const p4_checkpoint *checkpoint);
/* Fraction of weights that are exactly zero, 0 to 1. Reads every weight. Local. */
P4_PUBLIC double p4_sparsity_ratio(const p4_checkpoint *checkpoint);

/* ---- One tensor ---- */

/* quantized[rows * cols] in {-1, 0, 1} and scale[rows] of weights[rows * cols] = [out, in], a vector with
 * rows = 1: scale = mean |w| of the row, at least 1e-8; sign(w) where |w| >= threshold * scale and w is not
 * 0, else 0 (the specification's rule, quantizer "absmean"; the scale is fp32 here and rounded to fp16 in a
 * compressed model). The caller owns all arrays. P4_E_INPUT: no rows, a threshold below 0, a weight that is
 * not finite. Local. */
P4_PUBLIC p4_rc p4_quantize_tensor(int8_t *quantized, float *scale, const float *weights, int64_t rows,
                                   int64_t cols, double threshold);
/* weights[rows * cols] = quantized * scale of the row. P4_E_INPUT: no rows or columns. Local. */
P4_PUBLIC p4_rc p4_dequantize_tensor(float *weights, const int8_t *quantized, const float *scale,
                                     int64_t rows, int64_t cols);

/* ---- The tensors of a model in memory ---- */

typedef enum p4_state_dtype { P4_STATE_INT8, P4_STATE_FP16, P4_STATE_FP32 } p4_state_dtype;

typedef struct p4_state_tensor { /* in the shape that the checkpoint's files have */
    char *name;                  /* Hugging Face's */
    p4_state_dtype dtype;
    int32_t rank;     /* 1 or 2 */
    int64_t shape[2]; /* row-major; shape[1] is 1 when rank is 1 */
    void *data;       /* int8_t, uint16_t (IEEE half bits) or float */
} p4_state_tensor;

typedef struct p4_state {
    int64_t count;
    p4_state_tensor *tensors; /* in the order of the model; all heap, freed by p4_state_free */
} p4_state;

P4_PUBLIC void p4_state_free(p4_state *state); /* leaves it empty: may be called twice. Local. */
/* The tensor of that name, owned by the state; NULL: none. Local. */
P4_PUBLIC const p4_state_tensor *p4_state_find(const p4_state *state, const char *name);
/* fp16 = quantized * scale where a tensor is int8: its scale is the fp32 tensor of the same name in `scales`,
 * [out, 1], [1, out], [1] or one for each weight; other tensors become fp16. The caller frees with
 * p4_state_free. P4_E_INPUT names a tensor without a scale or with a wrong shape, or a value that fp16 cannot
 * hold. Local. */
P4_PUBLIC p4_rc p4_dequantize_model(const p4_state *quantized, const p4_state *scales, p4_state *dequantized);

/* ---- A compressed model ---- */

/* A checkpoint on its way to ternary weights. Each rank holds all codes; the full-precision weights stay in
 * the files of the checkpoint. Messages before compressing: "Model not compressed yet" (P4_E_STATE). */
typedef struct p4_compressed p4_compressed;

typedef struct p4_quantizer_stats {
    int64_t layers_quantized, layers_preserved; /* tensors */
    int64_t total_params, quantized_params;     /* elements */
    double sparsity_ratio;                      /* zeros among the ternary weights */
} p4_quantizer_stats;

typedef struct p4_compression_summary {
    bool is_compressed;
    double original_size_mb, quantized_size_mb; /* parameters as fp32; the packed model */
    double compression_ratio;
    int64_t layers_quantized, layers_preserved;
    double sparsity_ratio;
} p4_compression_summary;

/* Takes the device and threads that the configuration asks for and decides which tensors become ternary. Rank
 * 0's configuration counts, as it is: call p4_config_adapt_to_model_size before. *compressed may outlive the
 * checkpoint; the caller closes it. P4_E_INPUT: a configuration that is not valid. Collective. */
P4_PUBLIC p4_rc p4_compressed_create(p4_compressed **compressed, p4_session *session,
                                     const p4_checkpoint *checkpoint, const p4_config *config);
/* NULL does nothing. Local; ranks on GPUs wait for each other's close, 30 s at most. */
P4_PUBLIC void p4_compressed_close(p4_compressed *compressed);
/* Quantizes the checkpoint's weights, each matrix by its owner, and gives every rank all codes; called again,
 * anew. P4_E_INPUT names a tensor that is not finite or that fp16 cannot hold. Collective. */
P4_PUBLIC p4_rc p4_compressed_compress(p4_compressed *compressed);
/* create and compress in one. The caller closes *compressed. Collective. */
P4_PUBLIC p4_rc p4_quantize_model(p4_compressed **compressed, p4_session *session,
                                  const p4_checkpoint *checkpoint, const p4_config *config);
P4_PUBLIC bool p4_compressed_is_compressed(const p4_compressed *compressed); /* Local. */

/* logits[B * T * V] of tokens[B * T]: what fine-tuning's forward pass computes, with the ternary weights;
 * before compressing with the original ones. V is p4_compressed_vocabulary. The caller owns both arrays.
 * P4_E_INPUT: a token outside the vocabulary, more tokens a sequence than the model has positions. Local. */
P4_PUBLIC p4_rc p4_compressed_forward(p4_compressed *compressed, const int32_t *tokens, int64_t B, int64_t T,
                                      float *logits);
P4_PUBLIC int64_t p4_compressed_vocabulary(const p4_compressed *compressed); /* Local. */

/* The whole model: ternary tensors as int8 in {-1, 0, 1}, the others as fp16. GPT-2's Conv1D matrices are
 * [in, out] as in their files. The caller frees with p4_state_free. P4_E_STATE before compressing. Local. */
P4_PUBLIC p4_rc p4_compressed_quantized_state(const p4_compressed *compressed, p4_state *state);
/* Scales of the ternary tensors, fp32 (values that fp16 holds): [out, 1], or [1, out] for Conv1D, so that
 * quantized * scale broadcasts; where parts of rows have scales of their own, one for each weight. The caller
 * frees with p4_state_free. P4_E_STATE before compressing. Local. */
P4_PUBLIC p4_rc p4_compressed_scale_factors(const p4_compressed *compressed, p4_state *scales);
/* The whole model in fp16, what is handed on to the next phase. The caller frees with p4_state_free.
 * P4_E_STATE before compressing. Local. */
P4_PUBLIC p4_rc p4_compressed_dequantized_state(const p4_compressed *compressed, p4_state *state);
/* P4_E_STATE before compressing. Local. */
P4_PUBLIC p4_rc p4_quant_stats(const p4_compressed *compressed, p4_quantizer_stats *stats);
/* Before compressing: is_compressed false, what is not known yet NaN or 0. Local. */
P4_PUBLIC void p4_compression_stats(const p4_compressed *compressed, p4_compression_summary *stats);

/* Writes what config.save_quantized and save_dequantized_fp16 ask for into a directory, with the metadata
 * (docs/formats.md); refused when it holds another run's results, unless config.overwrite is set. *paths:
 * what was written, or NULL. P4_E_STATE before compressing and for a model that was loaded. Collective. */
P4_PUBLIC p4_rc p4_compressed_save(p4_compressed *compressed, const char *directory, p4_output_paths *paths);
/* A model.h5 back into memory, compressed, with the file's configuration on device "auto". It has no
 * full-precision weights to train or compress again. P4_E_INPUT names what is wrong with the file.
 * Collective. */
P4_PUBLIC p4_rc p4_compressed_load(p4_compressed **compressed, p4_session *session, const char *path);

/* ---- Calibration ---- */

/* Which text, with which tokenizer. */
typedef struct p4_calib p4_calib;
/* dataset: "openwebtext", "c4", "wikitext" or "custom" (config: dataset_root, calibration_files), or NULL: as
 * the configuration says. The tokenizer is the checkpoint's; without one only token files can be read. The
 * caller frees. P4_E_INPUT: an unknown data set, a tokenizer that is not supported. Local. */
P4_PUBLIC p4_rc p4_calib_create(p4_calib **calib, const p4_checkpoint *checkpoint, const p4_config *config,
                                const char *dataset);
P4_PUBLIC void p4_calib_free(p4_calib *calib); /* Local. */
/* Text in memory instead of files, a document (UTF-8) each; copied. P4_E_INPUT: none, no tokenizer. Local. */
P4_PUBLIC p4_rc p4_calib_set_custom_samples(p4_calib *calib, const char *const *samples, int64_t count);

/* Batches of token windows. Every document is tokenised alone, the end-of-text id is appended, all are joined
 * and cut into windows of calibration_sequence_length tokens; the last partial window is dropped. */
typedef struct p4_loader p4_loader;
/* Rank 0 reads calibration_samples windows (0: all), every rank gets the same. If there are more, they are
 * drawn from all of the data by the seed and keep its order. The caller frees; the calib may go before.
 * P4_E_INPUT: data that is not there, less than one window. Collective. */
P4_PUBLIC p4_rc p4_loader_create(p4_loader **loader, p4_session *session, const p4_calib *calib);
P4_PUBLIC void p4_loader_free(p4_loader *loader); /* Local. */
/* The next batch: *ids[*B * *T], the loader's own; *B is calibration_batch_size, less in the last batch, 0
 * after it. Local. */
P4_PUBLIC void p4_loader_next(p4_loader *loader, const int32_t **ids, int64_t *B, int64_t *T);
P4_PUBLIC void p4_loader_rewind(p4_loader *loader);           /* to the first batch. Local. */
P4_PUBLIC int64_t p4_loader_windows(const p4_loader *loader); /* in all batches together. Local. */

/* Runs the original model over all windows of the loader, on the device that its configuration names. *stats:
 * `count` entries, the same on every rank; the caller frees with p4_activation_summary_free. Collective. */
P4_PUBLIC p4_rc p4_calib_collect_statistics(p4_session *session, const p4_checkpoint *checkpoint,
                                            const p4_loader *loader, p4_activation_summary **stats,
                                            int64_t *count);
P4_PUBLIC void p4_activation_summary_free(p4_activation_summary *stats, int64_t count); /* Local. */
/* Runs the original over all windows of a loader and keeps the activation statistics: for model.h5 and,
 * before compressing, for a quantizer that needs them ("exact-diagonal", "gptq", "gptq-cd"). P4_E_STATE: a
 * model that was loaded. Collective. */
P4_PUBLIC p4_rc p4_compressed_calibrate(p4_compressed *compressed, const p4_loader *loader);

/* ---- Quality and fine-tuning ---- */

/* Loss, perplexity and accuracy over all windows of the loader; of a compressed model also the KL to the
 * original, NaN where that is not at hand. Before compressing: the original. Collective. */
P4_PUBLIC p4_rc p4_compressed_evaluate(p4_compressed *compressed, const p4_loader *loader,
                                       p4_evaluation *evaluation);

/* Trains full-precision masters through the ternary weights (straight-through estimator; Muon and AdamW with
 * Grokfast) on the loader's windows, shuffled by the seed, and keeps the best state; `eval` judges the epochs
 * (NULL: the last epoch is kept). config: fine-tuning keys to use instead of those given at creation, or
 * NULL; rank 0's counts. callback may be NULL. *result: the caller frees with p4_fine_tuning_free. P4_E_STATE
 * before compressing and for a model that was loaded. P4_E_INPUT: fewer windows than one step takes, a
 * gradient that does not become finite. Collective. */
P4_PUBLIC p4_rc p4_fine_tune(p4_compressed *compressed, const p4_loader *train, const p4_loader *eval,
                             const p4_config *config, p4_log_callback callback, void *user,
                             p4_fine_tuning *result);
P4_PUBLIC void p4_fine_tuning_free(p4_fine_tuning *result); /* may be called twice. Local. */

/* Forward and backward pass of the dequantised model (before compressing: the original) on one window of
 * made-up tokens: *passed when every tensor gets a gradient that is finite and not zero, else `error` (at
 * most error_bytes with the NUL) says which did not. A test that fails is P4_OK. Collective. */
P4_PUBLIC p4_rc p4_test_gradient_flow(p4_compressed *compressed, bool *passed, char *error,
                                      size_t error_bytes);

/* ---- Decisions and figures ---- */

/* Fine-tuning is enabled and (post - pre) / pre exceeds fine_tune_threshold, or is not a number. Local. */
P4_PUBLIC bool p4_should_fine_tune(const p4_config *config, double pre_perplexity, double post_perplexity);
/* *degradation_ratio = (post - pre) / pre; true when it is at most max_accuracy_drop. Local. */
P4_PUBLIC bool p4_validate_compression_quality(double pre_perplexity, double post_perplexity,
                                               double max_accuracy_drop, double *degradation_ratio);

/* original / compressed; NaN unless both are above 0. Local. */
P4_PUBLIC double p4_compression_ratio(double original_mb, double compressed_mb);
/* How many times faster a token is decoded: 1 / (0.12 + 0.88 * compressed / original), at most 8.3. Decoding
 * waits for memory: 88 % of its time shrinks with the bytes read, as 1.58-bit models of 3B and 70B show (Ma
 * et al., "The Era of 1-bit LLMs", 2024: 3.55 and 7.16 times smaller than fp16, 2.71 and 4.1 times faster).
 * original_mb counts the precision that is compared with. NaN unless both are above 0. Local. */
P4_PUBLIC double p4_estimate_inference_speedup(double original_mb, double compressed_mb);

#ifdef __cplusplus
}
#endif
#endif
