/* token_cache.h - text that was tokenized, in a file that later runs use again.
 *
 * A file holds a header, the key, the ids (2 bytes each where the vocabulary allows it), and how many tokens
 * each text has. The key says in words what the ids are of: tokenizer, end of text, and for each text its
 * kind, its version and which part of it was read. The version (p4_fingerprint_version) is the checksum of a
 * file up to 16 MiB, under any path; of a larger file it is a sampled checksum, the size, the time of the
 * last write and the inode. The window length is not part of the key, unless a sample was drawn for that
 * length. The file's name is a hash of the key. It appears under that name when it is complete; opening it
 * compares a checksum over all of it. */
#ifndef P4_TOKEN_CACHE_H
#define P4_TOKEN_CACHE_H

#include "io/text/tokenize.h"

typedef struct p4_token_cache {
    const void *ids; /* [count] of id_bytes, 2 or 4; the mapping's, like `counts` */
    int id_bytes;
    int64_t count, ids_at; /* byte of the file at which the ids begin */
    const int64_t *counts; /* [text_count] tokens of each text */
    int64_t text_count;
    void *mapping;
    size_t mapping_bytes;
} p4_token_cache;

/* *key: a heap string for what tokenizing `texts` gives, which reads parts of all of them. The caller frees.
 * Local.
 */
p4_rc p4_token_cache_key(char **key, const p4_texts *texts, const p4_windowing *how);
/* The name of the file for a key, in a folder: a heap string, NULL when memory is out. */
char *p4_token_cache_path(const char *folder, const char *key);
/* Maps the file if it is there and holds what `key` says. *found is false if there is none, and also, after a
 * warning that says why, if it is damaged or another one's. The caller closes. Local. */
p4_rc p4_token_cache_open(p4_token_cache *cache, const char *path, const char *key, bool *found);
/* Tokenizes `texts` into the file, which replaces one that is there. *counts is added to. Local. */
p4_rc p4_token_cache_make(const char *path, const char *key, const p4_texts *texts, const p4_windowing *how,
                          p4_text_counts *counts);
void p4_token_cache_close(p4_token_cache *cache);

#endif
