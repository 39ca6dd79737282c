/* config.h - the configuration table: one row a key. Defaults, validation, --help, the JSON reader and writer
 * and docs/configuration.md all come from it, so a new key is a field of p4_config, a row here, and nothing
 * else. */
#ifndef P4_CONFIG_H
#define P4_CONFIG_H

#include <stdio.h>

#include "src/leaf/base.h"
#include "src/phase4/types.h"

typedef enum p4_config_type {
    P4_CONFIG_BOOL,
    P4_CONFIG_INT32,
    P4_CONFIG_INT64,
    P4_CONFIG_UINT64,
    P4_CONFIG_REAL,
    P4_CONFIG_ENUM,
    P4_CONFIG_PATH,    /* char[P4_PATH_BYTES] */
    P4_CONFIG_NAME,    /* char[P4_NAME_BYTES] */
    P4_CONFIG_LIST,    /* p4_list */
    P4_CONFIG_NUMBERS, /* p4_numbers */
    P4_CONFIG_SETS,    /* p4_sets */
} p4_config_type;

typedef struct p4_config_row {
    const char *name; /* the key of cfg.json and the field of p4_config */
    p4_config_type type;
    size_t offset, bytes;    /* of the field in p4_config */
    const char *group;       /* title; only the first row of a group has one */
    const char *more;        /* in that row: pages that say more, "docs/PAGE.md: HEADING; ..." */
    double seed, quality;    /* defaults of numbers; 0 or 1 of a BOOL; the index of an ENUM */
    const char *text;        /* default of a PATH or NAME, in every recipe; LIST, NUMBERS, SETS start empty */
    double min, max;         /* bounds of INT32, INT64, REAL and each of NUMBERS; every UINT64 is allowed */
    bool min_open, max_open; /* the bound itself is not allowed */
    double step;             /* > 0: only min, min + step, ..., max */
    const char *word;        /* of INT32, INT64 and REAL: a word that is allowed besides the range */
    double word_value;       /* its value in p4_config */
    const char *const *names; /* of an ENUM, NULL-terminated, in the order of the C constants */
    int true_name; /* of an ENUM that is a switch too: JSON true is this name, false the first; 0: it is none
                    */
    bool fixed;    /* of an open model: its weights, their form, the device that holds them */
    bool may_change;  /* a run may continue from a checkpoint with another value */
    bool no_result;   /* only says where results lie or how a run is continued. Fewer than may_change, which
                         texts and numbers of steps have too */
    bool holds_paths; /* a PATH, or a LIST or SETS of paths and patterns */
    const char *const
        *no_paths;       /* of such a PATH: words that it may be instead, NULL-terminated; NULL: none */
    const char *refusal; /* a fixed text that ends the message of a refused value, or NULL; one that begins
                          * with the name says what is allowed */
    const char *help;    /* one line */
} p4_config_row;

extern const char *const p4_recipe_names[]; /* in the order of p4_recipe, then NULL */

/* A default of the recipes quick and thorough that is not that of quality (docs/quality.md 1). */
typedef struct p4_config_difference {
    p4_recipe recipe;
    const char *key;
    double value;
} p4_config_difference;
extern const p4_config_difference p4_config_differences[];
extern const int p4_config_differences_count;

enum { P4_CONFIG_ROWS_MAX = 128 }; /* the bits of p4_config.user_set */
extern const p4_config_row p4_config_table[];
extern const int p4_config_rows;

/* The problems found in one configuration, one a line, each with its source and line when known. A fixed
 * buffer: what does not fit is counted and said. */
typedef struct p4_config_report {
    const char *source;               /* "cfg.json", or NULL for a p4_config in memory */
    const char *unplaced;             /* what is named for a value without a line; NULL: the source */
    bool lineless;                    /* the text was composed: its lines are none that the user can find */
    int lines[P4_CONFIG_ROWS_MAX];    /* where each row's value stands in the source; below 1: not there */
    bool refused[P4_CONFIG_ROWS_MAX]; /* rows with a complaint, which the rules between keys leave alone */
    bool unreadable;                  /* no keys could be read: the rules between them say nothing */
    int count, left_out;
    size_t used;
    char text[15360];
} p4_config_report;

/* Adds a problem; `line` below 1 is unknown. Local. */
void p4_config_complain(p4_config_report *report, int line, const char *format, ...) P4_PRINTF(3, 4);
/* Adds `key "NAME": found FOUND, expected ...` with what the row allows. Local. */
void p4_config_complain_value(p4_config_report *report, int line, const p4_config_row *row,
                              const char *found);
/* P4_OK when nothing was found, else P4_E_INPUT with all lines as the message. Local. */
p4_rc p4_config_report_end(const p4_config_report *report);

/* The three checks, each adding to the report: one row's value; the rules between keys; what a job needs
 * besides, because it reads files and an API caller may hold samples in memory. Local. */
void p4_config_check_row(const p4_config *config, int row, p4_config_report *report);
void p4_config_check_rules(const p4_config *config, p4_config_report *report);
void p4_config_check_job(const p4_config *config, p4_config_report *report);

