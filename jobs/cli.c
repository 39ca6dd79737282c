#include "jobs/cli.h"

#include <stdlib.h>
#include <string.h>

#include "jobs/options.h"
#include "jobs/plan.h"
#include "src/config.h"
#include "src/families.h"

#define USAGE "phase4_mpi [options] cfg.json [key=value ...]"

/* Topics of --help beside keys and their groups. */
#define KEYS "keys"
#define FAMILIES "families"

typedef struct option {
    const char *name, *short_name, *help;
    const char *value; /* what the next argument is, in brackets where it may lack; NULL: it takes none */
} option;

enum {
    OPTION_HELP,
    OPTION_VERSION,
    OPTION_FAMILIES,
    OPTION_VALIDATE,
    OPTION_CHECK,
    OPTION_PLAN,
    OPTION_MEASURE_RATES,
    OPTION_RANKS,
    OPTION_RANKS_PER_NODE,
    OPTION_DEVICE_MEMORY,
    OPTION_HOST_MEMORY,
    OPTION_RATES,
    OPTION_JSON,
    OPTION_QUIET,
    OPTION_STRICT,
    OPTION_LOG_TIME,
    OPTION_COUNT
};

static const option options[OPTION_COUNT] = {
    [OPTION_HELP] = {"--help", "-h", "Print this help, or that of keys, and exit.", "[TOPIC ...]"},
    [OPTION_VERSION] = {"--version", NULL, "Print the version and the compiled-in features, and exit."},
    [OPTION_FAMILIES] = {"--families", NULL, "Print the supported families of models and exit."},
    [OPTION_VALIDATE] = {"--validate", NULL, "Check the configuration, report all errors in it, and exit."},
    [OPTION_CHECK] = {"--check", NULL,
                      "Check files, output directory, memory, disk and settings before a run, and exit."},
    [OPTION_PLAN] = {"--plan", NULL,
                     "Print the memory, disk, traffic and time that a run will take, without MPI."},
    [OPTION_MEASURE_RATES] =
        {"--measure-rates", NULL,
         "Measure how fast these ranks train the model, write FILE for --rates, and exit.", "FILE"},
    [OPTION_RANKS] = {"--ranks", NULL,
                      "With --plan: ranks of the run, each with its own GPU if any; default 1.", "N"},
    [OPTION_RANKS_PER_NODE] = {"--ranks-per-node", NULL,
                               "With --plan: ranks on a machine; default 8 on GPUs, all on CPUs.", "N"},
    [OPTION_DEVICE_MEMORY] =
        {"--device-memory", NULL,
         "With --plan: a rank's memory, 80G or 80GiB; default: that of --rates, or here.", "SIZE"},
    [OPTION_HOST_MEMORY] = {"--host-memory", NULL,
                            "With --plan: a node's host memory, 1T (1e12) or 1TiB; default: this machine's.",
                            "SIZE"},
    [OPTION_RATES] = {"--rates", NULL,
                      "With --plan: speeds, of --measure-rates, or of a table: " P4_PLAN_RATES_NAMES ".",
                      "FILE|KIND"},
    [OPTION_JSON] = {"--json", NULL, "With --plan: print it as JSON."},
    [OPTION_QUIET] = {"--quiet", "-q", "Print only warnings, errors and the final table."},
    [OPTION_STRICT] = {"--strict", NULL,
                       "Exit with status 3 if the quality verdict fails; requires eval_samples above 0."},
    [OPTION_LOG_TIME] = {"--log-time", NULL, "Start each line of the log with the time (UTC)."},
};

