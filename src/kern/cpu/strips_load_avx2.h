/* Parts of a strip in AVX2 registers, lanes being rows: its 16 rows are two octets m (0, 1) of 8.
 *
 * Layouts: kern/strips.h. */
#ifndef DU_KERN_CPU_STRIPS_LOAD_AVX2_H
#define DU_KERN_CPU_STRIPS_LOAD_AVX2_H

#include <immintrin.h>

#include "kern/cpu/strip_traits.h"

/* Types with codes beyond 128: two products with activations overflow 16 bits. Their weights are
 * taken as signed integers of 16 bits. */
INLINE int strip_is_wide(strip_traits k) {
    return k.offset == 128;
}

/* Bits `from` of every byte moved to `to`; the others are noise. */
INLINE __m256i move_bits(__m256i v, int from, int to) {
    return from < to   ? _mm256_slli_epi16(v, to - from)
           : from > to ? _mm256_srli_epi16(v, from - to)
                       : v;
}

INLINE __m256i load_plane(const uint8_t *p, int i, int m) {
    return _mm256_load_si256((const __m256i *)(p + 64 * i + 32 * m));
}

INLINE __m256i bits_of(__m256i v, int mask) {
    return _mm256_and_si256(v, _mm256_set1_epi8((char)mask));
}

/* Octet m of quad j of the group at p: byte 4r + c is the code of row r, column 4j + c, levels
 * looked up; of wide types the weight itself. */
INLINE __m256i load_quad(strip_traits k, const uint8_t *p, int j, int m) {
    __m256i q = _mm256_setzero_si256();
    if (k.bits == 8) {
        q = _mm256_xor_si256(load_plane(p, j, m), _mm256_set1_epi8(-128));
    }
    if (k.bits >= 4 && k.bits <= 6) {
        q = bits_of(move_bits(load_plane(p, j % 4, m), 4 * (j / 4), 0), 15);
    }
    if (k.bits == 6) {
        __m256i v = move_bits(load_plane(p, 4 + j / 4, m), 2 * (j % 4), 4);
        q = _mm256_or_si256(q, bits_of(v, 0x30));
    }
    if (k.bits <= 3) {
        q = bits_of(move_bits(load_plane(p, j / 4, m), 2 * (j % 4), 0), 3);
    }
    if (k.bits == 3 || k.bits == 5) {
        __m256i v = move_bits(load_plane(p, k.bits - 1, m), j, k.bits - 1);
        q = _mm256_or_si256(q, bits_of(v, 1 << (k.bits - 1)));
    }
    if (k.levels) {
        __m128i levels = _mm_loadu_si128((const __m128i *)k.levels);
        levels = _mm_add_epi8(levels, _mm_set1_epi8((char)(strip_is_wide(k) ? 0 : k.offset)));
        q = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(levels), q);
    }
    return q;
}

/* Columns 0 and 2 of every row of a quad of signed bytes as 16-bit integers; columns 1 and 3. */
INLINE __m256i even_columns(__m256i q) {
    return _mm256_srai_epi16(_mm256_slli_epi16(q, 8), 8);
}
INLINE __m256i odd_columns(__m256i q) {
    return _mm256_srai_epi16(q, 8);
}

/* The scales of up to eight groups, [16] being rows. */
typedef struct {
    _Alignas(32) float scale[8][16]; /* d, or d times the sub-scale of the group */
    float min[8][16];                /* minima of types that have them; Q2_K: dmin */
    int16_t sub[8][2][16][2];        /* sub-scales of the two halves of a group, each twice */
    int16_t min16[8][16][2];         /* Q2_K: minima of the two halves */
} strip_scales;

INLINE __m128i load_16(const uint8_t *p) {
    return _mm_load_si128((const __m128i *)p);
}

/* y[r] = a[r] * d[r] of 16 unsigned bytes; of signed ones */
INLINE void scale_u8(float *y, __m128i a, const __m256 d[2]) {
    __m256 lo = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(a));
    __m256 hi = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_bsrli_si128(a, 8)));
    _mm256_store_ps(y, _mm256_mul_ps(lo, d[0]));
    _mm256_store_ps(y + 8, _mm256_mul_ps(hi, d[1]));
}
INLINE void scale_i8(float *y, __m128i a, const __m256 d[2]) {
    __m256 lo = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(a));
    __m256 hi = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_bsrli_si128(a, 8)));
    _mm256_store_ps(y, _mm256_mul_ps(lo, d[0]));
    _mm256_store_ps(y + 8, _mm256_mul_ps(hi, d[1]));
}

/* y[r] = {a[r], b[r]} of signed bytes */
INLINE void pair_i8(int16_t y[16][2], __m128i a, __m128i b) {
    __m256i lo = _mm256_cvtepi8_epi16(_mm_unpacklo_epi8(a, b));
    __m256i hi = _mm256_cvtepi8_epi16(_mm_unpackhi_epi8(a, b));
    _mm256_store_si256((__m256i *)(void *)y[0], lo);
    _mm256_store_si256((__m256i *)(void *)y[8], hi);
}

INLINE void load_f16(__m256 d[2], const uint8_t *p, float factor) {
    for (int m = 0; m < 2; m++) {
        d[m] = _mm256_cvtph_ps(load_16(p + 16 * m));
        d[m] = factor == 1 ? d[m] : _mm256_mul_ps(d[m], _mm256_set1_ps(factor));
    }
}

