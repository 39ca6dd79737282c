#include "src/leaf/rng.h"

#include <math.h>

void p4_philox(uint32_t out[4], uint64_t seed, uint64_t stream, uint64_t counter)
{
    uint32_t x[4] = {(uint32_t)counter, (uint32_t)(counter >> 32), (uint32_t)stream,
                     (uint32_t)(stream >> 32)};
    uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * x[0];
        uint64_t p1 = (uint64_t)0xCD9E8D57u * x[2];
        uint32_t next[4] = {(uint32_t)(p1 >> 32) ^ x[1] ^ key[0], (uint32_t)p1,
                            (uint32_t)(p0 >> 32) ^ x[3] ^ key[1], (uint32_t)p0};
        for (int i = 0; i < 4; i++) {
            x[i] = next[i];
        }
        key[0] += 0x9E3779B9u;
        key[1] += 0xBB67AE85u;
    }
    for (int i = 0; i < 4; i++) {
        out[i] = x[i];
    }
}

uint64_t p4_rng_u64(p4_rng *rng)
{
    uint32_t out[4];
    p4_philox(out, rng->seed, rng->stream, rng->counter++);
    return (uint64_t)out[1] << 32 | out[0];
}

double p4_rng_uniform(p4_rng *rng)
{
    return (double)(p4_rng_u64(rng) >> 11) * 0x1p-53;
}

double p4_rng_normal(p4_rng *rng)
{
    uint32_t out[4];
    p4_philox(out, rng->seed, rng->stream, rng->counter++);
    double u = ((double)out[0] + 0.5) * 0x1p-32;
    double v = (double)out[1] * 0x1p-32;
    return sqrt(-2.0 * log(u)) * cos(6.283185307179586477 * v);
}

uint64_t p4_rng_below(p4_rng *rng, uint64_t bound)
{
    uint64_t reject_below = (0 - bound) % bound; /* 2^64 mod bound */
    uint64_t value;
    do {
        value = p4_rng_u64(rng);
    } while (value < reject_below);
    return value % bound;
}

void p4_rng_permutation(uint32_t *order, uint32_t count, uint64_t seed, uint64_t stream)
{
    p4_rng rng = {seed, stream, 0};
    for (uint32_t i = 0; i < count; i++) {
        order[i] = i;
    }
    for (uint32_t i = count; i > 1; i--) {
        uint32_t j = (uint32_t)p4_rng_below(&rng, i);
        uint32_t held = order[i - 1];
        order[i - 1] = order[j];
        order[j] = held;
    }
}
