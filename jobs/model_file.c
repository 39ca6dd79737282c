#include "jobs/model_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/file/files.h"
#include "io/gguf/gguf_view.h"
#include "io/json/config.h"
#include "io/json/evaluation.h"
#include "src/families.h"

enum { BLOCK_BYTES = 4 << 20 }; /* packed at a time */

p4_rc p4_model_file_find(char file[P4_PATH_BYTES], const char *path)
{
    p4_rc rc = P4_OK;
    bool directory = p4_directory_exists(path);
    int length = snprintf(file, P4_PATH_BYTES, "%s%s", path, directory ? "/model.h5" : "");
    CHECK(length < P4_PATH_BYTES, "the path \"%.60s...\" has more than %d bytes", path, P4_PATH_BYTES - 1);
    CHECK(p4_file_exists(file),
          directory ? "%s: is not there: %s is not the output directory of a run that "
                      "wrote a packed model"
                    : "%s: is not there, or is not a file",
          file, path);
    CHECK(directory || !p4_gguf_view_is(file),
          "%s: is a GGUF file; expected the output directory of a run, or its model.h5", path);
done:
    return rc;
}

p4_rc p4_model_file_config(p4_config *config, p4_artifact_reader *reader, const char *path)
{
    p4_rc rc = P4_OK;
    char *json = NULL;
    TRY(p4_artifact_read_text(reader, "config/phase4_json", &json));
    CHECK(json != NULL, "%s: has no config/phase4_json", path);
    TRY(p4_config_parse(config, json, strlen(json), path, P4_RECIPE_SEED));
done:
    free(json);
    return rc;
}

p4_rc p4_model_file_evaluation(p4_evaluation *e, p4_artifact_reader *reader, const char *opt_set,
                               const char *name)
{
    p4_rc rc = P4_OK;
    char group[64 + P4_SET_NAME_BYTES];
    double numbers[P4_EVALUATION_MEMBERS];
    snprintf(group, sizeof group, opt_set != NULL ? "metrics/sets/%s/%s" : "metrics/%s%s",
             opt_set != NULL ? opt_set : "", name);
    for (int i = 0; i < P4_EVALUATION_MEMBERS; i++) {
        TRY(p4_artifact_read_number(reader, group, p4_evaluation_keys[i], &numbers[i]));
        bool fits = numbers[i] > 0 && numbers[i] < 9e15;
        numbers[i] = p4_evaluation_is_count(i) && !fits ? 0 : numbers[i];
    }
    *e = p4_evaluation_from_numbers(numbers);
done:
    return rc;
}

/* The parameter table, with the prefix that the file's names have. Local. */
static p4_rc open_table(p4_hf_model *hf, p4_artifact_reader *reader, const char *path)
{
    p4_rc rc = P4_OK;
    p4_arch arch;
    if ((hf->path = p4_strdup(path)) == NULL) {
        return P4_E_SYSTEM;
    }
    TRY(p4_artifact_read_text(reader, "config/model_json", &hf->config_json));
    CHECK(hf->config_json != NULL, "%s: has no config/model_json", path);
    TRY(p4_hf_config_parse(&arch, hf->config_json, strlen(hf->config_json), path));
    const char *prefix = p4_family_prefix(arch.family);
    TRY(p4_model_init(&hf->model, &arch, prefix));
    if (prefix[0] != '\0' && p4_artifact_reader_find(reader, hf->model.params[0].name) == NULL) {
        p4_model_close(&hf->model);
        TRY(p4_model_init(&hf->model, &arch, ""));
    }
    CHECK(p4_artifact_reader_count(reader) == hf->model.params_count,
          "%s: holds %lld tensors, its config/model_json asks for %lld", path,
          (long long)p4_artifact_reader_count(reader), (long long)hf->model.params_count);
done:
    return rc;
}

