/* The cosine distance of rows of activations, and its gradient. */
#include <float.h>

#include "ops_cases.h"

/* Rows of a case: random ones, nearly equal ones, opposite ones, zero ones on either side, and one whose
 * squares are lost in fp32. */
typedef enum kind { RANDOM, NEAR, OPPOSITE, ZERO, ZERO_TARGET, LOST, KINDS } kind;

static void fill_row(rig *r, float *x, float *target, int64_t C, kind k)
{
    for (int64_t c = 0; c < C; c++) {
        double noise = 0.05 * p4_rng_normal(&r->rng);
        switch (k) {
        case NEAR:
            target[c] = x[c] * (float)(1.0 + noise);
            break;
        case OPPOSITE:
            target[c] = -2.0f * x[c];
            break;
        case ZERO:
            x[c] = 0.0f;
            break;
        case ZERO_TARGET:
            target[c] = 0.0f;
            break;
        case LOST:
            x[c] = c % 2 ? 0x1p-100f : -0x1p-100f;
            break;
        default:
            break;
        }
    }
}

/* What a row is to give; bounds of both, relative to what the op rounds. */
typedef struct expected {
    double distance, gradient_bound;
} expected;

/* d [C] = the gradient at x. The op sums fp32 products of a few elements at a time, then in double. */
static expected reference_row(double *d, const float *x, const float *target, int64_t C, double scale)
{
    double xx = 0.0, tt = 0.0, xt = 0.0, largest = 0.0;
    for (int64_t c = 0; c < C; c++) {
        xx += (double)x[c] * (double)x[c];
        tt += (double)target[c] * (double)target[c];
        xt += (double)x[c] * (double)target[c];
        d[c] = 0.0;
    }
    if (xx < (double)FLT_MIN || tt < (double)FLT_MIN) {
        return (expected){1.0, 0.0};
    }
    double lengths = sqrt(xx) * sqrt(tt), cosine = xt / lengths;
    for (int64_t c = 0; c < C; c++) {
        d[c] = -scale * ((double)target[c] / lengths - cosine * (double)x[c] / xx);
        largest = fmax(largest, scale * (fabs((double)target[c]) / lengths + fabs((double)x[c]) / xx));
    }
    return (expected){1.0 - cosine, 0x1p-20 * largest};
}

/* Against sums in double; lengths that no access divides, and the first element anywhere. The gradient is
 * written over NaN, or added to what is there. */
static void check_shape(rig *r, int64_t N, int64_t C, int64_t from, bool accumulate)
{
    int64_t count = N * C, each = r->ops->act_bytes(r->device);
    float *x = rig_random_act(r, count + from, 2.0), *target = rig_random_act(r, count + from, 3.0),
          *before = rig_random_act(r, count + from, 1e-3), scale = 0.5f / (float)N;
    double *d = rig_host(r, count * 8), sum = 2.25, bound = 0.0, *d_sum = rig_put(r, &sum, 8);
    for (int64_t n = 0; n < N; n++) {
        fill_row(r, x + from + n * C, target + from + n * C, C, (kind)(n % KINDS));
    }
    char *d_x = rig_put_act(r, x, count + from), *d_target = rig_put_act(r, target, count + from),
         *dx = rig_put_act(r, accumulate ? before : NULL, count + from);
    x = rig_get_act(r, d_x, count + from); /* as they are rounded */
    target = rig_get_act(r, d_target, count + from);
    for (int64_t n = 0; n < N; n++) {
        expected e = reference_row(d + n * C, x + from + n * C, target + from + n * C, C, (double)scale);
        sum += e.distance;
        bound = fmax(bound, e.gradient_bound);
    }
    for (int64_t i = 0; accumulate && i < count; i++) {
        d[i] += (double)before[from + i];
    }
    r->ops->cosine_distance(r->device, &(p4_cosine_distance_args){.N = N,
                                                                  .C = C,
                                                                  .x = d_x + from * each,
                                                                  .target = d_target + from * each,
                                                                  .scale = scale,
                                                                  .sum = d_sum,
                                                                  .dx = dx + from * each,
                                                                  .accumulate = accumulate});
    EXPECT_NEAR(((double *)rig_get(r, d_sum, 8))[0], sum, 0x1p-20 * (double)N);
    expect_array("cosine_distance's gradient", rig_get_act(r, dx + from * each, count), d, count,
                 r->eps + 4e-7, bound);
    rig_clear(r);
}

static void check_cosine_distance(rig *r)
{
    static const int64_t shapes[][2] = {{40, 256}, {7, 33}, {1, 1}, {13, 8}, {300, 24}, {6, 5000}, {9001, 3}};
    for (int s = 0; s < shapes_to_run(sizeof shapes / sizeof shapes[0], 3); s++) {
        for (int way = 0; way < 4; way++) {
            check_shape(r, shapes[s][0], shapes[s][1], way / 2, way % 2 == 1);
        }
    }
}

enum { C = 40 };
typedef struct moved {
    double x[C], target[C];
} moved;

static double distance_of(void *context)
{
    moved *m = context;
    double xx = 0.0, tt = 0.0, xt = 0.0;
    for (int64_t c = 0; c < C; c++) {
        xx += m->x[c] * m->x[c];
        tt += m->target[c] * m->target[c];
        xt += m->x[c] * m->target[c];
    }
    return 1.0 - xt / sqrt(xx * tt);
}

/* The gradient is the slope of the distance, and stands at right angles to x. */
static void check_slope(rig *r)
{
    moved m;
    float *x = rig_random_act(r, C, 1.0), *target = rig_random_act(r, C, 1.0);
    double d[C], none = 0.0, across = 0.0, *d_sum = rig_put(r, &none, 8);
    for (int c = 0; c < C; c++) {
        m.x[c] = (double)x[c];
        m.target[c] = (double)target[c];
    }
    void *dx = rig_put_act(r, NULL, C);
    r->ops->cosine_distance(r->device, &(p4_cosine_distance_args){.N = 1,
                                                                  .C = C,
                                                                  .x = rig_put_act(r, x, C),
                                                                  .target = rig_put_act(r, target, C),
                                                                  .scale = 1.0f,
                                                                  .sum = d_sum,
                                                                  .dx = dx});
    const float *got = rig_get_act(r, dx, C);
    for (int c = 0; c < C; c++) {
        d[c] = slope(m.x, c, distance_of, &m);
        across += (double)got[c] * (double)x[c];
    }
    expect_array("the slope of the distance", got, d, C, r->eps + 1e-6, 1e-6);
    EXPECT_NEAR(across, 0.0, 4.0 * r->eps + 1e-6);
    rig_clear(r);
}

int main(void)
{
    static const ops_case cases[] = {{"cosine_distance", check_cosine_distance}, {"its slope", check_slope}};
    return run_cases(cases, sizeof cases / sizeof cases[0]);
}
