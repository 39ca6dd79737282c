/* ops_linear.c - matrix products, attention, rotary positions. */
#include "ops_bench.h"

OP(forward, ops->linear_forward(device, ACT(Y0, x->N * x->out), ACT(X0, x->N * x->in),
                                ACT(X1, x->in * x->out), NULL, x->N, x->in, x->out))
OP(backward_input, ops->linear_backward_input(device, ACT(Y0, x->N * x->in), ACT(X0, x->N * x->out),
                                              ACT(X1, x->in * x->out), x->N, x->in, x->out, false))
OP(backward_weight,
   ops->linear_backward_weight(device, &(p4_linear_backward_weight_args){.N = x->N,
                                                                         .in = x->in,
                                                                         .out = x->out,
                                                                         .dy = ACT(X0, x->N * x->out),
                                                                         .ld_dy = x->out,
                                                                         .x = ACT(X1, x->N * x->in),
                                                                         .dw = F32(F1, x->in * x->out),
                                                                         .accumulate = true}))
OP(gelu_forward_up,
   ops->linear_activate_forward(device, &(p4_linear_activate_forward_args){.N = x->N,
                                                                           .in = x->in,
                                                                           .out = x->out,
                                                                           .x = ACT(X0, x->N * x->in),
                                                                           .w = ACT(X1, x->in * x->out),
                                                                           .opt_bias = F32(F0, x->out),
                                                                           .up = ACT(Y1, x->N * x->out),
                                                                           .h = ACT(Y0, x->N * x->out)}))
OP(gelu_backward_down,
   ops->linear_activate_backward(device, &(p4_linear_activate_backward_args){.N = x->N,
                                                                             .F = x->in,
                                                                             .out = x->out,
                                                                             .dy = ACT(X0, x->N * x->out),
                                                                             .w = ACT(X1, x->in * x->out),
                                                                             .up = ACT(Y1, x->N * x->in),
                                                                             .dup = ACT(Y0, x->N * x->in),
                                                                             .opt_db = F32(F1, x->in)}))
OP(swiglu_backward_down,
   ops->linear_gated_backward(device, &(p4_linear_gated_backward_args){.function = P4_SILU,
                                                                       .N = x->N,
                                                                       .F = x->in,
                                                                       .out = x->out,
                                                                       .dy = ACT(X1, x->N * x->out),
                                                                       .w = ACT(X0, x->in * x->out),
                                                                       .gate_up = ACT(X0, 2 * x->N * x->in),
                                                                       .dgate_up = ACT(Y0, 2 * x->N * x->in),
                                                                       .dh_work = ACT(Y1, x->N * x->in)}))
OP(forward_head, ops->linear_forward(device, ACT(Y0, x->NV * x->out), ACT(X0, x->NV * x->in),
                                     ACT(X1, x->in * x->out), NULL, x->NV, x->in, x->out))
OP(backward_input_head, ops->linear_backward_input(device, ACT(Y0, x->NV * x->in), ACT(X0, x->NV * x->out),
                                                   ACT(X1, x->in * x->out), x->NV, x->in, x->out, false))
OP(backward_weight_head,
   ops->linear_backward_weight(device, &(p4_linear_backward_weight_args){.N = x->NV,
                                                                         .in = x->in,
                                                                         .out = x->arch.V,
                                                                         .dy = ACT(X0, x->NV * x->out),
                                                                         .ld_dy = x->out,
                                                                         .x = ACT(X1, x->NV * x->in),
                                                                         .dw = F32(F1, x->in * x->arch.V),
                                                                         .accumulate = true}))
OP(backward_bias,
   ops->linear_backward_bias(device, F32(F1, x->out), ACT(X0, x->N * x->out), x->N, x->out, x->out))
OP(quantize_int8, p4_int8_rows to = ROWS(Y0, x->in);
   ops->quantize_int8(device, NULL, &to, ACT(X0, x->N * x->in), x->N, x->in))
OP(dequantize_int8, p4_int8_rows from = ROWS(ROUNDED, x->in);
   ops->dequantize_int8(device, ACT(Y0, x->N * x->in), &from, x->N, x->in))
OP(unpack, p4_weight w = {.dtype = P4_TERNARY, .rows = x->out, .cols = x->in, .scale = x->scale};
   w.data = ops_at(x, CODES, x->out *p4_code_row_bytes(x->in));
   ops->weight_unpack(device, ACT(Y0, x->in * x->out), &w))
OP(forward_int8, p4_weight w = {.dtype = P4_TERNARY, .rows = x->out, .cols = x->in, .scale = x->scale};
   w.data = ops_at(x, CODES, x->out *p4_code_row_bytes(x->in)); p4_int8_rows from = ROWS(ROUNDED, x->in);
   ops->linear_forward_int8(device, &(p4_linear_forward_int8_args){.N = x->N,
                                                                   .in = x->in,
                                                                   .out = x->out,
                                                                   .x = from,
                                                                   .weights = &w,
                                                                   .parts = 1,
                                                                   .y = ACT(Y0, x->N * x->out),
                                                                   .x_work = ACT(Y1, x->N * x->in),
                                                                   .w_work = F32(F1, x->in * x->out)}))
