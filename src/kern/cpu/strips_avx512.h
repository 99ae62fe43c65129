/* One group (32 columns) of a strip in AVX-512 registers, lanes being rows:
 *
 *   q      the codes as unsigned bytes, levels looked up: byte 4r + c of q[j] is row r, column 4j+c
 *   scale  f32 d, or d times the sub-scale of the group
 *   min    f32 minima of types that have them; Q2_K: dmin
 *   sub    sub-scales of the two halves of the group
 *   min16  Q2_K: i16 minima of the two halves, in pairs
 *
 * Layouts: kern/strips.h. */
#ifndef DU_KERN_CPU_STRIPS_AVX512_H
#define DU_KERN_CPU_STRIPS_AVX512_H

#include <immintrin.h>

#include "kern/cpu/strip_traits.h"

typedef struct {
    __m512i q[8];
    __m512 scale, min, sub[2];
    __m512i min16;
} strip_group;

/* a | (b & c) */
INLINE __m512i or_and(__m512i a, __m512i b, __m512i c) {
    return _mm512_ternarylogic_epi64(a, b, c, 0xf8);
}

/* Bits `from` of every byte moved to `to`; the others are noise. */
INLINE __m512i move_bits(__m512i v, int from, int to) {
    return from < to   ? _mm512_slli_epi16(v, (unsigned)(to - from))
           : from > to ? _mm512_srli_epi16(v, (unsigned)(from - to))
                       : v;
}

INLINE void load_codes(strip_traits k, __m512i q[8], const uint8_t *p) {
    const __m512i low4 = _mm512_set1_epi8(15);
    if (k.bits == 8) {
        UNROLL
        for (int j = 0; j < 8; j++) {
            q[j] = _mm512_load_si512(p + 64 * j);
        }
    }
    if (k.bits >= 4 && k.bits <= 6) {
        UNROLL
        for (int i = 0; i < 4; i++) {
            __m512i v = _mm512_load_si512(p + 64 * i);
            q[i] = _mm512_and_si512(v, low4);
            q[i + 4] = _mm512_and_si512(_mm512_srli_epi16(v, 4), low4);
        }
    }
    if (k.bits == 6 || k.bits <= 3) {
        int to = k.bits == 6 ? 4 : 0;
        const __m512i mask = _mm512_set1_epi8((char)(3 << to));
        UNROLL
        for (int j = 0; j < 8; j++) {
            __m512i v = _mm512_load_si512(p + 64 * ((k.bits == 6 ? 4 : 0) + j / 4));
            v = move_bits(v, 2 * (j % 4), to);
            q[j] = k.bits == 6 ? or_and(q[j], v, mask) : _mm512_and_si512(v, mask);
        }
    }
    if (k.bits == 3 || k.bits == 5) {
        const __m512i mask = _mm512_set1_epi8((char)(1 << (k.bits - 1)));
        __m512i high = _mm512_load_si512(p + 64 * (k.bits - 1));
        UNROLL
        for (int j = 0; j < 8; j++) {
            q[j] = or_and(q[j], move_bits(high, j, k.bits - 1), mask);
        }
    }
    if (k.levels) {
        __m128i levels = _mm_loadu_si128((const __m128i *)k.levels);
        levels = _mm_add_epi8(levels, _mm_set1_epi8((char)k.offset));
        __m512i table = _mm512_broadcast_i32x4(levels);
        UNROLL
        for (int j = 0; j < 8; j++) {
            q[j] = _mm512_shuffle_epi8(table, q[j]);
        }
    }
}

INLINE __m512 load_f16(const uint8_t *p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}
INLINE __m512i load_u8(const uint8_t *p) {
    return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p));
}
INLINE __m512i load_i8(const uint8_t *p) {
    return _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p));
}

/* 2^(e - 128): e - 1 as the exponent field, subnormal for e < 2; NaN for 255 */
INLINE __m512 load_e8(const uint8_t *p) {
    __m512i e = load_u8(p);
    __m512i v = _mm512_slli_epi32(_mm512_sub_epi32(e, _mm512_set1_epi32(1)), 23);
    v = _mm512_mask_sllv_epi32(v, _mm512_cmplt_epi32_mask(e, _mm512_set1_epi32(2)),
                               _mm512_set1_epi32(1 << 21), e);
    v = _mm512_mask_mov_epi32(v, _mm512_cmpeq_epi32_mask(e, _mm512_set1_epi32(255)),
                              _mm512_set1_epi32(0x7fc00000));
    return _mm512_castsi512_ps(v);
}

INLINE __m512 d_of(strip_traits k, const uint8_t *p) {
    __m512 d = load_f16(p);
    return k.factor == 1 ? d : _mm512_mul_ps(d, _mm512_set1_ps(k.factor));
}

/* g: group in the unit at p */
INLINE void load_scales(strip_traits k, strip_group *w, const uint8_t *p, int64_t g) {
    const __m512i low4 = _mm512_set1_epi32(15), high2 = _mm512_set1_epi32(0x30);
    switch (k.scales) {
    case DU_SCALES_F16:
        w->scale = d_of(k, p);
        return;
    case DU_SCALES_F16_MIN:
        w->scale = d_of(k, p);
        w->min = _mm512_xor_ps(load_f16(p + 32), _mm512_set1_ps(-0.0f));
        return;
    case DU_SCALES_E8:
        w->scale = load_e8(p);
        return;
    case DU_SCALES_K4: {
        __m512i low = load_u8(p + 64 + 16 * g), high = load_u8(p + 192 + 16 * (g / 2));
        high = _mm512_srl_epi32(high, _mm_cvtsi64_si128(4 * (g % 2)));
        __m512i sc = or_and(_mm512_and_si512(low, low4), _mm512_slli_epi32(high, 4), high2);
        __m512i m = or_and(_mm512_srli_epi32(low, 4), _mm512_slli_epi32(high, 2), high2);
        w->scale = _mm512_mul_ps(_mm512_cvtepi32_ps(sc), load_f16(p));
        w->min = _mm512_mul_ps(_mm512_cvtepi32_ps(m), load_f16(p + 32));
        return;
    }
    case DU_SCALES_I8_32:
        w->scale = _mm512_mul_ps(_mm512_cvtepi32_ps(load_i8(p + 32 + 16 * g)), d_of(k, p));
        return;
    case DU_SCALES_I8_16:
        w->scale = d_of(k, p);
        w->sub[0] = _mm512_cvtepi32_ps(load_i8(p + 32 + 32 * g));
        w->sub[1] = _mm512_cvtepi32_ps(load_i8(p + 48 + 32 * g));
        return;
    case DU_SCALES_N_16: {
        __m512i a = load_u8(p + 64 + 32 * g), b = load_u8(p + 80 + 32 * g);
        w->scale = d_of(k, p);
        w->min = load_f16(p + 32);
        w->sub[0] = _mm512_cvtepi32_ps(_mm512_and_si512(a, low4));
        w->sub[1] = _mm512_cvtepi32_ps(_mm512_and_si512(b, low4));
        w->min16 = _mm512_or_si512(_mm512_srli_epi32(a, 4),
                                   _mm512_slli_epi32(_mm512_srli_epi32(b, 4), 16));
        return;
    }
    }
}

#endif
