#include "jobs/process.h"

#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "io/h5/file.h"
#include "src/phase4/rc.h"

/* Blocks from this size on are mapped, so that their memory goes back to the system when they are freed. The
 * C library would raise the limit with every large block that is freed, and what a stage took would stay with
 * the process: the plan of a run (jobs/plan.h) counts on it for the next stage. */
enum { MAPPED_BYTES = 256 << 10 };

/* The largest values that the C library takes, or more than is freed at once. */
enum { KEPT_BYTES = 32 << 20, KEPT_IN_ALL = 256 << 20 };

void p4_process_keep_memory(void)
{
#ifdef M_MMAP_THRESHOLD
    (void)mallopt(M_MMAP_THRESHOLD, KEPT_BYTES);
    (void)mallopt(M_TRIM_THRESHOLD, KEPT_IN_ALL);
#endif
}

void p4_process_start(void)
{
#ifdef M_MMAP_THRESHOLD
    (void)mallopt(M_MMAP_THRESHOLD, MAPPED_BYTES);
#endif
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) != fd) {
            _exit(P4_E_SYSTEM);
        }
    }
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
    p4_h5_leave_exit_alone();
}

void p4_process_let_threads_sleep(char **argv)
{
    double load = 0;
    if (getenv("OMP_WAIT_POLICY") != NULL || getenv("GOMP_SPINCOUNT") != NULL) {
        return;
    }
    bool busy = getloadavg(&load, 1) == 1 && load > 0.5 * (double)sysconf(_SC_NPROCESSORS_ONLN);
    if (setenv("GOMP_SPINCOUNT", busy ? "0" : "1000", 1) == 0) {
        char program[4096]; /* by its own name, which ps and pkill then show */
        ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
        if (length > 0) {
            program[length] = '\0';
            (void)execv(program, argv);
        }
    }
}

int p4_process_status(p4_rc rc)
{
    return rc == P4_E_STATE ? (int)P4_E_SYSTEM : (int)rc;
}

/* Standard output is a pipe or socket whose reader has ended, as behind `head`. It wanted no more, and
 * nothing is lost. */
static bool has_reader_ended(void)
{
    struct pollfd out = {.fd = STDOUT_FILENO, .events = POLLOUT};
    return poll(&out, 1, 0) == 1 && (out.revents & (POLLERR | POLLHUP)) != 0;
}

int p4_process_end(int status)
{
    bool written = fflush(stdout) == 0 && ferror(stdout) == 0; /* an earlier flush may have failed */
    if (!written && has_reader_ended()) {
        return status;
    }
    if (!written) {
        fprintf(stderr,
                "phase4: error: standard output did not take all that was written: it is closed or its disk "
                "is full\n");
    }
    return status == EXIT_SUCCESS && !written ? (int)P4_E_SYSTEM : status;
}
