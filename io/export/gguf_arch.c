#include "io/export/gguf_arch.h"

#include <math.h>
#include <string.h>

#define LLAMA_LIKE \
    .pairs = true, .qkv_bias = true, .o_bias = true, .mlp_bias = true, .factors = true, .activation = P4_SILU
static const p4_gguf_arch table[] = {
    {"llama", "llama", LLAMA_LIKE},
    {"mistral", "llama", LLAMA_LIKE},
    {"granite", "granite", LLAMA_LIKE, .multipliers = true},
    {"smollm3", "smollm3", .pairs = true, .qkv_bias = true, .unrotated_period = 4, .activation = P4_SILU},
    {"qwen2", "qwen2", .qkv_bias = true, .activation = P4_SILU},
    {"qwen3", "qwen3", .qkv_bias = true, .activation = P4_SILU},
    {"phi", "phi2", .qkv_bias = true, .o_bias = true, .mlp_bias = true, .needs_biases = true,
     .whole_heads = true, .part_of_heads = true, .writes_head = true, .shared_norm = true, .head_bias = true},
    {"phi3", "phi3", .part_of_heads = true, .whole_heads = true, .longrope = true, .activation = P4_SILU},
    {"olmo2", "olmo2", .qkv_bias = true, .whole_heads = true, .writes_head = true, .activation = P4_SILU},
    {"olmo3", "olmo2", .qkv_bias = true, .whole_heads = true, .writes_head = true, .activation = P4_SILU,
     .window_period = 4, .one_theta = true},
    {"cohere", "command-r", .qkv_bias = true, .neighbors = true, .only_tied = true, .shared_norm = true,
     .logit_scale = true, .most_layers = 63, .activation = P4_SILU},
    {"falcon", "falcon", .whole_heads = true, .shared_norm = true, .only_parallel = true,
     .mlp_norm_first = true},
    {"gemma", "gemma", .gemma = true, .qkv_bias = true, .only_tied = true},
    {"gemma2", "gemma2", .gemma = true, .qkv_bias = true, .only_tied = true, .window_period = 2,
     .large_layers = 46},
    {"gemma3_text", "gemma3", .gemma = true, .qkv_bias = true, .window_period = 6, .large_layers = 62},
    {"qwen3_moe", "qwen3moe", .qkv_bias = true, .activation = P4_SILU, .shares = P4_GGUF_SHARES_NORMED},
    {"mixtral", "llama", .pairs = true, .activation = P4_SILU, .shares = P4_GGUF_SHARES_NORMED},
    {"olmoe", "olmoe", .qkv_bias = true, .whole_heads = true, .whole_kv_heads = true, .writes_head = true,
     .activation = P4_SILU, .shares = P4_GGUF_SHARES_AS_IS},
    {"gpt_neox", "gptneox", .part_of_heads = true, .qkv_bias = true, .o_bias = true, .mlp_bias = true,
     .needs_biases = true, .whole_heads = true, .writes_head = true},
    {"gpt2", "gpt2", .qkv_bias = true, .o_bias = true, .mlp_bias = true, .whole_heads = true},
    {"starcoder2", "starcoder2", .qkv_bias = true, .o_bias = true, .mlp_bias = true, .needs_biases = true,
     .whole_heads = true},
};

static bool is_near(double a, double b)
{
    return fabs(a - b) <= 1e-3 * fabs(b);
}

/* A factor whose 0 stands for 1. */
static double factor_of(float factor)
{
    return factor == 0 ? 1 : (double)factor;
}

