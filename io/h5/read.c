#include "io/h5/read.h"

#include <hdf5.h>
#include <stdlib.h>
#include <string.h>

#include "io/h5/hdf5_calls.h"

enum {
    MAX_TEXT_BYTES = 1 << 30, /* no configuration or tokenizer comes near */
    MAX_NAMES = 1 << 22,
    DEFLATE_BEST = 1032, /* deflate never packs more than this many bytes into one */
};

p4_rc p4_h5_open(p4_h5_file *file, const char *path)
{
    p4_rc rc = P4_OK;
    hid_t access = -1;
    *file = (p4_h5_file){.id = -1, .path = path, .found = p4_alloc(P4_H5_FOUND_BYTES, 1)};
    TRY(file->found != NULL ? P4_OK : P4_E_SYSTEM);
    p4_h5_silence();
    H5_TRY((access = p4_h5_file_access()) >= 0, file, "open", "the file");
    H5_TRY((file->id = H5Fopen(path, H5F_ACC_RDONLY, access)) >= 0, file, "open", "as an HDF5 file");
done:
    p4_h5_release(access);
    if (rc != P4_OK) {
        free(file->found);
        file->found = NULL;
    }
    return rc;
}

/* Opens a dataset whose data lie in this very file. */
static p4_rc open_dataset(hid_t *dataset, const p4_h5_file *file, const char *name)
{
    p4_rc rc = P4_OK;
    hid_t create = -1;
    *dataset = -1;
    CHECK(p4_h5_exists(file, name), "%s: has no %s", file->path, name);
    H5_TRY((*dataset = H5Dopen2(file->id, name, H5P_DEFAULT)) >= 0, file, "open dataset", name);
    H5_TRY((create = H5Dget_create_plist(*dataset)) >= 0, file, "read", name);
    CHECK(H5Pget_external_count(create) == 0 && H5Pget_layout(create) != H5D_VIRTUAL,
          "%s: the data of %s lie in other files, expected them in this one", file->path, name);
done:
    p4_h5_release(create);
    if (rc != P4_OK) {
        p4_h5_release(*dataset);
        *dataset = -1;
    }
    return rc;
}

static p4_h5_type type_of(hid_t stored)
{
    for (p4_h5_type type = P4_H5_U8; type < P4_H5_OTHER; type++) {
        hid_t known = p4_h5_type_create(type);
        bool same = known >= 0 && H5Tequal(stored, known) > 0;
        p4_h5_release(known);
        if (same) {
            return type;
        }
    }
    return P4_H5_OTHER;
}

/* Whether the bytes stored can hold `bytes` of data: a foreign shape must not make the reader allocate or
 * loop at will. */
static bool holds(hid_t dataset, uint64_t bytes)
{
    uint64_t best = 1;
    hid_t create = H5Dget_create_plist(dataset);
    for (int i = 0; create >= 0 && i < H5Pget_nfilters(create); i++) {
        unsigned flags, config;
        size_t values = 0;
        H5Z_filter_t filter = H5Pget_filter2(create, (unsigned)i, &flags, &values, NULL, 0, NULL, &config);
        best = filter == H5Z_FILTER_FLETCHER32 || filter == H5Z_FILTER_SHUFFLE ? best : DEFLATE_BEST;
    }
    p4_h5_release(create);
    return H5Dget_storage_size(dataset) >= bytes / best;
}

p4_rc p4_h5_describe(const p4_h5_file *file, const char *name, p4_h5_shape *shape)
{
    p4_rc rc = P4_OK;
    hid_t dataset = -1, stored = -1, space = -1;
    hsize_t dims[H5S_MAX_RANK];
    *shape = (p4_h5_shape){.type = P4_H5_OTHER};
    TRY(open_dataset(&dataset, file, name));
    H5_TRY((stored = H5Dget_type(dataset)) >= 0, file, "read the type of", name);
    H5_TRY((space = H5Dget_space(dataset)) >= 0, file, "read the shape of", name);
    int rank = H5Sget_simple_extent_ndims(space);
    CHECK(rank >= 1 && rank <= P4_H5_MAX_RANK, "%s: %s has %d dimensions, expected 1 to %d", file->path, name,
          rank, P4_H5_MAX_RANK);
    H5_TRY(H5Sget_simple_extent_dims(space, dims, NULL) == rank, file, "read the shape of", name);
    shape->type = type_of(stored);
    CHECK(shape->type != P4_H5_OTHER, "%s: %s is of a type that this format does not use", file->path, name);
    shape->rank = rank;
    uint64_t bytes = (uint64_t)p4_h5_type_bytes(shape->type);
    for (int i = rank - 1; i >= 0; i--) {
        CHECK(dims[i] > 0 && p4_mul3(&bytes, bytes, dims[i], 1) && bytes <= INT64_MAX,
              "%s: dimension %d of %s is %llu, which cannot be", file->path, i, name,
              (unsigned long long)dims[i]);
        shape->dims[i] = (int64_t)dims[i];
    }
    shape->row_bytes = (int64_t)(bytes / dims[0]);
    CHECK(holds(dataset, bytes), "%s: %s should hold %llu bytes, the file has only %llu for it", file->path,
          name, (unsigned long long)bytes, (unsigned long long)H5Dget_storage_size(dataset));
done:
    p4_h5_release(space);
    p4_h5_release(stored);
    p4_h5_release(dataset);
    return rc;
}

