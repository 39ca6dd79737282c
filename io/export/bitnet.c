/* bitnet.c - a Hugging Face directory with the quantization "bitnet" of transformers: one scale a tensor. */
#include <stdlib.h>
#include <string.h>

#include "io/export/packed_directory.h"
#include "io/export/stream.h"
#include "io/export/trits.h"
#include "io/export/writers.h"
#include "io/json/write.h"

enum { PACKED = 1, SCALE };
_Static_assert(P4_STREAM_SPACES >= 4, "four rows are read at a time");
static const char writer[] = "exports: bitnet";

/* The reference replaces every linear layer but the head and those that the list names, and rounds the inputs
 * of those that it replaces to int8. */
static bool is_taken(const p4_param *p)
{
    return p->ternary && p4_role_is_matrix(p->role) && p->rows % 4 == 0;
}

/* The scale is what the ternary values are divided by. */
static float divisor(float scale)
{
    return 1.0f / scale;
}

static p4_rc check_scales(const p4_export_source *source)
{
    p4_rc rc = p4_export_check_scales(source, is_taken, writer, "transformers' bitnet");
    return rc == P4_OK ? p4_export_check_range(source, is_taken, divisor, writer) : rc;
}

static p4_rc check(const p4_export_source *source)
{
    p4_rc rc = check_scales(source);
    return rc == P4_OK ? p4_packed_check_linear(source, writer, false) : rc;
}

static void append_packed(p4_packed_directory *d, int64_t param)
{
    const p4_param *p = &d->source->hf->model.params[param];
    p4_packed_tensor *packed = p4_packed_append(d, param, PACKED, "U8");
    p4_packed_name(packed->name, p, ".weight");
    packed->rank = 2;
    packed->shape[0] = packed->rows = p->rows / 4;
    packed->shape[1] = packed->row_bytes = p->cols;
    p4_packed_tensor *scale = p4_packed_append(d, param, SCALE, NULL);
    p4_packed_name(scale->name, p, ".weight_scale");
    scale->rank = 1;
    scale->shape[0] = scale->rows = 1;
    scale->row_bytes = 2;
}

/* Byte [r, c] holds rows r, r + R, r + 2 R and r + 3 R of column c, with R = rows / 4. */
static p4_rc fill(const p4_export_source *source, p4_export_space *spaces, const p4_packed_tensor *t,
                  uint8_t *to, int64_t first, int64_t rows)
{
    p4_rc rc = P4_OK;
    p4_weight quarters[4];
    const p4_weight *w = &source->weights[t->param];
    if (t->kind == SCALE) {
        uint16_t bits = p4_f32_to_f16(divisor(p4_f16_to_f32(w->scale[0])));
        memcpy(to, &bits, sizeof bits);
        return P4_OK;
    }
    for (int64_t i = 0; i < 4; i++) {
        TRY(p4_export_view(source, &spaces[i], &quarters[i], t->param, i * (w->rows / 4) + first, rows));
    }
    for (int64_t r = 0; r < rows; r++) {
        const uint8_t *codes[4];
        for (int i = 0; i < 4; i++) {
            codes[i] = (const uint8_t *)quarters[i].data + r * p4_code_row_bytes(w->cols);
        }
        p4_trits_four_rows(to + r * t->row_bytes, codes, w->cols);
    }
done:
    return rc;
}

static char *quantization(const p4_model *model)
{
    cJSON *root = cJSON_CreateObject();
    cJSON *kept = NULL;
    bool ok = cJSON_AddStringToObject(root, "quant_method", "bitnet") != NULL &&
              cJSON_AddStringToObject(root, "linear_class", "bitlinear") != NULL &&
              cJSON_AddStringToObject(root, "quantization_mode", "offline") != NULL &&
              (kept = cJSON_AddArrayToObject(root, "modules_to_not_convert")) != NULL &&
              cJSON_AddItemToArray(kept, cJSON_CreateString("lm_head"));
    for (int64_t i = 0; ok && i < model->params_count; i++) {
        const p4_param *p = &model->params[i];
        char name[P4_PACKED_NAME_BYTES];
        p4_packed_name(name, p, "");
        ok = !p4_role_is_matrix(p->role) || is_taken(p) ||
             cJSON_AddItemToArray(kept, cJSON_CreateString(name));
    }
    return p4_json_print(root, ok, false);
}

static p4_rc list_tensors(p4_packed_directory *d, const p4_export_source *source)
{
    const p4_model *model = &source->hf->model;
    *d = (p4_packed_directory){.source = source, .fill = fill};
    d->tensors = p4_alloc(2 * (size_t)model->params_count, sizeof *d->tensors);
    if (d->tensors == NULL) {
        return P4_E_SYSTEM;
    }
    for (int64_t i = 0; i < model->params_count; i++) {
        if (is_taken(&model->params[i])) {
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
    p4_packed_directory d = {0};
    TRY(check_scales(source));
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
    (void)source;
    snprintf(text, P4_WRITER_TEXT_BYTES, "safetensors, bitnet: 2 bits, one scale a matrix");
    return P4_OK;
}

const p4_writer p4_writer_bitnet = {"bitnet", "bitnet", check, check_scales, describe, plan, write_directory};