static p4_rc check_positions(const p4_gguf_arch *g, const p4_arch *a, const char *writer)
{
    p4_rc rc = P4_OK;
    const p4_rope *r = &a->rope;
    bool yarn_factor = fabs((double)r->attention_factor - (0.1 * log(r->factor) + 1)) < 1e-3;
    CHECK(a->rope_pairs == g->neighbors, "%s: llama.cpp's %s %s neighboring elements as stored", writer,
          g->name, g->neighbors ? "rotates" : "does not rotate");
    CHECK(a->rope_dim == 0 || a->rope_dim == a->D || g->part_of_heads,
          "%s: llama.cpp's %s rotates whole heads, this model a part of each", writer, g->name);
    CHECK(r->scaling != P4_ROPE_DYNAMIC, "%s: llama.cpp has no dynamic scaling of rotary positions", writer);
    CHECK(r->scaling != P4_ROPE_LLAMA3 || g->factors,
          "%s: llama.cpp's %s does not take Llama 3's scaling of rotary positions", writer, g->name);
    CHECK(r->scaling != P4_ROPE_LONGROPE || g->longrope,
          "%s: llama.cpp's %s does not take longrope positions", writer, g->name);
    CHECK(r->scaling != P4_ROPE_YARN ||
              (r->beta_fast == 32 && r->beta_slow == 1 && !r->no_truncation && yarn_factor),
          "%s: llama.cpp takes YaRN positions with beta_fast 32, beta_slow 1 and the usual attention factor "
          "only",
          writer);
    CHECK(!a->local_rope || a->windowed_rope.scaling == P4_ROPE_DEFAULT,
          "%s: llama.cpp does not scale the rotary positions of layers with a window", writer);
    CHECK(!g->one_theta || !a->local_rope || a->window == 0 || a->windowed_rope.theta == a->rope.theta,
          "%s: llama.cpp's %s has one theta, this model %g and, in layers with a window, %g", writer, g->name,
          a->rope.theta, a->windowed_rope.theta);
    for (int64_t l = 0; l < a->L && !a->learned_positions; l++) {
        bool want = g->unrotated_period == 0 || (l + 1) % g->unrotated_period != 0;
        CHECK(p4_arch_rotates(a, l) == want, "%s: llama.cpp's %s %s layer %lld, this model does not", writer,
              g->name, want ? "rotates" : "does not rotate", (long long)l);
    }
done:
    return rc;
}

static p4_rc check_attention(const p4_gguf_arch *g, const p4_arch *a, const char *writer)
{
    p4_rc rc = P4_OK;
    double usual = g->large_layers > 0 && a->L == g->large_layers ? 1 / sqrt((double)(a->C / a->H))
                                                                  : 1 / sqrt((double)a->D);
    bool gemma2 = strcmp(g->name, "gemma2") == 0;
    CHECK(!a->inverse_layer_scale, "%s: llama.cpp does not divide attention scores by the layer's number",
          writer);
    CHECK(g->multipliers || is_near((double)a->attention_scale, usual),
          "%s: llama.cpp's %s scales attention scores by %.6g, this model by %.6g", writer, g->name, usual,
          (double)a->attention_scale);
    CHECK(a->attention_cap == 0 || gemma2, "%s: llama.cpp's %s does not cap attention scores", writer,
          g->name);
    CHECK(a->logit_cap == 0 || gemma2 || strcmp(g->name, "gemma3") == 0,
          "%s: llama.cpp's %s does not cap logits", writer, g->name);
    CHECK(!gemma2 || (a->attention_cap > 0 && a->logit_cap > 0),
          "%s: llama.cpp's gemma2 caps attention scores and logits, this model does not", writer);
    CHECK(!g->whole_heads || a->H * a->D == a->C,
          "%s: llama.cpp's %s has heads of hidden_size / heads = %lld elements, this model of %lld", writer,
          g->name, (long long)(a->C / a->H), (long long)a->D);
    for (int64_t l = 0; l < a->L && a->window > 0 && g->window_period > 0; l++) {
        bool want = l % g->window_period < g->window_period - 1;
        CHECK((p4_arch_window(a, l) > 0) == want, "%s: llama.cpp's %s has %s window in layer %lld", writer,
              g->name, want ? "a" : "no", (long long)l);
    }
done:
    return rc;
}

