#include "io/export/gguf_tensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/export/trits.h"

/* Names without "blk.N." and ".weight" or ".bias". The slots of several tensors have a name for each. */
static const char *stem_of(const p4_model *model, const p4_gguf_arch *gguf, int64_t param)
{
    static const char *const names[P4_ROLE_COUNT] = {
        [P4_ROLE_EMBED] = "token_embd",
        [P4_ROLE_POSITION] = "position_embd",
        [P4_ROLE_NORM1_GAIN] = "attn_norm",
        [P4_ROLE_NORM1_BIAS] = "attn_norm",
        [P4_ROLE_NORM2_GAIN] = "ffn_norm",
        [P4_ROLE_NORM2_BIAS] = "ffn_norm",
        [P4_ROLE_Q_GAIN] = "attn_q_norm",
        [P4_ROLE_K_GAIN] = "attn_k_norm",
        [P4_ROLE_POST1_GAIN] = "post_attention_norm",
        [P4_ROLE_POST2_GAIN] = "post_ffw_norm",
        [P4_ROLE_QKV] = "attn_qkv",
        [P4_ROLE_QKV_BIAS] = "attn_qkv",
        [P4_ROLE_O] = "attn_output",
        [P4_ROLE_O_BIAS] = "attn_output",
        [P4_ROLE_ROUTER] = "ffn_gate_inp",
        [P4_ROLE_UP] = "ffn_up",
        [P4_ROLE_UP_BIAS] = "ffn_up",
        [P4_ROLE_DOWN] = "ffn_down",
        [P4_ROLE_DOWN_BIAS] = "ffn_down",
        [P4_ROLE_FINAL_GAIN] = "output_norm",
        [P4_ROLE_FINAL_BIAS] = "output_norm",
        [P4_ROLE_HEAD] = "output",
        [P4_ROLE_HEAD_BIAS] = "output",
    };
    const p4_param *p = &model->params[param];
    int64_t first = p4_model_find(model, p->role, p->layer), parts = p4_model_parts(model, first);
    if (p->expert >= 0) {
        return p->role == P4_ROLE_DOWN ? "ffn_down_exps"
               : p->input_offset == 0  ? "ffn_gate_exps"
                                       : "ffn_up_exps";
    }
    if (gguf->mlp_norm_first && !model->arch.shared_norm) {
        bool norm1 = p->role == P4_ROLE_NORM1_GAIN || p->role == P4_ROLE_NORM1_BIAS,
             norm2 = p->role == P4_ROLE_NORM2_GAIN || p->role == P4_ROLE_NORM2_BIAS;
        if (norm1 || norm2) {
            return norm1 ? "attn_norm_2" : "attn_norm";
        }
    }
    if (parts == 3) {
        static const char *const qkv[] = {"attn_q", "attn_k", "attn_v"};
        return qkv[param - first];
    }
    return parts == 2 && param == first ? "ffn_gate" : names[p->role];
}

static bool is_bias(p4_role role)
{
    p4_kind kind = p4_roles[role].kind;
    return kind == P4_KIND_NORM_BIAS || kind == P4_KIND_SLOT_BIAS || kind == P4_KIND_HEAD_BIAS;
}

static p4_gguf_order order_of(const p4_model *model, const p4_gguf_arch *gguf, int64_t param)
{
    const p4_param *p = &model->params[param];
    if (p->role != P4_ROLE_QKV && p->role != P4_ROLE_QKV_BIAS) {
        return P4_GGUF_AS_STORED;
    }
    if (model->arch.qkv_by_head) {
        return P4_GGUF_BY_KIND;
    }
    int64_t part = param - p4_model_find(model, p->role, p->layer); /* 0: queries, 1: keys */
    return gguf->pairs && part < 2 ? P4_GGUF_IN_PAIRS : P4_GGUF_AS_STORED;
}

/* The runtime reads norms, biases, learned positions and, to choose the experts, the router as fp32. */
static p4_gguf_type type_of(const p4_param *p, p4_gguf_blocks blocks)
{
    int64_t run = p4_export_run(p->scale_group, p->cols);
    bool by_64 = run % P4_Q2_0_COUNT == 0, by_256 = run % P4_TQ_COUNT == 0;
    if (p->vector || p->role == P4_ROLE_POSITION || p->role == P4_ROLE_ROUTER) {
        return P4_GGUF_F32;
    }
    if (!p->ternary) {
        return P4_GGUF_F16;
    }
    switch (blocks) {
    case P4_GGUF_BLOCKS_TQ2_0:
        return by_256 ? P4_GGUF_TQ2_0 : P4_GGUF_F16;
    case P4_GGUF_BLOCKS_TQ1_0:
        return by_256 ? P4_GGUF_TQ1_0 : P4_GGUF_F16;
    case P4_GGUF_BLOCKS_Q2_0:
        return by_64 ? P4_GGUF_Q2_0 : P4_GGUF_F16;
    case P4_GGUF_BLOCKS_I2_S:
        return p4_role_is_matrix(p->role) && p->cols % P4_I2_S_COUNT == 0 ? P4_GGUF_I2_S : P4_GGUF_F16;
    default:
        return by_256 ? P4_GGUF_TQ2_0 : by_64 ? P4_GGUF_Q2_0 : P4_GGUF_F16;
    }
}

