#include "io/h5/artifact.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "io/h5/write.h"
#include "io/json/evaluation.h"

enum { OBJECT_NAME_BYTES = P4_TENSOR_NAME_BYTES + 32 };

struct p4_artifact {
    p4_atomic_file atomic;
    p4_h5_file file;
    bool tensor_open;
    p4_artifact_tensor tensor; /* the one being written */
    int64_t rows_done;
    char values_name[OBJECT_NAME_BYTES], scale_name[OBJECT_NAME_BYTES];
    p4_h5_rows values, scale; /* packed or data; scale */
};

const char *p4_packing_name(p4_packing packing)
{
    return packing == P4_PACKING_BASE3X5 ? "base3x5" : "2bit";
}

int64_t p4_artifact_row_bytes(const p4_artifact_tensor *tensor)
{
    if (!tensor->ternary) {
        return 2 * tensor->cols;
    }
    return tensor->encoding == P4_PACKING_BASE3X5 ? p4_ceil_div(tensor->cols, 5)
                                                  : p4_code_row_bytes(tensor->cols);
}

int64_t p4_artifact_scales(const p4_artifact_tensor *tensor, int64_t rows)
{
    int64_t group = p4_scale_group(tensor->scale_group, tensor->cols);
    return group > tensor->cols ? 1 : rows * (tensor->cols / group);
}

int64_t p4_artifact_scale_at(const p4_artifact_tensor *tensor, int64_t row)
{
    return row * tensor->cols / p4_scale_group(tensor->scale_group, tensor->cols);
}

/* "tensors/" + name + "/packed", refusing what HDF5 would read as another path. */
static p4_rc object_name(char to[OBJECT_NAME_BYTES], const char *group, const char *name, const char *part)
{
    if (name[0] == '\0' || strcmp(name, ".") == 0 || strchr(name, '/') != NULL ||
        strlen(name) >= P4_TENSOR_NAME_BYTES) {
        return FAIL("\"%s\" cannot be a name inside model.h5 (1 to %d bytes without '/')", name,
                    P4_TENSOR_NAME_BYTES - 1);
    }
    snprintf(to, OBJECT_NAME_BYTES, "%s/%s%s", group, name, part);
    return P4_OK;
}

static p4_rc put_header(p4_h5_file *file, const p4_artifact_info *info)
{
    p4_rc rc = P4_OK;
    char created[P4_TIME_BYTES];
    TRY(p4_h5_put_text_attr(file, "/", "format", "phase4-ternary"));
    TRY(p4_h5_put_i64_attr(file, "/", "format_version", 1));
    TRY(p4_h5_put_text_attr(file, "/", "producer", info->producer));
    TRY(p4_h5_put_text_attr(file, "/", "created", p4_utc_now(created)));
    TRY(p4_h5_put_text_attr(file, "/", "model_type", info->model_type));
    TRY(p4_h5_put_text(file, "config/model_json", info->model_json));
    TRY(p4_h5_put_text(file, "config/phase4_json", info->phase4_json));
    if (info->tokenizer_json != NULL) {
        TRY(p4_h5_put_text(file, "tokenizer/tokenizer_json", info->tokenizer_json));
    }
    /* The file explains itself to whoever opens it without this source. */
    TRY(p4_h5_group(file, "tensors"));
    TRY(p4_h5_put_text_attr(
        file, "tensors", "weight",
        "packed row r, trit t in {-1, 0, 1}: weight = t * scale[r]; with scales [rows, G], of the "
        "G-th parts of rows; with one scale, t * scale[0]"));
    TRY(p4_h5_put_text_attr(
        file, "tensors", "base3x5",
        "5 trits a byte, u = t + 1, byte = sum of u_k * 3^(4-k), first trit most significant"));
    TRY(p4_h5_put_text_attr(file, "tensors", "2bit",
                            "4 trits a byte, u = t + 1, trit k in bits 2k and 2k + 1"));
done:
    return rc;
}

p4_rc p4_artifact_open(p4_artifact **artifact, const char *path, const p4_artifact_info *info)
{
    p4_rc rc = P4_E_SYSTEM;
    p4_artifact *made = p4_alloc(1, sizeof *made);
    *artifact = NULL;
    if (made == NULL) {
        goto done;
    }
    made->file.id = made->values.id = made->scale.id = -1;
    TRY(p4_atomic_open(&made->atomic, path));
    TRY(p4_h5_create(&made->file, &made->atomic));
    TRY(put_header(&made->file, info));
    *artifact = made;
    made = NULL;
done:
    p4_artifact_close(made, false);
    return rc;
}

/* Ends the current tensor, whose rows must all be there. */
static p4_rc end_tensor(p4_artifact *artifact)
{
    if (!artifact->tensor_open) {
        return P4_OK;
    }
    p4_rc values = p4_h5_rows_close(&artifact->values);
    p4_rc scale = p4_h5_rows_close(&artifact->scale);
    artifact->tensor_open = false;
    if (values != P4_OK || scale != P4_OK) {
        return values != P4_OK ? values : scale;
    }
    if (artifact->rows_done != artifact->tensor.rows) {
        return FAULT("%s: %lld of %lld rows of %s were given", artifact->file.path,
                     (long long)artifact->rows_done, (long long)artifact->tensor.rows, artifact->tensor.name);
    }
    return P4_OK;
}

