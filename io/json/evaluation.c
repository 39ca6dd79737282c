#include "io/json/evaluation.h"

#include <math.h>
#include <string.h>

const char *const p4_evaluation_keys[P4_EVALUATION_MEMBERS] = {
    "loss",     "perplexity", "perplexity_low", "perplexity_high", "bits_per_byte",    "word_perplexity",
    "accuracy", "kl",         "agreement",      "degradation_low", "degradation_high", "tokens",
    "documents"};

_Static_assert(sizeof(p4_evaluation) == P4_EVALUATION_MEMBERS * sizeof(double),
               "each member of an evaluation has a key");
_Static_assert(offsetof(p4_evaluation, tokens) == (P4_EVALUATION_MEMBERS - 2) * sizeof(double),
               "the counts are the last two members");

bool p4_evaluation_is_count(int member)
{
    return member >= P4_EVALUATION_MEMBERS - 2;
}

void p4_evaluation_to_numbers(double numbers[P4_EVALUATION_MEMBERS], const p4_evaluation *evaluation)
{
    memcpy(numbers, evaluation, sizeof *evaluation);
    numbers[P4_EVALUATION_MEMBERS - 2] = (double)evaluation->tokens;
    numbers[P4_EVALUATION_MEMBERS - 1] = (double)evaluation->documents;
}

p4_evaluation p4_evaluation_from_numbers(const double numbers[P4_EVALUATION_MEMBERS])
{
    p4_evaluation evaluation;
    memcpy(&evaluation, numbers, sizeof evaluation);
    evaluation.tokens = (int64_t)numbers[P4_EVALUATION_MEMBERS - 2];
    evaluation.documents = (int64_t)numbers[P4_EVALUATION_MEMBERS - 1];
    return evaluation;
}

p4_evaluation p4_evaluation_none(void)
{
    double numbers[P4_EVALUATION_MEMBERS];
    for (int i = 0; i < P4_EVALUATION_MEMBERS; i++) {
        numbers[i] = p4_evaluation_is_count(i) ? 0.0 : (double)NAN;
    }
    return p4_evaluation_from_numbers(numbers);
}

void p4_evaluation_to_reals(p4_json_real reals[P4_EVALUATION_MEMBERS], const p4_evaluation *evaluation)
{
    double numbers[P4_EVALUATION_MEMBERS];
    p4_evaluation_to_numbers(numbers, evaluation);
    for (int i = 0; i < P4_EVALUATION_MEMBERS; i++) {
        reals[i] = (p4_json_real){p4_evaluation_keys[i], numbers[i]};
    }
}

bool p4_json_put_evaluation(cJSON *object, const p4_evaluation *evaluation)
{
    p4_json_real reals[P4_EVALUATION_MEMBERS];
    p4_evaluation_to_reals(reals, evaluation);
    return p4_json_put_reals(object, reals, P4_EVALUATION_MEMBERS);
}
