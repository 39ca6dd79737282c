/* dots_avx512.c - the dot products with AVX-512 and its sums of four products of bytes (VNNI).
 *
 * Planes: two blocks are one of 256 columns, whose plane i holds the columns i, i + 4, ... in 64 bytes. What
 * is left behind the last 256 columns has the order of portable C. */
#include "kernels/cpu/dots.h"

#if defined(__GNUC__) && defined(__x86_64__)

#include <immintrin.h>
#include <string.h>

#define AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni")))
#define AVX512_INLINE \
    static inline __attribute__((always_inline, target("avx512f,avx512bw,avx512vl,avx512vnni")))

enum {
    PAIR = 2 * P4_PLANES_BLOCK, /* columns */
    PAIR_BYTES = PAIR / 4,      /* of codes, and of a plane */
    BLOCK_BYTES = P4_PLANES_BLOCK / 4
};

AVX512_INLINE __m512i load(const void *from)
{
    return _mm512_loadu_si512(from);
}

/* --- codes and int8 ---------------------------------------------------------------------------- */

/* Sixteen columns of each plane from 64 columns: plane i in the lane i of 128 bits. */
AVX512_INLINE __m512i divide(__m512i x)
{
    const __m512i bytes = _mm512_broadcast_i32x4(
                      _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15)),
                  words = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    return _mm512_permutexvar_epi32(words, _mm512_shuffle_epi8(x, bytes));
}

AVX512 static int32_t planes_of(int8_t *planes, const int8_t *x, int64_t cols)
{
    const __m512i one = _mm512_set1_epi8(1);
    __m512i sum = _mm512_setzero_si512();
    int64_t whole = cols / PAIR * PAIR;
    for (int64_t c = 0; c < whole; c += PAIR) {
        __m512i part[4];
        for (int k = 0; k < 4; k++) {
            __m512i loaded = load(x + c + PAIR_BYTES * k);
            sum = _mm512_dpbusd_epi32(sum, one, loaded);
            part[k] = divide(loaded);
        }
        __m512i low = _mm512_shuffle_i32x4(part[0], part[1], 0x44), /* planes 0 and 1 of each */
            low_end = _mm512_shuffle_i32x4(part[2], part[3], 0x44),
                high = _mm512_shuffle_i32x4(part[0], part[1], 0xee),
                high_end = _mm512_shuffle_i32x4(part[2], part[3], 0xee);
        _mm512_storeu_si512(planes + c, _mm512_shuffle_i32x4(low, low_end, 0x88));
        _mm512_storeu_si512(planes + c + PAIR_BYTES, _mm512_shuffle_i32x4(low, low_end, 0xdd));
        _mm512_storeu_si512(planes + c + 2 * PAIR_BYTES, _mm512_shuffle_i32x4(high, high_end, 0x88));
        _mm512_storeu_si512(planes + c + 3 * PAIR_BYTES, _mm512_shuffle_i32x4(high, high_end, 0xdd));
    }
    return _mm512_reduce_add_epi32(sum) + p4_dots_planes(planes + whole, x + whole, cols - whole);
}

/* Sums of u x, of 4 u x and so on: codes are multiplied where they stand in their byte, up to 2 * 64, which
 * saves shifts. The largest of them, over all 16 lanes, is 64 times the sum that fits 32 bits; a lane is a
 * 16th of one plane's, so it fits wherever the result does. */
typedef struct sums {
    __m512i of_1, of_4, of_16, of_64;
} sums;

AVX512_INLINE sums zeros(void)
{
    const __m512i zero = _mm512_setzero_si512();
    return (sums){zero, zero, zero, zero};
}

/* sum += u x, four bytes a lane. As an intrinsic, GCC 12 copies each sum before and after. */
AVX512_INLINE __m512i add_products(__m512i sum, __m512i u, __m512i x)
{
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(u), "vm"(x));
    return sum;
}

/* The planes of two blocks. */
typedef struct pair {
    __m512i x[4];
} pair;

