/* mpi_state.h - the communicators behind machine.h and group.h. Inside dist/ only. */
#ifndef P4_MPI_STATE_H
#define P4_MPI_STATE_H

#include <mpi.h>

#include "dist/pulse.h"

struct p4_machine_state {
    MPI_Comm world;  /* a duplicate */
    MPI_Comm node;   /* its ranks on this node */
    p4_pulse *pulse; /* NULL: there is one rank */
};

#endif
