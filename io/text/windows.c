/* Windows of token ids out of files or samples. One thread reads, `threads` tokenise, and the reading thread
 * collects what they made in the order of the documents: what comes out does not depend on who was faster. */
#include "io/text/dataset_parts.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH_BYTES = 256 << 10, BATCH_DOCUMENTS = 4096, MOST_THREADS = 256 };

/* One document, or a piece of one, in a batch. */
typedef struct text_piece {
    size_t bytes;    /* of the batch's text */
    int64_t ids_end; /* its ids end here in the batch's ids */
    int64_t replaced;
    int64_t number;   /* of the document, from 1, in its file or among the samples */
    const char *path; /* NULL: a sample */
    bool continues;
} text_piece;

/* Some documents that one thread tokenises. */
typedef struct token_batch {
    char *text;
    size_t used, capacity;
    text_piece *pieces;
    int64_t count;
    p4_ids ids;
    p4_rc rc;
    char *message; /* when rc is not P4_OK */
    bool tokenised;
} token_batch;

/* Documents one after another: those of files, or samples in memory. */
typedef struct document_source {
    char *const *paths;
    int64_t path_count, path;
    const char *const *samples;
    int64_t sample_count, sample;
    p4_documents *documents;
    int64_t number;
    bool continuing;
    p4_document held; /* read, and belonging to the next batch */
} document_source;

/* The ring: batch i lies in slot i % slots; collected <= taken <= filled <= collected + slots. */
typedef struct batch_ring {
    const p4_tokenizer *tokenizer;
    int32_t end_id;
    token_batch *batches;
    int64_t slots, filled, taken, collected;
    bool closed;
    pthread_mutex_t lock;
    pthread_cond_t work, result;
} batch_ring;

/* ---- filling windows
 * --------------------------------------------------------------------------------------------- */

p4_rc p4_filling_add(p4_filling *filling, const int32_t *ids, int64_t count, int64_t *bad)
{
    *bad = -1;
    for (int64_t i = 0; i < count; i++) {
        if (ids[i] < 0 || ids[i] >= filling->vocab) {
            *bad = i;
            return P4_OK;
        }
    }
    int64_t kept = p4_min_i64(count, filling->limit_ids - filling->used);
    if (filling->used + kept > filling->capacity) {
        int64_t capacity = p4_max_i64(filling->used + kept, filling->capacity + filling->capacity / 2);
        capacity = p4_min_i64(p4_max_i64(capacity, 1 << 16), filling->limit_ids);
        int32_t *grown = p4_resize(filling->windows->ids, (size_t)capacity, sizeof *grown);
        if (grown == NULL) {
            return P4_E_SYSTEM;
        }
        filling->windows->ids = grown;
        filling->capacity = capacity;
    }
    if (kept > 0) {
        memcpy(filling->windows->ids + filling->used, ids, (size_t)kept * sizeof *ids);
    }
    filling->used += kept;
    filling->windows->tokens_total += count;
    return P4_OK;
}

static p4_rc filling_begin(p4_filling *filling, p4_windows *windows, int64_t T, int64_t limit, int64_t vocab,
                           int32_t end_id)
{
    p4_rc rc = P4_OK;
    *windows = (p4_windows){.T = T};
    *filling = (p4_filling){.windows = windows, .limit_ids = INT64_MAX, .vocab = vocab, .end_id = end_id};
    CHECK(T >= 1 && limit >= 0 && vocab >= 1,
          "windows of %lld tokens, at most %lld, vocabulary %lld: out of range", (long long)T,
          (long long)limit, (long long)vocab);
    CHECK(end_id < vocab, "the end-of-text id is %d; the model's vocabulary holds 0 to %lld", (int)end_id,
          (long long)vocab - 1);
    if (limit > 0) {
        CHECK(!__builtin_mul_overflow(limit, T, &filling->limit_ids), "%lld windows of %lld tokens: too many",
              (long long)limit, (long long)T);
    }
done:
    return rc;
}

static p4_rc filling_end(p4_filling *filling, const char *what)
{
    p4_rc rc = P4_OK;
    p4_windows *windows = filling->windows;
    windows->count = filling->used / windows->T;
    CHECK(windows->count > 0, "%s: %lld token%s in %lld document%s, less than one window of %lld tokens",
          what, (long long)windows->tokens_total, p4_plural(windows->tokens_total),
          (long long)windows->documents, p4_plural(windows->documents), (long long)windows->T);
    int32_t *fitting = p4_resize(windows->ids, (size_t)(windows->count * windows->T), sizeof *fitting);
    if (fitting == NULL) {
        rc = P4_E_SYSTEM;
        goto done;
    }
    windows->ids = fitting;
done:
    return rc;
}

