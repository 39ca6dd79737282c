/* mlx.c - a Hugging Face directory with the affine 2-bit quantization of MLX: for mlx-lm on Apple silicon. */
#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "io/export/mlx_positions.h"
#include "io/export/packed_directory.h"
#include "io/export/writers.h"

/* Elements of a packed word: a row must fill words, and a group at least two. */
enum { PACKED = 1, SCALES, BIASES, LEAST_GROUP = 32, MOST_GROUP = 128 };

/* A tied head is the embedding, which MLX can hold in this form as well. */
static bool is_taken(const p4_param *p, int64_t group)
{
    return p->ternary && !p->vector && p4_export_run(p->scale_group, p->cols) % group == 0;
}

/* The largest group that divides the rows of all matrices, so that the scales are repeated least often; 32
 * where none does: what it does not divide is written as fp16. */
static int64_t group_of(const p4_model *model)
{
    int64_t group = MOST_GROUP;
    for (int64_t i = 0; i < model->params_count; i++) {
        while (group > LEAST_GROUP && model->params[i].ternary && !is_taken(&model->params[i], group)) {
            group /= 2;
        }
    }
    return group;
}

/* What mlx-lm's classes of mixtures of experts compute otherwise. */
static p4_rc check_mixture(const p4_arch *a)
{
    static const char writer[] = "exports: mlx";
    p4_rc rc = P4_OK;
    bool qwen = strcmp(a->family, "qwen3_moe") == 0, mixtral = strcmp(a->family, "mixtral") == 0,
         olmoe = strcmp(a->family, "olmoe") == 0;
    CHECK(qwen || mixtral || olmoe, "%s: model family %s is not written", writer, a->family);
    CHECK(!qwen || (!a->qkv_bias && !a->o_bias), "%s: mlx-lm's %s takes no biases of the attention", writer,
          a->family);
    CHECK(!mixtral || a->H * a->D == a->C,
          "%s: mlx-lm's mixtral has heads of hidden_size / heads = %lld elements, this model of %lld", writer,
          (long long)(a->C / a->H), (long long)a->D);
done:
    return rc;
}

/* Does mlx-lm's olmo3 compute these positions of layers without a window? It reads rope_scaling, but not
 * rope_parameters, and its yarn positions take no attention factor. */
static bool reads_positions(const p4_export_source *source)
{
    const p4_rope *r = &source->hf->model.arch.rope;
    cJSON *root = cJSON_Parse(source->hf->config_json);
    bool read = cJSON_IsObject(cJSON_GetObjectItemCaseSensitive(root, "rope_scaling")),
         usual = r->scaling == P4_ROPE_YARN && !r->no_truncation &&
                 fabs(r->attention_factor - (0.1 * log(r->factor) + 1)) < 1e-3;
    cJSON_Delete(root);
    return r->scaling == P4_ROPE_DEFAULT || (read && usual);
}

static p4_rc check_olmo3(const p4_export_source *source)
{
    static const char writer[] = "exports: mlx";
    const p4_arch *a = &source->hf->model.arch;
    p4_rc rc = P4_OK;
    CHECK(a->some_global,
          "%s: mlx-lm's olmo3 has layers with a window and without one, this model has one kind", writer);
    CHECK(a->windowed_rope.scaling == P4_ROPE_DEFAULT && a->windowed_rope.theta == a->rope.theta,
          "%s: mlx-lm's olmo3 has one theta, and does not scale rotary positions of layers with a window",
          writer);
    CHECK(reads_positions(source),
          "%s: mlx-lm's olmo3 scales rotary positions as \"rope_scaling\" of config.json says, by \"yarn\" "
          "with the usual attention factor, this model otherwise",
          writer);
done:
    return rc;
}

static p4_rc check_plain_heads(const p4_arch *a, const char *writer)
{
    p4_rc rc = P4_OK;
    CHECK(a->rope.scaling == P4_ROPE_DEFAULT, "%s: mlx-lm's %s does not scale rotary positions", writer,
          a->family);
    CHECK(a->H * a->D == a->C,
          "%s: mlx-lm's %s has heads of hidden_size / heads = %lld elements, this model of %lld", writer,
          a->family, (long long)(a->C / a->H), (long long)a->D);
done:
    return rc;
}

/* mlx-lm's phi reads the rotated part of a head from config.json itself, and takes 0.4 where it is not there.
 */
