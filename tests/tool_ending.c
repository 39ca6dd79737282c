/* tool_ending: rank 1 stops itself when it has nothing left to do but to leave MPI, where the others wait for
 * it. */
#include <signal.h>

#include "dist/group.h"

int main(void)
{
    p4_machine machine;
    p4_group group;
    if (p4_machine_open(&machine) != P4_OK || p4_group_open(&group, &machine, NULL, 2.0) != P4_OK) {
        return 2;
    }
    p4_group_close(&group);
    if (machine.rank == 1) {
        raise(SIGSTOP);
    }
    p4_machine_close(&machine);
    return 0;
}
