/* ops_cases.h - what the tests and the benchmark of the ops share: a device with its inputs and outputs,
 * random arrays, and the runner that gives every case to every backend, on one thread and on several, and
 * compares the bits.
 *
 * A case takes fresh random inputs, fills outputs with NaN, runs the op and compares with a double reference.
 *
 * P4_TEST_FEW in the environment, for tools under which a kernel takes a thousand times as long
 * (compute-sanitizer's racecheck): a table of shapes ends early, and nothing runs twice. What is left
 * launches the same kernels.
 */
#ifndef P4_OPS_CASES_H
#define P4_OPS_CASES_H

#include <stdlib.h>
#include <time.h>

#include "check.h"
#include "kernels/ops.h"
#include "src/leaf/hash.h"
#include "src/leaf/rng.h"

enum { RIG_BLOCKS = 512 };

typedef struct rig {
    const p4_ops *ops;
    p4_device *device;
    p4_rng rng;
    double eps;      /* relative error of one stored activation: 2^-24 or 2^-8 */
    uint64_t digest; /* of all bytes read back from the device */
    int device_blocks, host_blocks;
    void *on_device[RIG_BLOCKS], *on_host[RIG_BLOCKS]; /* released by rig_clear */
} rig;

static inline bool test_few(void)
{
    return getenv("P4_TEST_FEW") != NULL;
}

/* How many shapes of a table to run: all, or with P4_TEST_FEW the first `few`, among which every kernel finds
 * its own. */
static inline int shapes_to_run(size_t all, size_t few)
{
    return (int)(test_few() ? few : all);
}

static inline p4_rc rig_open_as(rig *r, const p4_ops *ops, int threads, bool half_compute, uint64_t seed)
{
    *r = (rig){.ops = ops, .rng = {.seed = seed}, .digest = P4_HASH_START};
    p4_rc rc = ops->open(&r->device, 0, threads, half_compute);
    if (rc == P4_OK) {
        r->eps = ops->act_bytes(r->device) == 4 ? 0x1p-24 : 0x1p-8;
    }
    return rc;
}

static inline p4_rc rig_open(rig *r, const p4_ops *ops, int threads, uint64_t seed)
{
    return rig_open_as(r, ops, threads, false, seed);
}

static inline void rig_clear(rig *r)
{
    for (int i = 0; i < r->device_blocks; i++) {
        r->ops->release(r->device, r->on_device[i]);
    }
    for (int i = 0; i < r->host_blocks; i++) {
        free(r->on_host[i]);
    }
    r->device_blocks = r->host_blocks = 0;
}

static inline void rig_close(rig *r)
{
    rig_clear(r);
    r->ops->close(r->device);
}

/* Memory that lives until rig_clear. A test cannot go on without it. */
static inline void *rig_host(rig *r, int64_t bytes)
{
    void *memory = calloc(1, (size_t)p4_max_i64(bytes, 1));
    if (!memory || r->host_blocks == RIG_BLOCKS) {
        fprintf(stderr, "out of memory or blocks in a test\n");
        exit(1);
    }
    r->on_host[r->host_blocks++] = memory;
    return memory;
}

static inline void *rig_device(rig *r, int64_t bytes)
{
    void *memory = NULL;
    if (r->device_blocks == RIG_BLOCKS || r->ops->alloc(r->device, &memory, bytes) != P4_OK) {
        fprintf(stderr, "out of device memory or blocks in a test: %s\n", p4_last_error());
        exit(1);
    }
    r->on_device[r->device_blocks++] = memory;
    return memory;
}

/* Bytes on the device: a copy of `from`, or all bits set (NaN in every float type) when it is NULL. */
static inline void *rig_put(rig *r, const void *from, int64_t bytes)
{
    void *memory = rig_device(r, bytes);
    if (from) {
        r->ops->to_device(r->device, memory, from, bytes);
    } else {
        void *poison = malloc((size_t)p4_max_i64(bytes, 1));
        if (poison) {
            memset(poison, 0xff, (size_t)bytes);
            r->ops->to_device(r->device, memory, poison, bytes);
        }
        free(poison);
    }
    return memory;
}

