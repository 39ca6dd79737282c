/* net_buffers.c - the buffers of a pass: where they lie, or, in a trace, when they are needed. */
#include "src/net_buffers.h"

#include <assert.h>

#include "src/leaf/arena.h"

typedef enum unit { ACT, F32, CODES, ROUTES, NOTED } unit;
enum { PASS = false, BLOCK = true };

static const bool of_block[P4_BUFFER_COUNT] = {
#define P4_SCOPE(name, scope, unit, width) scope,
    P4_NET_BUFFERS(P4_SCOPE)
#undef P4_SCOPE
};

static int64_t tokens(const p4_net *net)
{
    return net->plan.B * net->plan.T;
}

/* The first layer of another kind than layer 0; L: there is none. */
static int64_t other_layer(const p4_net *net)
{
    const p4_arch *a = &net->model->arch;
    int64_t l = 0;
    while (l < a->L && p4_arch_has_experts(a, l) == p4_arch_has_experts(a, 0)) {
        l++;
    }
    return l;
}

int64_t p4_net_traced_layer(const p4_net *net, int64_t block)
{
    return block < 2 ? 0 : other_layer(net);
}

int64_t p4_net_traced_block(const p4_net *net, int64_t layer)
{
    const p4_arch *a = &net->model->arch;
    return p4_arch_has_experts(a, layer) == p4_arch_has_experts(a, 0) ? 0 : 2;
}

int64_t p4_net_blocks(const p4_net *net)
{
    int64_t L = net->model->arch.L;
    return net->trace == NULL ? L : other_layer(net) < L ? P4_TRACED_BLOCKS : 2;
}

int64_t p4_net_layer(const p4_net *net, int64_t block)
{
    return net->trace != NULL ? p4_net_traced_layer(net, block) : block;
}

static void *place_of(const p4_net *net, int64_t block, p4_net_buffer buffer)
{
    bool own = net->plan.train ? of_block[buffer] : buffer == P4_BUFFER_X1;
    int64_t l = own ? block : 0;
    return net->buffers[l * P4_BUFFER_COUNT + buffer];
}

/* In the trace: the step at hand needs what the buffer holds, or overwrites it. */
static void note(p4_net_trace *trace, int64_t block, p4_net_buffer buffer, bool overwrites)
{
    int64_t of = of_block[buffer] ? block : 0, *since = &trace->since[of][buffer];
    assert(overwrites || *since >= 0);
    p4_lifetime_extend(&trace->lifetime[of][buffer], overwrites ? trace->step : *since, trace->step + 1);
    *since = trace->step;
    trace->used[block][buffer] = true;
}

void *p4_net_read(p4_net *net, int64_t block, p4_net_buffer buffer)
{
    if (net->trace != NULL) {
        note(net->trace, block, buffer, false);
        return NULL;
    }
    return place_of(net, block, buffer);
}

void *p4_net_write(p4_net *net, int64_t block, p4_net_buffer buffer)
{
    if (net->trace != NULL) {
        note(net->trace, block, buffer, true);
        return NULL;
    }
    return place_of(net, block, buffer);
}

void *p4_net_write_bytes(p4_net *net, p4_net_buffer buffer, int64_t bytes)
{
    if (net->trace != NULL) {
        int64_t *noted = &net->trace->noted_bytes[buffer];
        *noted = p4_max_i64(*noted, bytes);
    }
    return p4_net_write(net, 0, buffer);
}

bool p4_net_step(p4_net *net)
{
    if (net->trace != NULL) {
        net->trace->step++;
    }
    return net->trace == NULL;
}

static int64_t width_of(const p4_net *net, p4_net_buffer buffer, int64_t layer)
{
    const p4_arch *a = &net->model->arch;
    int64_t qkv = p4_arch_dim(a, P4_DIM_QKV), q = p4_arch_dim(a, P4_DIM_Q),
            up = p4_arch_layer_dim(a, P4_DIM_UP, layer), width = p4_arch_mlp_width(a, layer),
            q_groups = q / p4_arch_dim(a, P4_DIM_QN),
            k_groups = p4_arch_dim(a, P4_DIM_KV) / p4_arch_dim(a, P4_DIM_KN),
            used = p4_arch_has_experts(a, layer) ? a->experts_used : 1;
    const int64_t widths[] = {
#define P4_WIDTH(name, scope, unit, width) width,
        P4_NET_BUFFERS(P4_WIDTH)
#undef P4_WIDTH
    };
    return widths[buffer];
}

/* Codes and behind them the tokens' scales. */
static int64_t scales_at(const p4_net *net, p4_net_buffer buffer, int64_t layer)
{
    return p4_ceil_div(tokens(net) * p4_int8_width(width_of(net, buffer, layer)), 64) * 64;
}

/* The arrays one behind the other; bytes of all. The tokens of the largest micro-batch. */
typedef struct placed_routes {
    p4_routes routes;
    int64_t bytes;
} placed_routes;

static placed_routes routes_at(const p4_net *net, char *at)
{
    const p4_arch *a = &net->model->arch;
    int64_t pairs = tokens(net) * a->experts_used;
    p4_arena arena = {.base = at, .capacity_bytes = INT64_MAX};
    placed_routes p = {.routes = {.N = tokens(net), .experts = a->experts, .used = a->experts_used}};
    p.routes.share = p4_arena_take(&arena, pairs * 4);
    p.routes.expert = p4_arena_take(&arena, pairs * 4);
    p.routes.row = p4_arena_take(&arena, pairs * 4);
    p.routes.first = p4_arena_take(&arena, (a->experts + 1) * 4);
    p.routes.work = p4_arena_take(&arena, p4_routes_work_count(tokens(net), a->experts, a->experts_used) * 4);
    p.bytes = arena.used_bytes;
    return p;
}

p4_routes p4_net_read_routes(p4_net *net, int64_t block)
{
    return routes_at(net, p4_net_read(net, block, P4_BUFFER_ROUTES)).routes;
}

p4_routes p4_net_write_routes(p4_net *net, int64_t block)
{
    return routes_at(net, p4_net_write(net, block, P4_BUFFER_ROUTES)).routes;
}

int64_t p4_net_buffer_bytes(const p4_net *net, const p4_net_trace *trace, p4_net_buffer buffer, int64_t layer)
{
    static const unit units[] = {
#define P4_UNIT(name, scope, unit, width) unit,
        P4_NET_BUFFERS(P4_UNIT)
#undef P4_UNIT
    };
    int64_t N = tokens(net), width = width_of(net, buffer, layer);
    switch (units[buffer]) {
    case ACT:
        return N * width * net->ops->act_bytes(net->device);
    case F32:
        return N * width * 4;
    case CODES:
        return scales_at(net, buffer, layer) + N * 4;
    case ROUTES:
        return routes_at(net, NULL).bytes;
    case NOTED:
        break;
    }
    return trace->noted_bytes[buffer];
}

static p4_int8_rows codes_at(const p4_net *net, int64_t block, p4_net_buffer buffer, char *at)
{
    int64_t scales = scales_at(net, buffer, p4_net_layer(net, block));
    p4_int8_rows none = {0};
    return at == NULL ? none : (p4_int8_rows){.codes = (int8_t *)at, .s = (float *)(void *)(at + scales)};
}

p4_int8_rows p4_net_read_codes(p4_net *net, int64_t block, p4_net_buffer buffer)
{
    return codes_at(net, block, buffer, p4_net_read(net, block, buffer));
}

p4_int8_rows p4_net_write_codes(p4_net *net, int64_t block, p4_net_buffer buffer)
{
    return codes_at(net, block, buffer, p4_net_write(net, block, buffer));
}