INLINE void store_16(float *y, const __m256 v[2]) {
    _mm256_store_ps(y, v[0]);
    _mm256_store_ps(y + 8, v[1]);
}

/* 2^(e - 128): e - 1 as the exponent field, subnormal for e < 2; NaN for 255 */
INLINE __m256 float_of_e8(__m256i e) {
    __m256i v = _mm256_slli_epi32(_mm256_sub_epi32(e, _mm256_set1_epi32(1)), 23);
    __m256i tiny = _mm256_cmpgt_epi32(_mm256_set1_epi32(2), e);
    v = _mm256_blendv_epi8(v, _mm256_sllv_epi32(_mm256_set1_epi32(1 << 21), e), tiny);
    __m256i nan = _mm256_cmpeq_epi32(e, _mm256_set1_epi32(255));
    return _mm256_castsi256_ps(_mm256_blendv_epi8(v, _mm256_set1_epi32(0x7fc00000), nan));
}

/* Six-bit scales and minima of eight groups of a unit. */
INLINE void load_k4(strip_scales *w, const uint8_t *p) {
    const __m128i low4 = _mm_set1_epi8(15), high2 = _mm_set1_epi8(0x30);
    __m256 d[2], dmin[2];
    load_f16(d, p, 1);
    load_f16(dmin, p + 32, 1);
    UNROLL
    for (int g = 0; g < 8; g++) {
        __m128i low = load_16(p + 64 + 16 * g), high = load_16(p + 192 + 16 * (g / 2));
        /* Bits 0, 1 (4, 5 of the second of a pair) belong to the scale, 2, 3 (6, 7) to the minimum.
         */
        __m128i up = g % 2 ? high : _mm_slli_epi16(high, 4);
        __m128i down = g % 2 ? _mm_srli_epi16(high, 2) : _mm_slli_epi16(high, 2);
        __m128i sc = _mm_or_si128(_mm_and_si128(low, low4), _mm_and_si128(up, high2));
        __m128i m =
            _mm_or_si128(_mm_and_si128(_mm_srli_epi16(low, 4), low4), _mm_and_si128(down, high2));
        scale_u8(w->scale[g], sc, d);
        scale_u8(w->min[g], m, dmin);
    }
}

/* Scales of the unit at p: one group, the i-th of w, or all eight. */
INLINE void load_unit(strip_traits k, strip_scales *w, const uint8_t *p, int64_t i) {
    const __m256 minus = _mm256_set1_ps(-0.0f);
    __m256 d[2], m[2];
    switch (k.scales) {
    case DU_SCALES_F16:
        load_f16(d, p, k.factor);
        store_16(w->scale[i], d);
        return;
    case DU_SCALES_F16_MIN:
        load_f16(d, p, k.factor);
        load_f16(m, p + 32, 1);
        m[0] = _mm256_xor_ps(m[0], minus);
        m[1] = _mm256_xor_ps(m[1], minus);
        store_16(w->scale[i], d);
        store_16(w->min[i], m);
        return;
    case DU_SCALES_E8:
        d[0] = float_of_e8(_mm256_cvtepu8_epi32(load_16(p)));
        d[1] = float_of_e8(_mm256_cvtepu8_epi32(_mm_bsrli_si128(load_16(p), 8)));
        store_16(w->scale[i], d);
        return;
    case DU_SCALES_K4:
        load_k4(w, p);
        return;
    case DU_SCALES_I8_32:
        load_f16(d, p, k.factor);
        UNROLL
        for (int g = 0; g < 8; g++) {
            scale_i8(w->scale[g], load_16(p + 32 + 16 * g), d);
        }
        return;
    case DU_SCALES_I8_16:
        load_f16(d, p, k.factor);
        UNROLL
        for (int g = 0; g < 8; g++) {
            __m128i a = load_16(p + 32 + 32 * g), b = load_16(p + 48 + 32 * g);
            pair_i8(w->sub[g][0], a, a);
            pair_i8(w->sub[g][1], b, b);
            store_16(w->scale[g], d);
        }
        return;
    case DU_SCALES_N_16:
        load_f16(d, p, k.factor);
        load_f16(m, p + 32, 1);
        UNROLL
        for (int g = 0; g < 8; g++) {
            const __m128i low4 = _mm_set1_epi8(15);
            __m128i a = load_16(p + 64 + 32 * g), b = load_16(p + 80 + 32 * g);
            __m128i a4 = _mm_and_si128(a, low4), b4 = _mm_and_si128(b, low4);
            pair_i8(w->sub[g][0], a4, a4);
            pair_i8(w->sub[g][1], b4, b4);
            pair_i8(w->min16[g], _mm_and_si128(_mm_srli_epi16(a, 4), low4),
                    _mm_and_si128(_mm_srli_epi16(b, 4), low4));
            store_16(w->scale[g], d);
            store_16(w->min[g], m);
        }
        return;
    }
}

/* Scales of n_groups (up to 8) groups from g on; types with blocks of 256 have all eight. */
INLINE void load_scales(strip_traits k, strip_scales *w, const uint8_t *scales, int64_t g,
                        int64_t n_groups) {
    size_t n = du_strip_scale_bytes(k.scales);
    if (k.block == 256) {
        load_unit(k, w, scales + (size_t)(g / 8) * n, 0);
        return;
    }
    for (int64_t i = 0; i < n_groups; i++) {
        load_unit(k, w, scales + (size_t)(g + i) * n, i);
    }
}

#endif
