/* chunks.h - a dataset in chunks of whole rows, read from the file itself: HDF5, which one thread of a
 * process uses at a time, only says where the chunks lie. */
#ifndef P4_H5_CHUNKS_H
#define P4_H5_CHUNKS_H

#include "io/h5/read.h"

typedef struct p4_h5_chunks {
    int fd;           /* the file's */
    const char *path; /* the file's */
    char *name;       /* the dataset's, heap */
    int64_t rows;     /* of each chunk; 0: the dataset is not in chunks of whole rows */
    int64_t bytes;    /* of each chunk's data; the last one is stored whole */
    int64_t count; /* 0: they can be read through HDF5 only: a filter other than the checksum, for example */
    uint64_t *places; /* in the file, heap [count] */
} p4_h5_chunks;

/* Of a dataset that p4_h5_describe accepted, while the file is open. The caller frees. Local; as with HDF5,
 * one thread at a time. */
p4_rc p4_h5_chunks_find(p4_h5_chunks *chunks, const p4_h5_file *file, const char *name,
                        const p4_h5_shape *shape);
void p4_h5_chunks_free(p4_h5_chunks *chunks);

/* Chunks [first, first + count) one behind the other, with P4_FLETCHER32_BYTES more behind the last.
 * P4_E_INPUT: the checksum of one does not match, or the file ends in it. Several threads at once. Local. */
p4_rc p4_h5_chunks_read(const p4_h5_chunks *chunks, void *bytes, int64_t first, int64_t count);

#endif
