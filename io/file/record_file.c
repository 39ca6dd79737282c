#include "io/file/record_file.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "io/file/files.h"

static const char magic[16] = "phase4 records\n";

/* What the file begins with; the records follow. In the byte order of the machine: the file lives no longer
 * than its run. */
typedef struct header {
    char magic[16];
    p4_record_layout layout;
    char padding[24];
} header;
_Static_assert(sizeof(header) == 64, "records are aligned to 64 bytes");

/* Local. */
static p4_rc total_bytes(uint64_t *bytes, const char *path, const p4_record_layout *layout)
{
    if (!p4_mul3(bytes, (uint64_t)layout->count, (uint64_t)layout->record_bytes, 1) ||
        *bytes > (uint64_t)INT64_MAX - sizeof(header)) {
        return FAIL("%s: %lld records of %lld bytes are more than a file can hold", path,
                    (long long)layout->count, (long long)layout->record_bytes);
    }
    *bytes += sizeof(header);
    return P4_OK;
}

p4_rc p4_record_file_begin(p4_atomic_file *file, const char *path, const p4_record_layout *layout)
{
    p4_rc rc = P4_OK;
    header head = {.layout = *layout};
    uint64_t bytes = 0;
    memcpy(head.magic, magic, sizeof magic);
    TRY(total_bytes(&bytes, path, layout));
    TRY(p4_atomic_open(file, path));
    TRY(p4_atomic_write(file, &head, sizeof head));
done:
    return rc;
}

static p4_rc put_count(p4_atomic_file *file, const p4_record_layout *layout, int64_t count)
{
    header head = {.layout = *layout};
    memcpy(head.magic, magic, sizeof magic);
    head.layout.count = count;
    return pwrite(file->fd, &head, sizeof head, 0) == (ssize_t)sizeof head
               ? P4_OK
               : p4_fail_errno(file->path, "write");
}

p4_rc p4_record_file_keep(p4_atomic_file *file, const p4_record_layout *layout, int64_t count)
{
    p4_rc rc = P4_OK;
    if (fdatasync(file->fd) != 0) { /* the records are on the disk before they count */
        return p4_fail_errno(file->path, "write");
    }
    TRY(put_count(file, layout, count));
    TRY(p4_atomic_keep(file));
done:
    return rc;
}

p4_rc p4_record_file_finish(p4_atomic_file *file, const p4_record_layout *layout, int64_t count)
{
    p4_rc rc = put_count(file, layout, count);
    p4_rc closed = p4_atomic_close(file, rc == P4_OK);
    return rc != P4_OK ? rc : closed;
}

int64_t p4_record_file_count(const char *path, const p4_record_layout *layout)
{
    header head;
    uint64_t found = 0, bytes = 0;
    int fd = -1;
    bool ok = p4_file_exists(path) && p4_file_open(&fd, &found, path) == P4_OK &&
              pread(fd, &head, sizeof head, 0) == (ssize_t)sizeof head &&
              memcmp(head.magic, magic, sizeof magic) == 0 && head.layout.key == layout->key &&
              head.layout.record_bytes == layout->record_bytes && head.layout.count > 0 &&
              head.layout.count <= layout->count && total_bytes(&bytes, path, &head.layout) == P4_OK &&
              found >= bytes; /* behind those that count there may be more, of a process that was killed */
    if (fd >= 0) {
        close(fd);
    }
    p4_error_clear(); /* what cannot be read is as good as not there */
    return ok ? head.layout.count : 0;
}

p4_rc p4_record_file_map(p4_record_file *file, const char *path, const p4_record_layout *layout)
{
    p4_rc rc = P4_OK;
    uint64_t bytes = 0, found = 0;
    int fd = -1;
    *file = (p4_record_file){.layout = *layout};
    TRY(total_bytes(&bytes, path, layout));
    TRY(p4_file_open(&fd, &found, path));
    CHECK(found >= bytes, "%s: found %llu bytes, expected %llu", path, (unsigned long long)found,
          (unsigned long long)bytes);
    void *mapping = mmap(NULL, (size_t)bytes, PROT_READ, MAP_SHARED, fd, 0);
    if (mapping == MAP_FAILED) {
        rc = p4_fail_errno(path, "map the file");
        goto done;
    }
    file->mapping = mapping;
    file->mapping_bytes = (size_t)bytes;
    header head;
    memcpy(&head, mapping, sizeof head);
    CHECK(memcmp(head.magic, magic, sizeof magic) == 0 && memcmp(&head.layout, layout, sizeof *layout) == 0,
          "%s: is another file than the one that was written for this run", path);
    file->records = (const char *)mapping + sizeof head;
done:
    if (fd >= 0) {
        close(fd);
    }
    if (rc != P4_OK) {
        p4_record_file_close(file);
    }
    return rc;
}

void p4_record_file_close(p4_record_file *file)
{
    if (file->mapping != NULL) {
        munmap(file->mapping, file->mapping_bytes);
    }
    *file = (p4_record_file){0};
}

const char *p4_record_at(const p4_record_file *file, int64_t record)
{
    return file->records + record * file->layout.record_bytes;
}
