/* phase4_bench - speed of the ops and of whole pieces of work, to set beside a ceiling or a peer of
 * tests/bench.
 *
 *   phase4_bench ops        [--shape llama|gpt2|demo|middle] [--filter PART] [--batch B] [--length T]
 *   phase4_bench ternarise  [--rows N] [--cols N]
 *   phase4_bench muon       --model NAME|DIR
 *   phase4_bench train      --model NAME|DIR [--batch B] [--micro M] [--length T] [--steps N]
 *                           [--optimizer adamw|mugrokfast] [--grokfast] [--quantizer none|absmean|exact]
 *                           [--activation-bits 0|8] [--zero-stage 0|2] [--recompute none|light|blocks]
 *                           [--optimizer-state fp32|bf16] [--teacher none|resident|sharded]
 *                           [--blocks: compares their outputs with the teacher's]
 *   phase4_bench load       --model DIR
 *   all: [--device auto|cuda|cpu] [--threads N] [--fp32]
 *
 * ops: every operation of the table. ternarise: [65536, 8192] bf16 to codes (on the CPU [4096, 4096]). muon:
 * the update of all block matrices. train: one optimizer step (forward, backward, optimizer, requantizing) on
 * random tokens; B counts over all ranks under mpirun. load: every weight read once. NAME: llama1b, gpt2 or
 * demo (tests/bench/models), random weights. What a line says: bench/phase4/bench.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "phase4/bench.h"
#include "src/quantizer.h"

static const struct {
    const char *name;
    p4_rc (*run)(const bench_options *o);
    bool needs_model;
} commands[] = {{"ops", bench_ops, false},
                {"ternarise", bench_ternarise, false},
                {"muon", bench_muon, true},
                {"train", bench_train, true},
                {"load", bench_load, true}};
enum { COMMANDS = sizeof commands / sizeof commands[0] };

static int usage(void)
{
    fprintf(stderr,
            "usage: phase4_bench ops|ternarise|muon|train|load [--device auto|cuda|cpu] [--threads N] "
            "[--fp32]\n"
            "       [--shape llama|gpt2|demo|middle] [--filter PART] [--rows N] [--cols N] "
            "[--model NAME|DIR] [--batch B]\n"
            "       [--micro M] [--length T] [--steps N] [--optimizer adamw|mugrokfast] [--grokfast]\n"
            "       [--quantizer none|absmean|exact] [--activation-bits 0|8] [--zero-stage 0|2]\n"
            "       [--recompute none|light|blocks] [--optimizer-state fp32|bf16]\n"
            "       [--teacher none|resident|sharded] [--blocks]\n");
    return P4_E_INPUT;
}

/* The place of a word in a NULL-ended list, or -1. */
static int find_word(const char *const *words, const char *word)
{
    for (int i = 0; words[i] != NULL; i++) {
        if (strcmp(words[i], word) == 0) {
            return i;
        }
    }
    return -1;
}

/* Options that are one of a few words, in the order of their enumerations. */
static bool parse_word(bench_options *o, const char *key, const char *value)
{
    static const char *const devices[] = {"auto", "cuda", "cpu", NULL},
                             *const optimizers[] = {"mugrokfast", "adamw", NULL},
                             *const states[] = {"fp32", "bf16", NULL},
                             *const recomputes[] = {"none", "light", "blocks", NULL},
                             *const teachers[] = {"none", "resident", "sharded", NULL};
    int at = -1;
    if (strcmp(key, "--device") == 0) {
        at = find_word(devices, value);
        o->device = value;
    } else if (strcmp(key, "--optimizer") == 0) {
        at = find_word(optimizers, value);
        o->optimizer = (p4_optimizer)at;
    } else if (strcmp(key, "--optimizer-state") == 0) {
        at = find_word(states, value);
        o->optimizer_state = (p4_optimizer_state)at;
    } else if (strcmp(key, "--recompute") == 0) {
        at = find_word(recomputes, value);
        o->recompute = (p4_recompute)at;
    } else if (strcmp(key, "--teacher") == 0) {
        at = find_word(teachers, value);
        o->teacher = (p4_teacher_kind)at;
    } else if (strcmp(key, "--quantizer") == 0) {
        at = find_word(p4_quantizer_names, value);
        o->quantizer = (p4_quantizer)at;
    } else if (strcmp(key, "--model") == 0 || strcmp(key, "--shape") == 0 || strcmp(key, "--filter") == 0) {
        const char **to = key[2] == 'm' ? &o->model : key[2] == 's' ? &o->shape : &o->filter;
        *to = value;
        at = 0;
    }
    return at >= 0;
}

static bool parse_number(bench_options *o, const char *key, const char *value)
{
    int64_t number = atoll(value), activation_bits = o->activation_bits, zero_stage = o->zero_stage,
            threads = o->threads;
    const struct {
        const char *key;
        int64_t *to;
    } numbers[] = {
        {"--batch", &o->batch},  {"--micro", &o->micro},        {"--length", &o->length},
        {"--steps", &o->steps},  {"--rows", &o->rows},          {"--cols", &o->cols},
        {"--threads", &threads}, {"--zero-stage", &zero_stage}, {"--activation-bits", &activation_bits}};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        if (strcmp(key, numbers[i].key) == 0 && number >= 0 && number < 1 << 30) {
            *numbers[i].to = number;
            o->activation_bits = (int)activation_bits;
            o->zero_stage = (int)zero_stage;
            o->threads = (int)threads;
            return true;
        }
    }
    return false;
}

static bool parse(bench_options *o, int argc, char **argv)
{
    *o = (bench_options){.device = "auto",
                         .shape = "demo",
                         .filter = "",
                         .steps = 10,
                         .zero_stage = 2,
                         .quantizer = P4_QUANTIZER_EXACT,
                         .optimizer = P4_OPTIMIZER_ADAMW};
    for (int i = 2; i < argc; i++) {
        bool *flag = strcmp(argv[i], "--grokfast") == 0 ? &o->grokfast
                     : strcmp(argv[i], "--blocks") == 0 ? &o->blocks
                     : strcmp(argv[i], "--fp32") == 0   ? &o->fp32
                                                        : NULL;
        if (flag != NULL) {
            *flag = true;
        } else if (i + 1 < argc &&
                   (parse_word(o, argv[i], argv[i + 1]) || parse_number(o, argv[i], argv[i + 1]))) {
            i++;
        } else {
            fprintf(stderr, "phase4_bench: %s is not understood\n", argv[i]);
            return false;
        }
    }
    return o->steps > 0;
}

int main(int argc, char **argv)
{
    bench_options o;
    if (argc < 2 || !parse(&o, argc, argv)) {
        return usage();
    }
    for (int i = 0; i < COMMANDS; i++) {
        if (strcmp(argv[1], commands[i].name) == 0 && (o.model != NULL || !commands[i].needs_model)) {
            p4_rc rc = commands[i].run(&o);
            if (rc != P4_OK) {
                fprintf(stderr, "phase4_bench: %s\n", p4_last_error());
            }
            return (int)rc;
        }
    }
    return usage();
}
