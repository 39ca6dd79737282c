/* rope.c - rotary frequencies and tables. */
#include <math.h>

#include "src/arch.h"

static const double pi = 3.14159265358979323846;

/* Quotients number / tensor are reciprocal * number, two roundings: that is how the reference library
 * divides. */
static float over(double number, float x)
{
    return 1.0f / x * (float)number;
}

/* theta^(2i / R) */
static float wave(float theta, int64_t R, int64_t i)
{
    return (float)pow(theta, (float)(2 * i) / (float)R);
}

/* Llama 3: long waves are slowed by the factor, short ones stay, those between are blended. */
static float scale_llama3(const p4_rope *rope, float inv)
{
    float factor = (float)rope->factor;
    float low = (float)rope->low_freq_factor;
    float wavelength = over(2.0 * pi, inv);
    float long_wave = (float)(rope->original_positions / rope->low_freq_factor);
    float short_wave = (float)(rope->original_positions / rope->high_freq_factor);
    if (wavelength > long_wave) {
        return inv / factor;
    }
    if (wavelength < short_wave) {
        return inv;
    }
    float smooth = (over(rope->original_positions, wavelength) - low) /
                   (float)(rope->high_freq_factor - rope->low_freq_factor);
    return (1.0f - smooth) * inv / factor + smooth * inv;
}

/* Beyond the original length theta grows, so that the longest wave spans the sequence. */
static float dynamic_theta(const p4_rope *rope, int64_t R, int64_t T)
{
    float length = fmaxf((float)T, (float)rope->original_positions);
    float growth = (float)rope->factor * length / (float)rope->original_positions - (float)(rope->factor - 1);
    return (float)rope->theta * powf(growth, (float)((double)R / (double)(R - 2)));
}

/* The pair, not made whole, whose wave turns `turns` times over the original length. */
static double pair_of_turns(const p4_rope *rope, int64_t R, double turns)
{
    return (double)R * log(rope->original_positions / (turns * 2.0 * pi)) / (2.0 * log(rope->theta));
}

/* YaRN: waves that turn often stay, those that turn less than once are slowed by the factor, between them the
 * two are blended. */
static float scale_yarn(const p4_rope *rope, int64_t R, int64_t i)
{
    double low = pair_of_turns(rope, R, rope->beta_fast), high = pair_of_turns(rope, R, rope->beta_slow);
    low = fmax(rope->no_truncation ? low : floor(low), 0);
    high = fmin(rope->no_truncation ? high : ceil(high), (double)(R - 1));
    high += low == high ? 0.001 : 0;
    float ramp = ((float)i - (float)low) / (float)(high - low);
    float stays = 1.0f - fminf(fmaxf(ramp, 0.0f), 1.0f);
    float length = wave((float)rope->theta, R, i);
    float slowed = 1.0f / ((float)rope->factor * length);
    return slowed * (1.0f - stays) + 1.0f / length * stays;
}

float p4_rope_inv_freq(const p4_rope *rope, int64_t R, int64_t T, int64_t i)
{
    float length = wave((float)rope->theta, R, i);
    switch (rope->scaling) {
    case P4_ROPE_DEFAULT:
        return 1.0f / length;
    case P4_ROPE_LINEAR:
        return 1.0f / length / (float)rope->factor;
    case P4_ROPE_LLAMA3:
        return scale_llama3(rope, 1.0f / length);
    case P4_ROPE_DYNAMIC:
        return 1.0f / wave(dynamic_theta(rope, R, T), R, i);
    case P4_ROPE_YARN:
        return scale_yarn(rope, R, i);
    case P4_ROPE_LONGROPE:
        return 1.0f / (((double)T > rope->original_positions ? rope->long_factors : rope->short_factors)[i] *
                       length);
    case P4_ROPE_COUNT:
        break;
    }
    return 1.0f / length;
}

void p4_rope_tables(const p4_rope *rope, int64_t R, int64_t T, float *cos_table, float *sin_table)
{
    int64_t pairs = R / 2;
    float factor = rope->attention_factor > 0 ? (float)rope->attention_factor : 1.0f;
    for (int64_t i = 0; i < pairs; i++) {
        float inv = p4_rope_inv_freq(rope, R, T, i);
        for (int64_t t = 0; t < T; t++) {
            float angle = (float)t * inv;
            cos_table[t * pairs + i] = (float)cos(angle) * factor;
            sin_table[t * pairs + i] = (float)sin(angle) * factor;
        }
    }
}
