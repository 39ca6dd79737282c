/* cli.h - the command line of phase4_batch. */
#ifndef P4_BATCH_CLI_H
#define P4_BATCH_CLI_H

#include "jobs/batch/batch.h"
#include "jobs/options.h"

typedef enum p4_batch_action {
    P4_BATCH_RUN,
    P4_BATCH_CHECK,
    P4_BATCH_PLAN,
    P4_BATCH_RESULTS,
    P4_BATCH_LIST,
    P4_BATCH_HELP,
    P4_BATCH_VERSION
} p4_batch_action;

typedef struct p4_batch_cli {
    p4_batch_action action;
    p4_batch_options options;
    const char *state; /* --state; NULL: beside the queue */
    const char *list;  /* --list: "all", "open" or "failed" */
} p4_batch_cli;

/* Exit status of the program: some models failed. The others are phase4_mpi's. */
enum { P4_BATCH_STATUS_VERDICT = 3, P4_BATCH_STATUS_FAILED = 5 };

/* Reads `phase4_batch [options] queue.json [key=value ...]`. P4_E_INPUT: one line. Local. */
p4_rc p4_batch_cli_parse(p4_batch_cli *cli, int argc, char **argv);
extern const p4_program p4_batch_program; /* its options, --help and manual page */

#endif
