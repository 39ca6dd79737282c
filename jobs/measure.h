/* measure.h - measures a finished result again: a model.h5 on a text, beside the original where that is at
 * hand. */
#ifndef P4_MEASURE_H
#define P4_MEASURE_H

#include "dist/group.h"
#include "io/out/measurement.h"
#include "jobs/options.h"

extern const p4_program p4_evaluate_program;
enum { P4_EVALUATE_JSON = P4_OPTION_OWN, P4_EVALUATE_STRICT, P4_EVALUATE_QUIET };

/* Evaluates the packed model that `path` names (a model.h5, or the output directory that holds one) as the
 * run did that wrote it, with `count` keys "key=value" that replace its own: those of the text, of the device
 * and of the verdict. The original is the run's model_path, if its files are those that the run read.
 * *measured is the same on every rank. P4_E_INPUT: the file, a key that an evaluation does not read, the
 * text; a model_path that is given and is not the original. Collective. */
p4_rc p4_measure(p4_measurement *measured, p4_group *group, const char *path, char *const *overrides,
                 int count);

#endif
