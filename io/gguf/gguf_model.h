/* gguf_model.h - the language model in a GGUF file: its config.json and tokenizer.json, as they would stand
 * in a model directory, and its tensors. All Local. */
#ifndef P4_GGUF_MODEL_H
#define P4_GGUF_MODEL_H

#include "io/gguf/gguf_view.h"
#include "io/hf/hf_model.h"

/* The architectures that are read: llama (with Mistral), qwen2, qwen3. Fills hf->path, hf->config_json and
 * hf->model, whose weights are views of the file, or of memory in *owned [params_count] where the file stores
 * them otherwise: ternary blocks become codes with a scale for each row, or fp16 where the blocks of a row
 * have scales of their own, and rows that the file holds in another order are put in the model's. P4_E_INPUT
 * names the key or tensor. The caller frees each of *owned and the list, and closes hf, after an error too;
 * the view must outlive both. */
p4_rc p4_gguf_model_read(p4_hf_model *hf, void ***owned, const p4_gguf_view *file);

/* The text of a tokenizer.json that encodes as the file's tokenizer does: byte-level BPE with the words of
 * GPT-2, Llama 3, Qwen 2 or SmolLM, or SentencePiece's BPE. The caller frees. P4_E_INPUT: another tokenizer.
 */
p4_rc p4_gguf_tokenizer_json(char **json, const p4_gguf_view *file);

#endif
