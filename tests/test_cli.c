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

/* A command line, and what its message holds. */
typedef struct refusal {
    const char *line, *message;
} refusal;

static void expect_refused(const refusal *refused, size_t count)
{
    static p4_cli cli;
    for (size_t i = 0; i < count; i++) {
        char text[128], *argv[WORDS];
        snprintf(text, sizeof text, "%s", refused[i].line);
        int argc = split(text, argv);
        EXPECT_REFUSED(p4_cli_parse(&cli, argc, argv), refused[i].message);
    }
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
    static const refusal refused[] = {
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
    expect_refused(refused, sizeof refused / sizeof refused[0]);
}

/* What --help prints with these topics, heap. */
static char *help(char *const *topics, int count)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    p4_cli_print_help(out, topics, count);
    fclose(out);
    for (const char *line = text; *line != '\0'; line += strcspn(line, "\n") + 1) {
        EXPECT(strcspn(line, "\n") <= 110, "wider than 110 columns: %.*s", (int)strcspn(line, "\n"), line);
    }
    return text;
}

static void test_overview(void)
{
    enum { FIRST_SCREEN = 24 };
    static const char *const first[] = {"Usage: phase4_mpi [options] cfg.json [key=value ...]\n",
                                        "mpirun -n 2 --bind-to none phase4_mpi cfg.json\n",
                                        "\n  phase4_mpi --help fine_tune_lr ", "\n  phase4_mpi --help keys "},
                             *const parts[] = {"\n  Reconstruction   5: reconstruct, ...\n",
                                               "\n  -h, --help [TOPIC ...] ",
                                               "\n      --version ",
                                               "\n      --families ",
                                               "\n      --validate ",
                                               "\n  -q, --quiet ",
                                               "\n      --strict ",
                                               "\n      --log-time ",
                                               "\nExit status:\n  0 ",
                                               "\n  1  ",
                                               "\n  2  ",
                                               "\n  3  "};
    char *text = help(NULL, 0), *screen = text;
    for (int line = 0; line < FIRST_SCREEN; line++) {
        screen += strcspn(screen, "\n") + 1;
    }
    for (size_t i = 0; i < sizeof first / sizeof first[0]; i++) {
        const char *at = strstr(text, first[i]);
        EXPECT(at != NULL && at < screen, "\"%s\" is not on the first screen of the help", first[i]);
    }
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        EXPECT(strstr(text, parts[i]) != NULL, "\"%s\" is not in the help", parts[i]);
    }
    for (int i = 0; i < p4_config_rows; i++) {
        const char *group = p4_config_table[i].group;
        EXPECT(group == NULL || strstr(text, group) != NULL, "%s is not in the help", group);
    }
    free(text);
}

/* The keys that topics give, in order, as "seed learn_scales"; room of 4096. */
static char *keys_of(char *keys, char *const *topics, int count)
{
    char *text = help(topics, count);
    size_t used = 0;
    keys[0] = '\0';
    for (const char *line = text; *line != '\0'; line += strcspn(line, "\n") + 1) {
        if (line[0] == ' ' && line[2] != ' ') {
            used += (size_t)snprintf(keys + used, 4096 - used, "%s%.*s", used > 0 ? " " : "",
                                     (int)strcspn(line + 2, " "), line + 2);
        }
    }
    free(text);
    return keys;
}

static void test_topics(void)
{
    static const struct {
        char *topics[2];
        const char *keys;
    } cases[] = {
        {{"seed"}, "seed"},
        {{"Seed"}, "seed"},
        {{"fine-tune-lr"}, "fine_tune_lr"},
        {{"reconstruct"},
         "reconstruct reconstruct_tokens reconstruct_steps reconstruct_lr reconstruct_window"},
        {{"*_lr"}, "fine_tune_lr reconstruct_lr"},
        {{"reconstruct_l", "seed"}, "seed reconstruct_lr"},
        {{"targets"}, "target_compression_ratio max_accuracy_drop fine_tune_threshold"},
    };
    char keys[4096];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int count = cases[i].topics[1] != NULL ? 2 : 1;
        keys_of(keys, cases[i].topics, count);
        EXPECT(strcmp(keys, cases[i].keys) == 0, "%s: %s, expected %s", cases[i].topics[0], keys,
               cases[i].keys);
        for (int t = 0; t < count; t++) {
            EXPECT_OK(p4_config_check_topic(cases[i].topics[t]));
        }
    }
    char *text = help((char *[]){"keys"}, 1);
    for (int i = 0; i < p4_config_rows; i++) {
        EXPECT(strstr(text, p4_config_table[i].name) != NULL, "--help keys does not have %s",
               p4_config_table[i].name);
    }
    free(text);
    text = help((char *[]){"families"}, 1);
    for (int64_t i = 0; p4_family_name(i) != NULL; i++) {
        EXPECT(strstr(text, p4_family_find(p4_family_name(i))->title) != NULL,
               "--help families does not have %s", p4_family_name(i));
    }
    free(text);
}

