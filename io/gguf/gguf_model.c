#include "io/gguf/gguf_model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/gguf/gguf_blocks.h"
#include "io/json/write.h"

enum { KEY_BYTES = 96 };

/* --- config.json ------------------------------------------------------------------------------- */

typedef struct describing {
    const p4_gguf_view *file;
    char arch[32];
    cJSON *root;
} describing;

/* Puts the number of the key "<arch><name>"; false in *found where the file does not have it. */
static p4_rc put_number(describing *d, const char *name, const char *key, bool *found)
{
    p4_rc rc = P4_OK;
    char full[KEY_BYTES];
    double value = 0;
    snprintf(full, sizeof full, "%s%s", d->arch, name);
    TRY(p4_gguf_view_number(d->file, full, &value, found));
    if (found == NULL || *found) {
        TRY(cJSON_AddNumberToObject(d->root, key, value) != NULL ? P4_OK : P4_E_SYSTEM);
    }
done:
    return rc;
}

/* linear and yarn; any other is refused. */
static p4_rc put_scaling(describing *d)
{
    p4_rc rc = P4_OK;
    char key[KEY_BYTES], type[32];
    p4_gguf_text text;
    double factor = 1, original = 0;
    bool found, has_original;
    snprintf(key, sizeof key, "%s.rope.scaling.type", d->arch);
    TRY(p4_gguf_view_string(d->file, key, &text, &found));
    snprintf(type, sizeof type, "%.*s", (int)p4_min_i64((int64_t)text.bytes, 31), text.data);
    if (!found || strcmp(type, "none") == 0) {
        return P4_OK;
    }
    CHECK(strcmp(type, "linear") == 0 || strcmp(type, "yarn") == 0,
          "%s: key %s is \"%s\", expected linear or yarn", d->file->path, key, type);
    snprintf(key, sizeof key, "%s.rope.scaling.factor", d->arch);
    TRY(p4_gguf_view_number(d->file, key, &factor, NULL));
    snprintf(key, sizeof key, "%s.rope.scaling.original_context_length", d->arch);
    TRY(p4_gguf_view_number(d->file, key, &original, &has_original));
    cJSON *scaling = cJSON_AddObjectToObject(d->root, "rope_scaling");
    bool ok = scaling != NULL && cJSON_AddStringToObject(scaling, "rope_type", type) != NULL &&
              cJSON_AddNumberToObject(scaling, "factor", factor) != NULL &&
              (!has_original ||
               cJSON_AddNumberToObject(scaling, "original_max_position_embeddings", original) != NULL);
    rc = ok ? P4_OK : P4_E_SYSTEM;
done:
    return rc;
}

static bool has(const describing *d, const char *tensor)
{
    return p4_gguf_view_tensor(d->file, tensor) != NULL;
}

static p4_rc put_sizes(describing *d)
{
    static const struct {
        const char *name, *key;
        bool required;
    } keys[] = {
        {".embedding_length", "hidden_size", true},
        {".block_count", "num_hidden_layers", true},
        {".feed_forward_length", "intermediate_size", true},
        {".attention.head_count", "num_attention_heads", true},
        {".attention.head_count_kv", "num_key_value_heads", false},
        {".attention.key_length", "head_dim", false},
        {".context_length", "max_position_embeddings", true},
        {".attention.layer_norm_rms_epsilon", "rms_norm_eps", true},
        {".rope.freq_base", "rope_theta", false},
    };
    p4_rc rc = P4_OK;
    bool found;
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        TRY(put_number(d, keys[i].name, keys[i].key, keys[i].required ? NULL : &found));
        if (!keys[i].required && !found && strcmp(keys[i].key, "rope_theta") == 0) {
            TRY(cJSON_AddNumberToObject(d->root, "rope_theta", 10000) != NULL ? P4_OK : P4_E_SYSTEM);
        }
    }
done:
    return rc;
}