static p4_rc check_phi(const p4_export_source *source)
{
    static const char writer[] = "exports: mlx";
    const p4_arch *a = &source->hf->model.arch;
    p4_rc rc = P4_OK;
    cJSON *root = cJSON_Parse(source->hf->config_json);
    const cJSON *factor = cJSON_GetObjectItemCaseSensitive(root, "partial_rotary_factor");
    bool read = cJSON_IsNumber(factor),
         same = read && (int64_t)((double)a->D * factor->valuedouble) == p4_arch_rope_dim(a);
    cJSON_Delete(root);
    CHECK(read,
          "%s: mlx-lm's phi reads \"partial_rotary_factor\", which config.json of this model does not have",
          writer);
    CHECK(
        same,
        "%s: mlx-lm's phi rotates as \"partial_rotary_factor\" of config.json says, this model %lld elements",
        writer, (long long)p4_arch_rope_dim(a));
    CHECK(a->activation == P4_GELU_TANH, "%s: mlx-lm's phi has GELU (tanh), this model another activation",
          writer);
    TRY(check_plain_heads(a, writer));
    CHECK(!a->tied, "%s: mlx-lm's phi has a head of its own, this model takes the embedding", writer);
done:
    return rc;
}

static p4_rc check_cohere(const p4_export_source *source)
{
    static const char writer[] = "exports: mlx";
    const p4_arch *a = &source->hf->model.arch;
    p4_rc rc = P4_OK;
    CHECK(a->tied, "%s: mlx-lm's cohere takes the embedding as its head, this model has one", writer);
    TRY(check_plain_heads(a, writer));
done:
    return rc;
}

/* Classes of mlx-lm with conditions of their own; mlx_positions.c has the others, which differ in rotary
 * positions and windows alone. */
static const struct {
    const char *family;
    p4_rc (*check)(const p4_export_source *source);
} class_checks[] = {{"olmo3", check_olmo3}, {"phi", check_phi}, {"cohere", check_cohere}};

static p4_rc check_class(const p4_export_source *source)
{
    for (size_t i = 0; i < sizeof class_checks / sizeof class_checks[0]; i++) {
        if (strcmp(class_checks[i].family, source->hf->model.arch.family) == 0) {
            return class_checks[i].check(source);
        }
    }
    return p4_mlx_check_positions(source, "exports: mlx");
}

static p4_rc check(const p4_export_source *source)
{
    p4_rc rc = P4_OK;
    const p4_arch *arch = &source->hf->model.arch;
    TRY(p4_packed_check_linear(source, "exports: mlx", true));
    TRY(arch->experts > 0 ? check_mixture(arch) : P4_OK);
    TRY(check_class(source));
done:
    return rc;
}

/* The tensor's name, and its first dimension if it holds the matrices of all experts, which mlx-lm keeps in
 * one module. Other dimensions follow. */
static void begin(p4_packed_tensor *t, const p4_model *model, const char *suffix)
{
    const p4_param *p = &model->params[t->param];
    if (p->expert < 0) {
        p4_packed_name(t->name, p, suffix);
        t->rows = p->rows;
        return;
    }
    const char *experts = strstr(p->name, ".experts."), *module = p->role == P4_ROLE_DOWN ? "down_proj"
                                                                  : p->input_offset == 0  ? "gate_proj"
                                                                                          : "up_proj";
    snprintf(t->name, sizeof t->name, "%.*s.switch_mlp.%s%s", (int)(experts - p->name), p->name, module,
             suffix);
    t->stacked = model->arch.experts;
    t->step = p4_model_readers(model, t->param - (p->input_offset > 0));
    t->shape[t->rank++] = t->stacked;
    t->rows = t->stacked * p->rows;
}

static void append_packed(p4_packed_directory *d, int64_t param)
{
    const p4_model *model = &d->source->hf->model;
    const p4_param *p = &model->params[param];
    static const char *const suffixes[] = {".weight", ".scales", ".biases"};
    for (int kind = PACKED; kind <= BIASES; kind++) {
        p4_packed_tensor *t = p4_packed_append(d, param, kind, kind == PACKED ? "U32" : NULL);
        int64_t units = kind == PACKED ? p->cols / 16 : p->cols / d->number;
        begin(t, model, suffixes[kind - PACKED]);
        t->by_rows = kind == PACKED;
        t->shape[t->rank++] = p->rows;
        t->shape[t->rank++] = units;
        t->row_bytes = units * (kind == PACKED ? 4 : 2);
    }
}

