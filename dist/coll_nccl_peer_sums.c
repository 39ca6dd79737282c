/* coll_nccl_peer_sums.c - see peer_sums.h: sums and broadcasts, queued. */
#include "dist/coll_nccl_peers.h"
#include "dist/peer_add.h"

enum { LINE = 32 }; /* elements: pieces start on 128-byte lines of the array */

/* The runtime gives the driver's errors the same numbers. */
static cudaError_t driver(CUresult result)
{
    return (cudaError_t)result;
}

/* Queues a barrier: what is queued after it runs when the queue of every rank has reached it. */
static cudaError_t meet(p4_peers *peers)
{
    cudaError_t error = cudaSuccess;
    uint32_t meeting = ++peers->meeting;
    for (int r = 0; r < peers->ranks && error == cudaSuccess; r++) {
        if (r != peers->rank) {
            uint32_t *there = (uint32_t *)peers->shared[0].of[r] + peers->rank;
            error = driver(peers->write_value(peers->queue, (CUdeviceptr)(uintptr_t)there, meeting,
                                              CU_STREAM_WRITE_VALUE_DEFAULT));
        }
    }
    for (int r = 0; r < peers->ranks && error == cudaSuccess; r++) {
        if (r != peers->rank) { /* the numbers may wrap around: their difference is compared */
            error = driver(peers->wait_value(peers->queue, (CUdeviceptr)(uintptr_t)(peers->met + r), meeting,
                                             CU_STREAM_WAIT_VALUE_GEQ));
        }
    }
    peers->queued += 2 * (peers->ranks - 1);
    return error;
}

/* What rank r has where this rank has `data`, to `to`. */
static cudaError_t fetch(p4_peers *peers, void *to, const void *data, int64_t bytes, int r)
{
    const p4_shared_memory *shared = p4_peers_memory_of(peers, data, bytes);
    const char *from = shared->of[r] + ((const char *)data - shared->own);
    peers->queued++;
    return cudaMemcpyAsync(to, from, (size_t)bytes, cudaMemcpyDeviceToDevice, peers->queue);
}

/* to = the sum over all ranks of `from`, `count` elements that fit the landing area. */
static cudaError_t gather_part(p4_peers *peers, float *to, const float *from, double *squares, int64_t count,
                               int64_t stride)
{
    cudaError_t error = cudaSuccess;
    float *landing = peers->landing;
    for (int r = 0; r < peers->ranks && error == cudaSuccess; r++) {
        if (r != peers->rank) {
            error = fetch(peers, landing, from, count * (int64_t)sizeof *from, r);
            landing += stride;
        }
    }
    p4_landed landed = {.own = from,
                        .landing = peers->landing,
                        .stride = stride,
                        .count = count,
                        .rank = peers->rank,
                        .ranks = peers->ranks};
    const p4_peer_squares add_squares = {.sum = squares, .partial = peers->partial};
    peers->queued += squares != NULL ? 2 : 1;
    return error == cudaSuccess ? (cudaError_t)p4_peer_add(to, &landed, &add_squares, peers->queue) : error;
}

/* Rank r's piece of the sum: elements [*first, *first + count returned). */
static int64_t piece_of(const p4_peers *peers, const p4_peer_sum *sum, int r, int64_t *first)
{
    int64_t each = p4_ceil_div(p4_ceil_div(sum->count, peers->ranks), LINE) * LINE;
    *first = p4_min_i64(sum->count, each * r);
    return p4_min_i64(each, sum->count - *first);
}

/* This rank's piece is summed where it is read from: at its place in `from`, of the root in `to`. */
static cudaError_t sum_piece(p4_peers *peers, const p4_peer_sum *sum)
{
    cudaError_t error = cudaSuccess;
    int64_t first, count = piece_of(peers, sum, peers->rank, &first);
    float *from = sum->from + first, *to = (sum->root == peers->rank ? sum->to : sum->from) + first;
    int64_t part = P4_LANDING_BYTES / (int64_t)sizeof(float) / (peers->ranks - 1) / LINE * LINE;
    for (int64_t at = 0; at < count && error == cudaSuccess; at += part) {
        error = gather_part(peers, to + at, from + at, sum->squares, p4_min_i64(part, count - at), part);
    }
    return error;
}

/* In this order no two ranks begin with the same one. */
static int rank_after(const p4_peers *peers, int step)
{
    return (peers->rank + step) % peers->ranks;
}

static cudaError_t fetch_pieces(p4_peers *peers, const p4_peer_sum *sum)
{
    cudaError_t error = cudaSuccess;
    for (int step = 1; step < peers->ranks && error == cudaSuccess; step++) {
        int r = rank_after(peers, step);
        int64_t first, count = piece_of(peers, sum, r, &first);
        if (count > 0) {
            error = fetch(peers, sum->to + first, sum->from + first, count * (int64_t)sizeof(float), r);
        }
    }
    return error;
}

