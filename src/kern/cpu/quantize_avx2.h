/* The vector part of quantize in 256-bit vectors, for AVX2 and AVX-512: wider ones lose more on the
 * reductions than they gain. */
#ifndef DU_KERN_CPU_QUANTIZE_AVX2_H
#define DU_KERN_CPU_QUANTIZE_AVX2_H

#include <immintrin.h>
#include <stdint.h>

#include "kern/cpu/inline.h"

/* The greatest magnitude of 32 floats, as its bits: NaN above infinity above numbers. */
INLINE uint32_t simd_max_bits_32(const float *x) {
    __m256i m = _mm256_set1_epi32(0x7fffffff), max = _mm256_setzero_si256();
    for (int k = 0; k < 4; k++) {
        __m256i v = _mm256_loadu_si256((const __m256i *)(x + 8 * k));
        max = _mm256_max_epu32(max, _mm256_and_si256(v, m));
    }
    __m128i a = _mm_max_epu32(_mm256_castsi256_si128(max), _mm256_extracti128_si256(max, 1));
    a = _mm_max_epu32(a, _mm_shuffle_epi32(a, 0x4e));
    a = _mm_max_epu32(a, _mm_shuffle_epi32(a, 0xb1));
    return (uint32_t)_mm_cvtsi128_si32(a);
}

/* Sums of 16 signed bytes: eights of them, raised by 128 each, by the sum of absolute differences
 */
INLINE void simd_sum_16(int16_t sum[2], __m256i q) {
    __m256i v = _mm256_xor_si256(q, _mm256_set1_epi8(-128));
    v = _mm256_sad_epu8(v, _mm256_setzero_si256());
    v = _mm256_add_epi64(v, _mm256_bsrli_epi128(v, 8));
    sum[0] = (int16_t)(_mm256_cvtsi256_si32(v) - 2048);
    sum[1] = (int16_t)(_mm_cvtsi128_si32(_mm256_extracti128_si256(v, 1)) - 2048);
}

/* q[i] = x[i] * scale to nearest, |.| <= 127; sums of 16 */
INLINE void simd_round_32(int8_t *q, int16_t *sum, const float *x, float scale) {
    __m256i v[4];
    for (int k = 0; k < 4; k++) {
        v[k] = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 8 * k), _mm256_set1_ps(scale)));
    }
    /* Packing works in halves: fours of bytes come out as 0 2 4 6 1 3 5 7. */
    __m256i a = _mm256_packs_epi16(_mm256_packs_epi32(v[0], v[1]), _mm256_packs_epi32(v[2], v[3]));
    a = _mm256_permutevar8x32_epi32(a, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    _mm256_storeu_si256((__m256i *)q, a);
    simd_sum_16(sum, a);
}

#endif
