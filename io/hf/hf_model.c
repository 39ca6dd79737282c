#include "io/hf/hf_model.h"

#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "io/file/files.h"
#include "io/hf/hf_files.h"
#include "src/leaf/names.h"

/* One tensor of any shard. */
typedef struct located {
    const p4_safetensor *tensor;
    const p4_safetensors *shard;
    bool used;
} located;

typedef struct directory {
    located *tensors; /* sorted by name */
    int64_t count;
} directory;

static int compare_located(const void *a, const void *b)
{
    return strcmp(((const located *)a)->tensor->name, ((const located *)b)->tensor->name);
}

static located *find(const directory *all, const char *name)
{
    const p4_safetensor tensor = {.name = name};
    const located key = {.tensor = &tensor};
    return all->count == 0 ? NULL
                           : bsearch(&key, all->tensors, (size_t)all->count, sizeof key, compare_located);
}

/* All tensors of all shards, by name; p4_hf_open_shards checked that no name is in two of them. */
static p4_rc list_tensors(directory *all, const p4_hf_model *hf)
{
    int64_t count = 0;
    for (int64_t s = 0; s < hf->shard_count; s++) {
        count += hf->shards[s].count;
    }
    all->tensors = p4_alloc((size_t)count, sizeof *all->tensors);
    if (all->tensors == NULL) {
        return P4_E_SYSTEM;
    }
    for (int64_t s = 0; s < hf->shard_count; s++) {
        for (int64_t t = 0; t < hf->shards[s].count; t++) {
            all->tensors[all->count++] = (located){&hf->shards[s].tensors[t], &hf->shards[s], false};
        }
    }
    if (count > 0) {
        qsort(all->tensors, (size_t)count, sizeof *all->tensors, compare_located);
    }
    return P4_OK;
}

/* "[3, 4]" into a caller's buffer, which is returned. */
static char *shape_text(char buffer[200], const int64_t *shape, int rank)
{
    int used = snprintf(buffer, 200, "[");
    for (int i = 0; i < rank; i++) {
        used += snprintf(buffer + used, 200 - (size_t)used, "%s%lld", i > 0 ? ", " : "", (long long)shape[i]);
    }
    snprintf(buffer + used, 200 - (size_t)used, "]");
    return buffer;
}

/* Points the weight at its elements in the file, if type and shape are those of the architecture. */
static p4_rc attach(p4_weight *weight, const p4_param *param, located *found)
{
    p4_rc rc = P4_OK;
    char have[200], want[200];
    const p4_safetensor *tensor = found->tensor;
    int64_t expected[2] = {param->rows, param->cols};
    int rank = 2;
    if (param->vector) {
        expected[0] = param->cols;
        rank = 1;
    } else if (param->transposed) {
        expected[0] = param->cols;
        expected[1] = param->rows;
    }
    CHECK(tensor->rank == rank && memcmp(tensor->shape, expected, (size_t)rank * sizeof *expected) == 0,
          "%s: tensor \"%s\" has the shape %s, config.json describes %s", found->shard->path, param->name,
          shape_text(have, tensor->shape, tensor->rank), shape_text(want, expected, rank));
    CHECK(tensor->is_float, "%s: tensor \"%s\" holds %s, expected F32, F16 or BF16", found->shard->path,
          param->name, tensor->dtype_name);
    weight->dtype = tensor->dtype;
    weight->data = tensor->data;
    found->used = true;
done:
    return rc;
}

/* ---- a head in the file of a tied model ---- */

static bool same_row(const located *a, const located *b, int64_t row, int64_t cols, float *room)
{
    const located *both[2] = {a, b};
    for (int i = 0; i < 2; i++) {
        const p4_safetensor *tensor = both[i]->tensor;
        p4_to_f32(room + i * cols, (const uint8_t *)tensor->data + row * cols * p4_dtype_bytes(tensor->dtype),
                  tensor->dtype, cols);
    }
    return memcmp(room, room + cols, (size_t)cols * sizeof *room) == 0;
}

/* *differs = whether the two matrices hold other values. Their types and shapes are checked when they are
 * attached; here others count as different. */
static p4_rc compare_values(bool *differs, const located *a, const located *b)
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

/* config.json ties the head to the embedding, but the file may hold a head with other values. Then the head
 * counts, as in the reference library, and config.json as it is written says so. */
