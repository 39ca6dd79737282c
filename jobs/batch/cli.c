#include "jobs/batch/cli.h"

#include <stdlib.h>
#include <string.h>

#include "jobs/cli.h"
#include "src/config.h"

#define USAGE "phase4_batch [options] queue.json [key=value ...]"

typedef enum option_id {
    OPTION_HELP,
    OPTION_VERSION,
    OPTION_TEMPLATE,
    OPTION_STATE,
    OPTION_FAILED_ONLY,
    OPTION_MAX_FAILS,
    OPTION_STRICT,
    OPTION_TASK,
    OPTION_CHECK,
    OPTION_PLAN,
    OPTION_RANKS,
    OPTION_RANKS_PER_NODE,
    OPTION_DEVICE_MEMORY,
    OPTION_HOST_MEMORY,
    OPTION_RATES,
    OPTION_RESULTS,
    OPTION_LIST,
    OPTION_LIVE,
    OPTION_QUIET,
    OPTION_COUNT
} option_id;

static const struct option {
    const char *name, *short_name, *help;
    const char *value; /* what the next argument is; NULL: it takes none */
} options[OPTION_COUNT] = {
    [OPTION_HELP] = {"--help", "-h", "Print this help and exit.", NULL},
    [OPTION_VERSION] = {"--version", NULL, "Print the version and exit.", NULL},
    [OPTION_TEMPLATE] =
        {"--template", NULL,
         "The queue is a text file with one model directory a line; all use this configuration.", "FILE"},
    [OPTION_STATE] = {"--state", NULL,
                      "Directory of journal, logs and results; default: the queue's name with .batch.",
                      "DIR"},
    [OPTION_FAILED_ONLY] = {"--failed-only", NULL, "Work only on models whose last attempt failed.", NULL},
    [OPTION_MAX_FAILS] = {"--max-fails", NULL, "Start no model any more after so many failures.", "N"},
    [OPTION_STRICT] = {"--strict", NULL, "A failed quality verdict counts as a failure: exit status 3.",
                       NULL},
    [OPTION_TASK] = {"--task", NULL,
                     "Work only on model N of the queue, counted from 1: for a task of a job array.", "N"},
    [OPTION_CHECK] = {"--check", NULL, "Check every model as phase4_mpi --check does, and exit.", NULL},
    [OPTION_PLAN] = {"--plan", NULL,
                     "Print ranks, memory, time and disk of every model and of the whole, without MPI.",
                     NULL},
    [OPTION_RANKS] = {"--ranks", NULL, "With --plan: ranks of the job; default 1.", "N"},
    [OPTION_RANKS_PER_NODE] = {"--ranks-per-node", NULL,
                               "With --plan: ranks on a node; default 8 on GPUs, 1 on CPUs.", "N"},
    [OPTION_DEVICE_MEMORY] = {"--device-memory", NULL,
                              "With --plan: memory of each rank, as in 80G; default: of this machine.",
                              "SIZE"},
    [OPTION_HOST_MEMORY] = {"--host-memory", NULL,
                            "With --plan: host memory of each node, as in 1T; default: of this machine.",
                            "SIZE"},
    [OPTION_RATES] = {"--rates", NULL, "Speeds for the plans, from phase4_bench rates; default: built in.",
                      "FILE"},
    [OPTION_RESULTS] = {"--results", NULL,
                        "Write batch_results.json from the journals, print the table, and exit.", NULL},
    [OPTION_LIST] = {"--list", NULL,
                     "Print the numbers of these models (all, open, failed) as for sbatch --array, and exit.",
                     "WHICH"},
    [OPTION_LIVE] = {"--live", NULL, "Redraw one table, also where standard error is no terminal (mpirun).",
                     NULL},
    [OPTION_QUIET] = {"--quiet", "-q", "Print only errors and the final table.", NULL},
};

static const struct {
    const char *status, *meaning;
} statuses[] = {
    {"0", "every model of the queue is done"},
    {"1", "system failure: memory, MPI, a device, or standard output that cannot be written"},
    {"2", "bad input: the command line, the queue, or the state directory"},
    {"3", "--strict was given and the quality verdict of some models failed; none failed otherwise"},
    {"4", "the batch lost its state directory: another batch took it over, or it was removed"},
    {"5", "some models failed; the others are done, or wait because of --max-fails"},
    {"75",
     "stopped by SIGTERM, SIGUSR1, SIGINT, a file stop in the state directory or a model's max_minutes; "
     "run it again to go on"},
};
enum { STATUSES = sizeof statuses / sizeof statuses[0] };

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
               : FAIL("unknown option \"%s\"; usage: " USAGE " (phase4_batch --help says more)", excerpt);
}

