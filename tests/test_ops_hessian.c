/* H and its factor, GPTQ (by the inverse of H) and coordinate descent (by the whole error), in double. */
#include "ops_cases.h"

typedef struct shape {
    int64_t rows, cols, tokens; /* fewer tokens than columns: H is singular */
    double dead;                /* share of the inputs that are always 0 */
} shape;

static const shape shapes[] = {{5, 19, 64, 0.2}, {67, 130, 300, 0.0}, {130, 257, 100, 0.05},
                               {1, 1, 4, 0.0},   {3, 128, 512, 0.5},  {9, 64, 3, 0.0}};
enum { SHAPES = sizeof shapes / sizeof shapes[0], FEW = 3 };

/* A matrix and H of correlated inputs. */
typedef struct problem {
    int64_t rows, cols;
    float *w, *h, *importance; /* host; w is 0 where the input is */
    float *d_h, *d_importance; /* device */
    p4_hessian_rows m;         /* device */
} problem;

static float *inputs(rig *r, const shape *s)
{
    float *x = rig_random_act(r, s->tokens * s->cols, 1.0);
    for (int64_t c = 0; c < s->cols; c++) {
        bool dead = p4_rng_uniform(&r->rng) < s->dead;
        float size = 0.25f * (float)(1 << rig_integer(r, 0, 4));
        for (int64_t n = 0; n < s->tokens; n++) {
            float *at = x + n * s->cols + c;
            *at = dead ? 0.0f : *at * size + (c > 0 ? 0.5f * at[-1] : 0.0f);
            *at = r->ops->act_bytes(r->device) == 2 ? p4_bf16_to_f32(p4_f32_to_bf16(*at)) : *at;
        }
    }
    return x;
}

static void products(double *h, const float *x, int64_t N, int64_t C)
{
    for (int64_t n = 0; n < N; n++) {
        for (int64_t i = 0; i < C * C; i++) {
            h[i] += (double)x[n * C + i / C] * (double)x[n * C + i % C];
        }
    }
}

static problem make_problem(rig *r, const shape *s)
{
    int64_t C = s->cols, count = s->rows * C;
    problem p = {.rows = s->rows, .cols = C, .w = rig_random(r, count, 0.1)};
    double *h = rig_doubles(r, NULL, C * C);
    products(h, inputs(r, s), s->tokens, C);
    p.h = rig_host(r, C * C * 4);
    p.importance = rig_host(r, C * 4);
    for (int64_t i = 0; i < C * C; i++) {
        p.h[i] = (float)(h[i] / (double)s->tokens);
        p.importance[i / C] = i / C == i % C ? p.h[i] : p.importance[i / C];
    }
    for (int64_t i = 0; i < count; i++) {
        p.w[i] = p.importance[i % C] != 0.0f ? p.w[i] : 0.0f;
        p.w[i] = i / C == 1 ? 0.0f : p.w[i]; /* a row of zeros */
    }
    p.d_h = rig_put_f32(r, p.h, C * C);
    p.d_importance = rig_put_f32(r, p.importance, C);
    p.m = (p4_hessian_rows){.rows = p.rows,
                            .cols = C,
                            .w = rig_put_f32(r, p.w, count),
                            .h = p.d_h,
                            .wh = rig_put_f32(r, NULL, count),
                            .t = rig_put_f32(r, NULL, count),
                            .fit = rig_put(r, NULL, p.rows * 16),
                            .scale = rig_put(r, NULL, p.rows * 2),
                            .work = rig_put_f32(r, NULL, p.rows * P4_HESSIAN_BLOCK)};
    return p;
}

/* --- H ---------------------------------------------------------------------------------------- */

