/* family_list.h - the supported model families, named as model_type in config.json: X(model_type).
 *
 * Each needs a `static const p4_family model_type` in src/families.c and a `const p4_hf_reader
 * p4_hf_reader_model_type` in a file io/hf/readers_*.c. Without them src/families.c does not compile and the
 * library does not link. */
#ifndef P4_FAMILY_LIST_H
#define P4_FAMILY_LIST_H

#define P4_FAMILIES(X) \
    X(llama)           \
    X(gpt2)            \
    X(qwen2)           \
    X(qwen3)           \
    X(mistral)         \
    X(phi)             \
    X(phi3)            \
    X(gemma)           \
    X(gemma2)          \
    X(gemma3_text)     \
    X(gpt_neox)        \
    X(olmo2)           \
    X(olmo3)           \
    X(smollm3)         \
    X(starcoder2)      \
    X(granite)         \
    X(qwen3_moe)       \
    X(mixtral)         \
    X(olmoe)           \
    X(cohere)          \
    X(falcon)

#endif
