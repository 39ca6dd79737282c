/* net_experts.c - the MLPs of a mixture of experts: forward and backward pass. Buffers: net_buffers.h.
 *
 * The router's logits choose experts and shares for every token (op `route`). The tokens are copied in the
 * order of experts (GATHERED), so that each projection is one product per expert of neighboring rows, and a
 * token's outputs are summed by its shares. The backward pass takes the gradient of the shares from DOWN's
 * input instead of its output, <w' dy, h> = <dy, w h>, so the outputs need not be kept. */
#include "src/net_block.h"

static p4_routes routes_of(const p4_block *b)
{
    p4_routes routes = p4_net_read_routes(b->net, b->at);
    routes.N = b->N;
    return routes;
}

static int64_t rows_of(const p4_block *b)
{
    return b->N * b->arch->experts_used;
}

/* Are inputs of this projection rounded to int8, as activations? In a trace: may they be? */
static bool rounds(const p4_block *b, p4_role role)
{
    int64_t first = p4_model_find(b->net->model, role, b->layer);
    return b->net->plan.activation_bits == 8 &&
           (b->net->trace != NULL || b->pass->form->weights[first].dtype == P4_TERNARY);
}

static const p4_int8_rows no_codes;

/* Of one expert. */
static p4_experts_args product_of(const p4_block *b, p4_role role, const p4_routes *routes)
{
    const p4_arch *a = b->arch;
    bool up = role == P4_ROLE_UP;
    return (p4_experts_args){.experts = a->experts,
                             .rows = rows_of(b),
                             .in = up ? a->C : a->F,
                             .out = up ? p4_arch_dim(a, P4_DIM_UP) : a->C,
                             .first = routes->first};
}

/* --- forward ---------------------------------------------------------------------------------- */

static void route(const p4_block *b)
{
    p4_net *net = b->net;
    const void *n2 = p4_net_read(net, b->at, P4_BUFFER_N2),
               *w = p4_net_dense(net, b->pass->form, p4_model_find(net->model, P4_ROLE_ROUTER, b->layer));
    void *logits = p4_net_write(net, b->at, P4_BUFFER_ROUTER);
    if (p4_net_step(net)) {
        net->ops->linear_forward(net->device, logits, n2, w, NULL, b->N, b->arch->C, b->arch->experts);
    }
    logits = p4_net_read(net, b->at, P4_BUFFER_ROUTER);
    p4_routes routes = p4_net_write_routes(net, b->at);
    routes.N = b->N;
    if (p4_net_step(net)) {
        net->ops->route(net->device, &routes, logits, b->arch->normed_shares);
    }
}

/* The rows of `from`, a norm's output, in the order of experts. */
static void gather(const p4_block *b, p4_net_buffer to, p4_net_buffer from)
{
    p4_net *net = b->net;
    p4_routes routes = routes_of(b);
    const void *x = p4_net_read(net, b->at, from);
    void *rows = p4_net_write(net, b->at, to);
    if (p4_net_step(net)) {
        net->ops->experts_gather(net->device, rows, x, &routes, b->arch->C);
    }
    if (rounds(b, P4_ROLE_UP)) {
        rows = p4_net_read(net, b->at, to);
        if (p4_net_step(net)) {
            net->ops->quantize_int8(net->device, rows, &no_codes, rows, rows_of(b), b->arch->C);
        }
    }
}

const int32_t *p4_net_expert_rows(p4_net *net, int64_t layer)
{
    p4_routes routes = p4_net_read_routes(net, layer);
    net->ops->to_host(net->device, net->h_first, routes.first, (routes.experts + 1) * 4);
    return net->h_first;
}

bool p4_net_is_routed(p4_net *net, int64_t layer, int64_t n, int64_t expert)
{
    p4_routes routes = p4_net_read_routes(net, layer);
    bool is = false;
    for (int64_t k = 0; k < routes.used; k++) {
        int32_t chosen;
        net->ops->to_host(net->device, &chosen, routes.expert + n * routes.used + k, sizeof chosen);
        is = is || chosen == expert;
    }
    return is;
}

/* The probe sees each expert with the rows that were routed to it. */
static void show(const p4_block *b, const p4_experts_args *product, int64_t slot)
{
    p4_net *net = b->net;
    const p4_probe *probe = b->pass->probe;
    int64_t each = net->ops->act_bytes(net->device), param = slot;
    if (probe == NULL || probe->slot == NULL) {
        return;
    }
    const int32_t *h_first = p4_net_expert_rows(net, b->at);
    for (int64_t e = 0; e < product->experts; e++) {
        int64_t row = h_first[e], rows = h_first[e + 1] - row;
        const char *x = product->x, *y = product->y;
        if (rows > 0) {
            probe->slot(probe->user, param, x + row * product->in * each, product->in,
                        y + row * product->out * each, product->out, rows);
        }
        param = p4_model_next_input(net->model, slot, param);
    }
}