static inline float *rig_put_f32(rig *r, const float *from, int64_t count)
{
    return rig_put(r, from, count * (int64_t)sizeof(float));
}

/* act[count] = fp32 values that lie on the device. */
static inline void rig_f32_to_act(rig *r, void *act, const float *from, int64_t count)
{
    const p4_weight row = {.dtype = P4_F32, .rows = 1, .cols = count, .data = from};
    r->ops->weight_unpack(r->device, act, &row);
}

/* An activation array: from fp32 values, or poisoned when NULL. */
static inline void *rig_put_act(rig *r, const float *from, int64_t count)
{
    void *act = rig_put(r, NULL, count * r->ops->act_bytes(r->device));
    if (from) {
        rig_f32_to_act(r, act, rig_put_f32(r, from, count), count);
    }
    return act;
}

/* Reads bytes back and adds them to the digest. */
static inline void *rig_get(rig *r, const void *from, int64_t bytes)
{
    uint8_t *to = rig_host(r, bytes);
    r->ops->to_host(r->device, to, from, bytes);
    EXPECT_OK(r->ops->sync(r->device));
    r->digest = p4_hash(r->digest, to, (size_t)bytes);
    return to;
}

static inline float *rig_get_f32(rig *r, const float *from, int64_t count)
{
    return rig_get(r, from, count * (int64_t)sizeof(float));
}

static inline float *rig_get_act(rig *r, const void *act, int64_t count)
{
    float *values = rig_put(r, NULL, count * (int64_t)sizeof(float));
    r->ops->act_to_f32(r->device, values, act, count);
    return rig_get_f32(r, values, count);
}

/* An integer of [low, high]. */
static inline int64_t rig_integer(rig *r, int64_t low, int64_t high)
{
    return low + (int64_t)p4_rng_below(&r->rng, (uint64_t)(high - low + 1));
}

/* Normal values of standard deviation `size`. */
static inline float *rig_random(rig *r, int64_t count, double size)
{
    float *values = rig_host(r, count * (int64_t)sizeof(float));
    for (int64_t i = 0; i < count; i++) {
        values[i] = (float)(size * p4_rng_normal(&r->rng));
    }
    return values;
}

/* Normal values that the device's activations hold exactly. */
static inline float *rig_random_act(rig *r, int64_t count, double size)
{
    float *values = rig_random(r, count, size);
    for (int64_t i = 0; r->ops->act_bytes(r->device) == 2 && i < count; i++) {
        values[i] = p4_bf16_to_f32(p4_f32_to_bf16(values[i]));
    }
    return values;
}

static inline int32_t *rig_ids(rig *r, int64_t count, int64_t low, int64_t high)
{
    int32_t *ids = rig_host(r, count * (int64_t)sizeof(int32_t));
    for (int64_t i = 0; i < count; i++) {
        ids[i] = (int32_t)rig_integer(r, low, high);
    }
    return ids;
}

static inline double *rig_doubles(rig *r, const float *from, int64_t count)
{
    double *values = rig_host(r, count * (int64_t)sizeof(double));
    for (int64_t i = 0; from && i < count; i++) {
        values[i] = (double)from[i];
    }
    return values;
}

/* One expectation for a whole array: the largest |got - want| is within bound * the largest |want| + floor.
 */
static inline void expect_array(const char *what, const float *got, const double *want, int64_t count,
                                double bound, double floor)
{
    double worst = 0.0, largest = 0.0;
    int64_t at = -1;
    for (int64_t i = 0; i < count; i++) {
        double difference = fabs((double)got[i] - want[i]);
        if (!(difference <= worst)) { /* also when it is NaN */
            worst = difference;
            at = i;
            if (isnan(difference)) {
                break;
            }
        }
        largest = fmax(largest, fabs(want[i]));
    }
    EXPECT(worst <= bound * largest + floor, "%s: element %lld of %lld: got %.9g, want %.9g, bound %.3g",
           what, (long long)at, (long long)count, at < 0 ? 0.0 : (double)got[at], at < 0 ? 0.0 : want[at],
           bound * largest + floor);
}