void p4_windows_free(p4_windows *windows)
{
    free(windows->ids);
    *windows = (p4_windows){.ids = NULL};
}

/* ---- reading
 * ----------------------------------------------------------------------------------------------------- */

/* The next document of the files; goes on to the next file at the end of one. */
static p4_rc next_of_files(document_source *source, p4_document *document)
{
    p4_rc rc = P4_OK;
    *document = (p4_document){.bytes = -1};
    while (source->path < source->path_count) {
        if (source->documents == NULL) {
            source->number = 0;
            TRY(p4_documents_open(&source->documents, source->paths[source->path]));
        }
        TRY(p4_documents_next(source->documents, document));
        if (document->bytes >= 0) {
            break;
        }
        p4_documents_close(source->documents);
        source->documents = NULL;
        source->path++;
    }
done:
    return rc;
}

static p4_rc source_next(document_source *source, p4_document *document)
{
    p4_rc rc = P4_OK;
    if (source->held.bytes >= 0) {
        *document = source->held;
        source->held.bytes = -1;
        return P4_OK;
    }
    if (source->samples == NULL) {
        rc = next_of_files(source, document);
    } else if (source->sample < source->sample_count) {
        const char *text = source->samples[source->sample++];
        *document = (p4_document){.text = text, .bytes = (int64_t)strlen(text)};
    } else {
        *document = (p4_document){.bytes = -1};
    }
    return rc;
}

static p4_rc batch_add(token_batch *batch, document_source *source, const p4_document *document)
{
    size_t bytes = (size_t)document->bytes;
    if (batch->used + bytes > batch->capacity) {
        size_t capacity = batch->used + bytes > BATCH_BYTES ? batch->used + bytes : BATCH_BYTES;
        char *grown = p4_resize(batch->text, capacity, 1);
        if (grown == NULL) {
            return P4_E_SYSTEM;
        }
        batch->text = grown;
        batch->capacity = capacity;
    }
    if (bytes > 0) {
        memcpy(batch->text + batch->used, document->text, bytes);
    }
    batch->used += bytes;
    source->number += !source->continuing;
    source->continuing = document->continues;
    batch->pieces[batch->count++] =
        (text_piece){.bytes = bytes,
                     .replaced = document->replaced,
                     .number = source->number,
                     .path = source->samples == NULL ? source->paths[source->path] : NULL,
                     .continues = document->continues};
    return P4_OK;
}

/* Reads documents until the batch is full or *ended. What was read before an error stays in the batch. */
static p4_rc batch_fill(token_batch *batch, document_source *source, bool *ended)
{
    p4_rc rc = P4_OK;
    batch->used = 0;
    batch->count = batch->ids.count = 0;
    batch->tokenised = false;
    if (batch->pieces == NULL) {
        batch->pieces = p4_alloc(BATCH_DOCUMENTS, sizeof *batch->pieces);
        if (batch->pieces == NULL) {
            return P4_E_SYSTEM;
        }
    }
    while (batch->count < BATCH_DOCUMENTS && !*ended) {
        p4_document document;
        TRY(source_next(source, &document));
        *ended = document.bytes < 0;
        if (*ended) {
            break;
        }
        if (batch->count > 0 && batch->used + (size_t)document.bytes > BATCH_BYTES) {
            source->held = document;
            break;
        }
        TRY(batch_add(batch, source, &document));
    }
done:
    return rc;
}

/* ---- tokenising, on the threads
 * ---------------------------------------------------------------------------------- */

static p4_rc batch_tokenise(token_batch *batch, const batch_ring *ring, p4_tokenizer_scratch *scratch)
{
    p4_rc rc = P4_OK;
    const char *text = batch->text;
    for (int64_t i = 0; i < batch->count; i++) {
        text_piece *piece = &batch->pieces[i];
        TRY(p4_tokenizer_encode(ring->tokenizer, scratch, text, piece->bytes, false, &batch->ids,
                                &piece->replaced));
        if (!piece->continues && ring->end_id >= 0) {
            TRY(p4_ids_append(&batch->ids, &ring->end_id, 1));
        }
        piece->ids_end = batch->ids.count;
        text += piece->bytes;
    }
done:
    return rc;
}

