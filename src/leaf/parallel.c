#include "src/leaf/parallel.h"

#include <pthread.h>
#include <stdlib.h>

typedef struct crew {
    pthread_mutex_t lock;
    pthread_cond_t turned;
    p4_piece work, in_order;
    void *user;
    int64_t count, next, turn; /* items; the next to begin; whose in_order comes next */
    int64_t failed;            /* the lowest item that failed; count: none */
    int buffers;
    bool *ready;   /* [buffers] worked on, in_order not begun */
    bool ordering; /* some thread runs in_order */
    p4_rc rc;
    char *message; /* of the item that failed, heap */
} crew;

typedef struct member {
    crew *crew;
    int worker;
    pthread_t thread;
} member;

/* Called with the lock held. The thread's message becomes the crew's when no lower item has failed. */
static void record(crew *c, int64_t item, p4_rc rc)
{
    if (rc != P4_OK && item < c->failed) {
        free(c->message);
        c->message = p4_strdup(p4_last_error());
        c->failed = item;
        c->rc = rc;
        pthread_cond_broadcast(&c->turned);
    }
}

/* Called with the lock held: in_order of every item that is due. A thread that finds another one at it leaves
 * its item to that thread, so nobody waits for a wake-up between two items. */
static void take_turns(crew *c)
{
    if (c->ordering) {
        return;
    }
    c->ordering = true;
    while (c->turn < c->next && c->turn < c->failed && c->ready[c->turn % c->buffers]) {
        int64_t item = c->turn;
        pthread_mutex_unlock(&c->lock);
        p4_rc rc = c->in_order(c->user, item, (int)(item % c->buffers));
        pthread_mutex_lock(&c->lock);
        c->ready[item % c->buffers] = false;
        c->turn += rc == P4_OK;
        record(c, item, rc);
        pthread_cond_broadcast(&c->turned);
    }
    c->ordering = false;
}

static void *run_items(void *argument)
{
    const member *m = argument;
    crew *c = m->crew;
    bool ordered = c->in_order != NULL;
    pthread_mutex_lock(&c->lock);
    while (c->next < c->count && c->failed == c->count) {
        if (ordered && c->next >= c->turn + c->buffers) { /* every buffer is taken */
            pthread_cond_wait(&c->turned, &c->lock);
            continue;
        }
        int64_t item = c->next++;
        int buffer = ordered ? (int)(item % c->buffers) : m->worker;
        pthread_mutex_unlock(&c->lock);
        p4_rc rc = c->work(c->user, item, buffer);
        pthread_mutex_lock(&c->lock);
        record(c, item, rc);
        if (rc == P4_OK && ordered) {
            c->ready[buffer] = true;
            take_turns(c);
        }
    }
    pthread_mutex_unlock(&c->lock);
    return NULL;
}

static int crew_size(int threads, int64_t count)
{
    return (int)p4_max_i64(1, p4_min_i64(threads, count));
}

int p4_parallel_buffers(int threads, int64_t count, bool with_order)
{
    return with_order ? 2 * crew_size(threads, count) : crew_size(threads, count);
}

p4_rc p4_parallel(int threads, int64_t count, p4_piece work, p4_piece in_order, void *user)
{
    crew c = {.work = work, .in_order = in_order, .user = user, .count = count, .failed = count, .rc = P4_OK};
    int wanted = crew_size(threads, count), started = 1;
    c.buffers = p4_parallel_buffers(threads, count, in_order != NULL);
    member *members = p4_alloc((size_t)wanted, sizeof *members);
    c.ready = p4_alloc((size_t)c.buffers, sizeof *c.ready);
    if (members == NULL || c.ready == NULL) {
        free(members);
        free(c.ready);
        return P4_E_SYSTEM;
    }
    pthread_mutex_init(&c.lock, NULL);
    pthread_cond_init(&c.turned, NULL);
    members[0] = (member){.crew = &c};
    for (; started < wanted; started++) {
        members[started] = (member){.crew = &c, .worker = started};
        if (pthread_create(&members[started].thread, NULL, run_items, &members[started]) != 0) {
            break;
        }
    }
    run_items(&members[0]);
    for (int i = 1; i < started; i++) {
        pthread_join(members[i].thread, NULL);
    }
    if (c.rc != P4_OK && c.message != NULL) {
        p4_error_set(c.message);
    }
    free(c.message);
    pthread_cond_destroy(&c.turned);
    pthread_mutex_destroy(&c.lock);
    free(c.ready);
    free(members);
    return c.rc;
}