static p4_rc put_special(describing *d, const char *name, const char *key)
{
    p4_rc rc = P4_OK;
    double id = 0;
    bool found;
    TRY(p4_gguf_view_number(d->file, name, &id, &found));
    if (found) {
        TRY(cJSON_AddNumberToObject(d->root, key, id) != NULL ? P4_OK : P4_E_SYSTEM);
    }
done:
    return rc;
}

static p4_rc describe(describing *d)
{
    p4_rc rc = P4_OK;
    p4_gguf_text name;
    const p4_gguf_stored *embedding = p4_gguf_view_tensor(d->file, "token_embd.weight");
    TRY(p4_gguf_view_string(d->file, "general.architecture", &name, NULL));
    snprintf(d->arch, sizeof d->arch, "%.*s", (int)p4_min_i64((int64_t)name.bytes, 31), name.data);
    CHECK(strcmp(d->arch, "llama") == 0 || strcmp(d->arch, "qwen2") == 0 || strcmp(d->arch, "qwen3") == 0,
          "%s: general.architecture is \"%s\", expected llama, qwen2 or qwen3", d->file->path, d->arch);
    CHECK(embedding != NULL, "%s: has no tensor token_embd.weight", d->file->path);
    CHECK(!has(d, "blk.0.ffn_gate_exps.weight"), "%s: is a mixture of experts", d->file->path);
    d->root = cJSON_CreateObject();
    bool ok = d->root != NULL && cJSON_AddStringToObject(d->root, "model_type", d->arch) != NULL &&
              cJSON_AddNumberToObject(d->root, "vocab_size", (double)embedding->rows) != NULL &&
              cJSON_AddStringToObject(d->root, "hidden_act", "silu") != NULL &&
              cJSON_AddBoolToObject(d->root, "tie_word_embeddings", !has(d, "output.weight")) != NULL;
    if (ok && strcmp(d->arch, "qwen2") != 0) {
        ok = cJSON_AddBoolToObject(d->root, "attention_bias", has(d, "blk.0.attn_q.bias")) != NULL;
    }
    if (ok && strcmp(d->arch, "llama") == 0) {
        ok = cJSON_AddBoolToObject(d->root, "mlp_bias", has(d, "blk.0.ffn_up.bias")) != NULL;
    }
    TRY(ok ? P4_OK : P4_E_SYSTEM);
    TRY(put_sizes(d));
    TRY(put_scaling(d));
    TRY(put_special(d, "tokenizer.ggml.bos_token_id", "bos_token_id"));
    TRY(put_special(d, "tokenizer.ggml.eos_token_id", "eos_token_id"));
done:
    return rc;
}

/* Rotary positions turn whole heads. */
static p4_rc check_rotated(const p4_arch *arch, const describing *d)
{
    p4_rc rc = P4_OK;
    char key[KEY_BYTES];
    double rotated = 0;
    bool found;
    snprintf(key, sizeof key, "%s.rope.dimension_count", d->arch);
    TRY(p4_gguf_view_number(d->file, key, &rotated, &found));
    CHECK(!found || rotated == (double)p4_arch_rope_dim(arch), "%s: key %s is %g, expected %lld",
          d->file->path, key, rotated, (long long)p4_arch_rope_dim(arch));
done:
    return rc;
}