/* One type for the matrices of all experts: fp16 where not all are ternary. */
static p4_gguf_type common_type(const p4_model *model, int64_t param, int64_t step, p4_gguf_blocks blocks)
{
    p4_gguf_type type = type_of(&model->params[param], blocks);
    for (int64_t e = 1; e < model->arch.experts; e++) {
        type = type_of(&model->params[param + e * step], blocks) == type ? type : P4_GGUF_F16;
    }
    return type;
}

int64_t p4_gguf_row_bytes(const p4_gguf_tensor *tensor)
{
    switch (tensor->type) {
    case P4_GGUF_TQ1_0:
        return tensor->cols / P4_TQ_COUNT * P4_TQ1_0_BYTES;
    case P4_GGUF_TQ2_0:
        return tensor->cols / P4_TQ_COUNT * P4_TQ2_0_BYTES;
    case P4_GGUF_Q2_0:
        return tensor->cols / P4_Q2_0_COUNT * P4_Q2_0_BYTES;
    case P4_GGUF_I2_S:
        return tensor->cols / P4_I2_S_COUNT * P4_I2_S_BYTES;
    case P4_GGUF_F16:
        return 2 * tensor->cols;
    default:
        return 4 * tensor->cols;
    }
}

static p4_gguf_tensor *append(p4_gguf_tensors *list, p4_gguf_part part)
{
    list->parts[list->count] = part;
    return &list->tensors[list->count++];
}

static void append_param(p4_gguf_tensors *list, const p4_model *model, const p4_gguf_arch *gguf,
                         int64_t param, p4_gguf_blocks blocks)
{
    const p4_param *p = &model->params[param];
    bool gain = p4_roles[p->role].kind == P4_KIND_GAIN && model->arch.gain_offset;
    int64_t step = p->expert == 0 ? p4_model_readers(model, param - (p->input_offset > 0)) : 0;
    p4_gguf_tensor *t = append(
        list, (p4_gguf_part){
                  .param = param, .step = step, .order = order_of(model, gguf, param), .gain_offset = gain});
    char block[32] = "";
    if (p->layer >= 0) {
        snprintf(block, sizeof block, "blk.%lld.", (long long)p->layer);
    }
    snprintf(t->name, sizeof t->name, "%s%s.%s", block, stem_of(model, gguf, param),
             is_bias(p->role) ? "bias" : "weight");
    t->type = step > 0 ? common_type(model, param, step, blocks) : type_of(p, blocks);
    t->vector = p->vector;
    t->stacked = step > 0 ? model->arch.experts : 0;
    t->rows = p->rows * p4_max_i64(1, t->stacked);
    t->cols = p->cols;
}

static p4_rc append_values(p4_gguf_tensors *list, const char *name, const float *values, int64_t count)
{
    float *copy = p4_alloc((size_t)count, sizeof *copy);
    if (copy == NULL) {
        return P4_E_SYSTEM;
    }
    memcpy(copy, values, (size_t)count * sizeof *copy);
    p4_gguf_tensor *t = append(list, (p4_gguf_part){.param = -1, .values = copy});
    snprintf(t->name, sizeof t->name, "%s", name);
    t->type = P4_GGUF_F32;
    t->vector = true;
    t->rows = 1;
    t->cols = count;
    return P4_OK;
}

