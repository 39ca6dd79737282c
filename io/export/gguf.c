/* gguf.c - the model as one file for llama.cpp and what is built on it. */
#include <stdlib.h>
#include <string.h>

#include "io/export/gguf_tensors.h"
#include "io/export/gguf_tokenizer.h"
#include "io/export/stream.h"
#include "io/export/writers.h"
#include "io/file/atomic_file.h"
#include "io/tokenizer/state.h"

static const char writer[] = "exports: gguf";

static p4_gguf_blocks blocks_of(const p4_export_source *source)
{
    static const char *const names[] = {"", "tq2_0", "tq1_0", "q2_0", "i2_s"}; /* all of src/exports.h */
    int i = 0;
    while (i < 4 && strcmp(source->option, names[i]) != 0) {
        i++;
    }
    return (p4_gguf_blocks)i;
}

static bool is_ternary_matrix(const p4_param *p)
{
    return p->ternary && p4_role_is_matrix(p->role);
}

static bool is_ternary(const p4_param *p)
{
    return p->ternary;
}

static p4_rc check_scales(const p4_export_source *source)
{
    if (blocks_of(source) == P4_GGUF_BLOCKS_I2_S && source->hf->model.arch.experts > 0) {
        return FAIL(
            "%s: bitnet.cpp's I2_S takes one scale a tensor, and GGUF keeps all experts of a layer in one",
            writer);
    }
    p4_rc rc = blocks_of(source) == P4_GGUF_BLOCKS_I2_S
                   ? p4_export_check_scales(source, is_ternary_matrix, writer, "bitnet.cpp's I2_S")
                   : P4_OK;
    return rc == P4_OK ? p4_export_check_range(source, is_ternary, NULL, writer) : rc;
}

static p4_rc check(const p4_export_source *source)
{
    p4_rc rc = P4_OK;
    const p4_gguf_arch *gguf;
    p4_gguf_encoding encoding;
    const p4_arch *arch = &source->hf->model.arch;
    TRY(p4_gguf_arch_find(&gguf, arch, writer));
    TRY(check_scales(source));
    TRY(p4_gguf_encoding_find(&encoding, source, writer));
    if (p4_gguf_context(gguf, arch) < arch->positions) {
        WARN("warning: exports: gguf: llama.cpp's %s ignores the sliding window: the file allows contexts of "
             "%lld tokens, the window, instead of %lld",
             gguf->name, (long long)p4_gguf_context(gguf, arch), (long long)arch->positions);
    }
done:
    return rc;
}

static p4_rc plan(const p4_export_source *source, double *bytes)
{
    p4_rc rc = P4_OK;
    const p4_gguf_arch *gguf;
    p4_gguf_tensors list = {0};
    *bytes = 0;
    TRY(p4_gguf_arch_find(&gguf, &source->hf->model.arch, writer));
    TRY(p4_gguf_list(&list, &source->hf->model, gguf, blocks_of(source)));
    *bytes = (double)list.bytes + 128.0 * (double)list.count +
             (source->tokenizer != NULL ? (double)source->tokenizer->json_bytes : 0);
done:
    p4_gguf_list_free(&list);
    return rc;
}

/* The type of most ternary weights, as the runtime shows it. */
static int64_t file_type(const p4_gguf_tensors *list)
{
    static const struct {
        p4_gguf_type type;
        int64_t file;
    } types[] = {
        {P4_GGUF_F16, 1}, {P4_GGUF_Q2_0, 28}, {P4_GGUF_TQ1_0, 36}, {P4_GGUF_TQ2_0, 37}, {P4_GGUF_I2_S, 40}};
    int64_t best = 0, most = -1;
    for (size_t k = 0; k < sizeof types / sizeof types[0]; k++) {
        int64_t count = 0;
        for (int64_t i = 0; i < list->count; i++) {
            bool table = strncmp(list->tensors[i].name, "blk.", 4) != 0;
            count += list->tensors[i].type == types[k].type && !table
                         ? list->tensors[i].rows * list->tensors[i].cols
                         : 0;
        }
        best = count > most ? types[k].file : best;
        most = p4_max_i64(most, count);
    }
    return best;
}

/* "GGUF, TQ2_0", or with the numbers of ternary tensors where they have several types. */
static p4_rc describe(const p4_export_source *source, char text[P4_WRITER_TEXT_BYTES])
{
    static const struct {
        p4_gguf_type type;
        const char *name;
    } types[] = {{P4_GGUF_TQ2_0, "TQ2_0"},
                 {P4_GGUF_TQ1_0, "TQ1_0"},
                 {P4_GGUF_Q2_0, "Q2_0"},
                 {P4_GGUF_I2_S, "I2_S"},
                 {P4_GGUF_F16, "F16"}};
    enum { TYPES = sizeof types / sizeof types[0] };
    p4_rc rc = P4_OK;
    const p4_gguf_arch *gguf;
    const p4_model *model = &source->hf->model;
    p4_gguf_tensors list = {0};
    int64_t counts[TYPES] = {0}, ternary = 0;
    TRY(p4_gguf_arch_find(&gguf, &model->arch, writer));
    TRY(p4_gguf_list(&list, model, gguf, blocks_of(source)));
    for (int64_t i = 0; i < list.count; i++) {
        int64_t param = list.parts[i].param;
        bool counted = param >= 0 && model->params[param].ternary;
        for (int k = 0; counted && k < TYPES; k++) {
            counts[k] += list.tensors[i].type == types[k].type;
        }
        ternary += counted;
    }
    size_t used = (size_t)snprintf(text, P4_WRITER_TEXT_BYTES, "GGUF");
    for (int k = 0; k < TYPES; k++) {
        if (counts[k] > 0) {
            used += (size_t)snprintf(text + used, P4_WRITER_TEXT_BYTES - used, ", %s", types[k].name);
        }
        if (counts[k] > 0 && counts[k] < ternary) {
            used += (size_t)snprintf(text + used, P4_WRITER_TEXT_BYTES - used,
                                     " for %lld of %lld ternary tensors", (long long)counts[k],
                                     (long long)ternary);
        }
    }
done:
    p4_gguf_list_free(&list);
    return rc;
}

