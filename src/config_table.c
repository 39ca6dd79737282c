/* The configuration table. Rows stand in the order of p4_config; user_set counts them in this order. */
#include "src/config.h"
#include "src/phase4/config.h"
#include "src/quantizer.h"

#define NAMES(...)                 \
    .names = (const char *const[]) \
    {                              \
        __VA_ARGS__, NULL          \
    }
#define BOTH(value) .seed = (value), .quality = (value)
#define RANGE(low, high) .min = (low), .max = (high)
#define MEMBER(field) (((p4_config *)0)->field)
/* The compiler derives the type from the field, so a row cannot disagree with the struct. Enumerations are
 * what is left. */
#define TYPE_OF(field) \
    _Generic(MEMBER(field), bool                                                                             \
             : P4_CONFIG_BOOL, int32_t                                                                       \
             : P4_CONFIG_INT32, int64_t                                                                      \
             : P4_CONFIG_INT64, uint64_t                                                                     \
             : P4_CONFIG_UINT64, double                                                                      \
             : P4_CONFIG_REAL, char *                                                                        \
             : sizeof MEMBER(field) == P4_PATH_BYTES ? P4_CONFIG_PATH : P4_CONFIG_NAME, p4_list              \
             : P4_CONFIG_LIST, p4_numbers                                                                    \
             : P4_CONFIG_NUMBERS, p4_sets                                                                       \
             : P4_CONFIG_SETS, default                                                                       \
             : P4_CONFIG_ENUM)
#define FIELD(field)                                                              \
    .name = #field, .type = TYPE_OF(field), .offset = offsetof(p4_config, field), \
    .bytes = sizeof MEMBER(field)

const char *const p4_recipe_names[] = {"quality", "seed", "quick", "thorough", NULL};

const p4_config_difference p4_config_differences[] = {
    /* block reconstruction alone */
    {P4_RECIPE_QUICK, "enable_fine_tuning", 0},
    {P4_RECIPE_QUICK, "calibration_samples", 512},
    /* 2,441 steps of 16 windows: 20M tokens in windows of 512 */
    {P4_RECIPE_THOROUGH, "fine_tune_epochs", 1000000},
    {P4_RECIPE_THOROUGH, "fine_tune_max_steps", 2441},
    {P4_RECIPE_THOROUGH, "calibration_batch_size", 16},
    {P4_RECIPE_THOROUGH, "learn_scales", 1},
};
const int p4_config_differences_count = sizeof p4_config_differences / sizeof p4_config_differences[0];