p4_rc p4_h5_read_rows(const p4_h5_file *file, const char *name, const p4_h5_shape *shape, void *values,
                      int64_t first_row, int64_t row_count)
{
    p4_rc rc = P4_OK;
    hid_t dataset = -1, stored = -1, space = -1, memory = -1;
    hsize_t start[P4_H5_MAX_RANK] = {(hsize_t)first_row}, count[P4_H5_MAX_RANK] = {(hsize_t)row_count};
    for (int i = 1; i < shape->rank; i++) {
        count[i] = (hsize_t)shape->dims[i];
    }
    if (first_row < 0 || row_count < 1 || first_row > shape->dims[0] - row_count) {
        return FAULT("%s: rows %lld to %lld of %s were asked for, it has %lld", file->path,
                     (long long)first_row, (long long)(first_row + row_count - 1), name,
                     (long long)shape->dims[0]);
    }
    TRY(open_dataset(&dataset, file, name));
    H5_TRY((stored = p4_h5_type_create(shape->type)) >= 0, file, "read", name);
    H5_TRY((space = H5Dget_space(dataset)) >= 0, file, "read", name);
    H5_TRY((memory = H5Screate_simple(shape->rank, count, NULL)) >= 0, file, "read", name);
    H5_TRY(H5Sselect_hyperslab(space, H5S_SELECT_SET, start, NULL, count, NULL) >= 0, file, "read", name);
    H5_TRY(H5Dread(dataset, stored, memory, space, H5P_DEFAULT, values) >= 0, file, "read", name);
done:
    p4_h5_release(memory);
    p4_h5_release(space);
    p4_h5_release(stored);
    p4_h5_release(dataset);
    return rc;
}

p4_rc p4_h5_read_text(const p4_h5_file *file, const char *name, char **text)
{
    p4_rc rc = P4_OK;
    hid_t dataset = -1, stored = -1, space = -1;
    *text = NULL;
    TRY(open_dataset(&dataset, file, name));
    H5_TRY((stored = H5Dget_type(dataset)) >= 0, file, "read", name);
    H5_TRY((space = H5Dget_space(dataset)) >= 0, file, "read", name);
    CHECK(H5Tget_class(stored) == H5T_STRING && H5Tis_variable_str(stored) == 0 &&
              H5Sget_simple_extent_type(space) == H5S_SCALAR,
          "%s: %s is not one string of fixed length", file->path, name);
    size_t bytes = H5Tget_size(stored);
    CHECK(bytes > 0 && bytes <= MAX_TEXT_BYTES && holds(dataset, bytes),
          "%s: %s should be a text of %zu bytes, the file has %llu for it", file->path, name, bytes,
          (unsigned long long)H5Dget_storage_size(dataset));
    *text = p4_alloc(bytes + 1, 1);
    if (*text == NULL) {
        rc = P4_E_SYSTEM;
        goto done;
    }
    H5_TRY(H5Dread(dataset, stored, H5S_ALL, H5S_ALL, H5P_DEFAULT, *text) >= 0, file, "read", name);
done:
    p4_h5_release(space);
    p4_h5_release(stored);
    p4_h5_release(dataset);
    if (rc != P4_OK) {
        free(*text);
        *text = NULL;
    }
    return rc;
}

bool p4_h5_has_attr(const p4_h5_file *file, const char *object, const char *key)
{
    bool has_object = strcmp(object, "/") == 0 || p4_h5_exists(file, object);
    return has_object && H5Aexists_by_name(file->id, object, key, H5P_DEFAULT) > 0;
}

