/* Every operation of coll.h against what it must give, for every backend that this build and this machine
 * have: "mpi" over the CPU's memory, "nccl" over one GPU a rank: skipped with fewer GPUs than ranks; with
 * none it fails if P4_NEED_GPU is set.
 *
 *   mpi_coll               the checks of both
 *   mpi_coll only BACKEND  of one; the exit status is 77 where it is skipped
 *   mpi_coll lost BACKEND sum|reach|agreement
 *                          the last rank does not come to it: the job must be aborted after two seconds
 * (job_lost_rank.sh) */
#include <stdlib.h>
#include <unistd.h>

#include "check.h"
#include "dist/coll.h"
#include "kernels/ops.h"

enum { OPEN_S = 120, LOST_S = 2, SKIPPED = 77, BIG = (1 << 20) + 3 };

typedef struct world {
    p4_machine machine;
    p4_group group;
    p4_coll coll;
    const p4_ops *ops;
    p4_device *device;
    float *memory[2]; /* device [BIG] */
    float *h;         /* host [BIG] */
    bool copies;      /* the memory is shared, and copy engines reach it */
} world;

static void put(world *w, float *to, const float *h_from, int64_t count)
{
    w->ops->to_device(w->device, to, h_from, count * 4);
}

/* What the device's queue sees in `from` now, in w->h. */
static const float *get(world *w, const float *from, int64_t count)
{
    w->coll.synchronize(&w->coll, "test of the collectives");
    w->ops->to_host(w->device, w->h, from, count * 4);
    return w->h;
}

/* to[i] = i mod 1000 + add: sums over a few ranks are exact in fp32. */
static void fill(world *w, float *to, int64_t count, int add)
{
    for (int64_t i = 0; i < count; i++) {
        w->h[i] = (float)(i % 1000 + add);
    }
    put(w, to, w->h, count);
}

/* got[i] = factor * (i mod 1000) + add everywhere. */
static void expect_line(const float *got, int64_t count, int factor, int add, const char *what)
{
    int64_t wrong = 0, first = -1;
    for (int64_t i = 0; i < count; i++) {
        if (got[i] != (float)(factor * (i % 1000) + add)) {
            first = first < 0 ? i : first;
            wrong++;
        }
    }
    EXPECT(wrong == 0, "%s: %lld of %lld wrong, the first at %lld: %g", what, (long long)wrong,
           (long long)count, (long long)first, first >= 0 ? (double)got[first] : 0.0);
}

/* 0 + 1 + ... + (ranks - 1) */
static int all_ranks(const world *w)
{
    return w->group.ranks * (w->group.ranks - 1) / 2;
}

static void check_sum(world *w, int64_t count)
{
    fill(w, w->memory[0], count, w->group.rank);
    w->coll.sum_f32(&w->coll, w->memory[0], count);
    p4_coll_join(&w->coll);
    expect_line(get(w, w->memory[0], count), count, w->group.ranks, all_ranks(w), "sum");
}

/* The squares of all ranks' shares, which add up to those of the sum. Twice, as they are added to what is
 * there.
 */
static void check_squares(world *w, int64_t count)
{
    double *squares = (double *)(void *)w->memory[1], h_squares[2] = {0.5, 0}, want = 0;
    for (int64_t i = 0; i < count; i++) {
        double sum = w->group.ranks * (double)(i % 1000) + all_ranks(w);
        want += sum * sum;
    }
    w->ops->to_device(w->device, squares, h_squares, sizeof *squares);
    for (int turn = 0; turn < 2; turn++) {
        fill(w, w->memory[0], count, w->group.rank);
        bool does = w->coll.sum_and_square_f32(&w->coll, w->memory[0], count, squares);
        EXPECT(does == w->copies, "sums with squares: %s", does ? "done" : "refused");
        if (!does) {
            return;
        }
        p4_coll_join(&w->coll);
        expect_line(get(w, w->memory[0], count), count, w->group.ranks, all_ranks(w), "sum with squares");
    }
    w->ops->to_host(w->device, h_squares, squares, sizeof *squares);
    h_squares[0] -= 0.5;
    p4_group_sum_f64(&w->group, h_squares, 1);
    EXPECT_NEAR(h_squares[0], 2 * want, 1e-12 * want);
}

/* What the host has waited for is there, whatever else the queue holds. */
static void check_reach(world *w, int64_t count)
{
    for (int i = 0; i < 2; i++) {
        fill(w, w->memory[i], count, w->group.rank + i);
    }
    w->coll.sum_f32(&w->coll, w->memory[0], count);
    int64_t first = w->coll.mark(&w->coll);
    w->coll.sum_f32(&w->coll, w->memory[1], count);
    w->coll.wait_for(&w->coll, first, "test of the first sum");
    w->ops->to_host(w->device, w->h, w->memory[0], count * 4);
    EXPECT_OK(w->ops->sync(w->device));
    expect_line(w->h, count, w->group.ranks, all_ranks(w), "the sum that was waited for");
    p4_coll_join(&w->coll);
    expect_line(get(w, w->memory[1], count), count, w->group.ranks, all_ranks(w) + w->group.ranks,
                "the sum behind it");
}

