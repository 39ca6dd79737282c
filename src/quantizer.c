#include "src/quantizer.h"

/* ROW(value of p4_quantizer, name, quantizes, rule of the op, sparsity_threshold has an effect, any
 * scale_granularity, statistics, coordinate descent, value of p4_quantizer whose rule training uses). */
#define QUANTIZERS(ROW)                                                                                 \
    ROW(ABSMEAN, "absmean", true, P4_QUANT_ABSMEAN, true, true, P4_NEEDS_NO_STATISTICS, false, ABSMEAN) \
    ROW(EXACT, "exact", true, P4_QUANT_EXACT, false, true, P4_NEEDS_NO_STATISTICS, false, EXACT)        \
    ROW(NONE, "none", false, P4_QUANT_EXACT, false, false, P4_NEEDS_NO_STATISTICS, false, NONE)         \
    ROW(EXACT_DIAGONAL, "exact-diagonal", true, P4_QUANT_EXACT, false, false, P4_NEEDS_DIAGONAL, false, \
        EXACT_DIAGONAL)                                                                                 \
    ROW(GPTQ, "gptq", true, P4_QUANT_EXACT, false, false, P4_NEEDS_HESSIAN, false, EXACT)               \
    ROW(GPTQ_CD, "gptq-cd", true, P4_QUANT_EXACT, false, false, P4_NEEDS_HESSIAN, true, EXACT)

#define COUNT(...) +1
_Static_assert((0 QUANTIZERS(COUNT)) == P4_QUANTIZER_COUNT, "each value of p4_quantizer has one row");

#define ROW(id, name, quantizes, method, threshold, any_scale, needs, descends, training) \
    [P4_QUANTIZER_##                                                                      \
        id] = {name, quantizes, method, threshold, any_scale, needs, descends, P4_QUANTIZER_##training},
const p4_quantizer_row p4_quantizers[P4_QUANTIZER_COUNT] = {QUANTIZERS(ROW)};

#define NAME(id, name, ...) [P4_QUANTIZER_##id] = (name),
const char *const p4_quantizer_names[P4_QUANTIZER_COUNT + 1] = {QUANTIZERS(NAME)};

const char *const p4_scale_granularity_names[] = {"row", "tensor", "group64", "group128", NULL};

int64_t p4_scale_group_of(p4_scale_granularity granularity, int64_t rows, int64_t cols)
{
    switch (granularity) {
    case P4_SCALE_ROW:
        return 0;
    case P4_SCALE_TENSOR:
        return rows * cols;
    case P4_SCALE_GROUP64:
        return 64;
    case P4_SCALE_GROUP128:
        return 128;
    }
    return 0;
}
