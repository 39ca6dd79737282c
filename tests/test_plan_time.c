/* The time of a plan (jobs/plan_time.c, jobs/plan_work.c): against runs that were measured, and that more
 * work takes longer. */
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "io/file/atomic_file.h"
#include "io/json/config.h"
#include "io/out/plan_json.h"
#include "jobs/plan.h"
#include "kernels/outline.h"

#define H200_BYTES 150e9
#define H100_BYTES 85e9
enum { PATH_BYTES = 256 };
static char world[] = "/tmp/plan_time.XXXXXX";

/* Of config.json: width, layers, heads, heads of keys, width of the MLP, vocabulary; F 0: a GPT-2. Without
 * these it is a file of tests/bench/models. */
typedef struct shape {
    const char *name;
    int C, L, H, K, F, V;
    bool untied;
    const char *title; /* NULL: family, layers and width */
} shape;

static const shape l8 = {"l8", 256, 8, 4, 2, 688, 8192, false, NULL},
                   g8 = {"g8", 256, 8, 4, 4, 0, 8192, false, NULL},
                   l16 = {"l16", 384, 8, 6, 2, 1024, 8192, false, NULL},
                   g23 = {"g23", 512, 6, 8, 8, 0, 8192, false, NULL},
                   l44 = {"l44", 768, 6, 12, 4, 2048, 8192, false, NULL},
                   g46 = {"g46", 768, 6, 12, 12, 0, 8192, false, NULL},
                   l85 = {"l85", 768, 12, 12, 4, 2048, 8192, false, NULL},
                   g124 = {"g124", 768, 12, 12, 12, 0, 50257, false, NULL},
                   llama1b = {"llama1b", 2048, 22, 32, 4, 5632, 32000, true, NULL},
                   mixture8 = {.name = "mixture8", .title = "8 experts of width 1792"},
                   active8 = {.name = "mixture8-active", .title = "the dense model of their active size"},
                   qwen3 = {.name = "qwen3-1.7b", .title = "Qwen3 1.7B"};

static void print_config(FILE *f, const shape *s)
{
    if (s->F > 0) {
        fprintf(f,
                "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", \"hidden_act\": "
                "\"silu\", \"hidden_size\": %d, \"num_hidden_layers\": %d, \"num_attention_heads\": %d, "
                "\"num_key_value_heads\": %d, \"intermediate_size\": %d, \"vocab_size\": %d, "
                "\"max_position_embeddings\": 2048, \"rms_norm_eps\": 1e-5, \"rope_theta\": 10000.0, "
                "\"tie_word_embeddings\": %s, \"bos_token_id\": 1, \"eos_token_id\": 2}",
                s->C, s->L, s->H, s->K, s->F, s->V, s->untied ? "false" : "true");
    } else {
        fprintf(f,
                "{\"architectures\": [\"GPT2LMHeadModel\"], \"model_type\": \"gpt2\", "
                "\"activation_function\": \"gelu_new\", \"n_embd\": %d, \"n_layer\": %d, \"n_head\": %d, "
                "\"vocab_size\": %d, \"n_positions\": 2048, \"layer_norm_epsilon\": 1e-5, \"attn_pdrop\": "
                "0.0, \"embd_pdrop\": 0.0, \"resid_pdrop\": 0.0, \"bos_token_id\": 0, \"eos_token_id\": 0}",
                s->C, s->L, s->H, s->V);
    }
}

static void write_model(const shape *s)
{
    char path[PATH_BYTES], file[PATH_BYTES];
    snprintf(path, sizeof path, "%s/%s", world, s->name);
    mkdir(path, 0700);
    snprintf(path, sizeof path, "%s/%s/config.json", world, s->name);
    if (s->C == 0) {
        snprintf(file, sizeof file, "%s/../bench/models/%s.json", P4_FIXTURES, s->name);
        EXPECT(access(path, F_OK) == 0 || symlink(file, path) == 0, "%s", path);
        return;
    }
    FILE *f = fopen(path, "wb");
    EXPECT(f != NULL, "%s", path);
    print_config(f, s);
    fclose(f);
}

