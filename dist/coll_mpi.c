#include "coll.h"

enum { PIPELINE_TAG = 7 };

static void sum_f32(p4_coll *coll, float *data, int64_t count)
{
    p4_dist_sum_f32(coll->dist, data, count);
}

static void reduce_f32(p4_coll *coll, float *data, int64_t count, int root)
{
    p4_dist_reduce_f32(coll->dist, data, count, root);
}

static void bcast(p4_coll *coll, void *data, int64_t bytes, int root)
{
    p4_dist_bcast(coll->dist, data, bytes, root);
}

static void recv_bytes(p4_coll *coll, void *data, int64_t bytes, int from)
{
    p4_dist_recv(coll->dist, data, bytes, from, PIPELINE_TAG);
}

static p4_request isend(p4_coll *coll, const void *data, int64_t bytes, int to)
{
    return p4_dist_isend(coll->dist, data, bytes, to, PIPELINE_TAG);
}

static void wait_request(p4_coll *coll, p4_request *request)
{
    p4_dist_wait(coll->dist, request);
}

p4_coll p4_coll_mpi(p4_dist *dist)
{
    return (p4_coll){.name = "MPI",
                     .dist = dist,
                     .sum_f32 = sum_f32,
                     .reduce_f32 = reduce_f32,
                     .bcast = bcast,
                     .recv = recv_bytes,
                     .isend = isend,
                     .wait = wait_request};
}
