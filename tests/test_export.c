/* The formats of other programs (io/export): blocks of ternary weights against bytes that the programs
 * themselves made, the container, the names of the key `exports`. tests/clients loads whole models in those
 * programs. */
#include <stdlib.h>

#include "check.h"
#include "io/export/gguf_tensors.h"
#include "io/export/trits.h"
#include "io/export/writers.h"
#include "io/hf/hf_model.h"
#include "src/config.h"
#include "src/exports.h"
#include "src/phase4.h"

enum { COUNT = P4_TQ_COUNT };

static void make_codes(uint8_t *codes, int64_t count, int (*trit)(int64_t i))
{
    memset(codes, 0, (size_t)p4_code_row_bytes(count));
    for (int64_t i = 0; i < count; i++) {
        codes[i / 4] |= (uint8_t)((trit(i) + 1) << 2 * (i % 4));
    }
}

static int by_turns(int64_t i)
{
    return (int)(i % 3) - 1;
}

static int mixed(int64_t i)
{
    return (int)((i * i + i / 7) % 3) - 1;
}

static int none(int64_t i)
{
    (void)i;
    return 0;
}

static void expect_bytes(const char *what, const uint8_t *bytes, size_t count, const char *want)
{
    char got[2 * P4_TQ2_0_BYTES + 1] = "";
    for (size_t i = 0; i < count; i++) {
        snprintf(got + 2 * i, 3, "%02x", bytes[i]);
    }
    EXPECT(strcmp(got, want) == 0, "%s:\n%s, expected\n%s", what, got, want);
}

/* Made by the reference's quantizer from the same values times 0.5, fp16 bits 0x3800. */
static void test_blocks(void)
{
    uint8_t codes[COUNT / 4], block[P4_TQ2_0_BYTES];
    make_codes(codes, COUNT, by_turns);
    p4_trits_tq1_0(block, codes, COUNT, 0x3800);
    expect_bytes(
        "TQ1_0", block, P4_TQ1_0_BYTES,
        "456ccf456ccf456ccf456ccf456ccf456ccf456ccf456ccf456ccf456ccf456c94bb3194bb3194bb3194bb3194bb319430"
        "92bb300038");
    p4_trits_tq2_0(block, codes, COUNT, 0x3800);
    expect_bytes(
        "TQ2_0", block, P4_TQ2_0_BYTES,
        "18618618618618618618618618618618618618618618618618618618618618618618618618618618618618618618618618"
        "6186186186186186186186186186180038");
    make_codes(codes, COUNT, mixed);
    p4_trits_tq1_0(block, codes, COUNT, 0x3800);
    expect_bytes(
        "TQ1_0", block, P4_TQ1_0_BYTES,
        "4782901198581cf8b76bc2d685b033c80953e723414782901198581cf8b76bc2e429ee3d35f70d501567a805705c22e38f"
        "c1e7560038");
    p4_trits_tq2_0(block, codes, COUNT, 0x3800);
    expect_bytes(
        "TQ2_0", block, P4_TQ2_0_BYTES,
        "589509901901a02a122162562542640680a84a8488589509901901a02a12216209901901a02a122162562542640680a84a"
        "8488589509901901a02a12216256250038");
    make_codes(codes, COUNT, none);
    p4_trits_tq1_0(block, codes, COUNT, 0);
    EXPECT(block[0] == 0x80 && block[47] == 0x80 && block[48] == 0x7f && block[51] == 0x7f,
           "zeros in TQ1_0: %02x %02x %02x %02x", block[0], block[47], block[48], block[51]);
}

/* Two blocks of Q2_0: the scale, then four weights a byte, low bits first. */
static void test_q2_0(void)
{
    uint8_t codes[2 * P4_Q2_0_COUNT / 4], blocks[2 * P4_Q2_0_BYTES];
    make_codes(codes, 2 * P4_Q2_0_COUNT, mixed);
    p4_trits_q2_0(blocks, codes, 2 * P4_Q2_0_COUNT, 0x1234);
    for (int64_t i = 0; i < 2 * P4_Q2_0_COUNT; i++) {
        const uint8_t *block = blocks + i / P4_Q2_0_COUNT * P4_Q2_0_BYTES;
        int64_t at = i % P4_Q2_0_COUNT;
        EXPECT((block[2 + at / 4] >> 2 * (at % 4) & 3) - 1 == mixed(i), "weight %d", (int)i);
        EXPECT(block[0] == 0x34 && block[1] == 0x12, "scale %02x%02x", block[1], block[0]);
    }
}

