/* Limits of control groups, read from copies of /proc and /sys of several machines. */
#define _GNU_SOURCE /* sched_setaffinity, sched_getcpu */
#include <errno.h>
#include <sched.h>
#include <stdlib.h>

#include "check.h"
#include "io/file/atomic_file.h"
#include "src/leaf/limits.h"
#include "src/phase4/types.h"

enum { MIB = 1 << 20 };
static char root[P4_PATH_BYTES];

static void put(const char *name, const char *text)
{
    char path[2 * P4_PATH_BYTES], folder[2 * P4_PATH_BYTES];
    snprintf(path, sizeof path, "%s/%s", root, name);
    snprintf(folder, sizeof folder, "%s", path);
    *strrchr(folder, '/') = '\0';
    EXPECT_OK(p4_make_directories(folder));
    EXPECT_OK(p4_atomic_write_all(path, text, strlen(text)));
}

static void start(void)
{
    EXPECT_OK(p4_remove_tree(root));
}

static void expect(double cpus, int64_t memory, int64_t used)
{
    p4_limits found = p4_limits_read(root);
    EXPECT_NEAR(found.cpus, cpus, 1e-9);
    EXPECT(found.memory_bytes == memory && found.memory_used_bytes == used, "%lld of %lld bytes",
           (long long)found.memory_used_bytes, (long long)found.memory_bytes);
}

int main(void)
{
    snprintf(root, sizeof root, "%s/phase4_limits_XXXXXX",
             getenv("TMPDIR") != NULL ? getenv("TMPDIR") : "/tmp");
    EXPECT(mkdtemp(root) != NULL, "mkdtemp: %s", strerror(errno));
    expect(0, 0, 0); /* no /proc */

    /* version 2: the tightest of a group and those around it */
    put("proc/self/cgroup", "0::/user/job/step\n");
    expect(0, 0, 0);
    put("sys/fs/cgroup/user/job/step/cpu.max", "max 100000\n");
    put("sys/fs/cgroup/user/job/step/memory.max", "max\n");
    expect(0, 0, 0);
    put("sys/fs/cgroup/user/job/cpu.max", "150000 100000\n");
    put("sys/fs/cgroup/user/cpu.max", "400000 100000\n");
    put("sys/fs/cgroup/user/memory.max", "1048576000\n");
    put("sys/fs/cgroup/user/memory.current", "104857600\n");
    put("sys/fs/cgroup/user/memory.stat", "anon 1\ninactive_file 52428800\nactive_file 7\n");
    expect(1.5, 1000 * (int64_t)MIB, 50 * (int64_t)MIB);

    /* a container with its own view: its limits stand at the mount's root */
    start();
    put("proc/self/cgroup", "0::/\n");
    put("sys/fs/cgroup/cpu.max", "100000 100000\n");
    put("sys/fs/cgroup/memory.max", "2097152\n");
    put("sys/fs/cgroup/memory.current", "1048576\n");
    expect(1, 2 * MIB, MIB);

    /* version 1, with the controllers of one mount joined; a path of the host */
    start();
    put("proc/self/cgroup",
        "9:name=systemd:/\n4:memory:/docker/12\n3:cpuset:/docker/12\n2:cpu,cpuacct:/docker/12\n0::/\n");
    put("sys/fs/cgroup/cpu/docker/12/cpu.cfs_quota_us", "-1\n");
    put("sys/fs/cgroup/cpu/docker/12/cpu.cfs_period_us", "100000\n");
    put("sys/fs/cgroup/memory/docker/12/memory.limit_in_bytes", "9223372036854771712\n");
    expect(0, 0, 0);
    put("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "50000\n");
    put("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
    put("sys/fs/cgroup/memory/memory.limit_in_bytes", "3145728\n");
    put("sys/fs/cgroup/memory/memory.usage_in_bytes", "2097152\n");
    put("sys/fs/cgroup/memory/memory.stat", "inactive_file 4\ntotal_inactive_file 1048576\n");
    expect(0.5, 3 * MIB, MIB);

    int64_t total, available;
    put("proc/meminfo",
        "MemTotal:       2048 kB\nMemFree: 1 kB\nMemAvailable:    1024 kB\nSwapFree:  1024 kB\n");
    p4_memory_read(root, &total, &available);
    EXPECT(total == 3 * MIB && available == MIB, "%lld of %lld", (long long)available, (long long)total);
    p4_memory_read("/nowhere", &total, &available);
    EXPECT(total == 0 && available == 0, "memory of no machine");
    p4_memory_read("", &total, &available);
    EXPECT(total > 0 && available > 0, "memory of this machine");
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET((size_t)sched_getcpu(), &one);
    EXPECT(sched_setaffinity(0, sizeof one, &one) == 0, "no affinity");
    double quota = p4_limits_read("").cpus, cores = p4_cores_here();
    EXPECT(cores == (quota > 0 && quota < 1 ? quota : 1), "%g cores, quota %g", cores, quota);
    EXPECT_OK(p4_remove_tree(root));
    return TEST_END();
}
