#include "io/page/compare_sets.h"

#include <math.h>
#include <string.h>

#include "io/out/outputs.h"
#include "io/page/compare_windows.h"
#include "io/page/html.h"

enum { SETS_MAX = 32 }; /* columns */

static const cJSON *set_of(const p4_page_run *run, const char *name)
{
    const cJSON *set;
    cJSON_ArrayForEach(set, p4_page_item(run->results, "eval_sets"))
    {
        if (strcmp(p4_page_string(set, "name"), name) == 0) {
            return set;
        }
    }
    return NULL;
}

/* The sets of all runs, in the order in which they are met. Returns their number, of which the first
 * SETS_MAX are at `names`. */
static int list_sets(const char *names[SETS_MAX], const p4_page_run *runs, int64_t count)
{
    int found = 0;
    for (int64_t i = 0; i < count; i++) {
        const cJSON *set;
        cJSON_ArrayForEach(set, p4_page_item(runs[i].results, "eval_sets"))
        {
            const char *name = p4_page_string(set, "name");
            bool listed = false;
            for (int64_t k = 0; k < i && !listed; k++) {
                listed = set_of(&runs[k], name) != NULL;
            }
            if (!listed && found < SETS_MAX) {
                names[found] = name;
            }
            found += !listed;
        }
    }
    return found;
}

static p4_page_windows windows_of(const p4_page_run *run, const cJSON *set, const char *name)
{
    char input[sizeof P4_SET_TEXT + P4_SET_NAME_BYTES];
    snprintf(input, sizeof input, P4_SET_TEXT, name);
    return (p4_page_windows){p4_page_fingerprint(run, input), p4_page_window_tokens(run),
                             p4_page_predictions(set)};
}

/* Are the windows of a set the same in all runs that have it? */
static bool is_comparable(const p4_page_run *runs, int64_t count, const char *name)
{
    for (int64_t i = 0; i < count; i++) {
        const cJSON *set = set_of(&runs[i], name);
        for (int64_t k = 0; set != NULL && k < i; k++) {
            const cJSON *other = set_of(&runs[k], name);
            if (other != NULL &&
                !p4_page_same_windows(windows_of(&runs[i], set, name), windows_of(&runs[k], other, name))) {
                return false;
            }
        }
    }
    return true;
}

static void put_warning(FILE *to, const p4_page_run *runs, int64_t count, const char *const *names, int shown)
{
    int differ = 0;
    for (int s = 0; s < shown; s++) {
        if (!is_comparable(runs, count, names[s])) {
            fputs(differ++ > 0 ? ", "
                               : "<p class=\"warning\"><strong>The runs do not have the same windows of text "
                                 "in these sets:</strong> ",
                  to);
            p4_html_foreign(to, names[s]);
        }
    }
    if (differ > 0) {
        fputs(". Their perplexities cannot be compared with one another.</p>\n", to);
    }
}

static void begin_table(FILE *to, const char *const *names, int shown)
{
    fputs(
        "<div class=\"scroll wide\" tabindex=\"0\" role=\"region\" aria-label=\"Evaluation sets\">\n<table>\n"
        "<caption>Perplexity of the final model on each set, and its change from the original "
        "(95&nbsp;% interval)</caption>\n<thead><tr><th scope=\"col\">Run</th>",
        to);
    for (int s = 0; s < shown; s++) {
        fputs("<th scope=\"col\" class=\"n\">", to);
        p4_html_foreign(to, names[s]);
        fputs("</th><th scope=\"col\" class=\"n\">", to);
        p4_html_foreign(to, names[s]);
        fputs(": change</th>", to);
    }
    fputs("</tr></thead>\n<tbody>\n", to);
}

/* Two cells of a run; dashes where it does not have the set. */
static void put_set(FILE *to, const cJSON *set)
{
    const cJSON *quality = p4_page_item(set, "quality");
    fputs("<td class=\"n\">", to);
    p4_html_number(to, p4_page_real(set, "final.perplexity"), 3, "");
    fputs("</td><td class=\"n\">", to);
    p4_html_change(to, p4_page_real(quality, "degradation_ratio"));
    p4_html_interval(to, " (", p4_page_real(quality, "degradation_low"),
                     p4_page_real(quality, "degradation_high"), ")");
    if (cJSON_IsFalse(p4_page_item(quality, "passed"))) {
        fputs(" <span class=\"badge fail\">failed</span>", to);
    }
    fputs("</td>", to);
}

void p4_page_compare_sets(FILE *to, const p4_page_run *runs, int64_t count)
{
    const char *names[SETS_MAX];
    int found = list_sets(names, runs, count), shown = (int)p4_min_i64(found, SETS_MAX);
    if (found == 0) {
        return;
    }
    p4_html_section(to, "sets", "Evaluation sets");
    if (found > shown) {
        fprintf(to, "<p>The runs have %d sets, of which the first %d are shown.</p>\n", found, shown);
    }
    put_warning(to, runs, count, names, shown);
    begin_table(to, names, shown);
    for (int64_t i = 0; i < count; i++) {
        if (cJSON_GetArraySize(p4_page_item(runs[i].results, "eval_sets")) > 0) {
            fputs("<tr><th scope=\"row\">", to);
            p4_html_foreign(to, runs[i].directory);
            fputs("</th>", to);
            for (int s = 0; s < shown; s++) {
                put_set(to, set_of(&runs[i], names[s]));
            }
            fputs("</tr>\n", to);
        }
    }
    p4_html_end_table(to);
    p4_html_end_section(to);
}