/* Two blocks, made by bitnet.cpp's quantize_i2_s from the same values times 0.5. */
static void test_i2_s(void)
{
    enum { BLOCKS = 2 };
    uint8_t codes[BLOCKS * P4_I2_S_COUNT / 4], blocks[BLOCKS * P4_I2_S_BYTES];
    make_codes(codes, BLOCKS * P4_I2_S_COUNT, by_turns);
    p4_trits_i2_s(blocks, codes, BLOCKS * P4_I2_S_COUNT);
    expect_bytes("I2_S", blocks, sizeof blocks,
                 "2449922449922449922449922449922449922449922449922449922449922449922449922449922449922449922"
                 "4499224499224499224499224499224499224");
    make_codes(codes, BLOCKS * P4_I2_S_COUNT, mixed);
    p4_trits_i2_s(blocks, codes, BLOCKS * P4_I2_S_COUNT);
    expect_bytes("I2_S", blocks, sizeof blocks,
                 "2556600664400aa88448899558811990022aa112222556600664400aa8844889600664400aa8844889955881199"
                 "0022aa112222556600664400aa88448899558");
}

static void check_i2_s(const p4_model *model, const p4_gguf_arch *gguf, p4_weight *weights)
{
    p4_gguf_tensors list;
    const p4_hf_model hf = {.model = *model};
    const p4_export_source source = {.hf = &hf, .option = "i2_s", .weights = weights};
    EXPECT_OK(p4_gguf_list(&list, model, gguf, P4_GGUF_BLOCKS_I2_S));
    int64_t found = 0;
    for (int64_t i = 0; i < list.count; i++) {
        const p4_gguf_tensor *t = &list.tensors[i];
        int64_t param = list.parts[i].param; /* -1: a computed tensor */
        const p4_param *p = &model->params[param >= 0 ? param : 0];
        bool packed = param >= 0 && p->ternary && p4_role_is_matrix(p->role) && p->cols % P4_I2_S_COUNT == 0;
        uint8_t tail[4];
        float scale = 0;
        p4_gguf_fill_tail(&list, &source, tail, i);
        memcpy(&scale, tail, sizeof scale);
        EXPECT((t->type == P4_GGUF_I2_S) == packed, "%s: type %d", t->name, (int)t->type);
        EXPECT(!packed || t->bytes == t->rows * t->cols / 4 + 32, "%s: %d bytes", t->name, (int)t->bytes);
        EXPECT(scale == (packed ? 0.5f : 0.0f), "%s: scale %g", t->name, (double)scale);
        found += packed;
    }
    EXPECT(found > 0, "no matrix in I2_S");
    p4_gguf_list_free(&list);
}

/* A model with one scale a matrix: types, bytes and the scale of each tensor. */
static void test_i2_s_tensors(void)
{
    static const uint16_t scale = 0x3800;
    p4_hf_model hf;
    const p4_gguf_arch *gguf;
    char *path = p4_format("%s/models/%s", P4_FIXTURES, "llama-bf16");
    EXPECT_OK(p4_hf_model_open(&hf, path));
    p4_model *model = &hf.model;
    p4_model_select_ternary(model, &(p4_list){0}, true, true);
    p4_weight *weights = calloc((size_t)model->params_count, sizeof *weights);
    EXPECT(weights != NULL, "no memory");
    for (int64_t i = 0; i < model->params_count; i++) {
        p4_param *p = &model->params[i];
        p->cols = p->role == P4_ROLE_DOWN ? 2 * P4_I2_S_COUNT : p->cols; /* the others do not fill blocks */
        p->scale_group = p->ternary && p4_role_is_matrix(p->role) ? p->rows * p->cols : 0;
        weights[i].scale = &scale;
    }
    EXPECT_OK(p4_gguf_arch_find(&gguf, &model->arch, "test"));
    const p4_export_source source = {.hf = &hf, .option = "i2_s"};
    EXPECT_OK(p4_writer_find("gguf")->check(&source));
    check_i2_s(model, gguf, weights);
    free(weights);
    p4_hf_model_close(&hf);
    free(path);
}

