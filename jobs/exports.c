#include "jobs/exports.h"

#include <string.h>

#include "io/export/writers.h"
#include "jobs/findings.h"
#include "src/config.h"
#include "src/exports.h"

static const p4_writer *writer_of(const char *entry)
{
    char name[64];
    snprintf(name, sizeof name, "%.*s", (int)p4_exports_name_bytes(entry), entry);
    return p4_writer_find(name); /* the configuration was checked */
}

p4_rc p4_exports_check(const p4_config *config, const p4_hf_model *hf, const p4_tokenizer *tokenizer)
{
    p4_findings f = {.worst = P4_OK};
    for (const char *entry = p4_list_next(&config->exports, NULL); entry != NULL;
         entry = p4_list_next(&config->exports, entry)) {
        const p4_export_source source = {
            .hf = hf, .tokenizer = tokenizer, .option = p4_exports_option(entry)};
        p4_findings_add(&f, writer_of(entry)->check(&source));
    }
    return f.errors > 0 ? p4_fail_lines(f.worst, f.text) : P4_OK;
}

double p4_exports_bytes(const p4_config *config, const p4_hf_model *hf, double copied_bytes)
{
    double sum = 0;
    for (const char *entry = p4_list_next(&config->exports, NULL); entry != NULL;
         entry = p4_list_next(&config->exports, entry)) {
        const p4_export_source source = {.hf = hf, .option = p4_exports_option(entry)};
        double bytes;
        if (writer_of(entry)->plan(&source, &bytes) != P4_OK) { /* p4_exports_check says why */
            p4_error_clear();
        }
        sum += bytes + copied_bytes;
    }
    return sum;
}

static p4_export_source with_option(const p4_export_source *source, const p4_config *config,
                                    const char *writer)
{
    p4_export_source with = *source;
    with.option = p4_exports_option(p4_exports_find(&config->exports, writer));
    return with;
}

p4_rc p4_exports_check_weights(const p4_config *config, const char *writer, const p4_export_source *source)
{
    const p4_writer *row = p4_writer_find(writer);
    const p4_export_source with = with_option(source, config, writer);
    return row->check_weights != NULL ? row->check_weights(&with) : P4_OK;
}

p4_rc p4_exports_write(const p4_config *config, const char *writer, const p4_export_source *source,
                       const char *path)
{
    const p4_export_source with = with_option(source, config, writer);
    return p4_writer_find(writer)->write(&with, path);
}
