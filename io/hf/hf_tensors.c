#include "io/hf/hf_tensors.h"

#include <stdlib.h>
#include <string.h>

/* Tensors of one name by their names in the files, which a key of a search lacks. */
static int compare_names(const void *a, const void *b)
{
    const p4_hf_tensor *one = a, *other = b;
    int order = strcmp(one->name, other->name);
    return order != 0 || one->tensor == NULL || other->tensor == NULL
               ? order
               : strcmp(one->tensor->name, other->tensor->name);
}

p4_hf_tensor *p4_hf_tensors_find(const p4_hf_tensors *all, const char *name)
{
    const p4_hf_tensor key = {.name = name};
    return all->count == 0 ? NULL
                           : bsearch(&key, all->tensors, (size_t)all->count, sizeof key, compare_names);
}

/* The alias that the name begins with; NULL: none. */
static const p4_tensor_alias *alias_of(const p4_family *family, const char *name)
{
    for (int i = 0; i < P4_FAMILY_ALIASES && family->alias[i].from != NULL; i++) {
        if (strncmp(name, family->alias[i].from, strlen(family->alias[i].from)) == 0) {
            return &family->alias[i];
        }
    }
    return NULL;
}

/* Writes the table's name of each tensor that has another in its file to `names`, one behind the other, and
 * returns the bytes of all; `names` NULL: counts them only. */
static size_t rename_all(p4_hf_tensors *all, const p4_family *family, char *names)
{
    size_t used = 0;
    for (int64_t i = 0; i < all->count; i++) {
        const char *name = all->tensors[i].tensor->name;
        const p4_tensor_alias *alias = alias_of(family, name);
        if (alias == NULL) {
            continue;
        }
        const char *rest = name + strlen(alias->from);
        size_t bytes = strlen(alias->to) + strlen(rest) + 1;
        if (names != NULL) {
            memcpy(names + used, alias->to, strlen(alias->to));
            memcpy(names + used + strlen(alias->to), rest, strlen(rest) + 1);
            all->tensors[i].name = names + used;
        }
        used += bytes;
    }
    return used;
}

static p4_rc sort(p4_hf_tensors *all, const p4_hf_model *hf)
{
    p4_rc rc = P4_OK;
    if (all->count > 0) {
        qsort(all->tensors, (size_t)all->count, sizeof *all->tensors, compare_names);
    }
    for (int64_t i = 1; i < all->count; i++) {
        const p4_hf_tensor *one = &all->tensors[i - 1], *other = &all->tensors[i];
        CHECK(strcmp(one->name, other->name) != 0,
              "%s: tensors \"%s\" and \"%s\" are two names of one tensor, expected one of them", hf->path,
              one->tensor->name, other->tensor->name);
    }
done:
    return rc;
}

p4_rc p4_hf_tensors_open(p4_hf_tensors *all, const p4_hf_model *hf, const p4_family *family)
{
    p4_rc rc = P4_OK;
    int64_t count = 0;
    *all = (p4_hf_tensors){0};
    for (int64_t s = 0; s < hf->shard_count; s++) {
        count += hf->shards[s].count;
    }
    all->tensors = p4_alloc((size_t)count, sizeof *all->tensors);
    TRY(all->tensors != NULL ? P4_OK : P4_E_SYSTEM);
    for (int64_t s = 0; s < hf->shard_count; s++) {
        for (int64_t t = 0; t < hf->shards[s].count; t++) {
            const p4_safetensor *tensor = &hf->shards[s].tensors[t];
            all->tensors[all->count++] =
                (p4_hf_tensor){.name = tensor->name, .tensor = tensor, .shard = &hf->shards[s]};
        }
    }
    size_t bytes = rename_all(all, family, NULL);
    if (bytes > 0) {
        all->renamed = p4_alloc(bytes, 1);
        TRY(all->renamed != NULL ? P4_OK : P4_E_SYSTEM);
        (void)rename_all(all, family, all->renamed);
    }
    TRY(sort(all, hf));
done:
    if (rc != P4_OK) {
        p4_hf_tensors_close(all);
    }
    return rc;
}

void p4_hf_tensors_close(p4_hf_tensors *all)
{
    free(all->tensors);
    free(all->renamed);
    *all = (p4_hf_tensors){0};
}

static bool same_row(const p4_hf_tensor *a, const p4_hf_tensor *b, int64_t row, int64_t cols, float *room)
{
    const p4_hf_tensor *both[2] = {a, b};
    for (int i = 0; i < 2; i++) {
        const p4_safetensor *tensor = both[i]->tensor;
        p4_to_f32(room + i * cols, (const uint8_t *)tensor->data + row * cols * p4_dtype_bytes(tensor->dtype),
                  tensor->dtype, cols);
    }
    return memcmp(room, room + cols, (size_t)cols * sizeof *room) == 0;
}

p4_rc p4_hf_tensors_compare(bool *differs, const p4_hf_tensor *a, const p4_hf_tensor *b)
{
    const p4_safetensor *x = a->tensor, *y = b->tensor;
    int64_t rows = x->shape[0], cols = x->shape[1];
    *differs = !x->is_float || !y->is_float || x->rank != 2 || y->rank != 2 || y->shape[0] != rows ||
               y->shape[1] != cols;
    if (*differs) {
        return P4_OK;
    }
    if (x->dtype == y->dtype) {
        *differs = memcmp(x->data, y->data, x->bytes) != 0;
        return P4_OK;
    }
    float *room = p4_alloc(2 * (size_t)cols, sizeof *room);
    for (int64_t row = 0; room != NULL && row < rows && !*differs; row++) {
        *differs = !same_row(a, b, row, cols, room);
    }
    free(room);
    return room != NULL ? P4_OK : P4_E_SYSTEM;
}
