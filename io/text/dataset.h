/* dataset.h - text and token files -> windows of token ids, in the order of the files and of the documents in
 * them.
 *
 * Protocol (DESIGN 2.4): each document is tokenised alone, the end-of-text id is appended, all are
 * concatenated, cut into windows of T tokens; the last partial window is dropped. */
#ifndef P4_DATASET_H
#define P4_DATASET_H

#include "io/tokenizer/tokenizer.h"
#include "src/phase4.h"

typedef enum p4_split { P4_SPLIT_CALIBRATION, P4_SPLIT_TRAIN, P4_SPLIT_EVAL } p4_split;

/* Which files a split reads, as the configuration says: eval_files / train_files when given, else the named
 * data set under dataset_root, or calibration_files for "custom". Patterns are expanded, sorted by bytes,
 * each file once; a folder stands for the text files in it. A pattern without a match and a data set that is
 * not there are errors that say what was looked for. *held_out: the eval split has no files of its own,
 * *paths are the calibration data, of which the caller sets windows aside. The caller frees with
 * p4_dataset_files_free. Local. */
p4_rc p4_dataset_files(const p4_config *config, p4_split split, char ***paths, int64_t *count,
                       bool *held_out);
void p4_dataset_files_free(char **paths, int64_t count);

/* Token windows in memory: ids[count * T]. tokens_total counts the stream that was read: the dropped tail,
 * and with a limit the rest of the document that filled the last window. */
typedef struct p4_windows {
    int32_t *ids;
    int64_t count, T;
    int64_t tokens_total, documents;
    int64_t replaced_bytes; /* invalid UTF-8, and halves of surrogate pairs in JSON, that became U+FFFD */
} p4_windows;

/* Reads files in order until `limit` windows are full (0: all). Text is tokenised on `threads` threads; .bin
 * files are token ids, taken as they are: llm.c's by their magic, else raw uint16 (nanoGPT). Every id is
 * checked against `vocab`. end_id is appended to each document (-1: nothing). tokenizer may be NULL when all
 * are token files. The windows are the same whatever `threads` is; less than one window is an error. The
 * caller frees with p4_windows_free. Local. */
p4_rc p4_windows_read(p4_windows *windows, char *const *paths, int64_t path_count,
                      const p4_tokenizer *tokenizer, int64_t T, int64_t limit, int64_t vocab, int32_t end_id,
                      int threads);
/* From samples in memory (set_custom_samples): one document each. Local. */
p4_rc p4_windows_from_samples(p4_windows *windows, const char *const *samples, int64_t count,
                              const p4_tokenizer *tokenizer, int64_t T, int64_t limit, int64_t vocab,
                              int32_t end_id, int threads);
void p4_windows_free(p4_windows *windows);

/* A stream of documents from one file: .txt (a document a file), .jsonl/.json (one object a line; field text,
 * else content, raw_content, document), WikiText's .raw/.tokens (an article a document), each plain or behind
 * gzip, zstd or xz, and tar archives of those, nested too. Layers are recognised by content; parquet and
 * arrow are refused with the conversion. */
typedef struct p4_documents p4_documents;

/* A document, or a piece of one: plain text beyond 4 MiB is handed out in pieces that end at line ends, to be
 * tokenised one by one (byte-level BPE gives the ids of the whole; a tokenizer that marks the start of a text
 * marks each piece). */
typedef struct p4_document {
    const char *text; /* UTF-8 as in the file, not NUL-terminated; valid until the next call */
    int64_t bytes;    /* < 0: there are no more documents */
    bool continues;   /* the next piece belongs to the same document */
    int64_t replaced; /* halves of surrogate pairs in JSON that became U+FFFD */
} p4_document;
p4_rc p4_documents_open(p4_documents **documents, const char *path);
p4_rc p4_documents_next(p4_documents *documents, p4_document *document);
void p4_documents_close(p4_documents *documents);

#endif
