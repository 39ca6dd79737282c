/* phase4_inspect - what the results of a run hold, and whether they agree with each other. */
#include <stdio.h>
#include <stdlib.h>

#include "jobs/inspect.h"
#include "jobs/process.h"
#include "src/phase4.h"

enum { DIFFERS = 5 }; /* exit status */

static p4_rc print(char *json)
{
    if (json == NULL) {
        return P4_E_SYSTEM;
    }
    fputs(json, stdout);
    free(json);
    return P4_OK;
}

static p4_rc inspect(const p4_arguments *a, int threads, bool *agrees)
{
    p4_rc rc = P4_OK;
    static p4_inspection x;
    TRY(p4_inspect(&x, a->words[0], threads));
    *agrees = x.findings.count == 0;
    if (a->given[P4_INSPECT_JSON]) {
        TRY(print(p4_inspection_json(&x)));
    } else if (!a->given[P4_INSPECT_QUIET]) {
        p4_inspection_table(stdout, &x);
    } else {
        for (int64_t i = 0; i < p4_min_i64(x.findings.count, P4_FINDINGS_KEPT); i++) {
            WARN("%s", x.findings.lines[i]);
        }
    }
done:
    p4_inspection_free(&x);
    return rc;
}

static p4_rc compare(const p4_arguments *a, int threads, bool *agrees)
{
    p4_rc rc = P4_OK;
    p4_result_difference d;
    TRY(p4_inspect_compare(&d, a->words[0], a->words[1], threads));
    *agrees = !d.differs;
    if (a->given[P4_INSPECT_JSON]) {
        TRY(print(p4_result_difference_json(&d)));
    } else if (!a->given[P4_INSPECT_QUIET]) {
        p4_result_difference_table(stdout, &d);
    }
done:
    p4_result_difference_free(&d);
    return rc;
}

static p4_rc act(const p4_arguments *a, bool *agrees)
{
    p4_rc rc = P4_OK;
    bool diff = a->given[P4_INSPECT_DIFF];
    const char *threads = a->values[P4_INSPECT_THREADS];
    char *end = NULL;
    long count = threads != NULL ? strtol(threads, &end, 10) : 0;
    CHECK(threads == NULL || (*end == '\0' && count > 0 && count <= 1024),
          "option \"--threads\": found \"%.40s\", expected a whole number from 1 to 1024", threads);
    CHECK(a->word_count == (diff ? 2 : 1), "found %d argument%s, expected %s; usage: %s %s", a->word_count,
          p4_plural(a->word_count), diff ? "two results to compare" : "one result", p4_inspect_program.name,
          p4_inspect_program.usage);
    rc = diff ? compare(a, (int)count, agrees) : inspect(a, (int)count, agrees);
done:
    return rc;
}

int main(int argc, char **argv)
{
    static p4_arguments arguments;
    bool agrees = true;
    p4_process_start();
    p4_rc rc = p4_program_parse(&arguments, &p4_inspect_program, argc, argv);
    bool quiet = arguments.given[P4_INSPECT_QUIET] || arguments.given[P4_INSPECT_JSON];
    p4_log_setup(quiet ? P4_LOG_WARN : P4_LOG_INFO, true);
    if (rc == P4_OK && arguments.given[P4_OPTION_HELP]) {
        p4_program_print_help(stdout, &p4_inspect_program);
    } else if (rc == P4_OK && arguments.given[P4_OPTION_VERSION]) {
        printf("%s %s\n", p4_inspect_program.name, p4_version());
    } else if (rc == P4_OK) {
        rc = act(&arguments, &agrees);
    }
    if (rc != P4_OK) {
        p4_error_print();
    }
    return p4_process_end(rc != P4_OK ? p4_process_status(rc) : agrees ? EXIT_SUCCESS : DIFFERS);
}
