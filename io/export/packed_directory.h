/* packed_directory.h - a Hugging Face directory whose matrices are packed: config.json, one safetensors file,
 * and the files that go along. */
#ifndef P4_PACKED_DIRECTORY_H
#define P4_PACKED_DIRECTORY_H

#include "io/export/source.h"

enum { P4_PACKED_NAME_BYTES = P4_TENSOR_NAME_BYTES + 32 };

typedef struct p4_packed_tensor {
    char name[P4_PACKED_NAME_BYTES];
    const char *whole; /* safetensors' name of whole numbers; NULL: fp16 */
    int rank;
    int64_t shape[3];
    int64_t rows, row_bytes; /* of its bytes, which are made row by row */
    int64_t param;
    int64_t stacked, step; /* matrices of experts one behind the other, and entries from one to the next; 0 */
    int kind;              /* 0: the tensor itself in fp16; others: the writer's */
    bool by_rows;          /* a row is made of the weight's row in its place: kind 0 always */
} p4_packed_tensor;

typedef struct p4_packed_directory {
    const p4_export_source *source;
    int64_t count;
    p4_packed_tensor *tensors;
    /* Rows of a tensor with a kind of the writer's. Called by several threads at once, each with spaces
     * [P4_STREAM_SPACES] of its own. */
    p4_rc (*fill)(const p4_export_source *source, p4_export_space *spaces, const p4_packed_tensor *tensor,
                  uint8_t *to, int64_t first, int64_t rows);
    int64_t number;    /* of the writer */
    char *config_json; /* heap */
} p4_packed_directory;

/* The name of a parameter's module, its own without ".weight", with `suffix` behind it. */
void p4_packed_name(char to[P4_PACKED_NAME_BYTES], const p4_param *param, const char *suffix);
/* Appends a tensor; the list must have room. */
p4_packed_tensor *p4_packed_append(p4_packed_directory *directory, int64_t param, int kind,
                                   const char *whole);
/* Appends parameter `param` as it is, in fp16. */
void p4_packed_append_plain(p4_packed_directory *directory, int64_t param);
/* The weight that row `row` of a tensor is made from; *row: the row there. */
const p4_weight *p4_packed_row_of(const p4_export_source *source, const p4_packed_tensor *tensor,
                                  int64_t *row);
/* *view: the rows that the tensor's rows from `first` on are made from: `rows`, or as many as one matrix has.
 * As p4_export_view. */
p4_rc p4_packed_view(const p4_export_source *source, p4_export_space *space, p4_weight *view,
                     const p4_packed_tensor *tensor, int64_t first, int64_t rows);
double p4_packed_directory_bytes(const p4_packed_directory *directory);
p4_rc p4_packed_directory_write(const p4_packed_directory *directory, const char *path);
void p4_packed_directory_free(p4_packed_directory *directory);

/* Is the parameter a ternary matrix with a module of its own kind (a linear layer, not an embedding)? */
bool p4_packed_is_linear(const p4_param *param);
/* P4_E_INPUT: the family keeps its matrices as [in, out], or those of experts unless they are taken, in
 * modules that are no linear layers. */
p4_rc p4_packed_check_linear(const p4_export_source *source, const char *writer, bool takes_experts);
/* config.json for fp16 with a member `key` more, which is the JSON text `value` (freed), and, unless
 * rope_theta is 0, the members `rope_theta` and, for scaled positions, `rope_scaling` where they are not
 * there; NULL: memory is out. */
char *p4_packed_config(const p4_export_source *source, const char *key, char *value, double rope_theta);

#endif
