#include "jobs/language_model.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "io/file/files.h"
#include "io/gguf/gguf_model.h"
#include "io/out/directory.h"
#include "io/out/outputs.h"
#include "jobs/model_file.h"

/* --- weights ----------------------------------------------------------------------------------- */

/* A matrix that its file holds as [in, out], as [out, in], which a step reads row by row. */
static p4_rc turn(void **to, p4_weight *w)
{
    int64_t each = p4_dtype_bytes(w->dtype);
    char *turned = p4_alloc((size_t)(w->rows * w->cols), (size_t)each);
    if (turned == NULL) {
        return P4_E_SYSTEM;
    }
    for (int64_t r = 0; r < w->rows; r++) {
        for (int64_t c = 0; c < w->cols; c++) {
            memcpy(turned + (r * w->cols + c) * each, (const char *)w->data + (c * w->rows + r) * each,
                   (size_t)each);
        }
    }
    *to = turned;
    w->data = turned;
    w->transposed = false;
    return P4_OK;
}

int64_t p4_language_model_turned_bytes(const p4_model *model, bool halves)
{
    int64_t bytes = 0;
    for (int64_t i = 0; i < model->params_count; i++) {
        const p4_weight *w = &model->weights[i];
        bytes += w->transposed ? w->rows * w->cols * p4_dtype_bytes(halves ? P4_F16 : w->dtype) : 0;
    }
    return bytes;
}

static p4_rc turn_matrices(p4_language_model *m)
{
    p4_rc rc = P4_OK;
    p4_model *model = &m->hf.model;
    m->owned = p4_alloc((size_t)model->params_count, sizeof *m->owned);
    TRY(m->owned != NULL ? P4_OK : P4_E_SYSTEM);
    for (int64_t i = 0; i < model->params_count; i++) {
        if (model->weights[i].transposed) {
            TRY(turn(&m->owned[i], &model->weights[i]));
        }
    }
done:
    return rc;
}

