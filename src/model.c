#include "src/model.h"

#include <fnmatch.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/net_takes.h"
#include "src/quantizer.h"

p4_rc p4_arch_init(p4_arch *arch, const char *family)
{
    const p4_family *found = p4_family_find(family);
    if (found == NULL) {
        return FAIL("model family \"%.64s\" is not supported; supported: %s", family,
                    p4_supported_families());
    }
    *arch = found->features;
    snprintf(arch->family, sizeof arch->family, "%s", family);
    arch->bos_id = arch->eos_id = -1;
    return P4_OK;
}

/* Values of features, and which of them exclude each other. */
static p4_rc check_features(const p4_arch *arch, const char *source)
{
    p4_rc rc = P4_OK;
    const struct {
        const char *what;
        double value;
    } factors[] = {
        {"residual scale", arch->residual_scale},   {"embedding scale", arch->embedding_scale},
        {"logit scale", arch->logit_scale},         {"cap of the logits", arch->logit_cap},
        {"cap of the scores", arch->attention_cap},
    };
    for (size_t i = 0; i < sizeof factors / sizeof factors[0]; i++) {
        CHECK(isfinite(factors[i].value) && factors[i].value >= 0, "%s: %s is %g, expected 0 or above",
              source, factors[i].what, factors[i].value);
    }
    CHECK(arch->window >= 0, "%s: window of %lld tokens, expected 0 or above", source,
          (long long)arch->window);
    CHECK(arch->rope_dim >= 0 && arch->rope_dim <= arch->D && arch->rope_dim % 2 == 0,
          "%s: %lld elements of a head are rotated, expected an even number up to %lld", source,
          (long long)arch->rope_dim, (long long)arch->D);
    CHECK(!arch->no_pre_norm || arch->post_norm, "%s: blocks without any norm, expected one before or after",
          source);
    CHECK(!arch->shared_norm || arch->parallel, "%s: one norm for attention and MLP, which are not parallel",
          source);
    CHECK(!arch->parallel || !arch->post_norm, "%s: parallel blocks with norms of their outputs", source);
    CHECK(!arch->layer_norm || (!arch->post_norm && !arch->gain_offset),
          "%s: LayerNorm of outputs or with gains stored as their difference from 1", source);
    CHECK(!arch->no_norm_bias || arch->layer_norm, "%s: norms without biases, which are not LayerNorm",
          source);
    CHECK(!arch->post_norm || arch->residual_scale == 0,
          "%s: outputs of attention and MLP with both norms and a factor", source);
    CHECK(arch->experts >= 0 && arch->experts <= 1 << 15, "%s: %lld experts, expected at most %d", source,
          (long long)arch->experts, 1 << 15);
    CHECK(arch->experts == 0 || (arch->experts_used >= 1 && arch->experts_used <= arch->experts),
          "%s: each token goes through %lld experts of %lld, expected 1 to %lld", source,
          (long long)arch->experts_used, (long long)arch->experts, (long long)arch->experts);
    CHECK(arch->experts == 0 || (arch->gated_mlp && !arch->mlp_bias && !arch->parallel && !arch->no_pre_norm),
          "%s: a mixture of experts in a parallel block, without a norm before it, with biases or without "
          "gates, expected gated MLPs without biases after a norm",
          source);
    CHECK(
        arch->dense_width >= 0 && arch->dense_width <= 1 << 22 &&
            (arch->dense_width == 0 || arch->experts > 0),
        "%s: MLP width of layers without experts is %lld beside %lld experts, expected 0 to %d, with experts",
        source, (long long)arch->dense_width, (long long)arch->experts, 1 << 22);
    CHECK(arch->experts > 0 || !arch->normed_shares, "%s: normalized expert weights without experts", source);
    CHECK(!arch->qkv_by_head || arch->qk_norm == P4_QK_NORM_NONE,
          "%s: query, key and value rows by head and norms of queries and keys", source);
done:
    return rc;
}