static const struct {
    const char *status, *meaning;
} statuses[] = {
    {"0", "the run completed (a failed quality verdict is recorded in results.json)"},
    {"1", "system failure: memory, MPI, a device, or standard output that cannot be written"},
    {"2", "bad input: the command line, cfg.json, the model, the data, or the output directory"},
    {"3", "the quality verdict failed and --strict was given"},
    {"4", "the run lost its output directory: another run took it over, or it was removed"},
    {"75",
     "stopped by SIGTERM, SIGUSR1, SIGINT, a file stop in output_path or max_minutes; run it again to go on"},
    {"130",
     "a second SIGINT ended the process at once: nothing of its work since the last checkpoint is kept"},
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
    char excerpt[80], advice[P4_OPTION_ADVICE_BYTES];
    int least = p4_edits_likely(argument) + 1;
    for (int i = 0; i < OPTION_COUNT; i++) {
        int distance = p4_edit_distance(argument, options[i].name);
        if (distance < least) {
            least = distance, nearest = options[i].name;
        }
    }
    p4_config_format_excerpt(excerpt, argument, strlen(argument));
    if (p4_option_is_key(advice, argument)) {
        return FAIL("unknown option \"%s\": %s; usage: " USAGE, excerpt, advice);
    }
    return nearest != NULL
               ? FAIL("unknown option \"%s\", the nearest known option is \"%s\"; usage: " USAGE, excerpt,
                      nearest)
               : FAIL("unknown option \"%s\"; usage: " USAGE " (phase4_mpi --help says more)", excerpt);
}

static void apply_option(p4_cli *cli, int which)
{
    switch (which) {
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
    case OPTION_PLAN:
        cli->action = P4_CLI_PLAN;
        break;
    case OPTION_JSON:
        cli->json = true;
        break;
    case OPTION_QUIET:
        cli->quiet = true;
        break;
    case OPTION_LOG_TIME:
        cli->log_time = true;
        break;
    default:
        cli->strict = true;
        break;
    }
}

bool p4_cli_read_size(double *bytes, const char *text)
{
    static const char units[] = "kMGT";
    const double LEAST = 1 << 20; /* a smaller number without a unit was meant to have one */
    char *end;
    *bytes = strtod(text, &end);
    const char *unit = *end != '\0' ? strchr(units, *end == 'K' ? 'k' : *end) : NULL;
    if (unit != NULL) {
        bool binary = end[1] == 'i';
        for (const char *u = units; u <= unit; u++) {
            *bytes *= binary ? 1024 : 1000;
        }
        end += 1 + binary;
        end += *end == 'B' ? 1 : 0;
    }
    return end != text && *end == '\0' && *bytes > 0 && *bytes < 1e18 && (unit != NULL || *bytes >= LEAST);
}

static bool read_count(int *count, const char *text)
{
    char *end;
    long value = strtol(text, &end, 10);
    *count = value > 0 && value <= 1 << 20 ? (int)value : 0;
    return end != text && *end == '\0' && *count > 0;
}

/* An option and the argument behind it, NULL: there is none. */
static p4_rc apply_value(p4_cli *cli, int which, const char *text)
{
    p4_rc rc = P4_OK;
    bool ok = text != NULL;
    char excerpt[80] = "";
    if (text != NULL) {
        p4_config_format_excerpt(excerpt, text, strlen(text));
    }
    switch (ok ? which : OPTION_COUNT) {
    case OPTION_RANKS:
        ok = read_count(&cli->ranks, text);
        break;
    case OPTION_RANKS_PER_NODE:
        ok = read_count(&cli->ranks_per_node, text);
        break;
    case OPTION_DEVICE_MEMORY:
        ok = p4_cli_read_size(&cli->memory_bytes, text);
        break;
    case OPTION_HOST_MEMORY:
        ok = p4_cli_read_size(&cli->host_bytes, text);
        break;
    case OPTION_RATES:
        cli->rates_path = text;
        break;
    case OPTION_MEASURE_RATES:
        cli->action = P4_CLI_MEASURE_RATES;
        cli->measured_path = text;
        break;
    default:
        break;
    }
    CHECK(ok, "option \"%s\": found %s%s%s, expected %s", options[which].name,
          text != NULL ? "\"" : "nothing", excerpt, text != NULL ? "\"" : "",
          which == OPTION_DEVICE_MEMORY || which == OPTION_HOST_MEMORY ? P4_CLI_SIZE
          : which == OPTION_RATES                                      ? "a file, or " P4_PLAN_RATES_NAMES
          : which == OPTION_MEASURE_RATES                              ? "a file"
                                                                       : "a whole number above 0");
done:
    return rc;
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
    cli->overrides[cli->override_count++] = argument;
    return P4_OK;
}

