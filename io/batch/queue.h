/* queue.h - the models of a batch, in the order of the user's list (docs/batch.md): configuration files or
 * objects, a directory of models with a template, or a text file of models with a template. */
#ifndef P4_BATCH_QUEUE_H
#define P4_BATCH_QUEUE_H

#include "src/leaf/base.h"

/* The text of one configuration, as a file holds it. The key=value arguments of the command line are not in
 * it. */
typedef struct p4_queue_entry {
    char *name;        /* unique in the queue; names the log, and the model in the journal */
    char *former_name; /* under which earlier versions kept it in the journal; NULL: the same */
    char *source;      /* of the text, for messages: a file, or "queue.json, model 3 (cfg a.json)" */
    char *text;        /* NULL: it could not be read, and `error` says why */
    char *error;
    bool composed; /* the text is put together of the source's parts: it has lines of its own */
    int ranks;     /* exactly so many; 0: by the plan */
    int max_ranks; /* at most; 0: no bound */
} p4_queue_entry;

typedef struct p4_queue {
    int64_t count, capacity;
    p4_queue_entry *entries; /* all of it heap */
} p4_queue;

/* Reads a queue. template_path: a configuration for a text file of models, NULL: `path` is JSON. An entry
 * whose configuration cannot be read keeps its error; P4_E_INPUT: the queue itself is wrong, or two entries
 * have one name. The caller frees, also after an error. Local. */
p4_rc p4_queue_read(p4_queue *queue, const char *path, const char *template_path);
void p4_queue_free(p4_queue *queue);

#endif