AVX512_INLINE pair load_pair(const int8_t *planes)
{
    return (pair){{load(planes), load(planes + PAIR_BYTES), load(planes + 2 * PAIR_BYTES),
                   load(planes + 3 * PAIR_BYTES)}};
}

AVX512_INLINE sums add_pair(sums s, __m512i codes, const pair *p)
{
    s.of_1 = add_products(s.of_1, _mm512_and_si512(codes, _mm512_set1_epi8(0x03)), p->x[0]);
    s.of_4 = add_products(s.of_4, _mm512_and_si512(codes, _mm512_set1_epi8(0x0c)), p->x[1]);
    s.of_16 = add_products(s.of_16, _mm512_and_si512(codes, _mm512_set1_epi8(0x30)), p->x[2]);
    s.of_64 = add_products(s.of_64, _mm512_and_si512(codes, _mm512_set1_epi8((char)0xc0)), p->x[3]);
    return s;
}

/* Exact: each part is a multiple of what it is divided by. */
AVX512_INLINE __m512i total_of(sums s)
{
    __m512i small = _mm512_add_epi32(s.of_1, _mm512_srai_epi32(s.of_4, 2)),
            large = _mm512_add_epi32(_mm512_srai_epi32(s.of_16, 4), _mm512_srai_epi32(s.of_64, 6));
    return _mm512_add_epi32(small, large);
}

AVX512_INLINE __m256i load_half(const int8_t *from)
{
    return _mm256_loadu_si256((const __m256i *)from);
}

/* total + what `bytes` of codes, fewer than a pair of blocks, add to it. */
AVX512_INLINE __m512i add_rest(__m512i total, const uint8_t *codes, int64_t bytes, const int8_t *planes)
{
    const __m256i low = _mm256_set1_epi8(3);
    __m256i sum = _mm256_setzero_si256();
    for (; bytes > 0; bytes -= BLOCK_BYTES, codes += BLOCK_BYTES, planes += P4_PLANES_BLOCK) {
        __mmask32 here = bytes >= BLOCK_BYTES ? ~(__mmask32)0 : ((__mmask32)1 << bytes) - 1;
        __m256i c = _mm256_maskz_loadu_epi8(here, codes);
        sum = _mm256_dpbusd_epi32(sum, _mm256_and_si256(c, low), load_half(planes));
        sum = _mm256_dpbusd_epi32(sum, _mm256_and_si256(_mm256_srli_epi16(c, 2), low),
                                  load_half(planes + BLOCK_BYTES));
        sum = _mm256_dpbusd_epi32(sum, _mm256_and_si256(_mm256_srli_epi16(c, 4), low),
                                  load_half(planes + 2 * BLOCK_BYTES));
        sum = _mm256_dpbusd_epi32(sum, _mm256_and_si256(_mm256_srli_epi16(c, 6), low),
                                  load_half(planes + 3 * BLOCK_BYTES));
    }
    return _mm512_add_epi32(total, _mm512_zextsi256_si512(sum));
}

/* to[i] = the sum over the lanes of total[i]. */
AVX512_INLINE void store_sums(int32_t *to, const __m512i *total)
{
    __m512i a = _mm512_add_epi32(_mm512_unpacklo_epi32(total[0], total[1]),
                                 _mm512_unpackhi_epi32(total[0], total[1])),
            b = _mm512_add_epi32(_mm512_unpacklo_epi32(total[2], total[3]),
                                 _mm512_unpackhi_epi32(total[2], total[3])),
            all = _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
    __m256i half = _mm256_add_epi32(_mm512_castsi512_si256(all), _mm512_extracti64x4_epi64(all, 1));
    _mm_storeu_si128((__m128i *)to,
                     _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1)));
}

/* Sums of even and of odd lines of 64 bytes of codes, so that one product need not wait for another. */
typedef struct row_sums {
    sums even, odd;
} row_sums;

AVX512_INLINE row_sums add_2(row_sums s, const uint8_t *codes, const int8_t *planes)
{
    const pair even = load_pair(planes), odd = load_pair(planes + PAIR);
    return (row_sums){add_pair(s.even, load(codes), &even), add_pair(s.odd, load(codes + PAIR_BYTES), &odd)};
}

