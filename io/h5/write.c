#include "io/h5/write.h"

#include <errno.h>
#include <fcntl.h>
#include <hdf5.h>
#include <string.h>

#include "io/h5/hdf5_calls.h"

enum {
    CHUNK_BYTES = 1 << 20,       /* near this, in whole rows: inside the 256 KiB to 4 MiB that readers like */
    RESERVE_BYTES = 1 << 18,     /* reserved at a time */
    BOOKKEEPING_BYTES = 1 << 17, /* more than HDF5's own structures grow by in one call */
    CACHED_CHUNKS = 2,
    SUPERBLOCK_END_AT = 28,     /* the end of the file's address, 8 bytes of superblock 2 */
    IMAGE_STEP_BYTES = 1 << 20, /* that a file in memory grows by */
};

/* Makes sure that the disk has room for `bytes` more of data, what waits in caches and HDF5's own structures.
 * A file in memory has no disk. */
static p4_rc reserve(p4_h5_file *file, int64_t bytes)
{
    hsize_t used = 0;
    if (file->fd < 0) {
        return P4_OK;
    }
    if (H5Fget_filesize(file->id, &used) < 0) {
        return p4_h5_fail(file, "write", "");
    }
    file->begun_bytes = p4_begin_writeback(file->fd, file->begun_bytes, (int64_t)used);
    int64_t needed = (int64_t)used + file->cached_bytes + bytes + BOOKKEEPING_BYTES;
    if (needed <= file->reserved_bytes) {
        return P4_OK;
    }
    needed = p4_ceil_div(needed, RESERVE_BYTES) * RESERVE_BYTES;
    int reason;
    do {
        reason = posix_fallocate(file->fd, file->reserved_bytes, needed - file->reserved_bytes);
    } while (reason == EINTR);
    if (reason != 0 && reason != EOPNOTSUPP &&
        reason != EINVAL) { /* those two: the file system cannot reserve */
        errno = reason;
        return p4_fail_errno(file->path, "write");
    }
    file->reserved_bytes = needed;
    return P4_OK;
}

/* A file access property list for files that are written. Negative: failed.
 * Low bound 1.8: superblock 2, which has no "open for write" flag to be stuck after a kill, and large
 * attributes. */
static hid_t writing_access(void)
{
    hid_t access = p4_h5_file_access();
    if (access >= 0 && H5Pset_libver_bounds(access, H5F_LIBVER_V18, H5F_LIBVER_V110) < 0) {
        p4_h5_release(access);
        return -1;
    }
    return access;
}

/* An empty file in memory with our settings, which grows by step_bytes. */
static p4_rc create_in_memory(p4_h5_file *file, size_t step_bytes)
{
    p4_rc rc = P4_OK;
    hid_t create = -1, access = -1;
    H5_TRY((access = writing_access()) >= 0, file, "create", "the file");
    H5_TRY(H5Pset_fapl_core(access, step_bytes, 0) >= 0, file, "create", "the file");
    H5_TRY((create = H5Pcreate(H5P_FILE_CREATE)) >= 0, file, "create", "the file");
    /* Most datasets have a handful of chunks: small index nodes save about 2 KB a dataset. */
    H5_TRY(H5Pset_istore_k(create, 4) >= 0, file, "create", "the file");
    H5_TRY((file->id = H5Fcreate(file->path, H5F_ACC_TRUNC, create, access)) >= 0, file, "create",
           "the file");
done:
    p4_h5_release(access);
    p4_h5_release(create);
    return rc;
}

p4_rc p4_h5_create_image(p4_h5_file *file, const char *path)
{
    *file = (p4_h5_file){.id = -1, .path = path, .fd = -1};
    p4_h5_silence();
    return create_in_memory(file, IMAGE_STEP_BYTES);
}

p4_rc p4_h5_image(p4_h5_file *file, const void **bytes, int64_t *byte_count)
{
    p4_rc rc = P4_OK;
    void *handle = NULL;
    hsize_t allocated = 0;
    uint64_t end; /* what is behind it was allocated ahead */
    H5_TRY(H5Fflush(file->id, H5F_SCOPE_GLOBAL) >= 0, file, "write", "");
    H5_TRY(H5Fget_filesize(file->id, &allocated) >= 0, file, "write", "");
    /* Not H5Fget_file_image, which changes a byte under the superblock's checksum. */
    H5_TRY(H5Fget_vfd_handle(file->id, H5P_DEFAULT, &handle) >= 0, file, "write", "");
    *bytes = *(void **)handle;
    memcpy(&end, (const char *)*bytes + SUPERBLOCK_END_AT, sizeof end); /* little-endian, as we are */
    if (end > allocated) {
        return FAULT("%s: HDF5 says that the file ends at %llu, it has %llu bytes", file->path,
                     (unsigned long long)end, (unsigned long long)allocated);
    }
    *byte_count = (int64_t)end;
done:
    return rc;
}