static void test_words(void)
{
    enum { ODD = 21 };
    uint8_t codes[(ODD + 3) / 4], words[8];
    make_codes(codes, ODD, mixed);
    EXPECT(p4_trits_word_bytes(ODD) == 8, "%d bytes", (int)p4_trits_word_bytes(ODD));
    memset(words, 0xff, sizeof words);
    p4_trits_plus_two(words, codes, ODD);
    for (int64_t i = 0; i < 32; i++) {
        int value = words[i / 4] >> 2 * (i % 4) & 3;
        EXPECT(value == (i < ODD ? mixed(i) + 2 : 0), "value %d is %d", (int)i, value);
    }
}

/* Rows r and r + 2 of two columns; the reference packs
 * [[0,-1],[-1,1],[-1,1],[-1,1],[1,0],[0,-1],[1,-1],[1,-1]] as [[0xa1, 0x18], [0x90, 0x0a]]. */
static void test_four_rows(void)
{
    static const int trits[8][2] = {{0, -1}, {-1, 1}, {-1, 1}, {-1, 1}, {1, 0}, {0, -1}, {1, -1}, {1, -1}};
    static const uint8_t want[2][2] = {{0xa1, 0x18}, {0x90, 0x0a}};
    uint8_t rows[8], got[2];
    for (int r = 0; r < 8; r++) {
        rows[r] = (uint8_t)((trits[r][0] + 1) | (trits[r][1] + 1) << 2);
    }
    for (int r = 0; r < 2; r++) {
        const uint8_t *const four[4] = {&rows[r], &rows[r + 2], &rows[r + 4], &rows[r + 6]};
        p4_trits_four_rows(got, four, 2);
        EXPECT(memcmp(got, want[r], 2) == 0, "row %d: %02x %02x", r, got[0], got[1]);
    }
}

static void test_container(void)
{
    p4_gguf g = {.arch = "llama"};
    const p4_gguf_tensor tensors[] = {
        {.name = "a", .type = P4_GGUF_F32, .vector = true, .rows = 1, .cols = 3, .bytes = 12},
        {.name = "b", .type = P4_GGUF_F16, .rows = 6, .cols = 4, .stacked = 3, .bytes = 48}};
    static const uint8_t want[] = "GGUF\3\0\0\0"
                                  "\2\0\0\0\0\0\0\0"
                                  "\2\0\0\0\0\0\0\0"
                                  "\7\0\0\0\0\0\0\0"
                                  "llama.n"
                                  "\4\0\0\0"
                                  "\5\0\0\0"
                                  "\1\0\0\0\0\0\0\0"
                                  "t"
                                  "\11\0\0\0"
                                  "\10\0\0\0"
                                  "\1\0\0\0\0\0\0\0"
                                  "\2\0\0\0\0\0\0\0"
                                  "xy"
                                  "\1\0\0\0\0\0\0\0"
                                  "a"
                                  "\1\0\0\0"
                                  "\3\0\0\0\0\0\0\0"
                                  "\0\0\0\0"
                                  "\0\0\0\0\0\0\0\0"
                                  "\1\0\0\0\0\0\0\0"
                                  "b"
                                  "\3\0\0\0"
                                  "\4\0\0\0\0\0\0\0"
                                  "\2\0\0\0\0\0\0\0"
                                  "\3\0\0\0\0\0\0\0"
                                  "\1\0\0\0"
                                  "\40\0\0\0\0\0\0\0";
    p4_gguf_put_u32(&g, ".n", 5);
    p4_gguf_put_list(&g, "t", P4_GGUF_VALUE_TEXT, 1);
    p4_gguf_add_text(&g, "xy", 2);
    EXPECT_OK(p4_gguf_finish(&g, tensors, 2));
    EXPECT(g.head.bytes % P4_GGUF_ALIGNMENT == 0 && g.head.bytes >= sizeof want - 1 &&
               memcmp(g.head.data, want, sizeof want - 1) == 0,
           "%zu bytes", g.head.bytes);
    p4_gguf_free(&g);
}

