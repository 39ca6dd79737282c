/* plan_rates.c - how fast a rank is, by a table. Rates say how long a run takes and nothing about its
 * results.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "jobs/plan.h"

/* Where a file of rates is not given. Memory is what copies reach (docs/speed.md, 1). Products and kernels
 * are those with which plans for an H200 come nearest to the runs that docs/scale.md marks; an H100 has the
 * same arithmetic. Disks and links were not measured. */
static const p4_rates h200 = {.name = "built-in table, NVIDIA H200",
                              .device = P4_RATES_OF_GPU,
                              .forward_flops = 680e12,
                              .train_flops = 680e12,
                              .memory_bytes = 4.27e12,
                              .kernel_s = 5.0e-6,
                              .disk_read = 5e9,
                              .disk_write = 2e9,
                              .node_link = 360e9,
                              .net_link = 45e9,
                              .text_bytes = 50e6};
static const p4_rates h100 = {.name = "built-in table, NVIDIA H100",
                              .device = P4_RATES_OF_GPU,
                              .forward_flops = 680e12,
                              .train_flops = 680e12,
                              .memory_bytes = 3.0e12,
                              .kernel_s = 5.0e-6,
                              .disk_read = 5e9,
                              .disk_write = 2e9,
                              .node_link = 360e9,
                              .net_link = 45e9,
                              .text_bytes = 50e6};
/* Nominal: a GPU reports a little more. */
static const p4_named_gpu named_gpus[] = {
    {.name = "H100",
     .room_bytes = 80e9,
     .taken = "SXM or PCIe",
     .others = "; an H100 NVL has 94 GB: --device-memory 94G"},
    {.name = "H200", .room_bytes = 141e9, .taken = "SXM or NVL", .others = ""}};

/* Of one thread. */
static const p4_rates cpu_thread = {.name = "built-in table, CPU",
                                    .device = P4_RATES_OF_CPU,
                                    .forward_flops = 90e9,
                                    .train_flops = 60e9,
                                    .memory_bytes = 4e9,
                                    .disk_read = 1e9,
                                    .disk_write = 0.5e9,
                                    .node_link = 3e9,
                                    .net_link = 10e9,
                                    .text_bytes = 5e6};

/* A part of a GPU (MIG) is slower than the whole. */
static void take_gpu(p4_rates *rates, const char *opt_gpu, double room_bytes)
{
    const double H100_BYTES = 100e9; /* an H200 has 141 GB */
    bool whole = opt_gpu != NULL && strstr(opt_gpu, "MIG") == NULL,
         is_h200 = whole && strstr(opt_gpu, "NVIDIA H200") != NULL,
         is_h100 = whole && strstr(opt_gpu, "NVIDIA H100") != NULL;
    *rates = is_h200 || (!is_h100 && room_bytes > H100_BYTES) ? h200 : h100;
    if (!is_h100 && !is_h200) {
        size_t used = strlen(rates->name);
        snprintf(rates->name + used, sizeof rates->name - used,
                 opt_gpu != NULL ? "; this GPU is not in it: phase4_mpi --measure-rates"
                                 : "; another GPU takes another time");
    }
}

void p4_plan_rates_name(p4_rates *rates, const char *where, int threads, double cores)
{
    char shared[32] = "";
    if (cores < threads) {
        snprintf(shared, sizeof shared, " on %.3g of a core", cores);
        if (cores >= 1) {
            snprintf(shared, sizeof shared, " on %.3g core%s", cores, cores == 1 ? "" : "s");
        }
    }
    snprintf(rates->name, sizeof rates->name, "%s, %d thread%s a rank%s", where, threads, p4_plural(threads),
             shared);
}

/* Tokenizing scales with the threads even where ranks share cores: only the first rank tokenizes, and the
 * others sleep meanwhile. */
void p4_plan_rates_table(p4_rates *rates, bool on_gpu, const char *opt_gpu, double room_bytes, int threads,
                         double cores)
{
    if (on_gpu) {
        take_gpu(rates, opt_gpu, room_bytes);
        return;
    }
    *rates = cpu_thread;
    p4_plan_rates_name(rates, "built-in table, CPU", threads, cores);
    rates->forward_flops *= fmin(threads, cores);
    rates->train_flops *= fmin(threads, cores);
    rates->memory_bytes *= fmin(1, cores);
    rates->text_bytes *= threads;
}

bool p4_plan_rates_find(p4_rates *rates, const char *name, int threads, double cores)
{
    bool is_h100 = strcasecmp(name, "H100") == 0, is_h200 = strcasecmp(name, "H200") == 0;
    if (!is_h100 && !is_h200 && strcasecmp(name, "CPU") != 0) {
        return false;
    }
    p4_plan_rates_table(rates, is_h100 || is_h200, is_h100 ? "NVIDIA H100" : "NVIDIA H200", 0, threads,
                        cores);
    return true;
}

const p4_named_gpu *p4_plan_rates_gpu(const char *name)
{
    for (size_t i = 0; i < sizeof named_gpus / sizeof named_gpus[0]; i++) {
        if (strcasecmp(name, named_gpus[i].name) == 0) {
            return &named_gpus[i];
        }
    }
    return NULL;
}

/* Threads matter on CPUs, where the rates are those of all threads of a rank. */
static void note_sharing(char *note, size_t bytes, const p4_rates *r, int planned, int threads)
{
    int measured = r->ranks < r->ranks_per_node ? r->ranks : r->ranks_per_node;
    if (r->device == P4_RATES_OF_CPU && (measured != planned || r->threads != threads)) {
        snprintf(note, bytes,
                 "measured with %d rank%s of %d thread%s on a machine, and this plan has %d rank%s of %d "
                 "thread%s there, whose speed is another",
                 measured, p4_plural(measured), r->threads, p4_plural(r->threads), planned,
                 p4_plural(planned), threads, p4_plural(threads));
    }
}

/* A measurement of one rank has no link, and one of several has either those of a node or those between
 * nodes. */
static void note_links(char *note, size_t bytes, const p4_plan *plan)
{
    const p4_rates *r = &plan->rates;
    bool across = r->ranks > r->ranks_per_node, crosses = p4_plan_nodes(plan, plan->ranks) > 1,
         within = plan->ranks > 1 && plan->ranks_per_node > 1;
    const char *assumed = r->ranks == 1 && plan->ranks > 1 ? "between ranks"
                          : !across && crosses             ? "between machines"
                          : across && within               ? "within a machine"
                                                           : NULL;
    if (assumed != NULL && plan->ranks > 1) {
        snprintf(note, bytes, "the speed of links %s is assumed, not measured", assumed);
    }
}

void p4_plan_rates_compare(p4_plan *plan, int sharing, int threads)
{
    char links[128] = "";
    size_t used;
    plan->rates_note[0] = '\0';
    if (plan->rates.ranks == 0) {
        if (strncmp(plan->rates.name, "measured: ", 10) == 0) { /* by an earlier version */
            snprintf(plan->rates_note, sizeof plan->rates_note,
                     "the file does not say on how many ranks they were measured: they hold for as many");
        }
        return;
    }
    note_sharing(plan->rates_note, sizeof plan->rates_note, &plan->rates, sharing, threads);
    note_links(links, sizeof links, plan);
    used = strlen(plan->rates_note);
    snprintf(plan->rates_note + used, sizeof plan->rates_note - used, "%s%s",
             used > 0 && links[0] != '\0' ? "; " : "", links);
}
