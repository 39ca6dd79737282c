/* stages.h - the stages of a run, in the order of the table in jobs/run.c. Each is Collective. */
#ifndef P4_STAGES_H
#define P4_STAGES_H

#include "jobs/run.h"

p4_rc p4_stage_load(p4_run *run);           /* model, ownership plan, tokenizer, windows of tokens */
p4_rc p4_stage_evaluate_pre(p4_run *run);   /* the original's perplexity */
p4_rc p4_stage_calibrate(p4_run *run);      /* activation statistics */
p4_rc p4_stage_quantize(p4_run *run);       /* owners quantize, everyone gets the codes */
p4_rc p4_stage_reconstruct(p4_run *run);    /* ternary blocks trained to the original's */
p4_rc p4_stage_evaluate_post(p4_run *run);  /* perplexity, accuracy, KL after that */
p4_rc p4_stage_fine_tune(p4_run *run);      /* when the drop asks for it */
p4_rc p4_stage_evaluate_final(p4_run *run); /* what will be written */
p4_rc p4_stage_gradient_flow(p4_run *run);  /* forward and backward pass of the dequantised model */
p4_rc p4_stage_export(p4_run *run);         /* every output file */

/* Part of p4_stage_load: the tokenizer and rank 0's windows of text, to all ranks. Collective. */
p4_rc p4_load_text(p4_run *run);
/* How its text becomes windows; model, tokenizer and chat template are open. Local. */
p4_windowing p4_text_windowing(const p4_run *run);
/* The windows of eval_sets and what is kept for them; may be called twice. */
void p4_free_sets(p4_run *run);

/* Does the original predict no better than guessing among its vocabulary, though it is a trained model?
 * false: it was not evaluated. Local. */
bool p4_evaluation_guesses(const p4_run *run, const p4_evaluation *original);

#endif