/* y = the projection of each expert's rows of x. */
static void project(const p4_block *b, p4_role role, p4_net_buffer to, p4_net_buffer from)
{
    p4_net *net = b->net;
    int64_t slot = p4_model_find(net->model, role, b->layer);
    p4_routes routes = routes_of(b);
    p4_experts_args args = product_of(b, role, &routes);
    args.x = p4_net_read(net, b->at, from);
    args.w = p4_net_dense(net, b->pass->form, slot);
    args.y = p4_net_write(net, b->at, to);
    if (p4_net_step(net)) {
        net->ops->experts_forward(net->device, &args);
        show(b, &args, slot);
    }
}

void p4_net_experts_up(const p4_block *b)
{
    p4_net *net = b->net;
    route(b);
    gather(b, P4_BUFFER_GATHERED, P4_BUFFER_N2);
    project(b, P4_ROLE_UP, P4_BUFFER_UP, P4_BUFFER_GATHERED);
    const void *up = p4_net_read(net, b->at, P4_BUFFER_UP);
    void *h = p4_net_write(net, b->at, P4_BUFFER_H);
    if (p4_net_step(net)) {
        p4_net_activate(b, h, rounds(b, P4_ROLE_DOWN) ? &no_codes : NULL, up);
    }
}

void p4_net_experts_down(const p4_block *b, p4_net_buffer to)
{
    p4_net *net = b->net;
    project(b, P4_ROLE_DOWN, P4_BUFFER_OUTS, P4_BUFFER_H);
    p4_routes routes = routes_of(b);
    const void *outs = p4_net_read(net, b->at, P4_BUFFER_OUTS);
    void *y = p4_net_write(net, b->at, to);
    if (p4_net_step(net)) {
        net->ops->experts_combine(net->device, y, outs, &routes, true, b->arch->C);
    }
}

/* --- backward --------------------------------------------------------------------------------- */

/* Are N2, GATHERED and H computed again? */
static bool computes_again(const p4_block *b)
{
    return b->net->plan.recompute == P4_RECOMPUTE_LIGHT;
}

/* The buffer with DOWN's input. */
static p4_net_buffer down_input(const p4_block *b)
{
    if (!computes_again(b)) {
        return P4_BUFFER_H;
    }
    p4_net_compute_again(b, P4_ROLE_DOWN, p4_net_write(b->net, b->at, P4_BUFFER_AGAIN_H),
                         rounds(b, P4_ROLE_DOWN) ? &no_codes : NULL);
    return P4_BUFFER_AGAIN_H;
}

/* The buffer with the norm's output. */
static p4_net_buffer router_input(const p4_block *b)
{
    if (!computes_again(b)) {
        return P4_BUFFER_N2;
    }
    p4_net_compute_again(b, P4_ROLE_UP, p4_net_write(b->net, b->at, P4_BUFFER_AGAIN_N2), NULL);
    return P4_BUFFER_AGAIN_N2;
}

static void weight_backward(const p4_block *b, p4_role role, p4_net_buffer dy, p4_net_buffer x)
{
    p4_net *net = b->net;
    const p4_grad_sink *sink = b->pass->sink;
    int64_t slot = p4_model_find(net->model, role, b->layer);
    bool accumulate;
    float *dw = p4_net_grad(sink, slot, &accumulate);
    if (dw == NULL) {
        return;
    }
    p4_routes routes = routes_of(b);
    p4_experts_args args = product_of(b, role, &routes);
    args.x = p4_net_read(net, b->at, x);
    args.dy = p4_net_read(net, b->at, dy);
    args.dw = dw;
    args.accumulate = accumulate;
    if (p4_net_step(net)) {
        net->ops->experts_backward_weight(net->device, &args);
        if (sink->ready != NULL) {
            sink->ready(sink->user, slot);
        }
    }
}

static void input_backward(const p4_block *b, p4_role role, p4_net_buffer dx, p4_net_buffer dy)
{
    p4_net *net = b->net;
    p4_routes routes = routes_of(b);
    p4_experts_args args = product_of(b, role, &routes);
    args.dy = p4_net_read(net, b->at, dy);
    args.w = p4_net_dense(net, b->pass->form, p4_model_find(net->model, role, b->layer));
    args.dx = p4_net_write(net, b->at, dx);
    if (p4_net_step(net)) {
        net->ops->experts_backward_input(net->device, &args);
    }
}

