#include "src/model.h"

#include <fnmatch.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/model_names.h"

p4_rc p4_arch_init(p4_arch *arch, const char *family)
{
    const p4_family *found = p4_family_find(family);
    if (found == NULL) {
        return FAIL("model family \"%.64s\" is not supported; supported: %s", family,
                    p4_supported_families());
    }
    *arch = found->flags;
    arch->bos_id = arch->eos_id = -1;
    return P4_OK;
}

const char *p4_family_prefix(const char *family)
{
    const p4_family *found = p4_family_find(family);
    return found != NULL ? found->prefix : "";
}

/* Bounds are far above any real model and keep every product of two below 2^53. */
p4_rc p4_arch_check(const p4_arch *arch, const char *source)
{
    p4_rc rc = P4_OK;
    const struct {
        const char *what;
        int64_t value, max;
    } numbers[] = {
        {"vocabulary", arch->V, 1 << 28},
        {"hidden size", arch->C, 1 << 20},
        {"layers", arch->L, 4096},
        {"heads", arch->H, 1 << 16},
        {"key/value heads", arch->Hkv, 1 << 16},
        {"head dimension", arch->D, 1 << 16},
        {"MLP width", arch->F, 1 << 22},
        {"positions", arch->positions, 1 << 30},
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
done:
    return rc;
}

static bool is_there(const p4_arch *arch, p4_when when)
{
    switch (when) {
    case P4_ALWAYS:
        return true;
    case P4_WITH_QKV_BIAS:
        return arch->qkv_bias;
    case P4_WITH_O_BIAS:
        return arch->o_bias;
    case P4_WITH_MLP_BIAS:
        return arch->mlp_bias;
    case P4_UNTIED:
        return !arch->tied;
    }
    return true;
}

static int64_t dim_count(const p4_arch *arch, p4_dim dim)
{
    switch (dim) {
    case P4_DIM_ONE:
        return 1;
    case P4_DIM_V:
        return arch->V;
    case P4_DIM_POSITIONS:
        return arch->positions;
    case P4_DIM_C:
        return arch->C;
    case P4_DIM_F:
        return arch->F;
    case P4_DIM_Q:
        return arch->H * arch->D;
    case P4_DIM_KV:
        return arch->Hkv * arch->D;
    case P4_DIM_QKV:
        return (arch->H + 2 * arch->Hkv) * arch->D;
    }
    return 0;
}

/* Rows of the table that this architecture has, inside (or outside) a block. */
static int64_t count_rows(const p4_family *family, const p4_arch *arch, bool in_block)
{
    int64_t count = 0;
    for (int64_t r = 0; r < family->row_count; r++) {
        count += is_there(arch, family->row[r].when) && p4_role_in_block(family->row[r].role) == in_block;
    }
    return count;
}

static p4_rc name_param(p4_param *param, const p4_family *family, const p4_tensor_row *row,
                        const char *prefix)
{
    const char *before = row->role == P4_ROLE_HEAD ? "" : prefix;
    int length = param->layer < 0 ? snprintf(param->name, sizeof param->name, "%s%s", before, row->name)
                                  : snprintf(param->name, sizeof param->name, "%s%s.%lld.%s", before,
                                             family->layers, (long long)param->layer, row->name);
    return length < (int)sizeof param->name ? P4_OK
                                            : FAIL("tensor name prefix \"%.64s\" is too long", prefix);
}

/* Appends the entry of one table row; its place in the slot follows from the entry before it. */
static p4_rc add_param(p4_model *model, const p4_family *family, const p4_tensor_row *row, int64_t layer,
                       const char *prefix)
{
    const p4_arch *arch = &model->arch;
    int64_t index = model->params_count++;
    p4_param *param = &model->params[index];
    *param = (p4_param){.role = row->role,
                        .layer = layer,
                        .rows = dim_count(arch, row->rows),
                        .cols = dim_count(arch, row->cols),
                        .vector = row->rows == P4_DIM_ONE,
                        .transposed = arch->conv1d && p4_role_is_matrix(row->role)};
    if (index > 0 && param[-1].role == param->role && param[-1].layer == layer) {
        param->row_offset = param[-1].row_offset + (param->vector ? param[-1].cols : param[-1].rows);
    }
    model->weights[index] = (p4_weight){
        .dtype = P4_F32, .transposed = param->transposed, .rows = param->rows, .cols = param->cols};
    return name_param(param, family, row, prefix);
}

/* Adds the rows from *next on that are inside (or outside) a block and leaves *next after them. */
static p4_rc add_section(p4_model *model, const p4_family *family, int64_t *next, int64_t layer,
                         const char *prefix)
{
    p4_rc rc = P4_OK;
    bool in_block = layer >= 0;
    for (; *next < family->row_count && p4_role_in_block(family->row[*next].role) == in_block; ++*next) {
        if (is_there(&model->arch, family->row[*next].when)) {
            TRY(add_param(model, family, &family->row[*next], layer, prefix));
        }
    }
done:
    return rc;
}

p4_rc p4_model_init(p4_model *model, const p4_arch *arch, const char *prefix)
{
    p4_rc rc = P4_OK;
    *model = (p4_model){.arch = *arch};
    const p4_family *family = p4_family_find(arch->family);
    CHECK(family != NULL, "model family \"%.31s\" is not supported; supported: %s", arch->family,
          p4_supported_families());
    TRY(p4_arch_check(arch, arch->family));
    int64_t count = count_rows(family, arch, false) + arch->L * count_rows(family, arch, true);
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
done:
    if (rc != P4_OK) {
        p4_model_close(model);
    }
    return rc;
}

void p4_model_close(p4_model *model)
{
    free(model->params);
    free(model->weights);
    free(model->layer_first);
    *model = (p4_model){0};
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

bool p4_role_is_matrix(p4_role role)
{
    return role == P4_ROLE_QKV || role == P4_ROLE_O || role == P4_ROLE_UP || role == P4_ROLE_DOWN;
}

bool p4_role_is_slot_bias(p4_role role)
{
    return role == P4_ROLE_QKV_BIAS || role == P4_ROLE_O_BIAS || role == P4_ROLE_UP_BIAS ||
           role == P4_ROLE_DOWN_BIAS;
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

int64_t p4_model_count_elements(const p4_model *model)
{
    int64_t count = 0;
    for (int64_t i = 0; i < model->params_count; i++) {
        count += model->params[i].rows * model->params[i].cols;
    }
    return count;
}