/* Writes the bytes of an empty file. */
static p4_rc write_empty(p4_atomic_file *atomic)
{
    p4_rc rc = P4_OK;
    p4_h5_file empty = {.id = -1, .path = atomic->path, .fd = -1};
    const void *image;
    int64_t bytes;
    TRY(create_in_memory(&empty, RESERVE_BYTES));
    TRY(p4_h5_image(&empty, &image, &bytes));
    TRY(p4_atomic_write(atomic, image, (size_t)bytes));
done:
    (void)p4_h5_close(&empty, false);
    return rc;
}

/* The empty file is written by us and then opened, so that HDF5 owes it nothing when the disk is full
 * already. */
p4_rc p4_h5_create(p4_h5_file *file, p4_atomic_file *atomic)
{
    p4_rc rc = P4_OK;
    hid_t access = -1;
    *file = (p4_h5_file){.id = -1, .path = atomic->path, .fd = atomic->fd};
    p4_h5_silence();
    H5_TRY((access = writing_access()) >= 0, file, "create", "the file");
    TRY(write_empty(atomic));
    H5_TRY((file->id = H5Fopen(atomic->temp_path, H5F_ACC_RDWR, access)) >= 0, file, "open", "the new file");
    TRY(reserve(file, 0));
done:
    if (rc != P4_OK) {
        p4_h5_close(file, false);
    }
    p4_h5_release(access);
    return rc;
}

/* Link properties: missing groups on the way are made, names are UTF-8. */
static hid_t link_properties(void)
{
    hid_t links = H5Pcreate(H5P_LINK_CREATE);
    if (links >= 0 &&
        (H5Pset_create_intermediate_group(links, 1) < 0 || H5Pset_char_encoding(links, H5T_CSET_UTF8) < 0)) {
        p4_h5_release(links);
        return -1;
    }
    return links;
}

/* Creation properties of a class without time stamps: the same input gives the same bytes. */
static hid_t untimed_properties(hid_t class_id)
{
    hid_t properties = H5Pcreate(class_id);
    if (properties >= 0 && H5Pset_obj_track_times(properties, 0) < 0) {
        p4_h5_release(properties);
        return -1;
    }
    return properties;
}

p4_rc p4_h5_group(p4_h5_file *file, const char *name)
{
    p4_rc rc = P4_OK;
    hid_t links = -1, create = -1, group = -1;
    if (p4_h5_exists(file, name)) {
        return P4_OK;
    }
    TRY(reserve(file, 0));
    H5_TRY((links = link_properties()) >= 0, file, "create group", name);
    H5_TRY((create = untimed_properties(H5P_GROUP_CREATE)) >= 0, file, "create group", name);
    H5_TRY((group = H5Gcreate2(file->id, name, links, create, H5P_DEFAULT)) >= 0, file, "create group", name);
done:
    p4_h5_release(group);
    p4_h5_release(create);
    p4_h5_release(links);
    return rc;
}

