#define _GNU_SOURCE /* memmem */
/* Reading GGUF files: blocks of trits against vectors of the reference, a model written here and read back as
 * it was, tokenizers, and files that are damaged in every place. */
#include <stdlib.h>
#include <unistd.h>

#include "check.h"
#include "io/gguf/gguf_blocks.h"
#include "io/gguf/gguf_model.h"
#include "io/tokenizer/tokenizer.h"

/* --- blocks ------------------------------------------------------------------------------------ */

static void from_hex(uint8_t *bytes, const char *hex)
{
    for (; hex[0] != '\0'; hex += 2) {
        unsigned value;
        sscanf(hex, "%2x", &value);
        *bytes++ = (uint8_t)value;
    }
}

/* What the reference library wrote for d = 0.5 and w[i] = ((i i + i / 7) mod 3) - 1. */
static void check_blocks(void)
{
    static const struct {
        uint32_t type;
        const char *hex;
    } vectors[] = {{34, "4782901198581cf8b76bc2d685b033c80953e723414782901198581cf8b76bc2e429ee3d35f70d501567"
                        "a805705c22e38fc1e7"
                        "560038"},
                   {35, "589509901901a02a122162562542640680a84a8488589509901901a02a12216209901901a02a12216256"
                        "2542640680a84a8488"
                        "589509901901a02a12216256250038"}};
    for (int v = 0; v < 2; v++) {
        uint8_t bytes[80], u[256];
        uint16_t scale;
        from_hex(bytes, vectors[v].hex);
        const p4_gguf_block *block = p4_gguf_block_of(vectors[v].type);
        EXPECT(p4_gguf_block_trits(u, &scale, block, bytes), "%s: refused", block->name);
        EXPECT(p4_f16_to_f32(scale) == 0.5f, "%s: the scale", block->name);
        for (int i = 0; i < 256; i++) {
            EXPECT(u[i] == (i * i + i / 7) % 3, "%s: trit %d is %d", block->name, i, u[i]);
        }
    }
    uint8_t small[18] = {0x00, 0x38}, u[64];
    uint16_t scale;
    small[2] = 2 | 1 << 2 | 0 << 4 | 2 << 6;
    EXPECT(p4_gguf_block_trits(u, &scale, p4_gguf_block_of(42), small), "Q2_0: refused");
    EXPECT(u[0] == 2 && u[1] == 1 && u[2] == 0 && u[3] == 2 && p4_f16_to_f32(scale) == 0.5f, "Q2_0");
    small[9] = 3;
    EXPECT(!p4_gguf_block_trits(u, &scale, p4_gguf_block_of(42), small), "Q2_0: code 3 was taken");
    EXPECT(p4_gguf_block_of(2) == NULL, "a type that is not read");
}

/* --- a file ------------------------------------------------------------------------------------ */

enum { ROOM = 1 << 20, V = 6, C = 256, H = 4, D = 64, F = 512 };

typedef struct writer {
    uint8_t *bytes;
    uint64_t count, keys, tensors, offset;
    uint8_t *info, *data; /* of tensors */
    uint64_t info_count, data_count;
} writer;

static void add(uint8_t *to, uint64_t *count, const void *from, size_t bytes)
{
    memcpy(to + *count, from, bytes);
    *count += bytes;
}

static void add_text(uint8_t *to, uint64_t *count, const char *text)
{
    uint64_t bytes = strlen(text);
    add(to, count, &bytes, 8);
    add(to, count, text, bytes);
}

static void key(writer *w, const char *name, uint32_t type, const void *value, size_t bytes)
{
    add_text(w->bytes, &w->count, name);
    add(w->bytes, &w->count, &type, 4);
    add(w->bytes, &w->count, value, bytes);
    w->keys++;
}

static void key_u32(writer *w, const char *name, uint32_t value)
{
    key(w, name, P4_GGUF_VIEW_U32, &value, 4);
}

static void key_f32(writer *w, const char *name, float value)
{
    key(w, name, P4_GGUF_VIEW_F32, &value, 4);
}

static void key_text(writer *w, const char *name, const char *value)
{
    uint8_t text[128];
    uint64_t count = 0;
    add_text(text, &count, value);
    key(w, name, P4_GGUF_VIEW_TEXT, text, count);
}

static void key_list(writer *w, const char *name, uint32_t type, const void *values, uint64_t n, size_t each)
{
    uint8_t list[1024];
    uint64_t count = 0;
    add(list, &count, &type, 4);
    add(list, &count, &n, 8);
    for (uint64_t i = 0; i < n; i++) {
        if (type == P4_GGUF_VIEW_TEXT) {
            add_text(list, &count, ((const char *const *)values)[i]);
        } else {
            add(list, &count, (const char *)values + i * each, each);
        }
    }
    key(w, name, P4_GGUF_VIEW_LIST, list, count);
}

