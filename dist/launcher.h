/* launcher.h - what the program that started this process (mpirun, srun) says of it in the environment. All
 * Local. */
#ifndef P4_LAUNCHER_H
#define P4_LAUNCHER_H

#include "src/leaf/base.h"

/* This process's rank, -1 without a known launcher. For what needs no MPI. */
int64_t p4_launched_rank(void);
/* Open MPI's mpirun, and not srun? */
bool p4_launched_by_mpirun(void);

/* P4_E_INPUT, before MPI is started: a launcher started several processes and gave them no means to find each
 * other. Open MPI would end such a process, or let each be a job of one rank. */
p4_rc p4_launch_check(void);
/* P4_E_INPUT, after MPI was started with `ranks` ranks: the launcher started several processes, and each is
 * alone. */
p4_rc p4_launch_check_ranks(int ranks);

/* Between _begin and _end MPI is started. A process without a launcher is one rank, for which Open MPI 4
 * otherwise starts a daemon (it needs ssh and a user with a name), or gives up in a Slurm step without PMIx;
 * the environment keeps it from both meanwhile. Not with other threads that read the environment. */
typedef struct p4_launch_environment {
    bool isolated;        /* one variable was added */
    char *step;           /* another was removed: its value, heap */
    int watcher, watched; /* process that speaks if MPI ends this one, or 0; what it reads, or -1 */
} p4_launch_environment;
p4_rc p4_launch_begin(p4_launch_environment *environment);
void p4_launch_end(p4_launch_environment *environment);

#endif
