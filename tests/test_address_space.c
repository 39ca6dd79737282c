/* A limit on the address space that is too low for OpenBLAS, which would try again for ever, is refused. */
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

#include "check.h"
#include "kernels/ops.h"

/* Bytes of address space that this process has. */
static rlim_t address_space(void)
{
    unsigned long pages = 0;
    FILE *statm = fopen("/proc/self/statm", "r");
    EXPECT(statm != NULL && fscanf(statm, "%lu", &pages) == 1, "/proc/self/statm");
    if (statm != NULL) {
        fclose(statm);
    }
    return (rlim_t)pages * (rlim_t)sysconf(_SC_PAGESIZE);
}

static void limit_to(rlim_t bytes)
{
    struct rlimit limit;
    EXPECT(getrlimit(RLIMIT_AS, &limit) == 0, "getrlimit");
    limit.rlim_cur = bytes;
    EXPECT(setrlimit(RLIMIT_AS, &limit) == 0, "setrlimit");
}

int main(void)
{
#if defined(__SANITIZE_ADDRESS__)
    printf("the sanitizer needs the address space\n");
    return 77;
#endif
    const p4_ops *cpu = p4_ops_find("cpu");
    p4_device *device = NULL;
    p4_log_setup(P4_LOG_QUIET, false);
    limit_to(address_space() + (100u << 20));
    EXPECT_REFUSED(cpu->open(&device, 0, 1, false),
                   "OpenBLAS requires 176.00 MiB of address space for 1 thread,");
    limit_to(address_space() + (400u << 20));
    EXPECT_OK(cpu->open(&device, 0, 1, false));
    cpu->close(device);
    EXPECT_REFUSED(cpu->open(&device, 0, 16, false), "for 16 threads,");
    EXPECT_OK(cpu->open(&device, 0, 1, false)); /* what it has is not asked for again */
    cpu->close(device);
    return TEST_END();
}