static p4_rc check_rest(const p4_gguf_arch *g, const p4_arch *a, const char *writer)
{
    p4_rc rc = P4_OK;
    /* GELU by erf or by tanh: llama.cpp has one, from a table in fp16. */
    bool gelu = a->activation == P4_GELU_TANH || a->activation == P4_GELU_ERF;
    CHECK(g->activation == P4_SILU ? a->activation == P4_SILU : gelu,
          "%s: llama.cpp's %s computes %s in the MLP, this model does not", writer, g->name,
          g->activation == P4_SILU ? "SiLU" : "GELU");
    CHECK(!a->qkv_bias || g->qkv_bias, "%s: llama.cpp's %s takes no biases of queries, keys and values",
          writer, g->name);
    CHECK(!a->o_bias || g->o_bias, "%s: llama.cpp's %s takes no bias of the attention output", writer,
          g->name);
    CHECK(!a->mlp_bias || g->mlp_bias, "%s: llama.cpp's %s takes no biases of the MLP", writer, g->name);
    CHECK(!g->needs_biases || (a->qkv_bias && a->o_bias && a->mlp_bias),
          "%s: llama.cpp's %s needs biases of attention and MLP, this model lacks some", writer, g->name);
    CHECK(a->tied || !g->only_tied, "%s: llama.cpp's %s takes the embedding as its head, this model has one",
          writer, g->name);
    CHECK(!a->shared_norm || g->shared_norm,
          "%s: llama.cpp's %s has a norm for the MLP, this model one for both", writer, g->name);
    CHECK(a->parallel || !g->only_parallel,
          "%s: llama.cpp's %s computes attention and MLP in parallel, this model one after the other", writer,
          g->name);
    CHECK(!a->head_bias || g->head_bias, "%s: llama.cpp's %s takes no bias of the head", writer, g->name);
    double embedding = g->gemma ? sqrt((double)a->C) : 1;
    CHECK(g->multipliers || is_near(factor_of(a->embedding_scale), embedding),
          "%s: llama.cpp's %s scales embeddings by %.6g, this model by %.6g", writer, g->name, embedding,
          factor_of(a->embedding_scale));
    CHECK(g->multipliers ||
              (factor_of(a->residual_scale) == 1 && (g->logit_scale || factor_of(a->logit_scale) == 1)),
          "%s: llama.cpp's %s does not scale outputs of attention and MLP or logits", writer, g->name);
    CHECK(g->most_layers == 0 || a->L <= g->most_layers,
          "%s: llama.cpp's %s of more than %d layers has norms of queries and keys, this model of %lld has "
          "none",
          writer, g->name, g->most_layers, (long long)a->L);
done:
    return rc;
}

static p4_rc check_experts(const p4_gguf_arch *g, const p4_arch *a, const char *writer)
{
    p4_rc rc = P4_OK;
    bool normed = g->shares == P4_GGUF_SHARES_NORMED;
    CHECK(g->shares == P4_GGUF_SHARES_NONE || (a->experts > 0 && a->dense_width == 0),
          "%s: llama.cpp's %s has experts in every layer, this model has layers without them", writer,
          g->name);
    CHECK(g->shares == P4_GGUF_SHARES_NONE || a->normed_shares == normed,
          "%s: llama.cpp's %s %s the weights of a token's experts, this model %s", writer, g->name,
          normed ? "normalizes" : "does not normalize", normed ? "does not" : "does");
    CHECK(!g->whole_kv_heads || a->H == a->Hkv,
          "%s: llama.cpp's %s has as many key/value heads as heads, this model %lld of %lld", writer, g->name,
          (long long)a->Hkv, (long long)a->H);
done:
    return rc;
}

p4_rc p4_gguf_arch_find(const p4_gguf_arch **found, const p4_arch *arch, const char *writer)
{
    p4_rc rc = P4_OK;
    *found = NULL;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        if (strcmp(table[i].family, arch->family) == 0) {
            *found = &table[i];
        }
    }
    CHECK(*found != NULL, "%s: model family %s is not written", writer, arch->family);
    TRY(check_positions(*found, arch, writer));
    TRY(check_attention(*found, arch, writer));
    TRY(check_rest(*found, arch, writer));
    TRY(check_experts(*found, arch, writer));
done:
    return rc;
}

