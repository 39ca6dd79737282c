#include "io/text/tokenize.h"

#include "io/text/dataset_parts.h"
#include "io/text/words.h"
#include "src/leaf/stop.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH_BYTES = 256 << 10, BATCH_DOCUMENTS = 4096, MOST_THREADS = 256 };

/* One document, or a piece of one, in a batch. */
typedef struct text_piece {
    size_t bytes;    /* of the batch's text */
    int64_t ids_end; /* its ids end here in the batch's ids */
    int64_t replaced;
    int64_t source; /* index of the file or sample */
    int64_t number; /* of the document, from 1, among those read of its file, or of the sample */
    bool continues;
    p4_white_runs white;
} text_piece;

/* Some documents that one thread tokenizes. */
typedef struct token_batch {
    char *text;
    size_t used, capacity;
    text_piece *pieces;
    int64_t count;
    p4_ids ids;
    p4_rc rc;
    char *message; /* when rc is not P4_OK */
    bool tokenized;
} token_batch;

/* Documents one after another: those of files, or samples in memory. */
typedef struct document_source {
    const p4_texts *texts;
    const p4_json_reading *json;
    int64_t at; /* index of the file at hand, or of the next sample */
    p4_documents *documents;
    int64_t number;
    bool continuing;
    p4_document held; /* already read; belongs to the next batch */
    int64_t held_source;
} document_source;

/* The ring: batch i lies in slot i % slots; collected <= taken <= filled <= collected + slots. */
typedef struct batch_ring {
    const p4_texts *texts;
    const p4_windowing *how;
    token_batch *batches;
    int64_t slots, filled, taken, collected;
    bool closed;
    pthread_mutex_t lock;
    pthread_cond_t work, result;
} batch_ring;

/* ---- reading ---- */

/* Opens the file at hand. *open is false where nothing of it is read. */
static p4_rc open_documents(document_source *source, bool *open)
{
    const p4_texts *texts = source->texts;
    const char *path = texts->paths[source->at];
    const p4_draw *draw = texts->draws != NULL ? &texts->draws[source->at] : NULL;
    *open = p4_data_kind_of(path) != P4_DATA_TOKENS && (draw == NULL || draw->stride > 0);
    if (!*open) {
        return P4_OK;
    }
    source->number = 0;
    p4_rc rc = p4_documents_open(&source->documents, path);
    if (rc == P4_OK) {
        p4_documents_read_json(source->documents, source->json);
    }
    if (rc == P4_OK && draw != NULL) {
        p4_documents_sample(source->documents, draw);
    }
    return rc;
}

/* The next document of the files; goes on to the next file at the end of one. */
static p4_rc next_of_files(document_source *source, p4_document *document)
{
    p4_rc rc = P4_OK;
    *document = (p4_document){.bytes = -1};
    while (source->at < source->texts->count) {
        bool open = source->documents != NULL;
        if (!open) {
            TRY(open_documents(source, &open));
        }
        if (open) {
            TRY(p4_documents_next(source->documents, document));
        }
        if (document->bytes >= 0) {
            break;
        }
        p4_documents_close(source->documents);
        source->documents = NULL;
        source->at++;
    }
done:
    return rc;
}

/* *from: the index of its file or sample. */
static p4_rc source_next(document_source *source, p4_document *document, int64_t *from)
{
    p4_rc rc = P4_OK;
    const p4_texts *texts = source->texts;
    if (source->held.bytes >= 0) {
        *document = source->held;
        *from = source->held_source;
        source->held.bytes = -1;
    } else if (texts->samples == NULL) {
        rc = next_of_files(source, document);
        *from = source->at;
    } else if (source->at < texts->count) {
        const char *text = texts->samples[source->at];
        *document = (p4_document){.text = text, .bytes = (int64_t)strlen(text)};
        *from = source->at++;
    } else {
        *document = (p4_document){.bytes = -1};
    }
    return rc;
}

static p4_rc batch_add(token_batch *batch, document_source *source, const p4_document *document, int64_t from)
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
    batch->pieces[batch->count++] = (text_piece){.bytes = bytes,
                                                 .replaced = document->replaced,
                                                 .source = from,
                                                 .number = source->number,
                                                 .continues = document->continues};
    return P4_OK;
}

