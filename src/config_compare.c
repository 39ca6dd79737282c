/* What differs between two configurations. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/config.h"

/* A row's value for a message: scalars whole, text cut. */
static void format_value(char buffer[80], const p4_config *config, const p4_config_row *row)
{
    const char *field = (const char *)config + row->offset;
    char excerpt[80];
    if (row->type == P4_CONFIG_NUMBERS) {
        const p4_numbers *numbers = (const p4_numbers *)(const void *)field;
        int used = snprintf(buffer, 80, "[");
        for (int32_t i = 0; i < numbers->count && used < 60; i++) {
            char number[32];
            p4_config_format_real(number, numbers->values[i]);
            used += snprintf(buffer + used, 80 - (size_t)used, "%s%.14s", i > 0 ? ", " : "", number);
        }
        snprintf(buffer + used, 80 - (size_t)used, "]");
    } else if (row->type == P4_CONFIG_LIST) {
        const p4_list *list = (const p4_list *)(const void *)field;
        const char *first = list->count > 0 ? list->bytes : "";
        p4_config_format_excerpt(excerpt, first, strlen(first));
        snprintf(buffer, 80,
                 list->count == 0   ? "[]"
                 : list->count == 1 ? "[\"%.60s\"]"
                                    : "[\"%.50s\", ...]",
                 excerpt);
    } else if (row->type == P4_CONFIG_PATH || row->type == P4_CONFIG_NAME) {
        snprintf(buffer, 80, "\"%.70s\"", p4_config_format_excerpt(excerpt, field, strlen(field)));
    } else {
        char scalar[64];
        snprintf(buffer, 80, "%s", p4_config_format_scalar(scalar, config, row));
    }
}

/* The first set in which two configurations differ by name, and which one it is. Their files may lie
 * elsewhere, as those of other texts: what is in them is compared when it has been read. false: none does. */
static bool find_other_set(char found[80], char kept[80], const p4_sets *here, const p4_sets *there)
{
    int32_t i = 0;
    while (i < here->count && i < there->count && strcmp(here->names[i], there->names[i]) == 0) {
        i++;
    }
    const p4_sets *both[] = {here, there};
    char *texts[] = {found, kept};
    for (int k = 0; k < 2; k++) {
        if (i < both[k]->count) {
            snprintf(texts[k], 80, "\"%s\" as set %d", both[k]->names[i], (int)i + 1);
        } else {
            snprintf(texts[k], 80, "%d set%s", (int)both[k]->count, p4_plural(both[k]->count));
        }
    }
    return i < here->count || i < there->count;
}

char *p4_config_conflicts(const p4_config *config, const p4_config *checkpoint)
{
    char *all = p4_strdup("");
    for (int i = 0; all != NULL && i < p4_config_rows; i++) {
        const p4_config_row *row = &p4_config_table[i];
        const char *here = (const char *)config + row->offset,
                   *there = (const char *)checkpoint + row->offset;
        char found[80], kept[80];
        if (row->may_change || memcmp(here, there, row->bytes) == 0) {
            continue;
        }
        if (row->type == P4_CONFIG_SETS) {
            if (!find_other_set(found, kept, (const p4_sets *)(const void *)here,
                                (const p4_sets *)(const void *)there)) {
                continue;
            }
        } else {
            format_value(found, config, row);
            format_value(kept, checkpoint, row);
        }
        char *longer = p4_format("%s%skey \"%s\": found %s, the checkpoint has %s", all,
                                 all[0] != '\0' ? "\n" : "", row->name, found, kept);
        free(all);
        all = longer;
    }
    return all;
}