/* d loss / d value[i] by central differences; loss reads `value` through its context. */
static inline double slope(double *value, int64_t i, double (*loss)(void *context), void *context)
{
    const double step = 1e-5;
    double kept = value[i];
    value[i] = kept + step;
    double up = loss(context);
    value[i] = kept - step;
    double down = loss(context);
    value[i] = kept;
    return (up - down) / (2.0 * step);
}

/* Compares up to `tries` random elements of a gradient with the slopes of the double reference, relative to
 * the largest element of the gradient. */
static inline void expect_slopes(rig *r, const char *what, const float *gradient, double *value,
                                 int64_t count, int tries, double (*loss)(void *context), void *context,
                                 double bound)
{
    double largest = 0.0;
    for (int64_t i = 0; i < count; i++) {
        largest = fmax(largest, fabs((double)gradient[i]));
    }
    for (int t = 0; t < tries; t++) {
        int64_t i = rig_integer(r, 0, count - 1);
        double want = slope(value, i, loss, context);
        EXPECT(fabs((double)gradient[i] - want) <= bound * fmax(largest, 0.05),
               "%s: slope at %lld: got %.9g, want %.9g", what, (long long)i, (double)gradient[i], want);
    }
}

typedef struct ops_case {
    const char *name;
    void (*run)(rig *r);
} ops_case;

/* One way to run all cases; neighbours with the same `half` must give the same bits. */
typedef struct ops_way {
    const char *backend;
    int threads;
    bool half;
} ops_way;

/* Runs a case one way; *first gets the digest of the first of several ways that must agree. */
static inline void run_case(const ops_case *one, const p4_ops *ops, const ops_way *way, uint64_t seed,
                            bool new_bits, uint64_t *first)
{
    static rig r;
    if (rig_open_as(&r, ops, way->threads, way->half, seed) != P4_OK) {
        EXPECT(false, "%s: %s", way->backend, p4_last_error());
        return;
    }
    int failed = check_failed;
    one->run(&r);
    *first = new_bits ? r.digest : *first;
    EXPECT(r.digest == *first, "%s: other bits than in the run before", one->name);
    if (check_failed != failed) {
        fprintf(stderr, "case %s on %s (%d threads, %s) failed\n", one->name, way->backend, way->threads,
                way->half ? "bf16" : "fp32");
    }
    rig_close(&r);
}

/* False on a machine without a GPU, unless P4_NEED_GPU is set: then the cases run and fail. */
static inline bool backend_is_here(const p4_ops *ops)
{
    p4_device *device = NULL;
    if (getenv("P4_NEED_GPU") || ops->open(&device, 0, 1, false) == P4_OK) {
        ops->close(device);
        return true;
    }
    printf("%s is skipped: %s\n", ops->name, p4_last_error());
    p4_error_clear();
    return false;
}

/* Runs every case on every backend of this build: on the CPU with 1, 2 and 5 threads, on a GPU in both
 * compute types, each twice. The digests must agree. With P4_TEST_FEW once. */
static inline int run_cases(const ops_case *cases, size_t count)
{
    static const ops_way ways[] = {{"cpu", 1, false},  {"cpu", 2, false},  {"cpu", 5, false},
                                   {"cuda", 0, false}, {"cuda", 0, false}, {"cuda", 0, true},
                                   {"cuda", 0, true}};
    enum { WAYS = sizeof ways / sizeof ways[0] };
    const char *given = getenv("P4_TEST_SEED");
    uint64_t seed = given ? strtoull(given, NULL, 10) : (uint64_t)time(NULL);
    const p4_ops *cuda = p4_ops_find("cuda");
    bool with_cuda = cuda && backend_is_here(cuda);
    printf("seed %llu (P4_TEST_SEED repeats it)\n", (unsigned long long)seed);
    for (size_t c = 0; c < count; c++) {
        uint64_t first = 0;
        for (size_t w = 0; w < WAYS; w++) {
            const p4_ops *ops = p4_ops_find(ways[w].backend);
            bool new_bits =
                w == 0 || ops != p4_ops_find(ways[w - 1].backend) || ways[w].half != ways[w - 1].half;
            if (ops && (ops != cuda || with_cuda) && (new_bits || !test_few())) {
                run_case(&cases[c], ops, &ways[w], seed + c, new_bits, &first);
            }
        }
    }
    return TEST_END();
}

#endif
