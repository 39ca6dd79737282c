/* coll_mpi.c - collectives on host memory: each is complete when the call returns. In a job of one rank they
 * leave the memory as it is, except for a reduction to another array, which copies. */
#include <string.h>

#include "dist/coll.h"

enum { PIPELINE_TAG = 7 };

static void nothing(p4_coll *coll)
{
    (void)coll;
}

static p4_rc share(p4_coll *coll, void *memory, int64_t bytes)
{
    (void)coll;
    (void)memory;
    (void)bytes;
    return P4_OK;
}

static void withdraw(p4_coll *coll, void *memory)
{
    (void)coll;
    (void)memory;
}

static void sum_f32(p4_coll *coll, float *data, int64_t count)
{
    p4_group_sum_f32(coll->group, data, count);
}

static bool sum_and_square_f32(p4_coll *coll, float *data, int64_t count, double *squares)
{
    (void)coll;
    (void)data;
    (void)count;
    (void)squares;
    return false;
}

static void reduce_f32(p4_coll *coll, float *to, float *from, int64_t count, int root)
{
    if (to != from && coll->group->rank == root) {
        memcpy(to, from, (size_t)count * sizeof *to);
        from = to;
    }
    p4_group_reduce_f32(coll->group, from, count, root);
}

static void bcast(p4_coll *coll, void *data, int64_t bytes, int root)
{
    if (coll->group->ranks > 1) {
        p4_group_bcast(coll->group, data, bytes, root);
    }
}

static void all_gather(p4_coll *coll, void *data, int64_t bytes)
{
    p4_group_all_gather(coll->group, data, bytes);
}

static void recv_bytes(p4_coll *coll, void *data, int64_t bytes, int from)
{
    p4_group_recv(coll->group, data, bytes, from, PIPELINE_TAG);
}

static p4_request isend(p4_coll *coll, const void *data, int64_t bytes, int to)
{
    return p4_group_isend(coll->group, data, bytes, to, PIPELINE_TAG);
}

static void wait_request(p4_coll *coll, p4_request *request)
{
    p4_group_wait(coll->group, request);
}

static int64_t mark(p4_coll *coll)
{
    (void)coll;
    return 0;
}

static void order_after(p4_coll *coll, int64_t up_to)
{
    (void)coll;
    (void)up_to;
}

static void synchronize(p4_coll *coll, const char *what, ...)
{
    (void)coll;
    (void)what;
}

static void wait_for(p4_coll *coll, int64_t up_to, const char *what)
{
    (void)coll;
    (void)up_to;
    (void)what;
}

p4_rc p4_coll_mpi_open(p4_coll *coll, p4_group *group, void *stream, int ordinal)
{
    (void)stream;
    (void)ordinal;
    *coll = (p4_coll){.name = "MPI",
                      .group = group,
                      .share = share,
                      .withdraw = withdraw,
                      .begin = nothing,
                      .end = nothing,
                      .sum_f32 = sum_f32,
                      .sum_and_square_f32 = sum_and_square_f32,
                      .reduce_f32 = reduce_f32,
                      .bcast = bcast,
                      .all_gather = all_gather,
                      .recv = recv_bytes,
                      .isend = isend,
                      .wait = wait_request,
                      .mark = mark,
                      .order_after = order_after,
                      .synchronize = synchronize,
                      .wait_for = wait_for,
                      .close = nothing};
    return P4_OK;
}
