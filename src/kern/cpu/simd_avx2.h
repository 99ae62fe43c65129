/* Vectors of 8 floats on AVX2, FMA and F16C; the names are explained in simd_avx512.h. */
#ifndef DU_KERN_CPU_SIMD_AVX2_H
#define DU_KERN_CPU_SIMD_AVX2_H

#include <immintrin.h>
#include <stdint.h>

#include "kern/cpu/inline.h"
#include "kern/cpu/quantize_avx2.h"

typedef __m256 vf;
enum { VF = 8, TILE_R = 4, TILE_N = 3, TILE_N_SCALED = 2 };
enum { QK_Q = 4, QK_J = 2, PV_Q = 6, PV_V = 2, PROBE_N = 10, GEMM_M = 6 };

INLINE vf vf_set1(float a) {
    return _mm256_set1_ps(a);
}
INLINE vf vf_load(const void *p) {
    return _mm256_loadu_ps(p);
}
INLINE void vf_store(float *p, vf a) {
    _mm256_storeu_ps(p, a);
}
INLINE vf vf_add(vf a, vf b) {
    return _mm256_add_ps(a, b);
}
INLINE vf vf_sub(vf a, vf b) {
    return _mm256_sub_ps(a, b);
}
INLINE vf vf_mul(vf a, vf b) {
    return _mm256_mul_ps(a, b);
}
INLINE vf vf_sqrt(vf a) {
    return _mm256_sqrt_ps(a);
}
INLINE vf vf_div(vf a, vf b) {
    return _mm256_div_ps(a, b);
}
INLINE vf vf_add_u64(vf a, vf b) {
    return _mm256_castsi256_ps(_mm256_add_epi64(_mm256_castps_si256(a), _mm256_castps_si256(b)));
}
INLINE vf vf_fma(vf a, vf b, vf c) {
    return _mm256_fmadd_ps(a, b, c);
}
INLINE vf vf_fnma(vf a, vf b, vf c) {
    return _mm256_fnmadd_ps(a, b, c);
}
INLINE vf vf_max(vf a, vf b) {
    return _mm256_max_ps(a, b);
}
INLINE vf vf_min(vf a, vf b) {
    return _mm256_min_ps(a, b);
}

INLINE float vf_sum(vf a) {
    __m128 c = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    c = _mm_add_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
}
INLINE float vf_max_lane(vf a) {
    __m128 c = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    c = _mm_max_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_max_ss(c, _mm_movehdup_ps(c)));
}

INLINE vf vf_round(vf a) {
    return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
/* In two factors, since 2^n alone may lie outside the normal numbers; |n| < 250 */
INLINE vf vf_scale2(vf a, vf n) {
    __m256i i = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(i, 1);
    __m256i bias = _mm256_set1_epi32(127);
    __m256i e0 = _mm256_slli_epi32(_mm256_add_epi32(half, bias), 23);
    __m256i e1 = _mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(i, half), bias), 23);
    return vf_mul(vf_mul(a, _mm256_castsi256_ps(e0)), _mm256_castsi256_ps(e1));
}

INLINE vf vf_load_f16(const void *p) {
    return _mm256_cvtph_ps(_mm_loadu_si128(p));
}
INLINE vf vf_load_bf16(const void *p) {
    __m256i v = _mm256_cvtepu16_epi32(_mm_loadu_si128(p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(v, 16));
}
INLINE vf vf_load_i8(const void *p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(p)));
}
INLINE vf vf_load_f8_e4m3(const void *p) {
    __m128i v = _mm_cvtepi8_epi16(_mm_loadl_epi64(p));
    __m128i h = _mm_and_si128(_mm_slli_epi16(v, 7), _mm_set1_epi16(0x3f80));
    __m128i nan = _mm_cmpeq_epi16(h, _mm_set1_epi16(0x3f80));
    h = _mm_or_si128(h, _mm_and_si128(v, _mm_set1_epi16(INT16_MIN)));
    return _mm256_cvtph_ps(_mm_or_si128(h, _mm_and_si128(nan, _mm_set1_epi16(0x7e00))));
}
INLINE float simd_f16(uint16_t h) {
    return _cvtsh_ss(h);
}
INLINE void vf_store_f16(void *p, vf a) {
    _mm_storeu_si128(p, _mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT));
}

INLINE vf vf_swap_pairs(vf a) {
    return _mm256_permute_ps(a, 0xb1);
}
INLINE vf vf_load_twice(const float *p) {
    __m256i lanes = _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3);
    return _mm256_permutevar8x32_ps(_mm256_castps128_ps256(_mm_loadu_ps(p)), lanes);
}
INLINE vf vf_negate_even(vf a) {
    return _mm256_xor_ps(a, _mm256_castsi256_ps(_mm256_set1_epi64x(0x80000000)));
}

INLINE void simd_transpose(vf x[VF]) {
    vf y[VF];
    UNROLL
    for (int i = 0; i < VF; i += 4) {
        vf a = _mm256_unpacklo_ps(x[i], x[i + 1]), b = _mm256_unpackhi_ps(x[i], x[i + 1]);
        vf c = _mm256_unpacklo_ps(x[i + 2], x[i + 3]), d = _mm256_unpackhi_ps(x[i + 2], x[i + 3]);
        y[i] = _mm256_shuffle_ps(a, c, 0x44);
        y[i + 1] = _mm256_shuffle_ps(a, c, 0xee);
        y[i + 2] = _mm256_shuffle_ps(b, d, 0x44);
        y[i + 3] = _mm256_shuffle_ps(b, d, 0xee);
    }
    UNROLL
    for (int i = 0; i < 4; i++) {
        x[i] = _mm256_permute2f128_ps(y[i], y[i + 4], 0x20);
        x[i + 4] = _mm256_permute2f128_ps(y[i], y[i + 4], 0x31);
    }
}

INLINE vf simd_round_bf16(vf v) {
    const __m256i upper = _mm256_set1_epi32((int)0xffff0000);
    __m256i bits = _mm256_castps_si256(v), odd = _mm256_set1_epi32(1);
    odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), odd);
    __m256i up = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(1 << 22));
    __m256i exponent = _mm256_and_si256(bits, _mm256_set1_epi32(0x7f800000));
    __m256i sign = _mm256_and_si256(bits, _mm256_set1_epi32(INT32_MIN));
    __m256i small = _mm256_cmpeq_epi32(exponent, _mm256_setzero_si256());
    __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
    __m256i y = _mm256_and_si256(_mm256_blendv_epi8(up, quiet, nan), upper);
    return _mm256_castsi256_ps(_mm256_blendv_epi8(y, sign, small));
}

#endif
