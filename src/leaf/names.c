#include "src/leaf/names.h"

#include <stdio.h>
#include <string.h>

enum { NAMES_SHOWN = 4 };

void p4_name_sample_add(p4_name_sample *sample, const char *name)
{
    size_t used = strlen(sample->text);
    if (sample->count < NAMES_SHOWN) {
        snprintf(sample->text + used, sizeof sample->text - used, "%s%.160s", sample->count > 0 ? ", " : "",
                 name);
    }
    sample->count++;
}

const char *p4_name_sample_text(p4_name_sample *sample)
{
    size_t used = strlen(sample->text);
    if (sample->count > NAMES_SHOWN) {
        snprintf(sample->text + used, sizeof sample->text - used, " and %lld more",
                 (long long)(sample->count - NAMES_SHOWN));
    }
    return sample->text;
}