/* Llama 3's scaling, which the file holds as divisors of the frequencies. */
static p4_rc take_factors(p4_arch *arch, const p4_gguf_view *file)
{
    p4_rc rc = P4_OK;
    const p4_gguf_stored *t = p4_gguf_view_tensor(file, "rope_freqs.weight");
    if (t == NULL) {
        return P4_OK;
    }
    int64_t pairs = p4_arch_rope_dim(arch) / 2;
    CHECK(t->type == 0 && t->rows == 1 && t->cols == pairs && pairs <= P4_ROPE_PAIRS_MAX,
          "%s: rope_freqs.weight: expected F32 [%lld]", file->path, (long long)pairs);
    CHECK(arch->rope.scaling == P4_ROPE_DEFAULT,
          "%s: has both rope_freqs.weight and a scaling of rotary positions", file->path);
    arch->rope.scaling = P4_ROPE_LONGROPE;
    arch->rope.original_positions = (double)arch->positions;
    arch->rope.attention_factor = 1;
    memcpy(arch->rope.short_factors, t->data, (size_t)pairs * sizeof(float));
    memcpy(arch->rope.long_factors, t->data, (size_t)pairs * sizeof(float));
done:
    return rc;
}

/* --- tensors ----------------------------------------------------------------------------------- */

/* The file's name of an entry of the parameter table. */
static void stored_name(char name[KEY_BYTES], const p4_model *model, int64_t i)
{
    static const char *const names[P4_ROLE_COUNT][3] = {
        [P4_ROLE_EMBED] = {"token_embd.weight"},
        [P4_ROLE_NORM1_GAIN] = {"attn_norm.weight"},
        [P4_ROLE_NORM2_GAIN] = {"ffn_norm.weight"},
        [P4_ROLE_Q_GAIN] = {"attn_q_norm.weight"},
        [P4_ROLE_K_GAIN] = {"attn_k_norm.weight"},
        [P4_ROLE_QKV] = {"attn_q.weight", "attn_k.weight", "attn_v.weight"},
        [P4_ROLE_O] = {"attn_output.weight"},
        [P4_ROLE_UP] = {"ffn_gate.weight", "ffn_up.weight"},
        [P4_ROLE_DOWN] = {"ffn_down.weight"},
        [P4_ROLE_QKV_BIAS] = {"attn_q.bias", "attn_k.bias", "attn_v.bias"},
        [P4_ROLE_O_BIAS] = {"attn_output.bias"},
        [P4_ROLE_UP_BIAS] = {"ffn_gate.bias", "ffn_up.bias"},
        [P4_ROLE_DOWN_BIAS] = {"ffn_down.bias"},
        [P4_ROLE_FINAL_GAIN] = {"output_norm.weight"},
        [P4_ROLE_HEAD] = {"output.weight"},
    };
    const p4_param *p = &model->params[i];
    int64_t part = i - p4_model_find(model, p->role, p->layer);
    const char *found = part < 3 ? names[p->role][part] : NULL;
    if (p->layer >= 0) {
        snprintf(name, KEY_BYTES, "blk.%lld.%s", (long long)p->layer, found != NULL ? found : "?");
    } else {
        snprintf(name, KEY_BYTES, "%s", found != NULL ? found : "?");
    }
}

/* One tensor on its way. */
typedef struct taking {
    const p4_gguf_view *file;
    const p4_gguf_stored *stored;
    const p4_gguf_block *block;
    int64_t head; /* rows of a head whose element i and i + head / 2 are neighbors in the file; 0: none */
} taking;

/* The file's row that is row `row` of the model. */
static int64_t file_row(const taking *t, int64_t row)
{
    int64_t half = t->head / 2, within = t->head > 0 ? row % t->head : 0;
    return t->head > 0 ? row - within + within % half * 2 + within / half : row;
}

/* A matrix of floats, or the elements of a vector, in the model's order. */
static p4_rc take_floats(p4_weight *w, void **owned, const taking *t)
{
    int64_t rows = w->rows > 1 ? w->rows : w->cols;
    int64_t bytes = w->rows * w->cols / rows * t->block->bytes;
    w->dtype = t->block->dtype;
    w->data = t->stored->data;
    if (t->head == 0) {
        return P4_OK;
    }
    char *to = p4_alloc((size_t)rows, (size_t)bytes);
    if (to == NULL) {
        return P4_E_SYSTEM;
    }
    for (int64_t r = 0; r < rows; r++) {
        memcpy(to + r * bytes, t->stored->data + file_row(t, r) * bytes, (size_t)bytes);
    }
    *owned = to;
    w->data = to;
    return P4_OK;
}