static bool is_topic(const char *word, const char *topic)
{
    return strcmp(word, topic) == 0;
}

/* The words behind --help, up to the next option. */
static p4_rc apply_help(p4_cli *cli, int count, char **words)
{
    p4_rc rc = P4_OK;
    cli->action = P4_CLI_HELP;
    cli->topics = words;
    while (cli->topic_count < count && words[cli->topic_count][0] != '-') {
        const char *topic = words[cli->topic_count++];
        TRY(is_topic(topic, KEYS) || is_topic(topic, FAMILIES) ? P4_OK : p4_config_check_topic(topic));
    }
done:
    return rc;
}

p4_rc p4_cli_parse(p4_cli *cli, int argc, char **argv)
{
    p4_rc rc = P4_OK;
    bool options_ended = false;
    *cli = (p4_cli){.overrides = argv + 1}; /* overwrites arguments that were read before */
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
            if (which == OPTION_HELP) {
                TRY(apply_help(cli, argc - i - 1, argv + i + 1));
            } else if (options[which].value != NULL) {
                TRY(apply_value(cli, which, i + 1 < argc ? argv[i + 1] : NULL));
                i++;
            } else {
                apply_option(cli, which);
            }
        }
        if (cli->action == P4_CLI_HELP || cli->action == P4_CLI_VERSION || cli->action == P4_CLI_FAMILIES) {
            cli->cfg_path = NULL;
            return P4_OK;
        }
    }
    CHECK(cli->action == P4_CLI_PLAN ||
              !(cli->json || cli->ranks > 0 || cli->ranks_per_node > 0 || cli->memory_bytes > 0 ||
                cli->host_bytes > 0 || cli->rates_path != NULL),
          "options --ranks, --ranks-per-node, --device-memory, --host-memory, --rates and --json belong to "
          "--plan");
    CHECK(cli->cfg_path != NULL,
          "no configuration file is given; usage: " USAGE " (phase4_mpi --help says more)");
done:
    return rc;
}

static void print_overview(FILE *out)
{
    fputs(
        "Usage: " USAGE "\n"
        "\n"
        "Compresses the language model named in cfg.json to ternary (1.58-bit) weights, fine-tunes it if\n"
        "quantization cost too much quality, and writes the packed model, a dequantized FP16 model and a "
        "report.\n"
        "\n"
        "  phase4_mpi --check cfg.json                check everything that can be known before the run\n"
        "  phase4_mpi --plan cfg.json                 memory, disk, traffic and time of the run\n"
        "  phase4_mpi cfg.json                        run as a single rank\n"
        "  mpirun -n 2 --bind-to none phase4_mpi cfg.json\n"
        "                                             run as two ranks on one machine; as root, mpirun also\n"
        "                                             requires --allow-run-as-root\n"
        "  srun --mpi=pmix -N4 phase4_mpi cfg.json    run on a cluster\n"
        "\n"
        "  phase4_mpi --help fine_tune_lr             one key of cfg.json: values, default, where to read "
        "more\n"
        "  phase4_mpi --help reconstruct              the keys that begin so; '*_lr' those that match\n"
        "  phase4_mpi --help data                     the keys of a group\n"
        "  phase4_mpi --help " KEYS "                     all keys\n"
        "  phase4_mpi --help " FAMILIES "                 the supported families of models\n"
        "\n"
        "Groups of keys of cfg.json, a JSON object:\n",
        out);
    p4_config_print_groups(out);
    fputs("\n"
          "key=value arguments override the file; the last one given for a key counts. Values are JSON, but "
          "strings\n"
          "need no quotes:  phase4_mpi cfg.json fine_tune_lr=3e-4 device=cpu 'eval_files=[\"a.txt\", "
          "\"b.jsonl.gz\"]'\n"
          "Relative paths start at the working directory. docs/glossary.md explains words such as rank and "
          "window.\n"
          "\n"
          "Options:\n",
          out);
    for (int i = 0; i < OPTION_COUNT; i++) {
        const option *known = &options[i];
        char named[40];
        snprintf(named, sizeof named, "%s%s%s", known->name, known->value != NULL ? " " : "",
                 known->value != NULL ? known->value : "");
        fprintf(out, "  %s%s%-*s %s\n", known->short_name != NULL ? known->short_name : "",
                known->short_name != NULL ? ", " : "    ", 20, named, known->help);
    }
    fputs("\nExit status:\n", out);
    for (size_t i = 0; i < STATUSES; i++) {
        fprintf(out, "  %-3s %s\n", statuses[i].status, statuses[i].meaning);
    }
}