/* clang-format off */
const p4_config_row p4_config_table[] = {
    {FIELD(model_path), .holds_paths = true, .may_change = true, .fixed = true, .group = "Paths",
     .more = "docs/configuration.md: Names in output_path; docs/running.md: Model directories", .text = "",
     .help = "Hugging Face directory of the model to compress (config.json, *.safetensors, tokenizer.json)."},
    {FIELD(output_path), .holds_paths = true, .may_change = true, .no_result = true, .text = "phase4_bitnet_output",
     .help = "Directory for the results, created if missing; may hold {model}, {date}, {jobid}, {taskid}."},
    {FIELD(recipe), .may_change = true, .seed = P4_RECIPE_SEED, .quality = P4_RECIPE_QUALITY,
     .names = p4_recipe_names,
     .help = "Set of defaults; quick: no fine-tuning; thorough: 20M tokens of fine-tuning, learned scales."},
    {FIELD(init), .fixed = true, BOTH(P4_INIT_CHECKPOINT), NAMES("checkpoint", "random"),
     .help = "Initial weights: those of the model's files, or random ones for the same architecture."},
    {FIELD(overwrite), .may_change = true, .no_result = true, BOTH(0),
     .help = "Replace the results of another run in output_path; false: refuse such a directory."},

    {FIELD(device), .may_change = true, .fixed = true, .group = "Hardware",
     .more = "docs/running.md: Ranks, threads and memory; docs/gpus.md: Devices and ranks", BOTH(P4_DEVICE_AUTO),
     NAMES("auto", "cuda", "cpu"),
     .help = "Where to compute; auto uses GPUs if every rank can have its own, otherwise CPUs."},
    {FIELD(threads_per_rank), .may_change = true, .fixed = true, BOTH(0), RANGE(0, 4096),
     .help = "CPU threads per rank; 0: the cores that the rank may use."},
    {FIELD(mixed_precision), .fixed = true, BOTH(1),
     .help = "Use bf16 matrix products on devices that have them; the CPU computes in fp32."},
    {FIELD(collective_timeout_s), .may_change = true, BOTH(600), RANGE(0, 86400), .min_open = true,
     .help = "Seconds that a rank waits for the others before it aborts the job."},

    {FIELD(quantization_bits), .group = "Quantization", .more = "docs/methods.md: 1 Ternary rows", BOTH(1.58), RANGE(1.58, 1.58),
     .refusal = "Phase 4 uses BitNet 1.58-bit quantization only",
     .help = "Bits per ternary weight."},
    {FIELD(quantizer), .fixed = true, BOTH(P4_QUANTIZER_ABSMEAN),
     .names = p4_quantizer_names,
     .help = "Rule for rows: absmean with a threshold; exact least squares, plain or by input channel; GPTQ; none."},
    {FIELD(scale_granularity), .fixed = true, BOTH(P4_SCALE_ROW), .names = p4_scale_granularity_names,
     .help = "Weights that share a scale: a row, a tensor, or 64 or 128 neighbors in a row; absmean and exact only."},
    {FIELD(sparsity_threshold), .fixed = true, .seed = 0.1, .quality = 0.5, RANGE(0, 10),
     .help = "absmean: weights below this multiple of the row's scale become 0; recipe seed: by size class."},
    {FIELD(activation_bits), .fixed = true, BOTH(0), RANGE(0, 8), .step = 8,
     .help = "8: round activations to int8 per token; 0: do not round them."},
    {FIELD(preserve_embedding_precision), .fixed = true, BOTH(1),
     .help = "Keep the embeddings (and a tied head) in FP16; false: make them ternary."},
    {FIELD(preserve_output_precision), .fixed = true, BOTH(1),
     .help = "Keep the output head in FP16; false: make it ternary."},
    {FIELD(preserve_layers), .fixed = true,
     .help = "Glob patterns for names of tensors that stay in FP16, such as \"model.layers.0.*\"."},

    {FIELD(calibration_dataset), .group = "Data",
     .more = "docs/configuration.md: Text; docs/methods.md: 6 Evaluation", BOTH(P4_DATASET_OPENWEBTEXT),
     NAMES("openwebtext", "c4", "wikitext", "custom"),
     .help = "Text for calibration and training: a data set under dataset_root, or custom: calibration_files."},
    {FIELD(dataset_root), .holds_paths = true, .may_change = true, .text = "",
     .help = "Directory that holds openwebtext, c4 or wikitext in its usual on-disk form."},
    {FIELD(calibration_files), .holds_paths = true, .may_change = true,
     .help = "For custom: paths or globs of text, JSONL (plain, .gz, .zst) or token files."},
    {FIELD(eval_files), .holds_paths = true, .may_change = true,
     .help = "Files to measure perplexity on; none: the data set's validation files, or held-out windows."},
    {FIELD(eval_sets), .holds_paths = true,
     .help = "Further texts to evaluate on, each with a name and a verdict: {\"code\": [\"a.txt\"]}; all must pass."},
    {FIELD(train_files), .holds_paths = true, .may_change = true,
     .help = "Files to fine-tune on; none: the calibration data."},
    {FIELD(calibration_weights), RANGE(0, 1e6), .min_open = true,
     .help = "Shares of the entries of calibration_files in what is drawn; none: by their sizes."},
    {FIELD(train_weights), RANGE(0, 1e6), .min_open = true,
     .help = "Shares of the entries of train_files in every epoch, smaller ones repeated; none: by their sizes."},
    {FIELD(text_field), .text = "",
     .help = "Field of a JSONL line that holds the text; empty: text, content, raw_content, document, or a chat."},
    {FIELD(chat_template), BOTH(P4_CHAT_AUTO), NAMES("auto", "chatml", "llama-2", "llama-3"),
     .help = "How chats (messages, conversations, instruction) become text; auto: the tokenizer's template."},
    {FIELD(calibration_samples), BOTH(1000), RANGE(0, 1e9),
     .help = "Windows of text for the activation statistics; 0: no calibration."},
    {FIELD(eval_samples), BOTH(1000), RANGE(0, 1e9),
     .help = "Windows of text to measure perplexity on; 0: no evaluation."},
    {FIELD(eval_bos), BOTH(0),
     .help = "Evaluation windows begin with the model's bos_token_id, in the place of their first token."},
    {FIELD(eval_stride), BOTH(0), RANGE(0, (1 << 20) - 1),
     .help = "Tokens between the starts of windows; each scores its last eval_stride tokens; 0: no overlap."},
    {FIELD(calibration_batch_size), BOTH(4), RANGE(1, 65536),
     .help = "Windows per batch of calibration and evaluation; on a GPU, evaluation takes more for narrow models."},
    {FIELD(calibration_sequence_length), BOTH(512), RANGE(2, 1 << 20),
     .help = "Tokens per window in calibration, evaluation and training. The default is at most "
             "the model's positions."},
    {FIELD(num_workers), .may_change = true, BOTH(4), RANGE(0, 1024),
     .help = "Threads that tokenize text; 0: only the main thread."},
    {FIELD(token_cache), .holds_paths = true, .may_change = true, .text = "",
     .help = "Directory that keeps tokenized training text for later runs; empty: output_path, during the run."},
    {FIELD(seed), BOTH(42),
     .help = "Seed of all random numbers, also of what is evaluated; the same data for any number of ranks."},

    {FIELD(enable_fine_tuning), .group = "Fine-tuning",
     .more = "docs/methods.md: 3 Fine-tuning; docs/methods.md: 4 Optimizers", BOTH(1),
     .help = "Fine-tune the ternary model if the perplexity rises by more than fine_tune_threshold."},
    {FIELD(fine_tune_epochs), .may_change = true, BOTH(2), RANGE(1, 1e6),
     .help = "Passes over the training windows."},
    {FIELD(fine_tune_max_steps), .may_change = true, BOTH(0), RANGE(0, 1e12),
     .help = "Stop after this many optimizer steps; 0: no limit other than the epochs."},
    {FIELD(fine_tune_lr), .seed = 1e-5, .quality = 0, RANGE(0, 10), .min_open = true, .word = "auto",
     .help = "Peak learning rate; auto: by the model's width and the tokens of the training."},
    {FIELD(lr_final_fraction), .seed = 1.0, .quality = 0, RANGE(0, 1),
     .help = "Fraction of the peak that the learning rate falls to, linearly; 1: constant rate."},
    {FIELD(warmup_steps), BOTH(50), RANGE(0, 1e9),
     .help = "Steps over which the learning rate rises linearly to its peak."},
    {FIELD(optimizer), BOTH(P4_OPTIMIZER_MUGROKFAST), NAMES("mugrokfast", "adamw"),
     .help = "Muon for matrices and AdamW for the rest, or AdamW for all; Grokfast has its own switch."},
    {FIELD(optimizer_state), BOTH(P4_OPTIMIZER_STATE_FP32), NAMES("fp32", "bf16"),
     .help = "Precision of moments, momentum and Grokfast average; bf16 is rounded stochastically."},
    {FIELD(weight_decay), .seed = 0, .quality = 0.1, RANGE(0, 10),
     .help = "Decoupled weight decay."},
    {FIELD(gradient_clip), BOTH(1.0), RANGE(0, 1e6),
     .help = "Maximum global norm of the gradient; 0: no clipping."},
    {FIELD(micro_batch_size), .may_change = true, BOTH(0), RANGE(1, 65536), .word = "auto",
     .help = "Sequences per rank and micro-batch; auto: what fits (CPU: at most 8; GPU: up to 32,768 tokens)."},
    {FIELD(global_batch_tokens), BOTH(0), RANGE(0, 1e12),
     .help = "Tokens per optimizer step over all ranks, whole windows; 0: calibration_batch_size windows."},
    {FIELD(enable_grokfast), .seed = 1, .quality = 0,
     .help = "Amplify slow gradient components (Grokfast, exponential moving average)."},
    {FIELD(grokfast_ema_alpha), BOTH(0.98), RANGE(0, 1), .max_open = true,
     .help = "Decay of the Grokfast average."},
    {FIELD(grokfast_lambda), BOTH(2.0), RANGE(0, 100),
     .help = "Weight of the Grokfast average in the gradient."},
    {FIELD(learn_scales), BOTH(0),
     .help = "Train the scales of ternary weights as parameters; false: the quantizer computes them in every step."},
    {FIELD(distill), .seed = 0, .quality = P4_DISTILL_AUTO, RANGE(0, 1), .word = "auto", .word_value = P4_DISTILL_AUTO,
     .help = "Weight of distillation from the original in the loss; auto: by the tokens; 0: cross-entropy alone."},
    {FIELD(distill_temperature), BOTH(1.0), RANGE(0, 100), .min_open = true,
     .help = "Temperature of both distributions in the distillation loss."},
    {FIELD(distill_teacher), BOTH(P4_TEACHER_AUTO), NAMES("auto", "resident", "sharded", "cached"),
     .help = "Where the original is: on every rank; divided over ranks; in a file; auto: by memory, of the first two."},
    {FIELD(distill_top_k), BOTH(64), RANGE(1, 4096),
     .help = "Tokens per prediction whose probabilities a cached teacher keeps."},
    {FIELD(distill_blocks), BOTH(0), RANGE(0, 100),
     .help = "Weight in the loss of the mean cosine distance of every block's output to the original's; not cached."},
    {FIELD(zero_stage), .may_change = true, BOTH(2), RANGE(0, 2),
     .help = "0: replicate the optimizer; 1: shard masters and optimizer state; 2: shard gradients too."},
    {FIELD(exact_sums), BOTH(0),
     .help = "Sum gradients in one order for any number of ranks, so that all give the same bits; CPUs only."},
    {FIELD(recompute), .may_change = true, BOTH(P4_RECOMPUTE_AUTO), NAMES("none", "light", "blocks", "auto"),
     .true_name = P4_RECOMPUTE_BLOCKS,
     .help = "What backward recomputes: light: norms and MLP activation; blocks: all; auto: as little as fits."},
    {FIELD(log_every), .may_change = true, BOTH(10), RANGE(1, 1e9),
     .help = "Steps between two lines of metrics.jsonl."},
    {FIELD(eval_every), BOTH(0), RANGE(0, 1e9),
     .help = "Steps between two evaluations during fine-tuning, of which the best state is kept; 0: each epoch."},

    {FIELD(reconstruct), .group = "Reconstruction",
     .more = "docs/methods.md: 3.1 Block reconstruction", .seed = 0, .quality = 1,
     .help = "Train each ternary block to the original block's output before the evaluation and fine-tuning."},
    {FIELD(reconstruct_tokens), BOTH(0), RANGE(0, 1e12),
     .help = "Tokens of calibration text that blocks are trained on; 0: calibration_samples windows."},
    {FIELD(reconstruct_steps), BOTH(0), RANGE(0, 1e9),
     .help = "Optimizer steps per reconstruct_window blocks, of 16 windows; 0: 20 passes, at most 2^24 tokens."},
    {FIELD(reconstruct_lr), BOTH(1e-3), RANGE(0, 10), .min_open = true,
     .help = "Peak learning rate of the reconstruction (AdamW); it falls linearly to 0."},
    {FIELD(reconstruct_window), .seed = 1, .quality = 2, RANGE(1, 4),
     .help = "Blocks that are trained together."},

    {FIELD(checkpoint_minutes), .may_change = true, .group = "Checkpoints",
     .more = "docs/running.md: Stop and continue", BOTH(15), RANGE(0, 1e6),
     .help = "Minutes between checkpoints; 0: none by time."},
    {FIELD(checkpoint_every), .may_change = true, BOTH(0), RANGE(0, 1e12),
     .help = "Training steps between checkpoints, besides those by time; 0: none by steps."},
    {FIELD(resume), .may_change = true, .no_result = true, .text = "auto", .holds_paths = true,
     .no_paths = (const char *const[]){"auto", "never", NULL},
     .help = "Continue from the last checkpoint in output_path (auto), never, or from the checkpoint at a path."},
    {FIELD(max_minutes), .may_change = true, .no_result = true, BOTH(0), RANGE(0, 1e7),
     .help = "Save a checkpoint and stop with status 75 after this many minutes; 0: no limit."},

    {FIELD(target_compression_ratio), .may_change = true, .group = "Targets",
     .more = "docs/methods.md: 6 Evaluation", BOTH(8.0), RANGE(1, 100),
     .help = "Ratio of fp32 size to packed size to reach; unset: by model size class."},
    {FIELD(max_accuracy_drop), .may_change = true, BOTH(0.10), RANGE(0, 0.5),
     .refusal = "max_accuracy_drop must be between 0.0 and 0.5",
     .help = "Relative rise in perplexity that the quality verdict allows."},
    {FIELD(fine_tune_threshold), BOTH(0.05), RANGE(0, 1000),
     .help = "Relative rise in perplexity after quantization above which fine-tuning runs."},

    {FIELD(save_quantized), .may_change = true, .group = "Output",
     .more = "docs/formats.md: Output formats; docs/exports.md: Exports", BOTH(1),
     .help = "Write model.h5, the packed model."},
    {FIELD(save_dequantized_fp16), .may_change = true, BOTH(1),
     .help = "Write dequantized_fp16/, a Hugging Face directory that other tools can load."},
    {FIELD(packing), .may_change = true, .fixed = true, BOTH(P4_PACKING_BASE3X5), NAMES("base3x5", "2bit"),
     .help = "Codes in model.h5: 5 per byte (smallest) or 4 per byte (simplest)."},
    {FIELD(exports), .may_change = true,
     .help = "Formats of other programs to write: gguf (gguf:TYPE), compressed_tensors, mlx, bitnet."},
    {FIELD(sample_texts), .may_change = true, BOTH(3), RANGE(0, 100),
     .help = "Beginnings of the evaluation text that both models continue, for samples.json and the report; 0: none."},
    {FIELD(wandb_enabled), .may_change = true, BOTH(1),
     .help = "Record a Weights & Biases run in output_path/wandb, without a network: `wandb sync` uploads it."},
    {FIELD(wandb_project), .may_change = true, .text = "agent-forge-v2",
     .help = "Project of the Weights & Biases run."},
    {FIELD(tensorboard_enabled), .may_change = true, BOTH(0),
     .help = "Write events for TensorBoard to output_path/tensorboard."},
};
/* clang-format on */

const int p4_config_rows = sizeof p4_config_table / sizeof p4_config_table[0];
_Static_assert(sizeof p4_config_table / sizeof p4_config_table[0] <= P4_CONFIG_ROWS_MAX,
               "p4_config.user_set has a bit for each row");
_Static_assert(sizeof(p4_recipe) == sizeof(int), "enumerations are read and written as int");
