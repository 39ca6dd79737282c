/* generation.h - texts that models continued: as JSON, and side by side. */
#ifndef P4_GENERATION_H
#define P4_GENERATION_H

#include <stdio.h>

#include "io/tokenizer/ids.h"

/* What one model made of a prompt. */
typedef struct p4_generation {
    char *model; /* heap: what it is: a path */
    char *text;  /* heap: what follows the prompt */
    p4_ids ids;  /* of the text, without the token that ended it */
    bool ended;  /* by a token that ends texts, not by the number of tokens asked for */
    int64_t prompt_tokens;
    double prompt_s, text_s; /* the prompt's pass, and all steps after it: one for each token but the first */
    double text_cpu_s;       /* processor time of these steps, of all threads */
    double bytes_per_token;  /* of weights that a step reads */
} p4_generation;

void p4_generation_free(p4_generation *generation); /* Also of zeros. */
/* Tokens a second of the steps after the prompt; NaN: there were none. */
double p4_generation_rate(const p4_generation *generation);

/* A prompt and what the models made of it; `original` may be NULL. The caller frees; NULL, with the message
 * recorded, when memory runs out. Local. */
char *p4_generation_json(const char *prompt, const p4_generation *generation, const p4_generation *original);

/* Two texts in two columns of a page of `width` characters, each broken between words. Local. */
void p4_columns_print(FILE *to, const char *left_title, const char *left, const char *right_title,
                      const char *right, int width);

/* The samples of a run, samples.json: prompts, and what the original and the packed model made of each. */
typedef struct p4_sample {
    char *prompt; /* heap */
    p4_generation original, packed;
} p4_sample;
char *p4_samples_json(const p4_sample *samples, int64_t count, int activation_bits);
void p4_sample_free(p4_sample *sample); /* Also of zeros. */

#endif