static void check_reduce(world *w, int64_t count)
{
    for (int root = 0; root < w->group.ranks; root++) {
        for (int other = 0; other < 2;
             other++) { /* in place, and to another array, which keeps what it has elsewhere */
            bool here = w->group.rank == root;
            fill(w, w->memory[1], count, -5);
            fill(w, w->memory[0], count, w->group.rank);
            w->coll.reduce_f32(&w->coll, w->memory[other], w->memory[0], count, root);
            p4_coll_join(&w->coll);
            if (here) {
                expect_line(get(w, w->memory[other], count), count, w->group.ranks, all_ranks(w), "reduce");
            } else {
                expect_line(get(w, w->memory[1], count), count, 1, -5, "another rank's target");
            }
        }
    }
}

static void check_bcast(world *w, int64_t count)
{
    for (int root = 0; root < w->group.ranks; root++) {
        fill(w, w->memory[0], count, w->group.rank);
        int64_t copied = w->coll.copied;
        w->coll.bcast(&w->coll, w->memory[0], count * 4 - 1,
                      root); /* an odd count; the last element is not looked at */
        p4_coll_join(&w->coll);
        EXPECT(w->coll.copied == copied + (w->copies ? 1 : 0), "a broadcast goes another way");
        expect_line(get(w, w->memory[0], count - 1), count - 1, 1, root, "broadcast");
    }
}

/* Alone and in a group with a sum; rows of a length that is no multiple of a word. */
static void check_all_gather(world *w)
{
    enum { COUNT = 37 };
    int ranks = w->group.ranks;
    for (int grouped = 0; grouped < 2; grouped++) {
        fill(w, w->memory[0], (ranks + 1) * COUNT, w->group.rank);
        int64_t copied = w->coll.copied;
        if (grouped) {
            w->coll.begin(&w->coll);
            w->coll.sum_f32(&w->coll, w->memory[0] + ranks * COUNT, COUNT);
        }
        w->coll.all_gather(&w->coll, w->memory[0], COUNT * 4);
        if (grouped) {
            w->coll.end(&w->coll);
        }
        p4_coll_join(&w->coll);
        EXPECT(w->coll.copied == copied + (w->copies ? ranks + grouped : 0), "a gather goes another way");
        const float *got = get(w, w->memory[0], (ranks + 1) * COUNT);
        for (int i = 0; i < (ranks + 1) * COUNT; i++) {
            bool sum = grouped && i / COUNT == ranks;
            double row = i / COUNT < ranks ? i / COUNT : w->group.rank;
            EXPECT_NEAR(got[i], sum ? ranks * (i % 1000) + all_ranks(w) : i % 1000 + row, 0);
        }
    }
}

/* Sums, reductions and broadcasts of small pieces as one launch. */
static void check_group(world *w)
{
    enum { PIECES = 100, COUNT = 37 };
    fill(w, w->memory[0], PIECES * COUNT, w->group.rank);
    w->coll.begin(&w->coll);
    for (int i = 0; i < PIECES; i++) {
        float *piece = w->memory[0] + i * COUNT;
        int root = i % w->group.ranks;
        if (i % 3 == 0) {
            w->coll.sum_f32(&w->coll, piece, COUNT);
        } else if (i % 3 == 1) {
            w->coll.reduce_f32(&w->coll, piece, piece, COUNT, root);
        } else {
            w->coll.bcast(&w->coll, piece, COUNT * 4, root);
        }
    }
    w->coll.end(&w->coll);
    p4_coll_join(&w->coll);
    const float *got = get(w, w->memory[0], PIECES * COUNT);
    for (int i = 0; i < PIECES; i++) {
        int root = i % w->group.ranks, at = i * COUNT, ranks = w->group.ranks;
        bool sum = i % 3 == 0 || (i % 3 == 1 && root == w->group.rank);
        for (int j = at; j < at + COUNT && (sum || i % 3 == 2); j++) {
            EXPECT_NEAR(got[j], sum ? ranks * (j % 1000) + all_ranks(w) : j % 1000 + root, 0);
        }
    }
    w->coll.begin(&w->coll); /* nothing in it */
    w->coll.end(&w->coll);
}

/* Operations and the device's work take turns: each sees what came before, by marks alone. More launches than
 * marks are kept. */
