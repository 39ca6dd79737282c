#include "src/leaf/stop.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

static volatile sig_atomic_t arrived, interrupts;
static const char *notice;            /* set before the handler is */
static const char *_Atomic requested; /* by p4_stop_request; NULL: not */

static void remember(int number)
{
    if (number == SIGINT && ++interrupts > 1) { /* async-signal-safe: the default action ends the process */
        signal(SIGINT, SIG_DFL);
        raise(SIGINT);
    }
    if (arrived == 0) {
        int before = errno;
        arrived = number;
        if (notice != NULL && write(STDERR_FILENO, notice, strlen(notice)) < 0) {
            /* nobody reads it */
        }
        errno = before;
    }
}

void p4_stop_catch_signals(const char *opt_notice)
{
    notice = opt_notice;
    struct sigaction action = {.sa_handler = remember, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGUSR1, &action, NULL);
    sigaction(SIGINT, &action, NULL);
}

void p4_stop_request(const char *reason)
{
    atomic_store(&requested, reason);
}

const char *p4_stop_signal(void)
{
    switch (arrived) {
    case 0:
        return atomic_load(&requested);
    case SIGTERM:
        return "SIGTERM";
    case SIGUSR1:
        return "SIGUSR1";
    default:
        return "SIGINT";
    }
}
