/* phase4_report - makes the report of a run again from the files in its output directory, or compares runs.
 */
#include <stdio.h>
#include <stdlib.h>

#include "jobs/make_report.h"
#include "jobs/process.h"
#include "src/phase4.h"

static p4_rc act(const p4_arguments *a)
{
    p4_rc rc = P4_OK;
    if (a->given[P4_OPTION_HELP]) {
        p4_program_print_help(stdout, &p4_report_program);
    } else if (a->given[P4_OPTION_VERSION]) {
        printf("%s %s\n", p4_report_program.name, p4_version());
    } else {
        CHECK(a->word_count > 0, "no directory is given; usage: %s %s", p4_report_program.name,
              p4_report_program.usage);
        TRY(p4_make_report(a->words, a->word_count, a->values[P4_REPORT_OUTPUT]));
    }
done:
    return rc;
}

int main(int argc, char **argv)
{
    static p4_arguments arguments;
    p4_process_start();
    p4_rc rc = p4_program_parse(&arguments, &p4_report_program, argc, argv);
    if (rc == P4_OK) {
        rc = act(&arguments);
    }
    if (rc != P4_OK) {
        p4_error_print();
    }
    return p4_process_end(rc != P4_OK ? p4_process_status(rc) : EXIT_SUCCESS);
}
