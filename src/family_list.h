/* family_list.h - the supported model families, named as model_type in config.json: X(model_type).
 *
 * Each needs a `static const p4_family model_type` in src/families.c and a `static const p4_hf_reader
 * model_type` in io/hf/hf_readers.c. Neither file compiles without its part. */
#ifndef P4_FAMILY_LIST_H
#define P4_FAMILY_LIST_H

#define P4_FAMILIES(X) \
    X(llama)           \
    X(gpt2)

#endif
