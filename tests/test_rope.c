/* Rotary frequencies and tables against the reference library's (tests/fixtures/make_rope.py). */
#include <inttypes.h>
#include <stdlib.h>

#include "check.h"
#include "src/model.h"

static float ulps_apart(float a, float b)
{
    int32_t x, y;
    memcpy(&x, &a, sizeof x);
    memcpy(&y, &b, sizeof y);
    return fabsf((float)x - (float)y);
}

static void read_floats(FILE *from, float *to, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        EXPECT(fscanf(from, "%f", &to[i]) == 1, "golden number %lld", (long long)i);
    }
}

static p4_arch read_arch(FILE *from, char name[32])
{
    p4_arch arch = {0};
    char scaling[32] = "";
    EXPECT(fscanf(from, "%31s %31s %" SCNd64 " %lf %lf %lf %lf %lf", name, scaling, &arch.D, &arch.rope_theta,
                  &arch.rope_factor, &arch.rope_low_freq_factor, &arch.rope_high_freq_factor,
                  &arch.rope_original_positions) == 8,
           "case line");
    arch.rope_scaling = strcmp(scaling, "linear") == 0   ? P4_ROPE_LINEAR
                        : strcmp(scaling, "llama3") == 0 ? P4_ROPE_LLAMA3
                                                         : P4_ROPE_DEFAULT;
    return arch;
}

/* Both libraries round pow to fp32, not always alike: a frequency may differ in its last bit, and then the
 * angle by position * 2^-24 of it. */
static void check_case(FILE *from, int positions)
{
    enum { MOST_PAIRS = 64, LONGEST = 8192 };
    char name[32] = "";
    float want[2 * MOST_PAIRS];
    p4_arch arch = read_arch(from, name);
    int64_t pairs = arch.D / 2;
    EXPECT(pairs > 0 && pairs <= MOST_PAIRS, "%s: D %lld", name, (long long)arch.D);
    float *cos_table = malloc((size_t)(2 * LONGEST * pairs) * sizeof *cos_table);
    float *sin_table = cos_table + LONGEST * pairs;
    p4_rope_tables(&arch, LONGEST, cos_table, sin_table);
    read_floats(from, want, pairs);
    float frequency[MOST_PAIRS];
    for (int64_t i = 0; i < pairs; i++) {
        frequency[i] = p4_rope_inv_freq(&arch, i);
        EXPECT(ulps_apart(frequency[i], want[i]) <= 1, "%s: frequency %lld is %.9g, want %.9g", name,
               (long long)i, (double)frequency[i], (double)want[i]);
        frequency[i] -= want[i];
    }
    for (int p = 0; p < positions; p++) {
        int64_t t = -1;
        EXPECT(fscanf(from, "%" SCNd64, &t) == 1 && t >= 0 && t < LONGEST, "%s: position %lld", name,
               (long long)t);
        read_floats(from, want, 2 * pairs);
        for (int64_t i = 0; i < pairs; i++) {
            double bound = 2e-7 + (frequency[i] != 0 ? 2 * (double)t * fabs((double)frequency[i]) : 0);
            EXPECT_NEAR(cos_table[t * pairs + i], want[i], bound);
            EXPECT_NEAR(sin_table[t * pairs + i], want[pairs + i], bound);
        }
    }
    free(cos_table);
}

int main(void)
{
    int cases = 0, positions = 0;
    FILE *from = fopen(P4_FIXTURES "/rope_golden.txt", "r");
    EXPECT(from != NULL && fscanf(from, "%d cases, %d positions", &cases, &positions) == 2, "golden file");
    for (int c = 0; from != NULL && c < cases; c++) {
        check_case(from, positions);
    }
    EXPECT(cases >= 7 && positions >= 8, "%d cases, %d positions", cases, positions);
    if (from != NULL) {
        fclose(from);
    }
    return TEST_END();
}
