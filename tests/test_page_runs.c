/* The pages of runs of each kind: tests/fixtures/runs holds what phase4_mpi wrote (make_runs.sh). */
#include <cjson/cJSON.h>

#include "io/out/outputs.h"
#include "page_world.h"

/* The files of a run, from the fixtures. */
static void take_run(const char *kind)
{
    static const char *const files[] = {P4_RESULTS_FILE, P4_CONFIG_FILE, P4_DETAILS_FILE, P4_METRICS_FILE};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        char *from = p4_format("%s/runs/%s/%s", P4_FIXTURES, kind, files[i]), *text = NULL,
             *to = p4_format("%s/%s", directory, files[i]);
        size_t bytes = 0;
        EXPECT_OK(p4_remove_tree(to));
        if (p4_file_exists(from)) {
            EXPECT_OK(p4_file_read(&text, &bytes, from, 1 << 20));
            put_file(files[i], text != NULL ? text : "");
        }
        free(text);
        free(from);
        free(to);
    }
}

/* The ids of the sections, in order, each followed by a space. */
static void expect_sections(const char *kind, const char *want)
{
    char found[256] = "";
    for (const char *p = report; (p = strstr(p, "<section id=\"")) != NULL;) {
        p += strlen("<section id=\"");
        size_t used = strlen(found);
        snprintf(found + used, sizeof found - used, "%.*s ", (int)strcspn(p, "\""), p);
    }
    EXPECT(strcmp(found, want) == 0, "%s: sections %s, expected %s", kind, found, want);
}

/* The list of contents names the sections behind the verdict, no more and no less. */
static void expect_contents(const char *kind)
{
    int links = 0, sections = -1; /* the verdict is not listed */
    for (const char *p = report; (p = strstr(p, "<li><a href=\"#")) != NULL; links++) {
        char section[64];
        p += strlen("<li><a href=\"#");
        snprintf(section, sizeof section, "<section id=\"%.*s\"", (int)strcspn(p, "\""), p);
        expect_in_page(section, true);
    }
    for (const char *p = report; (p = strstr(p, "<section id=\"")) != NULL; p++) {
        sections++;
    }
    EXPECT(links == sections, "%s: %d links to %d sections", kind, links, sections);
}

#define WHOLE "model activations size time configuration provenance "
static const struct kind {
    const char *name, *sections, *heading;
    const char *has[3], *lacks[3];
} kinds[] = {
    {"tuned",
     "verdict quality training " WHOLE,
     "verdict pass",
     {"Loss during fine-tuning", "<h3>Reconstruction</h3>", ">final "},
     {"continued</th>", "experts"}},
    {"quantized",
     "verdict quality " WHOLE,
     "verdict pass",
     {"> Passed</h2>", "<dt>Perplexity</dt>", "<dt>Zeros</dt>"},
     {"Fine-tuned", "Loss during", "<h3>Reconstruction</h3>"}},
    {"reconstructed",
     "verdict quality training " WHOLE,
     "verdict pass",
     {"<h3>Reconstruction</h3>"},
     {"Fine-tuned", "Loss during"}},
    {"mixture",
     "verdict quality training " WHOLE,
     "verdict pass",
     {"mixtral", "Each token takes 2 of 3 experts.", "times the mean number of tokens."},
     {"continued</th>"}},
    {"sets",
     "verdict quality training " WHOLE,
     "verdict pass",
     {"(95&nbsp;% interval of the change: ", "<th scope=\"row\"><bdi>code</bdi></th>",
      "agrees with the original"},
     {"Failed on the sets"}},
    {"other_sets",
     "verdict quality " WHOLE,
     "verdict fail",
     {" Failed on the sets: <bdi>web</bdi>.", "<td>failed</td>", "<td>passed</td>"},
     {"Loss during"}},
    {"scales",
     "verdict quality training " WHOLE,
     "verdict pass",
     {"<code>learn_scales</code>", ">95&nbsp;% interval</th>", "agrees with the original"},
     {"Failed on the sets", "<caption>Sets</caption>"}},
    {"failed",
     "verdict quality training time provenance ",
     "verdict fail",
     {"The run did not complete</h2>", "injected failure", "<th scope=\"row\">Reconstruct blocks</th>"},
     {"<dt>Size</dt>", "<dt>Next token correct</dt>"}},
    {"under_way",
     "verdict training provenance ",
     "verdict way",
     {"Under way: Fine-tune</h2>", "<dt>Training loss</dt>", "The last step in the log is 100."},
     {"did not complete", "lowest evaluation loss was kept", ">final "}},
    {"stopped",
     "verdict quality training time provenance ",
     "verdict way",
     {"</span> Stopped</h2>", "the same command continues it", "<dt>Training loss</dt>"},
     {"did not complete", "lowest evaluation loss was kept", ">final "}},
    {"continued",
     "verdict quality training " WHOLE,
     "verdict pass",
     {"Fine-tuned for 1,000 steps", "continued</th>", "1 time, last from "},
     {"did not complete"}},
};
enum { KINDS = sizeof kinds / sizeof kinds[0] };

