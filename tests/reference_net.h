/* reference_net.h - the network in double, one number after the other, for tests: features as src/arch.h
 * describes them, written without the code under test. Only the rotary tables are those of src/rope.c. */
#ifndef P4_REFERENCE_NET_H
#define P4_REFERENCE_NET_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/model.h"

enum { REFERENCE_T_MAX = 32, REFERENCE_WIDTH_MAX = 256 };

typedef struct reference {
    const p4_model *model;
    double **param; /* [params_count]: each slot in one tensor, with experts in one for each of them */
    const int32_t *ids;
    int64_t B, T;
    double *logits; /* [B T, V] */
    double squares; /* half the sum of squares of the last block's output */
} reference;

typedef double reference_rows[REFERENCE_T_MAX][REFERENCE_WIDTH_MAX];

static const double *reference_param(const reference *r, p4_role role, int64_t layer)
{
    int64_t at = p4_model_find(r->model, role, layer);
    return at >= 0 ? r->param[at] : NULL;
}

static void reference_linear(double *y, const double *x, const double *w, const double *bias, int64_t in,
                             int64_t out)
{
    for (int64_t o = 0; o < out; o++) {
        y[o] = bias != NULL ? bias[o] : 0.0;
        for (int64_t i = 0; i < in; i++) {
            y[o] += w[o * in + i] * x[i];
        }
    }
}

static void reference_norm(const p4_arch *a, double *y, const double *x, const double *gain,
                           const double *bias, int64_t C, bool layer_norm)
{
    double mean = 0, squares = 0;
    for (int64_t c = 0; layer_norm && c < C; c++) {
        mean += x[c] / (double)C;
    }
    for (int64_t c = 0; c < C; c++) {
        squares += (x[c] - mean) * (x[c] - mean) / (double)C;
    }
    for (int64_t c = 0; c < C; c++) {
        y[c] =
            (x[c] - mean) / sqrt(squares + (double)a->norm_eps) * (gain[c] + (a->gain_offset ? 1.0 : 0.0)) +
            (bias != NULL ? bias[c] : 0.0);
    }
}

static double reference_activation(p4_activation function, double x)
{
    switch (function) {
    case P4_GELU_TANH:
        return 0.5 * x * (1 + tanh(sqrt(2 / 3.14159265358979323846) * (x + 0.044715 * x * x * x)));
    case P4_GELU_ERF:
        return 0.5 * x * (1 + erf(x / sqrt(2)));
    case P4_SILU:
        return x / (1 + exp(-x));
    case P4_RELU:
        return fmax(x, 0);
    case P4_RELU_SQ:
        return fmax(x, 0) * fmax(x, 0);
    case P4_ACTIVATION_COUNT:
        break;
    }
    return NAN;
}

static void reference_rotate(const reference *r, double *head, int64_t layer, int64_t t)
{
    const p4_arch *a = &r->model->arch;
    float c[REFERENCE_T_MAX * REFERENCE_WIDTH_MAX], s[REFERENCE_T_MAX * REFERENCE_WIDTH_MAX];
    bool local = a->local_rope && p4_arch_window(a, layer) > 0;
    int64_t R = a->rope_dim > 0 ? a->rope_dim : a->D;
    p4_rope_tables(local ? &a->windowed_rope : &a->rope, R, r->T, c, s);
    for (int64_t i = 0; i < R / 2; i++) {
        int64_t first = a->rope_pairs ? 2 * i : i, second = a->rope_pairs ? 2 * i + 1 : i + R / 2;
        double x = head[first], y = head[second], cosine = (double)c[t * R / 2 + i],
               sine = (double)s[t * R / 2 + i];
        head[first] = x * cosine - y * sine;
        head[second] = y * cosine + x * sine;
    }
}

