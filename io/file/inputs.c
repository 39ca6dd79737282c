#include "io/file/inputs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static p4_rc examine(p4_read_file *file, const char *path)
{
    struct stat status;
    if (stat(path, &status) != 0) {
        return FAIL("%s: cannot examine: %s", path, strerror(errno));
    }
    file->device = (uint64_t)status.st_dev;
    file->inode = (uint64_t)status.st_ino;
    file->bytes = (uint64_t)status.st_size;
    file->modified_s = status.st_mtim.tv_sec;
    file->modified_ns = status.st_mtim.tv_nsec;
    return P4_OK;
}

p4_rc p4_inputs_add(p4_inputs *inputs, const char *path, bool fingerprint)
{
    p4_rc rc = P4_OK;
    p4_read_file *grown = p4_resize(inputs->files, (size_t)inputs->count + 1, sizeof *grown);
    TRY(grown != NULL ? P4_OK : P4_E_SYSTEM);
    inputs->files = grown;
    p4_read_file *file = &grown[inputs->count];
    *file = (p4_read_file){.path = p4_strdup(path)};
    TRY(file->path != NULL ? P4_OK : P4_E_SYSTEM);
    inputs->count++;
    TRY(examine(file, path));
    TRY(fingerprint ? p4_fingerprint_file(file->fingerprint, path) : P4_OK);
done:
    return rc;
}

p4_rc p4_inputs_check(const p4_inputs *inputs)
{
    p4_rc rc = P4_OK;
    for (int64_t i = 0; i < inputs->count; i++) {
        const p4_read_file *was = &inputs->files[i];
        p4_read_file now = {.path = was->path};
        TRY(examine(&now, was->path));
        CHECK(now.bytes == was->bytes, "%s: changed while the run was using it: %llu bytes, it had %llu",
              was->path, (unsigned long long)now.bytes, (unsigned long long)was->bytes);
        CHECK(now.device == was->device && now.inode == was->inode && now.modified_s == was->modified_s &&
                  now.modified_ns == was->modified_ns,
              "%s: was written or replaced while the run was using it", was->path);
    }
done:
    return rc;
}

static p4_rc compare(const p4_inputs *inputs, const char *host, const char *first_host,
                     const char (*first)[P4_FINGERPRINT_BYTES])
{
    p4_rc rc = P4_OK;
    for (int64_t i = 0; i < inputs->count; i++) {
        CHECK(strcmp(inputs->files[i].fingerprint, first[i]) == 0,
              "%s: is another file on host %s (%s) than on host %s (%s); every node must see the same model",
              inputs->files[i].path, host, inputs->files[i].fingerprint, first_host, first[i]);
    }
done:
    return rc;
}

p4_rc p4_inputs_compare(p4_group *group, const p4_inputs *inputs)
{
    p4_rc rc = P4_OK;
    struct {
        int64_t count;
        char host[sizeof group->machine->host];
    } head = {.count = inputs->count};
    memcpy(head.host, group->machine->host, sizeof head.host);
    p4_group_bcast(group, &head, sizeof head, 0);
    char(*first)[P4_FINGERPRINT_BYTES] = p4_alloc((size_t)head.count, sizeof *first);
    TRY_ALL(group, first != NULL ? P4_OK : P4_E_SYSTEM);
    TRY_ALL(group,
            inputs->count == head.count
                ? P4_OK
                : FAIL("the model has %lld files on host %s and %lld on host %s; every node must see the "
                       "same model",
                       (long long)inputs->count, group->machine->host, (long long)head.count, head.host));
    for (int64_t i = 0; i < inputs->count; i++) {
        memcpy(first[i], inputs->files[i].fingerprint, sizeof first[i]);
    }
    p4_group_bcast(group, first, head.count * (int64_t)sizeof *first, 0);
    TRY_ALL(group,
            compare(inputs, group->machine->host, head.host, (const char(*)[P4_FINGERPRINT_BYTES])first));
done:
    free(first);
    return rc;
}

void p4_inputs_free(p4_inputs *inputs)
{
    for (int64_t i = 0; i < inputs->count; i++) {
        free(inputs->files[i].path);
    }
    free(inputs->files);
    *inputs = (p4_inputs){.files = NULL};
}
