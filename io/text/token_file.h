/* token_file.h - token files, mapped and read in place: llm.c's (a header of 256 int32, then ids), and raw
 * uint16 ids as nanoGPT and llama2.c write them. */
#ifndef P4_TOKEN_FILE_H
#define P4_TOKEN_FILE_H

#include "src/leaf/base.h"

typedef struct p4_token_file {
    char *path;
    const char *form; /* "llm.c GPT-2 ids", for messages */
    const void *ids;  /* [count] of id_bytes, 2 or 4, unsigned; the mapping's */
    int64_t count;
    int id_bytes;
    void *mapping;
    size_t mapping_bytes;
} p4_token_file;

/* Finds the form by the first four bytes, checks the sizes and maps the file. No id is read. The caller
 * closes. Local. */
p4_rc p4_token_file_open(p4_token_file *file, const char *path, int64_t vocab);
/* Maps a file that is known to hold `count` ids of id_bytes from byte ids_at on; `form` must live as long as
 * the result. The caller closes. Local. */
p4_rc p4_token_file_map(p4_token_file *file, const char *path, const char *form, int64_t ids_at, int id_bytes,
                        int64_t count);
/* Reads ids [first, first + count), which must all be below vocab, and adds the number of those that are
 * end_id to *ends. Keeps no page of the file in this process. Local. */
p4_rc p4_token_file_check(const p4_token_file *file, int64_t first, int64_t count, int64_t vocab,
                          int32_t end_id, int64_t *ends);
/* Always fails: token `at` is not in the vocabulary. */
p4_rc p4_token_file_refuse_id(const p4_token_file *file, int64_t at, int64_t vocab);
/* Warns if there is no end-of-text id (`ends` 0) among many tokens. */
void p4_token_file_warn_of_ends(const p4_token_file *file, int32_t end_id, int64_t ends, int64_t count);
void p4_token_file_close(p4_token_file *file);

#endif
