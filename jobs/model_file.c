#include "jobs/model_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "io/file/files.h"
#include "io/gguf/gguf_view.h"
#include "io/json/config.h"
#include "io/json/evaluation.h"
#include "io/out/directory.h"
#include "jobs/model_rows.h"
#include "src/families.h"
#include "src/leaf/parallel.h"

enum {
    BLOCK_BYTES = 1 << 20, /* packed at a time */
    THREADS_MAX = 8,       /* they read faster than memory is filled */
};

p4_rc p4_model_file_find(char file[P4_PATH_BYTES], const char *path)
{
    p4_rc rc = P4_OK;
    bool directory = p4_directory_exists(path);
    int length = snprintf(file, P4_PATH_BYTES, "%s%s", path, directory ? "/model.h5" : "");
    CHECK(length < P4_PATH_BYTES, "the path \"%.60s...\" has more than %d bytes", path, P4_PATH_BYTES - 1);
    bool there;
    struct stat status;
    TRY(p4_file_find(&there, file));
    TRY(directory && !there ? p4_output_check_ended(path) : P4_OK);
    CHECK(there || !directory,
          "%s: is not there: %s is not the output directory of a run that wrote a packed model", file, path);
    CHECK(there, "%s: %s; expected the output directory of a run, or its model.h5", file,
          lstat(file, &status) != 0 ? "is not there" : "is neither a directory nor a file");
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
    rc = rc == P4_OK ? match_tensors(hf, reader) : rc;
    return p4_artifact_damaged(rc, path);
}

/* Rows of a parameter, in whole chunks of the file. */
typedef struct piece {
    int64_t param, first, rows;
    int64_t zeros; /* of its codes, as p4_packed_sparsity wants to know */
} piece;

typedef struct reading {
    p4_packed *packed;
    p4_artifact_reader *reader;
    const p4_model *model;
    piece *pieces;
    p4_export_space *spaces; /* of each worker */
} reading;

static p4_rc read_piece(void *user, int64_t item, int worker)
{
    p4_rc rc = P4_OK;
    const reading *r = user;
    piece *at = &r->pieces[item];
    const p4_artifact_tensor *t = p4_artifact_reader_find(r->reader, r->model->params[at->param].name);
    int64_t row_bytes = t->ternary ? p4_code_row_bytes(t->cols) : p4_artifact_row_bytes(t);
    uint8_t *to = (t->ternary ? p4_packed_codes(r->packed, at->param)
                              : (uint8_t *)p4_packed_half(r->packed, at->param)) +
                  at->first * row_bytes;
    const void *rows;
    TRY(p4_model_rows_read(r->reader, t, &r->spaces[worker], to, &rows, at->first, at->rows));
    for (int64_t i = 0; t->ternary && i < at->rows; i++) {
        at->zeros += p4_codes_count_zeros(to + i * row_bytes, t->cols);
    }
done:
    return rc;
}

/* Lists the pieces, and reads the scales; pieces NULL: counts only. */
static p4_rc cut(const reading *r, piece *pieces, int64_t *count, p4_packing *packing)
{
    p4_rc rc = P4_OK;
    *count = 0;
    for (int64_t i = 0; i < r->model->params_count; i++) {
        const p4_artifact_tensor *t = p4_artifact_reader_find(r->reader, r->model->params[i].name);
        int64_t chunk;
        TRY(p4_artifact_chunk_rows(r->reader, t, &chunk));
        int64_t wanted = p4_max_i64(1, BLOCK_BYTES / p4_artifact_row_bytes(t));
        int64_t step = chunk > 0 ? p4_max_i64(1, wanted / chunk) * chunk : wanted;
        for (int64_t row = 0; row < t->rows; row += step, (*count)++) {
            if (pieces != NULL) {
                pieces[*count] = (piece){.param = i, .first = row, .rows = p4_min_i64(step, t->rows - row)};
            }
        }
        if (t->ternary && pieces != NULL) {
            TRY(p4_artifact_read_scales(r->reader, t, p4_packed_scale(r->packed, i)));
            *packing = t->encoding;
        }
    }
done:
    return rc;
}

p4_rc p4_model_file_read(p4_packed *packed, p4_packing *packing, p4_artifact_reader *reader,
                         const p4_model *model, int threads)
{
    p4_rc rc = P4_OK;
    int64_t count = 0;
    reading r = {.packed = packed, .reader = reader, .model = model};
    int workers = (int)p4_max_i64(1, p4_min_i64(threads, THREADS_MAX));
    TRY(p4_packed_alloc(packed, model));
    TRY(cut(&r, NULL, &count, packing));
    r.pieces = p4_alloc((size_t)count, sizeof *r.pieces);
    r.spaces = p4_alloc((size_t)workers, sizeof *r.spaces);
    TRY(r.pieces != NULL && r.spaces != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(cut(&r, r.pieces, &count, packing));
    TRY(p4_parallel(workers, count, read_piece, NULL, &r));
    for (int64_t i = 0; i < count; i++) {
        packed->errors[r.pieces[i].param].zeros += r.pieces[i].zeros;
    }
    packed->is_compressed = true;
done:
    for (int i = 0; r.spaces != NULL && i < workers; i++) {
        p4_export_space_free(&r.spaces[i]);
    }
    free(r.spaces);
    free(r.pieces);
    return rc;
}