/* Opens an attribute and its type and counts its elements; the caller releases *attr and *type. */
static p4_rc open_attr(hid_t *attr, hid_t *type, int64_t *count, const p4_h5_file *file, const char *object,
                       const char *key)
{
    p4_rc rc = P4_OK;
    hid_t space = -1;
    *attr = *type = -1;
    CHECK(p4_h5_has_attr(file, object, key), "%s: %s has no attribute \"%s\"", file->path, object, key);
    H5_TRY((*attr = H5Aopen_by_name(file->id, object, key, H5P_DEFAULT, H5P_DEFAULT)) >= 0, file,
           "read attribute", key);
    H5_TRY((*type = H5Aget_type(*attr)) >= 0, file, "read attribute", key);
    H5_TRY((space = H5Aget_space(*attr)) >= 0, file, "read attribute", key);
    *count = H5Sget_simple_extent_npoints(space);
done:
    p4_h5_release(space);
    return rc;
}

p4_rc p4_h5_read_f64_attr(const p4_h5_file *file, const char *object, const char *key, double *value)
{
    p4_rc rc = P4_OK;
    hid_t attr = -1, type = -1;
    int64_t count = 0;
    TRY(open_attr(&attr, &type, &count, file, object, key));
    H5T_class_t class = H5Tget_class(type);
    CHECK(count == 1 && (class == H5T_FLOAT || class == H5T_INTEGER),
          "%s: attribute \"%s\" of %s is not one number", file->path, key, object);
    H5_TRY(H5Aread(attr, H5T_NATIVE_DOUBLE, value) >= 0, file, "read attribute", key);
done:
    p4_h5_release(type);
    p4_h5_release(attr);
    return rc;
}

p4_rc p4_h5_read_i64s_attr(const p4_h5_file *file, const char *object, const char *key, int64_t *values,
                           int max_count, int *count)
{
    p4_rc rc = P4_OK;
    hid_t attr = -1, type = -1;
    int64_t found = 0;
    TRY(open_attr(&attr, &type, &found, file, object, key));
    CHECK(H5Tget_class(type) == H5T_INTEGER && found >= 1 && found <= max_count,
          "%s: attribute \"%s\" of %s should be 1 to %d integers", file->path, key, object, max_count);
    H5_TRY(H5Aread(attr, H5T_NATIVE_INT64, values) >= 0, file, "read attribute", key);
    *count = (int)found;
done:
    p4_h5_release(type);
    p4_h5_release(attr);
    return rc;
}

bool p4_h5_is_group(const p4_h5_file *file, const char *name)
{
    hid_t id = p4_h5_exists(file, name) ? H5Gopen2(file->id, name, H5P_DEFAULT) : -1;
    p4_h5_release(id);
    return id >= 0;
}

/* H5Literate's callback: a positive return ends the walk. */
static herr_t take_name(hid_t group, const char *name, const H5L_info_t *info, void *user)
{
    p4_h5_names *names = user;
    (void)group;
    (void)info;
    char **grown = names->count < MAX_NAMES
                       ? p4_grow(names->names, names->count, &names->capacity, sizeof *grown)
                       : NULL;
    if (grown == NULL) {
        return 1;
    }
    names->names = grown;
    grown[names->count] = p4_strdup(name);
    if (grown[names->count] == NULL) {
        return 1;
    }
    names->count++;
    return 0;
}

p4_rc p4_h5_list(const p4_h5_file *file, const char *group, p4_h5_names *names)
{
    p4_rc rc = P4_OK;
    hid_t id = -1;
    *names = (p4_h5_names){0};
    CHECK(strcmp(group, "/") == 0 || p4_h5_exists(file, group), "%s: has no group %s", file->path, group);
    H5_TRY((id = H5Gopen2(file->id, group, H5P_DEFAULT)) >= 0, file, "open group", group);
    herr_t ended = H5Literate(id, H5_INDEX_NAME, H5_ITER_INC, NULL, take_name, names);
    H5_TRY(ended >= 0, file, "list", group);
    CHECK(ended == 0, "%s: group %s has too many members to list", file->path, group);
done:
    p4_h5_release(id);
    if (rc != P4_OK) {
        p4_h5_names_free(names);
    }
    return rc;
}

void p4_h5_names_free(p4_h5_names *names)
{
    for (int64_t i = 0; i < names->count; i++) {
        free(names->names[i]);
    }
    free(names->names);
    *names = (p4_h5_names){0};
}
