/* types.h - value types of the public interface: lists, limits, and the enumerations that configuration keys
 * take. */
#ifndef PHASE4_TYPES_H
#define PHASE4_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { P4_PATH_BYTES = 4096, P4_NAME_BYTES = 128, P4_LIST_BYTES = 16384, P4_NUMBERS_MAX = 32 };
enum { P4_SETS_MAX = 16, P4_SET_NAME_BYTES = 32 };

/* A list of strings: `count` NUL-terminated strings one after another in `bytes`. */
typedef struct p4_list {
    int32_t count;
    char bytes[P4_LIST_BYTES];
} p4_list;

/* Lists of strings, each with a name: `count` of them, the strings of one after those of another. */
typedef struct p4_sets {
    int32_t count;
    char names[P4_SETS_MAX][P4_SET_NAME_BYTES];
    int32_t counts[P4_SETS_MAX]; /* strings of each */
    p4_list strings;
} p4_sets;

/* A list of numbers. */
typedef struct p4_numbers {
    int32_t count;
    double values[P4_NUMBERS_MAX];
} p4_numbers;

/* The configuration (config.h). */
typedef struct p4_config p4_config;

typedef enum p4_device_kind { P4_DEVICE_AUTO, P4_DEVICE_CUDA, P4_DEVICE_CPU } p4_device_kind;
typedef enum p4_recipe { P4_RECIPE_QUALITY, P4_RECIPE_SEED, P4_RECIPE_QUICK, P4_RECIPE_THOROUGH } p4_recipe;
typedef enum p4_optimizer { P4_OPTIMIZER_MUGROKFAST, P4_OPTIMIZER_ADAMW } p4_optimizer;
typedef enum p4_optimizer_state { P4_OPTIMIZER_STATE_FP32, P4_OPTIMIZER_STATE_BF16 } p4_optimizer_state;
typedef enum p4_recompute {
    P4_RECOMPUTE_NONE,
    P4_RECOMPUTE_LIGHT,
    P4_RECOMPUTE_BLOCKS,
    P4_RECOMPUTE_AUTO /* of a configuration: by the plan; engines get one of the others */
} p4_recompute;
/* Where the original lives that distillation compares the model with: chosen by memory; whole on every rank;
 * its layers divided over the ranks; its largest probabilities in a file. */
typedef enum p4_teacher_kind {
    P4_TEACHER_AUTO,
    P4_TEACHER_RESIDENT,
    P4_TEACHER_SHARDED,
    P4_TEACHER_CACHED
} p4_teacher_kind;
/* How many weights share a scale: scale_granularity. */
typedef enum p4_scale_granularity {
    P4_SCALE_ROW,
    P4_SCALE_TENSOR,
    P4_SCALE_GROUP64,
    P4_SCALE_GROUP128,
} p4_scale_granularity;

typedef enum p4_quantizer {
    P4_QUANTIZER_ABSMEAN,
    P4_QUANTIZER_EXACT,
    P4_QUANTIZER_NONE,
    P4_QUANTIZER_EXACT_DIAGONAL,
    P4_QUANTIZER_GPTQ,
    P4_QUANTIZER_GPTQ_CD,
    P4_QUANTIZER_COUNT
} p4_quantizer;
typedef enum p4_packing { P4_PACKING_BASE3X5, P4_PACKING_2BIT } p4_packing;
typedef enum p4_init { P4_INIT_CHECKPOINT, P4_INIT_RANDOM } p4_init;
typedef enum p4_dataset {
    P4_DATASET_OPENWEBTEXT,
    P4_DATASET_C4,
    P4_DATASET_WIKITEXT,
    P4_DATASET_CUSTOM
} p4_dataset;
/* How conversations are rendered as text: as the tokenizer's chat template says, or by a named one. */
typedef enum p4_chat_kind { P4_CHAT_AUTO, P4_CHAT_CHATML, P4_CHAT_LLAMA2, P4_CHAT_LLAMA3 } p4_chat_kind;
typedef enum p4_size_category { P4_SIZE_TINY, P4_SIZE_SMALL, P4_SIZE_MEDIUM, P4_SIZE_LARGE } p4_size_category;

#ifdef __cplusplus
}
#endif
#endif
