/* vmath.h - elementary functions without branches or tables, so that loops over them become vector code.
 */
#ifndef P4_VMATH_CPU_H
#define P4_VMATH_CPU_H

#include "kernels/cpu/cpu.h"

P4_INLINE uint32_t p4_bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

P4_INLINE float p4_float_of(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* e^x within 2 ulp over the whole range: 0 and infinity at the ends, subnormal results, NaN stays NaN.
 * x = n ln 2 + r, |r| <= ln 2 / 2; e^r = 1 + r + r^2 q(r) with q interpolated at the Chebyshev points; 2^n is
 * multiplied in two halves, for n reaches below -126 and above 127. */
P4_INLINE float p4_exp_f32(float x)
{
    const float round_magic = 0x1.8p23f; /* adding it leaves the nearest integer in the low bits */
    x = x < -105.0f ? -105.0f : x;       /* e^-105 is below half the least subnormal, e^89 above FLT_MAX */
    x = x > 89.0f ? 89.0f : x;
    float shifted = x * 0x1.715476p0f + round_magic;
    float n = shifted - round_magic;
    int32_t power = (int32_t)(p4_bits_of(shifted) - p4_bits_of(round_magic));
    float r = x - n * 0x1.62cp-1f; /* ln 2 in two parts; the first has 11 bits: n times it is exact */
    r = r - n * 0x1.217f7ep-12f;
    float q = 1.9891030654370327e-4f;
    q = q * r + 1.3933685862617174e-3f;
    q = q * r + 8.333310889582076e-3f;
    q = q * r + 4.166646460202654e-2f;
    q = q * r + 1.6666666681659179e-1f;
    q = q * r + 5.000000013498178e-1f;
    float e = q * (r * r) + r + 1.0f;
    int32_t half = power >> 1;
    float low = p4_float_of((uint32_t)(half + 127) << 23);
    float high = p4_float_of((uint32_t)(power - half + 127) << 23);
    return e * low * high;
}

P4_INLINE float p4_sigmoid_f32(float x)
{
    return 1.0f / (1.0f + p4_exp_f32(-x));
}

/* sigmoid(x), and its slope s (1 - s) without the cancellation of 1 - s. */
P4_INLINE float p4_sigmoid_slope_f32(float x, float *slope)
{
    float e = p4_exp_f32(x < 0.0f ? x : -x), large = 1.0f / (1.0f + e);
    *slope = e * large * large;
    return x < 0.0f ? e * large : large;
}

/* tanh(x) within 4 ulp: near 0, where 1 - e cancels, an odd polynomial. */
P4_INLINE float p4_tanh_f32(float x)
{
    float e = p4_exp_f32(-2.0f * (x < 0.0f ? -x : x)), far = (1.0f - e) / (1.0f + e), square = x * x;
    float near = -5.70498872745e-3f;
    near = near * square + 2.06390887954e-2f;
    near = near * square - 5.37397155531e-2f;
    near = near * square + 1.33314422036e-1f;
    near = near * square - 3.33332819422e-1f;
    near = near * square * x + x;
    far = x < 0.0f ? -far : far;
    return square < 0.390625f ? near : far;
}

/* The normal distribution's integral up to x, (1 + erf(x / sqrt(2))) / 2, by a Chebyshev fit of log(erfc)
 * within 2e-7 of the smaller tail. *density: exp(-x^2 / 2). */
P4_INLINE float p4_normal_f32(float x, float *density)
{
    float z = (x < 0.0f ? -x : x) * 0.70710678f, t = 1.0f / (1.0f + 0.5f * z);
    float fit = 0.17087277f;
    fit = fit * t - 0.82215223f;
    fit = fit * t + 1.48851587f;
    fit = fit * t - 1.13520398f;
    fit = fit * t + 0.27886807f;
    fit = fit * t - 0.18628806f;
    fit = fit * t + 0.09678418f;
    fit = fit * t + 0.37409196f;
    fit = fit * t + 1.00002368f;
    fit = fit * t - 1.26551223f;
    *density = p4_exp_f32(-0.5f * x * x);
    float tail = 0.5f * t * *density * p4_exp_f32(fit);
    return x < 0.0f ? tail : 1.0f - tail;
}

/* IEEE half -> float: the exponent is rebiased by an exact product with 2^112, which also makes subnormals
 * right. */
P4_INLINE float p4_half_value(uint16_t half)
{
    uint32_t magnitude = (uint32_t)(half & 0x7fffu) << 13;
    float scaled = p4_float_of(magnitude) * 0x1p112f;
    uint32_t bits = magnitude >= 0x0f800000u ? (magnitude | 0x7f800000u) : p4_bits_of(scaled);
    return p4_float_of(bits | (uint32_t)(half & 0x8000u) << 16);
}

P4_INLINE float p4_bfloat_value(uint16_t half)
{
    return p4_float_of((uint32_t)half << 16);
}

#endif