static p4_rc untie(p4_hf_model *hf, const p4_arch *arch, const directory *all, bool *untied)
{
    p4_rc rc = P4_OK;
    const located *head = find(all, "lm_head.weight"), *embed = find(all, hf->model.params[0].name);
    *untied = false;
    if (!arch->tied || head == NULL || embed == NULL) {
        return P4_OK;
    }
    TRY(compare_values(untied, embed, head));
    if (*untied) {
        WARN(
            "warning: %s: config.json ties the head to the embedding, but lm_head.weight holds other values: "
            "lm_head.weight is the head, and tie_word_embeddings is taken as false",
            hf->path);
        char *json = p4_hf_config_untied(hf->config_json);
        TRY(json != NULL ? P4_OK : P4_E_SYSTEM);
        free(hf->config_json);
        hf->config_json = json;
    }
done:
    return rc;
}

/* Tensors that are not parameters: causal masks (rank 4, not to be confused with c_attn.bias), rotary tables,
 * and the copy of a tied head. */
static bool is_ignored(const p4_safetensor *tensor, const p4_arch *arch)
{
    return (fnmatch("*.attn.bias", tensor->name, 0) == 0 && tensor->rank == 4) ||
           fnmatch("*.attn.masked_bias", tensor->name, 0) == 0 ||
           fnmatch("*.rotary_emb.inv_freq", tensor->name, 0) == 0 ||
           (arch->tied && strcmp(tensor->name, "lm_head.weight") == 0);
}

static p4_rc attach_all(p4_hf_model *hf, const directory *all)
{
    p4_rc rc = P4_OK;
    p4_name_sample missing = {0}, extra = {0};
    for (int64_t i = 0; i < hf->model.params_count; i++) {
        located *found = find(all, hf->model.params[i].name);
        if (found == NULL) {
            p4_name_sample_add(&missing, hf->model.params[i].name);
        } else {
            TRY(attach(&hf->model.weights[i], &hf->model.params[i], found));
        }
    }
    for (int64_t i = 0; i < all->count; i++) {
        if (!all->tensors[i].used && !is_ignored(all->tensors[i].tensor, &hf->model.arch)) {
            p4_name_sample_add(&extra, all->tensors[i].tensor->name);
        }
    }
    CHECK(missing.count == 0 && extra.count == 0,
          "%s: the tensors are not those that config.json describes: %lld missing (%s), %lld unexpected (%s)",
          hf->path, (long long)missing.count, p4_name_sample_text(&missing), (long long)extra.count,
          p4_name_sample_text(&extra));
done:
    return rc;
}

static void sum_up(p4_hf_model *hf)
{
    int64_t counts[P4_BF16 + 1] = {0};
    p4_dtype most = P4_F32;
    for (int64_t i = 0; i < hf->model.params_count; i++) {
        const p4_weight *weight = &hf->model.weights[i];
        counts[weight->dtype] += weight->rows * weight->cols;
        hf->stored_bytes += (double)(weight->rows * weight->cols * p4_dtype_bytes(weight->dtype));
    }
    for (p4_dtype dtype = P4_F32; dtype <= P4_BF16; dtype++) {
        most = counts[dtype] > counts[most] ? dtype : most;
    }
    snprintf(hf->stored_dtype, sizeof hf->stored_dtype, "%s", p4_dtype_name(most));
}

/* Some checkpoints of a family have a prefix before all names: it is used if the embedding has it. */
static p4_rc make_table(p4_hf_model *hf, const p4_arch *arch, const directory *all)
{
    p4_rc rc = P4_OK;
    const char *prefix = p4_family_prefix(arch->family);
    TRY(p4_model_init(&hf->model, arch, prefix));
    if (prefix[0] != '\0' && find(all, hf->model.params[0].name) == NULL) {
        p4_model_close(&hf->model);
        TRY(p4_model_init(&hf->model, arch, ""));
    }
done:
    return rc;
}