/* Three micro-batches in two orders. */
static void run_add(rig *r)
{
    for (int k = 0; k < shapes_to_run(SHAPES, FEW); k++) {
        const shape *s = &shapes[k];
        int64_t C = s->cols, each = p4_ceil_div(s->tokens, 3);
        float *x = inputs(r, s), *d_work = rig_put_f32(r, NULL, C * C), *d_to = rig_put_f32(r, NULL, C * C);
        double *want = rig_doubles(r, NULL, C * C), *got[2];
        products(want, x, s->tokens, C);
        for (int order = 0; order < 2; order++) {
            double *h = rig_put(r, rig_doubles(r, NULL, C * C), C * C * 8);
            for (int b = 0; b < 3; b++) {
                int64_t first = p4_min_i64(s->tokens, (order ? 2 - b : b) * each);
                int64_t N = p4_min_i64(each, s->tokens - first);
                r->ops->hessian_add(r->device,
                                    &(p4_hessian_add_args){.N = N,
                                                           .C = C,
                                                           .x = rig_put_act(r, x + first * C, N * C),
                                                           .work = d_work,
                                                           .h = h,
                                                           .quantum = 0x1p-30});
            }
            got[order] = rig_get(r, h, C * C * 8);
            r->ops->hessian_finish(
                r->device,
                &(p4_hessian_finish_args){
                    .C = C, .sums = h, .scale = 0.25, .damping = 0.125, .importance = d_work, .h = d_to});
        }
        float *to = rig_get_f32(r, d_to, C * C), *diagonal = rig_get_f32(r, d_work, C);
        float *sums = rig_host(r, C * C * 4);
        double mean = 0.0;
        int64_t wrong = 0, live = 0;
        for (int64_t i = 0; i < C; i++) {
            mean += got[0][i * (C + 1)] * 0.25;
            live += got[0][i * (C + 1)] != 0.0;
        }
        mean /= (double)p4_max_i64(live, 1);
        for (int64_t i = 0; i < C * C; i++) {
            bool damped = i / C == i % C && got[1][i] != 0.0;
            double value = got[1][i] * 0.25, want_h = value + (damped ? 0.125 * mean : 0.0);
            sums[i] = (float)got[0][i];
            wrong += fabs((double)to[i] - want_h) > 2e-7 * fabs(want_h);
            wrong += i / C == i % C && diagonal[i / C] != (float)value;
            wrong += got[0][i] != rint(got[0][i] * 0x1p30) * 0x1p-30;
        }
        EXPECT(wrong == 0, "%lld elements of H are wrong", (long long)wrong);
        EXPECT(memcmp(got[0], got[1], (size_t)(C * C) * 8) == 0, "sums depend on their order");
        expect_array("hessian_add", sums, want, C * C, 1e-6, 0.0);
    }
}

/* --- the factor ------------------------------------------------------------------------------- */

static double damping_of(const problem *p, double damping)
{
    double sum = 0.0, live = 0.0;
    for (int64_t i = 0; i < p->cols; i++) {
        sum += (double)p->importance[i];
        live += p->importance[i] != 0.0f;
    }
    return live > 0.0 ? damping * sum / live : 0.0;
}

static double damped(const problem *p, double damping, int64_t i, int64_t j)
{
    double value = (double)p->h[i * p->cols + j];
    return i != j ? value : value != 0.0 ? value + damping : 1.0;
}

/* Puts the factor into p->m. */
static void factor(rig *r, problem *p, double damping, bool definite)
{
    int64_t C = p->cols;
    bool found = !definite;
    float *feedback = rig_put_f32(r, NULL, C * C);
    r->ops->hessian_factor(r->device, &(p4_hessian_factor_args){.C = C,
                                                                .h = p->d_h,
                                                                .feedback = feedback,
                                                                .work = rig_put(r, NULL, C * C * 8),
                                                                .damping = damping,
                                                                .h_definite = &found});
    p->m.feedback = feedback;
    EXPECT(found == definite, "with a damping of %g a factor is %s", damping, found ? "found" : "not found");
}

/* F, where F D F' is the damped H, is a factorization in double that is rounded to fp32. (The distance of F D
 * F' from H grows with the condition of H.) */