static p4_rc begin_ternary(p4_artifact *artifact)
{
    p4_rc rc = P4_OK;
    const p4_artifact_tensor *tensor = &artifact->tensor;
    p4_h5_file *file = &artifact->file;
    const char *packed = artifact->values_name;
    int64_t logical[2] = {tensor->rows, tensor->cols};
    int64_t shape[2] = {tensor->rows, p4_artifact_row_bytes(tensor)};
    TRY(object_name(artifact->values_name, "tensors", tensor->name, "/packed"));
    TRY(object_name(artifact->scale_name, "tensors", tensor->name, "/scale"));
    TRY(p4_h5_rows_create(&artifact->values, file, packed, P4_H5_U8, 2, shape));
    TRY(p4_h5_put_text_attr(file, packed, "encoding", p4_packing_name(tensor->encoding)));
    TRY(p4_h5_put_i64_attr(file, packed, "trits_per_byte", tensor->encoding == P4_PACKING_BASE3X5 ? 5 : 4));
    TRY(p4_h5_put_i64s_attr(file, packed, "shape", tensor->vector ? logical + 1 : logical,
                            tensor->vector ? 1 : 2));
    TRY(p4_h5_put_text_attr(file, packed, "method", tensor->method));
    TRY(p4_h5_put_i64_attr(file, packed, "transposed", tensor->transposed));
    /* [rows]; [rows, groups] where parts of rows have scales of their own; [1] */
    int64_t scales[2] = {p4_artifact_scales(tensor, tensor->rows), 1};
    bool grouped = scales[0] > tensor->rows;
    scales[1] = scales[0] / tensor->rows;
    scales[0] = grouped ? tensor->rows : scales[0];
    TRY(p4_h5_rows_create(&artifact->scale, file, artifact->scale_name, P4_H5_F16, grouped ? 2 : 1, scales));
done:
    return rc;
}

static p4_rc begin_preserved(p4_artifact *artifact)
{
    p4_rc rc = P4_OK;
    const p4_artifact_tensor *tensor = &artifact->tensor;
    int64_t shape[2] = {tensor->rows, tensor->cols};
    TRY(object_name(artifact->values_name, "tensors", tensor->name, "/data"));
    TRY(p4_h5_rows_create(&artifact->values, &artifact->file, artifact->values_name, P4_H5_F16,
                          tensor->vector ? 1 : 2, tensor->vector ? shape + 1 : shape));
    TRY(p4_h5_put_i64_attr(&artifact->file, artifact->values_name, "transposed", tensor->transposed));
done:
    return rc;
}

p4_rc p4_artifact_begin(p4_artifact *artifact, const p4_artifact_tensor *tensor)
{
    p4_rc rc = end_tensor(artifact);
    if (rc != P4_OK) {
        return rc;
    }
    if (tensor->rows < 1 || tensor->cols < 1 || tensor->cols > INT64_MAX / 2 ||
        (tensor->vector && tensor->rows != 1)) {
        return FAULT("%s: %s has the shape [%lld, %lld]", artifact->file.path, tensor->name,
                     (long long)tensor->rows, (long long)tensor->cols);
    }
    artifact->tensor = *tensor;
    artifact->rows_done = 0;
    rc = tensor->ternary ? begin_ternary(artifact) : begin_preserved(artifact);
    artifact->tensor_open = rc == P4_OK;
    if (rc != P4_OK) {
        p4_h5_rows_close(&artifact->values);
        p4_h5_rows_close(&artifact->scale);
    }
    return rc;
}

p4_rc p4_artifact_append(p4_artifact *artifact, const void *bytes, const uint16_t *scale, int64_t row_count)
{
    p4_rc rc = P4_OK;
    const p4_artifact_tensor *tensor = &artifact->tensor;
    if (!artifact->tensor_open || row_count < 1 || row_count > tensor->rows - artifact->rows_done) {
        return FAULT("%s: %lld more rows were given for %s, which has %lld of %lld", artifact->file.path,
                     (long long)row_count, artifact->tensor_open ? tensor->name : "no tensor",
                     (long long)artifact->rows_done, (long long)tensor->rows);
    }
    bool elements =
        tensor->vector && !tensor->ternary; /* a preserved vector's dataset counts elements, not rows */
    TRY(p4_h5_rows_append(&artifact->values, bytes, elements ? tensor->cols : row_count));
    bool one_scale = tensor->scale_group > tensor->cols;
    if (tensor->ternary && !(one_scale && artifact->rows_done > 0)) {
        TRY(p4_h5_rows_append(&artifact->scale, scale, one_scale ? 1 : row_count));
    }
    artifact->rows_done += row_count;
done:
    return rc;
}

typedef struct number {
    const char *key;
    double value;
} number;