/* Row `row` of the model as codes, or (half) as fp16; *same: whether all blocks with a trit other than 0 have
 * one scale, which is the row's. */
static p4_rc take_row(uint8_t *codes, uint16_t *half, uint16_t *scale, bool *same, const taking *t,
                      int64_t row)
{
    uint8_t u[256];
    int64_t blocks = t->stored->cols / t->block->elements;
    const uint8_t *from = t->stored->data + file_row(t, row) * blocks * t->block->bytes;
    bool any = false;
    *scale = 0;
    for (int64_t b = 0; b < blocks; b++) {
        uint16_t own;
        bool zero = true;
        if (!p4_gguf_block_trits(u, &own, t->block, from + b * t->block->bytes)) {
            return FAIL("%s: tensor \"%s\": row %lld holds a code that is no trit", t->file->path,
                        t->stored->name, (long long)row);
        }
        for (int k = 0; k < t->block->elements; k++) {
            int64_t c = b * t->block->elements + k;
            zero = zero && u[k] == 1;
            if (codes != NULL) {
                codes[c / 4] |= (uint8_t)(u[k] << 2 * (c % 4));
            }
            if (half != NULL) { /* exact: zero, or the scale with a sign */
                half[c] = u[k] == 1 ? 0 : u[k] == 2 ? own : own ^ 0x8000u;
            }
        }
        if ((own & 0x7c00u) == 0x7c00u) {
            return FAIL("%s: tensor \"%s\": a scale of row %lld is not finite", t->file->path,
                        t->stored->name, (long long)row);
        }
        *same = *same && (zero || !any || own == *scale);
        *scale = zero ? *scale : own;
        any = any || !zero;
    }
    return P4_OK;
}

/* Codes and, behind them, scales; the tensor as fp16 where a row has several scales. */
static p4_rc take_trits(p4_weight *w, void **owned, const taking *t)
{
    p4_rc rc = P4_OK;
    int64_t row_bytes = p4_code_row_bytes(w->cols), code_bytes = (w->rows * row_bytes + 1) / 2 * 2;
    bool same = true;
    uint8_t *codes = p4_alloc((size_t)(code_bytes + 2 * w->rows), 1);
    TRY(codes != NULL ? P4_OK : P4_E_SYSTEM);
    uint16_t *scale = (uint16_t *)(void *)(codes + code_bytes);
    *owned = codes;
    for (int64_t r = 0; r < w->rows && same; r++) {
        TRY(take_row(codes + r * row_bytes, NULL, &scale[r], &same, t, r));
    }
    if (same) {
        *w =
            (p4_weight){.dtype = P4_TERNARY, .rows = w->rows, .cols = w->cols, .data = codes, .scale = scale};
        goto done;
    }
    *owned = NULL;
    free(codes);
    uint16_t *halves = p4_alloc((size_t)(w->rows * w->cols), sizeof *halves), unused;
    *owned = halves;
    TRY(halves != NULL ? P4_OK : P4_E_SYSTEM);
    for (int64_t r = 0; r < w->rows; r++) {
        TRY(take_row(NULL, halves + r * w->cols, &unused, &same, t, r));
    }
    *w = (p4_weight){.dtype = P4_F16, .rows = w->rows, .cols = w->cols, .data = halves};
done:
    return rc;
}