static void test_kinds(void)
{
    for (int k = 0; k < KINDS; k++) {
        const struct kind *kind = &kinds[k];
        take_run(kind->name);
        make();
        expect_sections(kind->name, kind->sections);
        expect_contents(kind->name);
        expect_in_page(kind->heading, true);
        for (int i = 0; i < 3; i++) {
            if (kind->has[i] != NULL) {
                expect_in_page(kind->has[i], true);
            }
            if (kind->lacks[i] != NULL) {
                expect_in_page(kind->lacks[i], false);
            }
        }
    }
}

/* The same files make the same page, but for the line that says when it was made. */
static void test_same_page(void)
{
    for (int k = 0; k < KINDS; k++) {
        take_run(kinds[k].name);
        make();
        char *first = p4_strdup(report);
        make();
        char *footers[] = {strstr(first, "<footer>"), strstr(report, "<footer>")};
        EXPECT(footers[0] != NULL && footers[1] != NULL, "%s: no footer", kinds[k].name);
        *footers[0] = *footers[1] = '\0';
        EXPECT(strcmp(first, report) == 0, "%s: two pages of the same files differ", kinds[k].name);
        free(first);
    }
}

/* Takes away what is at `item`, makes the page, and puts it back; so for all below it, of a list its first.
 */
static void without(cJSON *root, cJSON *item)
{
    cJSON *child;
    int type = item->type;
    item->type = cJSON_NULL;
    char *json = cJSON_PrintUnformatted(root);
    item->type = type;
    make_of(json);
    cJSON_free(json);
    cJSON_ArrayForEach(child, item)
    {
        without(root, child);
        if (cJSON_IsArray(item)) {
            break;
        }
    }
}

/* Whatever results.json does not know, the page has no number that is none (make). */
static void test_unknown_values(void)
{
    static const char *const names[] = {"tuned", "mixture", "stopped"}; /* each page is synced to the disk */
    for (size_t k = 0; k < sizeof names / sizeof names[0]; k++) {
        cJSON *member, *root;
        char *text = NULL, *path = p4_format("%s/%s", directory, P4_RESULTS_FILE);
        size_t bytes = 0;
        take_run(names[k]);
        EXPECT_OK(p4_file_read(&text, &bytes, path, 1 << 20));
        root = cJSON_Parse(text);
        EXPECT(root != NULL, "%s is no JSON", path);
        cJSON_ArrayForEach(member, root)
        {
            without(root, member);
        }
        cJSON_Delete(root);
        free(text);
        free(path);
    }
}

/* All kinds in one comparison. */
static void test_comparison(void)
{
    p4_page_run runs[KINDS];
    char *path = p4_format("%s/comparison.html", directory);
    size_t bytes = 0;
    for (int k = 0; k < KINDS; k++) {
        char *from = p4_format("%s/runs/%s", P4_FIXTURES, kinds[k].name);
        EXPECT_OK(p4_page_run_read(&runs[k], from, NULL));
        free(from);
    }
    EXPECT_OK(p4_page_write_comparison(path, runs, KINDS));
    for (int k = 0; k < KINDS; k++) {
        p4_page_run_free(&runs[k]);
    }
    free(report);
    report = NULL;
    EXPECT_OK(p4_file_read(&report, &bytes, path, 1 << 20));
    free(path);
    expect_balanced(report);
    expect_numbers(report);
    expect_in_page("<span class=\"badge way\">Under way</span>", true);
    expect_in_page("<span class=\"badge way\">Stopped</span>", true);
    expect_in_page("<span class=\"badge fail\">The run did not complete</span>", true);
    expect_in_page("The evaluation text of 1 of the runs is not known", true);
    expect_in_page("not evaluated on the same windows", false); /* all were on one text */
    /* Two runs have sets. One is of other windows in each; runs without a set have no row. */
    expect_in_page("in these sets:</strong> <bdi>web</bdi>. Their", true);
    expect_in_page("<th scope=\"col\" class=\"n\"><bdi>code</bdi></th><th scope=\"col\" class=\"n\">"
                   "<bdi>code</bdi>: change</th><th scope=\"col\" class=\"n\"><bdi>web</bdi></th>",
                   true);
    const char *sets = strstr(report, "<section id=\"sets\""),
               *end = sets != NULL ? strstr(sets, "</section>") : NULL;
    int rows = 0;
    for (const char *p = sets; end != NULL && (p = strstr(p, "<th scope=\"row\">")) != NULL && p < end; p++) {
        rows++;
    }
    EXPECT(rows == 2, "%d runs have sets", rows);
    expect_in_page("&nbsp;%) <span class=\"badge fail\">failed</span></td>", true);
}

int main(void)
{
    make_directory();
    test_kinds();
    test_same_page();
    test_unknown_values();
    test_comparison();
    remove_directory();
    return TEST_END();
}
