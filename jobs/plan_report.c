/* plan_report.c - a plan as text. */
#include <string.h>

#include "jobs/plan.h"
#include "src/leaf/count.h"

const char *p4_plan_format_duration(char text[P4_PLAN_DURATION_BYTES], double seconds)
{
    enum { BYTES = P4_PLAN_DURATION_BYTES };
    if (seconds < 120) {
        snprintf(text, BYTES, "%.1f s", seconds);
    } else if (seconds < 7200) {
        snprintf(text, BYTES, "%.1f min", seconds / 60);
    } else if (seconds < 48 * 3600) {
        snprintf(text, BYTES, "%.1f h", seconds / 3600);
    } else {
        snprintf(text, BYTES, "%.1f days", seconds / 86400);
    }
    return text;
}

/* The rank that needs most, of the device's memory where it has its own. */
static const p4_rank_plan *largest(const p4_plan *plan)
{
    const p4_rank_plan *most = &plan->rank_plans[0];
    double most_bytes, bytes;
    (void)p4_rank_plan_peak(most, plan->on_gpu, &most_bytes);
    for (int64_t i = 1; i < plan->rank_plans_count; i++) {
        (void)p4_rank_plan_peak(&plan->rank_plans[i], plan->on_gpu, &bytes);
        if (bytes > most_bytes) {
            most = &plan->rank_plans[i];
            most_bytes = bytes;
        }
    }
    return most;
}

static void print_purposes(FILE *out, const double bytes[P4_MEMORY_PURPOSES])
{
    char text[32];
    bool first = true;
    for (int i = 0; i < P4_MEMORY_PURPOSES; i++) {
        if (bytes[i] > 0) {
            fprintf(out, "%s%s %s", first ? "" : ", ", p4_purpose_names[i], p4_format_bytes(text, bytes[i]));
            first = false;
        }
    }
    fprintf(out, "\n");
}

static void print_stages(FILE *out, const p4_plan *plan, const p4_rank_plan *rank)
{
    char host[32], device[32], sent[32], time[32];
    fprintf(out, "\n%-30s %12s %12s %12s %12s\n", "stage", plan->on_gpu ? "GPU memory" : "", "host memory",
            "sent", "time");
    for (int s = 0; s < P4_PLAN_STAGES; s++) {
        const p4_memory_use *use = &rank->stages[s];
        const p4_stage_work *w = &plan->work[s];
        if (rank->runs[s]) {
            fprintf(out, "%-30s %12s %12s %12s %12s\n", p4_plan_stage_titles[s],
                    plan->on_gpu ? p4_format_bytes(device, p4_memory_sum(use->device)) : "",
                    p4_format_bytes(host, p4_memory_sum(use->host)), p4_format_bytes(sent, w->sent_bytes),
                    p4_plan_format_duration(time, w->seconds));
        }
    }
}

static void print_peak(FILE *out, const p4_plan *plan, const p4_rank_plan *rank, bool device)
{
    char text[32];
    double bytes;
    p4_plan_stage_id stage = p4_rank_plan_peak(rank, device, &bytes);
    fprintf(out, "most memory of %s: %s, of rank %d%s in \"%s\": ", device ? "a GPU" : "the host",
            p4_format_bytes(text, bytes), rank->rank, plan->ranks > rank->alike ? "" : " as of every rank",
            p4_plan_stage_titles[stage]);
    print_purposes(out, device ? rank->stages[stage].device : rank->stages[stage].host);
}

static void print_disk(FILE *out, const p4_disk_plan *disk)
{
    char outputs[32], checkpoint[32], scratch[32];
    fprintf(out, "disk: outputs %s", p4_format_bytes(outputs, disk->outputs));
    if (disk->kept > 0) {
        fprintf(out, ", up to %.0f checkpoints of %s", disk->kept,
                p4_format_bytes(checkpoint, disk->checkpoint));
    }
    if (disk->scratch > 0) {
        fprintf(out, ", temporary files %s while it runs", p4_format_bytes(scratch, disk->scratch));
    }
    fprintf(out, "\n");
}

/* On CPUs whose ranks share the node's memory evenly, the rank's room says the same. */
static bool node_says_more(const p4_plan *plan)
{
    int ranks = p4_plan_node_ranks(plan);
    return plan->node_bytes > 0 && (plan->on_gpu || ranks > 1 || plan->room_bytes < plan->node_bytes);
}

