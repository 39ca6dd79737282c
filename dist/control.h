/* control.h - short messages between a coordinator, a thread of rank 0, and the main threads of all ranks,
 * rank 0's among them. They go over TCP and not through MPI, so that the coordinator answers while rank 0
 * computes, and a rank that waits for a message sleeps in the system.
 *
 * A message is a block of bytes, delivered whole and in order. Rank 0 listens on a port that the system
 * chooses; who connects must know a random key of the job. */
#ifndef P4_CONTROL_H
#define P4_CONTROL_H

#include "dist/machine.h"

enum { P4_CONTROL_MESSAGE_MAX = 64 << 20 }; /* bytes */

typedef struct p4_control p4_control;

/* Connects every rank with rank 0. P4_E_SYSTEM, on all ranks: one of them finds no way to rank 0's host. The
 * caller closes. Collective over the machine. */
p4_rc p4_control_open(p4_control **control, p4_machine *machine);
void p4_control_close(p4_control *control); /* NULL is fine. Local. */

/* To the coordinator, from any thread of this rank. Local. */
p4_rc p4_control_send(p4_control *control, const void *data, int64_t bytes);
/* The next message from the coordinator, heap, which the caller frees; *data is NULL if none came within so
 * many seconds. P4_E_SYSTEM: the connection has ended. One thread at a time. Local. */
p4_rc p4_control_receive(p4_control *control, double seconds, void **data, int64_t *bytes);

/* The coordinator's end, on rank 0; one thread at a time. receive: *rank is -1 and *data NULL if nothing came
 * within so many seconds; P4_E_SYSTEM names a rank whose connection has ended. Local. */
p4_rc p4_control_post(p4_control *control, int rank, const void *data, int64_t bytes);
p4_rc p4_control_collect(p4_control *control, double seconds, int *rank, void **data, int64_t *bytes);

#endif