AVX512_INLINE row_sums add_8(row_sums s, const uint8_t *codes, const int8_t *planes)
{
    s = add_2(s, codes, planes);
    s = add_2(s, codes + 2 * PAIR_BYTES, planes + 2 * PAIR);
    s = add_2(s, codes + 4 * PAIR_BYTES, planes + 4 * PAIR);
    return add_2(s, codes + 6 * PAIR_BYTES, planes + 6 * PAIR);
}

AVX512_INLINE __m512i row_total(row_sums s)
{
    return _mm512_add_epi32(total_of(s.even), total_of(s.odd));
}

/* `lines` lines of a row. */
AVX512_INLINE __m512i row_of(const uint8_t *codes, const int8_t *planes, int64_t lines)
{
    row_sums s = {zeros(), zeros()};
    int64_t i = 0;
    for (; i + 16 <= lines; i += 16) {
        s = add_8(s, codes + i * PAIR_BYTES, planes + i * PAIR);
        s = add_8(s, codes + (i + 8) * PAIR_BYTES, planes + (i + 8) * PAIR);
    }
    if (i + 8 <= lines) {
        s = add_8(s, codes + i * PAIR_BYTES, planes + i * PAIR);
        i += 8;
    }
    for (; i + 2 <= lines; i += 2) {
        s = add_2(s, codes + i * PAIR_BYTES, planes + i * PAIR);
    }
    if (i < lines) {
        const pair x = load_pair(planes + i * PAIR);
        s.even = add_pair(s.even, load(codes + i * PAIR_BYTES), &x);
    }
    return row_total(s);
}

/* Rows are read one after the other, and up to 16 lines by as many instructions: so memory gives as much as
 * when it is copied. On Zen 4 four rows side by side, or lines that are requested ahead, come at less than
 * half of that. */
AVX512 static void rows(int32_t *to, const uint8_t *codes, int64_t row_bytes, const int8_t *planes,
                        int64_t cols)
{
    int64_t lines = cols / PAIR, rest = row_bytes - lines * PAIR_BYTES;
    __m512i total[P4_DOT_LANES];
    for (int r = 0; r < P4_DOT_LANES; r++) {
        total[r] = row_of(codes + r * row_bytes, planes, lines);
    }
    for (int r = 0; r < P4_DOT_LANES && rest > 0; r++) {
        total[r] =
            add_rest(total[r], codes + r * row_bytes + lines * PAIR_BYTES, rest, planes + lines * PAIR);
    }
    store_sums(to, total);
}

AVX512 static void tokens(int32_t *to, const uint8_t *codes, const int8_t *planes, int64_t stride,
                          int64_t cols)
{
    int64_t whole = cols / PAIR, rest = (cols + 3) / 4 - whole * PAIR_BYTES;
    sums s0 = zeros(), s1 = zeros(), s2 = zeros(), s3 = zeros();
    for (int64_t b = 0; b < whole; b++) {
        const int8_t *at = planes + b * PAIR;
        const pair x0 = load_pair(at), x1 = load_pair(at + stride), x2 = load_pair(at + 2 * stride),
                   x3 = load_pair(at + 3 * stride);
        __m512i c = load(codes + b * PAIR_BYTES);
        s0 = add_pair(s0, c, &x0);
        s1 = add_pair(s1, c, &x1);
        s2 = add_pair(s2, c, &x2);
        s3 = add_pair(s3, c, &x3);
    }
    __m512i total[P4_DOT_LANES] = {total_of(s0), total_of(s1), total_of(s2), total_of(s3)};
    for (int n = 0; n < P4_DOT_LANES && rest > 0; n++) {
        total[n] = add_rest(total[n], codes + whole * PAIR_BYTES, rest, planes + n * stride + whole * PAIR);
    }
    store_sums(to, total);
}

/* --- fp32 ------------------------------------------------------------------------------------- */

/* Lanes of the last columns, fewer than sixteen. */
AVX512_INLINE __mmask16 first_of(int64_t count)
{
    return (__mmask16)((1u << count) - 1);
}

