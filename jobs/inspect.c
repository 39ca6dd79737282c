#include "jobs/inspect.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "io/file/files.h"
#include "io/file/fingerprint.h"
#include "io/json/config.h"
#include "io/out/outputs.h"
#include "io/out/report.h"
#include "jobs/inspect_tensor.h"
#include "jobs/model_file.h"
#include "src/leaf/limits.h"
#include "src/quantizer.h"

static const p4_option options[] = {
    {"--json", NULL, NULL, "Print JSON instead of a table."},
    {"--diff", NULL, NULL, "Compare two results, A and B: codes, scales, preserved tensors, configurations."},
    {"--threads", NULL, "N", "Threads; default: one for each core."},
    {"--quiet", "-q", NULL, "Print no table: the status tells. Findings go to standard error."},
    {NULL},
};

static const p4_exit_status statuses[] = {
    {"0", "everything agrees; with --diff: codes, scales and preserved tensors are the same"},
    {"1", "system failure: memory, or standard output that cannot be written"},
    {"2", "bad input: the command line, or a file that is missing, damaged or not what its name says"},
    {"5", "the files can be read and do not agree; with --diff: the results differ"},
    {NULL},
};

const p4_program p4_inspect_program = {
    .name = "phase4_inspect",
    .usage = "[options] DIR|model.h5 | --diff A B",
    .purpose = "look into the results of phase4_mpi and verify them",
    .description =
        "Prints what a packed model holds: tensors, encodings, sizes, sparsity, scales, quality, origin.\n"
        "It reads every byte, and so compares every checksum of model.h5. It verifies that\n"
        "dequantized_fp16 beside the file holds codes times scales bit for bit, and that recorded\n"
        "statistics are those of the codes. It says which inputs of the run are there as the run read\n"
        "them. With --diff it says what differs between two results. DIR is the output directory of a\n"
        "run. The program is one process and needs no MPI.\n",
    .options = options,
    .statuses = statuses,
};

static int count_threads(int threads)
{
    return threads > 0 ? threads : (int)fmax(1, p4_cores_here());
}

/* One result that is open. */
typedef struct opened {
    p4_inspection *x;
    p4_artifact_reader *reader;
    p4_hf_model table; /* of model.h5: no weights */
    p4_hf_model fp16;  /* dequantized_fp16; no tensors: it is not there */
    p4_device *host;
    int threads;
} opened;

/* ---- what lies beside the file ---- */

/* `name` in the directory of model.h5; NULL: out of memory. The caller frees. */
static char *beside(const p4_inspection *x, const char *name)
{
    const char *slash = strrchr(x->path, '/');
    int folder = slash != NULL ? (int)(slash - x->path) + 1 : 0;
    return p4_format("%.*s%s", folder, x->path, name);
}

static p4_rc compare_inputs(p4_inspection *x)
{
    p4_rc rc = P4_OK;
    x->inputs = p4_alloc((size_t)x->metadata.input_count, sizeof *x->inputs);
    TRY(x->inputs != NULL ? P4_OK : P4_E_SYSTEM);
    for (int64_t i = 0; i < x->metadata.input_count; i++) {
        const p4_input_file *input = &x->metadata.inputs[i];
        char now[P4_FINGERPRINT_BYTES];
        if (!p4_file_exists(input->path)) {
            continue;
        }
        p4_rc read = p4_fingerprint_file(now, input->path);
        if (read ==
            P4_E_INPUT) { /* such as the file of another user: the result can be looked into without */
            x->inputs[i] = P4_INPUT_UNREADABLE;
            WARN("warning: %s", p4_last_error());
            p4_error_clear();
            continue;
        }
        TRY(read);
        x->inputs[i] = strcmp(now, input->fingerprint) == 0 ? P4_INPUT_SAME : P4_INPUT_CHANGED;
    }
done:
    return rc;
}

