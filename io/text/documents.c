/* A stream of documents from one file: how the bytes of its texts are divided into documents. members.c finds
 * the texts. */
#include "io/text/json_line.h"
#include "io/text/members.h"
#include "src/leaf/rng.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST_BYTES = 4096 };
static const size_t longest_line_bytes = (size_t)1 << 30;

struct p4_documents {
    p4_members *members;
    p4_stream *stream;   /* the text that is being read; NULL: the next one is still to be fetched */
    p4_data_kind format; /* of the stream: text, JSONL or articles */
    int64_t position;    /* bytes of this file's texts before what the stream gives next */
    int64_t line_number; /* lines of the stream so far; -1: not known after a seek */
    bool begun;          /* the stream has given a document */
    bool continuing;     /* the next piece belongs to the document before */
    bool ended;          /* the stream has given its last piece */
    bool blank_above;    /* the line before was blank, or there was none */
    /* The document at hand: [0, used) of `text`, of which the caller has been given the first `given`. */
    char *text;
    size_t used, given, capacity;
    char *rest; /* of a line of JSONL: what is still to be given, in `text` or `rendered` */
    size_t rest_bytes;
    char *rendered; /* a conversation, if `rest` is one; NULL otherwise */
    p4_json_reading reading;
    /* A sample of the file. */
    bool sampled;
    p4_draw draw;
    int64_t drawn_block; /* the current or next drawn block; -1: none yet */
    uint64_t draws;      /* how many were drawn so far */
};

/* ---- the sample ---- */

/* Whether what begins at byte `at` of the file's texts belongs to the sample. Called with rising `at`.
 * Stratum i covers blocks [i, i + 1) times the stride, and one of them is drawn. */
static bool is_drawn(p4_documents *d, int64_t at)
{
    int64_t block = at / d->draw.block_bytes;
    while (d->drawn_block < block) {
        p4_rng rng = {.seed = d->draw.seed, .stream = d->draw.stream, .counter = d->draws};
        d->drawn_block = (int64_t)floor(((double)d->draws + p4_rng_uniform(&rng)) * d->draw.stride);
        d->draws++;
    }
    return d->drawn_block == block;
}

/* The first byte of the current or next drawn block. */
static int64_t drawn_at(const p4_documents *d)
{
    return d->drawn_block * d->draw.block_bytes;
}

static p4_rc seek(p4_documents *d, int64_t position)
{
    d->position = position;
    d->line_number = -1;
    return p4_stream_seek(d->stream, position);
}

/* ---- the text at hand ---- */

static p4_rc append(p4_documents *d, const char *bytes, size_t count)
{
    if (count > d->capacity - d->used) {
        size_t capacity = d->capacity + d->capacity / 2;
        capacity = capacity > d->used + count ? capacity : d->used + count;
        char *text = p4_resize(d->text, capacity, 1);
        if (text == NULL) {
            return P4_E_SYSTEM;
        }
        d->text = text;
        d->capacity = capacity;
    }
    memcpy(d->text + d->used, bytes, count);
    d->used += count;
    return P4_OK;
}

/* Forgets what the caller was given. */
static void drop_given(p4_documents *d)
{
    if (d->given > 0) {
        memmove(d->text, d->text + d->given, d->used - d->given);
        d->used -= d->given;
        d->given = 0;
    }
}

/* Consumes the next line with its line end, if it has one, and appends it to the text if `keep` is set.
 * *count: its bytes, 0 at the end of the stream. */
static p4_rc take_line(p4_documents *d, bool keep, size_t *count)
{
    p4_rc rc = P4_OK;
    *count = 0;
    for (bool complete = false; !complete;) {
        const char *bytes;
        size_t available;
        TRY(p4_stream_peek(d->stream, 1, &bytes, &available));
        const char *newline = memchr(bytes, '\n', available);
        size_t part = newline != NULL ? (size_t)(newline - bytes) + 1 : available;
        complete = newline != NULL || available == 0;
        if (keep) {
            TRY(append(d, bytes, part));
        }
        p4_stream_skip(d->stream, part);
        *count += part;
        d->position += (int64_t)part;
        CHECK(!keep || *count <= longest_line_bytes, "%s: the line at byte %lld is longer than 1 GiB",
              d->stream->name, (long long)(d->position - (int64_t)*count));
    }
    d->line_number += d->line_number >= 0 && *count > 0;
done:
    return rc;
}

