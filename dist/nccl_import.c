/* nccl_import.c - the functions of NCCL that coll_nccl*.c call (import.h). */
#include <nccl.h>

#include <stdio.h>

#include "dist/coll.h"
#include "src/leaf/import.h"

#define TEXT_OF(x) TEXT(x)
#define TEXT(x) #x

static p4_import library = {.file = "libnccl.so." TEXT_OF(NCCL_MAJOR), .folder = P4_LIBRARY_FOLDER};

#define FORWARD(name, parameters, arguments) \
    P4_IMPORT(library, ncclSystemError, ncclResult_t, name, parameters, arguments)

/* clang-format off: a star in the parameters of a macro is taken for a product */
FORWARD(ncclGetVersion, (int *version), (version))
FORWARD(ncclGetUniqueId, (ncclUniqueId * id), (id))
FORWARD(ncclCommInitRankConfig,
        (ncclComm_t * comm, int ranks, ncclUniqueId id, int rank, ncclConfig_t *config),
        (comm, ranks, id, rank, config))
FORWARD(ncclCommFinalize, (ncclComm_t comm), (comm))
FORWARD(ncclCommDestroy, (ncclComm_t comm), (comm))
FORWARD(ncclCommAbort, (ncclComm_t comm), (comm))
FORWARD(ncclCommGetAsyncError, (ncclComm_t comm, ncclResult_t *error), (comm, error))
FORWARD(ncclAllReduce,
        (const void *from, void *to, size_t count, ncclDataType_t type, ncclRedOp_t op, ncclComm_t comm,
         cudaStream_t stream),
        (from, to, count, type, op, comm, stream))
FORWARD(ncclReduce,
        (const void *from, void *to, size_t count, ncclDataType_t type, ncclRedOp_t op, int root,
         ncclComm_t comm, cudaStream_t stream),
        (from, to, count, type, op, root, comm, stream))
FORWARD(ncclBroadcast,
        (const void *from, void *to, size_t count, ncclDataType_t type, int root, ncclComm_t comm,
         cudaStream_t stream),
        (from, to, count, type, root, comm, stream))
FORWARD(ncclAllGather,
        (const void *from, void *to, size_t count, ncclDataType_t type, ncclComm_t comm, cudaStream_t stream),
        (from, to, count, type, comm, stream))
FORWARD(ncclSend,
        (const void *from, size_t count, ncclDataType_t type, int peer, ncclComm_t comm, cudaStream_t stream),
        (from, count, type, peer, comm, stream))
FORWARD(ncclRecv,
        (void *to, size_t count, ncclDataType_t type, int peer, ncclComm_t comm, cudaStream_t stream),
        (to, count, type, peer, comm, stream))
FORWARD(ncclGroupStart, (void), ())
FORWARD(ncclGroupEnd, (void), ())

P4_IMPORT(library, p4_import_error(&library), const char *, ncclGetErrorString, (ncclResult_t result),
          (result))
P4_IMPORT(library, p4_import_error(&library), const char *, ncclGetLastError, (ncclComm_t comm), (comm))
/* clang-format on */

/* The number is that of a library that may be newer than the header. */
const char *p4_coll_nccl_version(void)
{
    static char text[32];
    int version = 0;
    if (ncclGetVersion(&version) == ncclSuccess) {
        snprintf(text, sizeof text, "%d.%d.%d", version / 10000, version / 100 % 100, version % 100);
    }
    return text;
}
