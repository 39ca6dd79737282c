/* Work on several threads: every item once, the ordered part in order, the lowest failure and its message. */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "src/leaf/parallel.h"

enum { ITEMS = 500 };

typedef struct world {
    atomic_int begun[ITEMS];
    atomic_int holders[2 * ITEMS]; /* of each buffer */
    int64_t written[ITEMS], written_count;
    int64_t fail_work, fail_order; /* -1: none */
    bool ordered;
    atomic_int most_buffer, shared_buffers;
} world;

static p4_rc work(void *user, int64_t item, int buffer)
{
    world *w = user;
    atomic_fetch_add(&w->begun[item], 1);
    atomic_fetch_add(&w->shared_buffers, atomic_fetch_add(&w->holders[buffer], 1));
    if (buffer > atomic_load(&w->most_buffer)) {
        atomic_store(&w->most_buffer, buffer);
    }
    for (volatile int64_t i = 0; i < (item * 7919) % 4000; i++) { /* items of different length */
    }
    if (!w->ordered) {
        atomic_fetch_sub(&w->holders[buffer], 1);
    }
    return w->fail_work >= 0 && item >= w->fail_work ? FAIL("work %lld failed", (long long)item) : P4_OK;
}

static p4_rc in_order(void *user, int64_t item, int buffer)
{
    world *w = user;
    atomic_fetch_sub(&w->holders[buffer], 1);
    w->written[w->written_count++] = item;
    return item == w->fail_order ? FAULT("order %lld failed", (long long)item) : P4_OK;
}

static void check_run(int threads, bool ordered, int64_t fail_work, int64_t fail_order)
{
    static world w;
    memset(&w, 0, sizeof w);
    w.ordered = ordered;
    w.fail_work = fail_work;
    w.fail_order = fail_order;
    p4_error_clear();
    p4_rc rc = p4_parallel(threads, ITEMS, work, ordered ? in_order : NULL, &w);
    EXPECT(w.most_buffer < p4_parallel_buffers(threads, ITEMS, ordered), "%d threads: buffer %d", threads,
           (int)w.most_buffer);
    int64_t lowest = fail_order >= 0 && (fail_work < 0 || fail_order < fail_work) ? fail_order : fail_work;
    bool in_work = lowest == fail_work;
    int wrong = 0;
    EXPECT(w.shared_buffers == 0, "%d threads: a buffer was taken twice", threads);
    for (int64_t i = 0; i < (lowest < 0 ? ITEMS : lowest + 1); i++) {
        wrong += w.begun[i] != 1;
    }
    EXPECT(wrong == 0, "%d threads: %d items did not begin once", threads, wrong);
    for (int64_t i = 0; i < w.written_count; i++) {
        EXPECT(w.written[i] == i, "%d threads: item %lld is written as number %lld", threads,
               (long long)w.written[i], (long long)i);
    }
    if (lowest < 0) {
        EXPECT(rc == P4_OK && (!ordered || w.written_count == ITEMS), "%d threads: rc %d", threads, (int)rc);
        return;
    }
    char message[64];
    snprintf(message, sizeof message, "%s %lld failed", in_work ? "work" : "order", (long long)lowest);
    EXPECT(rc == (in_work ? P4_E_INPUT : P4_E_SYSTEM) && strcmp(p4_last_error(), message) == 0,
           "%d threads: rc %d and \"%s\", expected \"%s\"", threads, (int)rc, p4_last_error(), message);
    EXPECT(!ordered || w.written_count == lowest + !in_work, "%d threads: %lld written", threads,
           (long long)w.written_count);
}

int main(void)
{
    const int threads[] = {1, 2, 3, 8};
    for (size_t i = 0; i < sizeof threads / sizeof threads[0]; i++) {
        check_run(threads[i], false, -1, -1);
        check_run(threads[i], true, -1, -1);
        check_run(threads[i], false, 123, -1);
        check_run(threads[i], true, 123, -1);
        check_run(threads[i], true, -1, 77);
        check_run(threads[i], true, 80, 77);
        check_run(threads[i], true, 77, 80);
    }
    p4_error_clear();
    EXPECT_OK(p4_parallel(4, 0, work, NULL, NULL));
    return TEST_END();
}
