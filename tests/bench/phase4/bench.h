/* bench.h - what the commands of phase4_bench share: options, a device with its two measured ceilings,
 * timing, lines.
 *
 * A line is "name | ours unit | what stands beside it, its figure | ratio | note": the ratio is above 1 where
 * ours is better. Lines that begin with # say what was run. run_gpu_bench.sh reads both. */
#ifndef P4_BENCH_H
#define P4_BENCH_H

#include "io/hf/hf_model.h"
#include "kernels/ops.h"

typedef struct bench_options {
    const char *device; /* "cuda", "cpu", "auto": cuda where there is one */
    const char *model;  /* a directory, or the name of a file in tests/bench/models without .json */
    const char *shape;  /* of the ops: llama, gpt2, demo */
    const char *filter; /* part of a case's name, "" for all */
    int64_t batch, micro, length, steps, rows, cols;
    int threads, activation_bits, zero_stage;
    p4_quantizer quantizer;
    p4_optimizer optimizer;
    p4_optimizer_state optimizer_state;
    p4_recompute recompute;
    p4_teacher_kind teacher; /* of distillation; AUTO: there is none */
    bool blocks;             /* compared with the teacher's */
    bool grokfast, fp32;
} bench_options;

/* The commands. Each prints its lines. */
p4_rc bench_ops(const bench_options *o);       /* every op of the table at one model's shapes */
p4_rc bench_ternarise(const bench_options *o); /* quantizing and packing one large bf16 matrix */
p4_rc bench_muon(const bench_options *o);      /* the optimizer's update of all block matrices of a model */
p4_rc bench_train(const bench_options *o);     /* whole training steps */
p4_rc bench_load(const bench_options *o);      /* reading every weight of a model directory */

/* --- device ----------------------------------------------------------------------------------- */

typedef struct bench_device {
    const p4_ops *ops;
    p4_device *device;
    bool cuda;
    double copy_gbs,
        gemm_tflops; /* measured ceilings: bytes read + written, and the product of two square matrices */
} bench_device;

/* Opens the device and measures its ceilings. The caller closes. */
p4_rc bench_device_open(bench_device *d, const bench_options *o);
void bench_device_close(bench_device *d);
/* The ceilings of a device that is open already, each with a line. The memory it takes is given back. */
p4_rc bench_measure_ceilings(bench_device *d);

/* `count` elements of `dtype` (F32 or BF16) at `to` = offset + deviation * normal numbers; the bits repeat
 * after a prime number of elements, so that rows differ. */
p4_rc bench_fill(const bench_device *d, void *to, p4_dtype dtype, int64_t count, float deviation,
                 float offset);
/* The type of the device's activations. */
p4_dtype bench_act_dtype(const bench_device *d);

/* --- time ------------------------------------------------------------------------------------- */

typedef struct bench_time {
    double median_s; /* of one call */
    int calls,
        runs; /* a measurement is `calls` calls queued one after another, then one sync; `runs` of them */
} bench_time;

/* Median of 5 measurements of about 20 ms each, after a warm-up. */
p4_rc bench_measure(bench_time *time, const bench_device *d, void (*work)(void *user), void *user);
/* Sorts the values; the upper median. */
double bench_median(double *values, int64_t count);

/* --- lines ------------------------------------------------------------------------------------ */

/* One line. beside NULL: nothing stands beside it. For the units ms, s and GiB less is better. */
void bench_line(const char *name, double ours, const char *unit, const char *beside, double figure,
                const char *note_format, ...) P4_PRINTF(6, 7);

/* --- models ----------------------------------------------------------------------------------- */

/* Architecture of options.model; *config_json (may be NULL) is the text, which the caller frees. */
p4_rc bench_arch_read(p4_arch *arch, char **config_json, const char *model);
/* Is it a directory with weights? */
bool bench_model_has_weights(const char *model);
/* A model of that architecture with random bf16 weights that take the memory of one tensor: all are views,
 * shifted against each other, of *weights, which the caller frees after p4_hf_model_close. */
p4_rc bench_model_open(p4_hf_model *hf, float **weights, const char *model);
/* Floating-point operations of training on one token, forward and backward, without recomputation: 6 for each
 * weight of a matrix and 6 T H D a layer for the visible scores. */
double bench_train_flop(const p4_model *model, int64_t T);
/* Operations of Muon's Newton-Schulz steps over the marked parameters: 5 (4 m^2 n + 2 m^3) a matrix, m <= n.
 */
double bench_muon_flop(const p4_model *model, const bool *held);

#endif