/* In fp16: not all of the experts' matrices can be packed. */
static void append_experts(p4_packed_directory *d, int64_t param)
{
    const p4_model *model = &d->source->hf->model;
    p4_packed_tensor *t = p4_packed_append(d, param, 0, NULL);
    begin(t, model, ".weight");
    t->shape[t->rank++] = model->params[param].rows;
    t->shape[t->rank++] = model->params[param].cols;
    t->row_bytes = 2 * model->params[param].cols;
}

/* Are this expert's matrix and those of all others in its tensor taken? */
static bool all_taken(const p4_model *model, int64_t param, int64_t group)
{
    const p4_param *p = &model->params[param];
    int64_t step = p->expert < 0 ? 0 : p4_model_readers(model, param - (p->input_offset > 0));
    bool taken = is_taken(p, group);
    for (int64_t e = 1; p->expert >= 0 && e < model->arch.experts; e++) {
        taken = taken && is_taken(&model->params[param + e * step], group);
    }
    return taken;
}

/* value = q * scale + bias with q = t + 1: the bias is the scale's negative. */
static void fill_scales(const p4_export_source *source, const p4_packed_tensor *t, uint8_t *to, int64_t first,
                        int64_t rows)
{
    for (int64_t r = 0; r < rows; r++) {
        int64_t row = first + r, groups = t->row_bytes / 2;
        const p4_weight *w = p4_packed_row_of(source, t, &row);
        for (int64_t g = 0; g < groups; g++) {
            uint16_t bits = p4_export_scale(w, row, g * (w->cols / groups));
            bits = (uint16_t)(bits ^ (t->kind == BIASES ? 0x8000u : 0u));
            memcpy(to + r * t->row_bytes + 2 * g, &bits, sizeof bits);
        }
    }
}

static p4_rc fill(const p4_export_source *source, p4_export_space *spaces, const p4_packed_tensor *t,
                  uint8_t *to, int64_t first, int64_t rows)
{
    p4_rc rc = P4_OK;
    p4_weight view;
    if (t->kind != PACKED) {
        fill_scales(source, t, to, first, rows);
        return P4_OK;
    }
    for (int64_t done = 0; done < rows; done += view.rows, to += view.rows * t->row_bytes) {
        TRY(p4_packed_view(source, spaces, &view, t, first + done, rows - done));
        memcpy(to, view.data, (size_t)(view.rows * t->row_bytes)); /* phase4's own codes */
    }
done:
    return rc;
}

static p4_rc list_tensors(p4_packed_directory *d, const p4_export_source *source)
{
    const p4_model *model = &source->hf->model;
    *d = (p4_packed_directory){.source = source, .fill = fill, .number = group_of(model)};
    d->tensors = p4_alloc(3 * (size_t)model->params_count, sizeof *d->tensors);
    if (d->tensors == NULL) {
        return P4_E_SYSTEM;
    }
    for (int64_t i = 0; i < model->params_count; i++) {
        int64_t expert = model->params[i].expert;
        if (expert > 0) { /* the first one's tensor holds all */
            continue;
        }
        if (all_taken(model, i, d->number)) {
            append_packed(d, i);
        } else if (expert == 0) {
            append_experts(d, i);
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
    const p4_arch *arch = &source->hf->model.arch;
    bool one = !arch->local_rope || arch->windowed_rope.theta == arch->rope.theta;
    double theta = arch->learned_positions || !one ? 0 : arch->rope.theta; /* it reads no other key */
    char *quantization = p4_format("{\"group_size\": %lld, \"bits\": 2}", (long long)d.number);
    d.config_json = p4_packed_config(source, "quantization", quantization, theta);
    TRY(d.config_json != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(p4_packed_directory_write(&d, path));
done:
    p4_packed_directory_free(&d);
    return rc;
}

static p4_rc describe(const p4_export_source *source, char text[P4_WRITER_TEXT_BYTES])
{
    snprintf(text, P4_WRITER_TEXT_BYTES, "safetensors, MLX: 2 bits, groups of %lld",
             (long long)group_of(&source->hf->model));
    return P4_OK;
}

const p4_writer p4_writer_mlx = {"mlx", "mlx", check, NULL, describe, plan, write_directory};
