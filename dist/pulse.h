/* pulse.h - whether the processes of other ranks run.
 *
 * MPI cannot tell a rank that computes for an hour from one that is stopped (SIGSTOP, a frozen node): neither
 * calls it. So every process has a thread that answers UDP packets, whatever the other threads do. A rank
 * that waits asks; who answers lives. A packet carries a key of the job, and everything else is ignored. The
 * packets go to all IPv4 addresses of the other's host, and to the loopback address on the same host. */
#ifndef P4_PULSE_H
#define P4_PULSE_H

#include "src/leaf/base.h"

enum { P4_PULSE_ADDRESSES = 8 };

/* Where the thread of a rank listens: exchanged between the ranks as bytes. */
typedef struct p4_pulse_address {
    uint64_t key; /* rank 0's is the job's */
    char host[64];
    uint32_t ip[P4_PULSE_ADDRESSES]; /* in network order */
    int32_t ip_count;
    int32_t port; /* in network order; 0: there is no thread */
} p4_pulse_address;

typedef struct p4_pulse p4_pulse;

/* Starts the thread of this rank and says where it listens. Where a socket or a thread cannot be had,
 * mine->port is 0, and nobody watches this rank. P4_E_SYSTEM: out of memory. The caller closes. Local. */
p4_rc p4_pulse_open(p4_pulse **pulse, p4_pulse_address *mine, const char *host, int rank, int ranks);
/* all [ranks]: what p4_pulse_open gave on each rank. When every rank has called this, asks each of them;
 * returns the lowest one that did not answer in time, or -1. That rank is not watched from here. Local. */
void p4_pulse_connect(p4_pulse *pulse, const p4_pulse_address *all);
int p4_pulse_try(p4_pulse *pulse);
void p4_pulse_close(p4_pulse *pulse); /* NULL is fine. Local. */

/* A wait begins: no rank has been silent in it. Local. */
void p4_pulse_begin(p4_pulse *pulse);
/* seconds of the wait have passed since the last call: takes the answers of the watched ones of these ranks,
 * and asks them again. Local. */
void p4_pulse_ask(p4_pulse *pulse, const int *ranks, int count, double seconds);
/* For how many seconds of the wait a rank has not answered; 0: it is not watched. Local. */
double p4_pulse_silent_s(const p4_pulse *pulse, int rank);
const char *p4_pulse_host(const p4_pulse *pulse, int rank);

#endif
