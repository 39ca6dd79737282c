/* ops_state.h - what the tests of optimizer state in bf16 share (kernels/state.h). */
#ifndef P4_OPS_STATE_H
#define P4_OPS_STATE_H

#include "kernels/state.h"
#include "ops_cases.h"

static const uint64_t first_index = 0xFFFFFF00u; /* so that indices pass 2^32 */

/* x rounded down to bf16 in place, and these bits. */
static inline uint16_t *halve(rig *r, float *x, int64_t count)
{
    uint16_t *bits = rig_host(r, count * 2);
    for (int64_t i = 0; i < count; i++) {
        uint32_t word;
        memcpy(&word, &x[i], 4);
        bits[i] = (uint16_t)(word >> 16);
        x[i] = p4_bf16_to_f32(bits[i]);
    }
    return bits;
}

/* got must be what state.h makes of the fp32 state that the same op computes. A last bit of fp32 that differs
 * moves few elements, by one step of bf16; exact: none. */
static inline void expect_rounded(const char *what, const uint16_t *got, const float *wide, uint64_t key,
                                  uint64_t index, int shift, int64_t count, bool exact)
{
    int64_t moved = 0, far = 0;
    for (int64_t i = 0; i < count; i++) {
        uint32_t word;
        memcpy(&word, &wide[i], 4);
        int want = p4_state_round_bits(word, p4_state_draw(key, index + (uint64_t)i) >> shift);
        moved += got[i] != want;
        far += abs((int)got[i] - want) > 1;
    }
    EXPECT(far == 0 && moved <= (exact ? 0 : count / 500),
           "%s: %lld of %lld elements differ, %lld by more than a step", what, (long long)moved,
           (long long)count, (long long)far);
}

#endif