OP(forward_token, p4_weight w = {.dtype = P4_TERNARY, .rows = x->out, .cols = x->in, .scale = x->scale};
   w.data = ops_at(x, CODES, x->out *p4_code_row_bytes(x->in));
   ops->linear_forward_weights(device, &(p4_linear_forward_weights_args){.N = 1,
                                                                         .in = x->in,
                                                                         .out = x->out,
                                                                         .x = ACT(X0, x->in),
                                                                         .weights = &w,
                                                                         .parts = 1,
                                                                         .y = ACT(Y0, x->out),
                                                                         .w_work = F32(F1, x->in * x->out)}))
OP(forward_token_int8, p4_weight w = {.dtype = P4_TERNARY, .rows = x->out, .cols = x->in, .scale = x->scale};
   w.data = ops_at(x, CODES, x->out *p4_code_row_bytes(x->in)); p4_int8_rows from = ROWS(ROUNDED, x->in);
   ops->linear_forward_int8(device, &(p4_linear_forward_int8_args){.N = 1,
                                                                   .in = x->in,
                                                                   .out = x->out,
                                                                   .x = from,
                                                                   .weights = &w,
                                                                   .parts = 1,
                                                                   .y = ACT(Y0, x->out),
                                                                   .x_work = ACT(Y1, x->N * x->in),
                                                                   .w_work = F32(F1, x->in * x->out)}))
OP(unpack_f32,
   p4_weight w = {.dtype = P4_F32, .rows = x->out, .cols = x->in, .data = F32(F0, x->in * x->out)};
   ops->weight_unpack(device, ACT(Y0, x->in * x->out), &w))
OP(attention_forward,
   ops->attention_forward(device, &(p4_attention_forward_args){.shape = x->attention,
                                                               .qkv = ACT(X0, x->N * x->width),
                                                               .out = ACT(Y0, x->N * x->arch.H * x->arch.D),
                                                               .opt_lse = x->lse,
                                                               .work = x->work}))
OP(attention_cached, ops->attention_cached(device, &(p4_attention_cached_args){
                                                       .shape = {.B = 1,
                                                                 .T = 1,
                                                                 .H = x->arch.H,
                                                                 .Hkv = x->arch.Hkv,
                                                                 .D = x->arch.D,
                                                                 .scale = x->attention.scale},
                                                       .past = x->past,
                                                       .capacity = x->T,
                                                       .qkv = ACT(X0, x->width),
                                                       .type = P4_F32,
                                                       .keys = F32(F0, x->T * x->arch.Hkv * x->arch.D),
                                                       .values = F32(F1, x->T * x->arch.Hkv * x->arch.D),
                                                       .out = ACT(Y0, x->arch.H * x->arch.D)}))
OP(attention_backward, ops->attention_backward(device, &(p4_attention_backward_args){
                                                           .shape = x->attention,
                                                           .qkv = ACT(X0, x->N * x->width),
                                                           .out = ACT(Y0, x->N * x->arch.H * x->arch.D),
                                                           .lse = x->lse,
                                                           .dout = ACT(X1, x->N * x->arch.H * x->arch.D),
                                                           .dqkv = ACT(Y1, x->N * x->width),
                                                           .work = x->work}))
OP(copy_groups, ops->copy_groups(device, &(p4_copy_groups_args){.N = x->N,
                                                                .I = x->arch.H,
                                                                .J = 1,
                                                                .D = x->arch.D,
                                                                .x = ACT(X0, x->N * x->width),
                                                                .ld_x = x->width,
                                                                .x_i = x->arch.D,
                                                                .y = ACT(Y0, x->N * x->width),
                                                                .ld_y = x->width,
                                                                .y_i = x->arch.D}))
OP(rope, ops->rope(device, &(p4_rope_args){.N = x->N,
                                           .T = x->T,
                                           .heads = x->arch.H + x->arch.Hkv,
                                           .D = x->arch.D,
                                           .qkv = ACT(Y0, x->N * x->width),
                                           .row_width = x->width,
                                           .cos_table = x->cos_table,
                                           .sin_table = x->sin_table,
                                           .backward = false}))

