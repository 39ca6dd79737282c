#include "src/leaf/stop.h"

#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>

static volatile sig_atomic_t arrived, interrupts;
static const char *_Atomic requested; /* by p4_stop_request; NULL: not */

static void remember(int number)
{
    if (number == SIGINT && ++interrupts > 1) { /* async-signal-safe: the default action ends the process */
        signal(SIGINT, SIG_DFL);
        raise(SIGINT);
    }
    if (arrived == 0) {
        arrived = number;
    }
}

void p4_stop_catch_signals(void)
{
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
