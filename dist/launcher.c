#include "dist/launcher.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static const char isolated_name[] = "OMPI_MCA_ess_singleton_isolated", step_name[] = "SLURM_STEP_ID";

/* -1: not set. */
static int64_t number(const char *variable)
{
    const char *text = getenv(variable);
    return text != NULL ? strtoll(text, NULL, 10) : -1;
}

static int64_t first_number(const char *const *variables)
{
    int64_t found = -1;
    for (; found < 0 && *variables != NULL; variables++) {
        found = number(*variables);
    }
    return found;
}

/* The rank as a process manager knows it, with which MPI's ranks find each other; -1: there is none. */
static int64_t managed_rank(void)
{
    static const char *const names[] = {"PMIX_RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", NULL};
    return first_number(names);
}

/* Started by srun? The script of a batch job has Slurm's other variables, but is no step. */
static bool is_step(void)
{
    return getenv(step_name) != NULL;
}

static int64_t launched_ranks(void)
{
    static const char *const managed[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", NULL};
    static const char *const tasks[] = {"SLURM_STEP_NUM_TASKS", "SLURM_NTASKS", NULL};
    int64_t ranks = first_number(managed);
    return ranks < 0 && is_step() ? first_number(tasks) : ranks;
}

int64_t p4_launched_rank(void)
{
    int64_t rank = managed_rank();
    return rank < 0 && is_step() ? number("SLURM_PROCID") : rank;
}

bool p4_launched_by_mpirun(void)
{
    return number("OMPI_COMM_WORLD_RANK") >= 0 && !is_step();
}

static p4_rc refuse(void)
{
    return FAIL("%s started %lld processes, but MPI sees each of them alone: they "
                "cannot work as the ranks of one job; start them with srun --mpi=pmix "
                "(srun --mpi=list shows what the cluster has), or with mpirun",
                is_step() ? "srun" : "the launcher", (long long)launched_ranks());
}

p4_rc p4_launch_check(void)
{
    return managed_rank() < 0 && launched_ranks() > 1 ? refuse() : P4_OK;
}

p4_rc p4_launch_check_ranks(int ranks)
{
    return ranks == 1 && launched_ranks() > 1 ? refuse() : P4_OK;
}

/* An Open MPI that cannot use what Slurm offers (PMI-2, where it was built without it) ends the process
 * inside of MPI_Init, behind a page of its own. A child waits for that and says what to do: nothing else of
 * this process is left to say it. */
static void watch_start(p4_launch_environment *environment)
{
    int ends[2];
    char byte;
    if (p4_launched_rank() > 0 || pipe(ends) != 0) {
        return;
    }
    environment->watcher = fork();
    if (environment->watcher == 0) {
        close(ends[1]);
        if (read(ends[0], &byte, 1) == 0) { /* the parent is gone */
            (void)refuse();
            dprintf(STDERR_FILENO, "phase4: error: %s\n", p4_last_error());
        }
        _exit(0);
    }
    close(ends[0]);
    environment->watched = ends[1];
    fcntl(ends[1], F_SETFD, FD_CLOEXEC);
}

static void end_watch(p4_launch_environment *environment)
{
    if (environment->watcher > 0) {
        (void)!write(environment->watched, "", 1);
        waitpid((pid_t)environment->watcher, NULL, 0);
    }
    if (environment->watched >= 0) {
        close(environment->watched);
    }
}

p4_rc p4_launch_begin(p4_launch_environment *environment)
{
    *environment = (p4_launch_environment){.watched = -1};
    if (managed_rank() >= 0) {
        bool pmi_only = number("PMIX_RANK") < 0 && number("OMPI_COMM_WORLD_RANK") < 0;
        if (pmi_only && is_step() && launched_ranks() > 1) {
            watch_start(environment);
        }
        return P4_OK;
    }
    environment->isolated = getenv(isolated_name) == NULL && setenv(isolated_name, "1", 0) == 0;
    if (is_step()) {
        environment->step = p4_strdup(getenv(step_name));
        if (environment->step == NULL) {
            return P4_E_SYSTEM;
        }
        unsetenv(step_name);
    }
    return P4_OK;
}

void p4_launch_end(p4_launch_environment *environment)
{
    if (environment->isolated) {
        unsetenv(isolated_name);
    }
    if (environment->step != NULL) {
        setenv(step_name, environment->step, 1);
        free(environment->step);
    }
    end_watch(environment);
    *environment = (p4_launch_environment){.watched = -1};
}
