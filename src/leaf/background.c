#include "src/leaf/background.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

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
    sigset_t all, before;
    p4_background *b = *background = p4_alloc(1, sizeof *b);
    if (b == NULL) {
        return P4_E_SYSTEM;
    }
    b->work = work;
    b->user = user;
    sigfillset(&all); /* signals are for the caller's thread */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    b->threaded = pthread_create(&b->thread, NULL, run, b) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
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
