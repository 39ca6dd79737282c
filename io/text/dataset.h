/* dataset.h - text and token files to windows of token ids.
 *
 * Protocol: each document is tokenized alone and the end-of-text id is appended; all documents of all files
 * are joined, in the order of the files and of the documents in them, into one stream, which is cut into
 * windows of T tokens. The last partial window is dropped.
 *
 * Sampling: where fewer windows are wanted than there are, they are drawn from all files and from all of each
 * file. What is drawn depends on the seed, the files, T and the number of windows, never on the number of
 * ranks or threads. io/text/sample.h says how. */
#ifndef P4_DATASET_H
#define P4_DATASET_H

#include "io/text/json_line.h"
#include "io/text/mixture.h"
#include "io/tokenizer/tokenizer.h"
#include "src/leaf/base.h"
#include "src/phase4/types.h"

/* ---- which files: dataset_files.c ---- */

typedef enum p4_split { P4_SPLIT_CALIBRATION, P4_SPLIT_TRAIN, P4_SPLIT_EVAL } p4_split;

/* The files of one split. */
typedef struct p4_split_files {
    char **paths;
    int64_t count;
    bool held_out; /* of P4_SPLIT_EVAL: they are the calibration data, of which the caller sets windows aside
                    */
    p4_mixture mixture; /* of train_weights or calibration_weights */
} p4_split_files;

/* Which files a split reads, as the configuration says: eval_files / train_files when given, else the named
 * data set under dataset_root, or calibration_files for "custom". Patterns are expanded, sorted by bytes,
 * each file once; a folder stands for the text files in it. A pattern without a match and a data set that is
 * not there are errors that say what was looked for. The caller frees with p4_split_files_free, after an
 * error too. Local. */
p4_rc p4_dataset_files(p4_split_files *files, const p4_config *config, p4_split split);
/* Of set `set` of eval_sets. */
p4_rc p4_dataset_set_files(p4_split_files *files, const p4_config *config, int set);
void p4_split_files_free(p4_split_files *files);

/* ---- windows in memory: windows.c ---- */

/* How text and tokens become windows. */
typedef struct p4_windowing {
    const p4_tokenizer *tokenizer; /* NULL: only token files can be read */
    int64_t T, vocab;              /* every id is checked against vocab */
    int32_t end_id;                /* end of text, appended to each document; -1: nothing is */
    int threads;                   /* that tokenize; below 1: one does */
    uint64_t seed;                 /* of what is drawn */
    p4_json_reading json;          /* of lines of JSONL */
    const p4_mixture *opt_mixture; /* of the files; NULL: each counts by its size */
    const char *opt_what;          /* what the windows are for, in messages about too few; NULL: not said */
    /* Tokens from the beginning of a window to that of the next, below T: windows overlap, and of each only
     * the last `stride` tokens are predicted; of the first of the stream all are. 0: windows side by side. */
    int64_t stride;
} p4_windowing;

/* Tokens [from, to) of a window, all of one document, each of which is predicted from those before it. */
typedef struct p4_window_part {
    int64_t window, document; /* document: below p4_windows.part_documents */
    int64_t from, to;         /* from: at least 1 */
} p4_window_part;

/* A document as text; -1: not known, as it came as token ids. */
typedef struct p4_document_text {
    int64_t tokens; /* all of it, with the end-of-text id */
    int64_t bytes, words;
} p4_document_text;

/* Windows of calibration and evaluation: ids[count * T]. */
typedef struct p4_windows {
    int32_t *ids;
    int64_t count, T;
    int64_t stride;     /* of overlapping windows; 0: side by side */
    bool begins_stream; /* window 0 is the first of the stream */
    int64_t
        tokens_total;  /* of the stream that the windows are of: what was tokenized, and token files whole */
    int64_t documents; /* that were tokenized */
    /* Which document each predicted token is of, in the order of the windows (io/text/window_parts.h). */
    p4_window_part *parts;
    int64_t part_count, part_documents;
    p4_document_text *texts; /* [part_documents] */
} p4_windows;

