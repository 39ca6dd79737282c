/* language_model.h - a model that is ready to continue texts: its weights, its tokenizer, the tokens that end
 * a text. From a Hugging Face directory, a packed model (model.h5, or the output directory of a run) or a
 * GGUF file. One process, no MPI. All Local. */
#ifndef P4_LANGUAGE_MODEL_H
#define P4_LANGUAGE_MODEL_H

#include "io/gguf/gguf_view.h"
#include "io/hf/hf_model.h"
#include "io/hf/stop_ids.h"
#include "io/text/chat.h"
#include "io/tokenizer/tokenizer.h"
#include "src/form.h"
#include "src/packed.h"

typedef struct p4_language_model {
    char *path;       /* the directory or file that the model was read from */
    char *directory;  /* that its tokenizer's files lie in; NULL: it has none */
    p4_hf_model hf;   /* the parameter table; of a directory the weights as well */
    p4_packed packed; /* of model.h5 */
    const p4_weight *weights;
    p4_gguf_view gguf;
    void **owned;   /* [params_count]: weights that the file holds otherwise: transposed, in other blocks or
                     * with   its rows in another order; NULL: none is */
    bool is_packed; /* its matrices are ternary codes */
    p4_tokenizer *tokenizer;
    p4_tokenizer_scratch *scratch;
    p4_stop_ids stop;
} p4_language_model;

/* Opens what `path` names and its tokenizer. The caller closes, after an error too. */
p4_rc p4_language_model_open(p4_language_model *m, const char *path, int threads);
void p4_language_model_close(p4_language_model *m); /* Also of zeros. */
/* Host memory that p4_language_model_open takes for matrices that the files of this model hold as [in, out];
 * halves: the files of its dequantized form. */
int64_t p4_language_model_turned_bytes(const p4_model *model, bool halves);

/* The ids of a prompt, with the tokens that the tokenizer puts before a text; a prompt without any gets the
 * one that ends texts. With a chat, the prompt is the user's message of a conversation, and the model's
 * answer follows; its end becomes one of m->stop. */
p4_rc p4_language_model_encode(p4_language_model *m, p4_ids *ids, const char *prompt, bool chat);

#endif
