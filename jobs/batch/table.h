/* table.h - what a person sees of a batch that runs: a table that is redrawn on a terminal, else a line for
 * each event. Local, rank 0. */
#ifndef P4_BATCH_TABLE_H
#define P4_BATCH_TABLE_H

#include <stdio.h>

#include "jobs/batch/batch.h"

typedef struct p4_batch_table {
    bool live, quiet;
    int lines; /* of the drawn table */
    double drawn_s;
} p4_batch_table;

void p4_batch_table_open(p4_batch_table *table, const p4_batch_options *options);
/* A line for an event: model NULL for one of the batch. */
void p4_batch_table_say(p4_batch_table *table, const char *format, ...) P4_PRINTF(2, 3);
/* The table as it is now; twice a second at most unless `now`. */
void p4_batch_table_draw(p4_batch_table *table, const p4_batch *batch, bool now);

/* "40 s", "12 min", "3.5 h", "-" for NAN: into the buffer, which is returned. */
char *p4_batch_format_seconds(char text[32], double seconds);

#endif