/* Token files of these sizes, empty otherwise: a plan asks for the size. */
static void write_tokens(const char *name, int64_t bytes)
{
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "%s/%s", world, name);
    FILE *f = fopen(path, "wb");
    EXPECT(f != NULL && ftruncate(fileno(f), bytes) == 0, "%s", path);
    fclose(f);
}

/* The plan of a run on GPUs of so much memory, which decides which built-in rates count, or by those of a
 * file. keys: members of the configuration. */
static p4_plan planned(const shape *s, int ranks, const char *keys, double memory, const char *opt_rates)
{
    char json[2048];
    p4_config c;
    p4_plan plan;
    int bytes = snprintf(json, sizeof json,
                         "{\"model_path\": \"%s/%s\", \"output_path\": \"%s/out\", \"device\": \"cuda\", "
                         "\"calibration_dataset\": \"custom\", \"calibration_files\": [\"%s/train.bin\"], "
                         "\"train_files\": [\"%s/train.bin\"], \"eval_files\": [\"%s/eval.bin\"], "
                         "\"wandb_enabled\": false, %s}",
                         world, s->name, world, world, world, world, keys);
    write_model(s);
    EXPECT_OK(p4_config_parse(&c, json, (size_t)bytes, "test", P4_RECIPE_QUALITY));
    const p4_plan_request request = {.ranks = ranks, .memory_bytes = memory, .rates_path = opt_rates};
    EXPECT_OK(p4_plan_make(&plan, &c, &request));
    return plan;
}

static double stage_s(const shape *s, int ranks, const char *keys, p4_plan_stage_id stage)
{
    p4_plan plan = planned(s, ranks, keys, H200_BYTES, NULL);
    double seconds = plan.work[stage].seconds;
    p4_plan_free(&plan);
    return seconds;
}

/* --- against what was measured ----------------------------------------------------------------- */

#define SMALL                                                                                     \
    "\"calibration_samples\": 512, \"calibration_sequence_length\": 512, \"eval_samples\": 100, " \
    "\"fine_tune_threshold\": 0"
#define RECONSTRUCT_1B                                                                           \
    "\"calibration_samples\": 512, \"calibration_sequence_length\": 2048, \"eval_samples\": 8, " \
    "\"enable_fine_tuning\": false, \"save_dequantized_fp16\": false"
#define RECONSTRUCT_128 "\"reconstruct_steps\": 128, " RECONSTRUCT_1B
#define STEPS(optimizer, distill, length, tokens)                                                        \
    "\"reconstruct\": false, \"calibration_samples\": 0, \"eval_samples\": 0, \"fine_tune_max_steps\": " \
    "100, \"optimizer\": \"" optimizer "\", \"distill\": " distill                                       \
    ", \"calibration_sequence_length\": " length ", \"global_batch_tokens\": " tokens

/* Seconds of stages on an NVIDIA H200 or H100 (docs/scale.md says how they were measured). */
typedef struct measurement {
    const shape *model;
    const char *what, *keys;
    int ranks;
    p4_plan_stage_id stage; /* P4_PLAN_STAGES: the whole run */
    double seconds;
    enum { OTHER, FITTED, H100 } kind; /* FITTED: the H200's rates were chosen by it */
} measurement;

