#include "jobs/make_report.h"

#include <stdlib.h>

#include "io/page/page.h"

static const p4_option options[] = {
    [P4_REPORT_OUTPUT - P4_OPTION_OWN] = {"--output", "-o", "FILE", "Where the page goes."},
    {NULL, NULL, NULL, NULL}};

static const p4_exit_status statuses[] = {
    {"0", "the page was made"},
    {"1", "system failure: memory, or standard output that cannot be written"},
    {"2", "bad input: a directory without the results of a run, a damaged file, or a path that cannot be "
          "written"},
    {NULL, NULL}};

const p4_program p4_report_program = {
    .name = "phase4_report",
    .usage = "[-o FILE] DIR...",
    .purpose = "make the report of a run again, or compare runs",
    .description =
        "Makes the report of a run of phase4_mpi again from the files in its output directory:\n"
        "DIR/report.html, or FILE. With several directories it compares their runs: comparison.html in the\n"
        "current directory, or FILE. The page is one file for the browser that loads nothing. A run that is\n"
        "under way, or that failed, has a report of what is there. The program is one process and needs no\n"
        "MPI. It prints the path of the page.\n",
    .options = options,
    .statuses = statuses};

p4_rc p4_make_report(char *const *directories, int count, const char *output)
{
    p4_rc rc = P4_OK;
    p4_page_run *runs = p4_alloc((size_t)count, sizeof *runs);
    char *path = output != NULL ? p4_strdup(output)
                 : count == 1   ? p4_format("%s/report.html", directories[0])
                                : p4_strdup("comparison.html");
    TRY(path != NULL && runs != NULL ? P4_OK : P4_E_SYSTEM);
    for (int i = 0; i < count; i++) {
        TRY(p4_page_run_read(&runs[i], directories[i], NULL));
    }
    TRY(count == 1 ? p4_page_write_report(path, runs) : p4_page_write_comparison(path, runs, count));
    printf("%s\n", path);
done:
    for (int i = 0; runs != NULL && i < count; i++) {
        p4_page_run_free(&runs[i]);
    }
    free(runs);
    free(path);
    return rc;
}
