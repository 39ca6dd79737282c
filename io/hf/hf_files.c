#include "io/hf/hf_files.h"

#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/file/files.h"
#include "io/json/read.h"
#include "src/leaf/names.h"

/* ---- the directory ---- */

/* Whether a name cannot lead out of the directory in which it is looked up. */
static bool is_plain_name(const char *name)
{
    return name[0] != '\0' && name[0] != '.' && strchr(name, '/') == NULL;
}

/* refs/main holds the name of the snapshot. */
static p4_rc follow_hub_cache(char **directory, const char *path, const char *ref)
{
    p4_rc rc = P4_OK;
    char *commit = NULL;
    size_t bytes;
    TRY(p4_file_read(&commit, &bytes, ref, 256));
    while (bytes > 0 && (commit[bytes - 1] == '\n' || commit[bytes - 1] == ' ')) {
        commit[--bytes] = '\0';
    }
    CHECK(is_plain_name(commit), "%s: holds \"%.80s\", expected the name of a snapshot", ref, commit);
    *directory = p4_format("%s/snapshots/%s", path, commit);
    rc = *directory == NULL ? P4_E_SYSTEM : P4_OK;
done:
    free(commit);
    return rc;
}

p4_rc p4_hf_find_directory(char **directory, const char *path)
{
    p4_rc rc = P4_OK;
    *directory = NULL;
    char *config = p4_format("%s/config.json", path), *ref = p4_format("%s/refs/main", path);
    if (config == NULL || ref == NULL) {
        rc = P4_E_SYSTEM;
    } else if (!p4_file_exists(config) && p4_file_exists(ref)) {
        rc = follow_hub_cache(directory, path, ref);
    } else {
        *directory = p4_strdup(path);
        rc = *directory == NULL ? P4_E_SYSTEM : P4_OK;
    }
    free(config);
    free(ref);
    return rc;
}

/* ---- the index ---- */

typedef struct mapped {
    const char *name, *file; /* into the JSON tree */
} mapped;

typedef struct shard_index {
    const char *path;
    char *text;
    cJSON *root;
    int64_t count;
    mapped *entries; /* sorted by name */
} shard_index;

static int compare_names(const void *a, const void *b)
{
    return strcmp(((const mapped *)a)->name, ((const mapped *)b)->name);
}

static int compare_files(const void *a, const void *b)
{
    return strcmp(((const mapped *)a)->file, ((const mapped *)b)->file);
}

static void close_index(shard_index *index)
{
    cJSON_Delete(index->root);
    free(index->text);
    free(index->entries);
    *index = (shard_index){0};
}

/* Shards lie beside the index (they may be symbolic links into a cache): a name with a path is refused. */
static p4_rc add_mapped(shard_index *index, const cJSON *item)
{
    p4_rc rc = P4_OK;
    CHECK(cJSON_IsString(item), "%s: \"weight_map\" gives no file name for \"%.80s\"", index->path,
          item->string);
    const char *file = item->valuestring;
    CHECK(is_plain_name(file), "%s: tensor \"%.80s\" is in \"%.80s\", expected a file beside the index",
          index->path, item->string, file);
    CHECK(fnmatch("*.safetensors", file, 0) == 0,
          "%s: tensor \"%.80s\" is in \"%.80s\", expected a .safetensors file", index->path, item->string,
          file);
    index->entries[index->count++] = (mapped){item->string, file};
done:
    return rc;
}

static p4_rc open_index(shard_index *index, const char *path)
{
    p4_rc rc = P4_OK;
    size_t bytes;
    const cJSON *map, *item;
    *index = (shard_index){.path = path};
    TRY(p4_file_read(&index->text, &bytes, path, P4_HF_INDEX_LIMIT));
    TRY(p4_json_read(&index->root, index->text, bytes, path));
    TRY(p4_json_member(&map, path, "", index->root, "weight_map", false));
    CHECK(cJSON_IsObject(map) && map->child != NULL, "%s: no object \"weight_map\" of tensor names and files",
          path);
    index->entries = p4_alloc((size_t)cJSON_GetArraySize(map), sizeof *index->entries);
    if (index->entries == NULL) {
        rc = P4_E_SYSTEM;
        goto done;
    }
    cJSON_ArrayForEach(item, map)
    {
        TRY(add_mapped(index, item));
    }
    qsort(index->entries, (size_t)index->count, sizeof *index->entries, compare_names);
    for (int64_t i = 1; i < index->count; i++) {
        CHECK(strcmp(index->entries[i - 1].name, index->entries[i].name) != 0,
              "%s: tensor \"%.80s\" appears twice", path, index->entries[i].name);
    }
done:
    return rc;
}

/* ---- shards ---- */

static p4_rc open_shard(p4_hf_model *hf, const char *file)
{
    p4_rc rc = P4_OK;
    char *path = p4_format("%s/%s", hf->path, file);
    if (path == NULL) {
        return P4_E_SYSTEM;
    }
    TRY(p4_safetensors_open(&hf->shards[hf->shard_count], path));
    hf->shard_count++;
done:
    free(path);
    return rc;
}