static const measurement measured[] = {
    {&l8, "fine-tuning", SMALL, 1, P4_PLAN_FINE_TUNE, 9.56, FITTED},
    {&g8, "fine-tuning", SMALL, 1, P4_PLAN_FINE_TUNE, 9.93, OTHER},
    {&g23, "fine-tuning", SMALL, 1, P4_PLAN_FINE_TUNE, 12.64, OTHER},
    {&l44, "fine-tuning", SMALL, 1, P4_PLAN_FINE_TUNE, 18.05, OTHER},
    {&l85, "fine-tuning", SMALL, 1, P4_PLAN_FINE_TUNE, 31.81, FITTED},
    {&g124, "fine-tuning", SMALL, 1, P4_PLAN_FINE_TUNE, 41.48, OTHER},
    {&l8, "reconstruction", SMALL, 1, P4_PLAN_RECONSTRUCT, 1.57, FITTED},
    {&g8, "reconstruction", SMALL, 1, P4_PLAN_RECONSTRUCT, 1.77, OTHER},
    {&l16, "reconstruction", SMALL, 1, P4_PLAN_RECONSTRUCT, 2.15, OTHER},
    {&g23, "reconstruction", SMALL, 1, P4_PLAN_RECONSTRUCT, 2.38, OTHER},
    {&l44, "reconstruction", SMALL, 1, P4_PLAN_RECONSTRUCT, 3.58, OTHER},
    {&g46, "reconstruction", SMALL, 1, P4_PLAN_RECONSTRUCT, 4.00, OTHER},
    {&l85, "reconstruction", SMALL, 1, P4_PLAN_RECONSTRUCT, 7.14, OTHER},
    {&g124, "reconstruction", SMALL, 1, P4_PLAN_RECONSTRUCT, 8.11, FITTED},
    {&l8, "whole run", SMALL, 1, P4_PLAN_STAGES, 11.73, OTHER},
    {&g8, "whole run", SMALL, 1, P4_PLAN_STAGES, 12.22, OTHER},
    {&g23, "whole run", SMALL, 1, P4_PLAN_STAGES, 15.76, OTHER},
    {&l44, "whole run", SMALL, 1, P4_PLAN_STAGES, 22.61, OTHER},
    {&l85, "whole run", SMALL, 1, P4_PLAN_STAGES, 40.68, OTHER},
    {&llama1b, "reconstruction, 128 steps", RECONSTRUCT_128, 1, P4_PLAN_RECONSTRUCT, 62.4, FITTED},
    {&llama1b, "reconstruction, 128 steps", RECONSTRUCT_128, 2, P4_PLAN_RECONSTRUCT, 32.91, OTHER},
    {&llama1b, "calibration", RECONSTRUCT_1B, 1, P4_PLAN_CALIBRATE, 4.80, OTHER},
    {&llama1b, "100 steps, AdamW", STEPS("adamw", "0", "2048", "16384"), 1, P4_PLAN_FINE_TUNE,
     100 * 16384 / 78080.0, OTHER},
    {&llama1b, "100 steps, AdamW, distillation", STEPS("adamw", "0.5", "2048", "16384"), 1, P4_PLAN_FINE_TUNE,
     100 * 16384 / 58990.0, OTHER},
    {&g124, "100 steps, AdamW", STEPS("adamw", "0", "1024", "32768"), 1, P4_PLAN_FINE_TUNE,
     100 * 32768 / 536100.0, OTHER},
    {&mixture8, "100 steps, AdamW", STEPS("adamw", "0", "2048", "16384"), 1, P4_PLAN_FINE_TUNE,
     100 * 16384 / 227459.0, OTHER},
    {&active8, "100 steps, AdamW", STEPS("adamw", "0", "2048", "16384"), 1, P4_PLAN_FINE_TUNE,
     100 * 16384 / 278965.0, OTHER},
    {&qwen3, "100 steps, AdamW", STEPS("adamw", "0", "2048", "16384"), 1, P4_PLAN_FINE_TUNE,
     100 * 16384 / 45497.0, OTHER},
    {&llama1b, "100 steps, AdamW", STEPS("adamw", "0", "2048", "16384"), 1, P4_PLAN_FINE_TUNE,
     100 * 16384 / 75506.0, H100},
    {&llama1b, "100 steps, Muon", STEPS("mugrokfast", "0", "2048", "16384"), 1, P4_PLAN_FINE_TUNE,
     100 * 16384 / 59162.0, H100},
    {&g124, "100 steps, AdamW", STEPS("adamw", "0", "1024", "32768"), 1, P4_PLAN_FINE_TUNE,
     100 * 32768 / 562514.0, H100},
};