/* What the frequencies of rotary positions are divided by, where a number and a kind do not say it. */
static p4_rc append_factors(p4_gguf_tensors *list, const p4_arch *a)
{
    p4_rc rc = P4_OK;
    int64_t R = p4_arch_rope_dim(a), pairs = R / 2;
    float factors[P4_ROPE_PAIRS_MAX];
    if (a->rope.scaling == P4_ROPE_LONGROPE) {
        TRY(append_values(list, "rope_factors_long.weight", a->rope.long_factors, pairs));
        TRY(append_values(list, "rope_factors_short.weight", a->rope.short_factors, pairs));
    }
    if (a->rope.scaling == P4_ROPE_LLAMA3) {
        CHECK(pairs <= P4_ROPE_PAIRS_MAX, "gguf: heads of %lld elements, at most %d are written",
              (long long)R, 2 * P4_ROPE_PAIRS_MAX);
        p4_rope plain = {.scaling = P4_ROPE_DEFAULT, .theta = a->rope.theta};
        for (int64_t i = 0; i < pairs; i++) {
            factors[i] = p4_rope_inv_freq(&plain, R, 1, i) / p4_rope_inv_freq(&a->rope, R, 1, i);
        }
        TRY(append_values(list, "rope_freqs.weight", factors, pairs));
    }
done:
    return rc;
}

p4_rc p4_gguf_list(p4_gguf_tensors *list, const p4_model *model, const p4_gguf_arch *gguf,
                   p4_gguf_blocks blocks)
{
    enum { EXTRA = 3 }; /* a head, two lists of factors */
    p4_rc rc = P4_OK;
    size_t most = (size_t)model->params_count + EXTRA;
    *list = (p4_gguf_tensors){.tensors = p4_alloc(most, sizeof *list->tensors),
                              .parts = p4_alloc(most, sizeof *list->parts)};
    if (list->tensors == NULL || list->parts == NULL) {
        rc = P4_E_SYSTEM;
        goto done;
    }
    for (int64_t i = 0; i < model->params_count; i++) {
        if (model->params[i].expert <= 0) { /* the first expert's stands for those of all */
            append_param(list, model, gguf, i, blocks);
        }
    }
    if (model->arch.tied && gguf->writes_head) {
        append_param(list, model, gguf, p4_model_find(model, P4_ROLE_EMBED, -1), blocks);
        strcpy(list->tensors[list->count - 1].name, "output.weight");
    }
    TRY(append_factors(list, &model->arch));
    for (int64_t i = 0; i < list->count; i++) {
        p4_gguf_tensor *t = &list->tensors[i];
        t->bytes = t->rows * p4_gguf_row_bytes(t) + (t->type == P4_GGUF_I2_S ? P4_I2_S_TAIL_BYTES : 0);
        list->bytes += t->bytes + p4_gguf_padding(t->bytes);
    }
done:
    if (rc != P4_OK) {
        p4_gguf_list_free(list);
    }
    return rc;
}

void p4_gguf_list_free(p4_gguf_tensors *list)
{
    for (int64_t i = 0; list->parts != NULL && i < list->count; i++) {
        free(list->parts[i].values);
    }
    free(list->parts);
    free(list->tensors);
    *list = (p4_gguf_tensors){0};
}

/* The stored row (or element of a bias) that becomes row r. */
static int64_t stored_row(p4_gguf_order order, const p4_arch *a, int64_t r)
{
    int64_t D = a->D, head = r / D, at = r % D;
    if (order == P4_GGUF_IN_PAIRS) {
        return head * D + at % 2 * (D / 2) + at / 2;
    }
    if (order == P4_GGUF_BY_KIND) {
        int64_t per = a->H / a->Hkv, other = head - a->H; /* a key or, behind all keys, a value */
        int64_t stored = head < a->H ? head / per * (per + 2) + head % per
                                     : other % a->Hkv * (per + 2) + per + other / a->Hkv;
        return stored * D + at;
    }
    return r;
}

static void fill_vector(uint8_t *to, const p4_weight *w, const p4_gguf_part *part, const p4_arch *arch)
{
    const uint16_t *halves = w->data;
    for (int64_t i = 0; i < w->cols; i++) {
        float value = p4_f16_to_f32(halves[stored_row(part->order, arch, i)]);
        value += part->gain_offset ? 1.0f : 0.0f;
        memcpy(to + 4 * i, &value, sizeof value);
    }
}

static void fill_blocks(uint8_t *to, const p4_weight *w, p4_gguf_type type, int64_t row)
{
    const uint8_t *codes = (const uint8_t *)w->data + row * p4_code_row_bytes(w->cols);
    if (type == P4_GGUF_I2_S) {
        p4_trits_i2_s(to, codes, w->cols);
        return;
    }
    int64_t run = p4_export_run(w->scale_group, w->cols);
    for (int64_t at = 0; at < w->cols; at += run, codes += run / 4) {
        uint16_t scale = p4_export_scale(w, row, at);
        if (type == P4_GGUF_TQ1_0) {
            p4_trits_tq1_0(to, codes, run, scale);
            to += run / P4_TQ_COUNT * P4_TQ1_0_BYTES;
        } else if (type == P4_GGUF_TQ2_0) {
            p4_trits_tq2_0(to, codes, run, scale);
            to += run / P4_TQ_COUNT * P4_TQ2_0_BYTES;
        } else {
            p4_trits_q2_0(to, codes, run, scale);
            to += run / P4_Q2_0_COUNT * P4_Q2_0_BYTES;
        }
    }
}

