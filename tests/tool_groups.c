/* tool_groups CFG_A CFG_B: divides the ranks of the job into two groups, the even and the odd ones, which run
 * one configuration each at the same time (p4_session_open_on). Exit status: the result code of this rank's
 * group. */
#include <mpi.h>
#include <stdio.h>

#include "phase4.h"

static p4_rc run(MPI_Comm comm, const char *cfg_path)
{
    static p4_config config;
    static p4_results results;
    p4_session *session = NULL;
    p4_rc rc = p4_session_open_on(&session, &comm);
    p4_results_init(&results);
    if (rc == P4_OK) {
        rc = p4_session_read_config(session, &config, cfg_path, P4_RECIPE_QUALITY, NULL, 0);
    }
    if (rc == P4_OK) {
        rc = p4_execute(session, &config, NULL, NULL, &results);
    }
    if (rc != P4_OK) {
        fprintf(stderr, "tool_groups: %s: rank %d of its group: %s\n", cfg_path,
                session != NULL ? p4_session_rank(session) : -1, p4_last_error());
    }
    p4_results_free(&results);
    MPI_Barrier(MPI_COMM_WORLD); /* sessions are closed by all ranks together */
    p4_session_close(session);
    return rc;
}

int main(int argc, char **argv)
{
    int rank = 0, provided = 0;
    MPI_Comm comm;
    if (argc != 3 || MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &provided) != MPI_SUCCESS) {
        fprintf(stderr, "usage: mpirun -n N tool_groups CFG_A CFG_B\n");
        return 2;
    }
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_split(MPI_COMM_WORLD, rank % 2, rank, &comm);
    p4_rc rc = run(comm, argv[1 + rank % 2]);
    MPI_Comm_free(&comm);
    MPI_Finalize();
    return (int)rc;
}
