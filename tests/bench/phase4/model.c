/* model.c - architectures by name, and models with random weights that cost no disk and hardly any memory. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "io/file/files.h"
#include "src/leaf/rng.h"

enum {
    CONFIG_LIMIT_BYTES = 1 << 20,
    TABLE_COUNT = 1 << 16,
    SHIFT = 4099 /* elements between two tensors' first */
};

/* config.json of a directory, or models/NAME.json beside this program's source. The caller frees. */
static char *config_path(const char *model)
{
    char *path = p4_format("%s/config.json", model);
    if (path != NULL && !p4_file_exists(path) && strchr(model, '/') == NULL) {
        free(path);
        path = p4_format("%s/%s.json", P4_BENCH_MODELS, model);
    }
    return path;
}

p4_rc bench_arch_read(p4_arch *arch, char **config_json, const char *model)
{
    p4_rc rc = P4_OK;
    char *path = config_path(model), *text = NULL;
    size_t bytes;
    if (path == NULL) {
        return P4_E_SYSTEM;
    }
    CHECK(p4_file_exists(path), "--model %s: neither a directory with config.json nor a name in %s", model,
          P4_BENCH_MODELS);
    TRY(p4_file_read(&text, &bytes, path, CONFIG_LIMIT_BYTES));
    TRY(p4_hf_config_parse(arch, text, bytes, path));
    if (config_json != NULL) {
        *config_json = text;
        text = NULL;
    }
done:
    free(text);
    free(path);
    return rc;
}

bool bench_model_has_weights(const char *model)
{
    static const char *const files[] = {"model.safetensors", "model.safetensors.index.json"};
    bool found = false;
    for (int i = 0; i < 2; i++) {
        char *path = p4_format("%s/%s", model, files[i]);
        found = found || (path != NULL && p4_file_exists(path));
        free(path);
    }
    return found;
}

/* Normal bf16 numbers of deviation 0.02: a table that is drawn, walked through in another order piece by
 * piece. */
static p4_rc fill_random(uint16_t *to, int64_t count)
{
    p4_rng rng = {.seed = 7, .stream = 7};
    uint16_t *table = p4_alloc(TABLE_COUNT, sizeof *table);
    if (table == NULL) {
        return P4_E_SYSTEM;
    }
    for (int i = 0; i < TABLE_COUNT; i++) {
        table[i] = p4_f32_to_bf16((float)(0.02 * p4_rng_normal(&rng)));
    }
    for (int64_t piece = 0; piece * TABLE_COUNT < count; piece++) {
        uint32_t random[4];
        p4_philox(random, 11, 1, (uint64_t)piece);
        int64_t end = p4_min_i64(TABLE_COUNT, count - piece * TABLE_COUNT);
        for (int64_t i = 0; i < end; i++) {
            to[piece * TABLE_COUNT + i] = table[((uint32_t)i * (random[1] | 1u) + random[0]) % TABLE_COUNT];
        }
    }
    free(table);
    return P4_OK;
}

/* *weights: `widest` ones, `widest` zeros, then bf16. */
static p4_rc fill_views(p4_model *model, float **weights)
{
    p4_rc rc = P4_OK;
    int64_t widest = 0, largest = 0;
    for (int64_t i = 0; i < model->params_count; i++) {
        const p4_param *p = &model->params[i];
        int64_t *most = p->vector ? &widest : &largest;
        *most = p4_max_i64(*most, p->rows * p->cols);
    }
    int64_t halves = largest + model->params_count * SHIFT;
    *weights = p4_alloc((size_t)(2 * widest + p4_ceil_div(halves, 2)), sizeof **weights);
    TRY(*weights != NULL ? P4_OK : P4_E_SYSTEM);
    uint16_t *random = (uint16_t *)(void *)(*weights + 2 * widest);
    TRY(fill_random(random, halves));
    for (int64_t i = 0; i < widest; i++) {
        (*weights)[i] = 1.0f;
    }
    for (int64_t i = 0; i < model->params_count; i++) {
        const p4_param *p = &model->params[i];
        model->weights[i] =
            (p4_weight){.dtype = p->vector ? P4_F32 : P4_BF16, .rows = p->rows, .cols = p->cols};
        model->weights[i].data = !p->vector                               ? (const void *)(random + i * SHIFT)
                                 : p4_roles[p->role].kind == P4_KIND_GAIN ? (const void *)*weights
                                                                          : (const void *)(*weights + widest);
    }
done:
    return rc;
}

p4_rc bench_model_open(p4_hf_model *hf, float **weights, const char *model)
{
    p4_rc rc = P4_OK;
    p4_arch arch;
    *hf = (p4_hf_model){0};
    *weights = NULL;
    TRY(bench_arch_read(&arch, &hf->config_json, model));
    TRY((hf->path = p4_strdup(model)) != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(p4_model_init(&hf->model, &arch, ""));
    TRY(fill_views(&hf->model, weights));
    hf->stored_bytes = 2.0 * (double)p4_model_count_elements(&hf->model);
    snprintf(hf->stored_dtype, sizeof hf->stored_dtype, "BF16");
done:
    if (rc != P4_OK) {
        p4_hf_model_close(hf);
        free(*weights);
        *weights = NULL;
    }
    return rc;
}

double bench_train_flop(const p4_model *model, int64_t T)
{
    const p4_arch *a = &model->arch;
    double weights = (double)a->V * (double)a->C; /* the head; the embedding is looked up */
    for (int64_t i = 0; i < model->params_count; i++) {
        const p4_param *p = &model->params[i];
        double part = p->expert >= 0 ? (double)a->experts_used / (double)a->experts : 1.0; /* of the tokens */
        weights += p4_role_is_matrix(p->role) ? part * (double)p->rows * (double)p->cols : 0.0;
    }
    return 6.0 * weights + 6.0 * (double)a->L * (double)T * (double)(a->H * a->D);
}

static double newton_schulz_flop(double rows, double cols)
{
    double m = rows < cols ? rows : cols, n = rows < cols ? cols : rows;
    return 5.0 * (4.0 * m * m * n + 2.0 * m * m * m);
}

double bench_muon_flop(const p4_model *model, const bool *held)
{
    double flop = 0.0;
    for (int64_t i = 0; i < model->params_count; i++) {
        const p4_param *p = &model->params[i];
        if (!held[i] || !p4_role_is_matrix(p->role)) {
            continue;
        }
        for (int64_t m = 0, rows; (rows = p4_model_matrix_rows(model, i, m)) > 0; m++) {
            flop += newton_schulz_flop((double)rows, (double)p->cols);
        }
    }
    return flop;
}
