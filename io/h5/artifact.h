/* artifact.h - the packed model, model.h5: writer (streaming, rank 0) and reader. docs/formats.md 1 describes
 * the file.
 *
 * The packed form of a vector is [1, row_bytes] with the shape [n]; its data is [n]. A matrix that the
 * Hugging Face file stores as [in, out] (GPT-2's Conv1D) is [out, in] here, with transposed 1. Everything is
 * Local, and one thread of a process uses it at a time, where it is not said otherwise. */
#ifndef P4_ARTIFACT_H
#define P4_ARTIFACT_H

#include "io/out/report.h"
#include "src/leaf/space.h"
#include "src/model.h"
#include "src/phase4/results.h"

typedef struct p4_artifact_tensor {
    char name[P4_TENSOR_NAME_BYTES]; /* Hugging Face name */
    bool ternary;                    /* packed and scale, else data */
    bool vector, transposed;
    int64_t rows, cols;  /* logical [out, in]; a vector is [1, n] */
    p4_packing encoding; /* ternary */
    int64_t scale_group; /* ternary: as in p4_weight (src/leaf/tensor.h); 0: a scale a row */
    char method[64];     /* ternary: "absmean", "exact", ...; written; "" when read (read.h says why) */
} p4_artifact_tensor;

/* Bytes of one stored row: (cols + 4) / 5, (cols + 3) / 4 or 2 * cols. */
int64_t p4_artifact_row_bytes(const p4_artifact_tensor *tensor);
/* Scales of so many rows of a ternary tensor, and the place of the first of `row`: a tensor with one scale
 * has it for any rows. */
int64_t p4_artifact_scales(const p4_artifact_tensor *tensor, int64_t rows);
int64_t p4_artifact_scale_at(const p4_artifact_tensor *tensor, int64_t row);
const char *p4_packing_name(p4_packing packing); /* "base3x5", "2bit" */

/* ---- writer ---- */

typedef struct p4_artifact p4_artifact;
typedef struct p4_artifact_info {
    const char *producer, *model_type;
    const char *model_json, *phase4_json; /* config.json's text, the effective configuration */
    const char *tokenizer_json;           /* NULL: none */
} p4_artifact_info;

/* Starts the file under a temporary name. On success p4_artifact_close must follow, even if a later call
 * fails. */
p4_rc p4_artifact_open(p4_artifact **artifact, const char *path, const p4_artifact_info *info);

/* Writes one tensor: begin, then its rows in order, in pieces of any number of rows (a vector is one row).
 * bytes: row_count * p4_artifact_row_bytes, packed or fp16 bits; scale: fp16 bits of these rows
 * [p4_artifact_scales], NULL for a preserved tensor; that of a tensor with one scale counts with the first
 * rows. */
p4_rc p4_artifact_begin(p4_artifact *artifact, const p4_artifact_tensor *tensor);
p4_rc p4_artifact_append(p4_artifact *artifact, const void *bytes, const uint16_t *scale, int64_t row_count);

/* name: "pre", "post" or "final"; opt_set: a set of eval_sets, whose name has no slash. */
p4_rc p4_artifact_put_evaluation(p4_artifact *artifact, const char *opt_set, const char *name,
                                 const p4_evaluation *evaluation);
p4_rc p4_artifact_put_training(p4_artifact *artifact, const p4_training_point *points, int64_t count);

typedef struct p4_artifact_module { /* activation statistics of one projection */
    const char *name;
    double mean, std, min, max;     /* of its output */
    const float *input_mean_square; /* [inputs] */
    int64_t inputs;
} p4_artifact_module;
p4_rc p4_artifact_put_calibration(p4_artifact *artifact, const p4_artifact_module *module);

typedef struct p4_artifact_layer { /* quantization statistics of one matrix */
    const char *name;
    double relative_error; /* |w - t scale|^2 / |w|^2 */
    double sparsity, scale_min, scale_max;
} p4_artifact_layer;
p4_rc p4_artifact_put_layer(p4_artifact *artifact, const p4_artifact_layer *layer);

/* ok: the file appears under its name once it is complete and synced; otherwise, or if that fails, nothing is
 * left. Frees the artifact in either case. NULL does nothing. */
p4_rc p4_artifact_close(p4_artifact *artifact, bool ok);

/* ---- reader: hostile or damaged files end in an error that names the place ---- */

typedef struct p4_artifact_reader p4_artifact_reader;
/* Checks format, version and every tensor's parts, types and sizes; reads no tensor data. */
p4_rc p4_artifact_reader_open(p4_artifact_reader **reader, const char *path);
void p4_artifact_reader_close(p4_artifact_reader *reader);

int64_t p4_artifact_reader_count(const p4_artifact_reader *reader);
/* In the order of their names. */
const p4_artifact_tensor *p4_artifact_reader_tensor(const p4_artifact_reader *reader, int64_t index);
/* NULL: there is none of this name. */
const p4_artifact_tensor *p4_artifact_reader_find(const p4_artifact_reader *reader, const char *name);

/* Reads rows [first_row, first_row + row_count) of a tensor of this reader, in the form that
 * p4_artifact_append accepts. Checks that packed bytes are trits and scales finite; HDF5 verifies the
 * checksums. scale: NULL to skip it, and for a preserved tensor. A call reads whole chunks of about 1 MiB:
 * ask for many rows at a time. */
p4_rc p4_artifact_read(p4_artifact_reader *reader, const p4_artifact_tensor *tensor, void *bytes,
                       uint16_t *scale, int64_t first_row, int64_t row_count);
/* All scales of a ternary tensor, [p4_artifact_scales(tensor, tensor->rows)], checked as there. */
p4_rc p4_artifact_read_scales(p4_artifact_reader *reader, const p4_artifact_tensor *tensor, uint16_t *scale);
/* Rows as p4_artifact_read reads them, checked in the same way, at *rows in memory of `space` until its next
 * use. Several threads at once, each with a space of its own: chunks are read from the file itself, unless
 * another program stored them in a way that HDF5 alone reads. */
p4_rc p4_artifact_rows(p4_artifact_reader *reader, const p4_artifact_tensor *tensor, p4_space *space,
                       const void **rows, int64_t first_row, int64_t row_count);
/* A chunk's rows, which p4_artifact_rows reads together: pieces that begin at a multiple of it read no chunk
 * twice. 0: any rows. Several threads at once. */
p4_rc p4_artifact_chunk_rows(p4_artifact_reader *reader, const p4_artifact_tensor *tensor, int64_t *rows);
/* Says of bad input found in a packed model's file that the file is damaged or not this program's, in front
 * of the recorded detail. Returns rc. */
p4_rc p4_artifact_damaged(p4_rc rc, const char *path);
/* A text: "config/model_json", "config/phase4_json", "tokenizer/tokenizer_json". The caller frees *text;
 * NULL: the file has none. */
p4_rc p4_artifact_read_text(p4_artifact_reader *reader, const char *name, char **text);
/* A numeric attribute: ("metrics/pre", "loss"), ("layers/NAME", "sparsity"). NaN if the file does not have
 * it. */
p4_rc p4_artifact_read_number(p4_artifact_reader *reader, const char *group, const char *key, double *value);

#endif
