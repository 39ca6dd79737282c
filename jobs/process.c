#include "jobs/process.h"

#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "io/h5/file.h"
#include "src/phase4/rc.h"

void p4_process_start(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) != fd) {
            _exit(P4_E_SYSTEM);
        }
    }
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
    p4_h5_leave_exit_alone();
}

int p4_process_status(p4_rc rc)
{
    return rc == P4_E_STATE ? (int)P4_E_SYSTEM : (int)rc;
}

int p4_process_end(int status)
{
    bool written = fflush(stdout) == 0 && ferror(stdout) == 0; /* an earlier flush may have failed */
    if (!written) {
        fprintf(stderr,
                "phase4: error: standard output did not take all that was written: it is closed, its reader "
                "has ended or its disk is full\n");
    }
    return status == EXIT_SUCCESS && !written ? (int)P4_E_SYSTEM : status;
}
