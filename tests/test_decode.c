/* Decoding: prefill and steps with a cache against the network's forward pass at every position, on the
 * fixture models of all families; sampling. */
#include <math.h>

#include "net_world.h"
#include "src/decode/decoder.h"
#include "src/decode/sampler.h"
#include "src/families.h"

/* --- the decoder against the network ------------------------------------------------------------ */

/* Largest difference, of the largest logit: with a cache in fp32, in fp16, and where activations are rounded:
 * one within rounding of a tie takes the next code. */
static const double bound_f32 = 1e-4, bound_f16 = 5e-3, bound_int8 = 5e-2;

typedef struct world {
    const char *dir;
    p4_hf_model hf;
    p4_device_form original;
    p4_form form; /* its ternary tensors quantized */
    void *codes;
    int32_t *ids;
    int64_t T;
    float *logits; /* [T, V] of the form at hand, by the network */
} world;

static void make_ternary(world *w)
{
    const p4_model *model = &w->hf.model;
    int64_t bytes = 0;
    w->form = w->original.form;
    w->form.weights = p4_alloc((size_t)model->params_count, sizeof *w->form.weights);
    for (int64_t i = 0; i < model->params_count; i++) {
        const p4_param *p = &model->params[i];
        bytes += p->ternary ? (p->rows * (p4_code_row_bytes(p->cols) + 2) + 127) / 64 * 64 : 0;
    }
    char *to = w->codes = take(bytes);
    for (int64_t i = 0; i < model->params_count; i++) {
        const p4_param *p = &model->params[i];
        w->form.weights[i] = w->original.form.weights[i];
        if (!p->ternary) {
            continue;
        }
        uint8_t *code = (uint8_t *)to;
        uint16_t *scale = (uint16_t *)(void *)(to + (p->rows * p4_code_row_bytes(p->cols) + 1) / 2 * 2);
        ops->quantize(device, code, scale, NULL, &w->original.form.weights[i], P4_QUANT_ABSMEAN, 0.5f, NULL);
        w->form.weights[i] =
            (p4_weight){.dtype = P4_TERNARY, .rows = p->rows, .cols = p->cols, .data = code, .scale = scale};
        to += (p->rows * (p4_code_row_bytes(p->cols) + 2) + 127) / 64 * 64;
    }
}

static void forward(world *w, const p4_form *form, int activation_bits)
{
    const p4_arch *a = &w->hf.model.arch;
    p4_net net;
    p4_net_plan plan = {.B = 1, .T = w->T, .head = true, .activation_bits = activation_bits};
    EXPECT_OK(p4_net_open(&net, ops, device, &w->hf.model, &plan));
    void *x = take(w->T * a->C * ops->act_bytes(device));
    p4_net_set_tokens(&net, w->ids, 1, w->T);
    p4_net_embed(&net, form, x, 1, w->T);
    p4_net_layers(&net, &(p4_net_pass){.form = form, .B = 1, .T = w->T}, 0, a->L, x);
    p4_net_final_norm(&net, form, x, false, w->T);
    EXPECT_OK(p4_net_logits(&net, form, w->logits, w->T));
    ops->release(device, x);
    p4_net_close(&net);
}

static double largest_difference(const world *w, const float *got, int64_t position)
{
    int64_t V = w->hf.model.arch.V;
    double worst = 0, largest = 0;
    for (int64_t i = 0; i < V; i++) {
        double d = fabs((double)got[i] - (double)w->logits[position * V + i]);
        worst = d > worst || d != d ? d : worst;
    }
    for (int64_t i = 0; i < w->T * V; i++) {
        largest = fmax(largest, fabs((double)w->logits[i]));
    }
    return worst / largest;
}

/* A prompt of `prompt` tokens in passes of at most `batch`, then one token at a time, twice: the second time
 * after going back to the prompt. */