static p4_rc read_metadata(p4_inspection *x)
{
    p4_rc rc = P4_OK;
    char *path = beside(x, P4_METADATA_FILE), *folder = beside(x, ".");
    TRY(path != NULL && folder != NULL ? P4_OK : P4_E_SYSTEM);
    bool there;
    TRY(p4_file_find(&there, path));
    if (!there) {
        goto done;
    }
    TRY(p4_metadata_read(&x->metadata, folder));
    x->has_metadata = true;
    TRY(compare_inputs(x));
done:
    free(folder);
    free(path);
    return rc;
}

static p4_rc open_fp16(opened *o)
{
    p4_rc rc = P4_OK;
    p4_inspection *x = o->x;
    char *path = beside(x, "dequantized_fp16");
    TRY(path != NULL ? P4_OK : P4_E_SYSTEM);
    if (p4_directory_exists(path)) {
        snprintf(x->fp16_path, sizeof x->fp16_path, "%s", path);
        TRY(p4_hf_model_open(&o->fp16, path));
        if (o->fp16.model.params_count != o->table.model.params_count) {
            TRY(p4_finding_add(&x->findings, "%s: holds %lld tensors, model.h5 holds %lld", path,
                               (long long)o->fp16.model.params_count,
                               (long long)o->table.model.params_count));
        }
    }
done:
    free(path);
    return rc;
}

/* ---- the file ---- */

/* What the run measured on them, and the verdict that follows. */
static p4_rc read_sets(opened *o, const p4_config *config)
{
    p4_rc rc = P4_OK;
    p4_inspection *x = o->x;
    for (; x->set_count < config->eval_sets.count; x->set_count++) {
        p4_set_results *set = &x->sets[x->set_count];
        p4_set_results_init(set, config->eval_sets.names[x->set_count]);
        TRY(p4_model_file_evaluation(&set->pre, o->reader, set->name, "pre"));
        TRY(p4_model_file_evaluation(&set->post, o->reader, set->name, "post"));
        TRY(p4_model_file_evaluation(&set->final, o->reader, set->name, "final"));
        p4_quality_judge(&set->quality, &set->pre, &set->final, config->max_accuracy_drop);
    }
done:
    return rc;
}

