/* The command line: options, overrides, what is refused, and the help. */
#include <stdlib.h>

#include "check.h"
#include "jobs/cli.h"
#include "src/config.h"
#include "src/families.h"

enum { WORDS = 16 };

/* The words of a command line, split at single spaces. */
static int split(char *text, char *argv[WORDS])
{
    int argc = 0;
    argv[argc++] = "phase4_mpi";
    for (char *word = strtok(text, " "); word != NULL && argc < WORDS; word = strtok(NULL, " ")) {
        argv[argc++] = word;
    }
    return argc;
}

static void test_accepted(void)
{
    static const struct {
        const char *line;
        p4_cli_action action;
        bool quiet, strict;
        const char *cfg_path;
        int count;
        const char *last; /* override */
    } lines[] = {
        {"cfg.json", P4_CLI_RUN, false, false, "cfg.json", 0, NULL},
        {"--quiet --strict cfg.json", P4_CLI_RUN, true, true, "cfg.json", 0, NULL},
        {"cfg.json seed=3 -q device=cpu", P4_CLI_RUN, true, false, "cfg.json", 2, "device=cpu"},
        {"cfg.json model_path=--strict", P4_CLI_RUN, false, false, "cfg.json", 1, "model_path=--strict"},
        {"a=b.json x=", P4_CLI_RUN, false, false, "a=b.json", 1, "x="},
        {"--strict -- -cfg.json -x=1", P4_CLI_RUN, false, true, "-cfg.json", 1, "-x=1"},
        {"--validate cfg.json", P4_CLI_VALIDATE, false, false, "cfg.json", 0, NULL},
        {"cfg.json --validate --quiet", P4_CLI_VALIDATE, true, false, "cfg.json", 0, NULL},
        {"--help", P4_CLI_HELP, false, false, NULL, 0, NULL},
        {"-h", P4_CLI_HELP, false, false, NULL, 0, NULL},
        {"cfg.json --help --nonsense", P4_CLI_HELP, false, false, NULL, 0, NULL},
        {"--families", P4_CLI_FAMILIES, false, false, NULL, 0, NULL},
        {"--version cfg.json", P4_CLI_VERSION, false, false, NULL, 0, NULL},
    };
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        static p4_cli cli;
        char text[128], *argv[WORDS];
        snprintf(text, sizeof text, "%s", lines[i].line);
        int argc = split(text, argv);
        memset(&cli, 0x33, sizeof cli);
        EXPECT(p4_cli_parse(&cli, argc, argv) == P4_OK, "%s: %s", lines[i].line, p4_last_error());
        EXPECT(cli.action == lines[i].action, "%s: action %d", lines[i].line, (int)cli.action);
        EXPECT(cli.quiet == lines[i].quiet && cli.strict == lines[i].strict, "%s: flags", lines[i].line);
        EXPECT((cli.cfg_path == NULL) == (lines[i].cfg_path == NULL) &&
                   (cli.cfg_path == NULL || strcmp(cli.cfg_path, lines[i].cfg_path) == 0),
               "%s: file", lines[i].line);
        EXPECT(cli.override_count == lines[i].count, "%s: %d overrides", lines[i].line, cli.override_count);
        EXPECT(lines[i].last == NULL || strcmp(cli.overrides[lines[i].count - 1], lines[i].last) == 0,
               "%s: last override", lines[i].line);
    }
}

static void test_refused(void)
{
    static const struct {
        const char *line, *part;
    } lines[] = {
        {"", "no configuration file is given; usage: phase4_mpi [options] cfg.json [key=value ...]"},
        {"--quiet", "no configuration file is given"},
        {"--validate", "no configuration file is given"},
        {"--qiet cfg.json", "unknown option \"--qiet\", the nearest known option is \"--quiet\""},
        {"cfg.json --stirct", "the nearest known option is \"--strict\""},
        {"--Validat cfg.json", "the nearest known option is \"--validate\""},
        {"-x cfg.json", "unknown option \"-x\"; usage:"},
        {"--resume cfg.json",
         "unknown option \"--resume\": it is a key, given without dashes: resume=VALUE; usage:"},
        {"cfg.json --seed=7", "given without dashes: seed=7; usage:"},
        {"cfg.json --fine-tune-lr=1e-3", "given without dashes: fine_tune_lr=1e-3; usage:"},
        {"--seeds=7 cfg.json", "unknown option \"--seeds=7\"; usage:"},
        {"- cfg.json", "unknown option \"-\""},
        {"--quiet=1 cfg.json", "unknown option \"--quiet=1\", the nearest known option is \"--quiet\""},
        {"seed=3 cfg.json", "found \"cfg.json\" after the configuration file \"seed=3\", expected key=value"},
        {"cfg.json other.json", "found \"other.json\" after the configuration file \"cfg.json\""},
        {"cfg.json =3", "found \"=3\" after the configuration file \"cfg.json\""},
    };
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        static p4_cli cli;
        char text[128], *argv[WORDS];
        snprintf(text, sizeof text, "%s", lines[i].line);
        int argc = split(text, argv);
        EXPECT(p4_cli_parse(&cli, argc, argv) == P4_E_INPUT, "%s was accepted", lines[i].line);
        EXPECT(strstr(p4_last_error(), lines[i].part) != NULL, "%s: %s", lines[i].line, p4_last_error());
        EXPECT(strchr(p4_last_error(), '\n') == NULL, "%s: more than one line", lines[i].line);
        p4_error_clear();
    }
    static p4_cli cli;
    char *no_arguments[] = {NULL}, *empty[] = {"phase4_mpi", ""};
    EXPECT_REFUSED(p4_cli_parse(&cli, 0, no_arguments), "no configuration file is given");
    EXPECT_REFUSED(p4_cli_parse(&cli, 2, empty), "the name of the configuration file is empty");
}

