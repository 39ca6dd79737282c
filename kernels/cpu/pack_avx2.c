#include "kernels/cpu/pack_avx2.h"

#if defined(__GNUC__) && defined(__x86_64__)

#include <immintrin.h>

#define AVX2 __attribute__((target("avx2")))
#define AVX2_INLINE static inline __attribute__((always_inline, target("avx2")))

enum {
    PACKED_BYTES = 16, /* taken at a time, a number in each lane of 16 bits */
    CODE_BYTES = 20,   /* made of them */
    STORED_BYTES = 26, /* what is written: two vectors of 16 bytes, of which 10 count */
};

/* The five codes of each byte v, first in the low bits. With q_k = floor(v / 3^k) digit k counted from the
 * last is q_k - 3 q_(k + 1), and the last digit is the highest code:
 *   sum over k of 4^(4 - k) (q_k - 3 q_(k + 1)) = 256 v - 11 (64 q_1 + 16 q_2 + 4 q_3 + q_4).
 * A quotient is the upper half of v times a rounded-up 65536 / 3^k, exact for all bytes. */
AVX2_INLINE __m256i five_codes(__m256i v)
{
    __m256i q = _mm256_mulhi_epu16(v, _mm256_set1_epi16(21846));
    q = _mm256_add_epi16(_mm256_slli_epi16(q, 2), _mm256_mulhi_epu16(v, _mm256_set1_epi16(7282)));
    q = _mm256_add_epi16(_mm256_slli_epi16(q, 2), _mm256_mulhi_epu16(v, _mm256_set1_epi16(2428)));
    q = _mm256_add_epi16(_mm256_slli_epi16(q, 2), _mm256_mulhi_epu16(v, _mm256_set1_epi16(810)));
    return _mm256_sub_epi16(_mm256_slli_epi16(v, 8), _mm256_mullo_epi16(q, _mm256_set1_epi16(11)));
}

AVX2 int64_t p4_cpu_unpack_avx2(uint8_t *codes, const uint8_t *packed, int64_t code_bytes)
{
    const __m256i close = _mm256_setr_epi8(0, 1, 2, 3, 4, 8, 9, 10, 11, 12, -1, -1, -1, -1, -1, -1, 0, 1, 2,
                                           3, 4, 8, 9, 10, 11, 12, -1, -1, -1, -1, -1, -1);
    int64_t taken = 0;
    for (int64_t made = 0; made + STORED_BYTES <= code_bytes; made += CODE_BYTES, taken += PACKED_BYTES) {
        __m256i v = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(packed + taken)));
        /* Two times 10 bits in 20 of each 32, two times 20 in 40 of each 64, then five bytes behind five. */
        __m256i pairs = _mm256_madd_epi16(five_codes(v), _mm256_set1_epi32(1024 << 16 | 1));
        __m256i quads =
            _mm256_or_si256(_mm256_and_si256(pairs, _mm256_set1_epi64x(0xfffff)),
                            _mm256_and_si256(_mm256_srli_epi64(pairs, 12), _mm256_set1_epi64x(0xfffff00000)));
        quads = _mm256_shuffle_epi8(quads, close);
        _mm_storeu_si128((__m128i *)(codes + made), _mm256_castsi256_si128(quads));
        _mm_storeu_si128((__m128i *)(codes + made + CODE_BYTES / 2), _mm256_extracti128_si256(quads, 1));
    }
    return taken;
}

bool p4_cpu_has_pack_avx2(void)
{
    return __builtin_cpu_supports("avx2");
}

#else

int64_t p4_cpu_unpack_avx2(uint8_t *codes, const uint8_t *packed, int64_t code_bytes)
{
    (void)codes;
    (void)packed;
    (void)code_bytes;
    return 0;
}

bool p4_cpu_has_pack_avx2(void)
{
    return false;
}

#endif
