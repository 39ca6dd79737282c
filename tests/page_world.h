/* page_world.h - a directory with the files of a run, and the page that is made of them. */
#ifndef P4_PAGE_WORLD_H
#define P4_PAGE_WORLD_H

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>

#include "check.h"
#include "io/file/atomic_file.h"
#include "io/file/files.h"
#include "io/page/page.h"

static char directory[P4_PATH_BYTES];
static char *report; /* the page, heap */

static void put_file(const char *name, const char *text)
{
    char path[2 * P4_PATH_BYTES];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    EXPECT_OK(p4_atomic_write_all(path, text, strlen(text)));
}

static void make_directory(void)
{
    snprintf(directory, sizeof directory, "%s/phase4_page_XXXXXX",
             getenv("TMPDIR") != NULL ? getenv("TMPDIR") : "/tmp");
    EXPECT(mkdtemp(directory) != NULL, "mkdtemp: %s", strerror(errno));
}

static void remove_directory(void)
{
    free(report);
    report = NULL;
    EXPECT_OK(p4_remove_tree(directory));
}

/* Every element that is opened is closed, in order. */
static void expect_balanced(const char *html)
{
    static const char *const empty[] = {"meta", "link", "!doctype"};
    char open[64][16];
    int depth = 0;
    for (const char *p = strchr(html, '<'); p != NULL; p = strchr(p + 1, '<')) {
        bool closes = p[1] == '/', alone = false;
        char name[16];
        snprintf(name, sizeof name, "%.*s", (int)strcspn(p + 1 + closes, " >/\n"), p + 1 + closes);
        for (size_t i = 0; i < sizeof empty / sizeof empty[0]; i++) {
            alone = alone || strcmp(name, empty[i]) == 0;
        }
        const char *end = strchr(p, '>');
        EXPECT(end != NULL, "an element is not ended: %.40s", p);
        alone = alone || (end != NULL && end[-1] == '/');
        if (closes) {
            EXPECT(depth > 0 && strcmp(open[depth - 1], name) == 0, "</%s> closes <%s>", name,
                   depth > 0 ? open[depth - 1] : "nothing");
            depth -= depth > 0;
        } else if (!alone) {
            EXPECT(depth < 64, "<%s> is too deep", name);
            strcpy(open[depth < 64 ? depth++ : 63], name);
        }
    }
    EXPECT(depth == 0, "<%s> is left open", depth > 0 ? open[depth - 1] : "");
}

/* No number that is none, as a word of its own. */
static void expect_numbers(const char *html)
{
    static const char *const none[] = {"nan", "inf"};
    for (size_t i = 0; i < sizeof none / sizeof none[0]; i++) {
        for (const char *p = strstr(html, none[i]); p != NULL; p = strstr(p + 1, none[i])) {
            bool word = !isalpha((unsigned char)p[-1]) && !isalpha((unsigned char)p[3]);
            EXPECT(!word, "the page has \"%s\" in: %.40s", none[i], p - 20);
        }
    }
}

/* The page of the files in the directory; results_json: instead of results.json, NULL: the file. */
static void make_of(const char *results_json)
{
    char path[2 * P4_PATH_BYTES];
    size_t bytes = 0;
    p4_page_run run;
    snprintf(path, sizeof path, "%s/report.html", directory);
    EXPECT_OK(p4_page_run_read(&run, directory, results_json));
    EXPECT_OK(p4_page_write_report(path, &run));
    p4_page_run_free(&run);
    free(report);
    report = NULL;
    EXPECT_OK(p4_file_read(&report, &bytes, path, 16 << 20));
    expect_balanced(report);
    expect_numbers(report);
}

static void make(void)
{
    make_of(NULL);
}

static void expect_in_page(const char *text, bool there)
{
    EXPECT((strstr(report, text) != NULL) == there, "the page %s \"%s\"", there ? "lacks" : "has", text);
}

#endif