/* Consumes up to `bytes` bytes, fewer only at the end of the stream, and appends them if `keep` is set.
 * *last: nothing follows them. */
static p4_rc take_bytes(p4_documents *d, int64_t bytes, bool keep, bool *last)
{
    p4_rc rc = P4_OK;
    const char *from;
    size_t available;
    for (;;) {
        TRY(p4_stream_peek(d->stream, 1, &from, &available));
        *last = available == 0;
        if (*last || bytes == 0) {
            break;
        }
        size_t part = available < (size_t)bytes ? available : (size_t)bytes;
        if (keep) {
            TRY(append(d, from, part));
        }
        p4_stream_skip(d->stream, part);
        d->position += (int64_t)part;
        bytes -= (int64_t)part;
    }
done:
    return rc;
}

static bool is_blank(const char *line, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (line[i] != ' ' && line[i] != '\t' && line[i] != '\r' && line[i] != '\n') {
            return false;
        }
    }
    return true;
}

/* Where a piece of at most `used` bytes may end: after a line end between two lines with text, which is where
 * byte-level BPE gives the parts the ids that it gives the whole; else after any line end, else between two
 * characters. */
static size_t piece_end(const char *text, size_t used)
{
    size_t any_line = 0;
    for (size_t at = used - 1; at > used / 2; at--) {
        if (text[at - 1] == '\n') {
            any_line = any_line == 0 ? at : any_line;
            if (!is_blank(text + at - 2, 1) && !is_blank(text + at, 1)) {
                return at;
            }
        }
    }
    if (any_line > 0) {
        return any_line;
    }
    size_t at = used - 1;
    while (at > used - 4 && ((unsigned char)text[at] & 0xc0) == 0x80) {
        at--;
    }
    return at;
}

/* Cuts the piece [*from, *to) of a longer text at line ends; at spaces, or between two characters, where half
 * of it has no line end. */
static void trim_piece(const char *text, bool first, bool last, size_t *from, size_t *to)
{
    size_t half = (*to - *from) / 2;
    const char *found;
    if (!first) {
        if ((found = memchr(text + *from, '\n', half)) != NULL) {
            *from = (size_t)(found - text) + 1;
        } else if ((found = memchr(text + *from, ' ', half)) != NULL) {
            *from = (size_t)(found - text);
        } else {
            while (*from < *to && ((unsigned char)text[*from] & 0xc0) == 0x80) {
                ++*from;
            }
        }
    }
    if (!last) {
        size_t line = *to, space = *to, middle = *to - half;
        while (line > middle && text[line - 1] != '\n') {
            line--;
        }
        while (space > middle && text[space - 1] != ' ') {
            space--;
        }
        if (line > middle) {
            *to = line;
        } else if (space > middle) {
            *to = space - 1;
        } else {
            while (*to > *from && ((unsigned char)text[*to - 1] & 0xc0) == 0x80) {
                --*to;
            }
            *to -=
                *to > *from && (unsigned char)text[*to - 1] >= 0xc0; /* whether it is complete is not known */
        }
    }
}

/* ---- the formats: each gives one document or piece, or *found false at the end of the stream ---- */

/* Hands out [0, bytes) of the text. */
static void give(p4_documents *d, size_t bytes, bool continues, p4_document *document)
{
    *document = (p4_document){.text = d->text, .bytes = (int64_t)bytes, .continues = continues};
    d->given = bytes;
    d->begun = true;
    d->continuing = continues;
}

static p4_rc next_text(p4_documents *d, p4_document *document, bool *found)
{
    p4_rc rc = P4_OK;
    bool last = false;
    *found = !d->begun || d->continuing;
    if (*found) {
        if (d->used <= P4_PIECE_BYTES) {
            TRY(take_bytes(d, P4_PIECE_BYTES + 1 - (int64_t)d->used, true, &last));
        }
        bool whole = d->used <= P4_PIECE_BYTES;
        give(d, whole ? d->used : piece_end(d->text, P4_PIECE_BYTES), !whole, document);
    }
done:
    return rc;
}