static void check_order(world *w)
{
    enum { COUNT = 1 << 16, TURNS = 150 };
    int64_t marks[TURNS];
    float *a = w->memory[0], *b = w->memory[1];
    w->ops->zero(w->device, b, COUNT * 4);
    for (int turn = 0; turn < TURNS; turn++) {
        fill(w, a, COUNT, w->group.rank + turn);
        w->coll.sum_f32(&w->coll, a, COUNT);
        marks[turn] = w->coll.mark(&w->coll);
        w->coll.order_after(&w->coll, marks[turn]); /* the next fill must not come before the sum */
        if (turn % 50 == 0) {
            w->coll.order_after(&w->coll, marks[0]); /* long done */
            w->ops->add_f32(w->device, b, a, COUNT);
        }
    }
    expect_line(get(w, a, COUNT), COUNT, w->group.ranks, all_ranks(w) + (TURNS - 1) * w->group.ranks,
                "last sum");
    expect_line(get(w, b, COUNT), COUNT, 3 * w->group.ranks, 3 * all_ranks(w) + 150 * w->group.ranks,
                "sums in between");
}

/* As the pipeline of evaluate: hidden states go from rank to rank, each adds to them; two buffers in turn. */
static void check_chain(world *w)
{
    enum { COUNT = 100003, MESSAGES = 7 };
    float *one = w->memory[0] + 2 * COUNT;
    p4_request sending[2] = {{0}, {0}};
    int rank = w->group.rank, last = w->group.ranks - 1;
    for (int64_t i = 0; i < COUNT; i++) {
        w->h[i] = 1.0f;
    }
    put(w, one, w->h, COUNT);
    for (int m = 0; m < MESSAGES; m++) {
        float *x = w->memory[0] + m % 2 * COUNT;
        w->coll.wait(&w->coll, &sending[m % 2]);
        if (rank == 0) {
            fill(w, x, COUNT, m);
        } else {
            w->coll.recv(&w->coll, x, COUNT * 4, rank - 1);
            p4_coll_join(&w->coll);
        }
        w->ops->add_f32(w->device, x, one, COUNT);
        if (rank < last) {
            sending[m % 2] = w->coll.isend(&w->coll, x, COUNT * 4, rank + 1);
        } else {
            expect_line(get(w, x, COUNT), COUNT, 1, m + w->group.ranks, "message");
        }
    }
    w->coll.wait(&w->coll, &sending[0]);
    w->coll.wait(&w->coll, &sending[1]);
    EXPECT(sending[0].handle == NULL && sending[1].handle == NULL, "a finished request keeps its handle");
    w->coll.synchronize(&w->coll, "test of the chain");
}

/* Every rank to the next at the same time. */
static void check_ring(world *w)
{
    enum { COUNT = 1 << 18 };
    int ranks = w->group.ranks, next = (w->group.rank + 1) % ranks,
        previous = (w->group.rank + ranks - 1) % ranks;
    fill(w, w->memory[0], COUNT, w->group.rank);
    w->coll.begin(&w->coll);
    p4_request sending = w->coll.isend(&w->coll, w->memory[0], COUNT * 4, next);
    w->coll.recv(&w->coll, w->memory[1], COUNT * 4, previous);
    w->coll.end(&w->coll);
    w->coll.wait(&w->coll, &sending);
    p4_coll_join(&w->coll);
    expect_line(get(w, w->memory[1], COUNT), COUNT, 1, previous, "ring");
}

static p4_rc open_device(world *w)
{
    p4_rc rc = P4_OK;
    TRY(w->ops->open(&w->device, w->ops->host_memory ? 0 : w->group.local_rank, 1, false));
    for (int i = 0; i < 2; i++) {
        TRY(w->ops->alloc(w->device, (void **)&w->memory[i], BIG * 4));
    }
    w->h = p4_alloc(BIG, sizeof *w->h);
    rc = w->h != NULL ? P4_OK : P4_E_SYSTEM;
done:
    return rc;
}

static void close_world(world *w)
{
    for (int i = 0; i < 2 && w->coll.withdraw != NULL; i++) {
        w->coll.withdraw(&w->coll, w->memory[i]);
    }
    p4_coll_close(&w->coll);
    for (int i = 0; i < 2; i++) {
        if (w->memory[i] != NULL) {
            w->ops->release(w->device, w->memory[i]);
        }
    }
    if (w->device != NULL) {
        w->ops->close(w->device);
    }
    free(w->h);
    w->memory[0] = w->memory[1] = w->h = NULL;
    w->device = NULL;
}

/* Opens the backend on its devices, with `memory` shared or not; false on every rank where they are not all
 * there, with the reason as the last error. */