static p4_rc read_head(opened *o)
{
    p4_rc rc = P4_OK;
    p4_inspection *x = o->x;
    p4_config *config = p4_alloc(1, sizeof *config);
    TRY(config != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(p4_artifact_reader_open(&o->reader, x->path));
    TRY(p4_file_bytes(&x->file_bytes, x->path));
    TRY(p4_model_file_config(config, o->reader, x->path));
    TRY(p4_model_file_table(&o->table, o->reader, x->path));
    TRY(p4_config_print(config, &x->config_json));
    snprintf(x->model_type, sizeof x->model_type, "%s", o->table.model.arch.family);
    x->quantizer = p4_quantizers[config->quantizer].name;
    x->packing = p4_packing_name(config->packing);
    TRY(p4_model_file_evaluation(&x->pre, o->reader, NULL, "pre"));
    TRY(p4_model_file_evaluation(&x->post, o->reader, NULL, "post"));
    TRY(p4_model_file_evaluation(&x->final, o->reader, NULL, "final"));
    TRY(read_sets(o, config));
done:
    free(config);
    return rc;
}

/* ---- tensors ---- */

/* The tensor of dequantized_fp16 that a tensor of the file must equal; NULL: none that it can be compared
 * with, which is a finding. */
static p4_rc find_fp16(const p4_weight **weight, opened *o, const p4_artifact_tensor *t)
{
    const p4_model *model = &o->fp16.model;
    *weight = NULL;
    for (int64_t i = 0; i < model->params_count; i++) {
        const p4_param *p = &model->params[i];
        const p4_weight *w = &model->weights[i];
        if (strcmp(p->name, t->name) != 0) {
            continue;
        }
        if (w->dtype != P4_F16 || w->rows != t->rows || w->cols != t->cols) {
            return p4_finding_add(&o->x->findings, "%s: %s is %s [%lld, %lld], expected F16 [%lld, %lld]",
                                  o->x->fp16_path, t->name, p4_dtype_name(w->dtype), (long long)w->rows,
                                  (long long)w->cols, (long long)t->rows, (long long)t->cols);
        }
        *weight = w;
        return P4_OK;
    }
    return model->params_count == 0
               ? P4_OK
               : p4_finding_add(&o->x->findings, "%s: has no %s", o->x->fp16_path, t->name);
}

static void take_scales(p4_tensor_inspection *n, const p4_tensor_block *b)
{
    int64_t count = p4_artifact_scales(b->tensor, b->rows);
    for (int64_t r = 0; r < count && n->scales_seen < n->scales; r++, n->scales_seen++) {
        double scale = (double)p4_f16_to_f32(b->scale[r]);
        n->scale_min = fmin(n->scale_min, scale);
        n->scale_max = fmax(n->scale_max, scale);
        n->scale_mean += scale / (double)n->scales;
    }
}

/* Recorded statistics must be those of the codes. */
static p4_rc check_recorded(opened *o, p4_tensor_inspection *n)
{
    p4_rc rc = P4_OK;
    char group[P4_TENSOR_NAME_BYTES + 16];
    const struct {
        const char *key;
        double value;
    } counted[] = {{"sparsity", (double)n->zeros / (double)(n->rows * n->cols)},
                   {"scale_min", n->scale_min},
                   {"scale_max", n->scale_max}};
    snprintf(group, sizeof group, "layers/%s", n->name);
    TRY(p4_artifact_read_number(o->reader, group, "relative_error", &n->relative_error));
    for (size_t i = 0; i < sizeof counted / sizeof counted[0]; i++) {
        double recorded;
        TRY(p4_artifact_read_number(o->reader, group, counted[i].key, &recorded));
        if (!isnan(recorded) && recorded != counted[i].value) {
            TRY(p4_finding_add(&o->x->findings, "%s: %s of %s is recorded as %.9g, its codes give %.9g",
                               o->x->path, counted[i].key, n->name, recorded, counted[i].value));
        }
    }
done:
    return rc;
}

static p4_rc report_count(opened *o, p4_tensor_inspection *n, const p4_tensor_count *count)
{
    p4_rc rc = P4_OK;
    if (count->nonfinite > 0) {
        TRY(p4_finding_add(&o->x->findings, "%s: %s holds %lld values that are NaN or infinite", o->x->path,
                           n->name, (long long)count->nonfinite));
    }
    if (count->differing > 0) {
        TRY(p4_finding_add(&o->x->findings,
                           "%s: %lld elements of %s are not those of model.h5; the first, [%lld, %lld], is "
                           "%.6g, expected %.6g",
                           o->x->fp16_path, (long long)count->differing, n->name, (long long)count->row,
                           (long long)count->col, (double)p4_f16_to_f32(count->found),
                           (double)p4_f16_to_f32(count->expected)));
    }
done:
    return rc;
}

static p4_rc inspect_tensor(opened *o, p4_tensor_inspection *n, const p4_artifact_tensor *t)
{
    p4_rc rc = P4_OK;
    p4_tensor_block block = {.block = 0};
    p4_tensor_count count = {.zeros = 0};
    const p4_weight *fp16;
    *n = (p4_tensor_inspection){.ternary = t->ternary,
                                .vector = t->vector,
                                .transposed = t->transposed,
                                .rows = t->rows,
                                .cols = t->cols,
                                .encoding = t->ternary ? p4_packing_name(t->encoding) : "fp16",
                                .scale_min = INFINITY,
                                .scale_max = -INFINITY,
                                .relative_error = NAN,
                                .differing = -1};
    snprintf(n->name, sizeof n->name, "%s", t->name);
    n->scales = t->ternary ? p4_artifact_scales(t, t->rows) : 0;
    n->bytes = t->rows * p4_artifact_row_bytes(t) + 2 * n->scales;
    TRY(find_fp16(&fp16, o, t));
    TRY(p4_tensor_block_open(&block, t));
    for (int64_t row = 0; row < t->rows; row += block.rows) {
        TRY(p4_tensor_block_read(&block, o->reader, o->host, row));
        TRY(p4_tensor_block_count(&count, &block, fp16, o->threads));
        if (t->ternary) {
            take_scales(n, &block);
        }
    }
    n->zeros = count.zeros, n->positive = count.positive, n->largest = count.largest;
    n->differing = fp16 != NULL ? count.differing : -1;
    TRY(report_count(o, n, &count));
    TRY(t->ternary ? check_recorded(o, n) : P4_OK);
done:
    p4_tensor_block_close(&block);
    return rc;
}

static p4_rc inspect_tensors(opened *o)
{
    p4_rc rc = P4_OK;
    p4_inspection *x = o->x;
    const p4_model *model = &o->table.model;
    p4_progress progress;
    x->tensors = p4_alloc((size_t)model->params_count, sizeof *x->tensors);
    TRY(x->tensors != NULL ? P4_OK : P4_E_SYSTEM);
    p4_progress_start(&progress, "inspect", "tensors", (double)model->params_count);
    for (; x->count < model->params_count; x->count++) {
        p4_tensor_inspection *n = &x->tensors[x->count];
        rc = inspect_tensor(o, n, p4_artifact_reader_find(o->reader, model->params[x->count].name));
        if (rc != P4_OK) {
            break;
        }
        int64_t elements = n->rows * n->cols, scales = 2 * n->scales;
        x->parameters += elements;
        x->ternary_parameters += n->ternary ? elements : 0;
        x->layers_quantized += n->ternary;
        x->zeros += n->zeros;
        x->scale_bytes += scales;
        *(n->ternary ? &x->code_bytes : &x->preserved_bytes) += n->bytes - scales;
        if (x->count < o->fp16.model.params_count) {
            p4_hf_model_drop_pages(&o->fp16, x->count);
        }
        p4_progress_update(&progress, (double)x->count, n->name);
    }
    p4_progress_end(&progress);
done:
    return rc;
}

/* ---- the whole ---- */

/* What the metadata record must be what the tensors give. */
static p4_rc check_metadata(p4_inspection *x)
{
    p4_rc rc = P4_OK;
    const p4_size_metrics *m = &x->metadata.metrics;
    double bytes = (double)(x->code_bytes + x->scale_bytes + x->preserved_bytes);
    const struct {
        const char *key;
        double recorded, counted;
    } pairs[] = {
        {"total_params", (double)m->total_params, (double)x->parameters},
        {"layers_quantized", (double)m->layers_quantized, (double)x->layers_quantized},
        {"layers_preserved", (double)m->layers_preserved, (double)(x->count - x->layers_quantized)},
        {"compressed_size_mb", m->compressed_size_mb, bytes / 1048576.0},
        {"sparsity_ratio", m->sparsity_ratio,
         x->ternary_parameters > 0 ? (double)x->zeros / (double)x->ternary_parameters : 0.0},
    };
    for (size_t i = 0; x->has_metadata && i < sizeof pairs / sizeof pairs[0]; i++) {
        double bound = 1e-9 * fabs(pairs[i].counted);
        if (!isnan(pairs[i].recorded) && fabs(pairs[i].recorded - pairs[i].counted) > bound) {
            TRY(p4_finding_add(&x->findings, P4_METADATA_FILE ": %s is recorded as %.9g, model.h5 gives %.9g",
                               pairs[i].key, pairs[i].recorded, pairs[i].counted));
        }
    }
done:
    return rc;
}

static void close_result(opened *o)
{
    if (o->host != NULL) {
        p4_ops_find("cpu")->close(o->host);
    }
    p4_hf_model_close(&o->fp16);
    p4_hf_model_close(&o->table);
    p4_artifact_reader_close(o->reader);
}

p4_rc p4_inspect(p4_inspection *x, const char *path, int threads)
{
    p4_rc rc = P4_OK;
    opened o = {.x = x, .threads = count_threads(threads)};
    *x = (p4_inspection){.count = 0};
    TRY(p4_model_file_find(x->path, path));
    TRY(read_head(&o));
    TRY(read_metadata(x));
    TRY(open_fp16(&o));
    TRY(p4_ops_find("cpu")->open(&o.host, 0, o.threads, false));
    TRY(inspect_tensors(&o));
    TRY(check_metadata(x));
done:
    close_result(&o);
    return rc;
}
