/* The configuration, what differs from the defaults first; where, when and by what the run was made. */
#include <stdlib.h>
#include <string.h>

#include "io/json/config.h"
#include "io/page/html.h"
#include "io/page/sections.h"
#include "src/phase4.h"

/* The defaults of the recipe as a tree, NULL: out of memory. */
static cJSON *defaults_of(const cJSON *config)
{
    p4_config *c = p4_alloc(1, sizeof *c);
    char *json = NULL;
    cJSON *tree = NULL;
    if (c != NULL) {
        int recipe = 0;
        while (p4_recipe_names[recipe] != NULL &&
               strcmp(p4_recipe_names[recipe], p4_page_string(config, "recipe")) != 0) {
            recipe++;
        }
        p4_config_recipe(c, p4_recipe_names[recipe] != NULL ? (p4_recipe)recipe : P4_RECIPE_QUALITY);
        tree = p4_config_print(c, &json) == P4_OK ? cJSON_Parse(json) : NULL;
    }
    free(json);
    free(c);
    return tree;
}

static void put_value(FILE *to, const cJSON *value)
{
    char *text = cJSON_IsString(value) ? NULL : cJSON_PrintUnformatted(value);
    p4_html_foreign(to, cJSON_IsString(value) ? value->valuestring : text);
    cJSON_free(text);
}

typedef enum part {
    GIVEN,   /* another value than the recipe's default */
    DECIDED, /* the default leaves it to the program, which records what it decided: no value of the user */
    USUAL,   /* the default */
} part;

static part part_of(const cJSON *item, const cJSON *usual)
{
    const char *text = cJSON_GetStringValue(usual);
    bool open = (text != NULL && strcmp(text, "auto") == 0) ||
                strcmp(item->string, "target_compression_ratio") == 0; /* by the number of parameters */
    return cJSON_Compare(item, usual, true) ? USUAL : open ? DECIDED : GIVEN;
}

/* The keys of a part; nothing where there are none. */
static void put_keys(FILE *to, const cJSON *config, const cJSON *defaults, part which, const char *caption)
{
    const cJSON *item;
    int count = 0;
    const bool changed = which != USUAL;
    cJSON_ArrayForEach(item, config)
    {
        count += part_of(item, cJSON_GetObjectItemCaseSensitive(defaults, item->string)) == which;
    }
    if (count == 0) {
        return;
    }
    p4_html_table(to, caption, changed ? "Key|Value|Default" : "Key|Value");
    cJSON_ArrayForEach(item, config)
    {
        const cJSON *usual = cJSON_GetObjectItemCaseSensitive(defaults, item->string);
        if (part_of(item, usual) != which) {
            continue;
        }
        fputs("<tr><th scope=\"row\"><code>", to);
        p4_html_text(to, item->string);
        fputs("</code></th><td class=\"value\">", to);
        put_value(to, item);
        if (changed) {
            fputs("</td><td class=\"value soft\">", to);
            put_value(to, usual);
        }
        fputs("</td></tr>\n", to);
    }
    p4_html_end_table(to);
}

void p4_section_configuration(FILE *to, const p4_page_run *run)
{
    if (run->config == NULL) {
        return;
    }
    cJSON *defaults = defaults_of(run->config);
    p4_html_section(to, "configuration", "Configuration");
    fputs("<p>The recipe is <code>", to);
    p4_html_text(to, p4_page_string(run->config, "recipe"));
    fputs("</code>.</p>\n", to);
    put_keys(to, run->config, defaults, GIVEN, "Keys that differ from the recipe&#39;s defaults");
    put_keys(to, run->config, defaults, DECIDED,
             "Keys that the program decides unless they are given, with their values in this run");
    fputs("<details><summary>Keys with their default values</summary>\n", to);
    put_keys(to, run->config, defaults, USUAL, "Keys with their default values");
    fputs("</details>\n", to);
    p4_html_end_section(to);
    cJSON_Delete(defaults);
}

/* ---- provenance ---- */

static void put_fact(FILE *to, const char *name, const char *value)
{
    if (value[0] != '\0') {
        fprintf(to, "<tr><th scope=\"row\">%s</th><td class=\"value\">", name);
        p4_html_foreign(to, value);
        fputs("</td></tr>\n", to);
    }
}

static void put_hosts(FILE *to, const cJSON *provenance)
{
    const cJSON *place;
    cJSON_ArrayForEach(place, p4_page_item(provenance, "hosts"))
    {
        double ranks = p4_page_real(place, "ranks");
        fputs("<tr><th scope=\"row\">host</th><td class=\"value\">", to);
        p4_html_foreign(to, p4_page_string(place, "host"));
        fputs(": ", to);
        p4_html_count(to, ranks);
        fprintf(to, " rank%s, ", ranks == 1 ? "" : "s");
        p4_html_foreign(to, p4_page_string(place, "device"));
        fputs("</td></tr>\n", to);
    }
}

static void put_continued(FILE *to, const cJSON *provenance)
{
    double times = p4_page_real(provenance, "continued.times");
    if (times > 0) {
        fprintf(to, "<tr><th scope=\"row\">continued</th><td class=\"value\">%.0f time%s, last from ", times,
                times == 1 ? "" : "s");
        p4_html_foreign(to, p4_page_string(provenance, "continued.checkpoint"));
        fputs("</td></tr>\n", to);
    }
}

static void put_inputs(FILE *to, const cJSON *inputs)
{
    const cJSON *input;
    if (cJSON_GetArraySize(inputs) == 0) {
        return;
    }
    fputs("<details><summary>Files and texts that were read</summary>\n", to);
    p4_html_table(to, "Files and texts that were read", "Name|Fingerprint");
    cJSON_ArrayForEach(input, inputs)
    {
        fputs("<tr><th scope=\"row\" class=\"value\">", to);
        p4_html_foreign(to, p4_page_string(input, "name"));
        fputs("</th><td class=\"value\"><code>", to);
        p4_html_text(to, p4_page_string(input, "fingerprint"));
        fputs("</code></td></tr>\n", to);
    }
    p4_html_end_table(to);
    fputs("</details>\n", to);
}

void p4_section_provenance(FILE *to, const p4_page_run *run)
{
    static const char *const versions[] = {"program", "mpi", "hdf5", "blas", "cuda", "nccl"};
    const cJSON *provenance = p4_page_item(run->results, "provenance");
    if (!cJSON_IsObject(provenance)) {
        return;
    }
    p4_html_section(to, "provenance", "Provenance");
    p4_html_table(to, "Where, when and by what", "Fact|Value");
    put_fact(to, "started", p4_page_string(provenance, "started"));
    put_fact(to, "ended", p4_page_string(provenance, "ended"));
    put_continued(to, provenance);
    put_hosts(to, provenance);
    for (size_t i = 0; i < sizeof versions / sizeof versions[0]; i++) {
        put_fact(to, versions[i], p4_page_string(p4_page_item(provenance, "versions"), versions[i]));
    }
    put_fact(to, "output directory", run->directory);
    p4_html_end_table(to);
    put_inputs(to, p4_page_item(provenance, "inputs"));
    p4_html_end_section(to);
}