static void fill_row(uint8_t *to, const p4_weight *w, p4_gguf_type type, int64_t row)
{
    if (type == P4_GGUF_F32) {
        p4_weight_row_f32((float *)(void *)to, w, row);
    } else if (type != P4_GGUF_F16) {
        fill_blocks(to, w, type, row);
    } else if (w->dtype == P4_TERNARY) {
        p4_ternary_row_f16((uint16_t *)(void *)to, w, row);
    } else {
        memcpy(to, (const uint16_t *)w->data + row * w->cols, (size_t)w->cols * sizeof(uint16_t));
    }
}

void p4_gguf_fill_tail(const p4_gguf_tensors *list, const p4_export_source *source, uint8_t tail[4],
                       int64_t index)
{
    float scale = 0;
    if (list->tensors[index].type == P4_GGUF_I2_S) {
        scale = p4_f16_to_f32(source->weights[list->parts[index].param].scale[0]);
    }
    memcpy(tail, &scale, sizeof scale);
}

/* The stored rows among which `count` rows from `first` on are. */
static void find_range(p4_gguf_order order, const p4_arch *arch, int64_t first, int64_t count, int64_t *low,
                       int64_t *high)
{
    *low = *high = stored_row(order, arch, first);
    for (int64_t r = first; r < first + count; r++) {
        int64_t row = stored_row(order, arch, r);
        *low = p4_min_i64(*low, row);
        *high = p4_max_i64(*high, row);
    }
}

/* Rows of one matrix. */
static p4_rc fill_rows(uint8_t *to, const p4_export_source *source, p4_export_space *space,
                       const p4_gguf_tensor *t, p4_gguf_order order, int64_t param, int64_t first,
                       int64_t count)
{
    p4_rc rc = P4_OK;
    const p4_arch *arch = &source->hf->model.arch;
    p4_weight view;
    int64_t low, high, row_bytes = p4_gguf_row_bytes(t);
    find_range(order, arch, first, count, &low, &high);
    TRY(p4_export_view(source, space, &view, param, low, high - low + 1));
    for (int64_t r = 0; r < count; r++) {
        fill_row(to + r * row_bytes, &view, t->type, stored_row(order, arch, first + r) - low);
    }
done:
    return rc;
}

/* Are the tensor's bytes those of the weight? */
static bool is_as_stored(const p4_gguf_tensor *t, const p4_gguf_part *part, const p4_export_source *source)
{
    return t->type == P4_GGUF_F16 && t->stacked == 0 && part->order == P4_GGUF_AS_STORED &&
           source->weights[part->param].dtype == P4_F16;
}

p4_rc p4_gguf_fill(const p4_gguf_tensors *list, const p4_export_source *source, p4_export_space *space,
                   uint8_t *to, const void **made, int64_t index, int64_t first, int64_t rows)
{
    p4_rc rc = P4_OK;
    p4_weight view;
    const p4_gguf_tensor *t = &list->tensors[index];
    const p4_gguf_part *part = &list->parts[index];
    int64_t row_bytes = p4_gguf_row_bytes(t), each = t->rows / p4_max_i64(1, t->stacked);
    if (part->param < 0) {
        memcpy(to, part->values, (size_t)row_bytes);
    } else if (t->vector) {
        TRY(p4_export_view(source, space, &view, part->param, 0, 1));
        fill_vector(to, &view, part, &source->hf->model.arch);
    } else if (is_as_stored(t, part, source)) {
        TRY(p4_export_view(source, space, &view, part->param, first, rows));
        *made = view.data;
    } else {
        for (int64_t done = 0, count; done < rows; done += count) {
            int64_t row = (first + done) % each, matrix = (first + done) / each;
            count = p4_min_i64(rows - done, each - row);
            TRY(fill_rows(to + done * row_bytes, source, space, t, part->order,
                          part->param + matrix * part->step, row, count));
        }
    }
done:
    return rc;
}

p4_rc p4_gguf_step(const p4_gguf_tensors *list, const p4_export_source *source, int64_t *rows, int64_t index)
{
    int64_t param = list->parts[index].param;
    *rows = 0;
    return param >= 0 && list->tensors[index].stacked == 0 ? p4_export_step(source, rows, param) : P4_OK;
}
