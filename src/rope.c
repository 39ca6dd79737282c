#include "src/arch.h"

#include <math.h>

/* Quotients number / tensor are reciprocal * number, two roundings: that is how the reference library
 * divides. */
static float over(double number, float x)
{
    return 1.0f / x * (float)number;
}

/* Llama 3: long waves are slowed by the factor, short ones stay, those between are blended. */
static float scale_llama3(const p4_arch *arch, float inv)
{
    const double pi = 3.14159265358979323846;
    float factor = (float)arch->rope_factor;
    float low = (float)arch->rope_low_freq_factor;
    float wavelength = over(2.0 * pi, inv);
    float long_wave = (float)(arch->rope_original_positions / arch->rope_low_freq_factor);
    float short_wave = (float)(arch->rope_original_positions / arch->rope_high_freq_factor);
    if (wavelength > long_wave) {
        return inv / factor;
    }
    if (wavelength < short_wave) {
        return inv;
    }
    float smooth = (over(arch->rope_original_positions, wavelength) - low) /
                   (float)(arch->rope_high_freq_factor - arch->rope_low_freq_factor);
    return (1.0f - smooth) * inv / factor + smooth * inv;
}

float p4_rope_inv_freq(const p4_arch *arch, int64_t i)
{
    float exponent = (float)(2 * i) / (float)arch->D;
    float inv = 1.0f / (float)pow((float)arch->rope_theta, exponent);
    switch (arch->rope_scaling) {
    case P4_ROPE_DEFAULT:
        return inv;
    case P4_ROPE_LINEAR:
        return inv / (float)arch->rope_factor;
    case P4_ROPE_LLAMA3:
        return scale_llama3(arch, inv);
    case P4_ROPE_COUNT:
        break;
    }
    return inv;
}

void p4_rope_tables(const p4_arch *arch, int64_t T, float *cos_table, float *sin_table)
{
    int64_t pairs = arch->D / 2;
    for (int64_t i = 0; i < pairs; i++) {
        float inv = p4_rope_inv_freq(arch, i);
        for (int64_t t = 0; t < T; t++) {
            float angle = (float)t * inv;
            cos_table[t * pairs + i] = (float)cos(angle);
            sin_table[t * pairs + i] = (float)sin(angle);
        }
    }
}
