#include "io/text/members.h"

#include <stdlib.h>
#include <string.h>

enum { DEEPEST_ARCHIVE = 4, MOST_LAYERS = 8, FIRST_BYTES = 4096 };

struct p4_members {
    p4_stream
        *stream; /* the text at hand: the file, or a member of the innermost archive; NULL between two */
    bool given;  /* the caller has it */
    p4_data_kind format;
    p4_archive *archives[DEEPEST_ARCHIVE];
    int archive_count;
    char *path;
    int64_t texts, passed; /* texts so far, and members that are none */
};

/* Refuses what is plainly something else, by its first bytes or its name. */
static p4_rc refuse_foreign(const char *name, const char *bytes, size_t count)
{
    static const struct {
        const char *magic;
        size_t bytes;
        const char *what;
    } known[] = {
        {"PK\x03\x04", 4, "a zip archive"},
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
            return FAIL("%s: is %s; expected UTF-8 text or JSONL, plain or in gzip, zstd, xz, bzip2 or tar",
                        name, known[i].what);
        }
    }
    if (memchr(bytes, '\0', count) != NULL) {
        return FAIL("%s: holds zero bytes, so it is no text; expected UTF-8 text or JSONL, plain or in gzip, "
                    "zstd, xz, bzip2 or tar (token files are named .bin)",
                    name);
    }
    return P4_OK;
}

/* By name; a text whose name says nothing is JSONL when it begins with '{'. */
static p4_data_kind find_format(const char *name, const char *bytes, size_t count)
{
    p4_data_kind kind = p4_data_kind_of(name);
    if (kind == P4_DATA_JSONL || kind == P4_DATA_ARTICLES || kind == P4_DATA_TEXT) {
        return kind;
    }
    size_t at = count >= 3 && memcmp(bytes, "\xef\xbb\xbf", 3) == 0 ? 3 : 0; /* a byte order mark */
    while (at < count && (bytes[at] == ' ' || bytes[at] == '\t' || bytes[at] == '\r' || bytes[at] == '\n')) {
        at++;
    }
    return at < count && bytes[at] == '{' ? P4_DATA_JSONL : P4_DATA_TEXT;
}

/* Takes ownership of `stream` and opens its layers: an archive goes onto the stack, a text becomes the one at
 * hand. */
static p4_rc enter(p4_members *members, p4_stream *stream)
{
    p4_rc rc = P4_OK;
    bool archive = false;
    int layers = MOST_LAYERS;
    TRY(p4_stream_decompress(&stream, &layers));
    TRY(p4_stream_is_archive(stream, &archive));
    if (!archive) {
        const char *bytes;
        size_t count;
        TRY(p4_stream_peek(stream, FIRST_BYTES, &bytes, &count));
        TRY(refuse_foreign(stream->name, bytes, count));
        members->format = find_format(stream->name, bytes, count);
        members->stream = stream;
        members->given = false;
        members->texts++;
        return P4_OK;
    }
    CHECK(members->archive_count < DEEPEST_ARCHIVE, "%s: more than %d archives inside one another",
          stream->name, DEEPEST_ARCHIVE);
    p4_archive *made;
    p4_stream *below = stream;
    stream = NULL;
    TRY(p4_archive_open(&made, below));
    members->archives[members->archive_count++] = made;
done:
    p4_stream_close(stream);
    return rc;
}

p4_rc p4_members_open(p4_members **members, const char *path)
{
    p4_rc rc = P4_OK;
    p4_stream *file;
    p4_members *made = p4_alloc(1, sizeof *made);
    if (made == NULL) {
        return P4_E_SYSTEM;
    }
    made->path = p4_strdup(path);
    TRY(made->path != NULL ? P4_OK : P4_E_SYSTEM);
    TRY(p4_stream_open(&file, path));
    TRY(enter(made, file));
done:
    if (rc == P4_OK) {
        *members = made;
    } else {
        p4_members_close(made);
    }
    return rc;
}

p4_rc p4_members_next(p4_members *members, p4_stream **stream, p4_data_kind *format)
{
    p4_rc rc = P4_OK;
    if (members->given) {
        p4_stream_close(members->stream);
        members->stream = NULL;
    }
    while (members->stream == NULL && members->archive_count > 0) {
        p4_archive *archive = members->archives[members->archive_count - 1];
        p4_stream *member;
        TRY(p4_archive_next(archive, &member));
        if (member == NULL) {
            p4_archive_close(archive);
            members->archive_count--;
        } else if (!p4_archive_is_tar(archive) || p4_data_is_wanted(member->name)) {
            TRY(enter(members, member));
        } else {
            members->passed++;
            p4_stream_close(member);
        }
    }
    CHECK(members->stream != NULL || members->texts > 0,
          "%s: the archive holds no .txt, .jsonl or .xz file (%lld other files)", members->path,
          (long long)members->passed);
    members->given = true;
    *stream = members->stream;
    *format = members->format;
done:
    return rc;
}

void p4_members_close(p4_members *members)
{
    if (members != NULL) {
        p4_stream_close(members->stream);
        while (members->archive_count > 0) {
            p4_archive_close(members->archives[--members->archive_count]);
        }
        free(members->path);
        free(members);
    }
}
