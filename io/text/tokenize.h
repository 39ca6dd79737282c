/* tokenize.h - text to token ids on several threads. One thread reads, others tokenize, and the reading
 * thread collects their ids in the order of the documents, so the ids do not depend on the number of threads.
 */
#ifndef P4_TOKENIZE_H
#define P4_TOKENIZE_H

#include "io/text/dataset.h"

/* Files of text, or samples in memory, each sample a document. */
typedef struct p4_texts {
    char *const *paths;
    const p4_draw *draws;       /* [count] which part of each file is read, stride 0: nothing; NULL: all */
    const char *const *samples; /* instead of paths */
    int64_t count;
} p4_texts;

typedef struct p4_text_counts {
    int64_t documents, tokens;
    int64_t bytes, words; /* of the text (io/text/words.h) */
} p4_text_counts;

/* Takes the ids of one document, or of a piece of one, in the order of the texts. source: index of the file
 * or sample. Every id is in the vocabulary. The counts include what is taken. */
typedef p4_rc (*p4_take_ids)(void *user, int64_t source, const int32_t *ids, int64_t count);

/* Tokenizes all documents of `texts`, each alone, and appends the end-of-text id to each. Token files among
 * the paths are passed over. *counts is added to. A warning names the first file with bytes that are not
 * UTF-8, which become U+FFFD; errors name the file and the document. Local. */
p4_rc p4_tokenize(const p4_texts *texts, const p4_windowing *how, p4_take_ids take, void *user,
                  p4_text_counts *counts);

#endif
