/* writers.h - the formats of other programs that a compressed model is written in, as a table. Their names
 * are those of src/exports.h; docs/formats.md describes what each writes. */
#ifndef P4_EXPORT_WRITERS_H
#define P4_EXPORT_WRITERS_H

#include "io/export/source.h"

enum { P4_WRITER_TEXT_BYTES = 128 };

typedef struct p4_writer {
    const char *name;   /* in the list `exports`, behind phase4_export --to, and the ID of the output */
    const char *output; /* its name in the output directory */
    /* Can this model be written so that the runtime computes what it says? P4_E_INPUT names what it cannot
     * take. Reads no weight. */
    p4_rc (*check)(const p4_export_source *source);
    /* Can these weights be stored? P4_E_INPUT names the tensor and the scale that the format does not hold.
     * NULL: the format holds all. `write` checks it too. */
    p4_rc (*check_weights)(const p4_export_source *source);
    /* What is in the file or directory, for a line of the log: "GGUF, TQ2_0". Reads no weight. */
    p4_rc (*describe)(const p4_export_source *source, char text[P4_WRITER_TEXT_BYTES]);
    /* About how many bytes will be written. */
    p4_rc (*plan)(const p4_export_source *source, double *bytes);
    /* Writes a file or a directory, complete or not at all. */
    p4_rc (*write)(const p4_export_source *source, const char *path);
} p4_writer;

/* NULL: there is none of this name. */
const p4_writer *p4_writer_find(const char *name);

/* The rows, by file. */
extern const p4_writer p4_writer_gguf;               /* gguf.c */
extern const p4_writer p4_writer_compressed_tensors; /* compressed_tensors.c */
extern const p4_writer p4_writer_mlx;                /* mlx.c */
extern const p4_writer p4_writer_bitnet;             /* bitnet.c */

#endif
