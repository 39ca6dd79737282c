#include "jobs/train/exact_sums.h"

enum { PIECE = 1 << 20, SMALL = 1 << 14, TAG = 9 }; /* elements of a message */

int64_t p4_exact_sums_bytes(const p4_compute *compute)
{
    return compute->group->ranks > 1 ? (int64_t)PIECE * (int64_t)sizeof(float) : 0;
}

p4_rc p4_exact_sums_open(p4_exact_sums *s, p4_compute *compute)
{
    int64_t bytes = p4_exact_sums_bytes(compute);
    *s = (p4_exact_sums){.compute = compute};
    return bytes > 0 ? compute->ops->alloc(compute->device, (void **)&s->piece, bytes) : P4_OK;
}

void p4_exact_sums_close(p4_exact_sums *s)
{
    if (s->piece != NULL) {
        s->compute->ops->release(s->compute->device, s->piece);
    }
    *s = (p4_exact_sums){0};
}

/* One message's worth. */
static void add_piece(p4_exact_sums *s, float *sum, const float *leaf, int64_t count, int givers, int root)
{
    p4_compute *c = s->compute;
    p4_group *group = c->group;
    int64_t bytes = count * (int64_t)sizeof *leaf;
    if (group->rank != root) {
        if (group->rank < givers) {
            p4_request sending = p4_group_isend(group, leaf, bytes, root, TAG);
            p4_group_wait(group, &sending);
        }
        return;
    }
    for (int rank = 0; rank < givers; rank++) {
        if (rank != root) {
            p4_group_recv(group, s->piece, bytes, rank, TAG);
        }
        c->ops->add_f32(c->device, sum, rank == root ? leaf : s->piece, count);
    }
}

void p4_exact_sums_add(p4_exact_sums *s, float *sum, const float *leaf, int64_t count, int givers, int root)
{
    bool gives = s->compute->group->rank < givers, sums = s->compute->group->rank == root;
    for (int64_t at = 0; at < count; at += PIECE) {
        add_piece(s, sums ? sum + at : NULL, gives ? leaf + at : NULL, p4_min_i64(PIECE, count - at), givers,
                  root);
    }
}

/* The elements of a share: a message at most, and no more messages than it takes to give every rank its share
 * of what is large. */
static int64_t share_count(const p4_group *group, int64_t count)
{
    return p4_max_i64(SMALL, p4_min_i64(PIECE, p4_ceil_div(count, group->ranks)));
}

void p4_exact_sums_add_shares(p4_exact_sums *s, float *sum, const float *leaf, int64_t count, int givers)
{
    const p4_group *group = s->compute->group;
    int64_t share = share_count(group, count);
    for (int64_t at = 0, i = 0; at < count; at += share, i++) {
        p4_exact_sums_add(s, sum + at, leaf + at, p4_min_i64(share, count - at), givers,
                          (int)(i % group->ranks));
    }
}

void p4_exact_sums_share(p4_exact_sums *s, float *sum, int64_t count)
{
    p4_group *group = s->compute->group;
    int64_t share = share_count(group, count);
    for (int64_t at = 0, i = 0; at < count && group->ranks > 1; at += share, i++) {
        p4_group_bcast(group, sum + at, p4_min_i64(share, count - at) * (int64_t)sizeof *sum,
                       (int)(i % group->ranks));
    }
}
