/* A stream of documents out of one file: which bytes (layers, archive members) and how they fall into
 * documents. */
#include "io/text/byte_stream.h"
#include "io/text/dataset_parts.h"
#include "io/text/json_line.h"

#include <stdlib.h>
#include <string.h>

enum { DEEPEST_ARCHIVE = 4, MOST_LAYERS = 8, FIRST_BYTES = 4096 };
static const size_t longest_line_bytes = (size_t)1 << 30;

struct p4_documents {
    p4_stream
        *stream; /* what is being read: the file, or a member of the innermost archive; NULL between two */
    p4_archive *archives[DEEPEST_ARCHIVE];
    int archive_count, layers_left;
    p4_data_kind format; /* of the stream: text, JSONL or articles */
    char *path;
    int64_t line_number, members_read, members_passed;
    bool begun;       /* the stream has given a document */
    bool continuing;  /* the next piece belongs to the document before */
    bool blank_above; /* the line before was blank, or there was none */
    /* The document at hand: [0, used) of `text`, of which the caller has been given the first `given`. */
    char *text;
    size_t used, given, capacity;
};

/* ---- which bytes
 * ------------------------------------------------------------------------------------------------- */

/* What is plainly something else, by its first bytes or its name. */
static p4_rc refuse_foreign(const char *name, const char *bytes, size_t count)
{
    static const struct {
        const char *magic;
        size_t bytes;
        const char *what;
    } known[] = {
        {"PK\x03\x04", 4, "a zip archive"},
        {"BZh", 3, "bzip2 data"},
        {"7z\xbc\xaf\x27\x1c", 6, "a 7z archive"},
        {"\xff\xfe", 2, "UTF-16 text, or no text at all"},
        {"\xfe\xff", 2, "UTF-16 text"},
        {"\x89HDF", 4, "an HDF5 file"},
        {"\x88\xd8\x34\x01", 4, "an llm.c token file, whose name must end in .bin"},
        {"\xa1\xd9\x34\x01", 4, "an llm.c token file, whose name must end in .bin"},
    };
    bool table = count >= 6 && (memcmp(bytes, "PAR1", 4) == 0 || memcmp(bytes, "ARROW1", 6) == 0);
    if (table || p4_data_kind_of(name) == P4_DATA_TABLE) {
        return p4_data_refuse_table(name);
    }
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (count >= known[i].bytes && memcmp(bytes, known[i].magic, known[i].bytes) == 0) {
            return FAIL("%s: is %s; expected UTF-8 text or JSONL, plain or in gzip, zstd, xz or tar", name,
                        known[i].what);
        }
    }
    if (memchr(bytes, '\0', count) != NULL) {
        return FAIL(
            "%s: holds zero bytes, so it is no text; expected UTF-8 text or JSONL, plain or in gzip, zstd, "
            "xz or tar (token files are named .bin)",
            name);
    }
    return P4_OK;
}

/* By name; a name that says nothing is JSONL when the content begins with '{'. */
static p4_data_kind find_format(const char *name, const char *bytes, size_t count)
{
    p4_data_kind kind = p4_data_kind_of(name);
    if (kind == P4_DATA_JSONL || kind == P4_DATA_ARTICLES || kind == P4_DATA_TEXT) {
        return kind;
    }
    size_t at = 0;
    while (at < count && strchr(" \t\r\n", bytes[at]) != NULL) {
        at++;
    }
    return at < count && bytes[at] == '{' ? P4_DATA_JSONL : P4_DATA_TEXT;
}

