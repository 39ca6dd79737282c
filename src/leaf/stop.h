/* stop.h - signals that ask this process to save its work and end. The only state of the process beside the
 * error text and the log level: a signal handler has nothing else to write to. */
#ifndef P4_STOP_SIGNAL_H
#define P4_STOP_SIGNAL_H

/* From here on SIGTERM, SIGUSR1 and SIGINT are remembered instead of ending the process. A second SIGINT ends
 * it at once. opt_notice: a constant that goes to standard error when the first of them arrives: work may go
 * on for a while. For programs: a library leaves the signals of its host alone. Local. */
void p4_stop_catch_signals(const char *opt_notice);
/* As if a signal had arrived, for a process that another one tells to stop; reason: a constant such as
 * "SIGTERM". From any thread. Local. */
void p4_stop_request(const char *reason);
/* The name of the first signal that arrived, "SIGTERM", or else the reason that was given; NULL: neither has.
 * Local. */
const char *p4_stop_signal(void);

#endif