/* Takes the type and the space. value_bytes: of the value in the file. */
static p4_rc put_attr(p4_h5_file *file, const char *object, const char *key, hid_t type, hid_t space,
                      const void *value, int64_t value_bytes)
{
    p4_rc rc = P4_OK;
    hid_t attr = -1;
    TRY(reserve(file, value_bytes));
    H5_TRY(type >= 0 && space >= 0, file, "create attribute", key);
    attr = H5Acreate_by_name(file->id, object, key, type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    H5_TRY(attr >= 0, file, "create attribute", key);
    H5_TRY(H5Awrite(attr, type, value) >= 0, file, "write attribute", key);
done:
    p4_h5_release(attr);
    p4_h5_release(space);
    p4_h5_release(type);
    return rc;
}

/* UTF-8 string of `bytes` bytes, without a terminator, or H5T_VARIABLE. */
static hid_t text_type(size_t bytes)
{
    hid_t type = H5Tcopy(H5T_C_S1);
    if (type >= 0 && (H5Tset_size(type, bytes) < 0 || H5Tset_cset(type, H5T_CSET_UTF8) < 0 ||
                      (bytes != H5T_VARIABLE && H5Tset_strpad(type, H5T_STR_NULLPAD) < 0))) {
        p4_h5_release(type);
        return -1;
    }
    return type;
}

p4_rc p4_h5_put_text_attr(p4_h5_file *file, const char *object, const char *key, const char *text)
{
    /* Variable length: h5py then gives str, not bytes. */
    return put_attr(file, object, key, text_type(H5T_VARIABLE), H5Screate(H5S_SCALAR), &text,
                    (int64_t)strlen(text));
}

p4_rc p4_h5_put_f64_attr(p4_h5_file *file, const char *object, const char *key, double value)
{
    return put_attr(file, object, key, p4_h5_type_create(P4_H5_F64), H5Screate(H5S_SCALAR), &value, 8);
}

p4_rc p4_h5_put_i64_attr(p4_h5_file *file, const char *object, const char *key, int64_t value)
{
    return put_attr(file, object, key, p4_h5_type_create(P4_H5_I64), H5Screate(H5S_SCALAR), &value, 8);
}

p4_rc p4_h5_put_i64s_attr(p4_h5_file *file, const char *object, const char *key, const int64_t *values,
                          int count)
{
    hsize_t dims[1] = {(hsize_t)count};
    return put_attr(file, object, key, p4_h5_type_create(P4_H5_I64), H5Screate_simple(1, dims, NULL), values,
                    8 * (int64_t)count);
}

/* Creates and writes a dataset in one piece. Takes the type and the space. */
static p4_rc put_dataset(p4_h5_file *file, const char *name, hid_t type, hid_t space, const void *values)
{
    p4_rc rc = P4_OK;
    hid_t links = -1, create = -1, dataset = -1;
    H5_TRY(type >= 0 && space >= 0, file, "create", name);
    TRY(reserve(file, (int64_t)H5Tget_size(type) * H5Sget_simple_extent_npoints(space)));
    H5_TRY((links = link_properties()) >= 0, file, "create", name);
    H5_TRY((create = untimed_properties(H5P_DATASET_CREATE)) >= 0, file, "create", name);
    dataset = H5Dcreate2(file->id, name, type, space, links, create, H5P_DEFAULT);
    H5_TRY(dataset >= 0, file, "create", name);
    H5_TRY(H5Dwrite(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0, file, "write", name);
    herr_t closed = H5Dclose(dataset); /* the values leave HDF5's buffer here */
    dataset = -1;
    H5_TRY(closed >= 0, file, "write", name);
done:
    p4_h5_release(dataset);
    p4_h5_release(create);
    p4_h5_release(links);
    p4_h5_release(space);
    p4_h5_release(type);
    return rc;
}

p4_rc p4_h5_put_text(p4_h5_file *file, const char *name, const char *text)
{
    size_t bytes = strlen(text);
    if (bytes >= UINT32_MAX) {
        return FAIL("%s: %s would be a text of %zu bytes, HDF5 holds less than 4 GiB", file->path, name,
                    bytes);
    }
    return put_dataset(file, name, text_type(bytes > 0 ? bytes : 1), H5Screate(H5S_SCALAR), text);
}

p4_rc p4_h5_put_vector(p4_h5_file *file, const char *name, p4_h5_type type, const void *values, int64_t count)
{
    hsize_t dims[1] = {(hsize_t)count};
    return put_dataset(file, name, p4_h5_type_create(type), H5Screate_simple(1, dims, NULL), values);
}

/* Chunks of whole rows with checksums; the cache holds whole chunks, so that a chunk filled in pieces is
 * written once. */
static p4_rc set_chunks(p4_h5_rows *rows, hid_t create, hid_t access)
{
    p4_rc rc = P4_OK;
    const p4_h5_file *file = rows->file;
    uint64_t row_bytes = (uint64_t)p4_h5_type_bytes(rows->type);
    hsize_t chunk[P4_H5_MAX_RANK];
    for (int i = 1; i < rows->rank; i++) {
        CHECK(p4_mul3(&row_bytes, row_bytes, (uint64_t)rows->shape[i], 1), "%s: the shape of %s overflows",
              file->path, rows->name);
        chunk[i] = (hsize_t)rows->shape[i];
    }
    CHECK(row_bytes < UINT32_MAX, "%s: a row of %s has %llu bytes, an HDF5 chunk holds less than 4 GiB",
          file->path, rows->name, (unsigned long long)row_bytes);
    /* Equal chunks: the last one is stored whole, so its empty rows would be lost space. */
    int64_t most_rows = p4_max_i64(1, CHUNK_BYTES / (int64_t)row_bytes);
    chunk[0] = (hsize_t)p4_ceil_div(rows->shape[0], p4_ceil_div(rows->shape[0], most_rows));
    size_t chunk_bytes = (size_t)(chunk[0] * row_bytes);
    rows->cached_bytes = (CACHED_CHUNKS + 1) * (int64_t)chunk_bytes; /* and one that is partly filled */
    H5_TRY(H5Pset_chunk(create, rows->rank, chunk) >= 0, file, "create", rows->name);
    H5_TRY(H5Pset_fletcher32(create) >= 0, file, "create", rows->name);
    H5_TRY(H5Pset_fill_time(create, H5D_FILL_TIME_NEVER) >= 0, file, "create", rows->name);
    H5_TRY(H5Pset_chunk_cache(access, 521, CACHED_CHUNKS * chunk_bytes, 1.0) >= 0, file, "create",
           rows->name);
done:
    return rc;
}

p4_rc p4_h5_rows_create(p4_h5_rows *rows, p4_h5_file *file, const char *name, p4_h5_type type, int rank,
                        const int64_t *shape)
{
    p4_rc rc = P4_OK;
    hid_t links = -1, create = -1, access = -1, stored = -1, space = -1;
    hsize_t dims[P4_H5_MAX_RANK];
    *rows = (p4_h5_rows){.file = file, .name = name, .id = -1, .type = type, .rank = rank};
    for (int i = 0; i < rank; i++) {
        rows->shape[i] = shape[i];
        dims[i] = (hsize_t)shape[i];
    }
    H5_TRY((links = link_properties()) >= 0, file, "create", name);
    H5_TRY((create = untimed_properties(H5P_DATASET_CREATE)) >= 0, file, "create", name);
    H5_TRY((access = H5Pcreate(H5P_DATASET_ACCESS)) >= 0, file, "create", name);
    TRY(set_chunks(rows, create, access));
    TRY(reserve(file, 0));
    H5_TRY((stored = p4_h5_type_create(type)) >= 0, file, "create", name);
    H5_TRY((space = H5Screate_simple(rank, dims, NULL)) >= 0, file, "create", name);
    H5_TRY((rows->id = H5Dcreate2(file->id, name, stored, space, links, create, access)) >= 0, file, "create",
           name);
    file->cached_bytes += rows->cached_bytes;
done:
    p4_h5_release(space);
    p4_h5_release(stored);
    p4_h5_release(access);
    p4_h5_release(create);
    p4_h5_release(links);
    return rc;
}

p4_rc p4_h5_rows_append(p4_h5_rows *rows, const void *values, int64_t row_count)
{
    p4_rc rc = P4_OK;
    p4_h5_file *file = rows->file;
    hid_t stored = -1, space = -1, memory = -1;
    int64_t row_bytes = p4_h5_type_bytes(rows->type);
    hsize_t start[P4_H5_MAX_RANK] = {(hsize_t)rows->rows_done}, count[P4_H5_MAX_RANK] = {(hsize_t)row_count};
    for (int i = 1; i < rows->rank; i++) {
        count[i] = (hsize_t)rows->shape[i];
        row_bytes *= rows->shape[i];
    }
    if (row_count < 0 || row_count > rows->shape[0] - rows->rows_done) {
        return FAULT("%s: %lld rows more than %s has", file->path,
                     (long long)(row_count - (rows->shape[0] - rows->rows_done)), rows->name);
    }
    TRY(reserve(file, row_count * row_bytes));
    H5_TRY((stored = p4_h5_type_create(rows->type)) >= 0, file, "write", rows->name);
    H5_TRY((space = H5Dget_space(rows->id)) >= 0, file, "write", rows->name);
    H5_TRY((memory = H5Screate_simple(rows->rank, count, NULL)) >= 0, file, "write", rows->name);
    H5_TRY(H5Sselect_hyperslab(space, H5S_SELECT_SET, start, NULL, count, NULL) >= 0, file, "write",
           rows->name);
    H5_TRY(H5Dwrite(rows->id, stored, memory, space, H5P_DEFAULT, values) >= 0, file, "write", rows->name);
    rows->rows_done += row_count;
done:
    p4_h5_release(memory);
    p4_h5_release(space);
    p4_h5_release(stored);
    return rc;
}

p4_rc p4_h5_rows_close(p4_h5_rows *rows)
{
    p4_rc rc = P4_OK;
    if (rows->id < 0) {
        return P4_OK;
    }
    if (H5Dclose(rows->id) < 0) { /* the last chunks leave the cache here */
        rc = p4_h5_fail(rows->file, "write", rows->name);
    }
    rows->file->cached_bytes -= rows->cached_bytes;
    rows->id = -1;
    return rc;
}