/* Rows of a table of docs/scale.md, which tests/bench/scale.py writes. */
static void stages_take_what_was_measured(void)
{
    for (size_t i = 0; i < sizeof measured / sizeof measured[0]; i++) {
        const measurement *m = &measured[i];
        p4_plan plan = planned(m->model, m->ranks, m->keys, m->kind == H100 ? H100_BYTES : H200_BYTES, NULL);
        double seconds = m->stage < P4_PLAN_STAGES ? plan.work[m->stage].seconds : plan.total_s,
               error = seconds / m->seconds - 1;
        p4_plan_free(&plan);
        char model[64];
        snprintf(model, sizeof model, "%s, %d layers of %d", m->model->F > 0 ? "Llama" : "GPT-2", m->model->L,
                 m->model->C);
        printf("| %s | %s | %d %s | %.4g s | %.4g s | %+.0f %%%s |\n",
               m->model->title != NULL ? m->model->title : model, m->what, m->ranks,
               m->kind == H100 ? "H100" : "H200", m->seconds, seconds, 100 * error,
               m->kind == FITTED ? ", fitted" : "");
        EXPECT(fabs(error) <= 0.25, "%s: planned %g s, measured %g", m->model->name, seconds, m->seconds);
    }
}

/* --- what takes longer ------------------------------------------------------------------------- */

#define STEP "\"calibration_samples\": 64, \"reconstruct\": false, \"fine_tune_max_steps\": 50, "

