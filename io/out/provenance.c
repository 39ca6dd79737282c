#include "io/out/provenance.h"

#include <stdlib.h>
#include <string.h>

#include "io/json/write.h"
#include "io/out/report.h"

void p4_provenance_free(p4_provenance *provenance)
{
    for (int64_t i = 0; i < provenance->input_count; i++) {
        free(provenance->inputs[i].path);
        free(provenance->inputs[i].fingerprint);
    }
    free(provenance->inputs);
    free(provenance->places);
    provenance->inputs = NULL;
    provenance->places = NULL;
    provenance->input_count = provenance->place_count = 0;
}

p4_rc p4_provenance_add_input(p4_provenance *provenance, const char *name, const char *fingerprint)
{
    p4_input_file *grown =
        p4_resize(provenance->inputs, (size_t)provenance->input_count + 1, sizeof *provenance->inputs);
    if (grown == NULL) {
        return P4_E_SYSTEM;
    }
    provenance->inputs = grown;
    p4_input_file *input = &grown[provenance->input_count++];
    *input = (p4_input_file){p4_strdup(name), p4_strdup(fingerprint)};
    return input->path != NULL && input->fingerprint != NULL ? P4_OK : P4_E_SYSTEM;
}

/* Adds an object to the list; NULL, with nothing added, when memory runs out. */
static cJSON *add_object(cJSON *list)
{
    cJSON *object = cJSON_CreateObject();
    if (object != NULL && !cJSON_AddItemToArray(list, object)) {
        cJSON_Delete(object);
        object = NULL;
    }
    return object;
}

static bool put_places(cJSON *list, const p4_provenance *p)
{
    bool ok = list != NULL;
    for (int64_t i = 0; ok && i < p->place_count; i++) {
        const p4_place *place = &p->places[i];
        cJSON *object = add_object(list);
        ok = p4_json_put_text(object, "host", place->host) &&
             p4_json_put_whole(object, "first_rank", place->first_rank) &&
             p4_json_put_whole(object, "ranks", place->ranks) &&
             p4_json_put_text(object, "device", place->device);
    }
    return ok;
}

static bool put_versions(cJSON *object, const p4_provenance *p)
{
    return p4_json_put_text(object, "program", p->program) && p4_json_put_text(object, "mpi", p->mpi) &&
           p4_json_put_text(object, "hdf5", p->hdf5) && p4_json_put_text(object, "blas", p->blas) &&
           p4_json_put_text(object, "cuda", p->cuda) && p4_json_put_text(object, "nccl", p->nccl);
}

static bool put_continued(cJSON *root, const p4_provenance *p)
{
    if (p->continued == 0) {
        return cJSON_AddNullToObject(root, "continued") != NULL;
    }
    cJSON *object = cJSON_AddObjectToObject(root, "continued");
    return object != NULL && p4_json_put_whole(object, "times", p->continued) &&
           p4_json_put_text(object, "checkpoint", p->checkpoint) &&
           p4_json_put_whole(object, "step", p->checkpoint_step);
}

static bool put_inputs(cJSON *list, const p4_provenance *p)
{
    bool ok = list != NULL;
    for (int64_t i = 0; ok && i < p->input_count; i++) {
        cJSON *object = add_object(list);
        ok = p4_json_put_text(object, "name", p->inputs[i].path) &&
             p4_json_put_text(object, "fingerprint", p->inputs[i].fingerprint);
    }
    return ok;
}

static bool put_all(cJSON *object, const p4_provenance *p)
{
    return p4_json_put_text(object, "started", p->started) && p4_json_put_text(object, "ended", p->ended) &&
           p4_json_put_text(object, "device", p->device) && p4_json_put_whole(object, "ranks", p->ranks) &&
           p4_json_put_whole(object, "threads_per_rank", p->threads) &&
           put_places(cJSON_AddArrayToObject(object, "hosts"), p) &&
           put_versions(cJSON_AddObjectToObject(object, "versions"), p) && put_continued(object, p) &&
           put_inputs(cJSON_AddArrayToObject(object, "inputs"), p);
}

bool p4_json_put_provenance(cJSON *object, const char *key, const p4_provenance *provenance)
{
    if (provenance->ranks == 0) {
        return cJSON_AddNullToObject(object, key) != NULL;
    }
    return put_all(cJSON_AddObjectToObject(object, key), provenance);
}

p4_rc p4_provenance_print(const p4_provenance *provenance, char **json)
{
    cJSON *root = cJSON_CreateObject();
    *json = p4_json_print(root, put_all(root, provenance), false);
    return *json != NULL ? P4_OK : P4_E_SYSTEM;
}

void p4_provenance_find_input(char fingerprint[P4_FINGERPRINT_BYTES], const char *json, const char *name)
{
    cJSON *root = cJSON_Parse(json);
    const cJSON *input;
    fingerprint[0] = '\0';
    cJSON_ArrayForEach(input, cJSON_GetObjectItemCaseSensitive(root, "inputs"))
    {
        const char *its_name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(input, "name")),
                   *its = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(input, "fingerprint"));
        if (its_name != NULL && its != NULL && strcmp(its_name, name) == 0) {
            snprintf(fingerprint, P4_FINGERPRINT_BYTES, "%s", its);
        }
    }
    cJSON_Delete(root);
}