static void *tokenise_loop(void *user)
{
    batch_ring *ring = user;
    p4_tokenizer_scratch *scratch = NULL;
    p4_error_clear();
    p4_rc rc = p4_tokenizer_scratch_create(&scratch, ring->tokenizer);
    pthread_mutex_lock(&ring->lock);
    for (;;) {
        while (ring->taken == ring->filled && !ring->closed) {
            pthread_cond_wait(&ring->work, &ring->lock);
        }
        if (ring->closed) {
            break;
        }
        token_batch *batch = &ring->batches[ring->taken++ % ring->slots];
        pthread_mutex_unlock(&ring->lock);
        batch->rc = rc == P4_OK ? batch_tokenise(batch, ring, scratch) : rc;
        if (batch->rc != P4_OK) { /* the message is this thread's: it goes along */
            batch->message = p4_strdup(p4_last_error());
            p4_error_clear();
        }
        pthread_mutex_lock(&ring->lock);
        batch->tokenised = true;
        pthread_cond_signal(&ring->result);
    }
    pthread_mutex_unlock(&ring->lock);
    p4_tokenizer_scratch_free(scratch);
    return NULL;
}

/* ---- collecting
 * -------------------------------------------------------------------------------------------------- */

static p4_rc batch_collect(p4_filling *filling, const token_batch *batch, bool *continuing)
{
    p4_rc rc = P4_OK;
    int64_t from = 0, bad;
    if (batch->rc != P4_OK) {
        return p4_fail(batch->rc, "%s", batch->message != NULL ? batch->message : "out of memory");
    }
    for (int64_t i = 0; i < batch->count && !p4_filling_full(filling); i++) {
        const text_piece *piece = &batch->pieces[i];
        filling->windows->documents += !*continuing;
        filling->windows->replaced_bytes += piece->replaced;
        *continuing = piece->continues;
        TRY(p4_filling_add(filling, batch->ids.ids + from, piece->ids_end - from, &bad));
        CHECK(bad < 0, "%s: document %lld: the tokenizer gives id %d; the model's vocabulary holds 0 to %lld",
              piece->path != NULL ? piece->path : "samples", (long long)piece->number,
              (int)batch->ids.ids[from + bad], (long long)filling->vocab - 1);
        from = piece->ids_end;
    }
done:
    return rc;
}

/* Waits for the oldest batch and takes its ids. */
static p4_rc collect_oldest(batch_ring *ring, p4_filling *filling, bool *continuing)
{
    const token_batch *oldest = &ring->batches[ring->collected % ring->slots];
    pthread_mutex_lock(&ring->lock);
    while (!oldest->tokenised) {
        pthread_cond_wait(&ring->result, &ring->lock);
    }
    pthread_mutex_unlock(&ring->lock);
    p4_rc rc = batch_collect(filling, oldest, continuing);
    ring->collected++;
    return rc;
}

/* Reads ahead as far as the ring has room, and collects. An error in reading counts only when the windows
 * before it do not fill the limit: how far was read ahead must not matter. */
static p4_rc pump(batch_ring *ring, document_source *source, p4_filling *filling)
{
    p4_rc rc = P4_OK, read_rc = P4_OK;
    char *read_message = NULL;
    bool ended = false, continuing = false;
    while (!p4_filling_full(filling)) {
        if (!ended && ring->filled - ring->collected < ring->slots) {
            token_batch *batch = &ring->batches[ring->filled % ring->slots];
            read_rc = batch_fill(batch, source, &ended);
            if (read_rc != P4_OK) {
                ended = true;
                read_message = p4_strdup(p4_last_error());
                p4_error_clear();
            }
            if (batch->count > 0) {
                pthread_mutex_lock(&ring->lock);
                ring->filled++;
                pthread_cond_signal(&ring->work);
                pthread_mutex_unlock(&ring->lock);
            }
        } else if (ring->collected < ring->filled) {
            TRY(collect_oldest(ring, filling, &continuing));
        } else {
            break;
        }
    }
    if (!p4_filling_full(filling) && read_rc != P4_OK) {
        rc = p4_fail(read_rc, "%s", read_message != NULL ? read_message : "out of memory");
    }
done:
    free(read_message);
    return rc;
}

static p4_rc ring_create(batch_ring *ring, const p4_tokenizer *tokenizer, int32_t end_id, int threads)
{
    *ring = (batch_ring){.tokenizer = tokenizer, .end_id = end_id, .slots = 2 * threads + 2};
    ring->batches = p4_alloc((size_t)ring->slots, sizeof *ring->batches);
    if (ring->batches == NULL) {
        return P4_E_SYSTEM;
    }
    pthread_mutex_init(&ring->lock, NULL);
    pthread_cond_init(&ring->work, NULL);
    pthread_cond_init(&ring->result, NULL);
    return P4_OK;
}

