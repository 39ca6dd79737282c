/* The built-in table of rates (jobs/plan_rates.c): which GPU it has, and that it says so of others. */
#include "check.h"
#include "jobs/plan.h"

#define UNNAMED "; another GPU takes another time"
#define OTHER "; this GPU is not in it: phase4_mpi --measure-rates"

/* Rates that were measured with `ranks` ranks of `threads` threads, `per_node` on a node, for a plan of
 * others: the note has `part`, NULL: there is none. */
typedef struct comparison {
    p4_rates_device device;
    int ranks, per_node, threads;
    int planned, planned_per_node, planned_threads;
    const char *part;
} comparison;

#define NO_LINKS "the speed of links between ranks is assumed, not measured"

static void rates_are_compared(void)
{
    static const comparison cases[] = {
        {P4_RATES_OF_CPU, 1, 1, 2, 1, 1, 2, NULL},
        {P4_RATES_OF_CPU, 2, 2, 1, 2, 2, 1, NULL},
        {P4_RATES_OF_CPU, 4, 1, 1, 8, 1, 1, NULL},
        {P4_RATES_OF_CPU, 4, 2, 1, 8, 2, 1, "links within a machine is assumed"},
        {P4_RATES_OF_CPU, 2, 2, 1, 1, 1, 1,
         "measured with 2 ranks of 1 thread on a machine, and this plan has 1 rank of 1 thread there"},
        {P4_RATES_OF_CPU, 1, 1, 2, 2, 2, 2,
         "with 1 rank of 2 threads on a machine, and this plan has 2 ranks of 2 threads there, whose speed "
         "is "
         "another; " NO_LINKS},
        {P4_RATES_OF_CPU, 1, 1, 2, 1, 1, 1, "this plan has 1 rank of 1 thread there"},
        {P4_RATES_OF_CPU, 1, 1, 2, 4, 1, 2, NO_LINKS},
        {P4_RATES_OF_CPU, 2, 2, 1, 4, 2, 1, "links between machines is assumed"},
        {P4_RATES_OF_CPU, 4, 2, 1, 2, 2, 1, "links within a machine is assumed"},
        {P4_RATES_OF_GPU, 8, 8, 4, 1, 8, 4, NULL}, /* each rank has a GPU to itself */
        {P4_RATES_OF_GPU, 8, 8, 4, 4, 8, 9, NULL},
        {P4_RATES_OF_GPU, 1, 1, 4, 8, 8, 4, NO_LINKS},
        {P4_RATES_OF_GPU, 8, 8, 4, 16, 8, 4, "links between machines is assumed"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const comparison *c = &cases[i];
        p4_plan plan = {.ranks = c->planned,
                        .ranks_per_node = c->planned_per_node,
                        .rates = {.name = "measured: x",
                                  .device = c->device,
                                  .ranks = c->ranks,
                                  .ranks_per_node = c->per_node,
                                  .threads = c->threads}};
        p4_plan_rates_compare(&plan, p4_plan_node_ranks(&plan), c->planned_threads);
        EXPECT(c->part != NULL ? strstr(plan.rates_note, c->part) != NULL : plan.rates_note[0] == '\0',
               "case %zu: \"%s\", expected \"%s\"", i, plan.rates_note, c->part != NULL ? c->part : "");
    }
    p4_plan old = {.ranks = 1, .ranks_per_node = 1, .rates = {.name = "measured: x"}};
    p4_plan_rates_compare(&old, 1, 1);
    EXPECT(strstr(old.rates_note, "does not say on how many ranks") != NULL, "\"%s\"", old.rates_note);
    p4_plan table = {.ranks = 1, .ranks_per_node = 1, .rates = {.name = "built-in table, CPU"}};
    p4_plan_rates_compare(&table, 1, 1);
    EXPECT(table.rates_note[0] == '\0', "\"%s\"", table.rates_note);
}

static void gpus_have_memory(void)
{
    static const struct {
        const char *asked;
        double bytes;
    } cases[] = {{"H100", 80e9}, {"h100", 80e9}, {"H200", 141e9}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const p4_named_gpu *gpu = p4_plan_rates_gpu(cases[i].asked);
        EXPECT(gpu != NULL && gpu->room_bytes == cases[i].bytes, "%s", cases[i].asked);
    }
    EXPECT(p4_plan_rates_gpu("CPU") == NULL && p4_plan_rates_gpu("A100") == NULL, "memory of no GPU");
}

int main(void)
{
    static const struct {
        const char *gpu;
        double room_bytes;
        const char *name;
    } cases[] = {{"NVIDIA H100 80GB HBM3", 79e9, "built-in table, NVIDIA H100"},
                 {"NVIDIA H100 NVL", 93e9, "built-in table, NVIDIA H100"},
                 {"NVIDIA H200", 140e9, "built-in table, NVIDIA H200"},
                 {"NVIDIA H200", 60e9, "built-in table, NVIDIA H200"}, /* where others use it too */
                 {"NVIDIA H200 MIG 1g.18gb", 16e9, "built-in table, NVIDIA H100" OTHER},
                 {"NVIDIA A100-SXM4-40GB", 39e9, "built-in table, NVIDIA H100" OTHER},
                 {"NVIDIA B200", 178e9, "built-in table, NVIDIA H200" OTHER},
                 {NULL, 24e9, "built-in table, NVIDIA H100" UNNAMED},
                 {NULL, 80e9, "built-in table, NVIDIA H100" UNNAMED},
                 {NULL, 141e9, "built-in table, NVIDIA H200" UNNAMED}};
    p4_rates rates, cpu;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        p4_plan_rates_table(&rates, true, cases[i].gpu, cases[i].room_bytes, 8, 8);
        EXPECT(strcmp(rates.name, cases[i].name) == 0, "%s: \"%s\", expected \"%s\"",
               cases[i].gpu != NULL ? cases[i].gpu : "no name", rates.name, cases[i].name);
        bool fast = strstr(cases[i].name, "H200") != NULL;
        EXPECT((rates.memory_bytes > 4e12) == fast, "%s: %g", rates.name, rates.memory_bytes);
    }
    p4_plan_rates_table(&cpu, false, "CPU, 1 thread", 1e9, 1, 1);
    p4_plan_rates_table(&rates, false, "CPU, 3 threads", 1e9, 3, 3);
    EXPECT(strcmp(rates.name, "built-in table, CPU, 3 threads a rank") == 0, "%s", rates.name);
    EXPECT_NEAR(rates.train_flops, 3 * cpu.train_flops, 1);
    /* Three ranks on two cores, one on a core and a half */
    p4_plan_rates_table(&rates, false, "CPU, 1 thread", 1e9, 1, 2.0 / 3);
    EXPECT(strcmp(rates.name, "built-in table, CPU, 1 thread a rank on 0.667 of a core") == 0, "%s",
           rates.name);
    EXPECT_NEAR(rates.train_flops, cpu.train_flops * 2 / 3, 1);
    EXPECT_NEAR(rates.forward_flops, cpu.forward_flops * 2 / 3, 1);
    EXPECT_NEAR(rates.memory_bytes, cpu.memory_bytes * 2 / 3, 1);
    EXPECT_NEAR(rates.text_bytes, cpu.text_bytes, 1);
    p4_plan_rates_table(&rates, false, "CPU, 2 threads", 1e9, 2, 1.5);
    EXPECT(strcmp(rates.name, "built-in table, CPU, 2 threads a rank on 1.5 cores") == 0, "%s", rates.name);
    EXPECT_NEAR(rates.train_flops, 1.5 * cpu.train_flops, 1);
    EXPECT_NEAR(rates.memory_bytes, cpu.memory_bytes, 1);
    static const struct {
        const char *asked, *name;
    } named[] = {{"H100", "built-in table, NVIDIA H100"},
                 {"h200", "built-in table, NVIDIA H200"},
                 {"CPU", "built-in table, CPU, 2 threads a rank"}};
    for (size_t i = 0; i < sizeof named / sizeof named[0]; i++) {
        EXPECT(p4_plan_rates_find(&rates, named[i].asked, 2, 2) && strcmp(rates.name, named[i].name) == 0,
               "%s: \"%s\"", named[i].asked, rates.name);
        EXPECT((rates.device == P4_RATES_OF_GPU) == (i < 2), "%s: another device", named[i].asked);
        EXPECT(strstr(P4_PLAN_RATES_NAMES, i == 1 ? "H200" : named[i].asked) != NULL, "a name is not said");
    }
    EXPECT(!p4_plan_rates_find(&rates, "A100", 1, 1), "rates of a GPU that is not in the table");
    rates_are_compared();
    gpus_have_memory();
    char text[P4_PLAN_DURATION_BYTES];
    EXPECT(strcmp(p4_plan_format_duration(text, 47 * 3600), "47.0 h") == 0, "%s", text);
    EXPECT(strcmp(p4_plan_format_duration(text, 60 * 3600), "2.5 days") == 0, "%s", text);
    return TEST_END();
}
