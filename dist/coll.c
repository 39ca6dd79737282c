/* coll.c - the list of collective backends in this build. */
#include "dist/coll.h"

#include <string.h>

typedef struct backend {
    const char *name;
    p4_rc (*open)(p4_coll *coll, p4_group *group, void *stream, int ordinal);
    p4_rc (*usable)(void);        /* NULL: always */
    const char *(*version)(void); /* of its library; NULL: that of the machine's MPI */
} backend;

static const backend backends[] = {
    {"mpi", p4_coll_mpi_open, NULL, NULL},
#ifdef P4_CUDA
    {"nccl", p4_coll_nccl_open, p4_coll_nccl_usable, p4_coll_nccl_version},
#endif
};

static const backend *find(const char *name)
{
    for (size_t i = 0; i < sizeof backends / sizeof backends[0]; i++) {
        if (strcmp(backends[i].name, name) == 0) {
            return &backends[i];
        }
    }
    return NULL;
}

bool p4_coll_known(const char *name)
{
    return find(name) != NULL;
}

static p4_rc unknown(const char *name)
{
    return FAULT("this build has no collectives \"%s\"",
                 name); /* the same on every rank: they run one build */
}

p4_rc p4_coll_usable(const char *name)
{
    const backend *found = find(name);
    if (found == NULL) {
        return unknown(name);
    }
    return found->usable != NULL ? found->usable() : P4_OK;
}

p4_rc p4_coll_open(p4_coll *coll, p4_group *group, const char *name, void *stream, int ordinal)
{
    const backend *found = find(name);
    *coll = (p4_coll){0};
    if (found == NULL) {
        return unknown(name);
    }
    p4_rc rc = found->open(coll, group, stream, ordinal);
    if (rc == P4_OK) {
        coll->library = found->version != NULL ? found->version() : "";
    }
    return rc;
}

void p4_coll_close(p4_coll *coll)
{
    if (coll->close != NULL) {
        coll->close(coll);
    }
    *coll = (p4_coll){0};
}