/* Bounds are far above any real model and keep every product of two below 2^53. */
p4_rc p4_arch_check(const p4_arch *arch, const char *source)
{
    p4_rc rc = P4_OK;
    const struct {
        const char *what;
        int64_t value, max;
    } numbers[] = {
        {"vocabulary", arch->V, 1 << 28},        {"hidden size", arch->C, 1 << 20},
        {"layers", arch->L, P4_ARCH_LAYERS_MAX}, {"heads", arch->H, 1 << 16},
        {"key/value heads", arch->Hkv, 1 << 16}, {"head dimension", arch->D, 1 << 16},
        {"MLP width", arch->F, 1 << 22},         {"positions", arch->positions, 1 << 30},
    };
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        CHECK(numbers[i].value >= 1 && numbers[i].value <= numbers[i].max,
              "%s: %s is %lld, expected 1 to %lld", source, numbers[i].what, (long long)numbers[i].value,
              (long long)numbers[i].max);
    }
    CHECK(arch->H * arch->D <= 1 << 22, "%s: %lld heads of dimension %lld are more than %d channels", source,
          (long long)arch->H, (long long)arch->D, 1 << 22);
    CHECK(arch->H % arch->Hkv == 0, "%s: %lld heads cannot share %lld key/value heads evenly", source,
          (long long)arch->H, (long long)arch->Hkv);
    CHECK(arch->learned_positions || arch->D % 2 == 0,
          "%s: head dimension is %lld, rotary positions need an even one", source, (long long)arch->D);
    CHECK(isfinite(arch->norm_eps) && arch->norm_eps > 0, "%s: norm epsilon is %g, expected above 0", source,
          (double)arch->norm_eps);
    CHECK(isfinite(arch->attention_scale) && arch->attention_scale > 0,
          "%s: attention scale is %g, expected above 0", source, (double)arch->attention_scale);
    TRY(check_features(arch, source));
    TRY(p4_net_check_arch(&p4_net_computes, arch, source));
done:
    return rc;
}

/* Refuses a family that has a tensor that the network does not use. */
static p4_rc check_rows(const p4_family *family, const p4_arch *arch)
{
    p4_rc rc = P4_OK;
    for (int64_t r = 0; r < family->row_count; r++) {
        p4_role role = family->row[r].role;
        if (role >= P4_ROLE_COUNT || p4_arch_has_role(arch, role)) {
            TRY(p4_net_check_tensor(&p4_net_computes, arch->family, role, family->row[r].name));
        }
    }
done:
    return rc;
}

/* Checks that the slot of this role in this layer (-1: outside the blocks) is present and has the shape that
 * the network uses. Adds the number of its tensors to *found. */
static p4_rc check_slot(const p4_model *model, p4_role role, int64_t layer, int64_t *found)
{
    p4_rc rc = P4_OK;
    const p4_arch *arch = &model->arch;
    const p4_role_facts *facts = &p4_roles[role];
    int64_t expected = p4_arch_copies(arch, role, layer) *
                       p4_arch_layer_dim(arch, facts->rows == P4_DIM_ONE ? facts->cols : facts->rows, layer);
    int64_t first = p4_model_find(model, role, layer), out = 0;
    CHECK(first >= 0, "model family \"%s\" has no tensor for %s, expected one", arch->family, facts->name);
    int64_t parts = p4_model_parts(model, first);
    for (int64_t i = first; i < first + parts; i++) {
        out += model->params[i].vector ? model->params[i].cols : model->params[i].rows;
    }
    CHECK(out == expected,
          "model family \"%s\": its tensors for %s, from %s on, have %lld rows, expected %lld", arch->family,
          facts->name, model->params[first].name, (long long)out, (long long)expected);
    *found += parts;
done:
    return rc;
}

/* Refuses a family whose tensors are not exactly those that the network uses. */
static p4_rc check_slots(const p4_model *model)
{
    p4_rc rc = P4_OK;
    int64_t found = 0;
    for (p4_role role = 0; role < P4_ROLE_COUNT; role++) {
        bool in_block = p4_roles[role].in_block;
        int64_t first = in_block ? 0 : -1, end = in_block ? model->arch.L : 0;
        for (int64_t l = first; p4_arch_has_role(&model->arch, role) && l < end; l++) {
            TRY(p4_arch_layer_has_role(&model->arch, role, l) ? check_slot(model, role, l, &found) : P4_OK);
        }
    }
    CHECK(found == model->params_count,
          "model family \"%s\": %lld of its tensors are not beside the others of their slot, expected none",
          model->arch.family, (long long)(model->params_count - found));
done:
    return rc;
}

