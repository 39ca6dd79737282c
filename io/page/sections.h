/* sections.h - the parts of a run's report, in their order. Each leaves itself out where the run has nothing
 * for it. All Local. */
#ifndef P4_PAGE_SECTIONS_H
#define P4_PAGE_SECTIONS_H

#include <stdio.h>

#include "io/page/run_files.h"

void p4_section_verdict(FILE *to, const p4_page_run *run);
void p4_section_quality(FILE *to, const p4_page_run *run);
void p4_section_samples(FILE *to, const p4_page_run *run);
void p4_section_training(FILE *to, const p4_page_run *run);
void p4_section_model(FILE *to, const p4_page_run *run); /* the map: layers x projections */
void p4_section_activations(FILE *to, const p4_page_run *run);
void p4_section_size(FILE *to, const p4_page_run *run);
void p4_section_time(FILE *to, const p4_page_run *run);
void p4_section_configuration(FILE *to, const p4_page_run *run);
void p4_section_provenance(FILE *to, const p4_page_run *run);

/* Whether the section has something to show: for the list of contents. */
bool p4_page_has_samples(const p4_page_run *run);
bool p4_page_has_training(const p4_page_run *run);
bool p4_page_has_layers(const p4_page_run *run);
bool p4_page_has_activations(const p4_page_run *run);

/* How a run ended: "pass", "fail", "none" or, of one that has not, "way", which is also the class of its
 * color, and in words. */
typedef struct p4_page_outcome {
    const char *kind, *sign, *word;
} p4_page_outcome;
p4_page_outcome p4_page_outcome_of(const p4_page_run *run);
/* A sentence that gives the reason of the verdict. */
void p4_page_statement(FILE *to, const p4_page_run *run);
/* The style sheet of every page: its lines, then NULL. */
extern const char *const p4_page_style[];

#endif