static void tensor(writer *w, const char *name, uint32_t type, uint64_t rows, uint64_t cols, const void *data)
{
    const p4_gguf_block *block = p4_gguf_block_of(type);
    uint32_t rank = rows > 0 ? 2 : 1;
    uint64_t bytes = (rows > 0 ? rows : 1) * cols / (uint64_t)block->elements * (uint64_t)block->bytes;
    add_text(w->info, &w->info_count, name);
    add(w->info, &w->info_count, &rank, 4);
    add(w->info, &w->info_count, &cols, 8);
    if (rows > 0) {
        add(w->info, &w->info_count, &rows, 8);
    }
    add(w->info, &w->info_count, &type, 4);
    add(w->info, &w->info_count, &w->offset, 8);
    memcpy(w->data + w->offset, data, bytes);
    w->offset += (bytes + 31) / 32 * 32;
    w->tensors++;
}

/* Trit of element (r, c) of a matrix of the model, in its own order of rows. */
static int trit_of(int r, int c)
{
    return (r * 7 + c * c + c / 5) % 3;
}

/* Rows as TQ2_0, in llama.cpp's order if `turned`; own_scales: the last block of row 1 has another scale. */
static const uint8_t *ternary(int rows, int cols, bool turned, bool own_scales)
{
    static uint8_t data[ROOM / 4];
    memset(data, 0, sizeof data);
    for (int r = 0; r < rows; r++) {
        int at = turned ? r / D * D + r % D % (D / 2) * 2 + r % D / (D / 2) : r;
        for (int c = 0; c < cols; c++) {
            uint8_t *block = data + (at * (cols / 256) + c / 256) * 66;
            int i = c % 256;
            block[i / 128 * 32 + i % 32] |= (uint8_t)(trit_of(r, c) << 2 * (i % 128 / 32));
            uint16_t scale =
                p4_f32_to_f16(own_scales && r == 1 && c >= cols - 256 ? 0.25f : 0.5f + (float)r / 64);
            memcpy(block + 64, &scale, 2);
        }
    }
    return data;
}

/* What else the file holds. */
static const char *more_tensor;
static uint32_t rotated;

