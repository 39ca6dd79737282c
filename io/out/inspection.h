/* inspection.h - what was found in the results of a run: phase4_inspect fills it (jobs/inspect.h), and it is
 * handed on as a table or as JSON. A number that is not known is NaN. All Local. */
#ifndef P4_INSPECTION_H
#define P4_INSPECTION_H

#include <stdio.h>

#include "src/model.h"
#include "src/phase4/results.h"

typedef struct p4_tensor_inspection {
    char name[P4_TENSOR_NAME_BYTES];
    bool ternary, vector, transposed;
    int64_t rows, cols;          /* logical [out, in] */
    const char *encoding;        /* "base3x5", "2bit", "fp16" */
    int64_t bytes;               /* codes or halves, and scales */
    int64_t zeros;               /* trits that are 0 */
    int64_t positive;            /* trits that are 1 */
    int64_t scales, scales_seen; /* of the file; read so far */
    double scale_min, scale_max, scale_mean;
    double largest;        /* of a preserved tensor: the largest magnitude */
    double relative_error; /* as recorded when it was quantized */
    int64_t differing;     /* elements of dequantized_fp16 that are not codes times scales; -1: not compared
                            */
} p4_tensor_inspection;

/* An input of the run, compared with the file that has its path now. */
typedef enum p4_input_state {
    P4_INPUT_ABSENT,
    P4_INPUT_SAME,
    P4_INPUT_CHANGED,
    P4_INPUT_UNREADABLE
} p4_input_state;

/* Lines that say what does not agree: the first are kept, all are counted. */
enum { P4_FINDINGS_KEPT = 100 };
typedef struct p4_finding_list {
    char *lines[P4_FINDINGS_KEPT]; /* heap */
    int64_t count;
} p4_finding_list;
p4_rc p4_finding_add(p4_finding_list *list, const char *format, ...) P4_PRINTF(2, 3);
void p4_finding_list_free(p4_finding_list *list);

typedef struct p4_inspection {
    char path[P4_PATH_BYTES];      /* model.h5 */
    char fp16_path[P4_PATH_BYTES]; /* dequantized_fp16, ""; it was not compared */
    int64_t file_bytes;
    char model_type[32];
    const char *quantizer, *packing; /* names of the tables */
    char *config_json;               /* heap: the run's configuration */
    p4_evaluation pre, post, final;  /* tokens 0: not measured */
    int64_t set_count;
    p4_set_results sets[P4_SETS_MAX];
    bool has_metadata;
    p4_metadata metadata;   /* beside model.h5 */
    p4_input_state *inputs; /* [metadata.input_count] */
    int64_t count;
    p4_tensor_inspection *tensors; /* in the order of the model */
    int64_t code_bytes, scale_bytes, preserved_bytes, parameters, ternary_parameters, zeros, layers_quantized;
    p4_finding_list findings;
} p4_inspection;

void p4_inspection_free(p4_inspection *inspection); /* Also of zeros. */
/* For a person. */
void p4_inspection_table(FILE *to, const p4_inspection *inspection);
/* Its lines on where the run was made, from the provenance. */
void p4_inspection_print_places(FILE *to, const p4_inspection *inspection);
/* The caller frees; NULL: out of memory. */
char *p4_inspection_json(const p4_inspection *inspection);

/* ---- two results ---- */

typedef struct p4_tensor_difference {
    char name[P4_TENSOR_NAME_BYTES];
    const char *kind; /* "ternary", "fp16"; "only in A", "only in B", "shape", "form": not compared further */
    int64_t elements;
    int64_t flipped;                   /* codes, or halves, that differ */
    int64_t to_zero, from_zero, signs; /* of the codes: from A to B */
    int64_t scales, scales_changed;
    double scale_change_max, scale_change_mean; /* |b - a| / |a| of the scales that changed and a is not 0 */
    double largest_change;                      /* of halves: |b - a| */
} p4_tensor_difference;

typedef struct p4_key_difference {
    const char *key; /* of the configuration table */
    char *a, *b;     /* heap: the values as JSON; NULL: there is none */
} p4_key_difference;

typedef struct p4_result_difference {
    char a[P4_PATH_BYTES], b[P4_PATH_BYTES];
    int64_t count; /* all tensors of both */
    p4_tensor_difference *tensors;
    int64_t key_count;
    p4_key_difference *keys;
    bool model_json_differs, tokenizer_differs;
    bool differs;
} p4_result_difference;

/* The keys in which two configurations, as JSON, differ. */
p4_rc p4_result_difference_keys(p4_result_difference *difference, const char *json_a, const char *json_b);
void p4_result_difference_free(p4_result_difference *difference); /* Also of zeros. */
void p4_result_difference_table(FILE *to, const p4_result_difference *difference);
char *p4_result_difference_json(const p4_result_difference *difference);

#endif
