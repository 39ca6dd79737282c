/* findings.h - errors that are collected, so that they can be said all at once. */
#ifndef P4_FINDINGS_H
#define P4_FINDINGS_H

#include "src/leaf/base.h"

typedef struct p4_findings {
    char text[8192]; /* one a line */
    int errors;
    p4_rc worst;
} p4_findings;
/* Adds the recorded error and clears it, unless rc is P4_OK or the same was said. Local. */
void p4_findings_add(p4_findings *findings, p4_rc rc);

#endif