/* One token's queries, keys and values, q | k | v, from the block's input. */
static void reference_qkv(const reference *r, double *qkv, const double *x, int64_t layer, int64_t t)
{
    const p4_arch *a = &r->model->arch;
    int64_t D = a->D, q = a->H * D, kv = a->Hkv * D;
    double raw[REFERENCE_WIDTH_MAX];
    reference_linear(raw, x, reference_param(r, P4_ROLE_QKV, layer),
                     reference_param(r, P4_ROLE_QKV_BIAS, layer), a->C, q + 2 * kv);
    for (int64_t i = 0; i < q + 2 * kv; i++) {
        int64_t per = a->H / a->Hkv, head = i / D, stored = head / per * (per + 2) + head % per;
        if (i >= q) { /* a key or a value, behind the queries of its group */
            stored = (head - a->H) % a->Hkv * (per + 2) + per + (head - a->H) / a->Hkv;
        }
        qkv[i] = raw[a->qkv_by_head ? stored * D + i % D : i];
    }
    const double *q_gain = reference_param(r, P4_ROLE_Q_GAIN, layer),
                 *k_gain = reference_param(r, P4_ROLE_K_GAIN, layer);
    int64_t each = a->qk_norm == P4_QK_NORM_HEAD ? D : 0;
    for (int64_t at = 0; q_gain != NULL && at<q; at += each> 0 ? each : q) {
        reference_norm(a, qkv + at, qkv + at, q_gain, NULL, each > 0 ? each : q, false);
    }
    for (int64_t at = 0; k_gain != NULL && at<kv; at += each> 0 ? each : kv) {
        reference_norm(a, qkv + q + at, qkv + q + at, k_gain, NULL, each > 0 ? each : kv, false);
    }
    for (int64_t h = 0; h < a->H + a->Hkv && p4_arch_rotates(a, layer); h++) {
        reference_rotate(r, qkv + h * D, layer, t);
    }
}

static void reference_attention(const reference *r, double *out, reference_rows qkv, int64_t layer, int64_t t)
{
    const p4_arch *a = &r->model->arch;
    int64_t D = a->D, window = p4_arch_window(a, layer),
            first = window > 0 && t >= window ? t - window + 1 : 0;
    for (int64_t h = 0; h < a->H; h++) {
        const double *q = qkv[t] + h * D;
        int64_t k_at = (a->H + h / (a->H / a->Hkv)) * D, v_at = k_at + a->Hkv * D;
        double total = 0;
        memset(out + h * D, 0, (size_t)D * sizeof *out);
        for (int64_t j = first; j <= t; j++) {
            double score = 0, cap = (double)a->attention_cap;
            for (int64_t d = 0; d < D; d++) {
                score += q[d] * qkv[j][k_at + d] * (double)p4_arch_attention_scale(a, layer);
            }
            double e = exp(cap > 0 ? cap * tanh(score / cap) : score);
            total += e;
            for (int64_t d = 0; d < D; d++) {
                out[h * D + d] += e * qkv[j][v_at + d];
            }
        }
        for (int64_t d = 0; d < D; d++) {
            out[h * D + d] /= total;
        }
    }
}

/* The MLP whose matrices are those after the first by `expert`. */
static void reference_one_mlp(const reference *r, double *out, const double *x, int64_t layer, int64_t expert)
{
    const p4_arch *a = &r->model->arch;
    const double *w_up = r->param[p4_model_find(r->model, P4_ROLE_UP, layer) + expert],
                 *w_down = r->param[p4_model_find(r->model, P4_ROLE_DOWN, layer) + expert];
    const int64_t F = p4_arch_mlp_width(a, layer);
    double up[REFERENCE_WIDTH_MAX], h[REFERENCE_WIDTH_MAX];
    reference_linear(up, x, w_up, reference_param(r, P4_ROLE_UP_BIAS, layer), a->C, a->gated_mlp ? 2 * F : F);
    for (int64_t f = 0; f < F; f++) {
        h[f] = reference_activation(a->activation, up[f]) * (a->gated_mlp ? up[F + f] : 1.0);
    }
    reference_linear(out, h, w_down, reference_param(r, P4_ROLE_DOWN_BIAS, layer), F, a->C);
}

/* Of a mixture of experts: those with the largest of the router's probabilities, by these probabilities. */
static void reference_mlp(const reference *r, double *out, const double *x, int64_t layer)
{
    const p4_arch *a = &r->model->arch;
    double p[REFERENCE_WIDTH_MAX], one[REFERENCE_WIDTH_MAX], all = 0, taken = 0;
    if (!p4_arch_has_experts(a, layer)) {
        reference_one_mlp(r, out, x, layer, 0);
        return;
    }
    reference_linear(p, x, reference_param(r, P4_ROLE_ROUTER, layer), NULL, a->C, a->experts);
    for (int64_t e = 0; e < a->experts; e++) {
        p[e] = exp(p[e]);
        all += p[e];
    }
    bool is_taken[REFERENCE_WIDTH_MAX] = {false};
    for (int64_t e = 0; e < a->experts; e++) {
        int64_t above = 0;
        for (int64_t other = 0; other < a->experts; other++) {
            above += p[other] > p[e];
        }
        is_taken[e] = above < a->experts_used;
        taken += is_taken[e] ? p[e] : 0.0;
    }
    memset(out, 0, (size_t)a->C * sizeof *out);
    for (int64_t e = 0; e < a->experts; e++) {
        reference_one_mlp(r, one, x, layer, e);
        for (int64_t c = 0; c < a->C; c++) {
            out[c] += is_taken[e] ? p[e] / (a->normed_shares ? taken : all) * one[c] : 0.0;
        }
    }
}

