/* The times of the final table: of all processes of a run, in lines that add up to the whole. */
#include <stdio.h>

#include "check.h"
#include "io/out/report.h"
#include "src/config.h"

static void print(char *text, size_t bytes, const p4_results *results)
{
    static p4_config config;
    FILE *file = tmpfile();
    p4_config_default(&config);
    EXPECT(file != NULL, "no temporary file");
    p4_report_table(file, results, &config);
    rewind(file);
    text[fread(text, 1, bytes - 1, file)] = '\0';
    fclose(file);
}

/* The part of the table from "Time" to the empty line behind it is `want`. */
static void expect_times(const p4_results *results, const char *want)
{
    char text[8192];
    print(text, sizeof text, results);
    const char *times = strstr(text, "  Time ");
    EXPECT(times != NULL && strncmp(times, want, strlen(want)) == 0, "expected\n%s\nin\n%s", want, text);
}

int main(void)
{
    p4_results results;
    p4_results_init(&results);
    results.success = true;
    EXPECT_OK(p4_results_add_time(&results, "load", 30));
    EXPECT_OK(p4_results_add_time(&results, "reconstruct", 50));
    EXPECT_OK(p4_results_add_time(&results, "export", 0.5)); /* too short for a line */
    results.total_s = 80.6;
    expect_times(&results, "  Time            1 min 20 s\n"
                           "    Load the model and the text      30.0 s\n"
                           "    Reconstruct blocks               50.0 s\n\n");
    results.total_s = 100;
    results.provenance.continued = 2;
    expect_times(&results, "  Time            1 min 40 s, of 3 processes\n"
                           "    Load the model and the text      30.0 s\n"
                           "    Reconstruct blocks               50.0 s\n"
                           "    Everything else                  20.0 s\n\n");
    p4_results_free(&results);
    return TEST_END();
}
