#include "io/batch/summary.h"

#include <stdlib.h>
#include <string.h>

#include "io/file/atomic_file.h"
#include "io/json/write.h"

static bool put_models(cJSON *list, const p4_batch_summary *s)
{
    bool ok = list != NULL;
    for (int64_t i = 0; ok && i < s->count; i++) {
        const p4_json_real planned = {"planned_seconds", s->rows[i].planned_s};
        cJSON *object = cJSON_CreateObject();
        ok = object != NULL && cJSON_AddItemToArray(list, object);
        if (!ok) {
            cJSON_Delete(object);
            break;
        }
        ok = p4_json_put_text(object, "state", s->rows[i].state) && p4_json_put_reals(object, &planned, 1) &&
             p4_batch_record_put(object, s->rows[i].record);
    }
    return ok;
}

p4_rc p4_batch_summary_write(const p4_batch_summary *s, const char *path)
{
    char now[P4_TIME_BYTES];
    cJSON *root = cJSON_CreateObject(), *counts = NULL;
    const p4_json_real seconds = {"seconds", s->seconds};
    bool ok = root != NULL && p4_json_put_text(root, "queue", s->queue) &&
              p4_json_put_text(root, "ended", p4_utc_now(now)) &&
              p4_json_put_text(root, "summary", s->text) && p4_json_put_whole(root, "status", s->status) &&
              p4_json_put_whole(root, "ranks", s->ranks) && p4_json_put_reals(root, &seconds, 1) &&
              (counts = cJSON_AddObjectToObject(root, "counts")) != NULL;
    for (int64_t i = 0; ok && i < s->state_count; i++) {
        ok = p4_json_put_whole(counts, s->state_names[i], s->state_counts[i]);
    }
    ok = ok && put_models(cJSON_AddArrayToObject(root, "models"), s);
    char *text = p4_json_print(root, ok, true);
    p4_rc rc = text != NULL ? p4_atomic_write_all(path, text, strlen(text)) : P4_E_SYSTEM;
    free(text);
    return rc;
}
