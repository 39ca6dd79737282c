/* options.h - the command lines of the programs beside phase4_mpi, each described by one table: what is
 * accepted, --help and the manual page come from it. All Local. */
#ifndef P4_OPTIONS_H
#define P4_OPTIONS_H

#include <stdio.h>

#include "src/leaf/base.h"

/* What a word with dashes that is no option may have been meant for: a key of the configuration. advice: ends
 * the message; false: it is no key. */
enum { P4_OPTION_ADVICE_BYTES = 160 };
bool p4_option_is_key(char advice[P4_OPTION_ADVICE_BYTES], const char *argument);

typedef struct p4_option {
    const char *name, *short_name; /* "--json", or NULL for short_name */
    const char *value;             /* what the next argument is; NULL: it takes none */
    const char *help;
} p4_option;

typedef struct p4_exit_status {
    const char *status, *meaning;
} p4_exit_status;

/* Every program has these, before its own options. */
enum { P4_OPTION_HELP, P4_OPTION_VERSION, P4_OPTION_OWN };
enum { P4_OPTIONS_MAX = 24 };

typedef struct p4_program {
    const char *name;               /* "phase4_inspect" */
    const char *usage;              /* behind the name */
    const char *purpose;            /* a phrase, for the manual page's first line */
    const char *description;        /* lines, for --help and the manual page */
    const p4_option *options;       /* ended by a name NULL; option i is number P4_OPTION_OWN + i */
    const p4_exit_status *statuses; /* ended by a status NULL */
} p4_program;

typedef struct p4_arguments {
    bool given[P4_OPTIONS_MAX];         /* by the number of the option */
    const char *values[P4_OPTIONS_MAX]; /* of options that take one; NULL: not given */
    char **words; /* the other arguments, in order: the front of argv, behind its name */
    int word_count;
} p4_arguments;

/* Options may stand anywhere, "--" ends them; --help and --version end the reading. P4_E_INPUT: one line,
 * with the nearest known option if one is near. What is read points into argv, which is permuted as getopt
 * does. */
p4_rc p4_program_parse(p4_arguments *arguments, const p4_program *program, int argc, char **argv);
void p4_program_print_help(FILE *out, const p4_program *program);
void p4_program_print_man(FILE *out, const p4_program *program);

#endif