/* Each configuration takes longer than the one before it. */
static void more_work_takes_longer(void)
{
    static const struct {
        const char *what;
        const shape *model;
        const char *less, *more;
    } cases[] = {
        {"tokens in a step", &l44, STEP "\"global_batch_tokens\": 4096",
         STEP "\"global_batch_tokens\": 8192"},
        {"windows to evaluate", &l44, STEP "\"eval_samples\": 4", STEP "\"eval_samples\": 40"},
        {"Muon", &l44, STEP "\"optimizer\": \"adamw\"", STEP "\"optimizer\": \"mugrokfast\""},
        {"a teacher", &l44, STEP "\"distill\": 0", STEP "\"distill\": 0.5"},
        {"the teacher's blocks", &l44, STEP "\"distill\": 0.5",
         STEP "\"distill\": 0.5, \"distill_blocks\": 1"},
        {"scales that are learned", &l44, STEP "\"learn_scales\": false", STEP "\"learn_scales\": true"},
        {"Grokfast", &l44, STEP "\"enable_grokfast\": false", STEP "\"enable_grokfast\": true"},
        {"blocks that are computed again", &l44, STEP "\"recompute\": \"none\"",
         STEP "\"recompute\": \"blocks\""},
        {"small micro-batches", &l44, STEP "\"micro_batch_size\": 4", STEP "\"micro_batch_size\": 1"},
        {"evaluations", &l44, STEP "\"eval_every\": 0", STEP "\"eval_every\": 10"},
        {"codes that are unpacked in every pass", &llama1b, STEP "\"activation_bits\": 0, \"distill\": 0",
         STEP "\"micro_batch_size\": 1, \"distill\": 0"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        double less = stage_s(cases[i].model, 1, cases[i].less, P4_PLAN_FINE_TUNE),
               more = stage_s(cases[i].model, 1, cases[i].more, P4_PLAN_FINE_TUNE);
        EXPECT(less > 0 && more > less, "%s: %g s, without %g s", cases[i].what, more, less);
    }
}

static void more_ranks_take_less_time(void)
{
    double last_training = INFINITY, last_blocks = INFINITY, most = 0;
    for (int ranks = 1; ranks <= 8; ranks *= 2) {
        p4_plan plan =
            planned(&llama1b, ranks, "\"fine_tune_max_steps\": 10, \"global_batch_tokens\": 131072",
                    H200_BYTES, NULL);
        double training = plan.work[P4_PLAN_FINE_TUNE].seconds,
               blocks = plan.work[P4_PLAN_RECONSTRUCT].seconds;
        EXPECT(training < last_training && blocks < last_blocks,
               "%d ranks: %g s and %g s, with half %g and %g", ranks, training, blocks, last_training,
               last_blocks);
        most = fmax(most, training);
        EXPECT(training * ranks >= most, "%d ranks train in %g s, one in %g s", ranks, training, most);
        last_training = training;
        last_blocks = blocks;
        p4_plan_free(&plan);
    }
}

/* --- files of rates ---------------------------------------------------------------------------- */

static const char *write_rates_of(const char *head, const char *kernel)
{
    static char path[PATH_BYTES];
    snprintf(path, sizeof path, "%s/rates.json", world);
    FILE *f = fopen(path, "wb");
    EXPECT(f != NULL, "%s", path);
    fprintf(
        f,
        "{%s, \"forward_flops\": 6e14, \"train_flops\": 4e14, "
        "\"memory_bytes_per_s\": 3e12, %s\"disk_read_bytes_per_s\": 5e9, \"disk_write_bytes_per_s\": 2e9, "
        "\"node_link_bytes_per_s\": 3e11, \"net_link_bytes_per_s\": 4e10, \"text_bytes_per_s\": 5e7}",
        head, kernel);
    fclose(f);
    return path;
}

static const char *write_rates(const char *kernel)
{
    return write_rates_of("\"name\": \"a test\", \"device\": \"cuda\"", kernel);
}

/* A file without the time of a kernel, as earlier versions wrote it: its rates count all the work of a step,
 * so that AdamW's is that of its products, but for what is done by weights. */
static void rates_without_kernels_count_products(void)
{
    p4_plan plan = planned(&llama1b, 1, STEPS("adamw", "0", "2048", "16384"), H200_BYTES, write_rates(""));
    const p4_stage_work *w = &plan.work[P4_PLAN_FINE_TUNE];
    EXPECT(plan.rates.kernel_s == 0, "%g", plan.rates.kernel_s);
    double weights = 100 * 1.1e9 * (28 + 3 * 4 + 5) / plan.rates.memory_bytes;
    EXPECT(w->seconds > w->flops / plan.rates.train_flops, "%g", w->seconds);
    EXPECT_NEAR(w->seconds, w->flops / plan.rates.train_flops + weights / 2, weights / 2);
    p4_plan_free(&plan);
    p4_plan slow = planned(&llama1b, 1, STEPS("adamw", "0", "2048", "16384"), H200_BYTES,
                           write_rates("\"kernel_seconds\": 1e-3, "));
    EXPECT_NEAR(slow.rates.kernel_s, 1e-3, 1e-12);
    EXPECT(slow.work[P4_PLAN_FINE_TUNE].seconds > 100 * 22 * 20 * 1e-3, "20 kernels a block: %g s",
           slow.work[P4_PLAN_FINE_TUNE].seconds);
    p4_plan_free(&slow);
}

/* --- networks that are timed ------------------------------------------------------------------- */

/* From the seconds of the two networks by the built-in rates follow these rates. */
static void rates_follow_from_networks(void)
{
    const double rooms[] = {H100_BYTES, H200_BYTES};
    p4_compute compute = {.ops = &p4_outline_ops, .device = p4_outline_open((int64_t)H200_BYTES, true)};
    EXPECT(compute.device != NULL, "%s", p4_last_error());
    for (int i = 0; i < 2; i++) {
        p4_rates table, found;
        p4_plan_rates_table(&table, true, NULL, rooms[i], 1, 1);
        const p4_network_times times = p4_plan_networks(&table, &compute);
        EXPECT(times.narrow_s > 0 && times.narrow_s < times.wide_s, "%g s, %g s", times.narrow_s,
               times.wide_s);
        found = (p4_rates){.memory_bytes = table.memory_bytes};
        EXPECT_OK(p4_plan_rates_of_networks(&found, &times, &compute));
        EXPECT_NEAR(found.train_flops, table.train_flops, 1e-3 * table.train_flops);
        EXPECT_NEAR(found.forward_flops, table.train_flops, 1e-3 * table.train_flops);
        EXPECT_NEAR(found.kernel_s, table.kernel_s, 1e-3 * table.kernel_s);
    }
    p4_rates none = {.memory_bytes = 1e9}; /* with which the wide network alone takes longer */
    EXPECT_REFUSED(p4_plan_rates_of_networks(&none, &(p4_network_times){1e-3, 2e-3}, &compute),
                   "take 0.001 s and 0.002 s, which no rate of products");
    free(compute.device);
}

static void other_times_of_kernels_are_refused(void)
{
    p4_rates rates;
    EXPECT_REFUSED(p4_rates_read(&rates, write_rates("\"kernel_seconds\": -1, ")),
                   "kernel_seconds: expected a number that is not negative");
    EXPECT_REFUSED(p4_rates_read(&rates, write_rates("\"kernel_seconds\": \"1\", ")),
                   "kernel_seconds: expected a number that is not negative");
}

/* Rates of CPUs say nothing about GPUs: a file says of which they are, and that of an earlier version by its
 * name. */
static void rates_of_other_devices_are_refused(void)
{
    static const struct {
        const char *head;
        bool gpu;
        const char *refused; /* NULL: read */
    } cases[] = {{"\"name\": \"x\", \"device\": \"cpu\"", false, NULL},
                 {"\"name\": \"measured: CPU\", \"device\": \"cuda\"", true, NULL},
                 {"\"name\": \"measured: CPU, 2 threads, OpenBLAS\"", false, NULL},
                 {"\"name\": \"built-in table, CPU, 2 threads a rank\"", false, NULL},
                 {"\"name\": \"measured: NVIDIA H200, links assumed\"", true, NULL},
                 {"\"name\": \"mine\"", false, "does not say whether its rates are of CPUs or of GPUs"},
                 {"\"device\": \"tpu\"", false, "device: found \"tpu\", expected \"cpu\" or \"cuda\""}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        p4_rates rates;
        const char *path = write_rates_of(cases[i].head, "");
        if (cases[i].refused != NULL) {
            EXPECT_REFUSED(p4_rates_read(&rates, path), cases[i].refused);
            continue;
        }
        EXPECT_OK(p4_rates_read(&rates, path));
        EXPECT((rates.device == P4_RATES_OF_GPU) == cases[i].gpu, "%s", cases[i].head);
        p4_rates again;
        EXPECT_OK(p4_rates_write(&rates, path));
        EXPECT_OK(p4_rates_read(&again, path));
        EXPECT(again.device == rates.device, "%s is not written", cases[i].head);
    }
    static p4_config c;
    char json[2 * PATH_BYTES];
    p4_plan plan;
    int bytes = snprintf(json, sizeof json,
                         "{\"model_path\": \"%s/%s\", \"output_path\": \"%s/out\", \"device\": \"cuda\", "
                         "\"calibration_samples\": 0, \"eval_samples\": 0, \"reconstruct\": false, "
                         "\"enable_fine_tuning\": false, \"wandb_enabled\": false}",
                         world, llama1b.name, world);
    EXPECT_OK(p4_config_parse(&c, json, (size_t)bytes, "test", P4_RECIPE_QUALITY));
    const p4_plan_request request = {.ranks = 8,
                                     .memory_bytes = 80e9,
                                     .rates_path =
                                         write_rates_of("\"name\": \"measured: CPU, 2 threads\"", "")};
    EXPECT_REFUSED(p4_plan_make(&plan, &c, &request),
                   "its rates are of CPUs (measured: CPU, 2 threads), and the plan is for GPUs");
    p4_plan_free(&plan);
}

int main(void)
{
    EXPECT(mkdtemp(world) != NULL, "%s", world);
    write_tokens("train.bin", 8 << 20);
    write_tokens("eval.bin", 200 << 10);
    stages_take_what_was_measured();
    more_work_takes_longer();
    more_ranks_take_less_time();
    rates_without_kernels_count_products();
    rates_follow_from_networks();
    other_times_of_kernels_are_refused();
    rates_of_other_devices_are_refused();
    EXPECT_OK(p4_remove_tree(world));
    return TEST_END();
}
