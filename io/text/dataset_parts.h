/* dataset_parts.h - what the files of the dataset reader share among themselves. */
#ifndef P4_DATASET_PARTS_H
#define P4_DATASET_PARTS_H

#include "io/text/dataset.h"
#include "src/leaf/base.h"

/* A longer text is handed out in pieces of at most this size, so that memory is bounded and threads share one
 * file. */
enum { P4_PIECE_BYTES = 4 << 20 };

/* What a file is by its name, without the endings .gz, .zst, .xz and .bz2 (data_names.c). */
typedef enum p4_data_kind {
    P4_DATA_OTHER,
    P4_DATA_TEXT,     /* .txt .text */
    P4_DATA_JSONL,    /* .jsonl .json .ndjson */
    P4_DATA_ARTICLES, /* .raw .tokens */
    P4_DATA_TOKENS,   /* .bin */
    P4_DATA_ARCHIVE,  /* .tar .tgz */
    P4_DATA_TABLE,    /* .parquet .arrow .csv */
} p4_data_kind;
p4_data_kind p4_data_kind_of(const char *path);
/* Whether a file is read when the folder or the archive around it was named: text by its name and no hidden
 * file, no README or LICENSE, and no plain .json (in such folders those describe the data). */
bool p4_data_is_wanted(const char *path);
p4_rc p4_data_refuse_table(const char *path); /* always fails: how to convert */

#endif
