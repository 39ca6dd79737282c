/* dots_avx2.c - the dot products with AVX2, FMA and F16C. */
#include "kernels/cpu/dots.h"

#if defined(__GNUC__) && defined(__x86_64__)

#include <immintrin.h>
#include <string.h>

#define AVX2 __attribute__((target("avx2,fma,f16c")))
#define AVX2_INLINE static inline __attribute__((always_inline, target("avx2,fma,f16c")))

enum {
    CODE_BYTES = P4_PLANES_BLOCK / 4, /* of a block */
    /* Blocks whose sums fit 16 bits: each adds two pairs to the sums of quarters, from 4 * 2 * 2 * -128 to
     * 4 * 2 * 2 * 127. */
    BLOCKS_16 = 8
};

AVX2_INLINE __m256i load(const void *from)
{
    return _mm256_loadu_si256((const __m256i *)from);
}

/* The codes of a row's last block, which may end before it does. */
AVX2_INLINE __m256i load_last(const uint8_t *codes, int64_t bytes)
{
    uint8_t padded[CODE_BYTES] = {0};
    memcpy(padded, codes, (size_t)bytes);
    return load(padded);
}

AVX2_INLINE int32_t sum_of(__m256i v)
{
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1));
    return _mm_cvtsi128_si32(s);
}

/* Sums of u x, and of 4 u x, in 16 bits: the codes of every second column are multiplied where they stand in
 * their byte, which saves shifts. */
typedef struct sums16 {
    __m256i ones, fours;
} sums16;

AVX2_INLINE sums16 zeros(void)
{
    return (sums16){_mm256_setzero_si256(), _mm256_setzero_si256()};
}

/* The codes of a block, ready to be multiplied. */
typedef struct unpacked {
    __m256i u[4]; /* of the columns 4b + i; times 4 where i is odd */
} unpacked;

AVX2_INLINE unpacked unpack(__m256i codes)
{
    const __m256i low = _mm256_set1_epi8(3), high = _mm256_set1_epi8(12);
    __m256i upper = _mm256_srli_epi16(codes, 4);
    return (unpacked){{_mm256_and_si256(codes, low), _mm256_and_si256(codes, high),
                       _mm256_and_si256(upper, low), _mm256_and_si256(upper, high)}};
}

AVX2_INLINE sums16 add_block(sums16 s, const unpacked *w, const int8_t *planes)
{
    s.ones = _mm256_add_epi16(s.ones, _mm256_maddubs_epi16(w->u[0], load(planes)));
    s.fours = _mm256_add_epi16(s.fours, _mm256_maddubs_epi16(w->u[1], load(planes + CODE_BYTES)));
    s.ones = _mm256_add_epi16(s.ones, _mm256_maddubs_epi16(w->u[2], load(planes + 2 * CODE_BYTES)));
    s.fours = _mm256_add_epi16(s.fours, _mm256_maddubs_epi16(w->u[3], load(planes + 3 * CODE_BYTES)));
    return s;
}

/* total + the sums, in 32 bits. */
AVX2_INLINE __m256i widen(__m256i total, sums16 s)
{
    const __m256i one = _mm256_set1_epi16(1);
    total = _mm256_add_epi32(total, _mm256_madd_epi16(s.ones, one));
    return _mm256_add_epi32(total, _mm256_srai_epi32(_mm256_madd_epi16(s.fours, one), 2));
}

AVX2_INLINE sums16 add_4(sums16 s, const uint8_t *codes, const int8_t *planes)
{
    const unpacked w0 = unpack(load(codes)), w1 = unpack(load(codes + CODE_BYTES)),
                   w2 = unpack(load(codes + 2 * CODE_BYTES)), w3 = unpack(load(codes + 3 * CODE_BYTES));
    s = add_block(s, &w0, planes);
    s = add_block(s, &w1, planes + P4_PLANES_BLOCK);
    s = add_block(s, &w2, planes + 2 * P4_PLANES_BLOCK);
    return add_block(s, &w3, planes + 3 * P4_PLANES_BLOCK);
}

/* A row of `bytes` of codes. */
AVX2_INLINE int32_t row_of(const uint8_t *codes, int64_t bytes, const int8_t *planes)
{
    __m256i total = _mm256_setzero_si256();
    int64_t whole = bytes / CODE_BYTES, rest = bytes - whole * CODE_BYTES, b = 0;
    for (; b + BLOCKS_16 <= whole; b += BLOCKS_16) {
        sums16 s = add_4(zeros(), codes + b * CODE_BYTES, planes + b * P4_PLANES_BLOCK);
        total = widen(total, add_4(s, codes + (b + 4) * CODE_BYTES, planes + (b + 4) * P4_PLANES_BLOCK));
    }
    sums16 s = zeros();
    for (; b < whole; b++) {
        const unpacked w = unpack(load(codes + b * CODE_BYTES));
        s = add_block(s, &w, planes + b * P4_PLANES_BLOCK);
    }
    if (rest > 0) { /* with fewer than BLOCKS_16 before it */
        const unpacked w = unpack(load_last(codes + whole * CODE_BYTES, rest));
        s = add_block(s, &w, planes + whole * P4_PLANES_BLOCK);
    }
    return sum_of(widen(total, s));
}

/* One after the other, as dots_avx512.c says. */
AVX2 static void rows(int32_t *sums, const uint8_t *codes, int64_t row_bytes, const int8_t *planes,
                      int64_t cols)
{
    (void)cols;
    for (int r = 0; r < P4_DOT_LANES; r++) {
        sums[r] = row_of(codes + r * row_bytes, row_bytes, planes);
    }
}