static bool read_count(int64_t *count, const char *text)
{
    char *end;
    long long value = strtoll(text, &end, 10);
    *count = value;
    return end != text && *end == '\0' && value > 0 && value <= 1 << 20;
}

static p4_rc apply_value(p4_batch_cli *cli, option_id which, const char *text)
{
    p4_rc rc = P4_OK;
    p4_batch_options *o = &cli->options;
    int64_t count = 0;
    bool counts = which == OPTION_MAX_FAILS || which == OPTION_TASK || which == OPTION_RANKS ||
                  which == OPTION_RANKS_PER_NODE;
    CHECK(text != NULL && text[0] != '\0', "option \"%s\": found nothing, expected %s", options[which].name,
          options[which].value);
    CHECK(!counts || read_count(&count, text),
          "option \"%s\": found \"%.40s\", expected a whole number above 0", options[which].name, text);
    bool size = which == OPTION_DEVICE_MEMORY || which == OPTION_HOST_MEMORY;
    CHECK(!size || p4_cli_read_size(which == OPTION_HOST_MEMORY ? &o->host_bytes : &o->memory_bytes, text),
          "option \"%s\": found \"%.40s\", expected a size, as in 80G", options[which].name, text);
    switch (which) {
    case OPTION_DEVICE_MEMORY:
    case OPTION_HOST_MEMORY: /* read above */
        break;
    case OPTION_TEMPLATE:
        o->template_path = text;
        break;
    case OPTION_STATE:
        cli->state = text;
        break;
    case OPTION_RATES:
        o->rates_path = text;
        break;
    case OPTION_MAX_FAILS:
        o->max_fails = count;
        break;
    case OPTION_TASK:
        o->task = count;
        break;
    case OPTION_RANKS:
        o->ranks = (int)count;
        break;
    case OPTION_RANKS_PER_NODE:
        o->ranks_per_node = (int)count;
        break;
    default:
        CHECK(strcmp(text, "all") == 0 || strcmp(text, "open") == 0 || strcmp(text, "failed") == 0,
              "option \"--list\": found \"%.40s\", expected all, open or failed", text);
        cli->action = P4_BATCH_LIST;
        cli->list = text;
        break;
    }
done:
    return rc;
}

static void apply_option(p4_batch_cli *cli, option_id which)
{
    p4_batch_options *o = &cli->options;
    switch (which) {
    case OPTION_HELP:
        cli->action = P4_BATCH_HELP;
        break;
    case OPTION_VERSION:
        cli->action = P4_BATCH_VERSION;
        break;
    case OPTION_CHECK:
        cli->action = P4_BATCH_CHECK;
        o->check_only = true;
        break;
    case OPTION_PLAN:
        cli->action = P4_BATCH_PLAN;
        break;
    case OPTION_RESULTS:
        cli->action = P4_BATCH_RESULTS;
        break;
    case OPTION_FAILED_ONLY:
        o->failed_only = true;
        break;
    case OPTION_STRICT:
        o->strict = true;
        break;
    case OPTION_LIVE:
        o->live = true;
        break;
    default:
        o->quiet = true;
        break;
    }
}

static p4_rc apply_word(p4_batch_cli *cli, char *argument)
{
    p4_rc rc = P4_OK;
    p4_batch_options *o = &cli->options;
    char excerpt[80];
    if (o->queue_path == NULL) {
        o->queue_path = argument;
        return argument[0] != '\0' ? P4_OK : FAIL("the name of the queue is empty; usage: " USAGE);
    }
    p4_config_format_excerpt(excerpt, argument, strlen(argument));
    CHECK(strchr(argument, '=') != NULL && argument[0] != '=',
          "found \"%s\" after the queue \"%.200s\", expected key=value; usage: " USAGE, excerpt,
          o->queue_path);
    CHECK(o->override_count < P4_BATCH_OVERRIDES_MAX, "found more than %d key=value arguments: \"%s\"",
          (int)P4_BATCH_OVERRIDES_MAX, excerpt);
    cli->overrides[o->override_count++] = argument;
done:
    return rc;
}