/* Does the row stand for a tensor of each expert? */
static bool is_of_experts(const p4_tensor_row *row)
{
    return strchr(row->name, '*') != NULL;
}

/* Does the layer have the row's tensors? Of an MLP a family may name both those of experts and those of
 * layers without them. layer -1: outside the blocks. */
static bool has_row(const p4_arch *arch, const p4_tensor_row *row, int64_t layer)
{
    bool of_mlp = row->role == P4_ROLE_UP || row->role == P4_ROLE_DOWN;
    return p4_roles[row->role].in_block == (layer >= 0) && p4_arch_layer_has_role(arch, row->role, layer) &&
           (!of_mlp || is_of_experts(row) == p4_arch_has_experts(arch, layer));
}

/* The number of tensors that this architecture has in a layer (-1: outside the blocks). */
static int64_t count_rows(const p4_family *family, const p4_arch *arch, int64_t layer)
{
    int64_t count = 0;
    for (int64_t r = 0; r < family->row_count; r++) {
        const p4_tensor_row *row = &family->row[r];
        count += !has_row(arch, row, layer) ? 0 : is_of_experts(row) ? arch->experts : 1;
    }
    return count;
}

static p4_rc name_param(p4_param *param, const p4_family *family, const p4_tensor_row *row,
                        const char *prefix)
{
    bool of_head = row->role == P4_ROLE_HEAD || row->role == P4_ROLE_HEAD_BIAS;
    const char *before = of_head ? "" : prefix, *rest = row->name;
    char own[P4_TENSOR_NAME_BYTES];
    if (is_of_experts(row)) {
        int head = (int)(strchr(row->name, '*') - row->name);
        snprintf(own, sizeof own, "%.*s%lld%s", head, row->name, (long long)param->expert,
                 row->name + head + 1);
        rest = own;
    }
    int length = param->layer < 0 ? snprintf(param->name, sizeof param->name, "%s%s", before, rest)
                                  : snprintf(param->name, sizeof param->name, "%s%s.%lld.%s", before,
                                             family->layers, (long long)param->layer, rest);
    return length < (int)sizeof param->name ? P4_OK
                                            : FAIL("tensor name prefix \"%.64s\" is too long", prefix);
}

/* Appends the entry of one table row; its place in the slot follows from the entry before it. */
static p4_rc add_param(p4_model *model, const p4_family *family, const p4_tensor_row *row, int64_t layer,
                       int64_t expert, const char *prefix)
{
    const p4_arch *arch = &model->arch;
    int64_t index = model->params_count++;
    p4_param *param = &model->params[index];
    bool vector = p4_roles[row->role].rows == P4_DIM_ONE;
    int64_t out = p4_arch_layer_dim(arch, row->out, layer);
    *param = (p4_param){.role = row->role,
                        .layer = layer,
                        .expert = expert,
                        .rows = vector ? 1 : out,
                        .cols = vector ? out : p4_arch_layer_dim(arch, p4_roles[row->role].cols, layer),
                        .vector = vector,
                        .transposed = family->transposed && p4_role_is_matrix(row->role)};
    if (index > 0 && param[-1].role == param->role && param[-1].layer == layer) {
        int64_t before = param->vector ? param[-1].cols : param[-1].rows;
        param->row_offset = param[-1].row_offset + before;
        param->input_offset = param[-1].expert == expert ? param[-1].input_offset + before : 0;
    }
    model->weights[index] = (p4_weight){
        .dtype = P4_F32, .transposed = param->transposed, .rows = param->rows, .cols = param->cols};
    return name_param(param, family, row, prefix);
}

/* Adds row r and, where it stands for a tensor of each expert, those next to it with the same role, expert
 * after expert. Returns the number of rows in *taken. */
static p4_rc add_rows(p4_model *model, const p4_family *family, int64_t r, int64_t layer, const char *prefix,
                      int64_t *taken)
{
    p4_rc rc = P4_OK;
    const p4_tensor_row *row = &family->row[r];
    *taken = 1;
    if (!is_of_experts(row)) {
        return add_param(model, family, row, layer, -1, prefix);
    }
    while (r + *taken < family->row_count && row[*taken].role == row->role && is_of_experts(&row[*taken])) {
        ++*taken;
    }
    for (int64_t e = 0; e < model->arch.experts; e++) {
        for (int64_t k = 0; k < *taken; k++) {
            TRY(add_param(model, family, &row[k], layer, e, prefix));
        }
    }
done:
    return rc;
}