/* A text is divided into pieces of block_bytes, from its beginning. */
static p4_rc next_text_drawn(p4_documents *d, p4_document *document, bool *found)
{
    p4_rc rc = P4_OK;
    const int64_t block_bytes = d->draw.block_bytes;
    *found = false;
    while (!*found && !d->ended) {
        bool first = !d->begun, drawn = is_drawn(d, d->position);
        d->begun = true;
        d->used = d->given = 0;
        if (!drawn && p4_stream_is_file(d->stream)) {
            int64_t pieces = p4_ceil_div(drawn_at(d) - d->position, block_bytes);
            TRY(seek(d, d->position + pieces * block_bytes));
            continue;
        }
        TRY(take_bytes(d, block_bytes, drawn, &d->ended));
        size_t from = 0, to = d->used;
        trim_piece(d->text, first, d->ended, &from, &to);
        *found = drawn && (to > from || (first && d->ended));
        *document = (p4_document){.text = d->text + from, .bytes = (int64_t)(to - from)};
    }
done:
    return rc;
}

/* The next piece of a long line. */
static void give_rest(p4_documents *d, p4_document *document)
{
    bool whole = d->rest_bytes <= P4_PIECE_BYTES;
    size_t bytes = whole ? d->rest_bytes : piece_end(d->rest, P4_PIECE_BYTES);
    *document = (p4_document){.text = d->rest, .bytes = (int64_t)bytes, .continues = !whole};
    d->rest += bytes;
    d->rest_bytes -= bytes;
}

/* Goes to the next line that is drawn. */
static p4_rc find_drawn_line(p4_documents *d)
{
    p4_rc rc = P4_OK;
    for (size_t count = 1; count > 0 && !is_drawn(d, d->position);) {
        if (p4_stream_is_file(d->stream) && drawn_at(d) - d->position > P4_STREAM_BUFFER_BYTES) {
            TRY(seek(d, drawn_at(d) - 1)); /* a line that begins with the block follows a line end */
        }
        TRY(take_line(d, false, &count));
    }
done:
    return rc;
}

static p4_rc next_jsonl(p4_documents *d, p4_document *document, bool *found)
{
    p4_rc rc = P4_OK;
    size_t count;
    *found = true;
    if (d->rest_bytes > 0) {
        give_rest(d, document);
        return P4_OK;
    }
    do {
        d->used = 0;
        if (d->sampled) {
            TRY(find_drawn_line(d));
        }
        TRY(take_line(d, true, &count));
    } while (count > 0 && is_blank(d->text, count));
    *found = count > 0;
    if (*found) {
        p4_line_place place = {d->stream->name, p4_max_i64(0, d->line_number), d->position - (int64_t)count};
        int64_t replaced = 0;
        free(d->rendered);
        TRY(p4_json_line_text(d->text, count, &place, &d->reading, &d->rest, &d->rest_bytes, &d->rendered,
                              &replaced));
        give_rest(d, document);
        document->replaced = replaced;
    }
done:
    return rc;
}

/* " = Title = ", not " = = Section = = ". */
static bool is_title(const char *line, size_t count)
{
    while (count > 0 && (line[count - 1] == '\n' || line[count - 1] == '\r')) {
        count--;
    }
    return count >= 7 && memcmp(line, " = ", 3) == 0 && memcmp(line + count - 3, " = ", 3) == 0 &&
           line[3] != '=' && line[count - 4] != '=';
}

/* WikiText: an article begins at a title line between blank lines (or the ends of the file). The blank line
 * above it stays with the article before. */
