/* dataset_parts.h - what the files of the dataset reader share among themselves. */
#ifndef P4_DATASET_PARTS_H
#define P4_DATASET_PARTS_H

#include "io/text/dataset.h"
#include "src/leaf/base.h"

/* A longer plain text is handed out in pieces of this size, so that memory is bounded and threads share one
 * file. */
enum { P4_PIECE_BYTES = 4 << 20 };

/* ---- data_names.c: what a file is by its name, .gz, .zst and .xz taken off
 * ---------------------------------------- */

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
/* A file that is read when the folder or the archive around it was named: text by its name and no hidden
 * file, no README or LICENSE, and no plain .json (in such folders those describe the data). */
bool p4_data_is_wanted(const char *path);
p4_rc p4_data_refuse_table(const char *path); /* always fails: how to convert */

/* ---- token_files.c and windows.c
 * ---------------------------------------------------------------------------------- */

/* Windows being filled. */
typedef struct p4_filling {
    p4_windows *windows;
    int64_t limit_ids; /* INT64_MAX: no limit */
    int64_t used, capacity;
    int64_t vocab;
    int32_t end_id;
} p4_filling;
static inline bool p4_filling_full(const p4_filling *filling)
{
    return filling->used >= filling->limit_ids;
}
/* Takes `count` ids of the stream; what is beyond the limit is counted in tokens_total and not kept. *bad:
 * index of the first id that is no id of the vocabulary, -1 when all are; nothing is taken then. Local. */
p4_rc p4_filling_add(p4_filling *filling, const int32_t *ids, int64_t count, int64_t *bad);

/* Reads one token file (llm.c, or raw uint16) until its end or until `filling` is full. Local. */
p4_rc p4_token_file_read(p4_filling *filling, const char *path);

#endif
