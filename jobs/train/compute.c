#include "jobs/train/compute.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

p4_rc p4_compute_find_gpus(p4_machine *machine)
{
    const p4_ops *cuda = p4_ops_find("cuda");
    p4_device_info seen[P4_GPUS_MAX];
    p4_gpu gpus[P4_GPUS_MAX];
    char why[512] = "this build has no CUDA backend: with nvcc, cmake -DP4_CUDA=ON makes one";
    int count = 0;
    if (machine->knows_gpus) {
        return P4_OK;
    }
    if (cuda != NULL && cuda->list(seen, P4_GPUS_MAX, &count) != P4_OK) {
        snprintf(why, sizeof why, "%s", p4_last_error());
        p4_error_clear(); /* a rank without a GPU is no error yet */
        count = 0;
    }
    for (int k = 0; k < count; k++) {
        memcpy(gpus[k].id, seen[k].id, sizeof gpus[k].id);
        gpus[k].ordinal = seen[k].ordinal;
    }
    return p4_machine_assign_gpus(machine, gpus, count, why);
}

bool p4_compute_gpu_usable(const p4_machine *machine)
{
    const p4_ops *cuda = p4_ops_find("cuda");
    bool usable = !machine->has_used_gpu || cuda == NULL || cuda->usable(machine->gpu) == P4_OK;
    return usable && !machine->nccl_failed;
}

/* Opens this rank's own GPU. One that cannot be used ends the run: where all ranks have GPUs, a silent run on
 * CPUs is not what was wanted. Local. */
static p4_rc open_gpu(p4_compute *compute, const p4_compute_settings *settings)
{
    p4_rc rc = P4_OK;
    const p4_ops *cuda = p4_ops_find("cuda");
    TRY(compute->group->ranks > 1 ? p4_coll_usable("nccl")
                                  : P4_OK); /* a single rank on a GPU moves nothing */
    TRY(cuda->open(&compute->device, compute->group->machine->gpu, compute->threads, settings->half));
    compute->ops = cuda;
    compute->group->machine->has_used_gpu = true;
done:
    if (rc != P4_OK && settings->device == P4_DEVICE_AUTO) {
        char why[512];
        snprintf(why, sizeof why, "%s", p4_last_error());
        p4_error_clear();
        rc = p4_fail(rc, "a GPU was found, but cannot be used: %s (device \"cpu\" does without)", why);
    }
    return rc;
}

static p4_rc open_cpu(p4_compute *compute)
{
    compute->ops = p4_ops_find("cpu");
    return compute->ops->open(&compute->device, 0, compute->threads, false);
}

/* A GPU for every rank of the group, or for none: that is an error when GPUs are asked for, else a line of
 * the log. Collective. */
static p4_rc try_gpus(p4_compute *compute, const p4_compute_settings *settings)
{
    p4_rc rc = P4_OK;
    p4_group *group = compute->group;
    p4_machine *machine = group->machine;
    TRY_ALL(group, p4_compute_find_gpus(machine));
    if (p4_consult(group, machine->gpu >= 0 ? P4_OK : FAIL("%s", machine->no_gpu)) == P4_OK) {
        TRY_ALL(group, open_gpu(compute, settings));
        return P4_OK;
    }
    char why[512];
    snprintf(why, sizeof why, "%s", p4_last_error());
    p4_error_clear();
    CHECK(settings->device != P4_DEVICE_CUDA, "key \"device\": found \"cuda\", but %s", why);
    if (access("/proc/driver/nvidia", F_OK) == 0) { /* on a machine without the driver nobody misses one */
        INFO("no GPU is used: %s", why);
    }
done:
    return rc;
}

p4_rc p4_compute_check_exact(const p4_compute *compute)
{
    return compute->ops->host_memory ? P4_OK
                                     : FAIL("key \"exact_sums\": found true, expected false on GPUs (device "
                                            "\"cpu\" makes such sums)");
}

p4_rc p4_compute_open(p4_compute *compute, p4_group *group, const p4_compute_settings *settings)
{
    p4_rc rc = P4_OK;
    *compute = (p4_compute){.group = group};
    compute->threads = settings->threads > 0 ? settings->threads : group->machine->cores;
    if (compute->threads > group->machine->cores) {
        WARN("warning: key \"threads_per_rank\": %d threads on %d "
             "core%s per rank, which makes them wait for one another",
             compute->threads, group->machine->cores, p4_plural(group->machine->cores));
    }
    if (settings->device != P4_DEVICE_CPU) {
        TRY(try_gpus(compute, settings));
    }
    if (compute->device == NULL) {
        TRY_ALL(group, open_cpu(compute));
    }
    TRY(settings->exact_sums ? p4_compute_check_exact(compute) : P4_OK);
    bool nccl = !compute->ops->host_memory && group->ranks > 1;
    int ordinal = compute->ops->host_memory ? 0 : group->machine->gpu;
    TRY(p4_coll_open(&compute->coll, group, nccl ? "nccl" : "mpi", compute->ops->stream(compute->device),
                     ordinal));
done:
    return rc;
}

void p4_compute_close(p4_compute *compute)
{
    p4_coll_close(&compute->coll);
    if (compute->device != NULL) {
        compute->ops->close(compute->device);
    }
    *compute = (p4_compute){0};
}
