#include "jobs/options.h"

#include <ctype.h>
#include <string.h>

#include "src/config.h"
#include "src/phase4.h"

static const p4_option common[P4_OPTION_OWN] = {
    [P4_OPTION_HELP] = {"--help", "-h", NULL, "Print this help and exit."},
    [P4_OPTION_VERSION] = {"--version", NULL, NULL,
                           "Print the version and the compiled-in features, and exit."},
};

/* Option `number`; NULL: there are no more. */
static const p4_option *option_at(const p4_program *program, int number)
{
    const p4_option *own = &program->options[number - P4_OPTION_OWN];
    return number < P4_OPTION_OWN ? &common[number] : own->name != NULL ? own : NULL;
}

/* The number of an option, -1: unknown. */
static int find_option(const p4_program *program, const char *argument)
{
    for (int i = 0; option_at(program, i) != NULL; i++) {
        const p4_option *known = option_at(program, i);
        if (strcmp(argument, known->name) == 0 ||
            (known->short_name != NULL && strcmp(argument, known->short_name) == 0)) {
            return i;
        }
    }
    return -1;
}

bool p4_option_is_key(char advice[P4_OPTION_ADVICE_BYTES], const char *argument)
{
    char key[P4_NAME_BYTES], value[80] = "VALUE";
    const char *name = argument + strspn(argument, "-");
    size_t bytes = strcspn(name, "=");
    if (name == argument || bytes >= sizeof key) {
        return false;
    }
    for (size_t i = 0; i < bytes; i++) {
        key[i] = name[i] == '-' ? '_' : name[i];
    }
    key[bytes] = '\0';
    int row = p4_config_find(key);
    if (row < 0) {
        return false;
    }
    if (name[bytes] == '=') {
        p4_config_format_excerpt(value, name + bytes + 1, strlen(name + bytes + 1));
    }
    snprintf(advice, P4_OPTION_ADVICE_BYTES, "it is a key, given without dashes: %s=%s",
             p4_config_table[row].name, value);
    return true;
}

static p4_rc unknown_option(const p4_program *program, const char *argument)
{
    const char *nearest = NULL;
    char excerpt[80], advice[P4_OPTION_ADVICE_BYTES];
    int least = p4_edits_likely(argument) + 1;
    for (int i = 0; option_at(program, i) != NULL; i++) {
        int distance = p4_edit_distance(argument, option_at(program, i)->name);
        if (distance < least) {
            least = distance, nearest = option_at(program, i)->name;
        }
    }
    p4_config_format_excerpt(excerpt, argument, strlen(argument));
    if (strstr(program->usage, "key=value") != NULL && p4_option_is_key(advice, argument)) {
        return FAIL("unknown option \"%s\": %s; usage: %s %s", excerpt, advice, program->name,
                    program->usage);
    }
    return nearest != NULL ? FAIL("unknown option \"%s\", the nearest known option is \"%s\"; usage: %s %s",
                                  excerpt, nearest, program->name, program->usage)
                           : FAIL("unknown option \"%s\"; usage: %s %s (%s --help says more)", excerpt,
                                  program->name, program->usage, program->name);
}

p4_rc p4_program_parse(p4_arguments *a, const p4_program *program, int argc, char **argv)
{
    p4_rc rc = P4_OK;
    bool options_ended = false;
    *a = (p4_arguments){.words = argv + 1};
    for (int i = 1; i < argc; i++) {
        if (options_ended || argv[i][0] != '-') {
            CHECK(argv[i][0] != '\0', "argument %d is empty; usage: %s %s", i, program->name, program->usage);
            a->words[a->word_count++] = argv[i];
            continue;
        }
        if (strcmp(argv[i], "--") == 0) {
            options_ended = true;
            continue;
        }
        int number = find_option(program, argv[i]);
        if (number < 0) {
            return unknown_option(program, argv[i]);
        }
        a->given[number] = true;
        if (number < P4_OPTION_OWN) {
            return P4_OK;
        }
        if (option_at(program, number)->value != NULL) {
            CHECK(i + 1 < argc, "option \"%s\": found nothing behind it, expected %s", argv[i],
                  option_at(program, number)->value);
            a->values[number] = argv[++i];
        }
    }
done:
    return rc;
}

void p4_program_print_help(FILE *out, const p4_program *program)
{
    fprintf(out, "Usage: %s %s\n\n%s\nOptions:\n", program->name, program->usage, program->description);
    for (int i = 0; option_at(program, i) != NULL; i++) {
        const p4_option *known = option_at(program, i);
        char named[40];
        snprintf(named, sizeof named, "%s%s%s", known->name, known->value != NULL ? " " : "",
                 known->value != NULL ? known->value : "");
        fprintf(out, "  %s%s%-20s %s\n", known->short_name != NULL ? known->short_name : "",
                known->short_name != NULL ? ", " : "    ", named, known->help);
    }
    fputs("\nExit status:\n", out);
    for (const p4_exit_status *s = program->statuses; s->status != NULL; s++) {
        fprintf(out, "  %-3s %s\n", s->status, s->meaning);
    }
}

void p4_program_print_man(FILE *out, const p4_program *program)
{
    fputs(".\\\" Made from the tables of the program by tests/update_docs.sh.\n.TH ", out);
    for (const char *letter = program->name; *letter != '\0'; letter++) {
        fputc(toupper((unsigned char)*letter), out);
    }
    fprintf(out, " 1 \"\" \"phase4 " P4_VERSION "\" \"User Commands\"\n.SH NAME\n%s \\- ", program->name);
    p4_man_print(out, program->purpose);
    fprintf(out, "\n.SH SYNOPSIS\n.B %s\n", program->name);
    p4_man_print(out, program->usage);
    fputs("\n.SH DESCRIPTION\n", out);
    p4_man_print(out, program->description);
    fputs(".SH OPTIONS\n", out);
    for (int i = 0; option_at(program, i) != NULL; i++) {
        const p4_option *known = option_at(program, i);
        fputs(".TP\n.B ", out);
        if (known->short_name != NULL) {
            p4_man_print(out, known->short_name);
            fputs(", ", out);
        }
        p4_man_print(out, known->name);
        fprintf(out, "%s%s\n", known->value != NULL ? " " : "", known->value != NULL ? known->value : "");
        p4_man_print(out, known->help);
        fputc('\n', out);
    }
    fputs(".SH EXIT STATUS\n", out);
    for (const p4_exit_status *s = program->statuses; s->status != NULL; s++) {
        fprintf(out, ".TP\n.B %s\n", s->status);
        p4_man_print(out, s->meaning);
        fputs(".\n", out);
    }
    fputs(".SH SEE ALSO\n.BR phase4_mpi (1)\n", out);
}
