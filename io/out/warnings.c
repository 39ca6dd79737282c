#include "io/out/warnings.h"

#include <stdlib.h>
#include <string.h>

#include "src/leaf/base.h"

void p4_warnings_open(p4_warnings *w)
{
    w->count = 0;
    pthread_mutex_init(&w->lock, NULL);
}

void p4_warnings_close(p4_warnings *w)
{
    for (int64_t i = 0; i < w->count; i++) {
        free(w->texts[i]);
    }
    pthread_mutex_destroy(&w->lock);
    w->count = 0;
}

static bool has(const p4_warnings *w, const char *text)
{
    bool found = false;
    for (int64_t i = 0; i < w->count; i++) {
        found = found || strcmp(w->texts[i], text) == 0;
    }
    return found;
}

void p4_warnings_add(p4_warnings *w, const char *text)
{
    static const char prefix[] = "warning: ";
    text += strncmp(text, prefix, sizeof prefix - 1) == 0 ? sizeof prefix - 1 : 0;
    pthread_mutex_lock(&w->lock);
    if (w->count < P4_WARNINGS_TOLD_APART && !has(w, text)) {
        w->texts[w->count] = strdup(text);
        w->count += w->texts[w->count] != NULL;
    }
    pthread_mutex_unlock(&w->lock);
}

void p4_warnings_copy(p4_warnings *w, p4_results *results)
{
    pthread_mutex_lock(&w->lock);
    for (int64_t i = results->warning_count; i < p4_min_i64(w->count, P4_WARNINGS_MAX); i++) {
        results->warnings[i] = strdup(w->texts[i]); /* NULL: it is counted */
    }
    results->warning_count = w->count;
    pthread_mutex_unlock(&w->lock);
}