static p4_rc open_directory(p4_language_model *m, const char *path)
{
    p4_rc rc = P4_OK;
    TRY(p4_hf_model_open(&m->hf, path));
    TRY(turn_matrices(m));
    m->weights = m->hf.model.weights;
    m->directory = p4_strdup(m->hf.path);
    TRY(m->directory != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(p4_tokenizer_open(&m->tokenizer, m->directory));
done:
    return rc;
}

/* The tokenizer of a packed model: beside it in dequantized_fp16, else the one that the file holds. */
static p4_rc open_packed_tokenizer(p4_language_model *m, p4_artifact_reader *reader, const char *file)
{
    p4_rc rc = P4_OK;
    char *json = NULL;
    const char *slash = strrchr(file, '/');
    char *beside = p4_format("%.*sdequantized_fp16", slash != NULL ? (int)(slash - file) + 1 : 0, file);
    TRY(beside != NULL ? P4_OK : P4_E_SYSTEM);
    if (p4_directory_exists(beside) && p4_tokenizer_present(beside)) {
        TRY(p4_tokenizer_open(&m->tokenizer, beside));
        m->directory = beside;
        beside = NULL;
        goto done;
    }
    TRY(p4_artifact_read_text(reader, "tokenizer/tokenizer_json", &json));
    CHECK(json != NULL, "%s: holds no tokenizer, and there is none in %s", file, beside);
    TRY(p4_tokenizer_parse(&m->tokenizer, json, strlen(json), file));
done:
    free(json);
    free(beside);
    return rc;
}

static p4_rc open_packed(p4_language_model *m, const char *path, int threads)
{
    p4_rc rc = P4_OK;
    char file[P4_PATH_BYTES];
    p4_artifact_reader *reader = NULL;
    p4_packing packing;
    TRY(p4_model_file_find(file, path));
    TRY(p4_artifact_reader_open(&reader, file));
    TRY(p4_model_file_table(&m->hf, reader, file));
    TRY(p4_model_file_read(&m->packed, &packing, reader, &m->hf.model, threads));
    m->weights = m->packed.weights;
    m->is_packed = true;
    TRY(open_packed_tokenizer(m, reader, file));
done:
    p4_artifact_reader_close(reader);
    return rc;
}

static p4_rc open_gguf(p4_language_model *m, const char *path)
{
    p4_rc rc = P4_OK;
    char *json = NULL;
    TRY(p4_gguf_view_open(&m->gguf, path));
    TRY(p4_gguf_model_read(&m->hf, &m->owned, &m->gguf));
    m->weights = m->hf.model.weights;
    for (int64_t i = 0; i < m->hf.model.params_count; i++) {
        m->is_packed = m->is_packed || m->hf.model.params[i].ternary;
    }
    TRY(p4_gguf_tokenizer_json(&json, &m->gguf));
    TRY(p4_tokenizer_parse(&m->tokenizer, json, strlen(json), path));
done:
    free(json);
    return rc;
}

/* What `path` should be: a model directory, or the results of a run, which the other programs name alike. */
static p4_rc check_path(const char *path, bool directory)
{
    p4_rc rc = P4_OK;
    char file[P4_PATH_BYTES];
    struct stat status;
    char *config = p4_format("%s/config.json", path), *results = p4_format("%s/" P4_RESULTS_FILE, path);
    TRY(config != NULL && results != NULL ? P4_OK : P4_E_SYSTEM);
    CHECK(
        stat(path, &status) == 0 || errno != ENOENT,
        "%s: is not there; expected the output directory of a run, its model.h5, a model directory or a GGUF "
        "file",
        path);
    TRY(directory ? p4_output_check_ended(path) : P4_OK);
    if (directory && !p4_file_exists(config) && p4_file_exists(results)) {
        TRY(p4_model_file_find(file, path)); /* fails: model.h5 is not there */
    }
done:
    free(config);
    free(results);
    return rc;
}

p4_rc p4_language_model_open(p4_language_model *m, const char *path, int threads)
{
    p4_rc rc = P4_OK;
    *m = (p4_language_model){.path = p4_strdup(path)};
    char *packed = p4_format("%s/model.h5", path);
    TRY(m->path != NULL && packed != NULL ? P4_OK : P4_E_SYSTEM);
    bool directory = p4_directory_exists(path) && !p4_file_exists(packed);
    TRY(check_path(path, directory));
    TRY(directory               ? open_directory(m, path)
        : p4_gguf_view_is(path) ? open_gguf(m, path)
                                : open_packed(m, path, threads));
    TRY(p4_tokenizer_scratch_create(&m->scratch, m->tokenizer));
    TRY(p4_stop_ids_add(&m->stop, m->hf.model.arch.eos_id));
    TRY(p4_stop_ids_read(&m->stop, m->hf.config_json, m->hf.path));
    if (m->directory != NULL) {
        TRY(p4_stop_ids_of_directory(&m->stop, m->directory));
    }
done:
    free(packed);
    return rc;
}

void p4_language_model_close(p4_language_model *m)
{
    p4_tokenizer_scratch_free(m->scratch);
    p4_tokenizer_close(m->tokenizer);
    for (int64_t i = 0; m->owned != NULL && i < m->hf.model.params_count; i++) {
        free(m->owned[i]);
    }
    free(m->owned);
    p4_packed_release(&m->packed);
    p4_hf_model_close(&m->hf);
    p4_gguf_view_close(&m->gguf);
    free(m->directory);
    free(m->path);
    *m = (p4_language_model){0};
}

/* --- prompts ----------------------------------------------------------------------------------- */

static p4_rc render(p4_language_model *m, char **text, const char *prompt)
{
    p4_rc rc = P4_OK;
    p4_chat *chat = NULL;
    const p4_chat_message message = {.role = "user", .text = prompt};
    CHECK(m->directory != NULL,
          "option \"--chat\": %s has no chat template: only a model directory holds one", m->path);
    TRY(p4_chat_open(&chat, m->directory, P4_CHAT_AUTO));
    CHECK(p4_chat_refusal(chat) == NULL, "option \"--chat\": %s", p4_chat_refusal(chat));
    TRY(p4_chat_render_prompt(chat, text, &message, 1, m->directory));
    const char *end = p4_chat_message_end(chat);
    if (end != NULL) {
        TRY(p4_stop_ids_add(&m->stop, p4_tokenizer_id(m->tokenizer, end)));
    }
done:
    p4_chat_close(chat);
    return rc;
}

/* Some tokenizers put a token behind each text. The prompt is to be continued: its own tokens are the last.
 */
static p4_rc leave_open(p4_language_model *m, p4_ids *ids, const char *prompt)
{
    p4_rc rc = P4_OK;
    p4_ids own = {0};
    TRY(p4_tokenizer_encode(m->tokenizer, m->scratch, prompt, strlen(prompt), false, &own, NULL));
    for (int64_t end = ids->count; own.count > 0 && end >= own.count; end--) {
        if (memcmp(ids->ids + end - own.count, own.ids, (size_t)own.count * sizeof *own.ids) == 0) {
            ids->count = end;
            break;
        }
    }
done:
    p4_ids_free(&own);
    return rc;
}

p4_rc p4_language_model_encode(p4_language_model *m, p4_ids *ids, const char *prompt, bool chat)
{
    p4_rc rc = P4_OK;
    const p4_arch *a = &m->hf.model.arch;
    char *text = NULL;
    if (chat) {
        TRY(render(m, &text, prompt));
    }
    const char *encoded = chat ? text : prompt;
    TRY(p4_tokenizer_encode(m->tokenizer, m->scratch, encoded, strlen(encoded), !chat, ids, NULL));
    if (!chat) {
        TRY(leave_open(m, ids, prompt));
    }
    if (ids->count == 0) {
        int32_t first = a->bos_id >= 0 ? a->bos_id : m->stop.count > 0 ? m->stop.ids[0] : -1;
        CHECK(first >= 0, "the prompt is empty, and %s names no token that begins a text", m->path);
        TRY(p4_ids_append(ids, &first, 1));
    }
    for (int64_t i = 0; i < ids->count; i++) {
        CHECK(ids->ids[i] < a->V, "%s: token %lld of the prompt has the id %d, the model has %lld tokens",
              m->path, (long long)i, (int)ids->ids[i], (long long)a->V);
    }
done:
    free(text);
    return rc;
}