static void check_decoder(world *w, const p4_form *form, p4_decoder_plan plan, int64_t prompt, double bound)
{
    p4_decoder d;
    float *got = p4_alloc((size_t)w->hf.model.arch.V, sizeof *got);
    double worst = 0;
    EXPECT_OK(p4_decoder_open(&d, ops, device, &w->hf.model, form, &plan));
    for (int round = 0; round < 2; round++) {
        int64_t at = round == 0 ? 0 : prompt;
        p4_decoder_rewind(&d, at);
        for (; at < w->T; at = p4_decoder_length(&d)) {
            EXPECT_OK(p4_decoder_append(&d, w->ids + at, at == 0 ? prompt : 1, got));
            worst = fmax(worst, largest_difference(w, got, p4_decoder_length(&d) - 1));
        }
    }
    EXPECT(worst <= bound, "%s: prompt of %lld in passes of %lld, %d bits, cache %s: logits differ by %.3g",
           w->dir, (long long)prompt, (long long)plan.batch, plan.activation_bits,
           p4_dtype_name(plan.cache_type), worst);
    EXPECT_REFUSED(p4_decoder_append(&d, w->ids, 1, got), "the cache holds");
    p4_decoder_close(&d);
    free(got);
}

static void read_ids(world *w)
{
    p4_safetensors file;
    char *path = p4_format("%s/golden.safetensors", w->dir);
    EXPECT_OK(p4_safetensors_open(&file, path));
    const p4_safetensor *t = p4_safetensors_find(&file, "ids");
    int64_t each = (int64_t)(t->bytes / (uint64_t)(t->shape[0] * t->shape[1]));
    w->T = t->shape[1];
    w->ids = p4_alloc((size_t)w->T, sizeof *w->ids);
    for (int64_t i = 0; i < w->T; i++) {
        memcpy(&w->ids[i], (const char *)t->data + i * each, 4);
    }
    p4_safetensors_close(&file);
    free(path);
}

static int families_seen;
static char seen[64][32];

static void note_family(const char *family)
{
    for (int i = 0; i < families_seen; i++) {
        if (strcmp(seen[i], family) == 0) {
            return;
        }
    }
    strcpy(seen[families_seen++], family);
}

/* A token goes through some of the experts, and takes one row of an embedding that is not the head. */
static void check_weight_bytes(const p4_hf_model *hf)
{
    const p4_arch *a = &hf->model.arch;
    int64_t mixtures = 0;
    for (int64_t l = 0; l < a->L; l++) {
        mixtures += p4_arch_has_experts(a, l);
    }
    if (mixtures > 0) {
        double each = (double)p4_dtype_bytes(hf->model.weights[0].dtype),
               others = 3.0 * (double)(mixtures * (a->experts - a->experts_used) * a->F * a->C),
               rows = a->tied ? 0 : (double)((a->V - 1) * a->C);
        EXPECT_NEAR(p4_decoder_weight_bytes(&hf->model, hf->model.weights),
                    hf->stored_bytes - each * (others + rows), 0.5);
    }
}

static void check_model(const char *dir)
{
    const p4_list none = {0};
    world w = {.dir = dir};
    EXPECT_OK(p4_hf_model_open(&w.hf, dir));
    check_weight_bytes(&w.hf);
    p4_model_select_ternary(&w.hf.model, &none, true, true);
    EXPECT_OK(p4_device_form_open(&w.original, ops, device, &w.hf.model, w.hf.model.weights));
    read_ids(&w);
    make_ternary(&w);
    w.logits = p4_alloc((size_t)(w.T * w.hf.model.arch.V), sizeof *w.logits);
    p4_decoder_plan plan = {.capacity = w.T, .batch = w.T, .cache_type = P4_F32};
    forward(&w, &w.original.form, 0);
    check_decoder(&w, &w.original.form, plan, 1, bound_f32);
    plan.batch = 3;
    check_decoder(&w, &w.original.form, plan, w.T / 2 + 1, bound_f32);
    plan.cache_type = P4_F16;
    check_decoder(&w, &w.original.form, plan, 5, bound_f16);
    plan.cache_type = P4_F32;
    forward(&w, &w.form, 0);
    check_decoder(&w, &w.form, plan, 2, bound_f32);
    plan.batch = w.T;
    check_decoder(&w, &w.form, plan, w.T - 1, bound_f32);
    plan.activation_bits = 8;
    forward(&w, &w.form, 8);
    check_decoder(&w, &w.form, plan, w.T / 2, bound_int8);
    note_family(w.hf.model.arch.family);
    free(w.logits);
    free(w.ids);
    free(w.form.weights);
    ops->release(device, w.codes);
    p4_device_form_close(&w.original);
    p4_hf_model_close(&w.hf);
}