static bool open_world(world *w, const char *name, bool shared)
{
    p4_rc rc = P4_OK;
    bool host = strcmp(name, "mpi") == 0;
    w->ops = p4_ops_find(host ? "cpu" : "cuda");
    TRY(w->ops != NULL && p4_coll_known(name) ? P4_OK : FAULT("not in this build"));
    TRY_ALL(&w->group, open_device(w));
    TRY(p4_coll_open(&w->coll, &w->group, name, w->ops->stream(w->device), w->group.local_rank));
    for (int i = 0; i < 2 && shared; i++) {
        TRY(w->coll.share(&w->coll, w->memory[i], BIG * 4));
    }
done:
    if (rc != P4_OK) {
        close_world(w);
    }
    return rc == P4_OK;
}

/* Is it no failure that the backend cannot be opened? The last error stays. */
static bool may_be_skipped(world *w, const char *name)
{
    p4_device_info gpus[16];
    int count = 0;
    bool nccl = strcmp(name, "nccl") == 0;
    if (!nccl || getenv("P4_NEED_GPU") == NULL) {
        return nccl;
    }
    return w->ops != NULL && w->ops->list(gpus, 16, &count) == P4_OK && count < w->group.local_ranks;
}

/* false: it is skipped. */
static bool check_backend(world *w, const char *name)
{
    static const int64_t counts[] = {1, 1001, BIG};
    if (!open_world(w, name, false)) {
        bool skipped = may_be_skipped(w, name);
        EXPECT(skipped, "%s: %s", name, p4_last_error());
        if (w->group.rank == 0) {
            printf("%s is skipped: %s\n", name, p4_last_error());
        }
        p4_error_clear();
        return !skipped;
    }
    for (int shared = 0; shared < 2;
         shared++) { /* opened again, as by a session that compresses two models */
        if (shared == 1 && !open_world(w, name, true)) {
            EXPECT(false, "%s: %s", name, p4_last_error());
            return true;
        }
        w->copies = shared == 1 && strstr(w->coll.name, "copy engines") != NULL;
        for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
            check_sum(w, counts[i]);
            check_squares(w, counts[i]);
            check_reach(w, counts[i]);
            check_reduce(w, counts[i]);
            check_bcast(w, counts[i]);
        }
        check_all_gather(w);
        check_group(w);
        check_order(w);
        check_chain(w);
        if (w->group.ranks > 1) {
            check_ring(w);
        }
        EXPECT_OK(w->ops->sync(w->device));
        EXPECT(w->copies == (w->coll.copied > 0), "%s: %lld operations by copy engines", w->coll.name,
               (long long)w->coll.copied);
        close_world(w);
    }
    return true;
}

/* Does not return with 0: what the last rank does not come to ends the job. */
static int lose_a_rank(world *w, const char *name, const char *what)
{
    if (!open_world(w, name, true)) {
        bool skipped = may_be_skipped(w, name);
        fprintf(stderr, "%s is %s: %s\n", name, skipped ? "skipped" : "not to be had", p4_last_error());
        p4_group_close(&w->group);
        p4_machine_close(&w->machine);
        return skipped ? SKIPPED : 1;
    }
    check_sum(w, 1001); /* the connections are there */
    w->group.timeout_s = LOST_S;
    while (w->group.rank == w->group.ranks - 1) {
        pause();
    }
    if (strcmp(what, "agreement") == 0) {
        (void)p4_agree_soon(&w->group, P4_OK);
    } else if (strcmp(what, "reach") == 0) {
        check_reach(w, 1001);
    } else {
        check_sum(w, 1001);
    }
    return 0;
}

int main(int argc, char **argv)
{
    static world w;
    EXPECT_OK(p4_machine_open(&w.machine));
    EXPECT_OK(p4_group_open(&w.group, &w.machine, NULL, OPEN_S));
    if (argc == 4 && strcmp(argv[1], "lost") == 0) {
        return lose_a_rank(&w, argv[2], argv[3]);
    }
    bool one = argc == 3 && strcmp(argv[1], "only") == 0, done = false;
    for (int i = 0; i < 2; i++) {
        static const char *const names[] = {"mpi", "nccl"};
        if (!one || strcmp(argv[2], names[i]) == 0) {
            done = check_backend(&w, names[i]) || done;
        }
    }
    EXPECT_OK(p4_coll_usable("mpi"));
    EXPECT_REFUSED(p4_coll_usable("carrier pigeon"), "no collectives \"carrier pigeon\"");
    EXPECT_REFUSED(p4_coll_open(&w.coll, &w.group, "carrier pigeon", NULL, 0),
                   "no collectives \"carrier pigeon\"");
    p4_coll_close(&w.coll); /* of one that is not open */
    double failed = check_failed;
    p4_group_sum_f64(&w.group, &failed, 1);
    p4_group_close(&w.group);
    p4_machine_close(&w.machine);
    check_failed = (int)failed;
    return done || check_failed > 0 ? TEST_END() : SKIPPED;
}