/* Reads documents until the batch is full or *ended. What was read before an error stays in the batch. */
static p4_rc batch_fill(token_batch *batch, document_source *source, bool *ended)
{
    p4_rc rc = P4_OK;
    batch->used = 0;
    batch->count = batch->ids.count = 0;
    batch->tokenized = false;
    if (batch->pieces == NULL) {
        batch->pieces = p4_alloc(BATCH_DOCUMENTS, sizeof *batch->pieces);
        if (batch->pieces == NULL) {
            return P4_E_SYSTEM;
        }
    }
    while (batch->count < BATCH_DOCUMENTS && !*ended) {
        p4_document document;
        int64_t from = 0;
        TRY(source_next(source, &document, &from));
        *ended = document.bytes < 0;
        if (*ended) {
            break;
        }
        if (batch->count > 0 && batch->used + (size_t)document.bytes > BATCH_BYTES) {
            source->held = document;
            source->held_source = from;
            break;
        }
        TRY(batch_add(batch, source, &document, from));
    }
done:
    return rc;
}

/* ---- tokenizing, on the threads ---- */

static p4_rc batch_tokenize(token_batch *batch, const batch_ring *ring, p4_tokenizer_scratch *scratch)
{
    p4_rc rc = P4_OK;
    const char *text = batch->text;
    for (int64_t i = 0; i < batch->count; i++) {
        text_piece *piece = &batch->pieces[i];
        TRY(p4_tokenizer_encode(ring->how->tokenizer, scratch, text, piece->bytes, false, &batch->ids,
                                &piece->replaced));
        if (!piece->continues && ring->how->end_id >= 0) {
            TRY(p4_ids_append(&batch->ids, &ring->how->end_id, 1));
        }
        piece->ids_end = batch->ids.count;
        piece->white = p4_white_runs_count(text, piece->bytes);
        text += piece->bytes;
    }
done:
    return rc;
}

static void *tokenize_loop(void *user)
{
    batch_ring *ring = user;
    p4_tokenizer_scratch *scratch = NULL;
    p4_error_clear();
    p4_rc rc = p4_tokenizer_scratch_create(&scratch, ring->how->tokenizer);
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
        batch->rc = rc == P4_OK ? batch_tokenize(batch, ring, scratch) : rc;
        if (batch->rc != P4_OK) { /* the message is this thread's: it goes along */
            batch->message = p4_strdup(p4_last_error());
            p4_error_clear();
        }
        pthread_mutex_lock(&ring->lock);
        batch->tokenized = true;
        pthread_cond_signal(&ring->result);
    }
    pthread_mutex_unlock(&ring->lock);
    p4_tokenizer_scratch_free(scratch);
    return NULL;
}

/* ---- collecting ---- */

/* Where ids go. */
typedef struct collector {
    p4_take_ids take;
    void *user;
    p4_text_counts *counts;
    bool continuing; /* the next piece belongs to the document before ... */
    bool in_white;   /* ... which ended in white space */
    /* what was no UTF-8: bytes, the files or samples that had such, the first of them and the last */
    int64_t replaced, replaced_sources, first_replaced, last_replaced;
} collector;

/* Pieces come in the order of their files. */
static void count_replaced(collector *to, const text_piece *piece)
{
    if (piece->replaced > 0) {
        if (to->replaced == 0) {
            to->first_replaced = piece->source;
        }
        to->replaced_sources += to->replaced == 0 || piece->source != to->last_replaced;
        to->last_replaced = piece->source;
        to->replaced += piece->replaced;
    }
}

static void warn_of_replaced(const p4_texts *texts, const collector *from)
{
    char others[48] = "";
    int64_t more = from->replaced_sources - 1;
    if (from->replaced == 0) {
        return;
    }
    if (texts->samples == NULL && more > 0) {
        snprintf(others, sizeof others, " and %lld other file%s", (long long)more, p4_plural(more));
    }
    WARN("warning: %s%s: %lld byte%s not in UTF-8, replaced by U+FFFD",
         texts->samples == NULL ? texts->paths[from->first_replaced] : "the samples", others,
         (long long)from->replaced, p4_plural(from->replaced));
}

/* A run of white space that goes on in the next piece counts once. */
static void count_text(collector *to, const text_piece *piece)
{
    bool goes_on = to->continuing && to->in_white && piece->white.first;
    to->counts->bytes += (int64_t)piece->bytes;
    to->counts->words += piece->white.count + (to->continuing ? 0 : 1) - (goes_on ? 1 : 0);
    to->in_white = piece->white.last;
}

static p4_rc check_ids(const batch_ring *ring, const text_piece *piece, const int32_t *ids, int64_t count)
{
    p4_rc rc = P4_OK;
    for (int64_t i = 0; i < count; i++) {
        CHECK(ids[i] >= 0 && ids[i] < ring->how->vocab,
              "%s: document %lld: the tokenizer gives id %d; the model's vocabulary holds 0 to %lld",
              ring->texts->samples == NULL ? ring->texts->paths[piece->source] : "samples",
              (long long)piece->number, (int)ids[i], (long long)ring->how->vocab - 1);
    }
done:
    return rc;
}