/* The stream has text behind its layers: finds its format and passes a byte order mark. */
static p4_rc begin_text(p4_documents *documents)
{
    const char *bytes;
    size_t count;
    p4_rc rc = P4_OK;
    TRY(p4_stream_peek(documents->stream, 4096, &bytes, &count));
    TRY(refuse_foreign(documents->stream->name, bytes, count));
    size_t mark = count >= 3 && memcmp(bytes, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;
    documents->format = find_format(documents->stream->name, bytes + mark, count - mark);
    p4_stream_skip(documents->stream, mark);
    documents->line_number = 0;
    documents->begun = documents->continuing = false;
    documents->blank_above = true;
    documents->members_read++;
done:
    return rc;
}

/* `stream` is taken over: its layers are opened; an archive goes onto the stack, text becomes the current
 * stream. */
static p4_rc enter(p4_documents *documents, p4_stream *stream)
{
    p4_rc rc = P4_OK;
    bool archive = false;
    documents->layers_left = MOST_LAYERS;
    TRY(p4_stream_decompress(&stream, &documents->layers_left));
    TRY(p4_stream_is_archive(stream, &archive));
    if (!archive) {
        documents->stream = stream;
        return begin_text(documents);
    }
    CHECK(documents->archive_count < DEEPEST_ARCHIVE, "%s: more than %d archives inside one another",
          stream->name, DEEPEST_ARCHIVE);
    p4_archive *made;
    p4_stream *below = stream;
    stream = NULL;
    TRY(p4_archive_open(&made, below));
    documents->archives[documents->archive_count++] = made;
done:
    p4_stream_close(stream);
    return rc;
}

/* Goes to the next text among the members of the archives; *ended when there is none. */
static p4_rc next_stream(p4_documents *documents, bool *ended)
{
    p4_rc rc = P4_OK;
    while (documents->stream == NULL && documents->archive_count > 0) {
        p4_archive *archive = documents->archives[documents->archive_count - 1];
        p4_stream *member;
        TRY(p4_archive_next(archive, &member));
        if (member == NULL) {
            p4_archive_close(archive);
            documents->archive_count--;
        } else if (!p4_archive_is_tar(archive) || p4_data_is_wanted(member->name)) {
            TRY(enter(documents, member));
        } else {
            documents->members_passed++;
            p4_stream_close(member);
        }
    }
    *ended = documents->stream == NULL;
    CHECK(!*ended || documents->members_read > 0,
          "%s: the archive holds no .txt, .jsonl or .xz file (%lld other files)", documents->path,
          (long long)documents->members_passed);
done:
    return rc;
}

/* ---- the text at hand
 * -------------------------------------------------------------------------------------------- */

static p4_rc append(p4_documents *documents, const char *bytes, size_t count)
{
    if (count > documents->capacity - documents->used) {
        size_t capacity = documents->capacity + documents->capacity / 2;
        capacity = capacity > documents->used + count ? capacity : documents->used + count;
        char *text = p4_resize(documents->text, capacity, 1);
        if (text == NULL) {
            return P4_E_SYSTEM;
        }
        documents->text = text;
        documents->capacity = capacity;
    }
    memcpy(documents->text + documents->used, bytes, count);
    documents->used += count;
    return P4_OK;
}

/* Forgets what the caller was given. */
static void drop_given(p4_documents *documents)
{
    if (documents->given > 0) {
        memmove(documents->text, documents->text + documents->given, documents->used - documents->given);
        documents->used -= documents->given;
        documents->given = 0;
    }
}

/* Appends the next line with its line end, if it has one; *count: its bytes, 0 at the end of the stream. */
static p4_rc append_line(p4_documents *documents, size_t *count)
{
    p4_rc rc = P4_OK;
    size_t from = documents->used;
    for (bool complete = false; !complete;) {
        const char *bytes;
        size_t available;
        TRY(p4_stream_peek(documents->stream, 1, &bytes, &available));
        const char *newline = memchr(bytes, '\n', available);
        size_t part = newline != NULL ? (size_t)(newline - bytes) + 1 : available;
        complete = newline != NULL || available == 0;
        TRY(append(documents, bytes, part));
        p4_stream_skip(documents->stream, part);
        CHECK(documents->used - from <= longest_line_bytes, "%s line %lld: is longer than 1 GiB",
              documents->stream->name, (long long)documents->line_number + 1);
    }
    *count = documents->used - from;
    documents->line_number += *count > 0;
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

/* Where a piece of at most `used` bytes may end: after a line end between two lines with text, the place
 * where tokenising the parts gives what tokenising the whole gives in byte-level BPE; else after any line
 * end, else between two characters. */
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

/* ---- the three formats: each gives one document or piece, or *found false at the end of the stream
 * --------------- */

/* Hands out [0, bytes) of the text. */
static void give(p4_documents *documents, size_t bytes, bool continues, p4_document *document)
{
    *document = (p4_document){.text = documents->text, .bytes = (int64_t)bytes, .continues = continues};
    documents->given = bytes;
    documents->begun = true;
    documents->continuing = continues;
}

static p4_rc next_text(p4_documents *documents, p4_document *document, bool *found)
{
    p4_rc rc = P4_OK;
    size_t available = 1;
    *found = !documents->begun || documents->continuing;
    while (*found && available > 0 && documents->used <= P4_PIECE_BYTES) {
        const char *bytes;
        TRY(p4_stream_peek(documents->stream, 1, &bytes, &available));
        TRY(append(documents, bytes, available));
        p4_stream_skip(documents->stream, available);
    }
    if (*found) {
        bool whole = available == 0;
        give(documents, whole ? documents->used : piece_end(documents->text, P4_PIECE_BYTES), !whole,
             document);
    }
done:
    return rc;
}

static p4_rc next_jsonl(p4_documents *documents, p4_document *document, bool *found)
{
    p4_rc rc = P4_OK;
    size_t count;
    do {
        documents->used = 0;
        TRY(append_line(documents, &count));
    } while (count > 0 && is_blank(documents->text, count));
    *found = count > 0;
    if (*found) {
        char *text;
        size_t bytes;
        int64_t replaced = 0;
        TRY(p4_json_line_text(documents->text, count, documents->stream->name, documents->line_number, &text,
                              &bytes, &replaced));
        *document = (p4_document){.text = text, .bytes = (int64_t)bytes, .replaced = replaced};
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
static p4_rc next_article(p4_documents *documents, p4_document *document, bool *found)
{
    p4_rc rc = P4_OK;
    size_t count = 1, title = 0;
    bool title_above = false, new_article = false;
    while (count > 0 && !new_article && documents->used <= P4_PIECE_BYTES) {
        size_t from = documents->used;
        TRY(append_line(documents, &count));
        const char *line = documents->text + from;
        bool blank = is_blank(line, count);
        new_article = title_above && blank && !is_blank(documents->text, title);
        title_above = documents->blank_above && count > 0 && is_title(line, count);
        title = title_above ? from : title;
        documents->blank_above = blank;
    }
    *found = documents->used > 0;
    if (!*found) {
        goto done;
    }
    if (new_article) {
        give(documents, title, false, document);
    } else if (count == 0) {
        give(documents, documents->used, false, document);
    } else {
        give(documents, piece_end(documents->text, documents->used), true, document);
    }
done:
    return rc;
}

/* ---- the interface
 * ----------------------------------------------------------------------------------------------- */

p4_rc p4_documents_open(p4_documents **documents, const char *path)
{
    p4_rc rc = P4_OK;
    p4_documents *made = p4_alloc(1, sizeof *made);
    if (made == NULL) {
        return P4_E_SYSTEM;
    }
    p4_stream *file;
    made->path = p4_strdup(path);
    made->capacity = FIRST_BYTES;
    made->text = p4_alloc(made->capacity, 1); /* never NULL: an empty document has a place too */
    if (made->path == NULL || made->text == NULL) {
        rc = P4_E_SYSTEM;
        goto done;
    }
    TRY(p4_stream_open(&file, path));
    TRY(enter(made, file));
done:
    if (rc == P4_OK) {
        *documents = made;
    } else {
        p4_documents_close(made);
    }
    return rc;
}

p4_rc p4_documents_next(p4_documents *documents, p4_document *document)
{
    static p4_rc (*const next[])(p4_documents *, p4_document *, bool *) = {
        [P4_DATA_TEXT] = next_text, [P4_DATA_JSONL] = next_jsonl, [P4_DATA_ARTICLES] = next_article};
    p4_rc rc = P4_OK;
    drop_given(documents);
    for (;;) {
        bool ended, found = false;
        TRY(next_stream(documents, &ended));
        if (ended) {
            *document = (p4_document){.bytes = -1};
            return P4_OK;
        }
        TRY(next[documents->format](documents, document, &found));
        if (found) {
            return P4_OK;
        }
        p4_stream_close(documents->stream);
        documents->stream = NULL;
        documents->used = documents->given = 0;
    }
done:
    return rc;
}

void p4_documents_close(p4_documents *documents)
{
    if (documents == NULL) {
        return;
    }
    p4_stream_close(documents->stream);
    while (documents->archive_count > 0) {
        p4_archive_close(documents->archives[--documents->archive_count]);
    }
    free(documents->text);
    free(documents->path);
    free(documents);
}