p4_rc p4_batch_cli_parse(p4_batch_cli *cli, int argc, char **argv)
{
    p4_rc rc = P4_OK;
    *cli = (p4_batch_cli){.action = P4_BATCH_RUN};
    cli->options.overrides = cli->overrides;
    for (int i = 1; i < argc; i++) {
        int which = argv[i][0] == '-' ? find_option(argv[i]) : -1;
        if (argv[i][0] != '-') {
            TRY(apply_word(cli, argv[i]));
            continue;
        }
        if (which < 0) {
            return unknown_option(argv[i]);
        }
        if (options[which].value != NULL) {
            TRY(apply_value(cli, (option_id)which, i + 1 < argc ? argv[i + 1] : NULL));
            i++;
        } else {
            apply_option(cli, (option_id)which);
        }
        if (cli->action == P4_BATCH_HELP || cli->action == P4_BATCH_VERSION) {
            return P4_OK;
        }
    }
    const p4_batch_options *o = &cli->options;
    CHECK(cli->action == P4_BATCH_PLAN ||
              (o->ranks == 0 && o->ranks_per_node == 0 && o->memory_bytes == 0 && o->host_bytes == 0),
          "options --ranks, --ranks-per-node, --device-memory and --host-memory belong to --plan");
    CHECK(cli->options.queue_path != NULL,
          "no queue is given; usage: " USAGE " (phase4_batch --help says more)");
done:
    return rc;
}

void p4_batch_cli_print_help(FILE *out)
{
    fputs(
        "Usage: " USAGE "\n"
        "\n"
        "Compresses many models in one job. The ranks are divided into groups, which work on one model each\n"
        "and form anew as they become free. A queue is\n"
        "\n"
        "  a JSON list of configurations: names of files, or objects (with \"name\", \"cfg\", \"ranks\",\n"
        "  \"max_ranks\" beside the keys of a configuration)\n"
        "  {\"models\": \"dir or pattern\", \"template\": {...}}: every model there, with one configuration\n"
        "  a text file with one model directory a line, with --template\n"
        "\n"
        "  srun --mpi=pmix -N4 phase4_batch queue.json\n"
        "  mpirun -n 2 --bind-to none phase4_batch queue.json\n"
        "\n"
        "The same command continues a batch that was stopped or killed: models that are done and have not\n"
        "changed are skipped.\n"
        "\n"
        "Options:\n",
        out);
    for (int i = 0; i < OPTION_COUNT; i++) {
        const char *short_name = options[i].short_name, *value = options[i].value;
        char named[40];
        snprintf(named, sizeof named, "%s%s%s", options[i].name, value != NULL ? " " : "",
                 value != NULL ? value : "");
        fprintf(out, "  %s%s%-*s %s\n", short_name != NULL ? short_name : "",
                short_name != NULL ? ", " : "    ", 20, named, options[i].help);
    }
    fputs("\nkey=value arguments override every configuration; phase4_mpi --help lists the keys.\n"
          "\nExit status:\n",
          out);
    for (int i = 0; i < STATUSES; i++) {
        fprintf(out, "  %-2s %s\n", statuses[i].status, statuses[i].meaning);
    }
}

void p4_batch_cli_print_man(FILE *out)
{
    fputs(
        ".\\\" Made from the tables of the program by tests/update_docs.sh.\n"
        ".TH PHASE4_BATCH 1 \"\" \"phase4 " P4_VERSION "\" \"User Commands\"\n"
        ".SH NAME\n"
        "phase4_batch \\- compress many transformer language models in one job\n"
        ".SH SYNOPSIS\n"
        ".B phase4_batch\n"
        "[options] queue.json [key=value ...]\n"
        ".br\n"
        ".B srun \\-\\-mpi=pmix \\-N4 phase4_batch\n"
        "queue.json\n"
        ".SH DESCRIPTION\n"
        "Divides the ranks of a job into groups, which compress one model each and form anew as they become\n"
        "free. The queue is a JSON list of configurations, an object with the keys models and template, or,\n"
        "with \\-\\-template, a text file with one model directory a line. The same command continues a "
        "batch\n"
        "that was stopped or killed, and skips models that are done and have not changed.\n"
        ".SH OPTIONS\n",
        out);
    for (int i = 0; i < OPTION_COUNT; i++) {
        fputs(".TP\n.B ", out);
        if (options[i].short_name != NULL) {
            p4_man_print(out, options[i].short_name);
            fputs(", ", out);
        }
        p4_man_print(out, options[i].name);
        fprintf(out, "%s%s\n", options[i].value != NULL ? " " : "",
                options[i].value != NULL ? options[i].value : "");
        p4_man_print(out, options[i].help);
        fputc('\n', out);
    }
    fputs(".SH EXIT STATUS\n", out);
    for (int i = 0; i < STATUSES; i++) {
        fprintf(out, ".TP\n.B %s\n", statuses[i].status);
        p4_man_print(out, statuses[i].meaning);
        fputs(".\n", out);
    }
    fputs(
        ".SH SEE ALSO\n.BR phase4_mpi (1),\ndocs/batch.md in share/phase4 beside the folder of this page.\n",
        out);
}