/* What p4_config_validate of phase4.h does, without clearing the recorded error first. Local. */
p4_rc p4_config_check(const p4_config *config);
/* Are the paths there that a job needs: model, output, calibration data? P4_E_INPUT: all problems, one a
 * line. Beside p4_config_validate, not instead of it. Local. */
p4_rc p4_config_validate_job(const p4_config *config);

/* The value of an INT32, INT64 or REAL row; of other types 0. Local. */
double p4_config_number(const p4_config *config, const p4_config_row *row);
/* Row of a key, -1 when there is none. Local. */
int p4_config_find(const char *key);
/* The keys in which a run that continues differs from its checkpoint, except those that may change: one line
 * `key "NAME": found VALUE, the checkpoint has VALUE` each, heap. "": none; NULL: memory is out. Local. */
char *p4_config_conflicts(const p4_config *config, const p4_config *checkpoint);
/* The known key nearest to `key`, NULL when none is near enough to be meant. Local. */
const char *p4_config_nearest(const char *key);
/* Edits (insert, delete, replace, swap of neighbours) from one word to another, ignoring case and taking '-'
 * for '_'; words are compared up to 63 bytes. Local. */
int p4_edit_distance(const char *from, const char *to);
/* The most edits at which a known word may be what `word` was meant to be: one in three letters. Local. */
int p4_edits_likely(const char *word);

/* Sets every row the user has not set to the default of config->recipe. Local. */
void p4_config_rebase(p4_config *config);
/* Takes every key from another configuration, except those that are fixed once a model is open. Local. */
void p4_config_take(p4_config *config, const p4_config *from);
bool p4_config_is_user_set(const p4_config *config, int row);
/* Did the user choose a value that the recipe would not have given? What warnings of keys ask: a recorded
 * configuration gives every key, most with the default. Local. */
bool p4_config_is_chosen(const p4_config *config, int row);
void p4_config_mark_user_set(p4_config *config, int row);

/* Appends a copy of `string`; false when it does not fit. Local. */
bool p4_list_append(p4_list *list, const char *string);
/* The string after `previous` (NULL: the first); NULL at the end. Local. */
const char *p4_list_next(const p4_list *list, const char *previous);

/* Adds an empty set; false: there are P4_SETS_MAX, or the name is too long. Local. */
bool p4_sets_add(p4_sets *sets, const char *name);
/* Appends a string to the last set; false when it does not fit. Local. */
bool p4_sets_append(p4_sets *sets, const char *string);
/* The string of set `set` after `previous` (NULL: the first); NULL at the end. Local. */
const char *p4_sets_next(const p4_sets *sets, int set, const char *previous);

/* Is the value of the row, as text, the row's word? Local. */
bool p4_config_is_word(const p4_config_row *row, const char *text);

/* Text of values, for messages, help and JSON. `buffer` is returned. Local. */
char *p4_config_format_real(char buffer[32],
                            double value); /* the shortest decimal that reads back as the same */
char *p4_config_format_scalar(char buffer[64], const p4_config *config,
                              const p4_config_row *row);                     /* up to ENUM */
char *p4_config_format_expected(char buffer[256], const p4_config_row *row); /* "a number in (0, 10]" */
/* `text` made fit for a message: cut at about 60 bytes, escaped (p4_escape). Local. */
char *p4_config_format_excerpt(char buffer[80], const char *text, size_t bytes);

/* The batch job and the task of its array that this process belongs to, by the environment; NULL: none.
 * Local. */
const char *p4_job_id(void);
const char *p4_job_task(void);

/* The first brace of an output_path that belongs to none of {model}, {date}, {jobid} and {taskid}; NULL: all
 * do. Local. */
const char *p4_config_find_unknown_brace(const char *text);
/* Puts what they stand for in their place: the last name of model_path, the local date as 2026-01-31, the
 * numbers of the batch job and of its task. P4_E_INPUT: there is no such number. Local. */
p4_rc p4_config_expand_output_path(p4_config *config);

/* The keys with defaults, ranges and help: for --help, and as the tables of docs/configuration.md. Local. */
void p4_config_print_help(FILE *out);
/* The groups of keys, a line each: title and number of keys. Local. */
void p4_config_print_groups(FILE *out);
/* Is `topic` a key, the beginning of keys, a glob of keys or the title of a group? Case and '-' for '_' do
 * not matter. P4_E_INPUT: none of these; the nearest key is named. Local. */
p4_rc p4_config_check_topic(const char *topic);
/* The keys that topics name, in the table's order, each with what --help says of it, whether a run may
 * continue with another value, and the pages that say more. Topics are those that p4_config_check_topic took.
 * Local. */
void p4_config_print_topics(FILE *out, char *const *topics, int count);
void p4_config_print_markdown(FILE *out);
void p4_config_print_man(FILE *out);
/* Text of a manual page, in which some characters would be commands. Local. */
void p4_man_print(FILE *out, const char *text);

#endif