static void write_keys(writer *w, const char *arch)
{
    static const char *const tokens[V] = {"<|end|>", "a", "b", "\xc4\xa0", "ab", "[PAD5]"};
    static const char *const merges[] = {"a b"};
    static const int32_t kinds[V] = {3, 1, 1, 1, 1, 5};
    key_text(w, "general.architecture", arch);
    key_u32(w, "llama.embedding_length", C);
    key_u32(w, "llama.block_count", 1);
    key_u32(w, "llama.feed_forward_length", F);
    key_u32(w, "llama.attention.head_count", H);
    key_u32(w, "llama.attention.head_count_kv", 1);
    key_u32(w, "llama.context_length", 32);
    key_f32(w, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    key_f32(w, "llama.rope.freq_base", 5000.0f);
    key_text(w, "tokenizer.ggml.model", "gpt2");
    key_text(w, "tokenizer.ggml.pre", "gpt-2");
    key_list(w, "tokenizer.ggml.tokens", P4_GGUF_VIEW_TEXT, tokens, V, 0);
    key_list(w, "tokenizer.ggml.token_type", P4_GGUF_VIEW_I32, kinds, V, 4);
    key_list(w, "tokenizer.ggml.merges", P4_GGUF_VIEW_TEXT, merges, 1, 0);
    key_u32(w, "tokenizer.ggml.eos_token_id", 0);
    if (rotated > 0) {
        key_u32(w, "llama.rope.dimension_count", rotated);
    }
}

/* The whole file; the caller frees. down_scales: of ffn_down. */
static uint8_t *write_file(uint64_t *bytes, bool down_scales)
{
    static float floats[V * C];
    writer w = {.bytes = calloc(1, ROOM), .info = calloc(1, ROOM), .data = calloc(1, ROOM)};
    const uint32_t version = 3;
    for (int i = 0; i < V * C; i++) {
        floats[i] = (float)i / 16;
    }
    w.count = 24;
    write_keys(&w, "llama");
    tensor(&w, "token_embd.weight", 0, V, C, floats);
    tensor(&w, "output_norm.weight", 0, 0, C, floats);
    tensor(&w, "blk.0.attn_norm.weight", 0, 0, C, floats);
    tensor(&w, "blk.0.ffn_norm.weight", 0, 0, C, floats);
    tensor(&w, "blk.0.attn_q.weight", 35, H * D, C, ternary(H * D, C, true, false));
    tensor(&w, "blk.0.attn_k.weight", 35, D, C, ternary(D, C, true, false));
    tensor(&w, "blk.0.attn_v.weight", 35, D, C, ternary(D, C, false, false));
    tensor(&w, "blk.0.attn_output.weight", 35, C, H * D, ternary(C, H * D, false, false));
    tensor(&w, "blk.0.ffn_gate.weight", 35, F, C, ternary(F, C, false, false));
    tensor(&w, "blk.0.ffn_up.weight", 35, F, C, ternary(F, C, false, false));
    tensor(&w, "blk.0.ffn_down.weight", 35, C, F, ternary(C, F, false, down_scales));
    if (more_tensor != NULL) {
        tensor(&w, more_tensor, 0, 0, C, floats);
    }
    memcpy(w.bytes, "GGUF", 4);
    memcpy(w.bytes + 4, &version, 4);
    memcpy(w.bytes + 8, &w.tensors, 8);
    memcpy(w.bytes + 16, &w.keys, 8);
    add(w.bytes, &w.count, w.info, w.info_count);
    w.count = (w.count + 31) / 32 * 32;
    add(w.bytes, &w.count, w.data, w.offset);
    *bytes = w.count;
    free(w.info);
    free(w.data);
    return w.bytes;
}

static void close_model(p4_hf_model *hf, void **owned)
{
    for (int64_t i = 0; owned != NULL && i < hf->model.params_count; i++) {
        free(owned[i]);
    }
    free(owned);
    p4_hf_model_close(hf);
}

static void check_model(void)
{
    uint64_t bytes;
    uint8_t *data = write_file(&bytes, false);
    p4_gguf_view view;
    p4_hf_model hf = {0};
    void **owned = NULL;
    EXPECT_OK(p4_gguf_view_parse(&view, "x.gguf", data, bytes));
    EXPECT_OK(p4_gguf_model_read(&hf, &owned, &view));
    const p4_arch *a = &hf.model.arch;
    EXPECT(strcmp(a->family, "llama") == 0 && a->C == C && a->L == 1 && a->H == H && a->Hkv == 1 &&
               a->V == V && a->tied && a->eos_id == 0 && a->rope.theta == 5000 && a->positions == 32,
           "the architecture");
    for (int64_t i = 0; i < hf.model.params_count; i++) {
        const p4_param *p = &hf.model.params[i];
        const p4_weight *w = &hf.model.weights[i];
        bool table = p->vector || p->role == P4_ROLE_EMBED;
        EXPECT(w->dtype == (table ? P4_F32 : P4_TERNARY), "%s: type %d", p->name, (int)w->dtype);
        float row[F];
        for (int64_t r = 0; r < p->rows; r++) {
            p4_weight_row_f32(row, w, r);
            for (int64_t c = 0; c < p->cols; c++) {
                float trit = (float)(trit_of((int)r, (int)c) - 1) * (0.5f + (float)r / 64);
                float want = table ? (float)(r * p->cols + c) / 16 : trit;
                EXPECT(row[c] == want, "%s [%lld, %lld]: %g, expected %g", p->name, (long long)r,
                       (long long)c, (double)row[c], (double)want);
            }
        }
    }
    close_model(&hf, owned);
    view.mapping = NULL; /* it is not mapped */
    p4_gguf_view_close(&view);
    free(data);
}

/* A row with several scales becomes fp16. */
static void check_scales(void)
{
    uint64_t bytes;
    uint8_t *data = write_file(&bytes, true);
    p4_gguf_view view;
    p4_hf_model hf = {0};
    void **owned = NULL;
    EXPECT_OK(p4_gguf_view_parse(&view, "x.gguf", data, bytes));
    EXPECT_OK(p4_gguf_model_read(&hf, &owned, &view));
    int64_t down = p4_model_find(&hf.model, P4_ROLE_DOWN, 0);
    const p4_weight *w = &hf.model.weights[down];
    EXPECT(w->dtype == P4_F16 && !hf.model.params[down].ternary, "type %d", (int)w->dtype);
    float row[F];
    for (int r = 0; r < C; r++) {
        p4_weight_row_f32(row, w, r);
        for (int c = 0; c < F; c++) {
            float scale = r == 1 && c >= F - 256 ? 0.25f : 0.5f + (float)r / 64;
            EXPECT(row[c] == (float)(trit_of(r, c) - 1) * scale, "[%d, %d]: %g", r, c, (double)row[c]);
        }
    }
    close_model(&hf, owned);
    view.mapping = NULL;
    p4_gguf_view_close(&view);
    free(data);
}

static void check_tokenizer(void)
{
    uint64_t bytes;
    uint8_t *data = write_file(&bytes, false);
    p4_gguf_view view;
    char *json = NULL, *text = NULL;
    p4_tokenizer *t = NULL;
    p4_tokenizer_scratch *scratch = NULL;
    p4_ids ids = {0};
    EXPECT_OK(p4_gguf_view_parse(&view, "x.gguf", data, bytes));
    EXPECT_OK(p4_gguf_tokenizer_json(&json, &view));
    EXPECT_OK(p4_tokenizer_parse(&t, json, strlen(json), "x.gguf"));
    EXPECT_OK(p4_tokenizer_scratch_create(&scratch, t));
    EXPECT_OK(p4_tokenizer_encode(t, scratch, "ab a<|end|>", 11, true, &ids, NULL));
    static const int32_t want[] = {4, 3, 1, 0};
    EXPECT(ids.count == 4 && memcmp(ids.ids, want, sizeof want) == 0, "%lld ids", (long long)ids.count);
    EXPECT_OK(p4_tokenizer_decode(t, ids.ids, ids.count, &text));
    EXPECT(text != NULL && strcmp(text, "ab a<|end|>") == 0, "%s", text);
    free(text);
    free(json);
    p4_ids_free(&ids);
    p4_tokenizer_scratch_free(scratch);
    p4_tokenizer_close(t);
    view.mapping = NULL;
    p4_gguf_view_close(&view);
    free(data);
}

/* --- damage ------------------------------------------------------------------------------------ */

/* Reads all of it; whatever happens, nothing outside is touched (the sanitizers' matter). */
static p4_rc read_all(const uint8_t *data, uint64_t bytes)
{
    p4_gguf_view view;
    p4_hf_model hf = {0};
    void **owned = NULL;
    char *json = NULL;
    p4_error_clear();
    p4_rc rc = p4_gguf_view_parse(&view, "x.gguf", data, bytes);
    if (rc != P4_OK) {
        return rc;
    }
    rc = p4_gguf_model_read(&hf, &owned, &view);
    if (rc == P4_OK) {
        rc = p4_gguf_tokenizer_json(&json, &view);
    }
    free(json);
    close_model(&hf, owned);
    view.mapping = NULL;
    p4_gguf_view_close(&view);
    return rc;
}

/* A file that asks for more than is computed. */
static void check_more(void)
{
    static const struct {
        const char *tensor, *message;
        uint32_t rotated;
    } cases[] = {{"rope_factors_long.weight", "tensor \"rope_factors_long.weight\" is not supported", D},
                 {NULL, "key llama.rope.dimension_count is", D / 2},
                 {NULL, NULL, D}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint64_t bytes;
        more_tensor = cases[i].tensor;
        rotated = cases[i].rotated;
        uint8_t *data = write_file(&bytes, false);
        p4_rc rc = read_all(data, bytes);
        EXPECT(cases[i].message == NULL
                   ? rc == P4_OK
                   : rc == P4_E_INPUT && strstr(p4_last_error(), cases[i].message) != NULL,
               "case %zu: code %d, \"%s\"", i, (int)rc, p4_last_error());
        free(data);
    }
    more_tensor = NULL;
    rotated = 0;
}

/* A NUL in a merge is an error that says where it is. */
static void check_nul(uint8_t *data, uint64_t bytes)
{
    static const char merge[] = "\3\0\0\0\0\0\0\0a b"; /* behind its length */
    uint8_t *found = memmem(data, bytes, merge, sizeof merge - 1);
    EXPECT(found != NULL, "there is no merge \"a b\"");
    if (found != NULL) {
        found[8] = '\0';
        EXPECT(read_all(data, bytes) == P4_E_INPUT &&
                   strstr(p4_last_error(), "holds a NUL character") != NULL,
               "a NUL in a merge: \"%s\"", p4_last_error());
        found[8] = 'a';
    }
}

static void check_damage(void)
{
    uint64_t bytes, refused = 0;
    uint8_t *data = write_file(&bytes, false);
    EXPECT_OK(read_all(data, bytes));
    check_nul(data, bytes);
    for (uint64_t cut = 0; cut < bytes; cut += cut < 3000 ? 13 : 4001) {
        uint8_t *part = malloc(cut + 1); /* of exactly this length, for the sanitizers */
        memcpy(part, data, cut);
        EXPECT(read_all(part, cut) == P4_E_INPUT, "cut to %llu bytes: accepted", (unsigned long long)cut);
        free(part);
    }
    for (uint64_t at = 0; at < 2400; at += 3) { /* the header */
        uint8_t old = data[at];
        data[at] = (uint8_t)(old ^ 0x80);
        p4_rc rc = read_all(data, bytes);
        EXPECT(rc == P4_OK || p4_last_error()[0] != '\0', "byte %llu: refused without a message",
               (unsigned long long)at);
        refused += rc != P4_OK;
        data[at] = old;
    }
    EXPECT(refused > 300, "of 800 flipped bits %llu were refused", (unsigned long long)refused);
    p4_error_clear();
    free(data);
}

int main(void)
{
    check_blocks();
    check_model();
    check_scales();
    check_tokenizer();
    check_more();
    check_damage();
    return TEST_END();
}
