/* Rotary frequencies and tables against the reference library's (tests/fixtures/make_rope.py). */
#include <inttypes.h>
#include <stdlib.h>

#include "check.h"
#include "io/hf/hf_model.h"
#include "src/model.h"

static int64_t ulps_apart(float a, float b)
{
    int32_t x, y;
    memcpy(&x, &a, sizeof x);
    memcpy(&y, &b, sizeof y);
    return x > y ? (int64_t)x - y : (int64_t)y - x;
}

static void read_floats(FILE *from, float *to, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        EXPECT(fscanf(from, "%f", &to[i]) == 1, "golden number %lld", (long long)i);
    }
}

/* One line without its end. */
static void read_line(FILE *from, char *to, int bytes)
{
    EXPECT(fgets(to, bytes, from) != NULL, "a line");
    to[strcspn(to, "\n")] = '\0';
}

/* Both libraries round pow to fp32, not always alike: a frequency may differ in its last bit, and where pow
 * also changes theta (dynamic) in three; then the angle differs by the position times that. */
static void check_case(FILE *from, int positions, bool *seen)
{
    enum { MOST_PAIRS = 64, LONGEST = 8192 };
    char name[32] = "", config[2048] = "";
    float want[2 * MOST_PAIRS], frequency[MOST_PAIRS];
    int64_t T = 0, R = 0;
    p4_arch arch;
    EXPECT(fscanf(from, "%31s %" SCNd64 " %" SCNd64 "\n", name, &T, &R) == 3, "case line");
    read_line(from, config, sizeof config);
    EXPECT_OK(p4_hf_config_parse(&arch, config, strlen(config), name));
    int64_t pairs = R / 2, ulps = arch.rope.scaling == P4_ROPE_DYNAMIC ? 3 : 1;
    EXPECT(pairs > 0 && pairs <= MOST_PAIRS && T <= LONGEST, "%s: T %lld, R %lld", name, (long long)T,
           (long long)R);
    seen[arch.rope.scaling] = true;
    float *cos_table = malloc((size_t)(2 * T * pairs) * sizeof *cos_table);
    float *sin_table = cos_table + T * pairs;
    p4_rope_tables(&arch.rope, R, T, cos_table, sin_table);
    read_floats(from, want, pairs);
    for (int64_t i = 0; i < pairs; i++) {
        frequency[i] = p4_rope_inv_freq(&arch.rope, R, T, i);
        EXPECT(ulps_apart(frequency[i], want[i]) <= ulps, "%s: frequency %lld is %.9g, want %.9g", name,
               (long long)i, (double)frequency[i], (double)want[i]);
        frequency[i] -= want[i];
    }
    for (int p = 0; p < positions; p++) {
        int64_t t = -1;
        EXPECT(fscanf(from, "%" SCNd64, &t) == 1 && t >= 0 && t < T, "%s: position %lld", name, (long long)t);
        read_floats(from, want, 2 * pairs);
        for (int64_t i = 0; i < pairs; i++) {
            double bound = 3e-7 + (frequency[i] != 0 ? 2 * (double)t * fabs((double)frequency[i]) : 0);
            EXPECT_NEAR(cos_table[t * pairs + i], want[i], bound);
            EXPECT_NEAR(sin_table[t * pairs + i], want[pairs + i], bound);
        }
    }
    free(cos_table);
}

int main(void)
{
    int cases = 0, positions = 0;
    bool seen[P4_ROPE_COUNT] = {false};
    FILE *from = fopen(P4_FIXTURES "/rope_golden.txt", "r");
    EXPECT(from != NULL && fscanf(from, "%d cases, %d positions", &cases, &positions) == 2, "golden file");
    for (int c = 0; from != NULL && c < cases; c++) {
        check_case(from, positions, seen);
    }
    EXPECT(cases >= 24 && positions >= 6, "%d cases, %d positions", cases, positions);
    for (int kind = 0; kind < P4_ROPE_COUNT; kind++) {
        EXPECT(seen[kind], "no case has rotary scaling %d", kind);
    }
    if (from != NULL) {
        fclose(from);
    }
    return TEST_END();
}
