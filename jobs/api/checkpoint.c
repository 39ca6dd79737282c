/* A model directory on the disk, and what can be said of it without running it. */
#include <stdio.h>
#include <stdlib.h>

#include "jobs/api/api.h"

p4_rc p4_checkpoint_open(p4_checkpoint **checkpoint, const char *path)
{
    p4_error_clear();
    *checkpoint = p4_alloc(1, sizeof **checkpoint);
    if (*checkpoint == NULL) {
        return P4_E_SYSTEM;
    }
    p4_rc rc = p4_hf_model_open(&(*checkpoint)->hf, path);
    if (rc != P4_OK) {
        free(*checkpoint);
        *checkpoint = NULL;
    }
    return rc;
}

void p4_checkpoint_close(p4_checkpoint *checkpoint)
{
    if (checkpoint != NULL) {
        p4_hf_model_close(&checkpoint->hf);
        free(checkpoint);
    }
}

p4_rc p4_checkpoint_reopen(p4_original *original, const p4_checkpoint *checkpoint, p4_config *config,
                           int ranks)
{
    p4_rc rc = P4_OK;
    CHECK(config->init == P4_INIT_CHECKPOINT,
          "key \"init\": found \"random\", but a checkpoint is given; random weights are for p4_execute");
    int length = snprintf(config->model_path, sizeof config->model_path, "%s", checkpoint->hf.path);
    CHECK(length < P4_PATH_BYTES, "%s: a path may have %d bytes", checkpoint->hf.path, P4_PATH_BYTES - 1);
    TRY(p4_settings_open_original(original, config, ranks));
done:
    return rc;
}

void p4_count_parameters(const p4_checkpoint *checkpoint, p4_parameter_counts *counts)
{
    int64_t total = p4_model_count_elements(&checkpoint->hf.model);
    *counts = (p4_parameter_counts){.total = total, .trainable = total, .frozen = 0};
}

double p4_model_size_mb(const p4_checkpoint *checkpoint)
{
    return 4.0 * (double)p4_model_count_elements(&checkpoint->hf.model) / 1048576.0;
}

/* Zeros of either sign; the layout does not matter. */
static int64_t count_zeros(const p4_weight *weight)
{
    enum { PIECE = 4096 };
    float piece[PIECE];
    int64_t zeros = 0, count = weight->rows * weight->cols, each = p4_dtype_bytes(weight->dtype);
    for (int64_t first = 0; first < count; first += PIECE) {
        int64_t taken = p4_min_i64(PIECE, count - first);
        p4_to_f32(piece, (const char *)weight->data + first * each, weight->dtype, taken);
        for (int64_t i = 0; i < taken; i++) {
            zeros += piece[i] == 0.0f;
        }
    }
    return zeros;
}

double p4_sparsity_ratio(const p4_checkpoint *checkpoint)
{
    const p4_model *model = &checkpoint->hf.model;
    int64_t zeros = 0;
    for (int64_t i = 0; i < model->params_count; i++) {
        zeros += count_zeros(&model->weights[i]);
        p4_hf_model_drop_pages(&checkpoint->hf, i);
    }
    return (double)zeros / (double)p4_model_count_elements(model);
}
