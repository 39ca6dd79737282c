#include "io/out/inspection.h"

#include <stdlib.h>

#include "io/out/report.h"
#include "src/leaf/escape.h"

p4_rc p4_finding_add(p4_finding_list *list, const char *format, ...)
{
    char line[1024], escaped[2048];
    va_list values;
    va_start(values, format);
    vsnprintf(line, sizeof line, format, values);
    va_end(values);
    (void)p4_escape(escaped, sizeof escaped, line, sizeof line);
    if (list->count < P4_FINDINGS_KEPT && (list->lines[list->count] = p4_strdup(escaped)) == NULL) {
        return P4_E_SYSTEM;
    }
    list->count++;
    return P4_OK;
}

void p4_finding_list_free(p4_finding_list *list)
{
    for (int64_t i = 0; i < p4_min_i64(list->count, P4_FINDINGS_KEPT); i++) {
        free(list->lines[i]);
    }
    *list = (p4_finding_list){.count = 0};
}

void p4_inspection_free(p4_inspection *x)
{
    free(x->config_json);
    free(x->inputs);
    free(x->tensors);
    p4_metadata_free(&x->metadata);
    p4_finding_list_free(&x->findings);
    *x = (p4_inspection){.count = 0};
}

void p4_result_difference_free(p4_result_difference *d)
{
    for (int64_t i = 0; i < d->key_count; i++) {
        free(d->keys[i].a);
        free(d->keys[i].b);
    }
    free(d->keys);
    free(d->tensors);
    *d = (p4_result_difference){.count = 0};
}