static p4_rc take_tensor(p4_hf_model *hf, void **owned, const p4_gguf_view *file, int64_t i)
{
    p4_rc rc = P4_OK;
    p4_model *model = &hf->model;
    p4_param *p = &model->params[i];
    p4_weight *w = &model->weights[i];
    char name[KEY_BYTES], scale[KEY_BYTES];
    stored_name(name, model, i);
    taking t = {.file = file, .stored = p4_gguf_view_tensor(file, name)};
    CHECK(t.stored != NULL, "%s: has no tensor \"%s\"", file->path, name);
    t.block = p4_gguf_block_of(t.stored->type);
    CHECK(t.block != NULL,
          "%s: tensor \"%s\" is of ggml's type %u; F32, F16, BF16, TQ1_0, TQ2_0 and Q2_0 are read",
          file->path, name, t.stored->type);
    CHECK(t.stored->rows == p->rows && t.stored->cols == p->cols,
          "%s: tensor \"%s\" has the shape [%lld, %lld], the keys describe [%lld, %lld]", file->path, name,
          (long long)t.stored->rows, (long long)t.stored->cols, (long long)p->rows, (long long)p->cols);
    CHECK(t.block->dtype != P4_TERNARY || !p->vector, "%s: tensor \"%s\" is a vector of %s, expected floats",
          file->path, name, t.block->name);
    snprintf(scale, sizeof scale, "%.*s.scale", (int)(strrchr(name, '.') - name), name);
    CHECK(p4_gguf_view_tensor(file, scale) == NULL, "%s: tensor \"%s\" is not supported", file->path, scale);
    /* llama.cpp rotates neighbors in this architecture, the model halves of a head. */
    bool turned = (p->role == P4_ROLE_QKV || p->role == P4_ROLE_QKV_BIAS) &&
                  strcmp(model->arch.family, "llama") == 0 && strstr(name, "attn_v") == NULL;
    t.head = turned ? model->arch.D : 0;
    w->rows = p->rows;
    w->cols = p->cols;
    w->transposed = false;
    TRY(t.block->dtype == P4_TERNARY ? take_trits(w, owned, &t) : take_floats(w, owned, &t));
    p->ternary = w->dtype == P4_TERNARY;
done:
    return rc;
}

/* What the model would be computed without is refused, as the format's own runtime does. */
static p4_rc check_unused(const p4_model *model, const p4_gguf_view *file)
{
    p4_rc rc = P4_OK;
    char name[KEY_BYTES];
    bool *used = p4_alloc((size_t)file->tensor_count, sizeof *used);
    TRY(used != NULL ? P4_OK : P4_E_SYSTEM);
    for (int64_t i = 0; i < model->params_count; i++) {
        stored_name(name, model, i);
        used[p4_gguf_view_tensor(file, name) - file->tensors] = true; /* it is there: it was taken */
    }
    for (int64_t i = 0; i < file->tensor_count; i++) {
        const char *other = file->tensors[i].name;
        CHECK(used[i] || strcmp(other, "rope_freqs.weight") == 0, "%s: tensor \"%s\" is not supported",
              file->path, other);
    }
done:
    free(used);
    return rc;
}

p4_rc p4_gguf_model_read(p4_hf_model *hf, void ***owned, const p4_gguf_view *file)
{
    p4_rc rc = P4_OK;
    describing d = {.file = file};
    p4_arch arch;
    hf->path = p4_strdup(file->path);
    TRY(hf->path != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(describe(&d));
    hf->config_json = p4_json_print(d.root, true, true);
    d.root = NULL;
    TRY(hf->config_json != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(p4_hf_config_parse(&arch, hf->config_json, strlen(hf->config_json), file->path));
    TRY(check_rotated(&arch, &d));
    TRY(take_factors(&arch, file));
    TRY(p4_model_init(&hf->model, &arch, p4_family_prefix(arch.family)));
    *owned = p4_alloc((size_t)hf->model.params_count, sizeof **owned);
    TRY(*owned != NULL ? P4_OK : P4_E_SYSTEM);
    for (int64_t i = 0; i < hf->model.params_count; i++) {
        TRY(take_tensor(hf, &(*owned)[i], file, i));
    }
    TRY(check_unused(&hf->model, file));
done:
    cJSON_Delete(d.root);
    return rc;
}