static void ring_free(batch_ring *ring)
{
    for (int64_t i = 0; i < ring->slots; i++) {
        free(ring->batches[i].text);
        free(ring->batches[i].pieces);
        free(ring->batches[i].message);
        p4_ids_free(&ring->batches[i].ids);
    }
    pthread_cond_destroy(&ring->result);
    pthread_cond_destroy(&ring->work);
    pthread_mutex_destroy(&ring->lock);
    free(ring->batches);
}

/* Tokenises the documents of `source` into `filling` until either ends. */
static p4_rc tokenise(p4_filling *filling, document_source *source, const p4_tokenizer *tokenizer,
                      int threads)
{
    p4_rc rc = P4_OK;
    batch_ring ring;
    pthread_t workers[MOST_THREADS];
    int started = 0;
    threads = threads < 1 ? 1 : threads > MOST_THREADS ? MOST_THREADS : threads;
    if ((rc = ring_create(&ring, tokenizer, filling->end_id, threads)) != P4_OK) {
        return rc;
    }
    while (started < threads && pthread_create(&workers[started], NULL, tokenise_loop, &ring) == 0) {
        started++;
    }
    /* Fewer threads than asked for give the same windows, only later. */
    rc = started > 0 ? pump(&ring, source, filling) : FAULT("no thread can be started to tokenise");
    pthread_mutex_lock(&ring.lock);
    ring.closed = true;
    pthread_cond_broadcast(&ring.work);
    pthread_mutex_unlock(&ring.lock);
    for (int i = 0; i < started; i++) {
        pthread_join(workers[i], NULL);
    }
    ring_free(&ring);
    p4_documents_close(source->documents);
    return rc;
}

/* ---- the interface
 * ----------------------------------------------------------------------------------------------- */

/* paths[0..count): files of text. */
static p4_rc read_texts(p4_filling *filling, char *const *paths, int64_t count, const p4_tokenizer *tokenizer,
                        int threads)
{
    document_source source = {.paths = paths, .path_count = count, .held = {.bytes = -1}};
    return tokenizer != NULL ? tokenise(filling, &source, tokenizer, threads)
                             : FAIL("%s: text needs a tokenizer, and the model directory has no "
                                    "tokenizer.json (token files are named .bin)",
                                    paths[0]);
}

p4_rc p4_windows_read(p4_windows *windows, char *const *paths, int64_t path_count,
                      const p4_tokenizer *tokenizer, int64_t T, int64_t limit, int64_t vocab, int32_t end_id,
                      int threads)
{
    p4_rc rc = P4_OK;
    p4_filling filling;
    TRY(filling_begin(&filling, windows, T, limit, vocab, end_id));
    CHECK(path_count > 0, "no files of text or tokens are named");
    for (int64_t i = 0; i < path_count && !p4_filling_full(&filling);) {
        if (p4_data_kind_of(paths[i]) == P4_DATA_TOKENS) {
            TRY(p4_token_file_read(&filling, paths[i++]));
            continue;
        }
        int64_t texts = 1;
        while (i + texts < path_count && p4_data_kind_of(paths[i + texts]) != P4_DATA_TOKENS) {
            texts++;
        }
        TRY(read_texts(&filling, paths + i, texts, tokenizer, threads));
        i += texts;
    }
    TRY(filling_end(&filling, path_count == 1 ? paths[0] : "the files of text and tokens"));
done:
    if (rc != P4_OK) {
        p4_windows_free(windows);
    }
    return rc;
}

p4_rc p4_windows_from_samples(p4_windows *windows, const char *const *samples, int64_t count,
                              const p4_tokenizer *tokenizer, int64_t T, int64_t limit, int64_t vocab,
                              int32_t end_id, int threads)
{
    p4_rc rc = P4_OK;
    p4_filling filling;
    TRY(filling_begin(&filling, windows, T, limit, vocab, end_id));
    CHECK(samples != NULL && count > 0, "no samples are given");
    CHECK(tokenizer != NULL, "samples need a tokenizer, and there is none");
    document_source source = {.samples = samples, .sample_count = count, .held = {.bytes = -1}};
    TRY(tokenise(&filling, &source, tokenizer, threads));
    TRY(filling_end(&filling, "the samples"));
done:
    if (rc != P4_OK) {
        p4_windows_free(windows);
    }
    return rc;
}
