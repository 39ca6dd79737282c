#include "jobs/pages.h"

#include <stdlib.h>

#include "io/out/directory.h"
#include "io/page/page.h"
#include "jobs/details.h"
#include "jobs/samples.h"

/* From the results in memory, as results.json will say them, and the files beside it. */
static p4_rc write_report(const p4_run *run)
{
    p4_rc rc = P4_OK;
    char *json = NULL;
    p4_page_run page = {.directory = NULL};
    p4_results results = run->results;
    results.success = true; /* of a run that reaches this, only results.json itself is missing */
    TRY(p4_results_print(&results, &json));
    TRY(p4_page_run_read(&page, run->config.output_path, json));
    TRY(p4_page_write_report(run->results.output_paths.report, &page));
done:
    p4_page_run_free(&page);
    free(json);
    return rc;
}

/* The run goes on without the file. */
static void survive(p4_rc rc)
{
    if (rc != P4_OK) {
        WARN("warning: %s", p4_last_error());
        p4_error_clear();
    }
}

void p4_pages_write(p4_run *run)
{
    double *numbers = NULL;
    p4_rc rc = p4_timeline_gather(run, &numbers);
    if (run->compute.group->rank == 0 && p4_hold_check(run->hold) == P4_OK) {
        survive(p4_samples_write(run));
        survive(rc == P4_OK ? p4_details_write(run, run->results.output_paths.details, numbers) : rc);
        survive(write_report(run));
        p4_output_forget_missing(&run->results.output_paths);
    }
    p4_error_clear();
    free(numbers);
}