static void check_factor(rig *r, problem *p, double damping)
{
    int64_t C = p->cols;
    double d = damping_of(p, damping), worst = 0.0, *D = rig_doubles(r, NULL, C),
           *want = rig_doubles(r, NULL, C * C);
    factor(r, p, damping, true);
    float *F = rig_get_f32(r, p->m.feedback, C * C);
    for (int64_t j = C - 1; j >= 0; j--) {
        D[j] = damped(p, d, j, j);
        for (int64_t k = j + 1; k < C; k++) {
            D[j] -= want[j * C + k] * want[j * C + k] * D[k];
        }
        for (int64_t i = 0; i < j; i++) {
            double sum = damped(p, d, i, j);
            for (int64_t k = j + 1; k < C; k++) {
                sum -= want[i * C + k] * D[k] * want[j * C + k];
            }
            want[i * C + j] = sum / D[j];
            worst = fmax(worst, fabs((double)F[i * C + j] - want[i * C + j]) /
                                    (0x1p-24 * fabs(want[i * C + j]) + 1e-11));
        }
        EXPECT(D[j] > 0.0, "pivot %lld is %g", (long long)j, D[j]);
    }
    EXPECT(worst < 1.01, "an element of F is %g times half a unit in its last place from a double one",
           worst);
}

static void run_factor(rig *r)
{
    for (int k = 0; k < shapes_to_run(SHAPES, FEW); k++) {
        problem p = make_problem(r, &shapes[k]);
        check_factor(r, &p, 0.01);
        rig_clear(r);
    }
    problem p = make_problem(r, &shapes[1]);
    for (int64_t i = 0; i < 2; i++) { /* a correlation of 2 */
        p.h[i * p.cols + 1 - i] = 2.0f * sqrtf(p.importance[0] * p.importance[1]);
    }
    p.d_h = rig_put_f32(r, p.h, p.cols * p.cols);
    factor(r, &p, 0.01, false);
    check_factor(r, &p, 100.0);
}

/* --- GPTQ ------------------------------------------------------------------------------------- */

/* A = its lower Cholesky factor. */
static void cholesky(double *A, int64_t n)
{
    for (int64_t j = 0; j < n; j++) {
        for (int64_t i = j; i < n; i++) {
            double sum = A[i * n + j];
            for (int64_t k = 0; k < j; k++) {
                sum -= A[i * n + k] * A[j * n + k];
            }
            A[i * n + j] = i == j ? sqrt(sum) : sum / A[j * n + j];
        }
    }
}

/* The transposed lower Cholesky factor of the inverse of the damped H: upper triangular. */
static double *inverse_factor(rig *r, const problem *p, double damping)
{
    int64_t n = p->cols;
    double d = damping_of(p, damping), *A = rig_doubles(r, NULL, n * n),
           *inverse = rig_doubles(r, NULL, n * n);
    for (int64_t i = 0; i < n * n; i++) {
        A[i] = damped(p, d, i / n, i % n);
    }
    cholesky(A, n);
    for (int64_t col = 0; col < n; col++) { /* L L' x = e */
        for (int64_t i = 0; i < n; i++) {
            double sum = i == col ? 1.0 : 0.0;
            for (int64_t k = 0; k < i; k++) {
                sum -= A[i * n + k] * inverse[k * n + col];
            }
            inverse[i * n + col] = sum / A[i * n + i];
        }
        for (int64_t i = n - 1; i >= 0; i--) {
            double sum = inverse[i * n + col];
            for (int64_t k = i + 1; k < n; k++) {
                sum -= A[k * n + i] * inverse[k * n + col];
            }
            inverse[i * n + col] = sum / A[i * n + i];
        }
    }
    cholesky(inverse, n);
    return inverse; /* U[j][c] = inverse[c][j] */
}

/* t of one row by GPTQ's own recursion. */
static void gptq_row(double *t, double *w, const double *L, int64_t n, double scale)
{
    for (int64_t j = 0; j < n; j++) {
        t[j] = scale > 0.0 ? (double)((w[j] >= 0.5 * scale) - (w[j] <= -0.5 * scale)) : 0.0;
        double e = (w[j] - scale * t[j]) / L[j * n + j];
        for (int64_t c = j + 1; c < n; c++) {
            w[c] -= e * L[c * n + j];
        }
    }
}

