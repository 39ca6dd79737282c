/* Texts of the original and of the ternary model side by side. */
#include <string.h>

#include "io/page/html.h"
#include "io/page/sections.h"

bool p4_page_has_samples(const p4_page_run *run)
{
    return cJSON_GetArraySize(p4_page_item(run->samples, "samples")) > 0;
}

static void put_text(FILE *to, const char *heading, const char *prompt, const char *text, double tokens_per_s)
{
    fprintf(to, "<div class=\"text\"><h4>%s", heading);
    if (tokens_per_s > 0) {
        fprintf(to, " <span class=\"speed\">%.1f tokens/s</span>", tokens_per_s);
    }
    fputs("</h4><p dir=\"auto\"><span class=\"prompt\">", to);
    p4_html_text(to, prompt + strspn(prompt, " \n"));
    fputs("</span>", to);
    p4_html_text(to, text);
    fputs("</p></div>\n", to);
}

void p4_section_samples(FILE *to, const p4_page_run *run)
{
    const cJSON *sample;
    int number = 0;
    if (!p4_page_has_samples(run)) {
        return;
    }
    p4_html_section(to, "samples", "Sample texts");
    fputs("<p>The beginning, in grey, is from the evaluation text. Both models continue it with the most "
          "likely "
          "token each time.</p>\n",
          to);
    cJSON_ArrayForEach(sample, p4_page_item(run->samples, "samples"))
    {
        const char *prompt = p4_page_string(sample, "prompt");
        fprintf(to, "<h3>Sample %d</h3>\n<div class=\"pair samples\">\n", ++number);
        put_text(to, "Original", prompt, p4_page_string(sample, "original"),
                 p4_page_real(sample, "original_tokens_per_s"));
        put_text(to, "Ternary", prompt, p4_page_string(sample, "ternary"),
                 p4_page_real(sample, "ternary_tokens_per_s"));
        fputs("</div>\n", to);
    }
    p4_html_end_section(to);
}