/* The three products of one matrix over N rows; its gradient is read and written in fp32. */
static void products(ops_bench *x, const char *slot, int64_t in, int64_t out)
{
    double flop = 2.0 * (double)(x->N * in * out), weights = (double)(in * out), A = (double)ops_acts(x, 1);
    double tokens = A * (double)(x->N * (in + out));
    x->in = in;
    x->out = out;
    ops_case(x, run_forward, flop, tokens + A * weights, "forward_%s", slot);
    ops_case(x, run_backward_input, flop, tokens + A * weights, "backward_input_%s", slot);
    ops_case(x, run_backward_weight, flop, tokens + 8.0 * weights, "backward_weight_%s", slot);
    ops_case(x, run_unpack, 0.0, (A + 0.25) * weights, "unpack_ternary_%s", slot);
    ops_case(x, run_forward_token, 2.0 * weights, A * (double)(in + out) + 0.25 * weights, "forward_token_%s",
             slot);
    if (in % 16 == 0) { /* the pools hold rows of this length only */
        ops_case(x, run_forward_token_int8, 2.0 * weights, (double)in + A * (double)out + 0.25 * weights,
                 "forward_token_int8_%s", slot);
        ops_case(x, run_forward_int8, flop, (double)(x->N * in) + A * (double)(x->N * out) + 0.25 * weights,
                 "forward_int8_%s", slot);
    }
}

/* With the activation function beside them; in two steps with P4_SWIGLU_BACKWARD=cublas (in one with own),
 * P4_GEMM_EPILOGUE=off. */
static void mlp_cases(ops_bench *x)
{
    int64_t C = x->arch.C, F = x->arch.F;
    double flop = 2.0 * (double)(x->N * C * F), A = (double)ops_acts(x, 1);
    double bytes = A * (double)(x->N * (C + 2 * F) + C * F);
    if (x->arch.gated_mlp) {
        x->in = F;
        x->out = C;
        ops_case(x, run_swiglu_backward_down, flop, bytes + A * (double)(2 * x->N * F),
                 "swiglu_backward_down");
        return;
    }
    x->in = C;
    x->out = F;
    ops_case(x, run_gelu_forward_up, flop, bytes, "gelu_forward_up");
    x->in = F;
    x->out = C;
    ops_case(x, run_gelu_backward_down, flop, bytes, "gelu_backward_down");
}

/* Of the padded rows that training works on (ops_logits_ld); the model's own vocabulary counts. */
static void head_cases(ops_bench *x)
{
    int64_t C = x->arch.C, V = x->arch.V;
    double flop = 2.0 * (double)(x->NV * C * V), weights = (double)(C * V), A = (double)ops_acts(x, 1);
    double tokens = A * (double)(x->NV * (C + V));
    x->in = C;
    x->out = ops_logits_ld(x);
    ops_case(x, run_forward_head, flop, tokens + A * weights, "forward_head");
    ops_case(x, run_backward_input_head, flop, tokens + A * weights, "backward_input_head");
    ops_case(x, run_backward_weight_head, flop, tokens + 8.0 * weights, "backward_weight_head");
    x->out = V;
    ops_case(x, run_unpack_f32, 0.0, (A + 4.0) * weights, "unpack_f32_head");
}

static void attention_cases(ops_bench *x)
{
    const p4_arch *a = &x->arch;
    double A = (double)ops_acts(x, 1), T = (double)x->T, N = (double)x->N;
    double scores =
        2.0 * (double)(x->B * a->H * a->D) * T * (T + 1.0) / 2.0; /* one product of the visible ones */
    double heads = A * N * (double)(a->H * a->D), qkv = A * N * (double)x->width;
    double lse = 4.0 * N * (double)a->H;
    ops_case(x, run_attention_forward, 2.0 * scores, qkv + heads + lse, "attention_forward");
    ops_case(x, run_attention_backward, 5.0 * scores, 2.0 * qkv + 2.0 * heads + lse, "attention_backward");
    ops_case(x, run_attention_cached, 4.0 * T * (double)(a->H * a->D), 8.0 * T * (double)(a->Hkv * a->D),
             "attention_cached");
    ops_case(x, run_copy_groups, 0.0, 2.0 * A * N * (double)(a->H * a->D), "copy_groups");
    ops_case(x, run_rope, 0.0, 2.0 * A * N * (double)((a->H + a->Hkv) * a->D), "rope");
}

void ops_linear_cases(ops_bench *x)
{
    const p4_arch *a = &x->arch;
    double A = (double)ops_acts(x, 1);
    products(x, "qkv", a->C, x->width);
    products(x, "o", a->H * a->D, a->C);
    products(x, "up", a->C, x->up);
    products(x, "down", a->F, a->C);
    mlp_cases(x);
    head_cases(x);
    x->out = x->width;
    ops_case(x, run_backward_bias, 0.0, A * (double)(x->N * x->out), "backward_bias_qkv");
    x->in = a->C;
    ops_case(x, run_quantize_int8, 0.0, (A + 1.0) * (double)(x->N * x->in), "quantize_int8_C");
    ops_case(x, run_dequantize_int8, 0.0, (A + 1.0) * (double)(x->N * x->in), "dequantize_int8_C");
    x->in = a->F;
    ops_case(x, run_dequantize_int8, 0.0, (A + 1.0) * (double)(x->N * x->in), "dequantize_int8_F");
    attention_cases(x);
}
