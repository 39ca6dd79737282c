#include "jobs/generate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "src/leaf/limits.h"

enum {
    BATCH = 256, /* tokens of a prompt in one pass */
    CONTEXT = 6  /* tokens before the new ones that are decoded with them: spaces depend on neighbors */
};

/* --- text as it grows -------------------------------------------------------------------------- */

/* The text of the tokens [first, ids->count) of a generation that has not been shown, decoded behind a few
 * tokens before it. What ends in a broken character waits for the next token. */
typedef struct text_stream {
    const p4_tokenizer *tokenizer;
    p4_ids all;            /* the end of the prompt, and what was generated */
    int64_t context, done; /* tokens [context, done) have been shown, and stand before the next ones */
    char *text;            /* all that was shown */
    size_t bytes;
    p4_generate_show show;
    void *user;
} text_stream;

/* Refuses a tokenizer that cannot decode. */
static p4_rc stream_begin(text_stream *s, const p4_ids *prompt)
{
    p4_rc rc = P4_OK;
    char *context = NULL;
    int64_t kept = p4_min_i64(prompt->count, CONTEXT);
    s->done = kept;
    s->text = p4_strdup("");
    TRY(s->text != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(p4_ids_append(&s->all, prompt->ids + prompt->count - kept, kept));
    TRY(p4_tokenizer_decode(s->tokenizer, s->all.ids, kept, &context));
done:
    free(context);
    return rc;
}

static bool ends_broken(const char *text)
{
    size_t bytes = strlen(text);
    return bytes >= 3 && memcmp(text + bytes - 3, "\xef\xbf\xbd", 3) == 0;
}

/* Shows what is whole; with `all`, also what is not. */
static p4_rc stream_flush(text_stream *s, bool all)
{
    p4_rc rc = P4_OK;
    char *before = NULL, *after = NULL;
    TRY(p4_tokenizer_decode(s->tokenizer, s->all.ids + s->context, s->done - s->context, &before));
    TRY(p4_tokenizer_decode(s->tokenizer, s->all.ids + s->context, s->all.count - s->context, &after));
    size_t known = strlen(before), length = strlen(after);
    if (length <= known || (ends_broken(after) && !all)) {
        goto done;
    }
    size_t more = length - known;
    char *grown = p4_resize(s->text, s->bytes + more + 1, 1);
    TRY(grown != NULL ? P4_OK : P4_E_SYSTEM);
    s->text = grown;
    memcpy(s->text + s->bytes, after + known, more + 1);
    if (s->show != NULL) {
        s->show(s->user, s->text + s->bytes);
    }
    s->bytes += more;
    s->context = s->done;
    s->done = s->all.count;
done:
    free(before);
    free(after);
    return rc;
}

/* A row of the vocabulary that pads it is no token, and adds no text. */
static p4_rc stream_add(text_stream *s, int32_t id)
{
    p4_rc rc = P4_OK;
    char *own = NULL;
    if (p4_tokenizer_decode(s->tokenizer, &id, 1, &own) == P4_E_INPUT) {
        p4_error_clear();
        return P4_OK;
    }
    TRY(p4_ids_append(&s->all, &id, 1));
    TRY(stream_flush(s, false));
done:
    free(own);
    return rc;
}

/* --- the generator ----------------------------------------------------------------------------- */

/* Four products a layer and the head share the bytes of a step. */
static int count_threads(const p4_generate_settings *settings, const p4_model *model,
                         const p4_weight *weights)
{
    int most = settings->most_threads > 0 ? settings->most_threads : (int)fmax(1, p4_cores_here());
    double product_bytes = p4_decoder_weight_bytes(model, weights) / (double)(4 * model->arch.L + 1);
    return settings->threads > 0                            ? settings->threads
           : product_bytes < (double)most * P4_THREAD_BYTES ? 1 + (int)(product_bytes / P4_THREAD_BYTES)
                                                            : most;
}

static p4_decoder_plan decoder_plan(const p4_generate_settings *settings, int64_t capacity, bool is_packed)
{
    return (p4_decoder_plan){.capacity = capacity,
                             .batch = BATCH,
                             .activation_bits = is_packed ? settings->activation_bits : 0,
                             .cache_type = settings->cache_type};
}

p4_rc p4_generator_plan_bytes(p4_generator_memory *bytes, const p4_generate_settings *settings,
                              const p4_model *model, const p4_weight *weights, int64_t capacity,
                              bool is_packed)
{
    p4_rc rc = P4_OK;
    const p4_ops *ops = p4_ops_find(settings->device);
    const p4_decoder_plan plan = decoder_plan(settings, capacity, is_packed);
    p4_device *device = NULL;
    TRY(ops->open(&device, 0, count_threads(settings, model, weights), true));
    bytes->form = p4_device_form_bytes(ops, device, model, weights);
    bytes->decoder = p4_decoder_bytes(ops, device, model, &plan);
    bytes->logits = model->arch.V * (int64_t)sizeof(float);
    rc = bytes->form >= 0 && bytes->decoder >= 0 ? P4_OK : P4_E_SYSTEM;
done:
    if (device != NULL) {
        ops->close(device);
    }
    return rc;
}

p4_rc p4_generator_open(p4_generator *g, const p4_language_model *m, const p4_generate_settings *settings,
                        int64_t capacity)
{
    p4_rc rc = P4_OK;
    const p4_decoder_plan plan = decoder_plan(settings, capacity, m->is_packed);
    *g = (p4_generator){.m = m, .settings = settings, .ops = p4_ops_find(settings->device)};
    CHECK(g->ops != NULL, "option \"--device\": this program was built without \"%s\"", settings->device);
    TRY(g->ops->open(&g->device, 0, count_threads(settings, &m->hf.model, m->weights), true));
    TRY(p4_device_form_open(&g->form, g->ops, g->device, &m->hf.model, m->weights));
    TRY(p4_decoder_open(&g->decoder, g->ops, g->device, &m->hf.model, &g->form.form, &plan));
    g->logits = p4_alloc((size_t)m->hf.model.arch.V, sizeof *g->logits);
    rc = g->logits != NULL ? P4_OK : P4_E_SYSTEM;
done:
    return rc;
}

void p4_generator_close(p4_generator *g)
{
    p4_decoder_close(&g->decoder);
    if (g->form.ops != NULL) {
        p4_device_form_close(&g->form);
    }
    if (g->device != NULL) {
        g->ops->close(g->device);
    }
    free(g->logits);
    *g = (p4_generator){0};
}

/* A token a step, until one ends the text. */
static p4_rc step(p4_generator *g, p4_generation *out, p4_sampler *sampler, text_stream *stream)
{
    p4_rc rc = P4_OK;
    double start = p4_now_s();
    clock_t cpu = clock();
    for (;;) {
        int32_t id = p4_sampler_next(sampler, g->logits);
        CHECK(id >= 0, "%s: the logits behind %lld tokens are not numbers", g->m->path,
              (long long)p4_decoder_length(&g->decoder));
        out->text_s = p4_now_s() - start;
        out->text_cpu_s = (double)(clock() - cpu) / CLOCKS_PER_SEC;
        if (p4_stop_ids_has(&g->m->stop, id)) {
            out->ended = true;
            break;
        }
        TRY(p4_ids_append(&out->ids, &id, 1));
        TRY(stream_add(stream, id));
        if (out->ids.count == g->settings->tokens) {
            break;
        }
        TRY(p4_decoder_append(&g->decoder, &id, 1, g->logits));
    }
done:
    return rc;
}

p4_rc p4_generator_run(p4_generator *g, p4_generation *out, const p4_ids *prompt, p4_generate_show show,
                       void *user)
{
    p4_rc rc = P4_OK;
    p4_sampler sampler = {0};
    text_stream stream = {.tokenizer = g->m->tokenizer, .show = show, .user = user};
    *out = (p4_generation){.model = p4_strdup(g->m->path), .prompt_tokens = prompt->count};
    TRY(out->model != NULL ? P4_OK : P4_E_SYSTEM);
    out->bytes_per_token = p4_decoder_weight_bytes(&g->m->hf.model, g->m->weights);
    TRY(p4_sampler_open(&sampler, &g->settings->sampling, g->m->hf.model.arch.V));
    TRY(stream_begin(&stream, prompt));
    p4_decoder_rewind(&g->decoder, 0);
    double start = p4_now_s();
    TRY(p4_decoder_append(&g->decoder, prompt->ids, prompt->count, g->logits));
    out->prompt_s = p4_now_s() - start;
    TRY(step(g, out, &sampler, &stream));
    TRY(stream_flush(&stream, true));
    out->text = stream.text;
    stream.text = NULL;
done:
    p4_sampler_close(&sampler);
    p4_ids_free(&stream.all);
    free(stream.text);
    return rc;
}

p4_rc p4_generate(p4_generation *out, p4_language_model *m, const p4_generate_settings *settings,
                  const char *prompt, p4_generate_show show, void *user)
{
    p4_rc rc = P4_OK;
    p4_generator g = {0};
    p4_ids ids = {0};
    *out = (p4_generation){0};
    TRY(p4_language_model_encode(m, &ids, prompt, settings->chat));
    CHECK(ids.count + settings->tokens <= m->hf.model.arch.positions,
          "%s: a prompt of %lld token%s and %lld more were asked for, the model has %lld positions", m->path,
          (long long)ids.count, p4_plural(ids.count), (long long)settings->tokens,
          (long long)m->hf.model.arch.positions);
    TRY(p4_generator_open(&g, m, settings, ids.count + settings->tokens));
    TRY(p4_generator_run(&g, out, &ids, show, user));
done:
    p4_ids_free(&ids);
    p4_generator_close(&g);
    return rc;
}
