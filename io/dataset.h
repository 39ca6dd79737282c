/* dataset.h - text and token files -> windows of token ids, in an order that depends on the seed only (FORMATS 8).
 *
 * Protocol (DESIGN 2.4): each document is tokenised alone, the end-of-text id is appended, all are concatenated, cut
 * into windows of T tokens; the last partial window is dropped. */
#ifndef P4_DATASET_H
#define P4_DATASET_H

#include "phase4.h"
#include "tokenizer.h"

/* A stream of documents from files: .txt (a document a file), .jsonl/.json (one object a line, field text), .gz and .zst of both
 * (recognised by content, not only by name). */
typedef struct p4_documents p4_documents;
typedef enum p4_split { P4_SPLIT_CALIBRATION, P4_SPLIT_TRAIN, P4_SPLIT_EVAL } p4_split;

/* Which files a split reads, as the configuration says: eval_files / train_files when given, else the named dataset
 * under dataset_root, or calibration_files for "custom". *held_out: the eval split has no files of its own, so windows are
 * set aside from the calibration data. Globs are expanded, sorted; a pattern without a match is an error that names it. Local. */
p4_rc p4_dataset_files(const p4_config *config, p4_split split, char ***paths, int64_t *count, bool *held_out);
void p4_dataset_files_free(char **paths, int64_t count);

/* Token windows in memory: ids[count * T]. */
typedef struct p4_windows {
    int32_t *ids;
    int64_t count, T;
    int64_t tokens_total; /* of the whole stream read, the dropped tail included */
    int64_t documents, replaced_bytes;
} p4_windows;

/* Reads files in order on `threads` threads until `limit` windows are full (0: all). Text is tokenised; token files
 * (llm.c by magic, raw uint16 nanoGPT .bin) are taken as they are. Every id is checked against `vocab`. end_id is appended
 * to each document (-1: nothing). tokenizer may be NULL for token files only. The same windows whatever `threads` is. Local. */
p4_rc p4_windows_read(p4_windows *windows, char *const *paths, int64_t path_count, const p4_tokenizer *tokenizer,
                      int64_t T, int64_t limit, int64_t vocab, int32_t end_id, int threads);
/* From samples in memory (set_custom_samples): one document each. Local. */
p4_rc p4_windows_from_samples(p4_windows *windows, const char *const *samples, int64_t count, const p4_tokenizer *tokenizer,
                              int64_t T, int64_t limit, int64_t vocab, int32_t end_id, int threads);
void p4_windows_free(p4_windows *windows);

/* Reads documents one by one: *text is valid until the next call; *bytes < 0 at the end. Local. */
p4_rc p4_documents_open(p4_documents **documents, const char *path);
p4_rc p4_documents_next(p4_documents *documents, const char **text, int64_t *bytes);
void p4_documents_close(p4_documents *documents);

#endif
