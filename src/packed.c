#include "src/packed.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/leaf/arena.h"
#include "src/leaf/parallel.h"

enum {
    ALIGNMENT = 64,     /* bytes */
    FINITE_BLOCK = 4096 /* elements looked at together */
};

static void lay_out_tensor(p4_weight *w, const p4_param *p, p4_arena *arena)
{
    *w = (p4_weight){.dtype = p->ternary ? P4_TERNARY : P4_F16,
                     .rows = p->rows,
                     .cols = p->cols,
                     .scale_group = p->ternary ? p->scale_group : 0};
    if (p->ternary) {
        w->data = p4_arena_take(arena, p->rows * p4_code_row_bytes(p->cols));
        w->scale = p4_arena_take(arena, p4_param_scale_count(p) * 2);
    } else {
        w->data = p4_arena_take(arena, p->rows * p->cols * 2);
    }
}

static void lay_out(p4_packed *c, p4_arena *arena)
{
    for (int64_t i = 0; i < c->model->params_count; i++) {
        lay_out_tensor(&c->weights[i], &c->model->params[i], arena);
    }
}

int64_t p4_packed_bytes(const p4_model *model)
{
    p4_arena count = {0};
    p4_weight each;
    for (int64_t i = 0; i < model->params_count; i++) {
        lay_out_tensor(&each, &model->params[i], &count);
    }
    return count.used_bytes + ALIGNMENT;
}

p4_rc p4_packed_alloc(p4_packed *c, const p4_model *model)
{
    *c = (p4_packed){.model = model};
    c->weights = p4_alloc((size_t)model->params_count, sizeof *c->weights);
    c->errors = p4_alloc((size_t)model->params_count, sizeof *c->errors);
    if (c->weights == NULL || c->errors == NULL) {
        p4_packed_release(c);
        return P4_E_SYSTEM;
    }
    int64_t bytes = p4_packed_bytes(model);
    c->memory_bytes = bytes - ALIGNMENT;
    c->memory = p4_alloc_large((size_t)bytes);
    if (c->memory == NULL) {
        p4_packed_release(c);
        return P4_E_SYSTEM;
    }
    char *aligned = c->memory + (ALIGNMENT - (uintptr_t)c->memory % ALIGNMENT) % ALIGNMENT;
    p4_arena arena = {.base = aligned, .capacity_bytes = c->memory_bytes};
    lay_out(c, &arena);
    return P4_OK;
}

void p4_packed_release(p4_packed *c)
{
    free(c->weights);
    free(c->errors);
    free(c->memory);
    *c = (p4_packed){0};
}

/* A tensor that is rounded to fp16 in blocks of rows. */
typedef struct rounding {
    const char *name, *source;
    const p4_weight *weight;
    uint16_t *to;
    int64_t block; /* rows */
    float *values; /* a block a worker */
} rounding;

static p4_rc round_block(void *user, int64_t item, int worker)
{
    p4_rc rc = P4_OK;
    const rounding *r = user;
    int64_t cols = r->weight->cols, row = item * r->block, rows = p4_min_i64(r->block, r->weight->rows - row);
    float *values = r->values + worker * r->block * cols;
    uint16_t *to = r->to + row * cols;
    p4_weight_rows_f32(values, r->weight, row, rows);
    p4_f32s_to_f16(to, values, rows * cols);
    int64_t bad = p4_f16_find_nonfinite(to, rows * cols);
    CHECK(bad < 0, "%s: tensor %s: element [%lld, %lld] is %g, which fp16 cannot hold (up to 65504)",
          r->source, r->name, (long long)(row + bad / cols), (long long)(bad % cols), (double)values[bad]);
done:
    return rc;
}

p4_rc p4_packed_preserve(p4_packed *c, int64_t param, const p4_weight *weight, const char *source,
                         int threads)
{
    rounding r = {.name = c->model->params[param].name,
                  .source = source,
                  .weight = weight,
                  .to = p4_packed_half(c, param),
                  .block = p4_weight_block_rows(weight)};
    int64_t blocks = p4_ceil_div(weight->rows, r.block);
    int workers = (int)p4_max_i64(1, p4_min_i64(threads, blocks));
    r.values = p4_alloc((size_t)(workers * r.block * weight->cols), sizeof *r.values);
    if (r.values == NULL) {
        return P4_E_SYSTEM;
    }
    p4_rc rc = p4_parallel(workers, blocks, round_block, NULL, &r);
    free(r.values);
    return rc;
}

p4_stored_bytes p4_packed_stored_bytes(const p4_packed *c, int trits_per_byte)
{
    p4_stored_bytes sum = {0};
    for (int64_t i = 0; i < c->model->params_count; i++) {
        const p4_param *p = &c->model->params[i];
        if (p->ternary) {
            sum.codes += (double)(p->rows * p4_ceil_div(p->cols, trits_per_byte));
            sum.scales += 2.0 * (double)p4_param_scale_count(p);
            continue;
        }
        double bytes = 2.0 * (double)(p->rows * p->cols);
        if (p->role == P4_ROLE_EMBED || p->role == P4_ROLE_POSITION) {
            sum.embedding += bytes;
        } else if (p->role == P4_ROLE_HEAD) {
            sum.head += bytes;
        } else {
            sum.other += bytes;
        }
    }
    return sum;
}

double p4_packed_sparsity(const p4_packed *c)
{
    int64_t zeros = 0, all = 0;
    for (int64_t i = 0; i < c->model->params_count; i++) {
        if (c->model->params[i].ternary) {
            zeros += c->errors[i].zeros;
            all += c->model->params[i].rows * c->model->params[i].cols;
        }
    }
    return all > 0 ? (double)zeros / (double)all : 0.0;
}

/* Without a way out of the loop, so that the compiler makes vectors of it. */
static int64_t count_nonfinite(const uint8_t *bytes, p4_dtype dtype, int64_t count)
{
    int64_t found = 0;
    if (dtype == P4_F32) {
        for (int64_t i = 0; i < count; i++) {
            uint32_t bits;
            memcpy(&bits, bytes + 4 * i, sizeof bits);
            found += (bits & 0x7f800000u) == 0x7f800000u;
        }
        return found;
    }
    uint16_t mask = dtype == P4_F16 ? 0x7c00u : 0x7f80u;
    for (int64_t i = 0; i < count; i++) {
        uint16_t bits;
        memcpy(&bits, bytes + 2 * i, sizeof bits);
        found += (bits & mask) == mask;
    }
    return found;
}

int64_t p4_weight_find_nonfinite(const p4_weight *weight)
{
    int64_t count = weight->rows * weight->cols, each = p4_dtype_bytes(weight->dtype);
    const uint8_t *bytes = weight->data;
    for (int64_t at = 0; at < count; at += FINITE_BLOCK) {
        int64_t block = p4_min_i64(FINITE_BLOCK, count - at);
        if (count_nonfinite(bytes + at * each, weight->dtype, block) == 0) {
            continue;
        }
        while (count_nonfinite(bytes + at * each, weight->dtype, 1) == 0) {
            at++;
        }
        return at;
    }
    return -1;
}