/* Can the path be the name of a model on the hub ("gpt2", "org/name")? */
static bool is_hub_name(const char *path)
{
    const char *slash = strchr(path, '/');
    size_t plain = strspn(path, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./");
    return path[0] != '\0' && path[0] != '.' && path[0] != '/' && path[plain] == '\0' &&
           (slash == NULL || (slash[1] != '\0' && slash[1] != '.' && strchr(slash + 1, '/') == NULL));
}

/* Adds to the recorded message what was expected. */
static p4_rc refuse_path(p4_rc rc, const char *path)
{
    char why[512];
    snprintf(why, sizeof why, "%s", p4_last_error());
    p4_error_clear();
    if (!p4_directory_exists(path) && is_hub_name(path)) {
        return p4_fail(
            rc,
            "%s; expected a Hugging Face model directory (model_path). Nothing is downloaded: if this "
            "is the name of a model on the hub, run \"hf download %s --local-dir DIR\" and set "
            "model_path to DIR",
            why, path);
    }
    return p4_fail(rc, "%s; expected a Hugging Face model directory (model_path)", why);
}

p4_rc p4_hf_read_config(p4_hf_model *hf, p4_arch *arch)
{
    p4_rc rc = P4_OK;
    size_t bytes;
    char *path = p4_format("%s/config.json", hf->path);
    if (path == NULL) {
        return P4_E_SYSTEM;
    }
    rc = p4_file_read(&hf->config_json, &bytes, path, P4_HF_CONFIG_LIMIT);
    if (rc != P4_OK) {
        rc = refuse_path(rc, hf->path);
        goto done;
    }
    TRY(p4_hf_config_parse(arch, hf->config_json, bytes, path));
done:
    free(path);
    return rc;
}

p4_rc p4_hf_model_open(p4_hf_model *hf, const char *path)
{
    p4_rc rc = P4_OK;
    p4_arch arch;
    directory all = {0};
    bool untied;
    *hf = (p4_hf_model){0};
    TRY(p4_hf_find_directory(&hf->path, path));
    TRY(p4_hf_read_config(hf, &arch));
    TRY(p4_hf_open_shards(hf));
    TRY(list_tensors(&all, hf));
    TRY(make_table(hf, &arch, &all));
    TRY(untie(hf, &arch, &all, &untied));
    if (untied) {
        p4_model_close(&hf->model);
        arch.tied = false;
        TRY(make_table(hf, &arch, &all));
    }
    TRY(attach_all(hf, &all));
    sum_up(hf);
done:
    free(all.tensors);
    if (rc != P4_OK) {
        p4_hf_model_close(hf);
    }
    return rc;
}

void p4_hf_model_close(p4_hf_model *hf)
{
    for (int64_t s = 0; s < hf->shard_count; s++) {
        p4_safetensors_close(&hf->shards[s]);
    }
    free(hf->shards);
    free(hf->path);
    free(hf->config_json);
    p4_model_close(&hf->model);
    *hf = (p4_hf_model){0};
}

/* The file whose mapping holds `data`; NULL: none does. */
static const p4_safetensors *file_under(const p4_hf_model *hf, const void *data)
{
    for (int64_t s = 0; s < hf->shard_count; s++) {
        uintptr_t first = (uintptr_t)hf->shards[s].mapping;
        if ((uintptr_t)data >= first && (uintptr_t)data < first + hf->shards[s].mapping_bytes) {
            return &hf->shards[s];
        }
    }
    return NULL;
}

const char *p4_hf_model_file_of(const p4_hf_model *hf, const p4_weight *weight)
{
    const p4_safetensors *file = file_under(hf, weight->data);
    return file != NULL ? file->path : hf->path;
}

static void advise(const p4_hf_model *hf, const p4_weight *weight, int advice)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t first = (uintptr_t)weight->data / page * page;
    int64_t bytes = weight->rows * weight->cols * p4_dtype_bytes(weight->dtype);
    if (file_under(hf, weight->data) != NULL) { /* advice on memory that is no file would empty it */
        (void)madvise((void *)first, (uintptr_t)weight->data + (uintptr_t)bytes - first, advice);
    }
}

/* Pages shared with a neighbouring tensor are dropped too; they are read from the file again on access. This
 * is advice: its failure costs memory only. */
void p4_hf_model_drop_pages(const p4_hf_model *hf, int64_t param)
{
    advise(hf, &hf->model.weights[param], MADV_DONTNEED);
}

void p4_hf_model_fetch_pages(const p4_hf_model *hf, const p4_weight *weight)
{
    advise(hf, weight, MADV_WILLNEED);
}