AVX512_INLINE __m512 load_f32(const char *from, __mmask16 lanes)
{
    return _mm512_maskz_loadu_ps(lanes, from);
}

AVX512_INLINE __m512 load_f16(const char *from, __mmask16 lanes)
{
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(lanes, from));
}

AVX512_INLINE __m512 load_bf16(const char *from, __mmask16 lanes)
{
    __m256i halves = _mm256_maskz_loadu_epi16(lanes, from);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
}

AVX512_INLINE float sum_of_four(const __m512 *sum)
{
    return _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(sum[0], sum[1]), _mm512_add_ps(sum[2], sum[3])));
}

/* Four sums, so that one product need not wait for another. */
#define DOT(name, load_16, bytes)                                                                          \
    AVX512 static float name(const void *w, const float *x, int64_t cols)                                  \
    {                                                                                                      \
        const char *row = w;                                                                               \
        __m512 sum[4] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(),                    \
                         _mm512_setzero_ps()};                                                             \
        int64_t c = 0;                                                                                     \
        for (; c + 64 <= cols; c += 64) {                                                                  \
            for (int i = 0; i < 4; i++) {                                                                  \
                sum[i] = _mm512_fmadd_ps(load_16(row + bytes * (c + 16 * i), 0xffff),                      \
                                         _mm512_loadu_ps(x + c + 16 * i), sum[i]);                         \
            }                                                                                              \
        }                                                                                                  \
        for (int i = 0; c < cols; c += 16, i++) {                                                          \
            __mmask16 lanes = cols - c >= 16 ? (__mmask16)0xffff : first_of(cols - c);                     \
            sum[i] = _mm512_fmadd_ps(load_16(row + bytes * c, lanes), _mm512_maskz_loadu_ps(lanes, x + c), \
                                     sum[i]);                                                              \
        }                                                                                                  \
        return sum_of_four(sum);                                                                           \
    }
DOT(dot_f32, load_f32, 4)
DOT(dot_f16, load_f16, 2)
DOT(dot_bf16, load_bf16, 2)

/* Sixteen codes in a word: each lane shifts its own to the lowest bits and looks t up in a table of sixteen,
 * which repeats after four: the upper bits of the index belong to the next code. */
AVX512_INLINE __m512 trits_of(uint32_t word)
{
    const __m512i shifts = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __m512 trits = _mm512_broadcast_f32x4(_mm_setr_ps(-1, 0, 1, 0));
    return _mm512_permutexvar_ps(_mm512_srlv_epi32(_mm512_set1_epi32((int32_t)word), shifts), trits);
}

AVX512 static float dot_codes(const void *w, const float *x, int64_t cols)
{
    const uint8_t *codes = w;
    __m512 sum[4] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps()};
    int64_t c = 0;
    for (; c + 64 <= cols; c += 64) {
        for (int i = 0; i < 4; i++) {
            uint32_t word;
            memcpy(&word, codes + c / 4 + 4 * i, sizeof word);
            sum[i] = _mm512_fmadd_ps(trits_of(word), _mm512_loadu_ps(x + c + 16 * i), sum[i]);
        }
    }
    for (int i = 0; c < cols; c += 16, i++) {
        int64_t left = p4_min_i64(16, cols - c);
        uint32_t word = 0;
        memcpy(&word, codes + c / 4, (size_t)(left + 3) / 4);
        __m512 rest = _mm512_maskz_loadu_ps(left == 16 ? (__mmask16)0xffff : first_of(left), x + c);
        sum[i] = _mm512_fmadd_ps(trits_of(word), rest, sum[i]);
    }
    return sum_of_four(sum);
}

static const p4_dots dots = {.name = "AVX-512",
                             .planes = planes_of,
                             .rows = rows,
                             .tokens = tokens,
                             .f32 = dot_f32,
                             .f16 = dot_f16,
                             .bf16 = dot_bf16,
                             .codes = dot_codes};

const p4_dots *p4_cpu_dots_avx512(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                   __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni")
               ? &dots
               : NULL;
}

#else

const p4_dots *p4_cpu_dots_avx512(void)
{
    return NULL;
}

#endif