int64_t p4_gguf_context(const p4_gguf_arch *gguf, const p4_arch *arch)
{
    bool ignored = arch->window > 0 && gguf->window_period == 0;
    return ignored ? p4_min_i64(arch->window, arch->positions) : arch->positions;
}

static void put_positions(p4_gguf *g, const p4_arch *a)
{
    const p4_rope *r = &a->rope;
    if (a->learned_positions) {
        return;
    }
    p4_gguf_put_u32(g, ".rope.dimension_count", p4_arch_rope_dim(a));
    p4_gguf_put_f32(g, ".rope.freq_base", r->theta);
    if (a->local_rope && a->window > 0) {
        p4_gguf_put_f32(g, ".rope.freq_base_swa", a->windowed_rope.theta);
    }
    if (r->scaling == P4_ROPE_LINEAR || r->scaling == P4_ROPE_YARN) {
        p4_gguf_put_text(g, ".rope.scaling.type", r->scaling == P4_ROPE_YARN ? "yarn" : "linear");
        p4_gguf_put_f32(g, ".rope.scaling.factor", r->factor);
    }
    if (r->scaling == P4_ROPE_YARN || r->scaling == P4_ROPE_LONGROPE) {
        p4_gguf_put_u32(g, ".rope.scaling.original_context_length", (int64_t)r->original_positions);
    }
    if (r->scaling == P4_ROPE_LONGROPE && r->attention_factor != 0) {
        p4_gguf_put_f32(g, ".rope.scaling.attn_factor", r->attention_factor);
    }
}

void p4_gguf_put_arch(p4_gguf *g, const p4_gguf_arch *gguf, const p4_arch *a)
{
    p4_gguf_put_u32(g, ".context_length", p4_gguf_context(gguf, a));
    p4_gguf_put_u32(g, ".embedding_length", a->C);
    p4_gguf_put_u32(g, ".block_count", a->L);
    p4_gguf_put_u32(g, ".feed_forward_length", a->F);
    p4_gguf_put_u32(g, ".attention.head_count", a->H);
    p4_gguf_put_u32(g, ".attention.head_count_kv", a->Hkv);
    p4_gguf_put_u32(g, ".vocab_size", a->V);
    p4_gguf_put_f32(g, a->layer_norm ? ".attention.layer_norm_epsilon" : ".attention.layer_norm_rms_epsilon",
                    (double)a->norm_eps);
    if (!gguf->whole_heads) {
        p4_gguf_put_u32(g, ".attention.key_length", a->D);
        p4_gguf_put_u32(g, ".attention.value_length", a->D);
    }
    if (strcmp(gguf->name, "gptneox") == 0) {
        p4_gguf_put_bool(g, ".use_parallel_residual", a->parallel);
    }
    if (gguf->shares != P4_GGUF_SHARES_NONE) {
        p4_gguf_put_u32(g, ".expert_count", a->experts);
        p4_gguf_put_u32(g, ".expert_used_count", a->experts_used);
        p4_gguf_put_u32(g, ".expert_feed_forward_length", a->F);
    }
    put_positions(g, a);
    if (a->window > 0 && gguf->window_period > 0) {
        p4_gguf_put_u32(g, ".attention.sliding_window", a->window);
    }
    if (a->attention_cap > 0) {
        p4_gguf_put_f32(g, ".attn_logit_softcapping", (double)a->attention_cap);
    }
    if (a->logit_cap > 0) {
        p4_gguf_put_f32(g, ".final_logit_softcapping", (double)a->logit_cap);
    }
    if (gguf->logit_scale) {
        p4_gguf_put_f32(g, ".logit_scale", factor_of(a->logit_scale));
    }
    if (gguf->multipliers) {
        p4_gguf_put_f32(g, ".attention.scale", (double)a->attention_scale);
        p4_gguf_put_f32(g, ".embedding_scale", factor_of(a->embedding_scale));
        p4_gguf_put_f32(g, ".residual_scale", factor_of(a->residual_scale));
        p4_gguf_put_f32(g, ".logit_scale", 1 / factor_of(a->logit_scale));
    }
}
