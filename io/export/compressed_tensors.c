/* compressed_tensors.c - a Hugging Face directory in the format "pack-quantized" of compressed-tensors, with
 * 2-bit integers and one scale a row: for transformers and vLLM. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/export/packed_directory.h"
#include "io/export/trits.h"
#include "io/export/writers.h"
#include "io/json/write.h"
#include "src/families.h"

enum { PACKED = 1, SCALE, SHAPE };

static p4_rc check(const p4_export_source *source)
{
    const char *family = source->hf->model.arch.family;
    if (p4_family_find(family)->own_linear) {
        return FAIL(
            "exports: compressed_tensors: model family %s has a class of linear layers of its own, which "
            "reads weights that the format does not have",
            family);
    }
    return p4_packed_check_linear(source, "exports: compressed_tensors", false);
}

static void append_packed(p4_packed_directory *d, int64_t param)
{
    const p4_param *p = &d->source->hf->model.params[param];
    p4_packed_tensor *packed = p4_packed_append(d, param, PACKED, "I32");
    p4_packed_name(packed->name, p, ".weight_packed");
    packed->by_rows = true;
    packed->rank = 2;
    packed->shape[0] = packed->rows = p->rows;
    packed->row_bytes = p4_trits_word_bytes(p->cols);
    packed->shape[1] = packed->row_bytes / 4;
    p4_packed_tensor *scale = p4_packed_append(d, param, SCALE, NULL);
    p4_packed_name(scale->name, p, ".weight_scale");
    scale->rank = 2;
    scale->shape[0] = scale->rows = p->rows;
    scale->shape[1] = p->cols / p4_export_run(p->scale_group, p->cols);
    scale->row_bytes = 2 * scale->shape[1];
    p4_packed_tensor *shape = p4_packed_append(d, param, SHAPE, "I64");
    p4_packed_name(shape->name, p, ".weight_shape");
    shape->rank = 1;
    shape->shape[0] = 2;
    shape->rows = 1;
    shape->row_bytes = 16;
}

static p4_rc fill(const p4_export_source *source, p4_export_space *spaces, const p4_packed_tensor *t,
                  uint8_t *to, int64_t first, int64_t rows)
{
    p4_rc rc = P4_OK;
    const p4_weight *w = &source->weights[t->param];
    p4_weight view;
    if (t->kind == SCALE) {
        int64_t run = p4_export_run(w->scale_group, w->cols);
        for (int64_t i = 0; i < rows * t->shape[1]; i++) {
            uint16_t bits = p4_export_scale(w, first + i / t->shape[1], i % t->shape[1] * run);
            memcpy(to + 2 * i, &bits, sizeof bits);
        }
    } else if (t->kind == SHAPE) {
        const int64_t shape[2] = {w->rows, w->cols};
        memcpy(to, shape, sizeof shape);
    } else {
        TRY(p4_export_view(source, spaces, &view, t->param, first, rows));
        const uint8_t *codes = view.data;
        for (int64_t r = 0; r < rows; r++) {
            p4_trits_plus_two(to + r * t->row_bytes, codes + r * p4_code_row_bytes(w->cols), w->cols);
        }
    }
done:
    return rc;
}

/* The linear layers that stay as they are; a tied head is one. */
static bool put_ignored(cJSON *list, const p4_model *model)
{
    bool ok = !model->arch.tied || cJSON_AddItemToArray(list, cJSON_CreateString("lm_head"));
    for (int64_t i = 0; ok && i < model->params_count; i++) {
        const p4_param *p = &model->params[i];
        char name[P4_PACKED_NAME_BYTES];
        bool linear = p4_role_is_matrix(p->role) || p->role == P4_ROLE_HEAD;
        p4_packed_name(name, p, "");
        ok = !linear || p->ternary || cJSON_AddItemToArray(list, cJSON_CreateString(name));
    }
    return ok;
}

/* Neighbors with one scale, of all matrices alike; 0: whole rows. */
static int64_t group_size(const p4_model *model)
{
    for (int64_t i = 0; i < model->params_count; i++) {
        const p4_param *p = &model->params[i];
        if (p4_packed_is_linear(p) && p4_export_run(p->scale_group, p->cols) < p->cols) {
            return p->scale_group;
        }
    }
    return 0;
}

static char *quantization(const p4_model *model)
{
    int64_t size = group_size(model);
    char number[32] = "null";
    if (size > 0) {
        snprintf(number, sizeof number, "%lld", (long long)size);
    }
    char *group = p4_format(
        "{\"targets\": [\"Linear\"], \"weights\": {\"num_bits\": 2, \"type\": \"int\", \"symmetric\": true, "
        "\"strategy\": \"%s\", \"dynamic\": false, \"group_size\": %s}, \"input_activations\": null, "
        "\"output_activations\": null}",
        size > 0 ? "group" : "channel", number);
    cJSON *root = cJSON_CreateObject();
    cJSON *groups = NULL, *ignored = NULL;
    bool ok = group != NULL && cJSON_AddStringToObject(root, "quant_method", "compressed-tensors") != NULL &&
              cJSON_AddStringToObject(root, "format", "pack-quantized") != NULL &&
              cJSON_AddStringToObject(root, "quantization_status", "compressed") != NULL &&
              (groups = cJSON_AddObjectToObject(root, "config_groups")) != NULL &&
              cJSON_AddRawToObject(groups, "group_0", group) != NULL &&
              (ignored = cJSON_AddArrayToObject(root, "ignore")) != NULL && put_ignored(ignored, model);
    free(group);
    return p4_json_print(root, ok, false);
}

static p4_rc list_tensors(p4_packed_directory *d, const p4_export_source *source)
{
    const p4_model *model = &source->hf->model;
    *d = (p4_packed_directory){.source = source, .fill = fill};
    d->tensors = p4_alloc(3 * (size_t)model->params_count, sizeof *d->tensors);
    if (d->tensors == NULL) {
        return P4_E_SYSTEM;
    }
    for (int64_t i = 0; i < model->params_count; i++) {
        if (p4_packed_is_linear(&model->params[i])) {
            append_packed(d, i);
        } else {
            p4_packed_append_plain(d, i);
        }
    }
    return P4_OK;
}

static p4_rc plan(const p4_export_source *source, double *bytes)
{
    p4_packed_directory d;
    p4_rc rc = list_tensors(&d, source);
    *bytes = rc == P4_OK ? p4_packed_directory_bytes(&d) : 0;
    p4_packed_directory_free(&d);
    return rc;
}

static p4_rc write_directory(const p4_export_source *source, const char *path)
{
    p4_rc rc = P4_OK;
    p4_packed_directory d;
    TRY(list_tensors(&d, source));
    d.config_json = p4_packed_config(source, "quantization_config", quantization(&source->hf->model), 0);
    TRY(d.config_json != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(p4_packed_directory_write(&d, path));
done:
    p4_packed_directory_free(&d);
    return rc;
}

static p4_rc describe(const p4_export_source *source, char text[P4_WRITER_TEXT_BYTES])
{
    int64_t size = group_size(&source->hf->model);
    snprintf(text, P4_WRITER_TEXT_BYTES, "safetensors, pack-quantized: 2 bits, a scale a row");
    if (size > 0) {
        snprintf(text, P4_WRITER_TEXT_BYTES, "safetensors, pack-quantized: 2 bits, groups of %lld",
                 (long long)size);
    }
    return P4_OK;
}

const p4_writer p4_writer_compressed_tensors = {
    "compressed_tensors", "compressed_tensors", check, NULL, describe, plan, write_directory};