/* DH and DOUTS become the gradients with shares; DSHARE. */
static void share_backward(const p4_block *b, p4_net_buffer h)
{
    p4_net *net = b->net;
    const p4_routes routes = routes_of(b);
    p4_share_backward_args args = {.routes = &routes, .F = b->arch->F, .C = b->arch->C};
    args.h = p4_net_read(net, b->at, h);
    args.dh = p4_net_read(net, b->at, P4_BUFFER_DH);
    args.dy = p4_net_read(net, b->at, P4_BUFFER_DOUTS);
    args.dshare = p4_net_write(net, b->at, P4_BUFFER_DSHARE);
    if (p4_net_step(net)) {
        net->ops->share_backward(net->device, &args);
    }
}

/* DUP from dy, the gradient at the tokens' sums; DOWN's gradient. */
static void down_backward(const p4_block *b, p4_net_buffer dy)
{
    p4_net *net = b->net;
    p4_routes routes = routes_of(b);
    const void *from = p4_net_read(net, b->at, dy);
    void *douts = p4_net_write(net, b->at, P4_BUFFER_DOUTS);
    if (p4_net_step(net)) {
        net->ops->experts_gather(net->device, douts, from, &routes, b->arch->C);
    }
    input_backward(b, P4_ROLE_DOWN, P4_BUFFER_DH, P4_BUFFER_DOUTS);
    p4_net_buffer h = down_input(b);
    share_backward(b, h);
    weight_backward(b, P4_ROLE_DOWN, P4_BUFFER_DOUTS, h);
    const void *dh = p4_net_read(net, b->at, P4_BUFFER_DH), *up = p4_net_read(net, b->at, P4_BUFFER_UP);
    void *dup = p4_net_write(net, b->at, P4_BUFFER_DUP);
    if (p4_net_step(net)) {
        net->ops->gated_backward(net->device, dup, dh, up, b->arch->activation, rows_of(b), b->arch->F);
    }
}

/* dx += the gradient through the router's logits; the router's gradient. n2: the buffer of its input. */
static void router_backward(const p4_block *b, p4_net_buffer dx, p4_net_buffer n2)
{
    p4_net *net = b->net;
    const p4_arch *a = b->arch;
    int64_t router = p4_model_find(net->model, P4_ROLE_ROUTER, b->layer);
    p4_routes routes = routes_of(b);
    const void *logits = p4_net_read(net, b->at, P4_BUFFER_ROUTER);
    const float *dshare = p4_net_read(net, b->at, P4_BUFFER_DSHARE);
    void *dlogits = p4_net_write(net, b->at, P4_BUFFER_DROUTER);
    if (p4_net_step(net)) {
        net->ops->route_backward(net->device, dlogits, dshare, &routes, logits, a->normed_shares);
    }
    const void *w = p4_net_dense(net, b->pass->form, router);
    void *to = p4_net_read(net, b->at, dx);
    dlogits = p4_net_read(net, b->at, P4_BUFFER_DROUTER);
    if (p4_net_step(net)) {
        net->ops->linear_backward_input(net->device, to, dlogits, w, b->N, a->C, a->experts, true);
    }
    p4_linear_backward_weight_args args = {.N = b->N, .in = a->C, .out = a->experts, .ld_dy = a->experts};
    args.dw = p4_net_grad(b->pass->sink, router, &args.accumulate);
    args.dy = p4_net_read(net, b->at, P4_BUFFER_DROUTER);
    args.x = p4_net_read(net, b->at, n2);
    if (p4_net_step(net) && args.dw != NULL) {
        net->ops->linear_backward_weight(net->device, &args);
    }
}

void p4_net_experts_backward(const p4_block *b, p4_net_buffer dy, p4_net_buffer dx)
{
    p4_net *net = b->net;
    down_backward(b, dy);
    input_backward(b, P4_ROLE_UP, P4_BUFFER_DGATHERED, P4_BUFFER_DUP);
    p4_net_buffer n2 = router_input(b), x = P4_BUFFER_GATHERED;
    if (computes_again(b)) {
        x = P4_BUFFER_AGAIN_GATHERED;
        gather(b, x, n2);
    }
    weight_backward(b, P4_ROLE_UP, P4_BUFFER_DUP, x);
    p4_routes routes = routes_of(b);
    const void *dgathered = p4_net_read(net, b->at, P4_BUFFER_DGATHERED);
    void *to = p4_net_write(net, b->at, dx);
    if (p4_net_step(net)) {
        net->ops->experts_combine(net->device, to, dgathered, &routes, false, b->arch->C);
    }
    router_backward(b, dx, n2);
}
