/* emu_coll.c - in place of dist/coll.c: who asks for "mpi" on several ranks gets NCCL, emulated, over the
 * CPU's memory. Also what of NCCL is made of its other operations. */
#include <string.h>

#include "dist/coll.h"
#include "emu.h"

bool p4_coll_known(const char *name)
{
    return strcmp(name, "mpi") == 0;
}

p4_rc p4_coll_usable(const char *name)
{
    return p4_coll_known(name) ? p4_coll_nccl_usable() : FAULT("this build has no collectives \"%s\"", name);
}

p4_rc p4_coll_open(p4_coll *coll, p4_group *group, const char *name, void *stream, int ordinal)
{
    *coll = (p4_coll){0};
    if (!p4_coll_known(name)) {
        return FAULT("this build has no collectives \"%s\"", name);
    }
    return group->ranks > 1 ? p4_coll_nccl_open(coll, group, stream, ordinal)
                            : p4_coll_mpi_open(coll, group, stream, ordinal);
}

/* `from` lies at its place in `to`. */
ncclResult_t ncclAllGather(const void *from, void *to, size_t count, ncclDataType_t type, ncclComm_t comm,
                           cudaStream_t stream)
{
    (void)from;
    ncclGroupStart();
    for (int r = 0; r < emu_ranks(comm); r++) {
        char *row = (char *)to + (size_t)r * count;
        ncclBroadcast(row, row, count, type, r, comm, stream);
    }
    return ncclGroupEnd();
}

void p4_coll_close(p4_coll *coll)
{
    if (coll->close != NULL) {
        coll->close(coll);
    }
    *coll = (p4_coll){0};
}