static bool print_topic(FILE *out, const char *topic, char *const *topics, int count)
{
    for (int i = 0; i < count; i++) {
        if (!is_topic(topics[i], topic)) {
            continue;
        }
        if (is_topic(topic, KEYS)) {
            fputs("Keys of cfg.json (a JSON object), with allowed values and defaults:\n\n", out);
            p4_config_print_help(out);
        } else {
            fputs("Supported families of models, by model_type in their config.json:\n", out);
            p4_families_print(out, false);
        }
        return true;
    }
    return false;
}

void p4_cli_print_help(FILE *out, char *const *topics, int count)
{
    if (count == 0) {
        print_overview(out);
    } else if (print_topic(out, FAMILIES, topics, count)) {
        fputs(count > 1 ? "\n" : "", out);
    }
    if (!print_topic(out, KEYS, topics, count)) {
        p4_config_print_topics(out, topics, count);
    }
}

static void print_man_options(FILE *out)
{
    for (int i = 0; i < OPTION_COUNT; i++) {
        const option *known = &options[i];
        fputs(".TP\n.B ", out);
        if (known->short_name != NULL) {
            p4_man_print(out, known->short_name);
            fputs(", ", out);
        }
        p4_man_print(out, known->name);
        if (known->value != NULL) {
            fprintf(out, " %s", known->value);
        }
        fputc('\n', out);
        p4_man_print(out, known->help);
        fputc('\n', out);
    }
}

void p4_cli_print_man(FILE *out)
{
    fputs(
        ".\\\" Made from the tables of the program by tests/update_docs.sh.\n"
        ".TH PHASE4_MPI 1 \"\" \"phase4 " P4_VERSION "\" \"User Commands\"\n"
        ".SH NAME\n"
        "phase4_mpi \\- compress a transformer language model to ternary weights\n"
        ".SH SYNOPSIS\n"
        ".B phase4_mpi\n"
        "[options] cfg.json [key=value ...]\n"
        ".br\n"
        ".B srun \\-\\-mpi=pmix \\-N4 phase4_mpi\n"
        "cfg.json\n"
        ".br\n"
        ".B mpirun \\-n 2 \\-\\-bind\\-to none phase4_mpi\n"
        "cfg.json\n"
        ".SH DESCRIPTION\n"
        "Compresses the language model named in cfg.json to ternary (1.58-bit) weights, fine-tunes it if\n"
        "quantization cost too much quality, and writes the packed model, a dequantized FP16 model and a "
        "report\n"
        "to output_path. Arguments key=value override the file; the last one given for a key counts. Their\n"
        "values are JSON, but strings need no quotes. Relative paths start at the working directory.\n"
        ".PP\n"
        "A TOPIC of \\-\\-help is a key of cfg.json, the beginning of keys, a pattern such as "
        "\\(aq*_lr\\(aq, the\n"
        "title of a group of keys, " KEYS " for all of them, or " FAMILIES
        " for the supported families of models.\n"
        ".PP\n"
        "As root, Open MPI's mpirun requires \\-\\-allow\\-run\\-as\\-root.\n"
        ".SH OPTIONS\n",
        out);
    print_man_options(out);
    fputs(".SH EXIT STATUS\n", out);
    for (size_t i = 0; i < STATUSES; i++) {
        fprintf(out, ".TP\n.B %s\n", statuses[i].status);
        p4_man_print(out, statuses[i].meaning);
        fputs(".\n", out);
    }
    fputs(".SH CONFIGURATION\nThe keys of cfg.json, a JSON object.\n", out);
    p4_config_print_man(out);
    fputs(".SH FILES\n"
          "The guides, examples and the demo are in share/phase4 beside the folder of this page.\n",
          out);
}