static double error_of(const problem *p, int64_t row, const double *t, double scale)
{
    int64_t n = p->cols;
    double sum = 0.0;
    for (int64_t i = 0; i < n; i++) {
        double e = (double)p->w[row * n + i] - scale * t[i];
        for (int64_t j = 0; j < n && e != 0.0; j++) {
            sum += e * (double)p->h[i * n + j] * ((double)p->w[row * n + j] - scale * t[j]);
        }
    }
    return sum;
}

/* The trits of the device against those wanted. Where a value lies within rounding of a tie the trits may
 * differ, and then all that follow in the row: one in some 10^6 does, so of the rows here at most two in a
 * run. The error of such a row is about the same. */
static void compare_rows(const char *what, const problem *p, const double *got, const double *want,
                         const double *got_scale, const double *want_scale)
{
    int64_t rows = 0, n = p->cols;
    for (int64_t i = 0; i < p->rows; i++) {
        if (memcmp(got + i * n, want + i * n, (size_t)n * sizeof *got) != 0) {
            double a = error_of(p, i, got + i * n, got_scale[i]),
                   b = error_of(p, i, want + i * n, want_scale[i]);
            EXPECT(fabs(a - b) <= 0.5 * b, "%s: row %lld: error %g, want %g", what, (long long)i, a, b);
            rows++;
        } else {
            EXPECT_NEAR(got_scale[i], want_scale[i], 1e-3 * want_scale[i]); /* one step of fp16 */
        }
    }
    EXPECT(rows <= 2, "%s [%lld, %lld]: %lld rows differ", what, (long long)p->rows, (long long)n,
           (long long)rows);
}

static double *get_scales(rig *r, const problem *p)
{
    double *scales = rig_doubles(r, NULL, p->rows);
    uint16_t *halves = rig_get(r, p->m.scale, p->rows * 2);
    for (int64_t i = 0; i < p->rows; i++) {
        scales[i] = (double)p4_f16_to_f32(halves[i]);
    }
    return scales;
}

static double *get_trits(rig *r, const problem *p)
{
    double *t = rig_doubles(r, rig_get_f32(r, p->m.t, p->rows * p->cols), p->rows * p->cols);
    int64_t wrong = 0;
    for (int64_t i = 0; i < p->rows * p->cols; i++) {
        wrong += t[i] != 0.0 && (fabs(t[i]) != 1.0 || p->importance[i % p->cols] == 0.0f);
    }
    EXPECT(wrong == 0, "%lld trits are wrong", (long long)wrong);
    return t;
}

/* The scales that GPTQ starts from. */
static void put_scales(rig *r, problem *p)
{
    uint8_t *codes = rig_put(r, NULL, p->rows * p4_code_row_bytes(p->cols));
    p4_weight weight = {.dtype = P4_F32, .rows = p->rows, .cols = p->cols, .data = p->m.w};
    r->ops->quantize(r->device, codes, p->m.scale, NULL, &weight, P4_QUANT_EXACT, 0.0f, p->d_importance);
}

static void run_gptq(rig *r)
{
    for (int k = 0; k < shapes_to_run(SHAPES, FEW); k++) {
        problem p = make_problem(r, &shapes[k]);
        int64_t n = p.cols;
        factor(r, &p, 0.01, true);
        put_scales(r, &p);
        r->ops->gptq(r->device, &p.m);
        double *scale = get_scales(r, &p), *got = get_trits(r, &p), *L = inverse_factor(r, &p, 0.01);
        double *want = rig_doubles(r, NULL, p.rows * n), *w = rig_doubles(r, p.w, p.rows * n);
        for (int64_t i = 0; i < p.rows; i++) {
            gptq_row(want + i * n, w + i * n, L, n, scale[i]);
        }
        compare_rows("gptq", &p, got, want, scale, scale);
        rig_clear(r);
    }
}

/* --- coordinate descent ----------------------------------------------------------------------- */