/* Every file that the index names, once. */
static p4_rc open_indexed(p4_hf_model *hf, shard_index *index)
{
    p4_rc rc = P4_OK;
    int64_t files = 0;
    mapped *by_file = p4_alloc((size_t)index->count, sizeof *by_file);
    if (by_file == NULL) {
        return P4_E_SYSTEM;
    }
    memcpy(by_file, index->entries, (size_t)index->count * sizeof *by_file);
    qsort(by_file, (size_t)index->count, sizeof *by_file, compare_files);
    for (int64_t i = 0; i < index->count; i++) {
        if (files == 0 || strcmp(by_file[files - 1].file, by_file[i].file) != 0) {
            by_file[files++] = by_file[i];
        }
    }
    hf->shards = p4_alloc((size_t)files, sizeof *hf->shards);
    if (hf->shards == NULL) {
        rc = P4_E_SYSTEM;
        goto done;
    }
    for (int64_t i = 0; i < files; i++) {
        TRY(open_shard(hf, by_file[i].file));
    }
done:
    free(by_file);
    return rc;
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash != NULL ? slash + 1 : path;
}

/* The shards' tensors and the index's list must be the same set. */
static p4_rc compare_with_index(const p4_hf_model *hf, const shard_index *index)
{
    p4_rc rc = P4_OK;
    p4_name_sample missing = {0}, extra = {0};
    int64_t found = 0;
    for (int64_t s = 0; s < hf->shard_count; s++) {
        const p4_safetensors *shard = &hf->shards[s];
        for (int64_t t = 0; t < shard->count; t++) {
            mapped key = {.name = shard->tensors[t].name};
            const mapped *entry =
                bsearch(&key, index->entries, (size_t)index->count, sizeof key, compare_names);
            if (entry == NULL) {
                p4_name_sample_add(&extra, key.name);
                continue;
            }
            CHECK(strcmp(entry->file, base_name(shard->path)) == 0,
                  "%s: tensor \"%.80s\" is in %s, the index says %.80s", hf->path, key.name,
                  base_name(shard->path), entry->file);
            found++;
        }
    }
    for (int64_t i = 0; i < index->count && found < index->count; i++) {
        bool there = false;
        for (int64_t s = 0; s < hf->shard_count && !there; s++) {
            there = p4_safetensors_find(&hf->shards[s], index->entries[i].name) != NULL;
        }
        if (!there) {
            p4_name_sample_add(&missing, index->entries[i].name);
        }
    }
    CHECK(missing.count == 0 && extra.count == 0,
          "%s: index and shards disagree: %lld listed but not there (%s), %lld there but not listed (%s)",
          hf->path, (long long)missing.count, p4_name_sample_text(&missing), (long long)extra.count,
          p4_name_sample_text(&extra));
done:
    return rc;
}

/* Refuses a directory without safetensors and says what it holds instead. */
static p4_rc refuse_directory(const char *directory)
{
    p4_rc rc = P4_OK;
    char **names = NULL;
    int64_t count = 0;
    TRY(p4_dir_list(&names, &count, directory));
    for (int64_t i = 0; i < count; i++) {
        CHECK(fnmatch("pytorch_model*.bin", names[i], 0) != 0,
              "%s: the weights are only there as %s, whose format can run code when it is read; convert them "
              "to safetensors first (transformers: from_pretrained, then save_pretrained)",
              directory, names[i]);
    }
    rc = FAIL("%s: no model.safetensors and no model.safetensors.index.json", directory);
done:
    p4_names_free(names, count);
    return rc;
}

p4_rc p4_hf_open_shards(p4_hf_model *hf)
{
    p4_rc rc = P4_OK;
    shard_index index = {0};
    char *single = p4_format("%s/model.safetensors", hf->path);
    char *index_path = p4_format("%s/model.safetensors.index.json", hf->path);
    if (single == NULL || index_path == NULL) {
        rc = P4_E_SYSTEM;
        goto done;
    }
    bool indexed = p4_file_exists(index_path);
    if (p4_file_exists(single)) { /* as the reference library decides */
        if (indexed) {
            WARN("warning: %s: holds both model.safetensors and model.safetensors.index.json: "
                 "model.safetensors is read, the index and its shards are not",
                 hf->path);
        }
        hf->shards = p4_alloc(1, sizeof *hf->shards);
        rc = hf->shards == NULL ? P4_E_SYSTEM : open_shard(hf, "model.safetensors");
    } else if (indexed) {
        TRY(open_index(&index, index_path));
        TRY(open_indexed(hf, &index));
        TRY(compare_with_index(hf, &index));
    } else {
        rc = refuse_directory(hf->path);
    }
done:
    close_index(&index);
    free(index_path);
    free(single);
    return rc;
}