AVX2 static void tokens(int32_t *sums, const uint8_t *codes, const int8_t *planes, int64_t stride,
                        int64_t cols)
{
    int64_t whole = cols / P4_PLANES_BLOCK, rest = (cols + 3) / 4 - whole * CODE_BYTES;
    __m256i total[P4_DOT_LANES];
    for (int n = 0; n < P4_DOT_LANES; n++) {
        total[n] = _mm256_setzero_si256();
    }
    for (int64_t first = 0; first < whole; first += BLOCKS_16) {
        int64_t end = p4_min_i64(first + BLOCKS_16, whole);
        sums16 s0 = zeros(), s1 = zeros(), s2 = zeros(), s3 = zeros();
        for (int64_t b = first; b < end; b++) {
            const int8_t *x = planes + b * P4_PLANES_BLOCK;
            const unpacked w = unpack(load(codes + b * CODE_BYTES));
            s0 = add_block(s0, &w, x);
            s1 = add_block(s1, &w, x + stride);
            s2 = add_block(s2, &w, x + 2 * stride);
            s3 = add_block(s3, &w, x + 3 * stride);
        }
        total[0] = widen(total[0], s0);
        total[1] = widen(total[1], s1);
        total[2] = widen(total[2], s2);
        total[3] = widen(total[3], s3);
    }
    for (int n = 0; n < P4_DOT_LANES; n++) {
        if (rest > 0) {
            const unpacked w = unpack(load_last(codes + whole * CODE_BYTES, rest));
            const int8_t *x = planes + n * stride + whole * P4_PLANES_BLOCK;
            total[n] = widen(total[n], add_block(zeros(), &w, x));
        }
        sums[n] = sum_of(total[n]);
    }
}

/* --- fp32 ------------------------------------------------------------------------------------- */

AVX2_INLINE float sum_of_ps(__m256 v)
{
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    s = _mm_add_ss(s, _mm_movehdup_ps(s));
    return _mm_cvtss_f32(s);
}

AVX2_INLINE __m256 load_f16(const char *from)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)from));
}

AVX2_INLINE __m256 load_bf16(const char *from)
{
    __m128i halves = _mm_loadu_si128((const __m128i *)from);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
}

/* Four sums, so that one product need not wait for another; the columns behind the last 32 one by one. */
#define DOT_OF_HALVES(name, load_eight, portable)                                                           \
    AVX2 static float name(const void *w, const float *x, int64_t cols)                                     \
    {                                                                                                       \
        const char *row = w;                                                                                \
        __m256 sum[4] = {_mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps(),                     \
                         _mm256_setzero_ps()};                                                              \
        int64_t c = 0;                                                                                      \
        for (; c + 32 <= cols; c += 32) {                                                                   \
            for (int i = 0; i < 4; i++) {                                                                   \
                sum[i] = _mm256_fmadd_ps(load_eight(row + 2 * (c + 8 * i)), _mm256_loadu_ps(x + c + 8 * i), \
                                         sum[i]);                                                           \
            }                                                                                               \
        }                                                                                                   \
        float rest = p4_cpu_dots_portable.portable(row + 2 * c, x + c, cols - c);                           \
        return sum_of_ps(_mm256_add_ps(_mm256_add_ps(sum[0], sum[1]), _mm256_add_ps(sum[2], sum[3]))) +     \
               rest;                                                                                        \
    }
DOT_OF_HALVES(dot_f16, load_f16, f16)
DOT_OF_HALVES(dot_bf16, load_bf16, bf16)

/* Sixteen codes in a word: each lane shifts its own to the lowest bits and looks t up in a table of eight,
 * which repeats after four: the third bit of the index belongs to the next code. */
AVX2 static float dot_codes(const void *w, const float *x, int64_t cols)
{
    const uint8_t *codes = w;
    const __m256i low = _mm256_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14),
                  high = _mm256_setr_epi32(16, 18, 20, 22, 24, 26, 28, 30);
    const __m256 trits = _mm256_setr_ps(-1, 0, 1, 0, -1, 0, 1, 0);
    __m256 sum[4] = {_mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps()};
    int64_t c = 0;
    for (; c + 32 <= cols; c += 32) {
        for (int k = 0; k < 2; k++) {
            int32_t word;
            memcpy(&word, codes + (c + 16 * k) / 4, sizeof word);
            __m256i all = _mm256_set1_epi32(word);
            __m256 t = _mm256_permutevar8x32_ps(trits, _mm256_srlv_epi32(all, low));
            sum[2 * k] = _mm256_fmadd_ps(t, _mm256_loadu_ps(x + c + 16 * k), sum[2 * k]);
            t = _mm256_permutevar8x32_ps(trits, _mm256_srlv_epi32(all, high));
            sum[2 * k + 1] = _mm256_fmadd_ps(t, _mm256_loadu_ps(x + c + 16 * k + 8), sum[2 * k + 1]);
        }
    }
    float rest = p4_cpu_dots_portable.codes(codes + c / 4, x + c, cols - c);
    return sum_of_ps(_mm256_add_ps(_mm256_add_ps(sum[0], sum[1]), _mm256_add_ps(sum[2], sum[3]))) + rest;
}

static const p4_dots dots = {.name = "AVX2",
                             .planes = p4_dots_planes,
                             .rows = rows,
                             .tokens = tokens,
                             .f32 = p4_dots_f32,
                             .f16 = dot_f16,
                             .bf16 = dot_bf16,
                             .codes = dot_codes};

const p4_dots *p4_cpu_dots_avx2(void) /* what has AVX2 has F16C */
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? &dots : NULL;
}

#else

const p4_dots *p4_cpu_dots_avx2(void)
{
    return NULL;
}

#endif
