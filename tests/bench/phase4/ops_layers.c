/* ops_layers.c - norms, MLP activations, embeddings, losses and calibration. */
#include "ops_bench.h"

OP(rmsnorm, ops->add_norm_forward(device, &(p4_add_norm_forward_args){.kind = P4_RMSNORM,
                                                                      .N = x->N,
                                                                      .C = x->arch.C,
                                                                      .eps = 1e-5f,
                                                                      .x = ACT(X0, x->N * x->arch.C),
                                                                      .opt_delta = ACT(X1, x->N * x->arch.C),
                                                                      .gain = F32(F0, x->arch.C),
                                                                      .opt_sum = ACT(Y1, x->N * x->arch.C),
                                                                      .opt_y = ACT(Y0, x->N * x->arch.C),
                                                                      .opt_rstd = F32(F1, x->N)}))
OP(rmsnorm_int8, p4_int8_rows to = ROWS(Y0, x->arch.C);
   ops->add_norm_forward(device, &(p4_add_norm_forward_args){.kind = P4_RMSNORM,
                                                             .N = x->N,
                                                             .C = x->arch.C,
                                                             .eps = 1e-5f,
                                                             .x = ACT(X0, x->N * x->arch.C),
                                                             .opt_delta = ACT(X1, x->N * x->arch.C),
                                                             .gain = F32(F0, x->arch.C),
                                                             .opt_sum = ACT(Y1, x->N * x->arch.C),
                                                             .opt_rounded = &to,
                                                             .opt_rstd = F32(F1, x->N)}))
OP(layernorm,
   ops->add_norm_forward(device, &(p4_add_norm_forward_args){.kind = P4_LAYERNORM,
                                                             .N = x->N,
                                                             .C = x->arch.C,
                                                             .eps = 1e-5f,
                                                             .x = ACT(X0, x->N * x->arch.C),
                                                             .opt_delta = ACT(X1, x->N * x->arch.C),
                                                             .gain = F32(F0, x->arch.C),
                                                             .opt_bias = F32(F0, x->arch.C),
                                                             .opt_sum = ACT(Y1, x->N * x->arch.C),
                                                             .opt_y = ACT(Y0, x->N * x->arch.C),
                                                             .opt_mean = F32(F1, x->N),
                                                             .opt_rstd = F32(F2, x->N)}))
OP(rmsnorm_backward, ops->norm_backward(device, &(p4_norm_backward_args){.kind = P4_RMSNORM,
                                                                         .N = x->N,
                                                                         .C = x->arch.C,
                                                                         .dy = ACT(X0, x->N * x->arch.C),
                                                                         .x = ACT(X1, x->N * x->arch.C),
                                                                         .rstd = F32(F3, x->N),
                                                                         .gain = F32(F0, x->arch.C),
                                                                         .dx = ACT(Y0, x->N * x->arch.C),
                                                                         .accumulate = true,
                                                                         .opt_dgain = F32(F1, x->arch.C)}))
OP(layernorm_backward,
   ops->norm_backward(device, &(p4_norm_backward_args){.kind = P4_LAYERNORM,
                                                       .N = x->N,
                                                       .C = x->arch.C,
                                                       .dy = ACT(X0, x->N * x->arch.C),
                                                       .x = ACT(X1, x->N * x->arch.C),
                                                       .opt_mean = F32(F0, x->N),
                                                       .rstd = F32(F3, x->N),
                                                       .gain = F32(F0, x->arch.C),
                                                       .dx = ACT(Y0, x->N * x->arch.C),
                                                       .accumulate = true,
                                                       .opt_dx_sums = F32(F1, x->arch.C),
                                                       .opt_dgain = F32(F2, x->arch.C),
                                                       .opt_dbias = F32(F1, 2 * x->arch.C) + x->arch.C}))
OP(head_norm,
   ops->head_norm_forward(device, &(p4_head_norm_forward_args){.N = x->N,
                                                               .heads = x->arch.H,
                                                               .D = x->arch.D,
                                                               .eps = 1e-6f,
                                                               .x = ACT(X0, x->N * x->arch.H * x->arch.D),
                                                               .ld_x = x->arch.H * x->arch.D,
                                                               .gain = F32(F0, x->arch.D),
                                                               .y = ACT(Y0, x->N * x->arch.H * x->arch.D),
                                                               .ld_y = x->arch.H * x->arch.D,
                                                               .opt_rstd = F32(F1, x->N * x->arch.H)}))
OP(head_norm_backward,
   ops->head_norm_backward(device, &(p4_head_norm_backward_args){.N = x->N,
                                                                 .heads = x->arch.H,
                                                                 .D = x->arch.D,
                                                                 .dy = ACT(X0, x->N * x->arch.H * x->arch.D),
                                                                 .ld_dy = x->arch.H * x->arch.D,
                                                                 .x = ACT(X1, x->N * x->arch.H * x->arch.D),
                                                                 .ld_x = x->arch.H * x->arch.D,
                                                                 .rstd = F32(F3, x->N * x->arch.H),
                                                                 .gain = F32(F0, x->arch.D),
                                                                 .dx = ACT(Y0, x->N * x->arch.H * x->arch.D),
                                                                 .ld_dx = x->arch.H * x->arch.D,
                                                                 .opt_dgain = F32(F1, x->arch.D)}))