/* Attributes of a group, which is made; what was not measured (NaN) is left out. */
static p4_rc put_numbers(p4_h5_file *file, const char *group, const number *numbers, size_t count)
{
    p4_rc rc = p4_h5_group(file, group);
    for (size_t i = 0; rc == P4_OK && i < count; i++) {
        if (!isnan(numbers[i].value)) {
            rc = p4_h5_put_f64_attr(file, group, numbers[i].key, numbers[i].value);
        }
    }
    return rc;
}

p4_rc p4_artifact_put_evaluation(p4_artifact *artifact, const char *opt_set, const char *name,
                                 const p4_evaluation *evaluation)
{
    p4_rc rc = P4_OK;
    char group[OBJECT_NAME_BYTES];
    double values[P4_EVALUATION_MEMBERS];
    number numbers[P4_EVALUATION_MEMBERS];
    size_t count = 0;
    p4_evaluation_to_numbers(values, evaluation);
    for (int i = 0; i < P4_EVALUATION_MEMBERS; i++) {
        if (!p4_evaluation_is_count(i)) {
            numbers[count++] = (number){p4_evaluation_keys[i], values[i]};
        }
    }
    if (opt_set != NULL) {
        char part[8];
        snprintf(part, sizeof part, "/%.6s", name);
        TRY(object_name(group, "metrics/sets", opt_set, part));
    } else {
        TRY(object_name(group, "metrics", name, ""));
    }
    TRY(put_numbers(&artifact->file, group, numbers, count));
    for (int i = 0; i < P4_EVALUATION_MEMBERS; i++) {
        if (p4_evaluation_is_count(i)) {
            TRY(p4_h5_put_i64_attr(&artifact->file, group, p4_evaluation_keys[i], (int64_t)values[i]));
        }
    }
done:
    return rc;
}

p4_rc p4_artifact_put_training(p4_artifact *artifact, const p4_training_point *points, int64_t count)
{
    p4_rc rc = P4_OK;
    static const char *const names[] = {"loss", "lr", "grad_norm", "tokens_per_s"};
    enum { CURVES = sizeof names / sizeof names[0] };
    if (count == 0) {
        return P4_OK;
    }
    double *values = p4_alloc((size_t)count, CURVES * sizeof *values);
    int64_t *steps = p4_alloc((size_t)count, sizeof *steps);
    if (values == NULL || steps == NULL) {
        rc = P4_E_SYSTEM;
        goto done;
    }
    for (int64_t i = 0; i < count; i++) {
        steps[i] = points[i].step;
        values[i] = points[i].loss;
        values[count + i] = points[i].lr;
        values[2 * count + i] = points[i].grad_norm;
        values[3 * count + i] = points[i].tokens_per_s;
    }
    TRY(p4_h5_put_vector(&artifact->file, "metrics/training/step", P4_H5_I64, steps, count));
    for (int64_t c = 0; c < CURVES; c++) {
        char name[OBJECT_NAME_BYTES];
        TRY(object_name(name, "metrics/training", names[c], ""));
        TRY(p4_h5_put_vector(&artifact->file, name, P4_H5_F64, values + c * count, count));
    }
done:
    free(values);
    free(steps);
    return rc;
}

p4_rc p4_artifact_put_calibration(p4_artifact *artifact, const p4_artifact_module *module)
{
    p4_rc rc = P4_OK;
    char group[OBJECT_NAME_BYTES], inputs[OBJECT_NAME_BYTES];
    const number numbers[] = {
        {"mean", module->mean}, {"std", module->std}, {"min", module->min}, {"max", module->max}};
    TRY(object_name(group, "calibration", module->name, ""));
    TRY(object_name(inputs, "calibration", module->name, "/input_mean_square"));
    TRY(put_numbers(&artifact->file, group, numbers, sizeof numbers / sizeof numbers[0]));
    rc = p4_h5_put_vector(&artifact->file, inputs, P4_H5_F32, module->input_mean_square, module->inputs);
done:
    return rc;
}

p4_rc p4_artifact_put_layer(p4_artifact *artifact, const p4_artifact_layer *layer)
{
    p4_rc rc = P4_OK;
    char group[OBJECT_NAME_BYTES];
    const number numbers[] = {{"relative_error", layer->relative_error},
                              {"sparsity", layer->sparsity},
                              {"scale_min", layer->scale_min},
                              {"scale_max", layer->scale_max}};
    TRY(object_name(group, "layers", layer->name, ""));
    rc = put_numbers(&artifact->file, group, numbers, sizeof numbers / sizeof numbers[0]);
done:
    return rc;
}

p4_rc p4_artifact_close(p4_artifact *artifact, bool ok)
{
    p4_rc rc = P4_OK;
    if (artifact == NULL) {
        return P4_OK;
    }
    if (ok) {
        rc = end_tensor(artifact);
    }
    p4_rc closed = p4_h5_close(&artifact->file, ok && rc == P4_OK);
    rc = rc != P4_OK ? rc : closed;
    closed = p4_atomic_close(&artifact->atomic, ok && rc == P4_OK);
    rc = rc != P4_OK ? rc : closed;
    free(artifact);
    return rc;
}
