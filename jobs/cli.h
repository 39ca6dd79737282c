/* cli.h - the command line of phase4_mpi. */
#ifndef P4_CLI_H
#define P4_CLI_H

#include <stdio.h>

#include "src/leaf/base.h"

typedef enum p4_cli_action {
    P4_CLI_RUN,
    P4_CLI_VALIDATE,
    P4_CLI_CHECK,
    P4_CLI_PLAN,
    P4_CLI_MEASURE_RATES,
    P4_CLI_HELP,
    P4_CLI_VERSION,
    P4_CLI_FAMILIES
} p4_cli_action;

typedef struct p4_cli {
    p4_cli_action action;
    bool quiet, strict, log_time;
    /* Of --plan. */
    bool json;
    int ranks, ranks_per_node;       /* 0: not given */
    double memory_bytes, host_bytes; /* 0: not given */
    const char *rates_path;          /* NULL: not given */
    const char *measured_path;       /* of --measure-rates */
    const char *cfg_path;            /* NULL for HELP, VERSION and FAMILIES */
    char **topics;                   /* [topic_count] of HELP, in argv */
    int topic_count;
    char **overrides; /* [override_count] "key=value", for p4_config_read_file; in argv */
    int override_count;
} p4_cli;

/* Reads `phase4_mpi [options] cfg.json [key=value ...]`; options may stand anywhere, "--" ends them. --help,
 * --version and --families end the reading; --help takes the words up to the next option, each "keys",
 * "families" or what p4_config_check_topic takes. The overrides are moved to the beginning of argv.
 * P4_E_INPUT: one line with the nearest known option, if one is near. Keys and values are
 * p4_config_read_file's matter. Local. */
p4_rc p4_cli_parse(p4_cli *cli, int argc, char **argv);

/* "80G", "1.5T", "512MB" in decimal units, as makers of memory state it; "80GiB" in those of p4_format_bytes;
 * or bytes, from 2^20 on. false: it is none of them. Local. */
#define P4_CLI_SIZE "a size, as in 80G or 80GiB (bytes without a unit: 1048576 or more)"
bool p4_cli_read_size(double *bytes, const char *text);

/* The manual page phase4_mpi(1). Local. */
void p4_cli_print_man(FILE *out);

/* Without topics usage, options, exit statuses and the groups of keys; else what the topics name. Local. */
void p4_cli_print_help(FILE *out, char *const *topics, int count);

#endif
