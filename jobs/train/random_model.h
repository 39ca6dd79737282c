/* random_model.h - init "random": an architecture from config.json with fresh weights, to train from scratch.
 */
#ifndef P4_RANDOM_MODEL_H
#define P4_RANDOM_MODEL_H

#include "io/hf/hf_model.h"

/* Opens <path>/config.json and draws weights: normal with deviation 0.02, divided by sqrt(2 L) for the
 * projections that add to the residual stream (GPT-2, section 2.3); gains 1, biases 0. Same numbers on every
 * rank. hf->model's weights point into *weights, which the caller frees after p4_hf_model_close. Local. */
p4_rc p4_random_model_open(p4_hf_model *hf, float **weights, const char *path, uint64_t seed);

#endif
