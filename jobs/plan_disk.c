/* plan_disk.c - what a run puts on the disk of output_path. */
#include "io/file/files.h"
#include "jobs/exports.h"
#include "jobs/plan.h"
#include "jobs/text_files.h"

#include <stdlib.h>
#include <sys/stat.h>

/* Bytes of a file; 0: there is none. */
static double file_bytes(const char *directory, const char *name)
{
    struct stat file;
    char *path = p4_format("%s/%s", directory, name);
    bool found = path != NULL && stat(path, &file) == 0;
    free(path);
    return found ? (double)file.st_size : 0;
}

/* They are written beside those of an older run. */
static double output_bytes(const p4_plan_input *in, double copied_bytes)
{
    enum {
        HDF5_BYTES = 3 << 10,  /* what HDF5 adds to a tensor */
        DETAIL_BYTES = 1 << 9, /* a tensor in details.json and report.html */
        SMALL_BYTES = 96 << 10 /* the other JSON files, and what every report has */
    };
    const p4_config *c = in->config;
    const p4_model *model = &in->original->hf.model;
    double packed = file_bytes(in->original->hf.path, "tokenizer.json"), halves = copied_bytes;
    for (int64_t i = 0; i < model->params_count; i++) {
        const p4_param *p = &model->params[i];
        int64_t trits = c->packing == P4_PACKING_2BIT ? 4 : 5;
        double count = (double)p->rows * (double)p->cols, statistics = 4.0 * (double)p->cols;
        packed += HDF5_BYTES + (p->ternary ? (double)p->rows * (double)p4_ceil_div(p->cols, trits) +
                                                 2 * (double)p4_param_scale_count(p) + statistics
                                           : 2 * count);
        halves += 2 * count;
    }
    return SMALL_BYTES + DETAIL_BYTES * (double)model->params_count + (c->save_quantized ? packed : 0) +
           (c->save_dequantized_fp16 ? halves : 0) + p4_exports_bytes(c, &in->original->hf, copied_bytes);
}

/* Masters with optimizer state, of all ranks. */
static double training_bytes(const p4_plan_input *in)
{
    const p4_model *model = &in->original->hf.model;
    p4_train_plan plan = p4_settings_train(in->config, in->config->calibration_sequence_length, NULL);
    const p4_optim_settings *o = &plan.optim;
    double state = o->half_state ? 2 : 4, bytes = 0;
    for (int64_t i = 0; i < model->params_count; i++) {
        const p4_param *p = &model->params[i];
        int moments = o->muon && p4_role_is_matrix(p->role) ? 1 : 2;
        bytes += (4 + state * (moments + (o->grokfast ? 1 : 0))) * (double)(p->rows * p->cols);
        bytes += in->config->learn_scales && p->ternary ? 12.0 * (double)p4_param_scale_count(p) : 0;
    }
    return bytes;
}

/* Masters alone, as reconstruction leaves them. */
static double masters_bytes(const p4_plan_input *in)
{
    const p4_model *model = &in->original->hf.model;
    double bytes = 0;
    for (int64_t i = 0; i < model->params_count; i++) {
        bytes +=
            model->params[i].layer >= 0 ? 4.0 * (double)(model->params[i].rows * model->params[i].cols) : 0;
    }
    return bytes;
}

p4_disk_plan p4_plan_disk(const p4_plan_input *in, double copied_bytes, double teacher_file_bytes)
{
    enum { KEPT = 3 }; /* two, and one that is being written */
    const p4_config *c = in->config;
    const p4_model *model = &in->original->hf.model;
    bool tunes = c->enable_fine_tuning, saves = c->checkpoint_minutes > 0 || c->checkpoint_every > 0;
    bool hands_on = p4_settings_reconstruct_windows(c, c->calibration_sequence_length) > 0;
    double state = tunes ? training_bytes(in) : hands_on ? masters_bytes(in) : 0;
    double id_bytes = model->arch.V > 65536 ? 4 : 2;
    p4_disk_plan disk = {.outputs = output_bytes(in, copied_bytes), .kept = saves ? KEPT : 0};
    disk.checkpoint = (double)p4_packed_bytes(model) + (double)p4_statistics_bytes(model) + state;
    if (p4_trains_on_files(c) && c->token_cache[0] == '\0') { /* of text; token files are read in place */
        double tokens = (double)in->windows.tokenized * (double)c->calibration_sequence_length;
        disk.scratch += in->windows.text_bytes > 0 ? id_bytes * tokens : 0;
    }
    disk.scratch += teacher_file_bytes;
    return disk;
}