/* w h t' / t h t', or the scale as it is. */
static double best_scale(const problem *p, int64_t row, const double *t, double scale)
{
    double wht = 0.0, tht = 0.0;
    for (int64_t i = 0; i < p->cols * p->cols; i++) {
        double ht = (double)p->h[i] * t[i % p->cols];
        wht += (double)p->w[row * p->cols + i / p->cols] * ht;
        tht += t[i / p->cols] * ht;
    }
    return wht > 0.0 && tht > 0.0 ? (double)p4_f16_to_f32(p4_f32_to_f16((float)(wht / tht))) : scale;
}

/* One sweep over a row. g = (scale t - w) h. The trits that change. */
static int64_t sweep_row(const problem *p, int64_t row, double *t, double *g, double scale)
{
    int64_t n = p->cols, changed = 0;
    for (int64_t j = 0; j < n; j++) {
        g[j] = 0.0;
        for (int64_t i = 0; i < n; i++) {
            g[j] += (scale * t[i] - (double)p->w[row * n + i]) * (double)p->h[i * n + j];
        }
    }
    for (int64_t j = 0; j < n && scale > 0.0; j++) {
        double hjj = (double)p->h[j * n + j], least = -1e-5 * scale * scale * hjj, best = t[j];
        for (double c = -1.0; c <= 1.0; c += 1.0) {
            double d = scale * (c - t[j]), cost = 2.0 * d * g[j] + d * d * hjj;
            best = cost < least ? c : best;
            least = cost < least ? cost : least;
        }
        for (int64_t i = 0; i < n; i++) {
            g[i] += scale * (best - t[j]) * (double)p->h[j * n + i];
        }
        changed += best != t[j];
        t[j] = best;
    }
    return changed;
}

/* The same from the same start, in double. */
static void descend_reference(rig *r, const problem *p, double *t, double *scale)
{
    double *g = rig_doubles(r, NULL, p->cols);
    for (int64_t i = 0; i < p->rows; i++) {
        double *row = t + i * p->cols;
        int64_t changed = 1;
        scale[i] = best_scale(p, i, row, scale[i]);
        for (int sweep = 0; sweep < 64 && changed > 0; sweep++) {
            changed = sweep_row(p, i, row, g, scale[i]);
            scale[i] = best_scale(p, i, row, scale[i]);
        }
    }
}

static double total_error(rig *r, const problem *p)
{
    double sum = 0.0, *t = get_trits(r, p), *scale = get_scales(r, p);
    for (int64_t i = 0; i < p->rows; i++) {
        sum += error_of(p, i, t + i * p->cols, scale[i]);
    }
    return sum;
}

static void run_descend(rig *r)
{
    for (int k = 0; k < shapes_to_run(SHAPES, FEW); k++) {
        problem p = make_problem(r, &shapes[k]);
        int64_t changed = 1;
        factor(r, &p, 0.01, true);
        put_scales(r, &p);
        r->ops->gptq(r->device, &p.m);
        double *want = get_trits(r, &p), *want_scale = get_scales(r, &p);
        double start = total_error(r, &p), error = start, before;
        r->ops->descend_start(r->device, &p.m);
        for (int sweep = 0; sweep < 64 && changed > 0; sweep++) {
            before = error;
            error = total_error(r, &p);
            EXPECT(error <= before * (1.0 + 1e-5) + 1e-9, "sweep %d raises the error from %g to %g", sweep,
                   before, error);
            r->ops->descend(r->device, &p.m, &changed);
        }
        EXPECT(changed == 0, "the descent does not end: %lld trits", (long long)changed);
        EXPECT(p.rows < 5 || error < 0.999 * start, "from %g to %g", start, error);
        descend_reference(r, &p, want, want_scale);
        compare_rows("descend", &p, get_trits(r, &p), want, get_scales(r, &p), want_scale);
        rig_clear(r);
    }
}

/* --- weights and codes ------------------------------------------------------------------------ */