OP(add, ops->add(device, ACT(Y0, x->N * x->arch.C), ACT(X0, x->N * x->arch.C), ACT(X1, x->N * x->arch.C),
                 1.0f, x->N * x->arch.C))
OP(swiglu_forward, ops->activate(device, ACT(Y0, x->N * x->arch.F), NULL, ACT(X0, 2 * x->N * x->arch.F),
                                 P4_SILU, true, x->N, x->arch.F))
OP(swiglu_int8, p4_int8_rows to = ROWS(Y0, x->arch.F);
   ops->activate(device, NULL, &to, ACT(X0, 2 * x->N * x->arch.F), P4_SILU, true, x->N, x->arch.F))
OP(gelu_forward, ops->activate(device, ACT(Y0, x->N * x->arch.F), NULL, ACT(X0, x->N * x->arch.F),
                               P4_GELU_TANH, false, x->N, x->arch.F))
OP(gelu_int8, p4_int8_rows to = ROWS(Y0, x->arch.F);
   ops->activate(device, NULL, &to, ACT(X0, x->N * x->arch.F), P4_GELU_TANH, false, x->N, x->arch.F))
OP(embed_forward, p4_weight token = {.dtype = P4_F32, .rows = x->arch.V, .cols = x->arch.C};
   token.data = F32(F0, x->arch.V * x->arch.C);
   ops->embed_forward(device, &(p4_embed_forward_args){.B = x->B,
                                                       .T = x->T,
                                                       .C = x->arch.C,
                                                       .ids = x->ids,
                                                       .token = &token,
                                                       .x = ACT(Y0, x->N * x->arch.C)}))
OP(embed_backward,
   ops->embed_backward(device, &(p4_embed_backward_args){.B = x->B,
                                                         .T = x->T,
                                                         .C = x->arch.C,
                                                         .V = x->arch.V,
                                                         .ids = x->ids,
                                                         .dx = ACT(X0, x->N * x->arch.C),
                                                         .dtoken = F32(F1, x->arch.V * x->arch.C)}))
#define LOGITS(pool) ACT(pool, x->NV *ops_logits_ld(x))
OP(cross_entropy, ops->cross_entropy(device, &(p4_cross_entropy_args){.N = x->NV,
                                                                      .V = x->arch.V,
                                                                      .ld = ops_logits_ld(x),
                                                                      .logits = LOGITS(X0),
                                                                      .targets = x->ids,
                                                                      .scale = 1e-3f,
                                                                      .nll = F32(F1, x->NV),
                                                                      .opt_hit = F32(F2, x->NV),
                                                                      .opt_dlogits = LOGITS(Y0)}))
OP(cross_entropy_capped, ops->cross_entropy(device, &(p4_cross_entropy_args){.N = x->NV,
                                                                             .V = x->arch.V,
                                                                             .ld = ops_logits_ld(x),
                                                                             .logits = LOGITS(X0),
                                                                             .map = {.cap = 30.0f},
                                                                             .targets = x->ids,
                                                                             .scale = 1e-3f,
                                                                             .nll = F32(F1, x->NV),
                                                                             .opt_hit = F32(F2, x->NV),
                                                                             .opt_dlogits = LOGITS(Y0)}))
OP(cross_entropy_nll, ops->cross_entropy(device, &(p4_cross_entropy_args){.N = x->NV,
                                                                          .V = x->arch.V,
                                                                          .ld = ops_logits_ld(x),
                                                                          .logits = LOGITS(X0),
                                                                          .targets = x->ids,
                                                                          .scale = 1e-3f,
                                                                          .nll = F32(F1, x->NV)}))
OP(kl_divergence, ops->kl_divergence(device, &(p4_kl_divergence_args){.N = x->NV,
                                                                      .V = x->arch.V,
                                                                      .ld = ops_logits_ld(x),
                                                                      .reference = LOGITS(X0),
                                                                      .logits = LOGITS(X1),
                                                                      .targets = x->ids,
                                                                      .kl = F32(F1, x->NV)}))
OP(distill_loss, ops->distill_loss(device, &(p4_distill_loss_args){.N = x->NV,
                                                                   .V = x->arch.V,
                                                                   .ld = ops_logits_ld(x),
                                                                   .logits = LOGITS(Y0),
                                                                   .opt_teacher = LOGITS(Y1),
                                                                   .targets = x->ids,
                                                                   .scale = 1e-3f,
                                                                   .weight = 0.9f,
                                                                   .temperature = 1.0f,
                                                                   .nll = F32(F1, x->NV),
                                                                   .hit = F32(F2, x->NV),
                                                                   .kl = F32(F3, x->NV)}))
