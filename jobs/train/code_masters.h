/* code_masters.h - masters for codes that were found in another way than by rounding: training that starts
 * from them starts from these codes. */
#ifndef P4_CODE_MASTERS_H
#define P4_CODE_MASTERS_H

#include "src/leaf/tensor.h"

/* to [rows * cols], [out, in] = values that the rule "exact" quantizes to the values of `codes` (P4_TERNARY),
 * near to those of `original`: magnitudes are moved to their code's side of the cut and limited to 1.8 times
 * the scale, and those that are not 0 are scaled so that their mean is the scale. Rows for which that does
 * not give the codes are moved half way to the codes' own values, or all of it. On so many threads. All in
 * host memory. Local. */
p4_rc p4_code_masters(float *to, const p4_weight *codes, const p4_weight *original, int threads);

#endif
