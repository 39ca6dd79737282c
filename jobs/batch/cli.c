#include "jobs/batch/cli.h"

#include <stdlib.h>
#include <string.h>

#include "jobs/cli.h"
#include "jobs/plan.h"
#include "src/config.h"

enum {
    TEMPLATE = P4_OPTION_OWN,
    STATE,
    FAILED_ONLY,
    MAX_FAILS,
    STRICT,
    TASK,
    CHECK_ALL,
    PLAN,
    RANKS,
    RANKS_PER_NODE,
    DEVICE_MEMORY,
    HOST_MEMORY,
    RATES,
    RESULTS,
    LIST,
    LIVE,
    QUIET,
    OPTIONS
};

static const p4_option options[] = {
    [TEMPLATE - P4_OPTION_OWN] = {"--template", NULL, "FILE",
                                  "The queue is a text file with one model directory a line; all use this "
                                  "configuration."},
    [STATE - P4_OPTION_OWN] = {"--state", NULL, "DIR",
                               "Directory of journal, logs and results; default: the queue's name with "
                               ".batch."},
    [FAILED_ONLY -
        P4_OPTION_OWN] = {"--failed-only", NULL, NULL, "Work only on models whose last attempt failed."},
    [MAX_FAILS - P4_OPTION_OWN] = {"--max-fails", NULL, "N", "Start no further models after N failures."},
    [STRICT - P4_OPTION_OWN] = {"--strict", NULL, NULL,
                                "A failed quality verdict counts as a failure: exit status 3."},
    [TASK -
        P4_OPTION_OWN] = {"--task", NULL, "N",
                          "Work only on model N of the queue, counted from 1: for a task of a job array."},
    [CHECK_ALL -
        P4_OPTION_OWN] = {"--check", NULL, NULL, "Check every model as phase4_mpi --check does, and exit."},
    [PLAN - P4_OPTION_OWN] = {"--plan", NULL, NULL,
                              "Print ranks, memory, time and disk of every model and of the whole, without "
                              "MPI."},
    [RANKS - P4_OPTION_OWN] = {"--ranks", NULL, "N", "With --plan: ranks of the job; default 1."},
    [RANKS_PER_NODE - P4_OPTION_OWN] = {"--ranks-per-node", NULL, "N",
                                        "With --plan: ranks on a machine; default 8 on GPUs, all on CPUs."},
    [DEVICE_MEMORY - P4_OPTION_OWN] = {"--device-memory", NULL, "SIZE",
                                       "With --plan: a rank's memory, 80G (80e9) or 80GiB; default: "
                                       "this machine's."},
    [HOST_MEMORY - P4_OPTION_OWN] = {"--host-memory", NULL, "SIZE",
                                     "With --plan: a node's host memory, 1T (1e12) or 1TiB; default: "
                                     "this machine's."},
    [RATES - P4_OPTION_OWN] = {"--rates", NULL, "FILE|KIND",
                               "Speeds for the plans, of phase4_mpi --measure-rates, or of the built-in "
                               "table: " P4_PLAN_RATES_NAMES "."},
    [RESULTS - P4_OPTION_OWN] = {"--results", NULL, NULL,
                                 "Write batch_results.json from the journals, print the table, and exit."},
    [LIST - P4_OPTION_OWN] = {"--list", NULL, "WHICH",
                              "Print the numbers of these models (all, open, failed) as for sbatch --array, "
                              "and exit."},
    [LIVE - P4_OPTION_OWN] = {"--live", NULL, NULL,
                              "Redraw one table, also where standard error is no terminal (mpirun)."},
    [QUIET - P4_OPTION_OWN] = {"--quiet", "-q", NULL, "Print only errors and the final table."},
    [OPTIONS - P4_OPTION_OWN] = {NULL, NULL, NULL, NULL}};
_Static_assert((int)OPTIONS <= (int)P4_OPTIONS_MAX, "p4_arguments holds so many options");

static const p4_exit_status statuses[] = {
    {"0", "every model of the queue is done"},
    {"1", "system failure: memory, MPI, a device, or standard output that cannot be written"},
    {"2", "bad input: the command line, the queue, or the state directory"},
    {"3", "--strict was given and the quality verdict of some models failed; none failed otherwise"},
    {"4", "the batch lost its state directory: another batch took it over, or it was removed"},
    {"5", "some models failed; the others are done, or wait because of --max-fails"},
    {"75",
     "stopped by SIGTERM, SIGUSR1, SIGINT, a file stop in the state directory or a model's max_minutes; "
     "run it again to go on"},
    {"130", "a second SIGINT ended the process at once: nothing since the last checkpoints is kept"},
    {NULL, NULL}};

const p4_program p4_batch_program = {
    .name = "phase4_batch",
    .usage = "[options] queue.json [key=value ...]",
    .purpose = "compress many transformer language models in one job",
    .description =
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
        "changed are skipped. key=value arguments override every configuration; phase4_mpi --help keys\n"
        "lists them.\n",
    .options = options,
    .statuses = statuses};

