#include <math.h>
#include <stdlib.h>

#include "jobs/check.h"
#include "src/leaf/limits.h"

/* This rank's plan, and the room that it is compared with. */
typedef struct memory {
    const p4_run *run;
    p4_plan_input in;      /* windows: what its config uses of `found` */
    p4_plan_windows found; /* with the configuration as given */
    p4_rank_plan plan;
    double process_bytes;                     /* of this process before the work */
    double *needs;                            /* [local_ranks]: of this node's ranks */
    double part;                              /* of the memory that counts as room */
    double node_needs, node_total, node_free; /* total 0: the system does not say */
    bool limited;                             /* by a control group */
} memory;

/* Memory of the node or of its control group. */
static void read_node(memory *m)
{
    int64_t total, available;
    p4_limits limits = p4_limits_read("");
    p4_memory_read("", &total, &available);
    m->limited = limits.memory_bytes > 0 && (total == 0 || limits.memory_bytes < total);
    m->node_total = (double)(m->limited ? limits.memory_bytes : total);
    m->node_free = (double)available;
    if (m->limited) {
        m->node_free = fmin(m->node_free, (double)(limits.memory_bytes - limits.memory_used_bytes));
    }
}

static bool fits_here(const memory *m)
{
    const p4_compute *c = &m->run->compute;
    double bytes;
    (void)p4_rank_plan_peak(&m->plan, true, &bytes);
    bool device = c->ops->host_memory || bytes <= m->part * (double)m->in.room_bytes;
    return device && (m->node_total == 0 || m->node_needs <= m->part * m->node_total);
}

/* The plan of every rank with this configuration; *fits: on every rank. Collective. */
static p4_rc try_config(void *user, const p4_config *config, bool *fits)
{
    p4_rc rc = P4_OK;
    memory *m = user;
    p4_group *group = m->run->compute.group;
    double mine;
    m->in.config = config;
    m->in.windows = p4_plan_windows_within(m->found, config);
    TRY(p4_consult(group, p4_plan_rank_memory(&m->plan, &m->in)));
    (void)p4_rank_plan_peak(&m->plan, false, &mine);
    mine += m->process_bytes;
    p4_group_node_gather(group, m->needs, &mine, sizeof mine);
    m->node_needs = 0;
    for (int i = 0; i < group->local_ranks; i++) {
        m->node_needs += m->needs[i];
    }
    double missing = fits_here(m) ? 0 : 1;
    p4_group_max_f64(group, &missing, 1);
    *fits = missing == 0;
done:
    return rc;
}

/* Values of the keys that are left open. Collective. */
static p4_rc choose(memory *m, p4_config *c)
{
    const double CAREFUL = 0.9; /* what is chosen leaves room for what is not planned */
    p4_rc rc = P4_OK;
    bool fits;
    m->part = CAREFUL;
    TRY(p4_plan_choose(c, m->run->compute.group->ranks, try_config, m, &fits));
    if (fits && c->distill_teacher == P4_TEACHER_AUTO) {
        c->distill_teacher = P4_TEACHER_RESIDENT;
    }
    if (c->recompute == P4_RECOMPUTE_AUTO) {
        c->recompute = P4_RECOMPUTE_NONE;
    }
    m->part = 1;
done:
    return rc;
}

static p4_rc refuse(const memory *m, const char *advice)
{
    char want[32], all[32];
    double bytes;
    const p4_group *group = m->run->compute.group;
    const char *with =
        advice[0] != '\0' ? "; the run fits with " : "; no key makes it fit: more ranks on more nodes do";
    p4_plan_stage_id stage = p4_rank_plan_peak(&m->plan, true, &bytes);
    double room = (double)m->in.room_bytes;
    if (!m->run->compute.ops->host_memory && bytes > room) {
        p4_format_bytes(want, bytes);
        p4_format_bytes(all, room);
        return FAIL("the GPU has %s free, and the run will need %s there in stage \"%s\"%s%s", all, want,
                    p4_plan_stage_titles[stage], with, advice);
    }
    if (group->local_rank != 0 || m->node_total == 0 || m->node_needs <= m->node_total) {
        return P4_OK;
    }
    p4_format_bytes(want, m->node_needs);
    p4_format_bytes(all, m->node_total);
    return FAIL("%s: the memory that %d rank%s will need, %s, is more than the %s that %s%s%s",
                group->machine->host, group->local_ranks, p4_plural(group->local_ranks), want, all,
                m->limited ? "its control group allows" : "the machine has", with, advice);
}

static void say(const memory *m)
{
    char want[32], all[32], left[32], who[48] = "the run";
    double bytes;
    const p4_group *group = m->run->compute.group;
    if (m->node_total > 0) {
        p4_format_bytes(want, m->node_needs);
        p4_format_bytes(all, m->node_total);
        p4_format_bytes(left, m->node_free);
        if (group->local_ranks > 1) {
            snprintf(who, sizeof who, "the %d ranks on this machine", group->local_ranks);
        }
        INFO("      memory: %s will need up to %s; %s %s, and %s are free now", who, want,
             m->limited ? "the control group allows" : "the machine has", all, left);
        if (m->node_needs > m->node_free) {
            WARN("warning: %s: the run will need %s of memory, and %s are free now", group->machine->host,
                 want, left);
        }
    }
    if (!m->run->compute.ops->host_memory) {
        p4_plan_stage_id stage = p4_rank_plan_peak(&m->plan, true, &bytes);
        p4_format_bytes(want, bytes);
        p4_format_bytes(all, (double)m->in.room_bytes);
        INFO("      GPU memory: each rank will need up to %s, in stage \"%s\"; the GPU has %s", want,
             p4_plan_stage_titles[stage], all);
    }
}

p4_rc p4_check_memory(p4_run *run, double process_bytes, p4_outlook *outlook)
{
    p4_rc rc = P4_OK;
    p4_compute *compute = &run->compute;
    p4_group *group = compute->group;
    char advice[P4_PLAN_ADVICE_BYTES] = "";
    bool fits = false;
    memory m = {.run = run, .process_bytes = process_bytes};
    m.in = (p4_plan_input){.config = &run->config, .original = &run->original, .compute = compute};
    m.in.room_bytes = compute->ops->room_bytes(compute->device);
    m.needs = p4_alloc((size_t)group->local_ranks, sizeof *m.needs);
    TRY(p4_consult(group, m.needs != NULL ? P4_OK : P4_E_SYSTEM));
    if (group->rank == 0) {
        m.found = p4_plan_windows_found(&run->config, &run->original);
    }
    p4_group_bcast(group, &m.found, sizeof m.found, 0);
    read_node(&m);
    TRY(choose(&m, &run->config));
    TRY(try_config(&m, &run->config, &fits));
    *outlook = (p4_outlook){.windows = m.in.windows, .rank = m.plan};
    if (fits) {
        say(&m);
        goto done;
    }
    TRY(p4_plan_advise(advice, &run->config, group->ranks, try_config, &m));
    TRY(try_config(&m, &run->config, &fits)); /* the numbers of the refusal */
    rc = p4_consult(group, refuse(&m, advice));
done:
    free(m.needs);
    return rc;
}