/* --- sampling ---------------------------------------------------------------------------------- */

enum { DRAWS = 20000, TOKENS = 5 };

/* How often each token is drawn. */
static void draw(p4_sampling sampling, const float *logits, double share[TOKENS])
{
    p4_sampler sampler;
    memset(share, 0, TOKENS * sizeof *share);
    EXPECT_OK(p4_sampler_open(&sampler, &sampling, TOKENS));
    for (int i = 0; i < DRAWS; i++) {
        int32_t id = p4_sampler_next(&sampler, logits);
        EXPECT(id >= 0 && id < TOKENS, "token %d", (int)id);
        share[id] += 1.0 / DRAWS;
    }
    p4_sampler_close(&sampler);
}

static void expect_shares(const char *what, const double got[TOKENS], const double want[TOKENS])
{
    for (int i = 0; i < TOKENS; i++) {
        EXPECT(fabs(got[i] - want[i]) < 0.02 && (want[i] > 0 || got[i] == 0),
               "%s: token %d: %.3f, expected %.3f", what, i, got[i], want[i]);
    }
}

static void check_sampling(void)
{
    /* Probabilities 0.1, 0.4, 0.05, 0.3, 0.15. */
    static const float logits[TOKENS] = {-2.302585f, -0.916291f, -2.995732f, -1.203973f, -1.897120f};
    double share[TOKENS];
    draw((p4_sampling){.temperature = 1, .top_p = 1}, logits, share);
    expect_shares("all", share, (double[]){0.1, 0.4, 0.05, 0.3, 0.15});
    draw((p4_sampling){.temperature = 1, .top_p = 1, .top_k = 2}, logits, share);
    expect_shares("top_k 2", share, (double[]){0, 4.0 / 7, 0, 3.0 / 7, 0});
    draw((p4_sampling){.temperature = 1, .top_p = 0.75}, logits, share);
    expect_shares("top_p 0.75", share, (double[]){0, 0.4 / 0.85, 0, 0.3 / 0.85, 0.15 / 0.85});
    draw((p4_sampling){.temperature = 1, .top_p = 0.5, .top_k = 3}, logits, share);
    expect_shares("top_p 0.5 of top_k 3", share, (double[]){0, 4.0 / 7, 0, 3.0 / 7, 0});
    draw((p4_sampling){.temperature = 1, .top_p = 1e-9}, logits, share);
    expect_shares("top_p near 0", share, (double[]){0, 1, 0, 0, 0});
    draw((p4_sampling){.temperature = 0.5, .top_p = 1}, logits, share);
    expect_shares("temperature 0.5", share,
                  (double[]){0.01 / 0.285, 0.16 / 0.285, 0.0025 / 0.285, 0.09 / 0.285, 0.0225 / 0.285});
    draw((p4_sampling){.temperature = 0, .top_p = 1}, logits, share);
    expect_shares("greedy", share, (double[]){0, 1, 0, 0, 0});
}

static void check_odd_logits(void)
{
    p4_sampler one, other;
    const p4_sampling sampling = {.temperature = 1, .top_p = 0.9, .seed = 3};
    float logits[TOKENS] = {NAN, -INFINITY, 1.0f, 1.0f, NAN};
    EXPECT_OK(p4_sampler_open(&one, &sampling, TOKENS));
    EXPECT_OK(p4_sampler_open(&other, &sampling, TOKENS));
    for (int i = 0; i < 100; i++) {
        int32_t id = p4_sampler_next(&one, logits);
        EXPECT(id == 2 || id == 3, "token %d", (int)id);
        EXPECT(id == p4_sampler_next(&other, logits), "the same seed draws another token");
    }
    logits[2] = logits[3] = NAN;
    EXPECT(p4_sampler_next(&one, logits) == -1, "a token was drawn from nothing");
    p4_sampler_close(&one);
    p4_sampler_close(&other);
}

int main(void)
{
    check_sampling();
    check_odd_logits();
    if (open_backend("cpu", false)) {
        int families = 0;
        for_each_model(check_model);
        while (p4_family_name(families) != NULL) {
            families++;
        }
        EXPECT(families_seen == families, "%d of %d families were decoded", families_seen, families);
        ops->close(device);
    }
    return TEST_END();
}
