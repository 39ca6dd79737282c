/* Sessions on communicators (p4_session_open_on): the ranks of a job divided in two, and MPI_COMM_NULL
 * refused on every rank. */
#include <mpi.h>
#include <string.h>

#include "check.h"
#include "phase4.h"

int main(int argc, char **argv)
{
    int rank = 0, ranks = 0, provided = 0;
    p4_session *session = NULL;
    MPI_Comm half, none;
    EXPECT(MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &provided) == MPI_SUCCESS, "no MPI");
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);

    bool has_none = rank == ranks - 1; /* the last rank belongs to no communicator */
    MPI_Comm_split(MPI_COMM_WORLD, has_none ? MPI_UNDEFINED : 0, rank, &none);
    EXPECT(p4_session_open_on(&session, &none) == P4_E_INPUT && session == NULL,
           "MPI_COMM_NULL was accepted");
    EXPECT(strstr(p4_last_error(), "communicator is MPI_COMM_NULL") != NULL, "\"%s\"", p4_last_error());
    if (!has_none) {
        MPI_Comm_free(&none);
    }

    MPI_Comm_split(MPI_COMM_WORLD, rank % 2, rank, &half);
    EXPECT(p4_session_open_on(&session, &half) == P4_OK, "%s", p4_last_error());
    EXPECT(session != NULL && p4_session_rank(session) == rank / 2 &&
               p4_session_ranks(session) == (ranks + 1 - rank % 2) / 2,
           "rank %d of %d", p4_session_rank(session), p4_session_ranks(session));
    p4_session_close(session);
    MPI_Comm_free(&half);
    MPI_Finalize();
    return TEST_END();
}
