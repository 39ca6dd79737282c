/* tar archives, xz and bzip2 files, through libarchive; gzip and zstd are layers of their own (decompress.c).
 */
#include "io/text/byte_stream.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { TAR_MAGIC_OFFSET = 257 };

struct p4_archive {
    struct archive *reader;
    p4_stream *below;
    size_t shown; /* bytes that libarchive was given and has read when it asks again */
    p4_rc failed; /* reading below failed so: its message stands */
};

static bool has_suffix(const char *text, const char *suffix)
{
    size_t length = strlen(text), part = strlen(suffix);
    return length >= part && strcmp(text + length - part, suffix) == 0;
}

bool p4_bytes_are_xz(const char *bytes, size_t count)
{
    return count >= 6 && memcmp(bytes, "\xfd\x37zXZ\0", 6) == 0;
}

bool p4_bytes_are_bzip2(const char *bytes, size_t count)
{
    return count >= 10 && memcmp(bytes, "BZh", 3) == 0 && bytes[3] >= '1' && bytes[3] <= '9' &&
           (memcmp(bytes + 4, "\x31\x41\x59\x26\x53\x59", 6) == 0 || /* a block, or the end */
            memcmp(bytes + 4, "\x17\x72\x45\x38\x50\x90", 6) == 0);
}

p4_rc p4_stream_is_archive(p4_stream *stream, bool *archive)
{
    const char *bytes;
    size_t count;
    p4_rc rc = p4_stream_peek(stream, TAR_MAGIC_OFFSET + 5, &bytes, &count);
    if (rc == P4_OK) {
        bool tar = count >= TAR_MAGIC_OFFSET + 5 && memcmp(bytes + TAR_MAGIC_OFFSET, "ustar", 5) == 0;
        *archive = p4_bytes_are_xz(bytes, count) || p4_bytes_are_bzip2(bytes, count) || tar ||
                   (count > 0 && has_suffix(stream->name, ".tar")); /* old tar has no magic */
    }
    return rc;
}

static la_ssize_t read_below(struct archive *reader, void *user, const void **buffer)
{
    p4_archive *archive = user;
    const char *bytes;
    size_t count;
    p4_stream_skip(archive->below, archive->shown);
    archive->shown = 0;
    archive->failed = p4_stream_peek(archive->below, 1, &bytes, &count);
    if (archive->failed != P4_OK) {
        archive_set_error(reader, EIO, "%s", p4_last_error());
        return -1;
    }
    archive->shown = count;
    *buffer = bytes;
    return (la_ssize_t)count;
}

/* The message of a failed call, unless the stream below has given its own. */
static p4_rc archive_failed(p4_archive *archive)
{
    const char *why = archive_error_string(archive->reader);
    return archive->failed != P4_OK ? archive->failed
                                    : FAIL("%s: damaged or truncated archive: %s", archive->below->name,
                                           why != NULL ? why : "unknown reason");
}

p4_rc p4_archive_open(p4_archive **archive, p4_stream *below)
{
    p4_archive *made = p4_alloc(1, sizeof *made);
    if (made == NULL) {
        p4_stream_close(below);
        return P4_E_SYSTEM;
    }
    made->below = below;
    made->reader = archive_read_new();
    struct archive *reader = made->reader;
    if (reader == NULL || archive_read_support_filter_xz(reader) != ARCHIVE_OK ||
        archive_read_support_filter_bzip2(reader) != ARCHIVE_OK ||
        archive_read_support_format_tar(reader) != ARCHIVE_OK ||
        archive_read_support_format_raw(reader) != ARCHIVE_OK ||
        archive_read_support_format_empty(reader) != ARCHIVE_OK) {
        p4_rc rc = FAULT("%s: libarchive cannot be started, or lacks xz or bzip2", below->name);
        p4_archive_close(made);
        return rc;
    }
    if (archive_read_open(reader, made, NULL, read_below, NULL) != ARCHIVE_OK) {
        p4_rc rc = archive_failed(made);
        p4_archive_close(made);
        return rc;
    }
    *archive = made;
    return P4_OK;
}

static p4_rc produce_member(p4_stream *stream, char *to, size_t capacity, size_t *count)
{
    p4_archive *archive = stream->state;
    la_ssize_t got = archive_read_data(archive->reader, to, capacity);
    if (got < 0) {
        return archive_failed(archive);
    }
    *count = (size_t)got;
    return got == 0 ? archive->failed : P4_OK;
}

bool p4_archive_is_tar(const p4_archive *archive)
{
    return (archive_format(archive->reader) & ARCHIVE_FORMAT_BASE_MASK) == ARCHIVE_FORMAT_TAR;
}

/* The name of a member: the file inside a tar; for the one content of an xz or bzip2 file, that file's name
 * without ".xz" or ".bz2". */
static char *member_name(const p4_archive *archive, struct archive_entry *entry)
{
    const char *outer = archive->below->name;
    if (!p4_archive_is_tar(archive)) {
        size_t length = strlen(outer);
        length -= has_suffix(outer, ".xz") ? 3 : has_suffix(outer, ".bz2") ? 4 : 0;
        return p4_format("%.*s", (int)length, outer);
    }
    const char *path = archive_entry_pathname_utf8(entry);
    if (path == NULL) {
        path = archive_entry_pathname(entry);
    }
    return p4_format("%s: member %s", outer, path != NULL ? path : "(a name that is not UTF-8)");
}

p4_rc p4_archive_next(p4_archive *archive, p4_stream **member)
{
    p4_rc rc = P4_OK;
    char *name = NULL;
    struct archive_entry *entry = NULL;
    *member = NULL;
    int status;
    do {
        status = archive_read_next_header(archive->reader, &entry);
        if (status == ARCHIVE_EOF) { /* libarchive passes over an error that it met behind the last member */
            return archive->failed;
        }
        if (status != ARCHIVE_OK && status != ARCHIVE_WARN) { /* a warning: a name or a date that is odd */
            return archive_failed(archive);
        }
    } while (p4_archive_is_tar(archive) &&
             (archive_entry_filetype(entry) != AE_IFREG || archive_entry_hardlink(entry) != NULL));

    name = member_name(archive, entry);
    if (name == NULL) {
        return P4_E_SYSTEM;
    }
    TRY(p4_stream_create(member, name));
    (*member)->state = archive;
    (*member)->produce = produce_member;
done:
    free(name);
    return rc;
}

void p4_archive_close(p4_archive *archive)
{
    if (archive != NULL) {
        archive_read_free(archive->reader);
        p4_stream_close(archive->below);
        free(archive);
    }
}
