/* phase4_report - makes the report of a run again from the files in its output directory, or compares runs.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/page/page.h"
#include "jobs/process.h"
#include "src/phase4.h"

static const char help[] =
    "usage: phase4_report [-o FILE] DIR...\n"
    "\n"
    "Makes the report of a run again from the files in its output directory: DIR/report.html, or FILE.\n"
    "With several directories it compares their runs: comparison.html, or FILE. The page is one file\n"
    "that loads nothing. A run that is under way, or that failed, has a report of what is there.\n"
    "\n"
    "  -o, --output FILE  where the page goes\n"
    "  -h, --help         print this help and exit\n"
    "      --version      print the version and exit\n";

typedef struct arguments {
    const char *output;
    const char **directories; /* [count] */
    int64_t count;
    bool help, version;
} arguments;

static p4_rc parse(arguments *a, int argc, char **argv)
{
    p4_rc rc = P4_OK;
    bool options = true;
    for (int i = 1; i < argc; i++) {
        const char *word = argv[i];
        if (!options || word[0] != '-' || word[1] == '\0') {
            a->directories[a->count++] = word;
        } else if (strcmp(word, "--") == 0) {
            options = false;
        } else if (strcmp(word, "-h") == 0 || strcmp(word, "--help") == 0) {
            a->help = true;
        } else if (strcmp(word, "--version") == 0) {
            a->version = true;
        } else {
            CHECK(strcmp(word, "-o") == 0 || strcmp(word, "--output") == 0,
                  "option \"%.40s\": unknown; see phase4_report --help", word);
            CHECK(i + 1 < argc, "option \"%s\": expected a file behind it", word);
            a->output = argv[++i];
        }
    }
    CHECK(a->help || a->version || a->count > 0,
          "no directory is given; usage: phase4_report [-o FILE] DIR...");
done:
    return rc;
}

static p4_rc make(const arguments *a, p4_page_run *runs)
{
    p4_rc rc = P4_OK;
    char *path = a->output != NULL ? p4_strdup(a->output)
                 : a->count == 1   ? p4_format("%s/report.html", a->directories[0])
                                   : p4_strdup("comparison.html");
    TRY(path != NULL ? P4_OK : P4_E_SYSTEM);
    for (int64_t i = 0; i < a->count; i++) {
        TRY(p4_page_run_read(&runs[i], a->directories[i], NULL));
    }
    TRY(a->count == 1 ? p4_page_write_report(path, runs) : p4_page_write_comparison(path, runs, a->count));
    printf("%s\n", path);
done:
    free(path);
    return rc;
}

int main(int argc, char **argv)
{
    p4_rc rc = P4_OK;
    p4_process_start();
    arguments a = {.directories = p4_alloc((size_t)argc, sizeof *a.directories)};
    p4_page_run *runs = p4_alloc((size_t)argc, sizeof *runs);
    TRY(runs != NULL && a.directories != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(parse(&a, argc, argv));
    if (a.help) {
        fputs(help, stdout);
    } else if (a.version) {
        printf("phase4_report %s\n", p4_version());
    } else {
        TRY(make(&a, runs));
    }
done:
    for (int64_t i = 0; runs != NULL && i < a.count; i++) {
        p4_page_run_free(&runs[i]);
    }
    free(runs);
    free(a.directories);
    if (rc != P4_OK) {
        fprintf(stderr, "phase4_report: error: %s\n", p4_last_error());
    }
    return p4_process_end(p4_process_status(rc));
}
