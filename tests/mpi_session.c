/* Sessions on communicators (p4_session_open_on): the ranks of a job divided in two, MPI_COMM_NULL refused on
 * every rank, and a rank that is out of memory. */
#include <mpi.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "jobs/api/api.h"

#ifdef __SANITIZE_ADDRESS__ /* which has a calloc of its own: the cases without memory are left out */
#define CAN_FAIL 0
static size_t refused_bytes;
#else
#define CAN_FAIL 1
void *__libc_calloc(size_t count, size_t each_bytes);
static size_t refused_bytes; /* of one element, which this process cannot have; 0: none is refused */

void *calloc(size_t count, size_t each_bytes)
{
    return count == 1 && each_bytes == refused_bytes ? NULL : __libc_calloc(count, each_bytes);
}
#endif

/* All ranks end alike when one of them has no memory for what it begins with. */
static void expect_end_together(size_t bytes, bool is_out_of_memory, const char *what)
{
    p4_session *session = NULL;
    p4_error_clear();
    refused_bytes = is_out_of_memory ? bytes : 0;
    p4_rc rc = p4_session_open(&session);
    refused_bytes = 0;
    EXPECT(!CAN_FAIL || (rc == P4_E_SYSTEM && session == NULL), "%s: code %d", what, (int)rc);
    EXPECT(!CAN_FAIL ||
               strstr(p4_last_error(), is_out_of_memory ? "out of memory" : "another rank could not begin"),
           "%s: \"%s\"", what, p4_last_error());
    p4_session_close(session);
}

int main(int argc, char **argv)
{
    int rank = 0, ranks = 0, provided = 0;
    p4_session *session = NULL;
    MPI_Comm half, none;
    EXPECT(MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &provided) == MPI_SUCCESS, "no MPI");
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);

    expect_end_together(sizeof *session, rank == ranks - 1, "a session");

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
