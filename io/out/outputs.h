/* outputs.h - the writer table: everything that a run may leave in its output directory.
 *
 * Adding an output is a row here, a field of the same name in p4_output_paths and, for an EXPORTED row, the
 * function `write_ID` in jobs/export.c, without which that file does not compile. The check of an
 * older directory, the removal of stale files, the paths in results.json and the final report follow from the
 * row. */
#ifndef P4_OUTPUTS_H
#define P4_OUTPUTS_H

#include "src/leaf/base.h"
#include "src/phase4/results.h"
#include "src/phase4/types.h"

/* Traits of an output. */
enum {
    P4_OUTPUT_MODEL = 1,   /* a model in some format: what the run is for */
    P4_OUTPUT_PRIMARY = 2, /* primary_output where it is written; otherwise the first model written is */
    P4_OUTPUT_INSIDE = 4,  /* a file inside another output: it comes and goes with that one */
    P4_OUTPUT_ASIDE = 8,   /* for who watches: a run that cannot write it warns, and goes on without it */
};
/* What a run must have for an output, beside the key. */
enum {
    P4_NEEDS_TOKENIZER = 1,
    P4_NEEDS_METRICS = 2, /* at least one line of metrics.jsonl */
    P4_NEEDS_RUN = 4,     /* a run from its load to its verdict, not a call of the library alone */
};

#define P4_METRICS_FILE "metrics.jsonl"
#define P4_METADATA_FILE "compression_metadata.json"
#define P4_CONFIG_FILE "phase4_config.json"
#define P4_DETAILS_FILE "details.json"
#define P4_SAMPLES_FILE "samples.json"
#define P4_REPORT_FILE "report.html"
/* Lists the others and says how the run ended. It is not a row: it is always written, as the last file. */
#define P4_RESULTS_FILE "results.json"
/* Its "error" until the run has ended, and the beginning of that of a run which was asked to stop: its cause
 * follows (jobs/train/stop.c). */
#define P4_UNFINISHED_ERROR "the run has not ended: it is under way, or was stopped"
#define P4_UNFINISHED_STAGE "; the stage it came to: " /* behind it, and then the title of the stage */
#define P4_STOPPED_ERROR "stopped "
/* The evaluation text among its "provenance.inputs", and that of a set of eval_sets, by its name. */
#define P4_EVALUATION_TEXT "the evaluation text"
#define P4_SET_TEXT "the text of set \"%s\""
/* Of a run, not of its results: gone when it ends. */
#define P4_TRAINING_TOKENS_FILE "training_tokens.tmp"
#define P4_TEACHER_CACHE_FILE "teacher_top_k"
#define P4_RESERVE_FILE ".phase4_reserve" /* room for results.json, whatever fills the disk (directory.h) */
#define P4_STOP_REQUEST_FILE "stop"       /* the user's: asks the run to stop */

/* The rows, in the order in which they are written: the models first, then the small files that describe
 * them. EXPORTED rows are written by the export stage, OTHER rows elsewhere: the tokenizer's file with
 * dequantized_fp16, metrics.jsonl as the run measures, details and report behind the last stage
 * (jobs/pages.c), the records for W&B and TensorBoard as the run measures (jobs/watch.c). Columns: ID (the
 * field of p4_output_paths and the key in results.json), name inside output_path, configuration key that
 * turns it on (NULL: always on; of a list, an entry with the ID; of a number, one above 0), needs, traits,
 * what it is. */
/* clang-format off */
#define P4_OUTPUT_TABLE(EXPORTED, OTHER)                                                                     \
    EXPORTED(quantized, "model.h5", "save_quantized", 0,                                                     \
             P4_OUTPUT_MODEL, "packed model")                                             \
    EXPORTED(dequantized_fp16, "dequantized_fp16", "save_dequantized_fp16", 0,                               \
             P4_OUTPUT_MODEL | P4_OUTPUT_PRIMARY, "fp16 model")                           \
    OTHER(tokenizer, "dequantized_fp16/tokenizer.json", "save_dequantized_fp16", P4_NEEDS_TOKENIZER,         \
          P4_OUTPUT_INSIDE, "tokenizer")                                                                     \
    EXPORTED(gguf, "model.gguf", "exports", 0, P4_OUTPUT_MODEL, "GGUF model")                                \
    EXPORTED(compressed_tensors, "compressed_tensors", "exports", 0, P4_OUTPUT_MODEL,                        \
             "compressed-tensors model")                                                                     \
    EXPORTED(mlx, "mlx", "exports", 0, P4_OUTPUT_MODEL, "MLX model")                                         \
    EXPORTED(bitnet, "bitnet", "exports", 0, P4_OUTPUT_MODEL, "bitnet model")                                \
    EXPORTED(config, P4_CONFIG_FILE, NULL, 0, 0, "configuration")                                            \
    OTHER(metrics, P4_METRICS_FILE, NULL, P4_NEEDS_METRICS, 0, "metrics")                                    \
    EXPORTED(metadata, P4_METADATA_FILE, NULL, 0, 0, "metadata")                                             \
    OTHER(samples, P4_SAMPLES_FILE, "sample_texts", P4_NEEDS_TOKENIZER | P4_NEEDS_RUN, P4_OUTPUT_ASIDE,           \
          "sample texts")                                                                                    \
    OTHER(details, P4_DETAILS_FILE, NULL, P4_NEEDS_RUN, P4_OUTPUT_ASIDE, "details")                          \
    OTHER(report, P4_REPORT_FILE, NULL, P4_NEEDS_RUN, P4_OUTPUT_ASIDE, "report")                             \
    OTHER(wandb, "wandb", "wandb_enabled", P4_NEEDS_RUN, P4_OUTPUT_ASIDE, "W&B run")                         \
    OTHER(tensorboard, "tensorboard", "tensorboard_enabled", P4_NEEDS_RUN, P4_OUTPUT_ASIDE, "TensorBoard events")
/* clang-format on */

typedef struct p4_output {
    const char *id, *name, *key;
    unsigned needs, traits;
    const char *what;
    size_t path; /* offset of its field in p4_output_paths */
} p4_output;

#define P4_OUTPUT_ONE(...) +1
enum { P4_OUTPUTS = P4_OUTPUT_TABLE(P4_OUTPUT_ONE, P4_OUTPUT_ONE) };
#undef P4_OUTPUT_ONE
extern const p4_output p4_outputs[P4_OUTPUTS];

/* The path of an output, "" where it is not written. */
static inline const char *p4_output_path(const p4_output_paths *paths, const p4_output *output)
{
    return (const char *)paths + output->path;
}

/* Fills in the paths of the outputs that a run of this configuration writes, with primary_output; `has`: what
 * the run has of P4_NEEDS_*. P4_E_INPUT: output_path is too long. Local. */
p4_rc p4_outputs_name(p4_output_paths *paths, const p4_config *config, unsigned has);
/* Takes the path of the output with this ID away, which is not written after all; primary_output is another
 * model then, or "". Local. */
void p4_outputs_leave_out(p4_output_paths *paths, const char *id);

#endif