p4_rc p4_peers_sum(p4_peers *peers, const p4_peer_sum *sum)
{
    p4_peer_sum *sums = p4_grow(peers->sums, peers->sums_count, &peers->sums_capacity, sizeof *sums);
    if (sums == NULL) {
        return P4_E_SYSTEM;
    }
    peers->sums = sums;
    sums[peers->sums_count++] = *sum;
    return P4_OK;
}

p4_rc p4_peers_bcast(p4_peers *peers, const p4_peer_bcast *bcast)
{
    p4_peer_bcast *bcasts =
        p4_grow(peers->bcasts, peers->bcasts_count, &peers->bcasts_capacity, sizeof *bcasts);
    if (bcasts == NULL) {
        return P4_E_SYSTEM;
    }
    peers->bcasts = bcasts;
    bcasts[peers->bcasts_count++] = *bcast;
    return P4_OK;
}

int64_t p4_peers_noted(const p4_peers *peers)
{
    return peers->sums_count + peers->bcasts_count;
}

/* The sum that every rank makes in whole: the first that is short. -1: there is none. */
static int64_t short_sum(const p4_peers *peers)
{
    for (int64_t i = 0; i < peers->sums_count; i++) {
        const p4_peer_sum *sum = &peers->sums[i];
        if (sum->root < 0 && sum->squares == NULL && sum->count * (int64_t)sizeof(float) <= P4_SHORT_BYTES) {
            return i;
        }
    }
    return -1;
}

/* The terms of a short sum. What they are added to is still read by others. */
static cudaError_t fetch_short(p4_peers *peers, const p4_peer_sum *sum)
{
    cudaError_t error = cudaSuccess;
    char *to = (char *)peers->short_landing;
    for (int r = 0; r < peers->ranks && error == cudaSuccess; r++) {
        if (r != peers->rank) {
            error = fetch(peers, to, sum->from, sum->count * (int64_t)sizeof(float), r);
            to += P4_SHORT_BYTES;
        }
    }
    return error;
}

static cudaError_t add_short(p4_peers *peers, const p4_peer_sum *sum)
{
    const p4_landed landed = {.own = sum->from,
                              .landing = peers->short_landing,
                              .stride = P4_SHORT_BYTES / (int64_t)sizeof(float),
                              .count = sum->count,
                              .rank = peers->rank,
                              .ranks = peers->ranks};
    const p4_peer_squares none = {0};
    peers->queued++;
    return (cudaError_t)p4_peer_add(sum->to, &landed, &none, peers->queue);
}

/* Every rank sums its pieces, and fetches what needs no piece of others: all of it is complete. */
static cudaError_t queue_sums(p4_peers *peers)
{
    cudaError_t error = cudaSuccess;
    const int64_t whole = short_sum(peers);
    for (int64_t i = 0; i < peers->sums_count && error == cudaSuccess; i++) {
        const p4_peer_sum *sum = &peers->sums[i];
        error = i == whole ? fetch_short(peers, sum) : sum_piece(peers, sum);
    }
    return error;
}

static cudaError_t fetch_sums(p4_peers *peers)
{
    cudaError_t error = cudaSuccess;
    const int64_t whole = short_sum(peers);
    for (int64_t i = 0; i < peers->sums_count && error == cudaSuccess; i++) {
        const p4_peer_sum *sum = &peers->sums[i];
        if (i == whole) {
            error = add_short(peers, sum);
        } else if (sum->root < 0 || sum->root == peers->rank) {
            error = fetch_pieces(peers, sum);
        }
    }
    return error;
}

static cudaError_t fetch_bcasts(p4_peers *peers)
{
    cudaError_t error = cudaSuccess;
    for (int step = 1; step < peers->ranks; step++) {
        for (int64_t i = 0; i < peers->bcasts_count && error == cudaSuccess; i++) {
            const p4_peer_bcast *b = &peers->bcasts[i];
            if (b->root == rank_after(peers, step) && b->bytes > 0) {
                error = fetch(peers, b->data, b->data, b->bytes, b->root);
            }
        }
    }
    return error;
}

p4_rc p4_peers_queue(p4_peers *peers)
{
    const bool pieces = peers->sums_count > (short_sum(peers) >= 0 ? 1 : 0);
    cudaError_t error = meet(peers);
    error = error == cudaSuccess ? queue_sums(peers) : error;
    error = error == cudaSuccess ? fetch_bcasts(peers) : error;
    error = error == cudaSuccess ? meet(peers) : error;
    error = error == cudaSuccess ? fetch_sums(peers) : error;
    error = error == cudaSuccess && pieces ? meet(peers) : error;
    peers->sums_count = peers->bcasts_count = 0;
    return p4_peers_rc(error, "sums and broadcasts");
}

int64_t p4_peers_queued(const p4_peers *peers)
{
    return peers->queued;
}