static void test_one_key(void)
{
    char *text = help((char *[]){"checkpoint_minutes"}, 1);
    EXPECT(strcmp(text, "Checkpoints (more in docs/running.md: Stop and continue):\n"
                        "  checkpoint_minutes            a number in [0, 1000000], default 15\n"
                        "      Minutes between checkpoints; 0: none by time.\n"
                        "      A run may continue from a checkpoint with another value.\n") == 0,
           "%s", text);
    free(text);
    text = help((char *[]){"seed"}, 1);
    EXPECT(strstr(text, "may continue") == NULL, "a seed may not change: %s", text);
    free(text);
}

static void test_help_line(void)
{
    static p4_cli cli;
    char line[] = "cfg.json --help seed *_lr --quiet keys", *argv[WORDS];
    int argc = split(line, argv);
    EXPECT_OK(p4_cli_parse(&cli, argc, argv));
    EXPECT(cli.action == P4_CLI_HELP && cli.topic_count == 2 && strcmp(cli.topics[0], "seed") == 0 &&
               strcmp(cli.topics[1], "*_lr") == 0,
           "action %d, %d topics", (int)cli.action, cli.topic_count);
    static const refusal refused[] = {
        {"--help sede", "--help: unknown key \"sede\", the nearest known key is \"seed\""},
        {"--help seed batch_size", "the nearest known key is \"calibration_batch_size\""},
        {"--help qqqqqqqqq",
         "--help: found \"qqqqqqqqq\", expected a key of cfg.json, the beginning of keys, a group of keys, "
         "\"keys\" for all of them, or \"families\""},
        {"--help x*", "--help: found \"x*\", expected a key"},
        {"--help cfg.json", "--help: found \"cfg.json\", expected a key"},
    };
    expect_refused(refused, sizeof refused / sizeof refused[0]);
    EXPECT_REFUSED(p4_config_check_topic(""), "found \"\", expected a key");
}

/* Each "docs/PAGE.md: HEADING" that --help names for a group of keys. */
static void expect_heading(const char *place, size_t bytes)
{
    char path[256], line[512], heading[128];
    size_t page = strcspn(place, ":");
    bool found = false;
    snprintf(path, sizeof path, "%s/../../%.*s", P4_FIXTURES, (int)page, place);
    snprintf(heading, sizeof heading, " %.*s", (int)(bytes - page - 2), place + page + 2);
    FILE *file = fopen(path, "r");
    EXPECT(file != NULL, "%s cannot be opened", path);
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        found = found || (line[0] == '#' && strcmp(line + strspn(line, "#"), heading) == 0);
    }
    if (file != NULL) {
        fclose(file);
    }
    EXPECT(found, "%.*s: there is no such heading", (int)bytes, place);
}

static void test_pages_of_groups(void)
{
    for (int i = 0; i < p4_config_rows; i++) {
        const p4_config_row *row = &p4_config_table[i];
        EXPECT((row->group != NULL) == (row->more != NULL), "pages for the group of %s", row->name);
        for (const char *place = row->more; place != NULL && *place != '\0';) {
            size_t bytes = strcspn(place, ";");
            expect_heading(place, bytes);
            place += bytes + (place[bytes] == ';' ? strlen("; ") : 0);
        }
    }
}

int main(void)
{
    test_accepted();
    test_refused();
    test_many_overrides();
    test_sizes();
    test_plan();
    test_overview();
    test_topics();
    test_one_key();
    test_help_line();
    test_pages_of_groups();
    return TEST_END();
}
