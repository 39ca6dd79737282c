/* plan_rates.c - how fast a rank is, by a table. Rates say how long a run takes and nothing about its
 * results.
 */
#include <math.h>
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
                              .kernel_s = 5.5e-6,
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
                              .kernel_s = 5.5e-6,
                              .disk_read = 5e9,
                              .disk_write = 2e9,
                              .node_link = 360e9,
                              .net_link = 45e9,
                              .text_bytes = 50e6};
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
