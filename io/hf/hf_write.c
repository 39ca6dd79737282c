#include <errno.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/file/atomic_file.h"
#include "io/file/files.h"
#include "io/hf/hf_model.h"
#include "io/json/write.h"
#include "src/leaf/parallel.h"

enum {
    PIECE_COUNT = 1 << 19, /* elements converted and written at a time: they fit a core's cache */
    TILE = 32,             /* rows and columns of a block of the transposition */
};

/* Files that are copied unchanged. */
static const char *const copied[] = {"tokenizer.json",
                                     "tokenizer_config.json",
                                     "special_tokens_map.json",
                                     "added_tokens.json",
                                     "vocab.json",
                                     "merges.txt",
                                     "tokenizer.model",
                                     "chat_template.jinja",
                                     "chat_template.json",
                                     "generation_config.json",
                                     "LICENSE*",
                                     "USE_POLICY*",
                                     "NOTICE*",
                                     "README.md"};
/* Other files of a model directory. A directory that holds anything else is not replaced. */
static const char *const written[] = {"config.json", "model.safetensors", "model-*.safetensors",
                                      "model.safetensors.index.json"};

static bool matches(const char *name, const char *const *globs, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (fnmatch(globs[i], name, 0) == 0) {
            return true;
        }
    }
    return false;
}

static bool is_copied(const char *name)
{
    return matches(name, copied, sizeof copied / sizeof copied[0]);
}

/* ---- config.json and the index ---- */

char *p4_hf_config_as_fp16(const char *origin_json)
{
    static const char fp16[] = "\"float16\"";
    cJSON *root = cJSON_Parse(origin_json); /* p4_hf_config_parse accepted it */
    bool ok = root != NULL && p4_json_keep_numbers(root, origin_json), found = false;
    for (cJSON *item = ok ? root->child : NULL; ok && item != NULL; item = item->next) {
        if (strcmp(item->string, "dtype") == 0 || strcmp(item->string, "torch_dtype") == 0) {
            ok = p4_json_set_raw(item, fp16, sizeof fp16 - 1);
            found = true;
        }
    }
    if (ok && !found) {
        ok = cJSON_AddRawToObject(root, "torch_dtype", fp16) != NULL;
    }
    return p4_json_print(root, ok, true);
}

char *p4_hf_config_untied(const char *origin_json)
{
    static const char key[] = "tie_word_embeddings", no[] = "false";
    cJSON *root = cJSON_Parse(origin_json);
    bool ok = root != NULL && p4_json_keep_numbers(root, origin_json);
    cJSON *item = ok ? cJSON_GetObjectItemCaseSensitive(root, key) : NULL;
    if (ok) {
        ok = item != NULL ? p4_json_set_raw(item, no, sizeof no - 1)
                          : cJSON_AddRawToObject(root, key, no) != NULL;
    }
    return p4_json_print(root, ok, true);
}

/* ---- the directory ---- */

typedef struct output {
    const p4_hf_model *origin;
    const char *directory; /* under its temporary name */
    const p4_hf_source *source;
    uint64_t shard_bytes; /* 0: no limit */
    int64_t *shard_of;    /* per parameter */
    int64_t shard_count;
} output;

/* Assigns parameters to shards in order; a shard that would exceed the limit ends. */
static p4_rc plan_shards(output *out, uint64_t shard_bytes)
{
    const p4_model *model = &out->origin->model;
    uint64_t in_shard = 0;
    out->shard_of = p4_alloc((size_t)model->params_count, sizeof *out->shard_of);
    if (out->shard_of == NULL) {
        return P4_E_SYSTEM;
    }
    for (int64_t i = 0; i < model->params_count; i++) {
        uint64_t bytes = (uint64_t)(model->params[i].rows * model->params[i].cols) * sizeof(uint16_t);
        if (shard_bytes > 0 && in_shard > 0 && in_shard + bytes > shard_bytes) {
            out->shard_count++;
            in_shard = 0;
        }
        in_shard += bytes;
        out->shard_of[i] = out->shard_count;
    }
    out->shard_count++;
    return P4_OK;
}

/* "model.safetensors", or "model-00001-of-00002.safetensors" for shard 0 of 2. */
static const char *shard_name(char buffer[64], const output *out, int64_t index)
{
    if (out->shard_count == 1) {
        return "model.safetensors";
    }
    snprintf(buffer, 64, "model-%05lld-of-%05lld.safetensors", (long long)index + 1,
             (long long)out->shard_count);
    return buffer;
}

