/* stop.h - signals that ask this process to save its work and end. The only state of the process beside the
 * error text and the log level: a signal handler has nothing else to write to. */
#ifndef P4_STOP_SIGNAL_H
#define P4_STOP_SIGNAL_H

/* What standard error gets when the first signal arrives, because work may go on for a while: "stopping: ",
 * the signal's name, ": " and a text. Constants. */
typedef struct p4_stop_notice {
    const char *interrupt; /* for SIGINT */
    const char *other;     /* for the other signals */
} p4_stop_notice;

/* From here on SIGTERM, SIGUSR1 and SIGINT are remembered instead of ending the process. A second SIGINT ends
 * it at once. opt_notice: a constant; NULL: nothing is said. For programs: a library leaves the signals of
 * its host alone. Local. */
void p4_stop_catch_signals(const p4_stop_notice *opt_notice);
/* From here on a signal says nothing: the run is already ending for another reason, which it names. Local. */
void p4_stop_drop_notice(void);
/* As if a signal had arrived, for a process that another one tells to stop; reason: a constant such as
 * "SIGTERM". From any thread. Local. */
void p4_stop_request(const char *reason);
/* The name of the first signal that arrived, "SIGTERM", or else the reason that was given; NULL: neither has.
 * Local. */
const char *p4_stop_signal(void);

#endif