/* Adds the rows from *next on that are inside (or outside) a block and leaves *next after them. */
static p4_rc add_section(p4_model *model, const p4_family *family, int64_t *next, int64_t layer,
                         const char *prefix)
{
    p4_rc rc = P4_OK;
    bool in_block = layer >= 0;
    while (*next < family->row_count && p4_roles[family->row[*next].role].in_block == in_block) {
        int64_t taken = 1;
        if (has_row(&model->arch, &family->row[*next], layer)) {
            TRY(add_rows(model, family, *next, layer, prefix, &taken));
        }
        *next += taken;
    }
done:
    return rc;
}

p4_rc p4_model_init_family(p4_model *model, const p4_arch *arch, const p4_family *family, const char *prefix)
{
    p4_rc rc = P4_OK;
    *model = (p4_model){.arch = *arch};
    TRY(p4_arch_check(arch, arch->family));
    TRY(check_rows(family, arch));
    int64_t count = count_rows(family, arch, -1);
    for (int64_t l = 0; l < arch->L; l++) {
        count += count_rows(family, arch, l);
    }
    model->params = p4_alloc((size_t)count, sizeof *model->params);
    model->weights = p4_alloc((size_t)count, sizeof *model->weights);
    model->layer_first = p4_alloc((size_t)arch->L + 1, sizeof *model->layer_first);
    if (model->params == NULL || model->weights == NULL || model->layer_first == NULL) {
        rc = P4_E_SYSTEM;
        goto done;
    }
    int64_t next = 0;
    TRY(add_section(model, family, &next, -1, prefix));
    int64_t block = next;
    for (int64_t l = 0; l < arch->L; l++) {
        model->layer_first[l] = model->params_count;
        next = block;
        TRY(add_section(model, family, &next, l, prefix));
    }
    model->layer_first[arch->L] = model->params_count;
    TRY(add_section(model, family, &next, -1, prefix));
    CHECK(next == family->row_count,
          "model family \"%s\": row %s is out of order, expected embeddings, one block, final norm, head",
          arch->family, family->row[next].name);
    TRY(check_slots(model));
done:
    if (rc != P4_OK) {
        p4_model_close(model);
    }
    return rc;
}

p4_rc p4_model_init(p4_model *model, const p4_arch *arch, const char *prefix)
{
    *model = (p4_model){0};
    const p4_family *family = p4_family_find(arch->family);
    if (family != NULL && family->two_branches != NULL && arch->parallel && !arch->shared_norm) {
        family = family->two_branches;
    }
    return family != NULL ? p4_model_init_family(model, arch, family, prefix)
                          : FAIL("model family \"%.31s\" is not supported; supported: %s", arch->family,
                                 p4_supported_families());
}

void p4_model_close(p4_model *model)
{
    free(model->params);
    free(model->weights);
    free(model->layer_first);
    *model = (p4_model){0};
}

p4_rc p4_model_part_init(p4_model *part, const p4_model *whole, int64_t layer, int64_t blocks)
{
    p4_arch arch = whole->arch;
    arch.L = blocks;
    arch.first_layer += layer;
    return p4_model_init(part, &arch, "");
}

void p4_model_part_take(p4_model *part, const p4_model *whole, int64_t layer)
{
    part->arch.first_layer = whole->arch.first_layer + layer;
    for (int64_t i = part->layer_first[0]; i < part->layer_first[part->arch.L]; i++) {
        int64_t from = p4_model_part_entry(part, whole, layer, i);
        part->params[i] = whole->params[from];
        part->params[i].layer -= layer;
        part->weights[i] = whole->weights[from];
    }
}

static int64_t find_between(const p4_model *model, p4_role role, int64_t first, int64_t end)
{
    for (int64_t i = first; i < end; i++) {
        if (model->params[i].role == role) {
            return i;
        }
    }
    return -1;
}

int64_t p4_model_find(const p4_model *model, p4_role role, int64_t layer)
{
    const int64_t *layer_first = model->layer_first;
    if (layer >= 0) {
        return layer < model->arch.L ? find_between(model, role, layer_first[layer], layer_first[layer + 1])
                                     : -1;
    }
    int64_t found = find_between(model, role, 0, layer_first[0]);
    return found >= 0 ? found : find_between(model, role, layer_first[model->arch.L], model->params_count);
}

