#include "io/export/packed_directory.h"

#include <stdlib.h>
#include <string.h>

#include "io/export/stream.h"
#include "io/file/atomic_file.h"
#include "io/json/write.h"

void p4_packed_name(char to[P4_PACKED_NAME_BYTES], const p4_param *param, const char *suffix)
{
    static const char ending[] = ".weight";
    size_t bytes = strlen(param->name), cut = sizeof ending - 1;
    bool has = bytes > cut && strcmp(param->name + bytes - cut, ending) == 0;
    snprintf(to, P4_PACKED_NAME_BYTES, "%.*s%s", (int)(has ? bytes - cut : bytes), param->name, suffix);
}

p4_packed_tensor *p4_packed_append(p4_packed_directory *d, int64_t param, int kind, const char *whole)
{
    p4_packed_tensor *t = &d->tensors[d->count++];
    *t = (p4_packed_tensor){.param = param, .kind = kind, .whole = whole, .by_rows = kind == 0};
    return t;
}

void p4_packed_append_plain(p4_packed_directory *d, int64_t param)
{
    const p4_param *p = &d->source->hf->model.params[param];
    p4_packed_tensor *t = p4_packed_append(d, param, 0, NULL);
    snprintf(t->name, sizeof t->name, "%s", p->name);
    t->rank = p->vector ? 1 : 2;
    t->shape[0] = p->vector ? p->cols : p->rows;
    t->shape[1] = p->cols;
    t->rows = p->rows;
    t->row_bytes = 2 * p->cols;
}

const p4_weight *p4_packed_row_of(const p4_export_source *source, const p4_packed_tensor *t, int64_t *row)
{
    int64_t each = t->rows / p4_max_i64(1, t->stacked), matrix = *row / each;
    *row %= each;
    return &source->weights[t->param + matrix * t->step];
}

p4_rc p4_packed_view(const p4_export_source *source, p4_export_space *space, p4_weight *view,
                     const p4_packed_tensor *t, int64_t first, int64_t rows)
{
    int64_t each = t->rows / p4_max_i64(1, t->stacked), row = first % each;
    return p4_export_view(source, space, view, t->param + first / each * t->step, row,
                          p4_min_i64(rows, each - row));
}

double p4_packed_directory_bytes(const p4_packed_directory *d)
{
    enum { ENTRY_BYTES = 200, SMALL_BYTES = 16 << 10 }; /* of the header; config.json */
    double bytes = SMALL_BYTES;
    for (int64_t i = 0; i < d->count; i++) {
        bytes += (double)d->tensors[i].rows * (double)d->tensors[i].row_bytes + ENTRY_BYTES;
    }
    return bytes;
}

static p4_rc fill_plain(const p4_export_source *source, p4_export_space *space, const p4_packed_tensor *t,
                        uint8_t *to, int64_t first, int64_t rows)
{
    p4_rc rc = P4_OK;
    p4_weight view;
    for (int64_t done = 0; done < rows; done += view.rows, to += view.rows * t->row_bytes) {
        TRY(p4_packed_view(source, space, &view, t, first + done, rows - done));
        if (view.dtype != P4_TERNARY) {
            memcpy(to, view.data, (size_t)(view.rows * t->row_bytes));
        }
        for (int64_t r = 0; view.dtype == P4_TERNARY && r < view.rows; r++) {
            p4_ternary_row_f16((uint16_t *)(void *)(to + r * t->row_bytes), &view, r);
        }
    }
done:
    return rc;
}

typedef struct work {
    const p4_packed_directory *directory;
    p4_safetensors_writer *file;
} work;

static p4_rc fill(void *user, p4_export_space *spaces, uint8_t *to, const void **made, int64_t part,
                  int64_t first, int64_t rows)
{
    const work *w = user;
    const p4_packed_directory *d = w->directory;
    const p4_packed_tensor *t = &d->tensors[part];
    p4_safetensors_writer_begin_sync(w->file);
    if (t->kind == 0 && t->stacked == 0 && d->source->weights[t->param].dtype == P4_F16) {
        p4_weight view; /* the very bytes */
        p4_rc rc = p4_packed_view(d->source, spaces, &view, t, first, rows);
        *made = view.data;
        return rc;
    }
    return t->kind == 0 ? fill_plain(d->source, spaces, t, to, first, rows)
                        : d->fill(d->source, spaces, t, to, first, rows);
}

static p4_rc append(void *user, const void *bytes, size_t byte_count)
{
    return p4_safetensors_writer_append(((const work *)user)->file, bytes, byte_count);
}