static p4_rc next_article(p4_documents *d, p4_document *document, bool *found)
{
    p4_rc rc = P4_OK;
    size_t count = 1, title = 0;
    bool title_above = false, new_article = false;
    while (count > 0 && !new_article && d->used <= P4_PIECE_BYTES) {
        size_t from = d->used;
        TRY(take_line(d, true, &count));
        const char *line = d->text + from;
        bool blank = is_blank(line, count);
        new_article = title_above && blank && !is_blank(d->text, title);
        title_above = d->blank_above && count > 0 && is_title(line, count);
        title = title_above ? from : title;
        d->blank_above = blank;
    }
    *found = d->used > 0;
    if (!*found) {
        goto done;
    }
    if (new_article) {
        give(d, title, false, document);
    } else if (count == 0) {
        give(d, d->used, false, document);
    } else {
        give(d, piece_end(d->text, d->used), true, document);
    }
done:
    return rc;
}

/* Reads all lines: the beginning of an article cannot be recognized from the middle of one. */
static p4_rc next_article_drawn(p4_documents *d, p4_document *document, bool *found)
{
    p4_rc rc = P4_OK;
    for (bool drawn = false; !drawn;) {
        drop_given(d);
        int64_t at = d->position - (int64_t)d->used;
        TRY(next_article(d, document, found));
        document->continues = false;
        drawn = !*found || is_drawn(d, at);
    }
done:
    return rc;
}

/* ---- the interface ---- */

p4_rc p4_documents_open(p4_documents **documents, const char *path)
{
    p4_rc rc = P4_OK;
    p4_documents *made = p4_alloc(1, sizeof *made);
    if (made == NULL) {
        return P4_E_SYSTEM;
    }
    made->capacity = FIRST_BYTES;
    made->text = p4_alloc(made->capacity, 1); /* never NULL: an empty document has an address too */
    TRY(made->text != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(p4_members_open(&made->members, path));
done:
    if (rc == P4_OK) {
        *documents = made;
    } else {
        p4_documents_close(made);
    }
    return rc;
}

void p4_documents_sample(p4_documents *documents, const p4_draw *draw)
{
    documents->sampled = true;
    documents->draw = *draw;
    documents->drawn_block = -1;
}

void p4_documents_read_json(p4_documents *documents, const p4_json_reading *reading)
{
    documents->reading = *reading;
}

/* The next text of the file, behind its byte order mark; stream NULL at the end. */
static p4_rc begin_text(p4_documents *d)
{
    p4_rc rc = P4_OK;
    const char *bytes;
    size_t count;
    TRY(p4_members_next(d->members, &d->stream, &d->format));
    d->begun = d->continuing = d->ended = false;
    d->used = d->given = d->rest_bytes = 0;
    d->line_number = 0;
    d->blank_above = true;
    if (d->stream != NULL) {
        TRY(p4_stream_peek(d->stream, 3, &bytes, &count));
        size_t mark = count >= 3 && memcmp(bytes, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;
        p4_stream_skip(d->stream, mark);
        d->position += (int64_t)mark;
    }
done:
    return rc;
}

p4_rc p4_documents_next(p4_documents *documents, p4_document *document)
{
    typedef p4_rc (*next_of)(p4_documents *, p4_document *, bool *);
    static const next_of whole[] = {
        [P4_DATA_TEXT] = next_text, [P4_DATA_JSONL] = next_jsonl, [P4_DATA_ARTICLES] = next_article};
    static const next_of drawn[] = {[P4_DATA_TEXT] = next_text_drawn,
                                    [P4_DATA_JSONL] = next_jsonl,
                                    [P4_DATA_ARTICLES] = next_article_drawn};
    p4_rc rc = P4_OK;
    bool found = false;
    drop_given(documents);
    while (!found) {
        if (documents->stream == NULL) {
            TRY(begin_text(documents));
        }
        if (documents->stream == NULL) {
            *document = (p4_document){.bytes = -1};
            return P4_OK;
        }
        const next_of *next = documents->sampled ? drawn : whole;
        TRY(next[documents->format](documents, document, &found));
        if (!found) {
            documents->stream = NULL;
        }
    }
done:
    return rc;
}

void p4_documents_close(p4_documents *documents)
{
    if (documents != NULL) {
        p4_members_close(documents->members);
        free(documents->text);
        free(documents->rendered);
        free(documents);
    }
}