/* The last part of the model's path that says something. */
static void put_name(p4_gguf *g, const char *path)
{
    char *name = p4_strdup(path);
    if (name == NULL) {
        g->rc = P4_E_SYSTEM;
        return;
    }
    for (char *slash = strrchr(name, '/'); slash != NULL; slash = strrchr(name, '/')) {
        if (slash[1] != '\0' && strcmp(slash, "/dequantized_fp16") != 0) {
            memmove(name, slash + 1, strlen(slash + 1) + 1);
            break;
        }
        *slash = '\0';
    }
    p4_gguf_put_text(g, "general.name", name[0] != '\0' ? name : "model");
    free(name);
}

static p4_rc put_keys(p4_gguf *g, const p4_export_source *source, const p4_gguf_arch *gguf,
                      const p4_gguf_tensors *list)
{
    p4_rc rc = P4_OK;
    p4_gguf_encoding encoding;
    TRY(p4_gguf_encoding_find(&encoding, source, writer));
    p4_gguf_put_text(g, "general.architecture", gguf->name);
    p4_gguf_put_text(g, "general.type", "model");
    put_name(g, source->hf->path);
    p4_gguf_put_u32(g, "general.file_type", file_type(list));
    p4_gguf_put_u32(g, "general.quantization_version", 2);
    p4_gguf_put_arch(g, gguf, &source->hf->model.arch);
    TRY(p4_gguf_put_tokenizer(g, &encoding, source));
    TRY(p4_gguf_finish(g, list->tensors, list->count));
done:
    return rc;
}

typedef struct work {
    const p4_export_source *source;
    const p4_gguf_tensors *list;
    p4_atomic_file *file;
} work;

static p4_rc fill(void *user, p4_export_space *spaces, uint8_t *to, const void **made, int64_t part,
                  int64_t first, int64_t rows)
{
    const work *w = user;
    p4_atomic_begin_sync(w->file);
    return p4_gguf_fill(w->list, w->source, spaces, to, made, part, first, rows);
}

static p4_rc append(void *user, const void *bytes, size_t byte_count)
{
    return p4_atomic_write(((const work *)user)->file, bytes, byte_count);
}

static p4_rc write_data(const p4_export_source *source, const p4_gguf_tensors *list, p4_atomic_file *file)
{
    p4_rc rc = P4_OK;
    work w = {.source = source, .list = list, .file = file};
    p4_stream stream = {.source = source, .count = list->count, .fill = fill, .append = append, .user = &w};
    p4_stream_part *parts = p4_alloc((size_t)list->count, sizeof *parts);
    if (parts == NULL) {
        return P4_E_SYSTEM;
    }
    for (int64_t i = 0; i < list->count; i++) {
        const p4_gguf_tensor *t = &list->tensors[i];
        int64_t row_bytes = p4_gguf_row_bytes(t), tail_bytes = t->bytes - t->rows * row_bytes;
        parts[i] = (p4_stream_part){
            .rows = t->rows, .row_bytes = row_bytes, .padding = tail_bytes + p4_gguf_padding(t->bytes)};
        TRY(p4_gguf_step(list, source, &parts[i].step, i));
        p4_gguf_fill_tail(list, source, parts[i].tail, i);
    }
    stream.parts = parts;
    TRY(p4_stream_run(&stream));
done:
    free(parts);
    return rc;
}

static p4_rc write_file(const p4_export_source *source, const char *path)
{
    p4_rc rc = P4_OK;
    const p4_gguf_arch *gguf;
    p4_gguf_tensors list = {0};
    p4_gguf g = {0};
    p4_atomic_file file = {.fd = -1};
    TRY(check_scales(source));
    TRY(p4_gguf_arch_find(&gguf, &source->hf->model.arch, writer));
    TRY(p4_gguf_list(&list, &source->hf->model, gguf, blocks_of(source)));
    g.arch = gguf->name;
    TRY(put_keys(&g, source, gguf, &list));
    TRY(p4_atomic_open(&file, path));
    TRY(p4_atomic_write(&file, g.head.data, g.head.bytes));
    TRY(write_data(source, &list, &file));
done:
    p4_gguf_free(&g);
    p4_gguf_list_free(&list);
    p4_rc closed = p4_atomic_close(&file, rc == P4_OK);
    return rc != P4_OK ? rc : closed;
}

const p4_writer p4_writer_gguf = {"gguf", "model.gguf", check, check_scales, describe, plan, write_file};
