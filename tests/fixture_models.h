/* fixture_models.h - the tiny models of tests/fixtures/models. */
#ifndef P4_FIXTURE_MODELS_H
#define P4_FIXTURE_MODELS_H

#include <dirent.h>
#include <stdlib.h>

#include "check.h"
#include "src/leaf/base.h"

/* Calls check with the directory of each model. */
static inline void for_each_model(void (*check)(const char *dir))
{
    int models = 0;
    DIR *folder = opendir(P4_FIXTURES "/models");
    EXPECT(folder != NULL, "no fixtures");
    for (struct dirent *entry; folder != NULL && (entry = readdir(folder)) != NULL;) {
        if (entry->d_name[0] != '.') {
            char *dir = p4_format("%s/models/%s", P4_FIXTURES, entry->d_name);
            check(dir);
            free(dir);
            models++;
        }
    }
    closedir(folder);
    EXPECT(models > 0, "%s/models is empty", P4_FIXTURES);
}

#endif
