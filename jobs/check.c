#include "jobs/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/file/files.h"
#include "jobs/exports.h"
#include "jobs/resume.h"
#include "src/leaf/limits.h"

static void say_threads(const p4_run *run)
{
    const p4_group *group = run->compute.group;
    const p4_machine *machine = group->machine;
    char quota[64] = "", cores[96];
    if (machine->cpu_quota > 0) {
        snprintf(quota, sizeof quota, ", of which a limit on processor time leaves %.3g", machine->cpu_quota);
    }
    snprintf(cores, sizeof cores, "%d core%s", machine->cores, p4_plural(machine->cores));
    if (machine->core_share < machine->cores) {
        snprintf(cores, sizeof cores, "%.3g of a core, since the node has fewer for its %d rank%s",
                 machine->core_share, machine->node_ranks, p4_plural(machine->node_ranks));
    }
    INFO("      threads: %d%s, on %s%s", run->compute.threads, group->ranks > 1 ? " for each rank" : "",
         cores, quota);
    if (getenv("OMP_NUM_THREADS") != NULL) {
        INFO("      the key threads_per_rank sets the number of threads; OMP_NUM_THREADS is ignored");
    }
}

/* Which checkpoint the run would continue from, and whether it may. Collective. */
static p4_rc check_resume(p4_run *run)
{
    const p4_config *c = &run->config;
    bool automatic = strcmp(c->resume, "auto") == 0;
    if (strcmp(c->resume, "never") == 0 || (automatic && !p4_directory_exists(c->output_path))) {
        return P4_OK; /* "never" would remove them here */
    }
    return p4_consult(run->compute.group, p4_resume_choose(run));
}

p4_rc p4_check_run(p4_run *run, bool alone, bool measures)
{
    p4_rc rc = P4_OK;
    p4_group *group = run->compute.group;
    p4_findings f = {.worst = P4_OK};
    p4_outlook outlook = {.copied_bytes = 0};
    double process_bytes = p4_memory_resident();
    INFO("Plan and checks");
    rc = p4_consult(group, p4_settings_open_original(&run->original, &run->config, group->ranks));
    bool has_model = rc == P4_OK;
    p4_findings_add(&f, rc);
    if (has_model) {
        p4_findings_add(&f, p4_consult(group, p4_net_check_device(run->compute.ops, run->compute.device,
                                                                  &run->original.hf.model)));
        p4_findings_add(&f, p4_check_memory(run, process_bytes, &outlook));
    }
    if (alone) {
        p4_findings_add(&f, check_resume(run));
    }
    if (group->rank == 0) {
        say_threads(run);
        p4_check_output(run, has_model, &outlook, &f);
        p4_check_text(run, has_model, alone, &f);
        p4_findings_add(&f, has_model ? p4_exports_check(&run->config, &run->original.hf, run->tokenizer)
                                      : P4_OK);
        if (f.errors == 0) {
            p4_check_time(run, &outlook, measures);
            p4_check_time_left(run); /* of --check: a run chooses its checkpoint later */
        }
    }
    if (f.errors > 0) {
        rc = p4_fail_lines(f.worst, f.text);
    } else {
        rc = P4_OK;
    }
    rc = p4_agree_root(group, group->rank == 0 ? rc : P4_OK);
    return rc;
}
