/* journal.h - what a batch did with each model: one line of JSON an event, appended and synchronized
 * (docs/formats.md). The state of a batch is what its journal says and nothing else.
 *
 * Each attempt at a model has a number, one more than all before. Only the events of a model's newest attempt
 * count: what a process that was believed dead writes later cannot replace a newer result. An attempt that
 * was completed before is kept beside it: one that was refused because of its results has not touched them.
 */
#ifndef P4_BATCH_JOURNAL_H
#define P4_BATCH_JOURNAL_H

#include "io/file/fingerprint.h"
#include "io/out/hold.h"
#include "src/leaf/base.h"

#define P4_JOURNAL_FILE "journal.jsonl"

typedef enum p4_batch_event {
    P4_BATCH_STARTED,
    P4_BATCH_DONE,
    P4_BATCH_VERDICT, /* done, and the quality verdict failed; `error` says why */
    P4_BATCH_FAILED,
    P4_BATCH_STOPPED, /* asked to stop: it continues from its checkpoint */
    P4_BATCH_EVENTS
} p4_batch_event;
extern const char *const p4_batch_event_names[P4_BATCH_EVENTS];

/* One line. Numbers that were not measured are NAN. */
typedef struct p4_batch_record {
    p4_batch_event event;
    char *name, *output_path, *error; /* heap; error: "" or NULL for none */
    int64_t attempt;                  /* from 1 */
    int64_t ranks, first_rank;        /* of the group; the first one's rank in the job */
    int64_t warnings;                 /* that the run gave */
    int64_t status;                   /* exit status of a run of its own; 0 of one that started */
    char config[P4_FINGERPRINT_BYTES], model[P4_FINGERPRINT_BYTES]; /* fingerprints; "": not known */
    char defaults[P4_FINGERPRINT_BYTES]; /* of the version that took `config` (io/batch/defaults.h) */
    char time[P4_TIME_BYTES];            /* of the event, UTC, by the clock of the batch's rank 0 */
    char ended[P4_TIME_BYTES]; /* of a completed run as its results.json has it, by the clock of its first
                                  rank; "": not known */
    double seconds;            /* from its start in this attempt */
    double pre_perplexity, perplexity, compression_ratio, compressed_mb;
    double peak_memory_mb; /* of the largest rank since the start of its process */
    double held_memory_mb; /* anonymous memory of the group's first rank after the model was closed */
} p4_batch_record;

void p4_batch_record_init(p4_batch_record *record);
void p4_batch_record_free(p4_batch_record *record);
/* The members of a record as an object's, for the journal and batch_results.json; `object` is a cJSON.
 * false: memory is out. */
bool p4_batch_record_put(void *object, const p4_batch_record *record);

/* The newest attempt of each model. */
typedef struct p4_journal_state p4_journal_state;
/* Reads the journal of a state directory and those of its tasks (task-N/); none is no error. A line that its
 * writer did not finish, at the end of a file, is left out; any other that is no event is P4_E_INPUT with
 * file and line. The caller frees. Local. */
p4_rc p4_journal_read(p4_journal_state **state, const char *directory);
void p4_journal_state_free(p4_journal_state *state); /* NULL is fine. */
/* NULL: nothing is known of the model. Valid until the state is freed. */
const p4_batch_record *p4_journal_find(const p4_journal_state *state, const char *name);
/* The newest attempt that was completed, whatever later ones came to. NULL: none was. As p4_journal_find. */
const p4_batch_record *p4_journal_find_done(const p4_journal_state *state, const char *name);

typedef struct p4_journal p4_journal;
/* Takes the hold on the directory, which is made, and opens its journal; what a killed writer left of a line
 * at its end is removed. P4_E_INPUT: another batch holds it (hold.h). The caller closes. Local. */
p4_rc p4_journal_open(p4_journal **journal, const char *directory);
void p4_journal_close(p4_journal *journal); /* NULL is fine. */
/* Appends a line and waits until it is on the disk. P4_E_HOLD: the directory is no longer this batch's. */
p4_rc p4_journal_append(p4_journal *journal, const p4_batch_record *record);

#endif