OP(top_k, int64_t k = p4_min_i64(64, x->arch.V);
   p4_top_rows top = {.k = k, .ids = ops_at(x, Y0, x->NV *k * 4), .logp = F32(F1, x->NV *(k + 1))};
   ops->top_k(device, &(p4_top_k_args){.N = x->NV,
                                       .V = x->arch.V,
                                       .ld = ops_logits_ld(x),
                                       .logits = LOGITS(X0),
                                       .temperature = 1.0f,
                                       .top = top}))
OP(squared_error, ops->squared_error(device, &(p4_squared_error_args){.count = x->N * x->arch.C,
                                                                      .x = ACT(X0, x->N * x->arch.C),
                                                                      .opt_delta = ACT(X1, x->N * x->arch.C),
                                                                      .opt_target = ACT(Y0, x->N * x->arch.C),
                                                                      .scale = 1e-3f,
                                                                      .sum = x->sums,
                                                                      .opt_dx = ACT(Y1, x->N * x->arch.C)}))
OP(cosine_distance,
   ops->cosine_distance(device, &(p4_cosine_distance_args){.N = x->N,
                                                           .C = x->arch.C,
                                                           .x = ACT(X0, x->N * x->arch.C),
                                                           .target = ACT(X1, x->N * x->arch.C),
                                                           .scale = 1e-3f,
                                                           .sum = x->sums,
                                                           .dx = ACT(Y1, x->N * x->arch.C),
                                                           .accumulate = true}))
OP(channel_sum_sq, ops->channel_sum_sq(device, x->sums, ACT(X0, x->N * x->arch.F), x->N, x->arch.F))
OP(moments,
   ops->moments(device, (p4_moments *)(void *)x->sums, ACT(X0, x->N * x->arch.F), x->N, x->arch.F, x->arch.F))
OP(act_to_f32, ops->act_to_f32(device, F32(F1, x->arch.V * x->arch.C), ACT(X0, x->arch.V * x->arch.C),
                               x->arch.V * x->arch.C))
OP(zero, ops->zero(device, ACT(Y0, x->N * x->arch.C), ops_acts(x, x->N * x->arch.C)))

/* Each array once, whatever the op computes of it. */
void ops_layer_cases(ops_bench *x)
{
    double A = (double)ops_acts(x, 1), N = (double)x->N, V = (double)x->arch.V;
    double C = A * N * (double)x->arch.C, F = A * N * (double)x->arch.F, logits = A * (double)x->NV * V;
    double heads = A * N * (double)(x->arch.H * x->arch.D);
    double touched = 4.0 * (double)x->arch.C * (N < V ? N : V); /* rows of the embedding, fp32 */
    ops_case(x, run_rmsnorm, 0.0, 4.0 * C, "add_rmsnorm");
    ops_case(x, run_rmsnorm_int8, 0.0, 3.0 * C + C / A, "add_rmsnorm_int8");
    ops_case(x, run_layernorm, 0.0, 4.0 * C, "add_layernorm");
    ops_case(x, run_rmsnorm_backward, 0.0, 4.0 * C, "rmsnorm_backward");
    ops_case(x, run_layernorm_backward, 0.0, 4.0 * C, "layernorm_backward");
    ops_case(x, run_add, 0.0, 3.0 * C, "add");
    ops_case(x, run_head_norm, 0.0, 2.0 * heads, "head_norm");
    ops_case(x, run_head_norm_backward, 0.0, 3.0 * heads, "head_norm_backward");
    ops_case(x, run_swiglu_forward, 0.0, 3.0 * F, "swiglu_forward");
    ops_case(x, run_swiglu_int8, 0.0, 2.0 * F + F / A, "swiglu_int8");
    ops_case(x, run_gelu_forward, 0.0, 2.0 * F, "gelu_forward");
    ops_case(x, run_gelu_int8, 0.0, F + F / A, "gelu_int8");
    ops_case(x, run_embed_forward, 0.0, C + touched, "embed_forward");
    ops_case(x, run_embed_backward, 0.0, C + 2.0 * touched, "embed_backward");
    ops_case(x, run_cross_entropy, 0.0, 2.0 * logits, "cross_entropy");
    ops_case(x, run_cross_entropy_capped, 0.0, 2.0 * logits, "cross_entropy_capped");
    ops_case(x, run_cross_entropy_nll, 0.0, logits, "cross_entropy_nll");
    ops_case(x, run_kl_divergence, 0.0, 2.0 * logits, "kl_divergence");
    ops_case(x, run_distill_loss, 0.0, 3.0 * logits, "distill_loss");
    ops_case(x, run_top_k, 0.0, logits, "top_k");
    ops_case(x, run_squared_error, 0.0, 4.0 * C, "squared_error");
    ops_case(x, run_cosine_distance, 0.0, 4.0 * C, "cosine_distance");
    ops_case(x, run_channel_sum_sq, 0.0, F, "channel_sum_sq");
    ops_case(x, run_moments, 0.0, F, "moments");
    ops_case(x, run_act_to_f32, 0.0, (A + 4.0) * V * (double)x->arch.C, "act_to_f32");
    ops_case(x, run_zero, 0.0, C, "zero");
}
