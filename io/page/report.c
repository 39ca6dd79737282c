#include <stdlib.h>

#include "io/file/atomic_file.h"
#include "io/page/frame.h"
#include "io/page/html.h"
#include "io/page/page.h"
#include "io/page/sections.h"
#include "src/phase4.h"

void p4_page_begin(FILE *to, const char *title)
{
    fputs("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
          "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
          "<meta name=\"color-scheme\" content=\"light dark\">\n"
          "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src "
          "'unsafe-inline'; img-src data:\">\n<link rel=\"icon\" href=\"data:,\">\n<title>",
          to);
    p4_html_text(to, title);
    fputs("</title>\n<style>\n", to);
    for (int i = 0; p4_page_style[i] != NULL; i++) {
        fprintf(to, "%s\n", p4_page_style[i]);
    }
    fputs("</style>\n</head>\n<body>\n<a class=\"skip\" href=\"#verdict\">Skip to the verdict</a>\n", to);
}

void p4_page_end(FILE *to)
{
    char now[P4_TIME_BYTES];
    fprintf(to, "</main>\n<footer><p>Made by phase4 %s, %s.</p></footer>\n</body>\n</html>\n", p4_version(),
            p4_utc_now(now));
}

p4_rc p4_page_store(const char *path, FILE *to, char **text, size_t *bytes)
{
    bool ok = ferror(to) == 0;
    ok = fclose(to) == 0 && ok;
    p4_rc rc = ok ? p4_atomic_write_all(path, *text, *bytes) : FAULT("out of memory while a page was made");
    free(*text);
    return rc;
}

static void put_link(FILE *to, const char *id, const char *title, bool there)
{
    if (there) {
        fprintf(to, "<li><a href=\"#%s\">%s</a></li>", id, title);
    }
}

static void put_contents(FILE *to, const p4_page_run *run)
{
    const cJSON *r = run->results;
    fputs("<nav aria-label=\"Contents\"><ul>", to);
    put_link(to, "quality", "Quality", p4_page_real(r, "pre_compression.tokens") > 0);
    put_link(to, "samples", "Samples", p4_page_has_samples(run));
    put_link(to, "training", "Training", p4_page_has_training(run));
    put_link(to, "model", "Map", p4_page_has_layers(run));
    put_link(to, "activations", "Activations", p4_page_has_activations(run));
    put_link(to, "size", "Bytes", p4_page_real(r, "metrics.original_size_mb") > 0);
    put_link(to, "time", "Time", p4_page_real(r, "timing.total") > 0);
    put_link(to, "configuration", "Configuration", run->config != NULL);
    put_link(to, "provenance", "Provenance", cJSON_IsObject(p4_page_item(r, "provenance")));
    fputs("</ul></nav>\n", to);
}

static const char between[] = " &middot; "; /* two facts */

/* Writes `before`, `what` and the value; nothing if the value is not known. Returns what the next fact needs
 * before it. */
static const char *put_fact(FILE *to, const char *before, const char *what, const char *value)
{
    if (value[0] == '\0') {
        return before;
    }
    fprintf(to, "%s%s", before, what);
    p4_html_text(to, value);
    return between;
}

static void put_header(FILE *to, const p4_page_run *run)
{
    const cJSON *r = run->results;
    fputs("<header>\n<p class=\"eyebrow\">phase4 report</p>\n<h1>", to);
    p4_html_foreign(to, run->name);
    fputs("</h1>\n<p class=\"facts\">", to);
    const char *before = put_fact(to, "", "", p4_page_string(r, "model_type"));
    double parameters = p4_page_real(r, "metrics.total_params");
    if (parameters > 0) {
        fputs(before, to);
        p4_html_count(to, parameters);
        fputs(" parameters", to);
        before = between;
    }
    before = put_fact(to, before, "ternary by ", p4_page_string(r, "method"));
    put_fact(to, before, "", p4_page_string(r, "provenance.ended"));
    fputs("</p>\n", to);
    put_contents(to, run);
    fputs("</header>\n<main>\n", to);
}

p4_rc p4_page_write_report(const char *path, const p4_page_run *run)
{
    char *html = NULL, *title = p4_format("%s \xE2\x80\x93 phase4 report", run->name);
    size_t bytes = 0;
    FILE *to = title != NULL ? open_memstream(&html, &bytes) : NULL;
    if (to == NULL) {
        free(title);
        return FAULT("out of memory while a page was made");
    }
    p4_page_begin(to, title);
    put_header(to, run);
    p4_section_verdict(to, run);
    p4_section_quality(to, run);
    p4_section_samples(to, run);
    p4_section_training(to, run);
    p4_section_model(to, run);
    p4_section_activations(to, run);
    p4_section_size(to, run);
    p4_section_time(to, run);
    p4_section_configuration(to, run);
    p4_section_provenance(to, run);
    p4_page_end(to);
    free(title);
    return p4_page_store(path, to, &html, &bytes);
}