/* Which tensors the file has as trits; each must have the shape that the architecture asks for. Local. */
static p4_rc match_tensors(p4_hf_model *hf, p4_artifact_reader *reader)
{
    p4_rc rc = P4_OK;
    p4_model *model = &hf->model;
    for (int64_t i = 0; i < model->params_count; i++) {
        p4_param *p = &model->params[i];
        const p4_artifact_tensor *t = p4_artifact_reader_find(reader, p->name);
        CHECK(t != NULL, "%s: has no tensor %s", hf->path, p->name);
        CHECK(t->rows == p->rows && t->cols == p->cols && t->vector == p->vector &&
                  t->transposed == p->transposed,
              "%s: tensor %s is %s[%lld, %lld]%s, its config/model_json asks for %s[%lld, %lld]%s", hf->path,
              p->name, t->vector ? "a vector " : "", (long long)t->rows, (long long)t->cols,
              t->transposed ? " transposed" : "", p->vector ? "a vector " : "", (long long)p->rows,
              (long long)p->cols, p->transposed ? " transposed" : "");
        CHECK(!t->ternary || (!p->vector && p->role != P4_ROLE_POSITION),
              "%s: tensor %s is ternary, expected fp16", hf->path, p->name);
        p->ternary = t->ternary;
        p->scale_group = t->scale_group;
    }
done:
    return rc;
}

p4_rc p4_model_file_table(p4_hf_model *hf, p4_artifact_reader *reader, const char *path)
{
    p4_rc rc = open_table(hf, reader, path);
    return rc == P4_OK ? match_tensors(hf, reader) : rc;
}

/* Codes and scales of one tensor, in blocks of rows; counts what p4_packed_sparsity wants. Local. */
static p4_rc read_ternary(p4_packed *packed, p4_artifact_reader *reader, const p4_artifact_tensor *t,
                          int64_t i, p4_device *host)
{
    p4_rc rc = P4_OK;
    int64_t row_bytes = p4_artifact_row_bytes(t), code_bytes = p4_code_row_bytes(t->cols);
    int64_t block = p4_min_i64(t->rows, p4_max_i64(1, BLOCK_BYTES / row_bytes));
    uint8_t *stored = p4_alloc((size_t)(block * row_bytes), 1);
    if (stored == NULL) {
        return P4_E_SYSTEM;
    }
    for (int64_t row = 0; row < t->rows; row += block) {
        int64_t rows = p4_min_i64(block, t->rows - row);
        uint8_t *codes = p4_packed_codes(packed, i) + row * code_bytes;
        TRY(p4_artifact_read(reader, t, stored, p4_packed_scale(packed, i) + p4_artifact_scale_at(t, row),
                             row, rows));
        if (t->encoding == P4_PACKING_BASE3X5) {
            p4_ops_find("cpu")->unpack_base3(host, codes, stored, rows, t->cols);
        } else {
            memcpy(codes, stored, (size_t)(rows * code_bytes));
        }
        for (int64_t r = 0; r < rows; r++) {
            packed->errors[i].zeros += p4_codes_count_zeros(codes + r * code_bytes, t->cols);
        }
    }
done:
    free(stored);
    return rc;
}

p4_rc p4_model_file_read(p4_packed *packed, p4_packing *packing, p4_artifact_reader *reader,
                         const p4_model *model, int threads)
{
    p4_rc rc = P4_OK;
    const p4_ops *cpu = p4_ops_find("cpu"); /* the bytes are in host memory, whatever the device is */
    p4_device *host = NULL;
    TRY(cpu->open(&host, 0, threads, false));
    TRY(p4_packed_alloc(packed, model));
    for (int64_t i = 0; i < model->params_count; i++) {
        const p4_artifact_tensor *t = p4_artifact_reader_find(reader, model->params[i].name);
        if (t->ternary) {
            TRY(read_ternary(packed, reader, t, i, host));
            *packing = t->encoding;
        } else {
            TRY(p4_artifact_read(reader, t, p4_packed_half(packed, i), NULL, 0, t->rows));
        }
    }
    packed->is_compressed = true;
done:
    if (host != NULL) {
        cpu->close(host);
    }
    return rc;
}
