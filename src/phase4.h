/* phase4.h - the public interface of libphase4: ternary (BitNet 1.58-bit) compression of transformer language models.
 *
 * Every function returns p4_rc unless it cannot fail; p4_last_error() then holds one line that says what was wrong.
 * `Local.` functions involve this process only. `Collective.` functions are called by all ranks of the job together. */
#ifndef PHASE4_H
#define PHASE4_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__) && defined(P4_BUILDING)
#define P4_PUBLIC __attribute__((visibility("default")))
#else
#define P4_PUBLIC
#endif

typedef enum p4_rc {
    P4_OK = 0,
    P4_E_SYSTEM = 1, /* memory, MPI, CUDA, an internal fault */
    P4_E_INPUT = 2,  /* the configuration, a file or a directory: also the exit status of phase4_mpi */
    P4_E_STATE = 3,  /* called in the wrong order ("Model not compressed yet") */
} p4_rc;

/* The first message recorded on this thread since its last call that succeeded; "" when there is none. Local. */
P4_PUBLIC const char *p4_last_error(void);

/* "1.0.0 (...)": version and what was built in. Local. */
P4_PUBLIC const char *p4_version(void);

/* ---- Configuration ------------------------------------------------------------------------------------------------ */

enum { P4_PATH_BYTES = 4096, P4_NAME_BYTES = 128, P4_LIST_BYTES = 16384 };

/* A list of strings: `count` NUL-terminated strings one after another in `bytes`. */
typedef struct p4_list {
    int32_t count;
    char bytes[P4_LIST_BYTES];
} p4_list;

typedef enum p4_device_kind { P4_DEVICE_AUTO, P4_DEVICE_CUDA, P4_DEVICE_CPU } p4_device_kind;
typedef enum p4_recipe { P4_RECIPE_QUALITY, P4_RECIPE_SEED } p4_recipe;
typedef enum p4_optimizer { P4_OPTIMIZER_MUGROKFAST, P4_OPTIMIZER_ADAMW } p4_optimizer;
typedef enum p4_quantizer { P4_QUANTIZER_ABSMEAN, P4_QUANTIZER_EXACT, P4_QUANTIZER_NONE } p4_quantizer;
typedef enum p4_packing { P4_PACKING_BASE3X5, P4_PACKING_2BIT } p4_packing;
typedef enum p4_init { P4_INIT_CHECKPOINT, P4_INIT_RANDOM } p4_init;
typedef enum p4_dataset { P4_DATASET_OPENWEBTEXT, P4_DATASET_C4, P4_DATASET_WIKITEXT, P4_DATASET_CUSTOM } p4_dataset;
typedef enum p4_size_category { P4_SIZE_TINY, P4_SIZE_SMALL, P4_SIZE_MEDIUM, P4_SIZE_LARGE } p4_size_category;

/* Plain data: may be copied, compared field by field, and sent as bytes between ranks of one job. Field names are the
 * keys of cfg.json; `phase4_mpi --help` and the README's table say what each does. */
typedef struct p4_config {
    /* paths */
    char model_path[P4_PATH_BYTES], output_path[P4_PATH_BYTES];
    p4_recipe recipe;
    p4_init init;
    bool overwrite;
    /* hardware */
    p4_device_kind device;
    int32_t threads_per_rank; /* 0: the cores this rank may use */
    bool mixed_precision;
    double collective_timeout_s;
    /* quantization */
    double quantization_bits;
    p4_quantizer quantizer;
    double sparsity_threshold;
    int32_t activation_bits; /* 0: activations stay, 8: int8 per token */
    bool preserve_embedding_precision, preserve_output_precision;
    p4_list preserve_layers; /* glob patterns on tensor names */
    /* data */
    p4_dataset calibration_dataset;
    char dataset_root[P4_PATH_BYTES];
    p4_list calibration_files, eval_files, train_files; /* paths or globs */
    int64_t calibration_samples, eval_samples;          /* windows; eval_samples 0: no evaluation */
    int32_t calibration_batch_size, calibration_sequence_length;
    int32_t num_workers;
    uint64_t seed;
    /* fine-tuning */
    bool enable_fine_tuning;
    int32_t fine_tune_epochs;
    int64_t fine_tune_max_steps; /* 0: as many as the epochs hold */
    double fine_tune_lr, lr_final_fraction;
    int32_t warmup_steps;
    p4_optimizer optimizer;
    double weight_decay, gradient_clip;
    int32_t micro_batch_size;    /* sequences; 0: what the rank's share of a step holds, at most 8 */
    int64_t global_batch_tokens; /* 0: calibration_batch_size * calibration_sequence_length */
    bool enable_grokfast;
    double grokfast_ema_alpha, grokfast_lambda;
    int32_t zero_stage; /* 0: everything replicated, 2: owners hold masters, gradients and optimizer state */
    bool recompute;
    int32_t log_every;
    /* targets */
    double target_compression_ratio, max_accuracy_drop, fine_tune_threshold;
    /* output */
    bool save_quantized, save_dequantized_fp16;
    p4_packing packing;
    bool wandb_enabled;
    char wandb_project[P4_NAME_BYTES];
    /* which keys the user set himself (p4_config_from_json, p4_config_set): bit i is row i of the configuration table.
     * p4_config_adapt_to_model_size leaves those alone. */
    uint64_t user_set[2];
} p4_config;

/* The seed recipe: exactly the defaults of the specification. Local. */
P4_PUBLIC void p4_config_default(p4_config *config);
/* Defaults of a recipe. Local. */
P4_PUBLIC void p4_config_recipe(p4_config *config, p4_recipe recipe);
/* Checks every range and the rules between keys. P4_E_INPUT: all problems, one a line, in p4_last_error(). Local. */
P4_PUBLIC p4_rc p4_config_validate(const p4_config *config);
/* The effective configuration as JSON text. The caller frees *json with free(). Local. */
P4_PUBLIC p4_rc p4_config_to_json(const p4_config *config, char **json);
/* Reads JSON text: the recipe it names (or `recipe`) first, then its keys, then validation. `source` names the text in
 * messages ("cfg.json"). All errors are reported at once. Local. */
P4_PUBLIC p4_rc p4_config_from_json(p4_config *config, const char *json, size_t json_bytes, const char *source,
                                    p4_recipe recipe);
/* Sets one key from text as on the command line: value is JSON, or a bare word for strings. Local. */
P4_PUBLIC p4_rc p4_config_set(p4_config *config, const char *key, const char *value);
/* Target ratio and threshold of the model's size class, where the user set none. Local. */
P4_PUBLIC void p4_config_adapt_to_model_size(p4_config *config, int64_t params);
P4_PUBLIC p4_size_category p4_config_size_category(int64_t params);
P4_PUBLIC const char *p4_size_category_name(p4_size_category category);

#ifdef __cplusplus
}
#endif
#endif
