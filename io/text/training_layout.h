/* training_layout.h - the files that hold the training tokens, and how they make one stream. Rank 0 finds it
 * out and sends it to every rank. */
#ifndef P4_TRAINING_LAYOUT_H
#define P4_TRAINING_LAYOUT_H

#include "dist/group.h"
#include "io/file/fingerprint.h"
#include "io/text/training_set.h"

/* A file to map: a token file, or the cache of what was tokenized. */
typedef struct p4_training_file {
    char fingerprint[P4_FINGERPRINT_BYTES];
    char form[16];   /* format of a token file, whose ids are checked against vocab; "": the cache, written by
                        this program */
    int64_t path_at; /* in names */
    int64_t ids_at, id_bytes, count; /* `count` ids from byte ids_at of the file on */
} p4_training_file;

/* The tokens of one file that was named; the stream is these one after another. */
typedef struct p4_training_part {
    int64_t file, first, count; /* ids [first, first + count) of files[file] */
} p4_training_part;

typedef struct p4_training_layout {
    int64_t T, vocab, end_id;
    int64_t windows; /* of the stream */
    int64_t file_count, part_count, aside_count, name_bytes;
    p4_training_file *files; /* [file_count] */
    p4_training_part *parts; /* [part_count] */
    p4_mixed_windows mixed;  /* of the stream, those that are set aside included */
    int64_t *aside;          /* [aside_count] windows that are not trained on, rising */
    char *names;             /* [name_bytes] paths, each with its NUL */
} p4_training_layout;

/* Finds the files' tokens, tokenizes what is text, or finds it in the cache, and picks the windows that are
 * set aside. *temporary: a heap string, the file that is to be removed when the set is closed, or NULL.
 * The caller frees with p4_training_layout_free, also after
 * an error. Local. */
p4_rc p4_training_layout_make(p4_training_layout *layout, const p4_training_source *source, char **temporary);
/* Rank 0's to everyone. Collective. */
p4_rc p4_training_layout_share(p4_training_layout *layout, p4_group *group);
void p4_training_layout_free(p4_training_layout *layout);

#endif