static p4_rc batch_collect(const batch_ring *ring, collector *to, const token_batch *batch)
{
    p4_rc rc = P4_OK;
    int64_t from = 0;
    if (batch->rc != P4_OK) {
        return p4_fail(batch->rc, "%s", batch->message != NULL ? batch->message : "out of memory");
    }
    for (int64_t i = 0; i < batch->count; i++) {
        const text_piece *piece = &batch->pieces[i];
        const int32_t *ids = batch->ids.ids + from;
        int64_t count = piece->ids_end - from;
        to->counts->documents += !to->continuing;
        count_text(to, piece);
        count_replaced(to, piece);
        to->counts->tokens += count;
        to->continuing = piece->continues;
        TRY(check_ids(ring, piece, ids, count));
        TRY(to->take(to->user, piece->source, ids, count));
        from = piece->ids_end;
    }
done:
    return rc;
}

/* Waits for the oldest batch and takes its ids. */
static p4_rc collect_oldest(batch_ring *ring, collector *to)
{
    const token_batch *oldest = &ring->batches[ring->collected % ring->slots];
    pthread_mutex_lock(&ring->lock);
    while (!oldest->tokenized) {
        pthread_cond_wait(&ring->result, &ring->lock);
    }
    pthread_mutex_unlock(&ring->lock);
    p4_rc rc = batch_collect(ring, to, oldest);
    ring->collected++;
    return rc;
}

/* Reads ahead as far as the ring has room, and collects. Of several errors the one whose document comes first
 * counts, however far was read ahead. */
static p4_rc pump(batch_ring *ring, document_source *source, collector *to)
{
    p4_rc rc = P4_OK, read_rc = P4_OK;
    char *read_message = NULL;
    bool ended = false;
    for (;;) {
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
            const char *signal = p4_stop_signal(); /* text can take minutes */
            TRY(signal == NULL ? P4_OK : p4_fail(P4_STOPPED, "stopped by %s", signal));
            TRY(collect_oldest(ring, to));
        } else {
            break;
        }
    }
    if (read_rc != P4_OK) {
        rc = p4_fail(read_rc, "%s", read_message != NULL ? read_message : "out of memory");
    }
done:
    free(read_message);
    return rc;
}

static p4_rc ring_create(batch_ring *ring, const p4_texts *texts, const p4_windowing *how, int threads)
{
    *ring = (batch_ring){.texts = texts, .how = how, .slots = 2 * threads + 2};
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

/* The first text; NULL: there are only token files. */
static const char *first_text(const p4_texts *texts)
{
    for (int64_t i = 0; i < texts->count; i++) {
        if (texts->samples != NULL || p4_data_kind_of(texts->paths[i]) != P4_DATA_TOKENS) {
            return texts->samples != NULL ? "samples" : texts->paths[i];
        }
    }
    return NULL;
}

p4_rc p4_tokenize(const p4_texts *texts, const p4_windowing *how, p4_take_ids take, void *user,
                  p4_text_counts *counts)
{
    p4_rc rc = P4_OK;
    batch_ring ring;
    pthread_t workers[MOST_THREADS];
    document_source source = {.texts = texts, .json = &how->json, .held = {.bytes = -1}};
    collector to = {.take = take, .user = user, .counts = counts};
    int started = 0, threads = how->threads < 1              ? 1
                               : how->threads > MOST_THREADS ? MOST_THREADS
                                                             : how->threads;
    const char *first = first_text(texts);
    if (first == NULL) {
        return P4_OK;
    }
    if (how->tokenizer == NULL) {
        return FAIL("%s: text needs a tokenizer, and the model directory has no tokenizer.json, "
                    "tokenizer.model or vocab.json (token files are named .bin)",
                    first);
    }
    if ((rc = ring_create(&ring, texts, how, threads)) != P4_OK) {
        return rc;
    }
    while (started < threads && pthread_create(&workers[started], NULL, tokenize_loop, &ring) == 0) {
        started++;
    }
    /* Fewer threads than asked for give the same windows, only later. */
    rc = started > 0 ? pump(&ring, &source, &to) : FAULT("no thread can be started to tokenize");
    pthread_mutex_lock(&ring.lock);
    ring.closed = true;
    pthread_cond_broadcast(&ring.work);
    pthread_mutex_unlock(&ring.lock);
    for (int i = 0; i < started; i++) {
        pthread_join(workers[i], NULL);
    }
    ring_free(&ring);
    p4_documents_close(source.documents);
    if (rc == P4_OK) {
        warn_of_replaced(texts, &to);
    }
    return rc;
}
