#include <math.h>
#include <stdlib.h>

#include "jobs/check.h"
#include "jobs/plan.h"
#include "src/leaf/limits.h"

static const char how_to_save[] =
    "more ranks on more nodes, recompute \"blocks\", optimizer_state \"bf16\", a smaller micro_batch_size, "
    "calibration_batch_size or calibration_sequence_length need less";

static double most_of(const p4_memory_plan *plan)
{
    return plan->model + fmax(plan->evaluation, plan->training);
}

/* What the ranks of this node need together, against what the node or its control group has. */
static p4_rc check_host(const p4_run *run, double node_needs)
{
    p4_rc rc = P4_OK;
    int64_t total, available;
    char want[32], all[32], left[32];
    const p4_group *group = run->compute.group;
    p4_limits limits = p4_limits_read("");
    p4_memory_read("", &total, &available);
    bool limited = limits.memory_bytes > 0 && (total == 0 || limits.memory_bytes < total);
    double most = (double)(limited ? limits.memory_bytes : total);
    double room = (double)available;
    if (limited) {
        room = fmin(room, (double)(limits.memory_bytes - limits.memory_used_bytes));
    }
    if (total == 0) {
        return P4_OK; /* the system does not say */
    }
    p4_format_bytes(want, node_needs);
    p4_format_bytes(all, most);
    p4_format_bytes(left, room);
    CHECK(node_needs <= most,
          "%s: the memory that %d rank%s will need, at least %s, is more than the %s that %s; %s",
          group->machine->host, group->local_ranks, p4_plural(group->local_ranks), want, all,
          limited ? "its control group allows" : "the machine has", how_to_save);
    if (node_needs > room) {
        WARN("warning: %s: the run will need %s of memory, and %s are free now", group->machine->host, want,
             left);
    }
    INFO("      memory of this node: %s of %s, %s free", want, all, left);
done:
    return rc;
}

static p4_rc check_device(const p4_run *run, double needs)
{
    p4_rc rc = P4_OK;
    char want[32], all[32];
    double room = (double)run->compute.ops->room_bytes(run->compute.device);
    p4_format_bytes(want, needs);
    p4_format_bytes(all, room);
    CHECK(needs <= room, "the GPU has %s free, and the run will need at least %s there; %s", all, want,
          how_to_save);
    INFO("      memory of the GPU: at least %s of %s", want, all);
done:
    return rc;
}

static p4_rc check_node(const p4_run *run, const double *needs)
{
    double sum = 0;
    for (int i = 0; i < run->compute.group->local_ranks; i++) {
        sum += needs[i];
    }
    return run->compute.group->local_rank == 0 ? check_host(run, sum) : P4_OK;
}

p4_rc p4_check_memory(const p4_run *run)
{
    p4_rc rc = P4_OK;
    p4_group *group = run->compute.group;
    p4_memory_plan plan;
    double *needs = p4_alloc((size_t)group->local_ranks, sizeof *needs);
    rc = needs != NULL ? p4_plan_memory(&plan, run) : P4_E_SYSTEM;
    if ((rc = p4_consult(group, rc)) != P4_OK) {
        goto done;
    }
    bool host = run->compute.ops->host_memory;
    /* Beside a GPU the host holds the compressed model, and another one while it is trained. */
    double mine = host ? most_of(&plan) : 2 * plan.model;
    p4_group_node_gather(group, needs, &mine, sizeof mine);
    rc = check_node(run, needs);
    if (rc == P4_OK && !host) {
        rc = check_device(run, most_of(&plan));
    }
    rc = p4_consult(group, rc);
done:
    free(needs);
    return rc;
}
