#include "src/leaf/background.h"

#include <stdlib.h>

#include "src/leaf/thread.h"

struct p4_background {
    p4_rc (*work)(void *user);
    void *user;
    pthread_t thread;
    bool threaded;
    _Atomic bool done;
    p4_rc rc;
    char *message; /* heap; NULL: memory is out, or it succeeded */
};

static void *run(void *user)
{
    p4_background *b = user;
    b->rc = b->work(b->user);
    b->message = b->rc != P4_OK ? p4_strdup(p4_last_error()) : NULL;
    b->done = true;
    return NULL;
}

p4_rc p4_background_start(p4_background **background, p4_rc (*work)(void *user), void *user)
{
    p4_background *b = *background = p4_alloc(1, sizeof *b);
    if (b == NULL) {
        return P4_E_SYSTEM;
    }
    b->work = work;
    b->user = user;
    b->threaded = p4_thread_start(&b->thread, run, b) == 0;
    if (!b->threaded) {
        (void)run(b);
    }
    return P4_OK;
}

bool p4_background_works(const p4_background *b)
{
    return b != NULL && !b->done;
}

p4_rc p4_background_end(p4_background *b)
{
    if (b == NULL) {
        return P4_OK;
    }
    if (b->threaded) {
        pthread_join(b->thread, NULL);
    }
    p4_rc rc = b->rc;
    if (rc != P4_OK) {
        (void)p4_fail_lines(rc, b->message != NULL ? b->message : "out of memory");
    }
    free(b->message);
    free(b);
    return rc;
}
