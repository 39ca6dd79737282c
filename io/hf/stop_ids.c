#include "io/hf/stop_ids.h"

#include <stdlib.h>
#include <string.h>

#include "io/file/files.h"
#include "io/json/read.h"

enum { CONFIG_LIMIT = 1 << 20 };

bool p4_stop_ids_has(const p4_stop_ids *stop, int32_t id)
{
    for (int i = 0; i < stop->count; i++) {
        if (stop->ids[i] == id) {
            return true;
        }
    }
    return false;
}

p4_rc p4_stop_ids_add(p4_stop_ids *stop, int32_t id)
{
    if (id < 0 || p4_stop_ids_has(stop, id)) {
        return P4_OK;
    }
    if (stop->count == P4_STOP_IDS_MAX) {
        return FAIL("more than %d tokens end a text", P4_STOP_IDS_MAX);
    }
    stop->ids[stop->count++] = id;
    return P4_OK;
}

static p4_rc add_item(p4_stop_ids *stop, const cJSON *item, const char *source)
{
    int64_t id;
    if (!p4_json_is_whole(item, INT32_MAX, &id)) {
        return FAIL("%s: eos_token_id: expected a token's id, or a list of them", source);
    }
    return p4_stop_ids_add(stop, (int32_t)id);
}

p4_rc p4_stop_ids_read(p4_stop_ids *stop, const char *json, const char *source)
{
    p4_rc rc = P4_OK;
    cJSON *root = NULL;
    const cJSON *item = NULL, *one;
    TRY(p4_json_read(&root, json, strlen(json), source));
    TRY(p4_json_member(&item, source, "", root, "eos_token_id", false));
    if (item == NULL || cJSON_IsNull(item)) {
        goto done;
    }
    if (!cJSON_IsArray(item)) {
        TRY(add_item(stop, item, source));
        goto done;
    }
    cJSON_ArrayForEach(one, item)
    {
        TRY(add_item(stop, one, source));
    }
done:
    cJSON_Delete(root);
    return rc;
}

p4_rc p4_stop_ids_of_directory(p4_stop_ids *stop, const char *directory)
{
    p4_rc rc = P4_OK;
    char *text = NULL, *path = p4_format("%s/generation_config.json", directory);
    size_t bytes;
    bool there;
    TRY(path != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(p4_file_find(&there, path));
    if (there) {
        TRY(p4_file_read(&text, &bytes, path, CONFIG_LIMIT));
        TRY(p4_stop_ids_read(stop, text, path));
    }
done:
    free(text);
    free(path);
    return rc;
}