/* The value of an option that is a count: above 0; 0 if it is not given. */
static p4_rc take_count(int64_t *count, const p4_arguments *a, int option)
{
    p4_rc rc = P4_OK;
    char *end;
    const char *text = a->values[option];
    *count = 0;
    if (!a->given[option]) {
        return P4_OK;
    }
    *count = strtoll(text, &end, 10);
    CHECK(end != text && *end == '\0' && *count > 0 && *count <= 1 << 20,
          "option \"%s\": found \"%.40s\", expected a whole number above 0",
          options[option - P4_OPTION_OWN].name, text);
done:
    return rc;
}

static p4_rc take_size(double *bytes, const p4_arguments *a, int option)
{
    p4_rc rc = P4_OK;
    CHECK(!a->given[option] || p4_cli_read_size(bytes, a->values[option]),
          "option \"%s\": found \"%.40s\", expected " P4_CLI_SIZE, options[option - P4_OPTION_OWN].name,
          a->values[option]);
done:
    return rc;
}

static p4_rc take_values(p4_batch_options *o, const p4_arguments *a)
{
    p4_rc rc = P4_OK;
    int64_t ranks, ranks_per_node;
    TRY(take_count(&o->max_fails, a, MAX_FAILS));
    TRY(take_count(&o->task, a, TASK));
    TRY(take_count(&ranks, a, RANKS));
    TRY(take_count(&ranks_per_node, a, RANKS_PER_NODE));
    TRY(take_size(&o->memory_bytes, a, DEVICE_MEMORY));
    TRY(take_size(&o->host_bytes, a, HOST_MEMORY));
    o->ranks = (int)ranks;
    o->ranks_per_node = (int)ranks_per_node;
    o->template_path = a->values[TEMPLATE];
    o->rates_path = a->values[RATES];
    o->failed_only = a->given[FAILED_ONLY];
    o->strict = a->given[STRICT];
    o->live = a->given[LIVE];
    o->quiet = a->given[QUIET];
    o->check_only = a->given[CHECK_ALL];
done:
    return rc;
}

/* The queue, and behind it the overrides. */
static p4_rc take_words(p4_batch_cli *cli, p4_arguments *a)
{
    p4_rc rc = P4_OK;
    p4_batch_options *o = &cli->options;
    char excerpt[80];
    CHECK(a->word_count > 0, "no queue is given; usage: %s %s (phase4_batch --help says more)",
          p4_batch_program.name, p4_batch_program.usage);
    o->queue_path = a->words[0];
    o->overrides = a->words + 1;
    o->override_count = a->word_count - 1;
    for (int i = 1; i < a->word_count; i++) {
        p4_config_format_excerpt(excerpt, a->words[i], strlen(a->words[i]));
        CHECK(strchr(a->words[i], '=') != NULL && a->words[i][0] != '=',
              "found \"%s\" after the queue \"%.200s\", expected key=value; usage: %s %s", excerpt,
              o->queue_path, p4_batch_program.name, p4_batch_program.usage);
    }
done:
    return rc;
}

static p4_batch_action choose_action(const p4_arguments *a)
{
    return a->given[P4_OPTION_HELP]      ? P4_BATCH_HELP
           : a->given[P4_OPTION_VERSION] ? P4_BATCH_VERSION
           : a->given[LIST]              ? P4_BATCH_LIST
           : a->given[RESULTS]           ? P4_BATCH_RESULTS
           : a->given[PLAN]              ? P4_BATCH_PLAN
           : a->given[CHECK_ALL]         ? P4_BATCH_CHECK
                                         : P4_BATCH_RUN;
}

p4_rc p4_batch_cli_parse(p4_batch_cli *cli, int argc, char **argv)
{
    p4_rc rc = P4_OK;
    p4_arguments a;
    *cli = (p4_batch_cli){.action = P4_BATCH_RUN};
    TRY(p4_program_parse(&a, &p4_batch_program, argc, argv));
    cli->action = choose_action(&a);
    if (cli->action == P4_BATCH_HELP || cli->action == P4_BATCH_VERSION) {
        return P4_OK;
    }
    const p4_batch_options *o = &cli->options;
    TRY(take_values(&cli->options, &a));
    cli->state = a.values[STATE];
    cli->list = a.values[LIST];
    CHECK(cli->list == NULL || strcmp(cli->list, "all") == 0 || strcmp(cli->list, "open") == 0 ||
              strcmp(cli->list, "failed") == 0,
          "option \"--list\": found \"%.40s\", expected all, open or failed", cli->list);
    CHECK(cli->action == P4_BATCH_PLAN ||
              (o->ranks == 0 && o->ranks_per_node == 0 && o->memory_bytes == 0 && o->host_bytes == 0),
          "options --ranks, --ranks-per-node, --device-memory and --host-memory belong to --plan");
    TRY(take_words(cli, &a));
done:
    return rc;
}