static void test_names(void)
{
    p4_config config;
    EXPECT(p4_exports_is_known("gguf") && p4_exports_is_known("gguf:tq1_0") &&
               p4_exports_is_known("gguf:i2_s") && p4_exports_is_known("mlx"),
           "known");
    EXPECT(!p4_exports_is_known("gguf:q4_0") && !p4_exports_is_known("gguf:") &&
               !p4_exports_is_known("mlx:x") && !p4_exports_is_known("gguff") && !p4_exports_is_known(""),
           "unknown");
#define WRITER(id, ...) \
    EXPECT(p4_writer_find(#id) != NULL && strcmp(p4_writer_find(#id)->name, #id) == 0, "%s", #id);
    P4_EXPORTS(WRITER)
#undef WRITER
    p4_config_default(&config);
    strcpy(config.model_path, "m");
    config.calibration_samples = config.eval_samples = config.enable_fine_tuning = 0;
    EXPECT(p4_list_append(&config.exports, "gguf:tq2_0") && p4_list_append(&config.exports, "mlx"), "full");
    EXPECT_OK(p4_config_validate_job(&config));
    EXPECT(p4_list_append(&config.exports, "gguf"), "full");
    EXPECT_REFUSED(p4_config_validate_job(&config), "found \"gguf\" after another entry of gguf");
    config.exports = (p4_list){0};
    EXPECT(p4_list_append(&config.exports, "ggml"), "full");
    EXPECT_REFUSED(p4_config_validate_job(&config), "found \"ggml\", expected some of gguf, gguf:q2_0");
}

/* The matrices of all experts of a layer are one tensor, each behind that of the expert before it. */
static void test_experts(void)
{
    p4_hf_model hf;
    const p4_gguf_arch *gguf;
    p4_gguf_tensors list;
    char *path = p4_format("%s/models/%s", P4_FIXTURES, "mixtral-plain");
    EXPECT_OK(p4_hf_model_open(&hf, path));
    const p4_model *model = &hf.model; /* nothing is ternary: fp16 */
    const p4_arch *a = &model->arch;
    p4_weight *weights = calloc((size_t)model->params_count, sizeof *weights);
    uint16_t *halves = calloc((size_t)(a->experts * a->F * a->C), sizeof *halves), got[64];
    EXPECT(weights != NULL && halves != NULL && a->C <= 64 && a->experts == 3, "no memory");
    for (int64_t i = 0, base = 0; i < model->params_count; i++, base++) {
        const p4_param *p = &model->params[i];
        weights[i] = (p4_weight){.dtype = P4_F16, .rows = p->rows, .cols = p->cols, .data = halves};
        if (p->layer == 1 && p->role == P4_ROLE_UP && p->input_offset > 0) { /* up, not gate */
            uint16_t *own = halves + p->expert * a->F * a->C;
            for (int64_t k = 0; k < a->F * a->C; k++) {
                own[k] = (uint16_t)(1000 * (p->expert + 1) + k);
            }
            weights[i].data = own;
        }
    }
    EXPECT_OK(p4_gguf_arch_find(&gguf, a, "test"));
    EXPECT_OK(p4_gguf_list(&list, model, gguf, P4_GGUF_BLOCKS_BEST));
    const p4_export_source source = {.hf = &hf, .option = "", .weights = weights};
    p4_export_space space = {.stored = {0}};
    int found = 0;
    for (int64_t i = 0; i < list.count; i++) {
        const p4_gguf_tensor *t = &list.tensors[i];
        EXPECT(strstr(t->name, "ffn_gate_inp") == NULL || t->type == P4_GGUF_F32, "the router's type");
        found += strstr(t->name, "_exps.weight") != NULL;
        if (strcmp(t->name, "blk.1.ffn_up_exps.weight") == 0) {
            EXPECT(t->stacked == 3 && t->rows == 3 * a->F && t->cols == a->C &&
                       t->bytes == 2 * t->rows * t->cols,
                   "%d matrices, %d rows", (int)t->stacked, (int)t->rows);
            for (int64_t r = 0; r < t->rows; r++) {
                const void *made = got;
                EXPECT_OK(p4_gguf_fill(&list, &source, &space, (uint8_t *)got, &made, i, r, 1));
                EXPECT(made == got, "the row is somewhere else");
                EXPECT(got[1] == 1000 * (r / a->F + 1) + r % a->F * a->C + 1, "row %d: %d", (int)r, got[1]);
            }
        }
    }
    EXPECT(found == 6 && strcmp(gguf->name, "llama") == 0, "%d tensors of experts", found);
    p4_export_space_free(&space);
    p4_gguf_list_free(&list);
    free(weights);
    free(halves);
    p4_hf_model_close(&hf);
    free(path);
}

/* What a runtime would compute in another way is refused by name. */
static const struct {
    const char *model, *writer, *message; /* NULL: accepted */
} refusals[] = {
    {"llama-llama3", "gguf", NULL},
    {"gemma3-old", "mlx", NULL},
    {"gpt2-plain", "gguf", NULL},
    {"gpt2-plain", "mlx", "keeps its matrices as [in, out]"},
    {"gpt2-plain", "compressed_tensors", "keeps its matrices as [in, out]"},
    {"gpt2-scores", "gguf", "does not divide attention scores by the layer's number"},
    {"llama-bf16", "bitnet", "takes one scale a tensor, and \"model.layers.0."},
    {"llama-bf16", "gguf:i2_s", "bitnet.cpp's I2_S takes one scale a tensor, and \"model.layers.0."},
    {"gpt_neox-serial", "gguf", "needs biases of attention and MLP"},
    {"starcoder2-plain", "gguf", "needs biases of attention and MLP"},
    {"gemma3-old", "gguf", "has a window in layer 1"},
    {"olmo2-bias", "gguf", "takes no bias of the attention output"},
    {"phi-plain", "gguf", NULL},
    {"phi-plain", "mlx", NULL},
    {"phi-tied", "mlx", "reads \"partial_rotary_factor\", which"},
    {"cohere-plain", "gguf", NULL},
    {"cohere-bias", "gguf", "takes no bias of the attention output"},
    {"cohere-plain", "mlx", NULL},
    {"cohere-bias", "mlx", "takes the embedding as its head"},
    {"falcon-plain", "gguf", NULL},
    {"falcon-groups", "gguf", NULL},
    {"falcon-shared", "gguf", NULL},
    {"falcon-serial", "gguf", "takes no biases of queries, keys and values"},
    {"falcon-plain", "mlx", "model family falcon is not written"},
    {"falcon-plain", "compressed_tensors", "has a class of linear layers of its own"},
    {"olmo3-yarn", "gguf", NULL},
    {"olmo3-types", "gguf", "takes YaRN positions with beta_fast 32"},
    {"olmo3-thetas", "gguf", "has one theta, this model 700 and, in layers with a window, 300"},
    {"olmo3-thetas", "mlx", "has layers with a window and without one"},
    {"olmo3-yarn", "mlx", NULL},
    {"olmo3-types", "mlx", "has one theta"},
    {"qwen3_moe-plain", "gguf", NULL},
    {"mixtral-fused", "gguf", NULL},
    {"qwen3_moe-plain", "compressed_tensors", "keeps the matrices of its experts in modules that are no"},
    {"qwen3_moe-plain", "mlx", NULL},
    {"qwen3_moe-dense", "mlx", NULL},
    {"olmoe-normed", "mlx", NULL},
    {"qwen3_moe-fused", "mlx", "takes no biases of the attention"},
    {"mixtral-plain", "mlx", "attends to all earlier tokens, this model to the last 4"},
    {"mixtral-fused", "mlx", "has heads of hidden_size / heads = 3 elements, this model of 4"},
    {"llama-linear", "mlx", NULL},
    {"llama-llama3", "mlx", NULL},
    {"llama-bf16", "mlx", NULL}, /* scaled under rope_parameters */
    {"qwen3-yarn", "mlx", NULL},
    {"smollm3-window", "mlx", NULL},
    {"qwen2-plain", "mlx", NULL},
    {"gemma3-images", "mlx", "layer 1: mlx-lm's gemma3_text has a window of 4 tokens, this model of 0"},
    {"gemma3-new", "mlx", "takes other numbers for rotary scaling \"linear\""},
    {"gemma2-caps", "mlx", "mlx-lm's gemma2 attends to all earlier tokens, this model to the last 5"},
    {"mistral-window", "mlx", "layer 0: mlx-lm's mistral has a window of 0 tokens, this model of 5"},
    {"qwen2-window", "mlx", "mlx-lm's qwen2 attends to all earlier tokens, this model to the last 5"},
    {"qwen3-bias", "mlx", "mlx-lm's qwen3 attends to all earlier tokens, this model to the last 4"},
    {"starcoder2-window", "mlx", "attends to all earlier tokens, this model to the last 5"},
    {"phi3-plain", "mlx", "attends to all earlier tokens, this model to the last 6"},
    {"phi3-long", "mlx", "mlx-lm's phi3 does not scale rotary positions"},
    {"qwen3_moe-plain", "gguf:i2_s", "I2_S takes one scale a tensor, and GGUF keeps all experts"},
    {"qwen3_moe-dense", "gguf", "has experts in every layer, this model has layers without them"},
    {"qwen3_moe-fused", "gguf", "takes no bias of the attention output"},
    {"olmoe-plain", "gguf", "has as many key/value heads as heads, this model 1 of 3"},
    {"olmoe-normed", "gguf", "takes no bias of the attention output"},
};

static void test_refused(void)
{
    for (size_t i = 0; i < sizeof refusals / sizeof refusals[0]; i++) {
        p4_hf_model hf;
        char *path = p4_format("%s/models/%s", P4_FIXTURES, refusals[i].model);
        EXPECT_OK(p4_hf_model_open(&hf, path));
        p4_model_select_ternary(&hf.model, &(p4_list){0}, true, true);
        const p4_export_source source = {.hf = &hf, .option = p4_exports_option(refusals[i].writer)};
        char *name = p4_format("%.*s", (int)p4_exports_name_bytes(refusals[i].writer), refusals[i].writer);
        const p4_writer *writer = p4_writer_find(name);
        if (refusals[i].message == NULL) {
            double bytes;
            EXPECT_OK(writer->check(&source));
            EXPECT_OK(writer->plan(&source, &bytes));
            EXPECT(bytes > 1000, "%s: %g bytes", refusals[i].model, bytes);
        } else {
            EXPECT_REFUSED(writer->check(&source), refusals[i].message);
        }
        p4_hf_model_close(&hf);
        free(path);
        free(name);
    }
}

/* A scale that the format cannot store: the tensor is named. */
static void test_range(void)
{
    static const struct {
        const char *writer;
        uint16_t scale; /* fp16 bits */
        const char *message;
    } cases[] = {
        {"bitnet", 0x0101, NULL}, /* 1.532e-5: 65281 */
        {"bitnet", 0x0100, "self_attn.q_proj.weight\": scale 1 is 1.526e-05, which is stored as 6.554e+04"},
        {"bitnet", 0x0000, "self_attn.q_proj.weight\": scale 1 is 0, which is stored as inf"},
        {"gguf", 0x0001, NULL},
        {"gguf", 0x7bff, NULL},
        {"gguf", 0x7c00, "self_attn.q_proj.weight\": scale 1 is inf, which is stored as inf; fp16 holds"},
    };
    p4_hf_model hf;
    char *path = p4_format("%s/models/%s", P4_FIXTURES, "llama-bf16");
    EXPECT_OK(p4_hf_model_open(&hf, path));
    p4_model *model = &hf.model;
    p4_model_select_ternary(model, &(p4_list){0}, true, true);
    p4_weight *weights = calloc((size_t)model->params_count, sizeof *weights);
    EXPECT(weights != NULL, "no memory");
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        for (int64_t i = 0; i < model->params_count; i++) {
            p4_param *p = &model->params[i];
            p->scale_group = p->ternary ? p->rows * p->cols : 0;
            weights[i] = (p4_weight){.rows = p->rows,
                                     .cols = p->cols,
                                     .scale = &cases[c].scale,
                                     .scale_group = p->scale_group,
                                     .dtype = p->ternary ? P4_TERNARY : P4_F16};
        }
        const p4_export_source source = {.hf = &hf, .option = "", .weights = weights};
        const p4_writer *writer = p4_writer_find(cases[c].writer);
        if (cases[c].message == NULL) {
            EXPECT_OK(writer->check(&source));
        } else {
            EXPECT_REFUSED(writer->check(&source), cases[c].message);
        }
    }
    free(weights);
    p4_hf_model_close(&hf);
    free(path);
}

int main(void)
{
    test_experts();
    test_blocks();
    test_q2_0();
    test_i2_s();
    test_i2_s_tensors();
    test_words();
    test_four_rows();
    test_container();
    test_names();
    test_refused();
    test_range();
    return TEST_END();
}
