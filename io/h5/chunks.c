#include "io/h5/chunks.h"

#include <errno.h>
#include <hdf5.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/h5/fletcher32.h"
#include "io/h5/hdf5_calls.h"

enum { PART_BYTES = 128 << 10 };

/* The chunks' rows, if they hold whole rows; 0: they do not, or there are none. */
static int64_t whole_rows(hid_t create, const p4_h5_shape *shape)
{
    hsize_t dims[P4_H5_MAX_RANK];
    if (H5Pget_layout(create) != H5D_CHUNKED || H5Pget_chunk(create, P4_H5_MAX_RANK, dims) != shape->rank) {
        return 0;
    }
    for (int i = 1; i < shape->rank; i++) {
        if (dims[i] != (hsize_t)shape->dims[i]) {
            return 0;
        }
    }
    return dims[0] <= (hsize_t)shape->dims[0] ? (int64_t)dims[0] : 0;
}

/* Is a checksum all that was done to the data? */
static bool is_plain(hid_t create)
{
    unsigned flags, config;
    size_t values = 0;
    return H5Pget_nfilters(create) == 1 &&
           H5Pget_filter2(create, 0, &flags, &values, NULL, 0, NULL, &config) == H5Z_FILTER_FLETCHER32;
}

/* Where the file's own bytes are; -1: HDF5 reads it in another way, or counts from another place. */
static int descriptor(const p4_h5_file *file)
{
    void *handle = NULL;
    hsize_t before = 0;
    hid_t access = H5Fget_access_plist(file->id), create = H5Fget_create_plist(file->id);
    bool direct = access >= 0 && create >= 0 && H5Pget_driver(access) == H5FD_SEC2 &&
                  H5Pget_userblock(create, &before) >= 0 && before == 0 &&
                  H5Fget_vfd_handle(file->id, H5P_DEFAULT, &handle) >= 0;
    p4_h5_release(create);
    p4_h5_release(access);
    return direct ? *(const int *)handle : -1;
}

/* The places of all chunks; false: one of them is not as the others, or not in the file. */
static bool find_places(p4_h5_chunks *c, hid_t dataset, const p4_h5_shape *shape, int64_t count)
{
    struct stat status;
    uint64_t stored = (uint64_t)c->bytes + P4_FLETCHER32_BYTES;
    if (fstat(c->fd, &status) != 0) {
        return false;
    }
    for (int64_t i = 0; i < count; i++) {
        hsize_t at[P4_H5_MAX_RANK] = {(hsize_t)(i * c->rows)}, size = 0;
        unsigned skipped_filters = 0;
        haddr_t place = HADDR_UNDEF;
        if (H5Dget_chunk_info_by_coord(dataset, at, &skipped_filters, &place, &size) < 0 ||
            place == HADDR_UNDEF || skipped_filters != 0 || size != stored ||
            place > (uint64_t)status.st_size || stored > (uint64_t)status.st_size - place) {
            return false;
        }
        c->places[i] = place;
    }
    return c->rows * count >= shape->dims[0];
}

p4_rc p4_h5_chunks_find(p4_h5_chunks *chunks, const p4_h5_file *file, const char *name,
                        const p4_h5_shape *shape)
{
    p4_rc rc = P4_OK;
    hid_t dataset = -1, create = -1;
    *chunks = (p4_h5_chunks){.fd = descriptor(file), .path = file->path, .name = p4_strdup(name)};
    TRY(chunks->name != NULL ? P4_OK : P4_E_SYSTEM);
    H5_TRY((dataset = H5Dopen2(file->id, name, H5P_DEFAULT)) >= 0, file, "open dataset", name);
    H5_TRY((create = H5Dget_create_plist(dataset)) >= 0, file, "read", name);
    chunks->rows = whole_rows(create, shape);
    if (chunks->rows > 0 && chunks->fd >= 0 && is_plain(create)) {
        int64_t count = p4_ceil_div(shape->dims[0], chunks->rows);
        chunks->bytes = chunks->rows * shape->row_bytes;
        chunks->places = p4_alloc((size_t)count, sizeof *chunks->places);
        TRY(chunks->places != NULL ? P4_OK : P4_E_SYSTEM);
        chunks->count = find_places(chunks, dataset, shape, count) ? count : 0;
    }
done:
    p4_h5_release(create);
    p4_h5_release(dataset);
    if (rc != P4_OK) {
        p4_h5_chunks_free(chunks);
    }
    return rc;
}

void p4_h5_chunks_free(p4_h5_chunks *chunks)
{
    free(chunks->name);
    free(chunks->places);
    *chunks = (p4_h5_chunks){.fd = -1};
}

static p4_rc read_at(const p4_h5_chunks *c, uint8_t *to, int64_t byte_count, uint64_t place)
{
    while (byte_count > 0) {
        ssize_t got = pread(c->fd, to, (size_t)byte_count, (off_t)place);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            return FAIL("%s: cannot read %s: %s", c->path, c->name,
                        got < 0 ? strerror(errno) : "the file became shorter");
        }
        to += got;
        place += (uint64_t)got;
        byte_count -= got;
    }
    return P4_OK;
}

/* In parts that stay in the cache until they are summed. */
static p4_rc read_chunk(const p4_h5_chunks *c, uint8_t *to, int64_t index)
{
    p4_rc rc = P4_OK;
    p4_fletcher32 sums = {0};
    for (int64_t at = 0, bytes; at < c->bytes; at += bytes) {
        bytes = p4_min_i64(PART_BYTES, c->bytes - at);
        bool last = at + bytes == c->bytes;
        TRY(read_at(c, to + at, bytes + (last ? P4_FLETCHER32_BYTES : 0), c->places[index] + (uint64_t)at));
        p4_fletcher32_add(&sums, to + at, bytes);
    }
    CHECK(p4_fletcher32_matches(&sums, to + c->bytes),
          "%s: cannot read %s: data error detected by Fletcher32 checksum", c->path, c->name);
done:
    return rc;
}

p4_rc p4_h5_chunks_read(const p4_h5_chunks *chunks, void *bytes, int64_t first, int64_t count)
{
    p4_rc rc = P4_OK;
    uint8_t *to = bytes;
    for (int64_t i = 0; i < count; i++) { /* each over the checksum of the one before */
        TRY(read_chunk(chunks, to + i * chunks->bytes, first + i));
    }
done:
    return rc;
}