int64_t p4_model_parts(const p4_model *model, int64_t first)
{
    const p4_param *param = &model->params[first];
    int64_t parts = 1;
    while (first + parts < model->params_count && param[parts].role == param->role &&
           param[parts].layer == param->layer) {
        parts++;
    }
    return parts;
}

int64_t p4_model_readers(const p4_model *model, int64_t first)
{
    const p4_param *param = &model->params[first];
    int64_t readers = 1;
    while (first + readers < model->params_count && param[readers].role == param->role &&
           param[readers].layer == param->layer && param[readers].input_offset > 0) {
        readers++;
    }
    return readers;
}

int64_t p4_model_next_input(const p4_model *model, int64_t first, int64_t i)
{
    const p4_param *p = model->params;
    for (i++; i < model->params_count && p[i].role == p[first].role && p[i].layer == p[first].layer; i++) {
        if (p[i].input_offset == 0) {
            return i;
        }
    }
    return -1;
}

int64_t p4_model_matrix_rows(const p4_model *model, int64_t param, int64_t m)
{
    const p4_param *p = &model->params[param];
    const p4_arch *a = &model->arch;
    if (p->role == P4_ROLE_QKV && p->rows == p4_arch_dim(a, P4_DIM_QKV) && a->qkv_by_head) {
        return m >= 3 * a->Hkv ? 0 : m % 3 == 0 ? a->H / a->Hkv * a->D : a->D;
    }
    if (p->role == P4_ROLE_QKV && p->rows == p4_arch_dim(a, P4_DIM_QKV)) {
        return m == 0 ? p4_arch_dim(a, P4_DIM_Q) : m < 3 ? p4_arch_dim(a, P4_DIM_KV) : 0;
    }
    if (p->role == P4_ROLE_UP && p->rows == p4_arch_layer_dim(a, P4_DIM_UP, p->layer) && a->gated_mlp) {
        return m < 2 ? p->rows / 2 : 0;
    }
    return m == 0 ? p->rows : 0;
}

static bool matches(const p4_list *globs, const char *name)
{
    const char *glob = globs->bytes;
    for (int32_t i = 0; i < globs->count; i++, glob += strlen(glob) + 1) {
        if (fnmatch(glob, name, 0) == 0) {
            return true;
        }
    }
    return false;
}

bool p4_model_has_match(const p4_model *model, const char *glob)
{
    for (int64_t i = 0; i < model->params_count; i++) {
        if (fnmatch(glob, model->params[i].name, 0) == 0) {
            return true;
        }
    }
    return false;
}

void p4_model_select_ternary(p4_model *model, const p4_list *preserve, bool preserve_embedding,
                             bool preserve_output)
{
    for (int64_t i = 0; i < model->params_count; i++) {
        p4_param *param = &model->params[i];
        bool wanted = p4_role_is_matrix(param->role) ||
                      (param->role == P4_ROLE_EMBED && !preserve_embedding) ||
                      (param->role == P4_ROLE_HEAD && !preserve_output);
        param->ternary = wanted && !matches(preserve, param->name);
    }
}

p4_rc p4_model_share_scales(p4_model *model, p4_scale_granularity granularity)
{
    p4_rc rc = P4_OK;
    for (int64_t i = 0; i < model->params_count; i++) {
        p4_param *p = &model->params[i];
        int64_t group = p->ternary ? p4_scale_group_of(granularity, p->rows, p->cols) : 0;
        /* Scales of parts of rows, and of more than a row, begin at whole bytes of codes. */
        CHECK(group == 0 || p->cols % (granularity == P4_SCALE_TENSOR ? 4 : group) == 0,
              "key \"scale_granularity\": found \"%s\", but the rows of %s have %lld elements, expected a "
              "multiple of %d",
              p4_scale_granularity_names[granularity], p->name, (long long)p->cols,
              granularity == P4_SCALE_TENSOR ? 4 : (int)group);
        p->scale_group = group == p->cols ? 0 : group;
    }
done:
    return rc;
}

int64_t p4_model_count_elements(const p4_model *model)
{
    int64_t count = 0;
    for (int64_t i = 0; i < model->params_count; i++) {
        count += model->params[i].rows * model->params[i].cols;
    }
    return count;
}
