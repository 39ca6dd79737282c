#include "jobs/pages.h"

#include <stdio.h>
#include <stdlib.h>

#include "io/out/directory.h"
#include "io/page/page.h"
#include "jobs/details.h"
#include "jobs/samples.h"
#include "jobs/watch.h"

/* The run goes on without the file. */
static void survive(p4_rc rc)
{
    if (rc != P4_OK) {
        WARN("warning: %s", p4_last_error());
        p4_error_clear();
    }
}

/* The results in memory as results.json will say them; NULL: out of memory, with a warning. */
static char *print_results(p4_run *run, p4_rc outcome)
{
    char *json = NULL;
    p4_warnings_copy(&run->warnings, &run->results);
    p4_results results = run->results;
    results.success = outcome == P4_OK; /* of a run that gets here only results.json is missing */
    if (outcome != P4_OK) {
        snprintf(results.error, sizeof results.error, "%s", p4_last_error());
    }
    return p4_results_print(&results, &json) == P4_OK ? json : NULL;
}

static p4_rc write_report(const p4_run *run, const char *results_json)
{
    p4_rc rc = P4_OK;
    p4_page_run page;
    TRY(p4_page_run_read(&page, run->config.output_path, results_json));
    TRY(p4_page_write_report(run->results.output_paths.report, &page));
done:
    p4_page_run_free(&page);
    return rc;
}

/* Rank 0; numbers: p4_timeline_gather's. */
static void write_success(p4_run *run, p4_rc gathered, const double *numbers)
{
    p4_output_paths *paths = &run->results.output_paths;
    survive(p4_samples_write(run));
    survive(gathered == P4_OK ? p4_details_write(run, paths->details, numbers) : gathered);
    char *json = print_results(run, P4_OK);
    p4_rc reported = json != NULL ? write_report(run, json) : P4_E_SYSTEM;
    survive(reported);
    if (json != NULL) {
        p4_watch_finish(run, true, json, reported == P4_OK ? paths->report : "");
    }
    p4_output_forget_missing(paths);
    free(json);
}

/* Rank 0. The error that ended the run stays the recorded one. */
static void write_failure(p4_run *run, p4_rc outcome)
{
    char *message = p4_strdup(p4_last_error()), *json = print_results(run, outcome);
    if (run->watch.opened && json != NULL && message != NULL) {
        p4_error_clear();
        p4_watch_finish(run, false, json, "");
        p4_error_set(message);
    }
    free(message);
    free(json);
}

void p4_pages_write(p4_run *run, p4_rc outcome)
{
    double *numbers = NULL;
    if (outcome == P4_OK) {
        p4_rc gathered = p4_timeline_gather(run, &numbers);
        if (run->compute.group->rank == 0 && p4_hold_check(run->hold) == P4_OK) {
            write_success(run, gathered, numbers);
        }
        p4_error_clear();
    } else if (outcome != P4_STOPPED && outcome != P4_E_HOLD && run->compute.group->rank == 0) {
        write_failure(run, outcome);
    }
    free(numbers);
}