/* Rows of one tensor that are converted and written together; of a Conv1D tensor, all of them. */
typedef struct piece {
    int64_t param, first, rows;
} piece;

/* A shard being written. */
typedef struct shard {
    const output *out;
    p4_safetensors_writer *writer;
    piece *pieces;
    int64_t count;
    uint16_t **halves; /* [buffers] allocated at first use */
    int64_t *capacity; /* [buffers] elements */
    int buffers;
} shard;

/* Files store Conv1D matrices as [in, out]: rows [first, first + rows) of `from` become columns of `to`
 * [cols, ld]. */
static void transpose(uint16_t *to, int64_t ld, int64_t first, const uint16_t *from, int64_t rows,
                      int64_t cols)
{
    for (int64_t r0 = 0; r0 < rows; r0 += TILE) {
        int64_t r_end = p4_min_i64(r0 + TILE, rows);
        for (int64_t c0 = 0; c0 < cols; c0 += TILE) {
            int64_t c_end = p4_min_i64(c0 + TILE, cols);
            for (int64_t c = c0; c < c_end; c++) {
                for (int64_t r = r0; r < r_end; r++) {
                    to[c * ld + first + r] = from[r * cols + c];
                }
            }
        }
    }
}

/* Grows a buffer to `count` elements; its content is lost. */
static p4_rc reserve(const shard *s, int buffer, int64_t count)
{
    if (s->capacity[buffer] >= count) {
        return P4_OK;
    }
    free(s->halves[buffer]);
    s->capacity[buffer] = 0;
    s->halves[buffer] = p4_alloc((size_t)count, sizeof **s->halves);
    if (s->halves[buffer] == NULL) {
        return P4_E_SYSTEM;
    }
    s->capacity[buffer] = count;
    return P4_OK;
}

static int64_t rows_at_once(const p4_param *p)
{
    return p4_max_i64(1, p4_min_i64(p->rows, PIECE_COUNT / p->cols));
}

static p4_rc make_piece(void *user, int64_t item, int buffer)
{
    p4_rc rc = P4_OK;
    const shard *s = user;
    const piece *at = &s->pieces[item];
    const p4_param *p = &s->out->origin->model.params[at->param];
    const p4_hf_source *source = s->out->source;
    p4_safetensors_writer_begin_sync(s->writer); /* not on the writing thread, which it would delay */
    int64_t step = rows_at_once(p), turned = p->transposed ? p->rows * p->cols : 0;
    TRY(reserve(s, buffer, p4_max_i64(PIECE_COUNT, turned + step * p->cols)));
    uint16_t *halves = s->halves[buffer];
    for (int64_t first = at->first; first < at->first + at->rows; first += step) {
        int64_t rows = p4_min_i64(step, at->first + at->rows - first);
        TRY(source->rows(source->user, halves + turned, at->param, first, rows));
        int64_t bad = p4_f16_find_nonfinite(halves + turned, rows * p->cols);
        CHECK(bad < 0, "tensor \"%s\", row %lld, column %lld: %g cannot be stored as float16", p->name,
              (long long)(first + bad / p->cols), (long long)(bad % p->cols),
              (double)p4_f16_to_f32(halves[turned + bad]));
        if (p->transposed) {
            transpose(halves, p->rows, first, halves + turned, rows, p->cols);
        }
    }
done:
    return rc;
}

static p4_rc write_piece(void *user, int64_t item, int buffer)
{
    const shard *s = user;
    const piece *at = &s->pieces[item];
    int64_t count = at->rows * s->out->origin->model.params[at->param].cols;
    return p4_safetensors_writer_append(s->writer, s->halves[buffer], (uint64_t)count * sizeof **s->halves);
}

/* Lists the pieces of this shard's tensors in the order of the file and returns their count; `pieces` may be
 * NULL. */
static int64_t cut(const output *out, int64_t index, piece *pieces)
{
    int64_t count = 0;
    for (int64_t i = 0; i < out->origin->model.params_count; i++) {
        const p4_param *p = &out->origin->model.params[i];
        int64_t step = p->transposed ? p->rows : rows_at_once(p);
        for (int64_t first = 0; out->shard_of[i] == index && first < p->rows; first += step, count++) {
            if (pieces != NULL) {
                pieces[count] = (piece){i, first, p4_min_i64(step, p->rows - first)};
            }
        }
    }
    return count;
}

