#include "io/hf/hf_model.h"

#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "io/file/files.h"
#include "io/hf/hf_files.h"
#include "io/hf/hf_tensors.h"
#include "src/leaf/names.h"

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
static p4_rc attach(p4_weight *weight, const p4_param *param, p4_hf_tensor *found)
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

/* config.json ties the head to the embedding, but the file may hold a head with other values. Then the head
 * counts, as in the reference library, and config.json as it is written says so. */
static p4_rc untie(p4_hf_model *hf, const p4_arch *arch, const p4_hf_tensors *all, bool *untied)
{
    p4_rc rc = P4_OK;
    const char *name = p4_family_tensor(p4_family_find(arch->family), P4_ROLE_HEAD);
    const p4_hf_tensor *head = p4_hf_tensors_find(all, name),
                       *embed = p4_hf_tensors_find(all, hf->model.params[0].name);
    *untied = false;
    if (!arch->tied || head == NULL || embed == NULL) {
        return P4_OK;
    }
    TRY(p4_hf_tensors_compare(untied, embed, head));
    if (*untied) {
        WARN("warning: %s: config.json ties the head to the embedding, but %s holds other values: "
             "%s is the head, and tie_word_embeddings is taken as false",
             hf->path, name, name);
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
static bool is_ignored(const p4_hf_tensor *item, const p4_arch *arch, const p4_family *family)
{
    const char *name = item->tensor->name;
    bool mask = item->tensor->rank == 4 &&
                (fnmatch("*.attn.bias", name, 0) == 0 || fnmatch("*.attention.bias", name, 0) == 0);
    return mask || fnmatch("*.attn.masked_bias", name, 0) == 0 ||
           fnmatch("*.attention.masked_bias", name, 0) == 0 ||
           fnmatch("*.rotary_emb.inv_freq", name, 0) == 0 ||
           (arch->tied && strcmp(item->name, p4_family_tensor(family, P4_ROLE_HEAD)) == 0);
}

/* Does the tensor belong to another part of the model than its language model? */
static bool is_foreign(const p4_hf_tensor *item, const p4_family *family)
{
    for (int i = 0; i < P4_FAMILY_FOREIGN && family->foreign[i] != NULL; i++) {
        if (strncmp(item->tensor->name, family->foreign[i], strlen(family->foreign[i])) == 0) {
            return true;
        }
    }
    return false;
}

/* The tensor of parameter i. A tied matrix may be there under the head's name alone. */
static p4_hf_tensor *find_param(const p4_hf_model *hf, const p4_hf_tensors *all, const p4_family *family,
                                int64_t i)
{
    const p4_param *param = &hf->model.params[i];
    p4_hf_tensor *found = p4_hf_tensors_find(all, param->name);
    bool tied = found == NULL && param->role == P4_ROLE_EMBED && hf->model.arch.tied;
    return tied ? p4_hf_tensors_find(all, p4_family_tensor(family, P4_ROLE_HEAD)) : found;
}

/* Points the weight at its rows in a tensor that holds those of all experts. */
static p4_rc attach_fused(const p4_hf_model *hf, p4_weight *weight, const p4_param *param,
                          p4_hf_tensor *found)
{
    p4_rc rc = P4_OK;
    char have[200], want[200];
    const p4_safetensor *tensor = found->tensor;
    const p4_arch *arch = &hf->model.arch;
    int64_t expected[3] = {arch->experts, p4_arch_dim(arch, p4_roles[param->role].rows), param->cols};
    CHECK(tensor->rank == 3 && memcmp(tensor->shape, expected, sizeof expected) == 0,
          "%s: tensor \"%s\" has the shape %s, config.json describes %s", found->shard->path, tensor->name,
          shape_text(have, tensor->shape, tensor->rank), shape_text(want, expected, 3));
    CHECK(tensor->is_float, "%s: tensor \"%s\" holds %s, expected F32, F16 or BF16", found->shard->path,
          tensor->name, tensor->dtype_name);
    weight->dtype = tensor->dtype;
    weight->data =
        (const char *)tensor->data + param->row_offset * param->cols * p4_dtype_bytes(tensor->dtype);
    found->used = true;
done:
    return rc;
}

/* The tensor of a mixture of experts that has another name than in the table; NULL: none. */
static p4_hf_tensor *find_other(const p4_hf_tensors *all, const p4_family *family, const p4_param *param)
{
    const char *rest = param->role == P4_ROLE_ROUTER ? family->other_router
                       : param->expert < 0           ? NULL
                       : param->role == P4_ROLE_UP   ? family->fused_up
                                                     : family->fused_down;
    char name[P4_TENSOR_NAME_BYTES];
    if (rest == NULL) {
        return NULL;
    }
    snprintf(name, sizeof name, "%s.%lld.%s", family->layers, (long long)param->layer, rest);
    return p4_hf_tensors_find(all, name);
}

static p4_rc attach_all(p4_hf_model *hf, const p4_hf_tensors *all)
{
    p4_rc rc = P4_OK;
    p4_name_sample missing = {0}, extra = {0}, foreign = {0};
    const p4_family *family = p4_family_find(hf->model.arch.family);
    for (int64_t i = 0; i < hf->model.params_count; i++) {
        const p4_param *param = &hf->model.params[i];
        p4_hf_tensor *found = find_param(hf, all, family, i);
        bool other = found == NULL;
        found = other ? find_other(all, family, param) : found;
        if (found == NULL) {
            p4_name_sample_add(&missing, param->name);
        } else if (other && param->expert >= 0) {
            TRY(attach_fused(hf, &hf->model.weights[i], param, found));
        } else {
            TRY(attach(&hf->model.weights[i], param, found));
        }
    }
    for (int64_t i = 0; i < all->count; i++) {
        const p4_hf_tensor *item = &all->tensors[i];
        if (!item->used && !is_ignored(item, &hf->model.arch, family)) {
            p4_name_sample_add(is_foreign(item, family) ? &foreign : &extra, item->tensor->name);
        }
    }
    CHECK(missing.count == 0 && extra.count == 0,
          "%s: the tensors are not those that config.json describes: %lld missing (%s), %lld unexpected (%s)",
          hf->path, (long long)missing.count, p4_name_sample_text(&missing), (long long)extra.count,
          p4_name_sample_text(&extra));
    if (foreign.count > 0) {
        WARN("warning: %s: %lld tensors are not part of the language model and are left out (%s)", hf->path,
             (long long)foreign.count, p4_name_sample_text(&foreign));
    }
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

/* Some checkpoints of a family have a prefix before all names: it is used if the first block has it. */
static p4_rc make_table(p4_hf_model *hf, const p4_arch *arch, const p4_hf_tensors *all)
{
    p4_rc rc = P4_OK;
    const char *prefix = p4_family_prefix(arch->family);
    TRY(p4_model_init(&hf->model, arch, prefix));
    const char *in_block = hf->model.params[hf->model.layer_first[0]].name;
    if (prefix[0] != '\0' && p4_hf_tensors_find(all, in_block) == NULL) {
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

/* Is the folder of a path there? A path into it is meant as a path. */
static bool has_parent(const char *path)
{
    const char *slash = strrchr(path, '/');
    char *parent = slash != NULL ? p4_format("%.*s", (int)(slash - path), path) : NULL;
    bool there = parent != NULL && p4_directory_exists(parent);
    free(parent);
    return there;
}

/* Adds to the recorded message what was expected. */
static p4_rc refuse_path(p4_rc rc, const char *path)
{
    char why[512];
    snprintf(why, sizeof why, "%s", p4_last_error());
    p4_error_clear();
    if (!p4_directory_exists(path) && is_hub_name(path) && !has_parent(path)) {
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
    char *json = p4_hf_config_language_model(hf->config_json);
    TRY(json != NULL ? P4_OK : P4_E_SYSTEM);
    free(hf->config_json);
    hf->config_json = json;
done:
    free(path);
    return rc;
}

p4_rc p4_hf_model_open(p4_hf_model *hf, const char *path)
{
    p4_rc rc = P4_OK;
    p4_arch arch;
    p4_hf_tensors all = {0};
    bool untied;
    *hf = (p4_hf_model){0};
    TRY(p4_hf_find_directory(&hf->path, path));
    TRY(p4_hf_read_config(hf, &arch));
    TRY(p4_hf_open_shards(hf));
    TRY(p4_hf_tensors_open(&all, hf, p4_family_find(arch.family)));
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
    p4_hf_tensors_close(&all);
    if (rc != P4_OK) {
        p4_hf_model_close(hf);
    }
    return rc;
}

static bool has_file(const p4_hf_model *hf, const char *name)
{
    char *path = p4_format("%s/%s", hf->path, name);
    bool found = path != NULL && p4_file_exists(path);
    free(path);
    return found;
}

p4_rc p4_hf_model_outline(p4_hf_model *hf, const char *path, bool weightless)
{
    static const _Alignas(64) char somewhere[64];
    p4_rc rc = P4_OK;
    p4_arch arch;
    *hf = (p4_hf_model){0};
    TRY(p4_hf_find_directory(&hf->path, path));
    if (!weightless && (has_file(hf, "model.safetensors") || has_file(hf, "model.safetensors.index.json"))) {
        p4_hf_model_close(hf);
        return p4_hf_model_open(hf, path);
    }
    TRY(p4_hf_read_config(hf, &arch));
    TRY(p4_model_init(&hf->model, &arch, p4_family_prefix(arch.family)));
    for (int64_t i = 0; i < hf->model.params_count; i++) {
        const p4_param *p = &hf->model.params[i];
        hf->model.weights[i] =
            (p4_weight){.dtype = P4_BF16, .rows = p->rows, .cols = p->cols, .data = somewhere};
    }
    sum_up(hf);
done:
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
