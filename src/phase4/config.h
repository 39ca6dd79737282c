/* config.h - the configuration of a run (cfg.json): its structure, defaults, checks and JSON. Part of
 * phase4.h. */
#ifndef PHASE4_CONFIG_H
#define PHASE4_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "rc.h"
#include "types.h"

#ifdef __cplusplus
extern "C" {
#endif

/* p4_config.distill: the weight follows from the tokens of the training. */
#define P4_DISTILL_AUTO (-1.0)

/* Plain data: may be copied, compared field by field, and sent as bytes between ranks of one job. Field names
 * are the keys of cfg.json; `phase4_mpi --help keys` and docs/configuration.md say what each does. */
struct p4_config {
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
    p4_scale_granularity scale_granularity;
    double sparsity_threshold;
    int32_t activation_bits; /* 0: activations stay, 8: int8 per token */
    bool preserve_embedding_precision, preserve_output_precision;
    p4_list preserve_layers; /* glob patterns on tensor names */
    /* data */
    p4_dataset calibration_dataset;
    char dataset_root[P4_PATH_BYTES];
    p4_list calibration_files, eval_files; /* paths or globs */
    p4_sets eval_sets;                     /* the same, by name */
    p4_list train_files;
    p4_numbers calibration_weights, train_weights; /* of the entries of the lists of files */
    char text_field[P4_NAME_BYTES];                /* of JSONL; "": the usual names */
    p4_chat_kind chat_template;
    int64_t calibration_samples, eval_samples; /* windows; eval_samples 0: no evaluation */
    bool eval_bos;                             /* the first token of each evaluation window becomes the BOS */
    int32_t eval_stride; /* tokens from one evaluation window to the next; 0: side by side */
    int32_t calibration_batch_size, calibration_sequence_length;
    int32_t num_workers;
    char token_cache[P4_PATH_BYTES]; /* directory; "": none */
    uint64_t seed;
    /* fine-tuning */
    bool enable_fine_tuning;
    int32_t fine_tune_epochs;
    int64_t fine_tune_max_steps;            /* 0: as many as the epochs hold */
    double fine_tune_lr, lr_final_fraction; /* fine_tune_lr 0: by the model's width */
    int32_t warmup_steps;
    p4_optimizer optimizer;
    p4_optimizer_state optimizer_state;
    double weight_decay, gradient_clip;
    int32_t micro_batch_size;    /* sequences; 0: automatic: a CPU at most 8, a GPU up to 32,768 tokens */
    int64_t global_batch_tokens; /* 0: calibration_batch_size * calibration_sequence_length */
    bool enable_grokfast;
    double grokfast_ema_alpha, grokfast_lambda;
    bool learn_scales; /* train the scales of ternary weights too */
    double distill;    /* weight of the KL to the original; 0: none; or P4_DISTILL_AUTO */
    double distill_temperature;
    p4_teacher_kind distill_teacher;
    int32_t distill_top_k; /* classes per prediction that a cached teacher keeps */
    double distill_blocks; /* weight of the cosine distance of block outputs to the original's; 0: none */
    int32_t zero_stage; /* 0: everything replicated; 1: owners hold masters and optimizer state; 2: gradients
                           too */
    bool exact_sums;    /* the same bits on any number of ranks */
    p4_recompute recompute;
    int32_t log_every;
    int32_t eval_every; /* steps; 0: at the end of each epoch only */
    /* reconstruction */
    bool reconstruct;
    int64_t reconstruct_tokens; /* 0: the windows of calibration */
    int64_t reconstruct_steps;  /* of each block; 0: from the tokens */
    double reconstruct_lr;
    int32_t reconstruct_window; /* blocks trained together */
    /* checkpoints */
    double checkpoint_minutes;  /* 0: none by time */
    int64_t checkpoint_every;   /* steps; 0: none by steps */
    char resume[P4_PATH_BYTES]; /* "auto", "never", or the path of a checkpoint */
    double max_minutes;         /* 0: no limit */
    /* targets */
    double target_compression_ratio, max_accuracy_drop, fine_tune_threshold;
    /* output */
    bool save_quantized, save_dequantized_fp16;
    p4_packing packing;
    p4_list exports;      /* formats of other programs */
    int64_t sample_texts; /* texts that both models continue */
    bool wandb_enabled;
    char wandb_project[P4_NAME_BYTES];
    bool tensorboard_enabled;
    /* which keys the user set himself (p4_config_from_json, p4_config_set): bit i is row i of the
     * configuration table. p4_config_adapt_to_model_size leaves those alone. */
    uint64_t user_set[2];
};

/* The seed recipe: exactly the defaults of the specification. Local. */
P4_PUBLIC void p4_config_default(p4_config *config);
/* Defaults of a recipe. Local. */
P4_PUBLIC void p4_config_recipe(p4_config *config, p4_recipe recipe);
/* Checks every range and the rules between keys. P4_E_INPUT: all problems, one a line, in p4_last_error().
 * Local. */
P4_PUBLIC p4_rc p4_config_validate(const p4_config *config);
/* The effective configuration as JSON text. The caller frees *json with free(). Local. */
P4_PUBLIC p4_rc p4_config_to_json(const p4_config *config, char **json);
/* Reads JSON text: the recipe it names (or `recipe`) first, then its keys, then validation. `source` names
 * the text in messages ("cfg.json"). All errors are reported at once. Local. */
P4_PUBLIC p4_rc p4_config_from_json(p4_config *config, const char *json, size_t json_bytes,
                                    const char *source, p4_recipe recipe);
/* Sets one key from text as on the command line: value is JSON, or a bare word for strings. Local. */
P4_PUBLIC p4_rc p4_config_set(p4_config *config, const char *key, const char *value);
/* Target ratio and, in recipe seed, threshold of the model's size class, where the user set none. Local. */
P4_PUBLIC void p4_config_adapt_to_model_size(p4_config *config, int64_t params);
P4_PUBLIC p4_size_category p4_config_size_category(int64_t params);
P4_PUBLIC const char *p4_size_category_name(p4_size_category category);

#ifdef __cplusplus
}
#endif
#endif