static p4_rc write_pieces(const output *out, p4_safetensors_writer *writer, int64_t index)
{
    p4_rc rc = P4_OK;
    shard s = {.out = out, .writer = writer, .count = cut(out, index, NULL)};
    s.buffers = p4_parallel_buffers(out->source->threads, s.count, true);
    s.pieces = p4_alloc((size_t)s.count, sizeof *s.pieces);
    s.halves = p4_alloc((size_t)s.buffers, sizeof *s.halves);
    s.capacity = p4_alloc((size_t)s.buffers, sizeof *s.capacity);
    if (s.pieces == NULL || s.halves == NULL || s.capacity == NULL) {
        rc = P4_E_SYSTEM;
        goto done;
    }
    cut(out, index, s.pieces);
    rc = p4_parallel(out->source->threads, s.count, make_piece, write_piece, &s);
done:
    for (int i = 0; s.halves != NULL && i < s.buffers; i++) {
        free(s.halves[i]);
    }
    free(s.halves);
    free(s.capacity);
    free(s.pieces);
    return rc;
}

static p4_safetensors_entry entry_of(const p4_param *p)
{
    p4_safetensors_entry entry = {.name = p->name, .dtype = P4_F16, .rank = p->vector ? 1 : 2};
    entry.shape[0] = p->vector || p->transposed ? p->cols : p->rows;
    entry.shape[1] = p->transposed ? p->rows : p->cols;
    return entry;
}

static p4_rc write_shard(const output *out, int64_t index)
{
    p4_rc rc = P4_OK;
    const p4_model *model = &out->origin->model;
    p4_safetensors_writer *writer = NULL;
    int64_t count = 0;
    char buffer[64];
    char *path = p4_format("%s/%s", out->directory, shard_name(buffer, out, index));
    p4_safetensors_entry *entries = p4_alloc((size_t)model->params_count, sizeof *entries);
    if (path == NULL || entries == NULL) {
        rc = P4_E_SYSTEM;
        goto done;
    }
    for (int64_t i = 0; i < model->params_count; i++) {
        if (out->shard_of[i] == index) {
            entries[count++] = entry_of(&model->params[i]);
        }
    }
    TRY(p4_safetensors_writer_open(&writer, path, entries, count));
    TRY(write_pieces(out, writer, index));
done:
    free(entries);
    free(path);
    p4_rc closed = p4_safetensors_writer_close(writer, rc == P4_OK);
    return rc != P4_OK ? rc : closed;
}

/* model.safetensors.index.json; NULL, with the message recorded, when memory runs out. */
static char *index_text(const output *out)
{
    const p4_model *model = &out->origin->model;
    char buffer[64];
    cJSON *root = cJSON_CreateObject();
    cJSON *metadata = cJSON_AddObjectToObject(root, "metadata");
    cJSON *map = cJSON_AddObjectToObject(root, "weight_map");
    bool ok = map != NULL && p4_json_put_whole(metadata, "total_size",
                                               p4_model_count_elements(model) * (int64_t)sizeof(uint16_t));
    for (int64_t i = 0; ok && i < model->params_count; i++) {
        ok = cJSON_AddStringToObject(map, model->params[i].name, shard_name(buffer, out, out->shard_of[i])) !=
             NULL;
    }
    return p4_json_print(root, ok, true);
}

/* Writes a text of the directory and frees it. */
static p4_rc write_text(const output *out, const char *name, char *text)
{
    char *path = p4_format("%s/%s", out->directory, name);
    p4_rc rc = path == NULL || text == NULL ? P4_E_SYSTEM : p4_atomic_write_all(path, text, strlen(text));
    free(text);
    free(path);
    return rc;
}

p4_rc p4_hf_copy_files(const char *directory, const p4_hf_model *origin)
{
    p4_rc rc = P4_OK;
    char **names = NULL;
    int64_t count = 0;
    if (origin->path == NULL) {
        return P4_OK;
    }
    TRY(p4_dir_list(&names, &count, origin->path));
    for (int64_t i = 0; i < count && rc == P4_OK; i++) {
        char *from = p4_format("%s/%s", origin->path, names[i]);
        char *to = p4_format("%s/%s", directory, names[i]);
        bool there = false;
        rc = from == NULL || to == NULL ? P4_E_SYSTEM
             : is_copied(names[i])      ? p4_file_find(&there, from)
                                        : P4_OK;
        rc = rc == P4_OK && there ? p4_file_copy(to, from) : rc;
        free(from);
        free(to);
    }
done:
    p4_names_free(names, count);
    return rc;
}

