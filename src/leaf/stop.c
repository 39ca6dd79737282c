#include "src/leaf/stop.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <unistd.h>

static volatile sig_atomic_t arrived, interrupts;
static const p4_stop_notice *_Atomic notice; /* set before the handler is; NULL: nothing is said */
static const char *_Atomic requested;        /* by p4_stop_request; NULL: not */

static const char *signal_name(int number)
{
    return number == SIGTERM ? "SIGTERM" : number == SIGUSR1 ? "SIGUSR1" : "SIGINT";
}

/* In a signal handler: no stdio. One write, which others do not come between. */
static void say(int number, const p4_stop_notice *said)
{
    char line[320];
    size_t used = 0;
    const char *const parts[] = {"\nstopping: ", signal_name(number), ": ",
                                 number == SIGINT ? said->interrupt : said->other, "\n"};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        for (const char *at = parts[i]; *at != '\0' && used < sizeof line; at++) {
            line[used++] = *at;
        }
    }
    if (write(STDERR_FILENO, line, used) < 0) {
        /* nobody reads it */
    }
}

static void remember(int number)
{
    if (number == SIGINT && ++interrupts > 1) { /* async-signal-safe: the default action ends the process */
        signal(SIGINT, SIG_DFL);
        raise(SIGINT);
    }
    if (arrived == 0) {
        int before = errno;
        arrived = number;
        const p4_stop_notice *said = notice;
        if (said != NULL) {
            say(number, said);
        }
        errno = before;
    }
}

void p4_stop_catch_signals(const p4_stop_notice *opt_notice)
{
    notice = opt_notice;
    struct sigaction action = {.sa_handler = remember, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGUSR1, &action, NULL);
    sigaction(SIGINT, &action, NULL);
}

void p4_stop_drop_notice(void)
{
    notice = NULL;
}

void p4_stop_request(const char *reason)
{
    atomic_store(&requested, reason);
}

const char *p4_stop_signal(void)
{
    return arrived != 0 ? signal_name((int)arrived) : atomic_load(&requested);
}
