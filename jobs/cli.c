#include "jobs/cli.h"

#include <string.h>

#include "src/config.h"
#include "src/families.h"

#define USAGE "phase4_mpi [options] cfg.json [key=value ...]"

typedef struct option {
    const char *name, *short_name, *help;
} option;

enum {
    OPTION_HELP,
    OPTION_VERSION,
    OPTION_FAMILIES,
    OPTION_VALIDATE,
    OPTION_CHECK,
    OPTION_QUIET,
    OPTION_STRICT,
    OPTION_COUNT
};

static const option options[OPTION_COUNT] = {
    [OPTION_HELP] = {"--help", "-h", "Print this help and exit."},
    [OPTION_VERSION] = {"--version", NULL, "Print the version and the compiled-in features, and exit."},
    [OPTION_FAMILIES] = {"--families", NULL, "Print the supported families of models and exit."},
    [OPTION_VALIDATE] = {"--validate", NULL, "Check the configuration, report all errors in it, and exit."},
    [OPTION_CHECK] = {"--check", NULL,
                      "Check files, output directory, memory, disk and settings before a run, and exit."},
    [OPTION_QUIET] = {"--quiet", "-q", "Print only warnings, errors and the final table."},
    [OPTION_STRICT] = {"--strict", NULL,
                       "Exit with status 3 if the quality verdict fails; requires eval_samples above 0."},
};

static int find_option(const char *argument)
{
    for (int i = 0; i < OPTION_COUNT; i++) {
        const char *short_name = options[i].short_name;
        if (strcmp(argument, options[i].name) == 0 ||
            (short_name != NULL && strcmp(argument, short_name) == 0)) {
            return i;
        }
    }
    return -1;
}

static p4_rc unknown_option(const char *argument)
{
    const char *nearest = NULL;
    char excerpt[80];
    int least = p4_edits_likely(argument) + 1;
    for (int i = 0; i < OPTION_COUNT; i++) {
        int distance = p4_edit_distance(argument, options[i].name);
        if (distance < least) {
            least = distance, nearest = options[i].name;
        }
    }
    p4_config_format_excerpt(excerpt, argument, strlen(argument));
    return nearest != NULL
               ? FAIL("unknown option \"%s\", the nearest known option is \"%s\"; usage: " USAGE, excerpt,
                      nearest)
               : FAIL("unknown option \"%s\"; usage: " USAGE " (phase4_mpi --help says more)", excerpt);
}

static void apply_option(p4_cli *cli, int which)
{
    switch (which) {
    case OPTION_HELP:
        cli->action = P4_CLI_HELP;
        break;
    case OPTION_VERSION:
        cli->action = P4_CLI_VERSION;
        break;
    case OPTION_FAMILIES:
        cli->action = P4_CLI_FAMILIES;
        break;
    case OPTION_VALIDATE:
        cli->action = P4_CLI_VALIDATE;
        break;
    case OPTION_CHECK:
        cli->action = P4_CLI_CHECK;
        break;
    case OPTION_QUIET:
        cli->quiet = true;
        break;
    default:
        cli->strict = true;
        break;
    }
}

/* The configuration file comes first, so that its own name may hold '='. */
static p4_rc apply_word(p4_cli *cli, char *argument)
{
    char excerpt[80];
    if (cli->cfg_path == NULL) {
        cli->cfg_path = argument;
        return argument[0] != '\0' ? P4_OK
                                   : FAIL("the name of the configuration file is empty; usage: " USAGE);
    }
    p4_config_format_excerpt(excerpt, argument, strlen(argument));
    if (strchr(argument, '=') == NULL || argument[0] == '=') {
        return FAIL("found \"%s\" after the configuration file \"%.200s\", expected key=value; usage: " USAGE,
                    excerpt, cli->cfg_path);
    }
    if (cli->override_count == P4_CLI_OVERRIDES_MAX) {
        return FAIL("found more than %d key=value arguments: \"%s\"", (int)P4_CLI_OVERRIDES_MAX, excerpt);
    }
    cli->overrides[cli->override_count++] = argument;
    return P4_OK;
}

p4_rc p4_cli_parse(p4_cli *cli, int argc, char **argv)
{
    p4_rc rc = P4_OK;
    bool options_ended = false;
    memset(cli, 0, sizeof *cli);
    for (int i = 1; i < argc; i++) {
        if (options_ended || argv[i][0] != '-') {
            TRY(apply_word(cli, argv[i]));
        } else if (strcmp(argv[i], "--") == 0) {
            options_ended = true;
        } else {
            int which = find_option(argv[i]);
            if (which < 0) {
                return unknown_option(argv[i]);
            }
            apply_option(cli, which);
        }
        if (cli->action == P4_CLI_HELP || cli->action == P4_CLI_VERSION || cli->action == P4_CLI_FAMILIES) {
            cli->cfg_path = NULL;
            return P4_OK;
        }
    }
    CHECK(cli->cfg_path != NULL,
          "no configuration file is given; usage: " USAGE " (phase4_mpi --help says more)");
done:
    return rc;
}

void p4_cli_print_help(FILE *out)
{
    fputs("Usage: " USAGE "\n"
          "\n"
          "Compresses the language model named in cfg.json to ternary (1.58-bit) weights, fine-tunes it if\n"
          "quantization cost too much quality, and writes the packed model, a dequantized FP16 model and a "
          "report.\n"
          "It is an MPI program:\n"
          "\n"
          "  srun --mpi=pmix -N4 phase4_mpi cfg.json    on a cluster\n"
          "  mpirun -n 2 phase4_mpi cfg.json            on one machine\n"
          "  phase4_mpi cfg.json                        as a single rank\n"
          "\n"
          "Options:\n",
          out);
    for (int i = 0; i < OPTION_COUNT; i++) {
        const option *known = &options[i];
        fprintf(out, "  %s%s%-*s %s\n", known->short_name != NULL ? known->short_name : "",
                known->short_name != NULL ? ", " : "    ", 12, known->name, known->help);
    }
    fputs("\n"
          "key=value arguments override the file; the last one given for a key counts. Values are JSON, but "
          "strings\n"
          "need no quotes:  phase4_mpi cfg.json fine_tune_lr=3e-4 device=cpu 'eval_files=[\"a.txt\", "
          "\"b.jsonl.gz\"]'\n"
          "Relative paths start at the working directory.\n"
          "\n"
          "Exit status:\n"
          "  0  the run completed (a failed quality verdict is recorded in results.json)\n"
          "  1  system failure: memory, MPI, a device, or standard output that cannot be written\n"
          "  2  bad input: the command line, cfg.json, the model, the data, or the output directory\n"
          "  3  the quality verdict failed and --strict was given\n"
          "  4  the run lost its output directory: another run took it over, or it was removed\n"
          "  75 stopped by SIGTERM, SIGUSR1, SIGINT, a file named stop in output_path or max_minutes; the "
          "same\n"
          "     command continues the run\n"
          "\n"
          "Supported families of models, by model_type in their config.json:\n",
          out);
    p4_families_print(out, false);
    fputs("\n"
          "Keys of cfg.json (a JSON object), with allowed values and defaults:\n"
          "\n",
          out);
    p4_config_print_help(out);
}
