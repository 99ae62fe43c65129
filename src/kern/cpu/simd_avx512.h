/* Vectors of 16 floats on AVX-512: what vec_simd.h, attn_simd.h and mm_float_simd.h are written in.
 * simd_avx2.h and simd_neon.h define the same names. */
#ifndef DU_KERN_CPU_SIMD_AVX512_H
#define DU_KERN_CPU_SIMD_AVX512_H

#include <immintrin.h>
#include <stdint.h>

#include "kern/cpu/inline.h"
#include "kern/cpu/quantize_avx2.h"
#include "kern/cpu/transpose_avx512.h"

typedef __m512 vf;
enum {
    VF = 16, /* lanes */
    /* Accumulators of a product tile: rows x tokens, and the same where each needs a second one. */
    TILE_R = 4,
    TILE_N = 6,
    TILE_N_SCALED = 3,
    QK_Q = 8, /* queries x cached rows of a tile of scores */
    QK_J = 2,
    PV_Q = 8, /* queries x vectors of a tile of weighted sums */
    PV_V = 2,
    PROBE_N = 16, /* registers of sums of a probe */
    GEMM_M = 12,  /* rows of a tile of a product for training, a multiple of 3 */
};

INLINE vf vf_set1(float a) {
    return _mm512_set1_ps(a);
}
INLINE vf vf_load(const void *p) {
    return _mm512_loadu_ps(p);
}
INLINE void vf_store(float *p, vf a) {
    _mm512_storeu_ps(p, a);
}
INLINE vf vf_add(vf a, vf b) {
    return _mm512_add_ps(a, b);
}
INLINE vf vf_sub(vf a, vf b) {
    return _mm512_sub_ps(a, b);
}
INLINE vf vf_mul(vf a, vf b) {
    return _mm512_mul_ps(a, b);
}
INLINE vf vf_sqrt(vf a) {
    return _mm512_sqrt_ps(a);
}
INLINE vf vf_div(vf a, vf b) {
    return _mm512_div_ps(a, b);
}
/* As 64-bit integers */
INLINE vf vf_add_u64(vf a, vf b) {
    return _mm512_castsi512_ps(_mm512_add_epi64(_mm512_castps_si512(a), _mm512_castps_si512(b)));
}
/* c + a * b and c - a * b, rounded once */
INLINE vf vf_fma(vf a, vf b, vf c) {
    return _mm512_fmadd_ps(a, b, c);
}
INLINE vf vf_fnma(vf a, vf b, vf c) {
    return _mm512_fnmadd_ps(a, b, c);
}
/* b where a is a NaN */
INLINE vf vf_max(vf a, vf b) {
    return _mm512_max_ps(a, b);
}
INLINE vf vf_min(vf a, vf b) {
    return _mm512_min_ps(a, b);
}

/* Lanes halved again and again: lane i is added to lane i + half. */
INLINE float vf_sum(vf a) {
    __m256 b = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    __m128 c = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    c = _mm_add_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
}
INLINE float vf_max_lane(vf a) {
    return _mm512_reduce_max_ps(a);
}

/* Nearest integers, ties to even; |a| < 2^22 */
INLINE vf vf_round(vf a) {
    return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
/* a * 2^n for integers n, subnormal results rounded once */
INLINE vf vf_scale2(vf a, vf n) {
    return _mm512_scalef_ps(a, n);
}

/* Conversions of VF small values, exact. */
INLINE vf vf_load_f16(const void *p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(p));
}
INLINE vf vf_load_bf16(const void *p) {
    __m512i v = _mm512_cvtepu16_epi32(_mm256_loadu_si256(p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(v, 16));
}
INLINE vf vf_load_i8(const void *p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(p)));
}
/* F8 E4M3 times 2^-8: its bits moved to those of f16, whose exponents are greater by 8 */
INLINE vf vf_load_f8_e4m3(const void *p) {
    __m256i v = _mm256_cvtepi8_epi16(_mm_loadu_si128(p));
    __m256i h = _mm256_and_si256(_mm256_slli_epi16(v, 7), _mm256_set1_epi16(0x3f80));
    __mmask16 nan = _mm256_cmpeq_epi16_mask(h, _mm256_set1_epi16(0x3f80));
    h = _mm256_or_si256(h, _mm256_and_si256(v, _mm256_set1_epi16(INT16_MIN)));
    return _mm512_cvtph_ps(_mm256_mask_mov_epi16(h, nan, _mm256_set1_epi16(0x7e00)));
}
/* One f16 */
INLINE float simd_f16(uint16_t h) {
    return _cvtsh_ss(h);
}
/* VF f16, rounded to nearest even */
INLINE void vf_store_f16(void *p, vf a) {
    _mm256_storeu_si256(p, _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT));
}

/* Pairs (2i, 2i + 1): both changed places; VF/2 numbers, each twice; the even ones negated. */
INLINE vf vf_swap_pairs(vf a) {
    return _mm512_permute_ps(a, 0xb1);
}
INLINE vf vf_load_twice(const float *p) {
    __m512i lanes = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
    return _mm512_permutexvar_ps(lanes, _mm512_castps256_ps512(_mm256_loadu_ps(p)));
}
INLINE vf vf_negate_even(vf a) {
    return _mm512_castsi512_ps(
        _mm512_xor_si512(_mm512_castps_si512(a), _mm512_set1_epi64(0x80000000)));
}

/* x[i] lane j <-> x[j] lane i */
INLINE void simd_transpose(vf x[VF]) {
    __m512i y[VF];
    UNROLL
    for (int i = 0; i < VF; i++) {
        y[i] = _mm512_castps_si512(x[i]);
    }
    transpose_16(y);
    UNROLL
    for (int i = 0; i < VF; i++) {
        x[i] = _mm512_castsi512_ps(y[i]);
    }
}

/* To BF16, to nearest even, subnormal numbers to zeros; a NaN stays one. */
INLINE vf simd_round_bf16(vf v) {
    __m512i bits = _mm512_castps_si512(v), odd = _mm512_set1_epi32(1);
    odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), odd);
    __m512i up = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(1 << 22));
    __m512i sign = _mm512_and_si512(bits, _mm512_set1_epi32(INT32_MIN));
    __m512i y = _mm512_mask_mov_epi32(up, _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q), quiet);
    y = _mm512_and_si512(y, _mm512_set1_epi32((int)0xffff0000));
    __mmask16 small = _mm512_testn_epi32_mask(bits, _mm512_set1_epi32(0x7f800000));
    return _mm512_castsi512_ps(_mm512_mask_mov_epi32(y, small, sign));
}

#endif