static void run_weights(rig *r)
{
    static const p4_dtype types[] = {P4_F32, P4_F16, P4_BF16};
    enum { ROWS = 37, COLS = 101 };
    for (int k = 0; k < 6; k++) {
        p4_dtype dtype = types[k / 2];
        p4_weight weight = {.dtype = dtype, .transposed = k % 2, .rows = ROWS, .cols = COLS};
        float *w = rig_random(r, ROWS * COLS, 0.1), *data = rig_host(r, ROWS * COLS * 4);
        float *importance = rig_random(r, COLS, 1.0), *t = rig_host(r, ROWS * COLS * 4);
        uint16_t *half = rig_host(r, ROWS * COLS * 2), *scale = rig_host(r, ROWS * 2);
        uint8_t *d_codes = rig_put(r, NULL, ROWS * p4_code_row_bytes(COLS));
        float *d_w = rig_put_f32(r, NULL, ROWS * COLS);
        p4_quant_error error, want = {.scale_min = INFINITY, .scale_max = -INFINITY};
        for (int64_t i = 0; i < ROWS * COLS; i++) {
            int64_t at = weight.transposed ? i % COLS * ROWS + i / COLS : i;
            half[at] = dtype == P4_F16 ? p4_f32_to_f16(w[i]) : p4_f32_to_bf16(w[i]);
            w[i] = dtype == P4_F32   ? w[i]
                   : dtype == P4_F16 ? p4_f16_to_f32(half[at])
                                     : p4_bf16_to_f32(half[at]);
            data[at] = w[i];
            t[i] = (float)rig_integer(r, -1, 1);
            importance[i % COLS] = i % COLS % 7 == 3 ? 0.0f : 1.0f;
            scale[i / COLS] = p4_f32_to_f16(0.01f * (float)(i / COLS + 1));
            double difference = (double)w[i] - (double)t[i] * (double)p4_f16_to_f32(scale[i / COLS]);
            want.sq_error += difference * difference;
            want.sq_norm += (double)w[i] * (double)w[i];
            want.zeros += t[i] == 0.0f;
        }
        weight.data = rig_put(r, dtype == P4_F32 ? (void *)data : half, ROWS * COLS * p4_dtype_bytes(dtype));
        r->ops->hessian_weights(r->device, d_w, &weight, rig_put_f32(r, importance, COLS));
        r->ops->pack_trits(r->device, d_codes, &error, rig_put_f32(r, t, ROWS * COLS),
                           rig_put(r, scale, ROWS * 2), &weight);
        float *got = rig_get_f32(r, d_w, ROWS * COLS);
        uint8_t *codes = rig_get(r, d_codes, ROWS * p4_code_row_bytes(COLS));
        int64_t wrong = 0, padding = 0, row_bytes = p4_code_row_bytes(COLS);
        for (int64_t i = 0; i < ROWS * COLS; i++) {
            int code = codes[i / COLS * row_bytes + i % COLS / 4] >> 2 * (i % COLS % 4) & 3;
            wrong += got[i] != (importance[i % COLS] != 0.0f ? w[i] : 0.0f) || code != (int)t[i] + 1;
        }
        for (int64_t i = 0; i < ROWS; i++) {
            padding += codes[(i + 1) * row_bytes - 1] >> 2 != 0x15; /* 101 columns: three are missing */
        }
        EXPECT(wrong == 0 && padding == 0, "%s%s: %lld elements, %lld rows' padding", p4_dtype_name(dtype),
               weight.transposed ? " transposed" : "", (long long)wrong, (long long)padding);
        EXPECT_NEAR(error.sq_error, want.sq_error, 1e-10 * want.sq_error);
        EXPECT_NEAR(error.sq_norm, want.sq_norm, 1e-10 * want.sq_norm);
        EXPECT(error.zeros == want.zeros && error.scale_min == p4_f16_to_f32(scale[0]) &&
                   error.scale_max == p4_f16_to_f32(scale[ROWS - 1]) && error.nonfinite == 0,
               "zeros %lld, scales %g to %g", (long long)error.zeros, (double)error.scale_min,
               (double)error.scale_max);
    }
}

int main(void)
{
    static const ops_case cases[] = {{"hessian_add", run_add},
                                     {"hessian_factor", run_factor},
                                     {"gptq", run_gptq},
                                     {"descend", run_descend},
                                     {"weights", run_weights}};
    return run_cases(cases, sizeof cases / sizeof cases[0]);
}
