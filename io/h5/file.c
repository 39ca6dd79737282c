#include "io/h5/file.h"

#include <hdf5.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/file/atomic_file.h"
#include "io/h5/hdf5_calls.h"

typedef struct innermost {
    char text[400];
} innermost;

/* HDF5 buries the system's reason in "..., errno = 28, error message = 'No space left on device', buf = ...".
 */
static herr_t take_innermost(unsigned depth, const H5E_error2_t *error, void *user)
{
    innermost *found = user;
    if (depth == 0 && error->desc != NULL) {
        const char *reason = strstr(error->desc, "error message = '");
        const char *from = reason != NULL ? reason + strlen("error message = '") : error->desc;
        const char *end = reason != NULL ? strchr(from, '\'') : NULL;
        int length = end != NULL ? (int)(end - from) : (int)strlen(from);
        snprintf(found->text, sizeof found->text, "%.*s", length, from);
    }
    return 0;
}

p4_rc p4_h5_fail(const p4_h5_file *file, const char *action, const char *object)
{
    innermost found = {"HDF5 gives no reason"};
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, take_innermost, &found);
    const char *space = object[0] == '\0' ? "" : " ";
    return FAIL("%s: cannot %s%s%s: %s", file->path, action, space, object, found.text);
}

char *p4_h5_version(char text[P4_H5_VERSION_BYTES])
{
    unsigned major = 0, minor = 0, release = 0;
    H5get_libversion(&major, &minor, &release);
    snprintf(text, P4_H5_VERSION_BYTES, "%u.%u.%u", major, minor, release);
    return text;
}

void p4_h5_silence(void)
{
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
}

void p4_h5_leave_exit_alone(void)
{
    (void)H5dont_atexit();
}

void p4_h5_release(int64_t id)
{
    if (id >= 0) {
        H5Idec_ref(id);
    }
}

int64_t p4_h5_type_bytes(p4_h5_type type)
{
    static const int64_t bytes[] = {1, 2, 2, 4, 8, 8, 0};
    return bytes[type];
}

int64_t p4_h5_file_access(void)
{
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    /* STRONG: closing the file closes what a failed step left open in it. */
    if (access < 0 || H5Pset_file_locking(access, 0, 1) < 0 ||
        H5Pset_fclose_degree(access, H5F_CLOSE_STRONG) < 0) {
        p4_h5_release(access);
        return -1;
    }
    return access;
}

/* IEEE half: HDF5 has a name for it only from 1.14.4 on. The order of the calls matters. */
static hid_t create_f16(void)
{
    hid_t type = H5Tcopy(H5T_IEEE_F32LE);
    if (type >= 0 && (H5Tset_fields(type, 15, 10, 5, 0, 10) < 0 || H5Tset_size(type, 2) < 0 ||
                      H5Tset_ebias(type, 15) < 0)) {
        p4_h5_release(type);
        return -1;
    }
    return type;
}

int64_t p4_h5_type_create(p4_h5_type type)
{
    switch (type) {
    case P4_H5_U8:
        return H5Tcopy(H5T_STD_U8LE);
    case P4_H5_U16:
        return H5Tcopy(H5T_STD_U16LE);
    case P4_H5_F16:
        return create_f16();
    case P4_H5_F32:
        return H5Tcopy(H5T_IEEE_F32LE);
    case P4_H5_F64:
        return H5Tcopy(H5T_IEEE_F64LE);
    case P4_H5_I64:
        return H5Tcopy(H5T_STD_I64LE);
    case P4_H5_OTHER:
        break;
    }
    return -1;
}

/* How much of a path, in whole names, was found the last time. */
static size_t found_bytes(const p4_h5_file *file, const char *name)
{
    size_t known = 0;
    for (size_t i = 0; file->found != NULL; i++) {
        bool ends = name[i] == '\0' || name[i] == '/',
             same_end = file->found[i] == '\0' || file->found[i] == '/';
        known = ends && same_end ? i : known;
        if (name[i] == '\0' || name[i] != file->found[i]) {
            break;
        }
    }
    return known;
}

bool p4_h5_exists(const p4_h5_file *file, const char *name)
{
    bool exists = true;
    size_t bytes = strlen(name), known = found_bytes(file, name);
    char *partial = p4_strdup(name);
    if (partial == NULL) {
        return false;
    }
    for (size_t end = known + 1; exists && known < bytes && end <= bytes; end++) {
        H5L_info_t info;
        if (name[end] == '/' || name[end] == '\0') {
            partial[end] = '\0';
            exists = H5Lexists(file->id, partial, H5P_DEFAULT) > 0 &&
                     H5Lget_info(file->id, partial, &info, H5P_DEFAULT) >= 0 && info.type == H5L_TYPE_HARD;
            partial[end] = name[end];
        }
    }
    if (exists && file->found != NULL && bytes < P4_H5_FOUND_BYTES) {
        memcpy(file->found, name, bytes + 1);
    }
    free(partial);
    return exists;
}

/* Writes everything out of the caches and gives back what was reserved beyond the end. */
static p4_rc finish(const p4_h5_file *file)
{
    hsize_t used = 0;
    ssize_t open_objects = H5Fget_obj_count(file->id, H5F_OBJ_ALL | H5F_OBJ_LOCAL);
    if (open_objects != 1) {
        return FAULT("%s: %zd HDF5 objects are still open at the close", file->path, open_objects - 1);
    }
    if (H5Fflush(file->id, H5F_SCOPE_GLOBAL) < 0 || H5Fget_filesize(file->id, &used) < 0) {
        return p4_h5_fail(file, "write", "");
    }
    return file->fd < 0 || ftruncate(file->fd, (off_t)used) == 0 ? P4_OK : p4_fail_errno(file->path, "write");
}

/* HDF5 keeps what it freed, and the C library what HDF5 gives back. A stage that follows needs the memory:
 * the plan of a run counts on it (jobs/plan.h). */
static void give_memory_back(void)
{
    (void)H5garbage_collect();
#ifdef __GLIBC__
    (void)malloc_trim(0);
#endif
}

p4_rc p4_h5_close(p4_h5_file *file, bool ok)
{
    p4_rc rc = P4_OK;
    if (file->id < 0) {
        return P4_OK;
    }
    if (ok) {
        rc = finish(file);
    }
    if (H5Fclose(file->id) < 0 && ok && rc == P4_OK) {
        rc = p4_h5_fail(file, "write", "");
    }
    give_memory_back();
    free(file->found);
    file->found = NULL;
    file->id = -1;
    return rc;
}