/* The first token of a window that is predicted, at least 1. */
static inline int64_t p4_window_first(const p4_windows *windows, int64_t window)
{
    bool all = windows->stride == 0 || (window == 0 && windows->begins_stream);
    return all ? 1 : windows->T - windows->stride;
}
/* Windows of T tokens in a stream. */
static inline int64_t p4_windows_in(int64_t tokens, int64_t T, int64_t stride)
{
    return tokens < T ? 0 : stride == 0 ? tokens / T : (tokens - T) / stride + 1;
}

/* Draws `limit` windows from the files, in the order of the stream; all of them, if there are no more or
 * limit is 0. Text is tokenized; .bin files are token ids, taken as they are: llm.c's by their magic, else
 * raw uint16 (nanoGPT). Less than one window is an error. The caller frees with p4_windows_free. Local. */
p4_rc p4_windows_read(p4_windows *windows, char *const *paths, int64_t path_count, const p4_windowing *how,
                      int64_t limit);
/* The same from samples in memory (set_custom_samples), one document each. Local. */
p4_rc p4_windows_from_samples(p4_windows *windows, const char *const *samples, int64_t count,
                              const p4_windowing *how, int64_t limit);
/* Moves `count` windows of `from`, which are spread over all of it by the seed, to `to`. The rest keeps its
 * order. The caller frees both. Local. */
p4_rc p4_windows_set_aside(p4_windows *from, p4_windows *to, int64_t count, uint64_t seed);
/* *to: a copy of `count` windows of `from`, spread over all of it by the seed, in its order. The caller
 * frees. Local. */
p4_rc p4_windows_copy_some(const p4_windows *from, p4_windows *to, int64_t count, uint64_t seed);
/* Frees what says of which documents the tokens are. */
void p4_windows_forget_documents(p4_windows *windows);
void p4_windows_free(p4_windows *windows);

/* ---- documents: documents.c ---- */

/* A stream of documents from one file: .txt (a document a file), .jsonl/.json (one object a line: a text or a
 * conversation, json_line.h), WikiText's .raw/.tokens (an article a document), each plain or behind
 * gzip, zstd, xz or bzip2, and tar archives of those, nested too. Layers are recognized by content; parquet
 * and arrow are refused with the conversion. */
typedef struct p4_documents p4_documents;

/* A document, or a piece of one: what is longer than 4 MiB is handed out in pieces that end at line ends, to
 * be tokenized one by one (byte-level BPE gives the ids of the whole; a tokenizer that marks the start of a
 * text marks each piece). */
typedef struct p4_document {
    const char *text; /* UTF-8 as in the file, not NUL-terminated; valid until the next call */
    int64_t bytes;    /* < 0: there are no more documents */
    bool continues;   /* the next piece belongs to the same document */
    int64_t replaced; /* what became U+FFFD in a line of JSON (json_line.h) */
} p4_document;

/* A sample of a file. The decompressed bytes of its texts, one text after another, are divided into blocks of
 * block_bytes; of every `stride` blocks (at least 1) one is drawn, by (seed, stream). What begins in a drawn
 * block belongs to the sample: a line of JSONL, an article, or a piece of a plain text, which is divided into
 * pieces of block_bytes; these are cut at line ends and become documents of their own. So the sample does not
 * depend on the compression of the file. Lines that are not drawn are not parsed, and the blocks of a plain
 * file that are not drawn are not read, except those of articles. */
typedef struct p4_draw {
    int64_t block_bytes;
    double stride;
    uint64_t seed, stream;
} p4_draw;

p4_rc p4_documents_open(p4_documents **documents, const char *path);
/* Reads a sample instead of the whole file. To be called before the first document is read. Local. */
void p4_documents_sample(p4_documents *documents, const p4_draw *draw);
/* Lines of JSONL are read in this way, not by the usual fields; what it points to outlives the documents. To
 * be called before the first document is read. Local. */
void p4_documents_read_json(p4_documents *documents, const p4_json_reading *reading);
p4_rc p4_documents_next(p4_documents *documents, p4_document *document);
void p4_documents_close(p4_documents *documents);

#endif