/* x += what attention or the MLP gave, through its norm and factor. */
static void reference_add(const reference *r, double *x, double *out, p4_role post, int64_t layer)
{
    const p4_arch *a = &r->model->arch;
    if (a->post_norm) {
        reference_norm(a, out, out, reference_param(r, post, layer), NULL, a->C, false);
    }
    for (int64_t c = 0; c < a->C; c++) {
        x[c] += out[c] * (a->residual_scale != 0 ? (double)a->residual_scale : 1.0);
    }
}

static void reference_pre_norm(const reference *r, double *y, const double *x, p4_role gain, int64_t layer)
{
    const p4_arch *a = &r->model->arch;
    gain = a->shared_norm ? P4_ROLE_NORM1_GAIN : gain;
    if (a->no_pre_norm) {
        memcpy(y, x, (size_t)a->C * sizeof *y);
    } else {
        reference_norm(a, y, x, reference_param(r, gain, layer),
                       a->layer_norm ? reference_param(r, (p4_role)(gain + 1), layer) : NULL, a->C,
                       a->layer_norm);
    }
}

static void reference_block(const reference *r, reference_rows x, int64_t layer)
{
    const p4_arch *a = &r->model->arch;
    static reference_rows qkv, before;
    double n[REFERENCE_WIDTH_MAX], att[REFERENCE_WIDTH_MAX], out[REFERENCE_WIDTH_MAX];
    memcpy(before, x, sizeof before);
    for (int64_t t = 0; t < r->T; t++) {
        reference_pre_norm(r, n, x[t], P4_ROLE_NORM1_GAIN, layer);
        reference_qkv(r, qkv[t], n, layer, t);
    }
    for (int64_t t = 0; t < r->T; t++) {
        reference_attention(r, att, qkv, layer, t);
        reference_linear(out, att, reference_param(r, P4_ROLE_O, layer),
                         reference_param(r, P4_ROLE_O_BIAS, layer), a->H * a->D, a->C);
        reference_add(r, x[t], out, P4_ROLE_POST1_GAIN, layer);
        reference_pre_norm(r, n, a->parallel ? before[t] : x[t], P4_ROLE_NORM2_GAIN, layer);
        reference_mlp(r, out, n, layer);
        reference_add(r, x[t], out, P4_ROLE_POST2_GAIN, layer);
    }
}

/* The mean cross-entropy; logits and squares are set. */
static double reference_loss(reference *r)
{
    const p4_arch *a = &r->model->arch;
    static reference_rows x;
    double loss = 0, n[REFERENCE_WIDTH_MAX];
    const double *embed = reference_param(r, P4_ROLE_EMBED, -1),
                 *position = reference_param(r, P4_ROLE_POSITION, -1),
                 *head = a->tied ? embed : reference_param(r, P4_ROLE_HEAD, -1);
    r->squares = 0;
    for (int64_t b = 0; b < r->B; b++) {
        const int32_t *ids = r->ids + b * r->T;
        for (int64_t i = 0; i < r->T * a->C; i++) {
            int64_t t = i / a->C, c = i % a->C;
            x[t][c] =
                embed[ids[t] * a->C + c] * (a->embedding_scale != 0 ? (double)a->embedding_scale : 1.0) +
                (position != NULL ? position[i] : 0.0);
        }
        for (int64_t l = 0; l < a->L; l++) {
            reference_block(r, x, l);
        }
        for (int64_t t = 0; t < r->T; t++) {
            double *logits = r->logits + (b * r->T + t) * a->V, total = 0;
            for (int64_t c = 0; c < a->C; c++) {
                r->squares += 0.5 * x[t][c] * x[t][c];
            }
            reference_norm(a, n, x[t], reference_param(r, P4_ROLE_FINAL_GAIN, -1),
                           reference_param(r, P4_ROLE_FINAL_BIAS, -1), a->C, a->layer_norm);
            reference_linear(logits, n, head, reference_param(r, P4_ROLE_HEAD_BIAS, -1), a->C, a->V);
            for (int64_t v = 0; v < a->V; v++) {
                double z = logits[v] * (a->logit_scale != 0 ? (double)a->logit_scale : 1.0),
                       cap = (double)a->logit_cap;
                logits[v] = cap > 0 ? cap * tanh(z / cap) : z;
                total += exp(logits[v]);
            }
            loss += t + 1 < r->T ? (log(total) - logits[ids[t + 1]]) / (double)(r->B * (r->T - 1)) : 0.0;
        }
    }
    return loss;
}

#endif
