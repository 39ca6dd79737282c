/* evaluation.h - the members of an evaluation: their names in JSON and in model.h5, in one table. */
#ifndef P4_JSON_EVALUATION_H
#define P4_JSON_EVALUATION_H

#include "io/json/write.h"
#include "src/phase4/results.h"

enum { P4_EVALUATION_MEMBERS = 13 };

/* In the order of the structure. */
extern const char *const p4_evaluation_keys[P4_EVALUATION_MEMBERS];
/* Counts, which are exact; the others are real numbers. */
bool p4_evaluation_is_count(int member);
void p4_evaluation_to_numbers(double numbers[P4_EVALUATION_MEMBERS], const p4_evaluation *evaluation);
p4_evaluation p4_evaluation_from_numbers(const double numbers[P4_EVALUATION_MEMBERS]);
/* No member is measured: NaN, and counts of 0. */
p4_evaluation p4_evaluation_none(void);
void p4_evaluation_to_reals(p4_json_real reals[P4_EVALUATION_MEMBERS], const p4_evaluation *evaluation);
/* All members; false: memory is out. */
bool p4_json_put_evaluation(cJSON *object, const p4_evaluation *evaluation);

#endif