static void print_node(FILE *out, const p4_plan *plan)
{
    char room[32], needs[32];
    int ranks = p4_plan_node_ranks(plan);
    if (node_says_more(plan)) {
        fprintf(out, "a node has %s of host memory, and %d rank%s there take%s up to %s\n",
                p4_format_bytes(room, plan->node_bytes), ranks, p4_plural(ranks), ranks == 1 ? "s" : "",
                p4_format_bytes(needs, p4_plan_node_needs(plan)));
    } else if (plan->on_gpu && plan->node_bytes == 0) {
        fprintf(out, "host memory is not judged; --host-memory says how much a node has\n");
    }
}

static void print_verdict(FILE *out, const p4_plan *plan)
{
    char room[32], process[32], needs[32];
    const char *what = plan->on_gpu ? "GPU" : "rank";
    fprintf(out, "%s has %s", plan->on_gpu ? "a GPU" : "a rank", p4_format_bytes(room, plan->room_bytes));
    if (plan->reserve_bytes > 0) {
        fprintf(out, ", of which %s are kept for its context and libraries",
                p4_format_bytes(process, plan->reserve_bytes));
    } else if (!plan->on_gpu) {
        fprintf(out, " of host memory and takes up to %s, of which %s before its work",
                p4_format_bytes(needs, p4_plan_node_needs(plan) / p4_plan_node_ranks(plan)),
                p4_format_bytes(process, plan->process_bytes));
    }
    fprintf(out, ": the run %s\n", plan->fits ? "fits" : "does not fit");
    print_node(out, plan);
    if (!plan->fits) {
        fprintf(out, "%s%s\n", plan->advice[0] != '\0' ? "it fits with " : "no key makes it fit",
                plan->advice);
    }
    if (plan->least_ranks > 0) {
        fprintf(out, "smallest number of %ss that fits: %lld", what, (long long)plan->least_ranks);
        if (plan->ranks_per_node > 1 && plan->least_ranks > 1) {
            int64_t nodes = p4_plan_nodes(plan, plan->least_ranks);
            fprintf(out, ", on %lld machine%s", (long long)nodes, p4_plural(nodes));
        }
        fprintf(out, "\n");
    } else {
        fprintf(out, "it fits on no number of %ss up to %lld\n", what, (long long)plan->most_tried);
    }
}

/* Which machines the plan is for, where that is a question. */
static void print_nodes(FILE *out, const p4_plan *plan)
{
    int64_t nodes = p4_plan_nodes(plan, plan->ranks);
    if (plan->ranks == 1) {
        return;
    }
    if (nodes == 1) {
        fprintf(out, "machines: 1, with all %d ranks", plan->ranks);
    } else {
        fprintf(out, "machines: %lld, with %s%d rank%s on each", (long long)nodes,
                plan->ranks % plan->ranks_per_node != 0 ? "up to " : "", plan->ranks_per_node,
                p4_plural(plan->ranks_per_node));
    }
    fprintf(out, "%s\n",
            plan->placement_assumed ? " (assumed; --ranks-per-node says how many a machine has)" : "");
}

void p4_plan_print(FILE *out, const p4_plan *plan)
{
    char time[P4_PLAN_DURATION_BYTES], steps[P4_COUNT_BYTES];
    const p4_rank_plan *rank = largest(plan);
    fprintf(out, "%s: %.4g M parameters on %d rank%s, %s\n", plan->model, plan->params / 1e6, plan->ranks,
            p4_plural(plan->ranks), plan->device);
    print_nodes(out, plan);
    fprintf(out, "rates: %s\n", plan->rates.name);
    if (plan->rates_note[0] != '\0') {
        fprintf(out, "warning: rates: %s\n", plan->rates_note);
    }
    print_stages(out, plan, rank);
    fprintf(out, "\nwhole run: %s", p4_plan_format_duration(time, plan->total_s));
    if (rank->runs[P4_PLAN_FINE_TUNE]) {
        fprintf(out, ", with %s training step%s%s of micro-batches of %lld",
                p4_format_count(steps, plan->train_steps), p4_plural(plan->train_steps),
                plan->steps_assumed ? " (for an example: the text is not known)" : "",
                (long long)rank->micro_batch);
    }
    fprintf(out, "; starting the processes%s is not counted\n",
            plan->on_gpu ? ", MPI and the GPUs" : " and MPI");
    if (plan->on_gpu) {
        print_peak(out, plan, rank, true);
    }
    print_peak(out, plan, rank, false);
    if (rank->checkpoint_copy_bytes > 0) {
        char copy[32];
        fprintf(out, "where it is free, a rank takes %s more of host memory for the copy of a checkpoint\n",
                p4_format_bytes(copy, rank->checkpoint_copy_bytes));
    }
    print_disk(out, &plan->disk);
    print_verdict(out, plan);
}