static p4_rc fill_directory(void *user, const char *directory)
{
    p4_rc rc = P4_OK;
    output *out = user;
    out->directory = directory;
    TRY(plan_shards(out, out->shard_bytes));
    TRY(p4_hf_copy_files(out->directory, out->origin));
    for (int64_t s = 0; s < out->shard_count; s++) {
        TRY(write_shard(out, s));
    }
    if (out->shard_count > 1) {
        TRY(write_text(out, "model.safetensors.index.json", index_text(out)));
    }
    TRY(write_text(out, "config.json", p4_hf_config_as_fp16(out->origin->config_json)));
    TRY(out->source->ready != NULL ? out->source->ready(out->source->user) : P4_OK);
done:
    free(out->shard_of);
    return rc;
}

p4_rc p4_hf_check_copied(const p4_hf_model *origin, int64_t *bytes)
{
    p4_rc rc = P4_OK;
    char **names = NULL, *path = NULL;
    int64_t count = 0;
    struct stat file;
    *bytes = 0;
    TRY(p4_dir_list(&names, &count, origin->path));
    for (int64_t i = 0; i < count; i++) {
        free(path);
        path = p4_format("%s/%s", origin->path, names[i]);
        TRY(path != NULL ? P4_OK : P4_E_SYSTEM);
        bool there = false;
        TRY(is_copied(names[i]) ? p4_file_find(&there, path) : P4_OK);
        if (there) {
            CHECK(access(path, R_OK) == 0 && stat(path, &file) == 0,
                  "%s: goes along with the model (save_dequantized_fp16), but cannot be read: %s", path,
                  strerror(errno));
            *bytes += (int64_t)file.st_size;
        }
    }
done:
    free(path);
    p4_names_free(names, count);
    return rc;
}

p4_rc p4_hf_check_replaced(const char *directory, const char *origin)
{
    p4_rc rc = P4_OK;
    struct stat there, from;
    char **names = NULL;
    int64_t count = 0;
    if (stat(directory, &there) != 0) {
        return P4_OK;
    }
    CHECK(S_ISDIR(there.st_mode), "%s: is a file where a model directory is to be written", directory);
    CHECK(origin == NULL || stat(origin, &from) != 0 || there.st_dev != from.st_dev ||
              there.st_ino != from.st_ino,
          "%s: cannot be written, the model is read from it", directory);
    TRY(p4_dir_list(&names, &count, directory));
    for (int64_t i = 0; i < count; i++) {
        CHECK(is_copied(names[i]) || matches(names[i], written, sizeof written / sizeof written[0]),
              "%s: holds \"%.80s\", which is no file of a model: not replaced", directory, names[i]);
    }
done:
    p4_names_free(names, count);
    return rc;
}

p4_rc p4_hf_directory_write(const char *directory, const p4_hf_model *origin,
                            p4_rc (*fill)(void *user, const char *directory), void *user)
{
    p4_rc rc = P4_OK;
    struct stat taken;
    size_t length = strlen(directory);
    while (length > 1 && directory[length - 1] == '/') {
        length--;
    }
    char *target = p4_format("%.*s", (int)length, directory);
    char *unfinished = target == NULL ? NULL : p4_temp_path(target);
    if (unfinished == NULL) {
        free(target);
        return P4_E_SYSTEM;
    }
    TRY(p4_hf_check_replaced(target, origin->path));
    CHECK(
        lstat(unfinished, &taken) != 0,
        "%s: is in the way: the model is written under this name before it gets its own; remove or rename it",
        unfinished);
    TRY(p4_make_directories(unfinished));
    rc = fill(user, unfinished);
    if (rc == P4_OK) {
        rc = p4_publish_directory(unfinished, target);
    }
    if (rc != P4_OK) {
        (void)p4_remove_tree(unfinished); /* the first failure is the one reported */
    }
done:
    free(unfinished);
    free(target);
    return rc;
}

p4_rc p4_hf_model_write(const char *directory, const p4_hf_model *origin, uint64_t shard_bytes,
                        const p4_hf_source *source)
{
    output out = {.origin = origin, .source = source, .shard_bytes = shard_bytes};
    return p4_hf_directory_write(directory, origin, fill_directory, &out);
}