static p4_rc write_tensors(const p4_packed_directory *d, const char *path)
{
    p4_rc rc = P4_OK;
    work w = {.directory = d};
    p4_safetensors_entry *entries = p4_alloc((size_t)d->count, sizeof *entries);
    p4_stream_part *parts = p4_alloc((size_t)d->count, sizeof *parts);
    if (entries == NULL || parts == NULL) {
        rc = P4_E_SYSTEM;
        goto done;
    }
    for (int64_t i = 0; i < d->count; i++) {
        const p4_packed_tensor *t = &d->tensors[i];
        entries[i] = (p4_safetensors_entry){.name = t->name,
                                            .dtype = P4_F16,
                                            .whole = t->whole,
                                            .rank = t->rank,
                                            .shape = {t->shape[0], t->shape[1], t->shape[2]}};
        parts[i] = (p4_stream_part){.rows = t->rows, .row_bytes = t->row_bytes};
        TRY(t->by_rows && t->stacked == 0 ? p4_export_step(d->source, &parts[i].step, t->param) : P4_OK);
    }
    TRY(p4_safetensors_writer_open(&w.file, path, entries, d->count));
    const p4_stream stream = {
        .source = d->source, .parts = parts, .count = d->count, .fill = fill, .append = append, .user = &w};
    TRY(p4_stream_run(&stream));
done:
    free(entries);
    free(parts);
    p4_rc closed = p4_safetensors_writer_close(w.file, rc == P4_OK);
    return rc != P4_OK ? rc : closed;
}

static p4_rc fill_directory(void *user, const char *directory)
{
    p4_rc rc = P4_OK;
    const p4_packed_directory *d = user;
    char *weights = p4_format("%s/model.safetensors", directory);
    char *config = p4_format("%s/config.json", directory);
    TRY(weights != NULL && config != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(p4_hf_copy_files(directory, d->source->hf));
    TRY(write_tensors(d, weights));
    TRY(p4_atomic_write_all(config, d->config_json, strlen(d->config_json)));
done:
    free(weights);
    free(config);
    return rc;
}

p4_rc p4_packed_directory_write(const p4_packed_directory *d, const char *path)
{
    return p4_hf_directory_write(path, d->source->hf, fill_directory, (void *)(uintptr_t)d);
}

void p4_packed_directory_free(p4_packed_directory *d)
{
    free(d->tensors);
    free(d->config_json);
    *d = (p4_packed_directory){0};
}

bool p4_packed_is_linear(const p4_param *param)
{
    return param->ternary && (p4_role_is_matrix(param->role) || param->role == P4_ROLE_HEAD);
}

p4_rc p4_packed_check_linear(const p4_export_source *source, const char *writer, bool takes_experts)
{
    const p4_model *model = &source->hf->model;
    if (model->arch.experts > 0 && !takes_experts) {
        return FAIL(
            "%s: model family %s keeps the matrices of its experts in modules that are no linear layers, "
            "which the format does not take",
            writer, model->arch.family);
    }
    for (int64_t i = 0; i < model->params_count; i++) {
        if (model->params[i].transposed) {
            return FAIL(
                "%s: model family %s keeps its matrices as [in, out] in modules of its own, which the "
                "format does not take",
                writer, model->arch.family);
        }
    }
    return P4_OK;
}

/* What newer files have under rope_parameters alone, where older readers look for it. */
static bool add_positions(cJSON *root, double rope_theta)
{
    const cJSON *parameters = cJSON_GetObjectItemCaseSensitive(root, "rope_parameters");
    const char *type = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(parameters, "rope_type"));
    bool ok = cJSON_GetObjectItemCaseSensitive(root, "rope_theta") != NULL ||
              cJSON_AddNumberToObject(root, "rope_theta", rope_theta) != NULL;
    if (ok && type != NULL && strcmp(type, "default") != 0 &&
        !cJSON_IsObject(cJSON_GetObjectItemCaseSensitive(root, "rope_scaling"))) {
        cJSON *scaling = cJSON_Duplicate(parameters, true);
        cJSON_DeleteItemFromObjectCaseSensitive(root, "rope_scaling");
        ok = scaling != NULL && cJSON_AddItemToObject(root, "rope_scaling", scaling);
    }
    return ok;
}

char *p4_packed_config(const p4_export_source *source, const char *key, char *value, double rope_theta)
{
    char *fp16 = p4_hf_config_as_fp16(source->hf->config_json), *text = NULL;
    cJSON *root = fp16 != NULL ? cJSON_Parse(fp16) : NULL;
    bool ok = root != NULL && value != NULL && p4_json_keep_numbers(root, fp16);
    if (ok) {
        cJSON_DeleteItemFromObjectCaseSensitive(root, key);
        ok = cJSON_AddRawToObject(root, key, value) != NULL;
        ok = ok && (rope_theta == 0 || add_positions(root, rope_theta));
    }
    text = p4_json_print(root, ok, true);
    free(fp16);
    free(value);
    return text;
}
