/* gguf_view.h - a GGUF file (version 2 or 3), mapped: its keys with their values, its tensors. Every offset
 * and size is checked before it is used; a damaged file ends in an error that names the place. All Local. */
#ifndef P4_GGUF_VIEW_H
#define P4_GGUF_VIEW_H

#include "src/leaf/base.h"

enum { P4_GGUF_VIEW_NAME_BYTES = 128, P4_GGUF_VIEW_RANK = 4 };

/* Types of values, by the format's numbers. */
enum {
    P4_GGUF_VIEW_U8,
    P4_GGUF_VIEW_I8,
    P4_GGUF_VIEW_U16,
    P4_GGUF_VIEW_I16,
    P4_GGUF_VIEW_U32,
    P4_GGUF_VIEW_I32,
    P4_GGUF_VIEW_F32,
    P4_GGUF_VIEW_BOOL,
    P4_GGUF_VIEW_TEXT,
    P4_GGUF_VIEW_LIST,
    P4_GGUF_VIEW_U64,
    P4_GGUF_VIEW_I64,
    P4_GGUF_VIEW_F64,
    P4_GGUF_VIEW_TYPES
};

typedef struct p4_gguf_text {
    const char *data; /* into the mapping; no NUL at its end */
    size_t bytes;
} p4_gguf_text;

typedef struct p4_gguf_key {
    p4_gguf_text name;
    uint32_t type; /* of the value, of a list of its elements */
    bool is_list;
    uint64_t count;      /* of the elements of a list; 1 */
    const uint8_t *data; /* the value, or the first element */
} p4_gguf_key;

typedef struct p4_gguf_stored {
    char name[P4_GGUF_VIEW_NAME_BYTES];
    uint32_t type; /* of ggml: io/gguf/gguf_blocks.h */
    int rank;
    int64_t rows, cols; /* of a matrix [out, in]; a vector is [1, n] */
    const uint8_t *data;
    int64_t bytes;
} p4_gguf_stored;

typedef struct p4_gguf_view {
    char *path;
    void *mapping;
    uint64_t mapping_bytes;
    int64_t key_count, tensor_count;
    p4_gguf_key *keys;
    p4_gguf_stored *tensors;
} p4_gguf_view;

/* Does the file begin as a GGUF file does? */
bool p4_gguf_view_is(const char *path);
/* The caller closes. */
p4_rc p4_gguf_view_open(p4_gguf_view *view, const char *path);
/* The same on bytes in memory that the caller keeps. */
p4_rc p4_gguf_view_parse(p4_gguf_view *view, const char *path, const void *bytes, uint64_t byte_count);
void p4_gguf_view_close(p4_gguf_view *view); /* Also of zeros. */

/* NULL: there is none. */
const p4_gguf_key *p4_gguf_view_key(const p4_gguf_view *view, const char *name);
const p4_gguf_stored *p4_gguf_view_tensor(const p4_gguf_view *view, const char *name);
/* The number that a key holds; *found, if not NULL: whether it is there. Without `found` it must be.
 * P4_E_INPUT: it is missing or no number. */
p4_rc p4_gguf_view_number(const p4_gguf_view *view, const char *name, double *value, bool *found);
/* The text that a key holds; without `found` it must be there. */
p4_rc p4_gguf_view_string(const p4_gguf_view *view, const char *name, p4_gguf_text *text, bool *found);
/* Element `at` of a list of numbers. */
double p4_gguf_view_element(const p4_gguf_key *list, uint64_t at);
/* Walks a list of texts: *at starts as list->data, and stands behind the text afterwards. */
p4_gguf_text p4_gguf_view_next_text(const uint8_t **at);

#endif
