/* safetensors.h - reader (mmap) and writer of .safetensors files. */
#ifndef P4_SAFETENSORS_H
#define P4_SAFETENSORS_H

#include "src/leaf/tensor.h"

typedef struct p4_safetensor {
    const char *name; /* owned by the file */
    char dtype_name[16];
    p4_dtype dtype; /* when is_float */
    bool is_float; /* F32, F16 or BF16; others (mask buffers, ...) are listed and cannot be read as weights */
    int rank;
    int64_t shape[8];
    const void *data; /* into the mapping; may be unaligned */
    uint64_t offset;  /* of data, from the end of the header */
    uint64_t bytes;
} p4_safetensor;

typedef struct p4_safetensors {
    char *path;
    int64_t count;
    p4_safetensor *tensors; /* sorted by name */
    char *names;            /* what the tensors' names point into */
    void *mapping;
    uint64_t mapping_bytes;
} p4_safetensors;

enum { P4_SAFETENSORS_HEADER_LIMIT = 100000000 }; /* bytes; the format's own limit */

/* Maps a file and checks its header by the rules of the reference reader (no hole, no overlap, no trailing
 * byte, products checked); duplicate names and unknown keys of an entry are refused as well. Memory use is a
 * small multiple of the header's length, whatever it holds. Reads no tensor data. The caller closes. Local.
 */
p4_rc p4_safetensors_open(p4_safetensors *file, const char *path);
/* The same on bytes in memory that the caller keeps alive (fuzzing, tests). Local. */
p4_rc p4_safetensors_parse(p4_safetensors *file, const char *path, const void *bytes, uint64_t byte_count);
void p4_safetensors_close(p4_safetensors *file);
const p4_safetensor *p4_safetensors_find(const p4_safetensors *file, const char *name); /* NULL: not there */

/* Streaming writer: declare all tensors (F32, F16, BF16 or whole numbers), then write their bytes in the
 * order declared, in pieces of any length. The file appears under its name only at
 * p4_safetensors_writer_close with ok = true (temporary name, fsync, rename); else nothing stays. Local. */
typedef struct p4_safetensors_writer p4_safetensors_writer;
typedef struct p4_safetensors_entry {
    const char *name;
    p4_dtype dtype;
    const char *whole; /* not NULL, instead of dtype: "U8", "I32", "U32" or "I64" */
    int rank;
    int64_t shape[4];
} p4_safetensors_entry;
p4_rc p4_safetensors_writer_open(p4_safetensors_writer **writer, const char *path,
                                 const p4_safetensors_entry *entries, int64_t count);
p4_rc p4_safetensors_writer_append(p4_safetensors_writer *writer, const void *bytes, uint64_t byte_count);
/* Lets the disk begin with what was appended; any thread may call it. */
void p4_safetensors_writer_begin_sync(p4_safetensors_writer *writer);
/* ok: all bytes must have come. Frees the writer in any case; NULL is fine. */
p4_rc p4_safetensors_writer_close(p4_safetensors_writer *writer, bool ok);

#endif
