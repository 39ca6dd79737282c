/* Work beside the caller's: it goes on meanwhile, and its result and message come back; signals stay the
 * caller's. */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

#include "check.h"
#include "src/leaf/background.h"

typedef struct world {
    atomic_bool may_end;
    atomic_int calls;
    bool fails;
    sigset_t blocked; /* on its thread */
} world;

static p4_rc work(void *user)
{
    world *w = user;
    while (!atomic_load(&w->may_end)) {
    }
    pthread_sigmask(SIG_SETMASK, NULL, &w->blocked);
    atomic_fetch_add(&w->calls, 1);
    return w->fails ? FAIL("the work failed") : P4_OK;
}

int main(void)
{
    p4_background *background = NULL;
    world w = {0};
    EXPECT(!p4_background_works(NULL), "nothing works");
    EXPECT_OK(p4_background_end(NULL));
    EXPECT_OK(p4_background_start(&background, work, &w));
    EXPECT(p4_background_works(background), "it waits for may_end");
    atomic_store(&w.may_end, true);
    EXPECT_OK(p4_background_end(background));
    EXPECT(w.calls == 1, "%d calls", w.calls);
    sigset_t here;
    pthread_sigmask(SIG_SETMASK, NULL, &here);
    EXPECT(sigismember(&w.blocked, SIGTERM) == 1 && sigismember(&w.blocked, SIGUSR1) == 1,
           "it takes signals");
    EXPECT(sigismember(&here, SIGTERM) == 0 && sigismember(&here, SIGUSR1) == 0, "the caller takes none");
    w.fails = true;
    EXPECT_OK(p4_background_start(&background, work, &w));
    while (p4_background_works(background)) {
    }
    EXPECT(p4_last_error()[0] == '\0', "the message is of another thread until the end: %s", p4_last_error());
    EXPECT_REFUSED(p4_background_end(background), "the work failed");
    EXPECT(w.calls == 2, "%d calls", w.calls);
    return TEST_END();
}
