/* phase4_evaluate - measures a finished result again. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "dist/launcher.h"
#include "jobs/measure.h"
#include "jobs/process.h"
#include "src/phase4.h"

enum { VERDICT_FAILED = 3 };               /* exit status under --strict */
static const double START_TIMEOUT_S = 600; /* until the configuration says otherwise */

/* Does this process speak? Without ranks by what its launcher says. */
static bool speaks(const p4_group *group)
{
    return group->state != NULL ? group->rank == 0 : p4_launched_rank() <= 0;
}

static int report(p4_rc rc, bool speaker)
{
    if (rc != P4_OK && speaker) {
        p4_error_print();
    }
    return p4_process_status(rc);
}

static p4_rc print(const p4_measurement *measured, bool json)
{
    if (!json) {
        p4_measurement_table(stdout, measured);
        return P4_OK;
    }
    char *text = p4_measurement_json(measured);
    if (text != NULL) {
        fputs(text, stdout);
    }
    free(text);
    return text != NULL ? P4_OK : P4_E_SYSTEM;
}

static int evaluate(const p4_arguments *a)
{
    static p4_measurement measured;
    p4_rc rc = P4_OK;
    p4_machine machine = {.state = NULL};
    p4_group group = {.state = NULL};
    bool quiet = a->given[P4_EVALUATE_QUIET] || a->given[P4_EVALUATE_JSON];
    TRY(p4_machine_open(&machine));
    TRY(p4_group_open(&group, &machine, NULL, START_TIMEOUT_S));
    p4_group_set_log(&group, quiet ? P4_LOG_WARN : P4_LOG_INFO);
    TRY(p4_measure(&measured, &group, a->words[0], a->words + 1, a->word_count - 1));
    CHECK(!a->given[P4_EVALUATE_STRICT] || measured.original.tokens > 0,
          "--strict asks for a verdict, but the original is not at hand: %s", measured.why_not);
    TRY_ROOT(&group, print(&measured, a->given[P4_EVALUATE_JSON]));
done:;
    bool failed = rc == P4_OK && a->given[P4_EVALUATE_STRICT] && !measured.quality.passed;
    int status = report(rc, speaks(&group));
    signal(SIGTERM, SIG_IGN); /* srun ends the other ranks once one has left: let all leave alike */
    p4_group_close(&group);
    p4_machine_close(&machine);
    return failed ? VERDICT_FAILED : status;
}

int main(int argc, char **argv)
{
    static p4_arguments arguments;
    p4_process_let_threads_sleep(argv);
    p4_process_start();
    bool speaker = p4_launched_rank() <= 0;
    int status = EXIT_SUCCESS;
    p4_rc rc = p4_program_parse(&arguments, &p4_evaluate_program, argc, argv);
    if (rc == P4_OK && arguments.given[P4_OPTION_HELP]) {
        if (speaker) {
            p4_program_print_help(stdout, &p4_evaluate_program);
        }
    } else if (rc == P4_OK && arguments.given[P4_OPTION_VERSION]) {
        if (speaker) {
            printf("%s %s\n", p4_evaluate_program.name, p4_version());
        }
    } else if (rc == P4_OK && arguments.word_count == 0) {
        rc = p4_fail(P4_E_INPUT, "no result is given; usage: %s %s", p4_evaluate_program.name,
                     p4_evaluate_program.usage);
        status = report(rc, speaker);
    } else {
        status = rc == P4_OK ? evaluate(&arguments) : report(rc, speaker);
    }
    return p4_process_end(status);
}
