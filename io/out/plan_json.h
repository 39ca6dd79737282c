/* plan_json.h - a plan (src/plan.h) and the rates of a machine as JSON. */
#ifndef P4_PLAN_JSON_H
#define P4_PLAN_JSON_H

#include "src/plan.h"

/* The text of `phase4_mpi --plan --json` (docs/formats.md), heap; NULL: out of memory. Local. */
char *p4_plan_json(const p4_plan *plan);

/* The file that `phase4_mpi --measure-rates` writes. Local. */
p4_rc p4_rates_write(const p4_rates *rates, const char *path);
/* P4_E_INPUT: a number that is missing or not above 0. Local. */
p4_rc p4_rates_read(p4_rates *rates, const char *path);

#endif
