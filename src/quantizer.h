/* quantizer.h - the quantizer table: what each value of the key "quantizer" stands for. The configuration,
 * the engines, model.h5 and the reports take names and rules from here; a value without a row does not
 * compile, and a rule that a backend does not implement is an error there (kernels/ops.h, quantize). */
#ifndef P4_QUANTIZER_H
#define P4_QUANTIZER_H

#include "kernels/ops.h"
#include "src/phase4/types.h"

/* What a quantizer must know of the inputs of a matrix, from calibration. */
typedef enum p4_quantizer_needs {
    P4_NEEDS_NO_STATISTICS,
    P4_NEEDS_DIAGONAL, /* the mean square of each input channel: the diagonal of H = X'X / N */
    P4_NEEDS_HESSIAN,  /* the windows of the calibration: H is collected block by block while quantizing */
} p4_quantizer_needs;

typedef struct p4_quantizer_row {
    const char *name;       /* in cfg.json, in model.h5 (attribute method) and in results.json */
    bool quantizes;         /* false: every tensor stays in fp16, and what follows has no meaning */
    p4_quant_method method; /* the op's rule; one that needs H: for tensors that calibration does not see */
    bool has_threshold;     /* sparsity_threshold has an effect */
    bool has_granularity;   /* any scale_granularity; false: a scale a row only */
    p4_quantizer_needs needs;
    bool descends; /* of one that needs H: coordinate descent follows */
    /* The row whose rule training quantizes masters by in every step: itself, or a rule without H. */
    p4_quantizer trains_as;
} p4_quantizer_row;

extern const p4_quantizer_row p4_quantizers[P4_QUANTIZER_COUNT];
/* The names in the order of p4_quantizer, NULL-terminated. */
extern const char *const p4_quantizer_names[P4_QUANTIZER_COUNT + 1];

/* The names in the order of p4_scale_granularity, NULL-terminated. */
extern const char *const p4_scale_granularity_names[];
/* The scale_group (src/leaf/tensor.h) of a matrix; 0: a scale a row. Local. */
int64_t p4_scale_group_of(p4_scale_granularity granularity, int64_t rows, int64_t cols);

#endif