/* As many as a system passes on. */
static void test_many_overrides(void)
{
    enum { MANY = 2000 };
    static p4_cli cli;
    char *timed[] = {"phase4_mpi", "--log-time", "cfg.json"};
    EXPECT_OK(p4_cli_parse(&cli, 3, timed));
    EXPECT(cli.log_time && !cli.strict && !cli.quiet, "--log-time: flags");
    static char *argv[MANY + 3] = {"phase4_mpi", "cfg.json"};
    for (int i = 0; i < MANY; i++) {
        argv[2 + i] = i % 2 == 0 ? "seed=1" : "seed=2";
    }
    argv[MANY + 2] = "--quiet"; /* options may stand behind them */
    EXPECT_OK(p4_cli_parse(&cli, MANY + 3, argv));
    EXPECT(cli.override_count == MANY && cli.quiet && strcmp(cli.cfg_path, "cfg.json") == 0,
           "%d overrides, file %s", cli.override_count, cli.cfg_path);
    for (int i = 0; i < cli.override_count; i++) {
        EXPECT(strcmp(cli.overrides[i], i % 2 == 0 ? "seed=1" : "seed=2") == 0, "override %d: %s", i,
               cli.overrides[i]);
    }
}

static void test_sizes(void)
{
    static const struct {
        const char *text;
        double bytes;
    } cases[] = {{"80G", 80e9},
                 {"80GB", 80e9},
                 {"80GiB", 80.0 * (1 << 30)},
                 {"1.5Ti", 1.5 * (1LL << 40)},
                 {"512MiB", 512 << 20},
                 {"1048576", 1 << 20},
                 {"64K", 64e3},
                 {"64KiB", 64 << 10}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        double bytes = 0;
        EXPECT(p4_cli_read_size(&bytes, cases[i].text) && bytes == cases[i].bytes, "%s: %g", cases[i].text,
               bytes);
    }
}

/* --plan and what belongs to it. */
static void test_plan(void)
{
    static p4_cli cli;
    char line[] = "cfg.json --plan --ranks 16 --device-memory 1.5T --host-memory 2T --json", *argv[WORDS];
    int argc = split(line, argv);
    EXPECT_OK(p4_cli_parse(&cli, argc, argv));
    EXPECT(cli.action == P4_CLI_PLAN && cli.json && cli.ranks == 16 && cli.memory_bytes == 1.5e12 &&
               cli.host_bytes == 2e12 && cli.rates_path == NULL && cli.ranks_per_node == 0,
           "action %d, %d ranks, %g bytes", (int)cli.action, cli.ranks, cli.memory_bytes);
    static const struct {
        const char *line, *message;
    } refused[] = {
        {"--plan cfg.json --ranks 0", "option \"--ranks\": found \"0\", expected a whole number above 0"},
        {"--plan cfg.json --ranks", "option \"--ranks\": found nothing"},
        {"--plan cfg.json --device-memory 80X", "found \"80X\", expected a size, as in 80G"},
        {"--plan cfg.json --device-memory 80", "found \"80\", expected a size, as in 80G or 80GiB"},
        {"--plan cfg.json --host-memory 1048575", "expected a size, as in 80G or 80GiB"},
        {"--plan cfg.json --host-memory 1iB", "expected a size, as in 80G or 80GiB"},
        {"--plan cfg.json --host-memory",
         "option \"--host-memory\": found nothing, expected a size, as in 80G"},
        {"cfg.json --host-memory 1T", "belong to --plan"},
        {"cfg.json --ranks 4", "belong to --plan"},
        {"cfg.json --json", "belong to --plan"},
    };
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        char text[128];
        snprintf(text, sizeof text, "%s", refused[i].line);
        argc = split(text, argv);
        EXPECT_REFUSED(p4_cli_parse(&cli, argc, argv), refused[i].message);
    }
}

static void test_help(void)
{
    static const char *const parts[] = {"Usage: phase4_mpi [options] cfg.json [key=value ...]\n",
                                        "\n  -h, --help ",
                                        "\n      --version ",
                                        "\n      --families ",
                                        "\n      --validate ",
                                        "\n  -q, --quiet ",
                                        "\n      --strict ",
                                        "\n      --log-time ",
                                        "mpirun -n 2 --bind-to none phase4_mpi cfg.json\n",
                                        "\nExit status:\n  0 ",
                                        "\n  1  ",
                                        "\n  2  ",
                                        "\n  3  ",
                                        "\n  model_path "};
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    p4_cli_print_help(out);
    fclose(out);
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        EXPECT(strstr(text, parts[i]) != NULL, "\"%s\" is not in the help", parts[i]);
    }
    for (const char *line = text; *line != '\0'; line += strcspn(line, "\n") + 1) {
        EXPECT(strcspn(line, "\n") <= 110, "wider than 110 columns: %.*s", (int)strcspn(line, "\n"), line);
    }
    for (int i = 0; i < p4_config_rows; i++) {
        EXPECT(strstr(text, p4_config_table[i].name) != NULL, "%s is not in the help",
               p4_config_table[i].name);
    }
    for (int64_t i = 0; p4_family_name(i) != NULL; i++) {
        EXPECT(strstr(text, p4_family_find(p4_family_name(i))->title) != NULL, "%s is not in the help",
               p4_family_name(i));
    }
    free(text);
}

int main(void)
{
    test_accepted();
    test_refused();
    test_many_overrides();
    test_sizes();
    test_plan();
    test_help();
    return TEST_END();
}
