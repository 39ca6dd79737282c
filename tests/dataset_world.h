/* dataset_world.h - files for the dataset tests: made in a folder of their own that is removed at the end. */
#ifndef P4_DATASET_WORLD_H
#define P4_DATASET_WORLD_H

#include "check.h"
#include "io/text/dataset.h"

#include <archive.h>
#include <archive_entry.h>
#include <fts.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

static char world[64];

static inline void world_begin(void)
{
    snprintf(world, sizeof world, "/tmp/p4_dataset_XXXXXX");
    if (mkdtemp(world) == NULL) {
        perror(world);
        exit(1);
    }
}

static inline void world_end(void)
{
    char *roots[] = {world, NULL};
    FTS *walk = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
    for (FTSENT *entry; walk != NULL && (entry = fts_read(walk)) != NULL;) {
        if (entry->fts_info != FTS_D) { /* folders after what is in them */
            remove(entry->fts_path);
        }
    }
    fts_close(walk);
}

/* world/name, in one of a few buffers that are used in turn. */
static inline const char *at(const char *name)
{
    static char paths[32][512];
    static int next;
    char *path = paths[next++ % 32];
    snprintf(path, sizeof paths[0], "%s/%s", world, name);
    return path;
}

/* Writes a file and the folders above it; returns its path. */
static inline const char *put(const char *name, const void *bytes, size_t count)
{
    const char *path = at(name);
    char folder[512];
    for (const char *slash = strchr(path + strlen(world) + 1, '/'); slash != NULL;
         slash = strchr(slash + 1, '/')) {
        snprintf(folder, sizeof folder, "%.*s", (int)(slash - path), path);
        mkdir(folder, 0777);
    }
    FILE *file = fopen(path, "wb");
    if (file == NULL || fwrite(bytes, 1, count, file) != count || fclose(file) != 0) {
        perror(path);
        exit(1);
    }
    return path;
}

static inline const char *put_text(const char *name, const char *text)
{
    return put(name, text, strlen(text));
}

/* One gzip member (heap). */
static inline char *gzipped(const void *bytes, size_t count, size_t *packed)
{
    z_stream z = {0};
    deflateInit2(&z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);
    size_t bound = deflateBound(&z, count);
    char *to = malloc(bound);
    z.next_in = (unsigned char *)(uintptr_t)bytes;
    z.avail_in = (unsigned)count;
    z.next_out = (unsigned char *)to;
    z.avail_out = (unsigned)bound;
    deflate(&z, Z_FINISH);
    *packed = bound - z.avail_out;
    deflateEnd(&z);
    return to;
}

/* One zstd frame (heap). */
static inline char *zstded(const void *bytes, size_t count, size_t *packed)
{
    size_t bound = ZSTD_compressBound(count);
    char *to = malloc(bound);
    *packed = ZSTD_compress(to, bound, bytes, count, 3);
    return to;
}

typedef struct member {
    const char *name;
    const void *bytes;
    size_t count;
} member;

enum { PLAIN, XZ, BZIP2 };

/* A tar of members, or the first member's bytes alone, compressed or not (heap). */
static inline char *archived(const member *members, size_t member_count, bool tar, int packing,
                             size_t *packed)
{
    size_t bound = 1 << 20;
    char *to = malloc(bound);
    struct archive *writer = archive_write_new();
    (void)(tar ? archive_write_set_format_ustar(writer) : archive_write_set_format_raw(writer));
    (void)(packing == XZ      ? archive_write_add_filter_xz(writer)
           : packing == BZIP2 ? archive_write_add_filter_bzip2(writer)
                              : archive_write_add_filter_none(writer));
    archive_write_open_memory(writer, to, bound, packed);
    for (size_t i = 0; i < member_count; i++) {
        struct archive_entry *entry = archive_entry_new();
        archive_entry_set_pathname(entry, members[i].name);
        archive_entry_set_filetype(entry, AE_IFREG);
        archive_entry_set_perm(entry, 0644);
        archive_entry_set_size(entry, (la_int64_t)members[i].count);
        archive_write_header(writer, entry);
        archive_write_data(writer, members[i].bytes, members[i].count);
        archive_entry_free(entry);
    }
    archive_write_close(writer);
    archive_write_free(writer);
    return to;
}

/* All documents of a file joined: a '|' after each, a '+' after each piece that is continued. NULL: an error.
 */
static inline char *read_all(const char *path)
{
    p4_documents *documents = NULL;
    p4_document document = {.bytes = 0};
    size_t used = 0, capacity = 4096;
    char *joined = calloc(capacity, 1);
    p4_rc rc = p4_documents_open(&documents, path);
    while (rc == P4_OK && (rc = p4_documents_next(documents, &document)) == P4_OK && document.bytes >= 0) {
        size_t bytes = (size_t)document.bytes;
        if (used + bytes + 2 > capacity) {
            capacity = 2 * (used + bytes + 2);
            joined = realloc(joined, capacity);
        }
        memcpy(joined + used, document.text, bytes);
        used += bytes;
        joined[used++] = document.continues ? '+' : '|';
        joined[used] = '\0';
    }
    if (rc == P4_OK) { /* the end stays the end */
        EXPECT_OK(p4_documents_next(documents, &document));
        EXPECT(document.bytes < 0, "a document after the end of %s", path);
    } else {
        free(joined);
        joined = NULL;
    }
    p4_documents_close(documents);
    return joined;
}

static inline void expect_documents(const char *path, const char *expected)
{
    p4_error_clear();
    char *got = read_all(path);
    EXPECT(got != NULL, "%s", p4_last_error());
    EXPECT(got != NULL && strcmp(got, expected) == 0, "%s:\n got \"%s\"\nwant \"%s\"", path, got, expected);
    free(got);
}

/* The file is refused with a message that holds its name and `part`. */
static inline void expect_refused(const char *path, const char *part)
{
    p4_error_clear();
    char *got = read_all(path);
    EXPECT(got == NULL, "%s was read: \"%.200s\", expected a refusal with \"%s\"", path, got, part);
    EXPECT(strstr(p4_last_error(), part) != NULL, "message \"%s\" lacks \"%s\"", p4_last_error(), part);
    EXPECT(strstr(p4_last_error(), path) != NULL, "message \"%s\" lacks the file's name", p4_last_error());
    EXPECT(strchr(p4_last_error(), '\n') == NULL, "message \"%s\" has more than one line", p4_last_error());
    p4_error_clear();
    free(got);
}

#endif
