/* generate.h - a language model continues a text. One process, no MPI. All Local. */
#ifndef P4_GENERATE_H
#define P4_GENERATE_H

#include "io/out/generation.h"
#include "jobs/language_model.h"
#include "jobs/options.h"
#include "src/decode/decoder.h"
#include "src/decode/sampler.h"

/* phase4_generate: its own options, in the order of the table. */
extern const p4_program p4_generate_program;
enum {
    P4_GENERATE_TOKENS = P4_OPTION_OWN,
    P4_GENERATE_FILE,
    P4_GENERATE_CHAT,
    P4_GENERATE_GREEDY,
    P4_GENERATE_TEMPERATURE,
    P4_GENERATE_TOP_P,
    P4_GENERATE_TOP_K,
    P4_GENERATE_SEED,
    P4_GENERATE_COMPARE,
    P4_GENERATE_ACTIVATIONS,
    P4_GENERATE_CACHE,
    P4_GENERATE_DEVICE,
    P4_GENERATE_THREADS,
    P4_GENERATE_JSON,
    P4_GENERATE_QUIET
};

typedef struct p4_generate_settings {
    const char *device; /* "cpu" or "cuda" */
    int threads;        /* 0: as many as the products of a step give work to, */
    int most_threads;   /* at most these; 0: all that this process may use */
    int64_t tokens;     /* at most */
    p4_sampling sampling;
    int activation_bits; /* 8 or 0, of a packed model; another one's are not rounded */
    p4_dtype cache_type;
    bool chat;
} p4_generate_settings;

/* Gets text as it is decoded: whole UTF-8 characters. */
typedef void (*p4_generate_show)(void *user, const char *text);

/* A model on a device, with memory for texts of up to so many tokens. */
typedef struct p4_generator {
    const p4_language_model *m;
    const p4_generate_settings *settings;
    const p4_ops *ops;
    p4_device *device;
    p4_device_form form;
    p4_decoder decoder;
    float *logits; /* [V] */
} p4_generator;

/* P4_E_INPUT: the device is not there, or the text would be longer than the model takes. Model and settings
 * must outlive the generator; the caller closes, after an error too. */
p4_rc p4_generator_open(p4_generator *g, const p4_language_model *m, const p4_generate_settings *settings,
                        int64_t capacity);
void p4_generator_close(p4_generator *g); /* Also of zeros. */
/* What p4_generator_open takes for such a model, by purpose; bytes. settings->device is "cpu". */
typedef struct p4_generator_memory {
    int64_t form, decoder, logits; /* the decoder's: its network and the cache of keys and values */
} p4_generator_memory;
p4_rc p4_generator_plan_bytes(p4_generator_memory *bytes, const p4_generate_settings *settings,
                              const p4_model *model, const p4_weight *weights, int64_t capacity,
                              bool is_packed);
/* Continues the ids of a prompt until a token that ends texts, or by settings->tokens. show: NULL for none.
 * The caller frees *generation, after an error too. */
p4_rc p4_generator_run(p4_generator *g, p4_generation *generation, const p4_ids *prompt,
                       p4_generate_show show, void *user);

/* The same in one call: opens, encodes the prompt, runs, closes. */
p4_rc p4_generate(p4_generation *generation, p4_language_model *m, const p4_generate_settings *settings,
                  const char *prompt, p4_generate_show show, void *user);

#endif
