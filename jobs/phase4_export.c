/* phase4_export - a finished result in the formats of other programs. */
#include <stdio.h>
#include <stdlib.h>

#include "jobs/export_result.h"
#include "jobs/process.h"
#include "src/config.h"
#include "src/phase4.h"

static p4_rc export_result(const p4_arguments *a)
{
    p4_rc rc = P4_OK;
    static p4_list formats;
    CHECK(a->word_count > 0 && a->given[P4_EXPORT_TO], "expected a directory and a format; usage: %s %s",
          p4_export_program.name, p4_export_program.usage);
    bool fits = p4_list_append(&formats, a->values[P4_EXPORT_TO]);
    for (int i = 1; i < a->word_count; i++) {
        fits = fits && p4_list_append(&formats, a->words[i]);
    }
    CHECK(fits, "the formats are longer than %d bytes", P4_LIST_BYTES - 1);
    TRY(p4_export_result(a->words[0], &formats, a->given[P4_EXPORT_OVERWRITE]));
done:
    return rc;
}

int main(int argc, char **argv)
{
    static p4_arguments arguments;
    p4_process_start();
    p4_rc rc = p4_program_parse(&arguments, &p4_export_program, argc, argv);
    p4_log_setup(arguments.given[P4_EXPORT_QUIET] ? P4_LOG_WARN : P4_LOG_INFO, true);
    if (rc == P4_OK && arguments.given[P4_OPTION_HELP]) {
        p4_program_print_help(stdout, &p4_export_program);
    } else if (rc == P4_OK && arguments.given[P4_OPTION_VERSION]) {
        printf("%s %s\n", p4_export_program.name, p4_version());
    } else if (rc == P4_OK) {
        rc = export_result(&arguments);
    }
    if (rc != P4_OK) {
        p4_error_print();
    }
    return p4_process_end(rc != P4_OK ? p4_process_status(rc) : EXIT_SUCCESS);
}
