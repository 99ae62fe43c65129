/* 256 weights of a block type in registers, the unit of AVX2 products: one block of 256, or eight
 * blocks of 32. One register per group g of 32 weights.
 *
 *   q        32 weights per register, signed or unsigned as the type says
 *   scale    f32 per 32 weights: w = scale * q - min
 *   min      f32 per 32, of types that have them
 *
 * Types with a scale per 16 weights (and Q2_K, with a minimum per 16):
 *
 *   w = d * sub * q - dmin * min16
 *
 *   sub, min16   sixteen i16 in order
 *
 * Every loader reads only the bytes of its blocks. Layouts: tensor/quant.h. */
#ifndef DU_KERN_CPU_BLOCKS_AVX2_H
#define DU_KERN_CPU_BLOCKS_AVX2_H

#include <immintrin.h>
#include <stdint.h>

#include "kern/cpu/inline.h"
#include "tensor/quant.h"

typedef struct {
    __m256i q[8];
    __m256 scale, min;
    __m256i sub, min16;
    float d, dmin;
} du_ymm;

/* X(suffix, function name part, q is signed, scale per 16, minima: 0 none, 1 in min, 2 in min16) */
#define DU_YMM_LIST(X)                                                                             \
    X(Q4_0, q4_0, 1, 0, 0)                                                                         \
    X(Q4_1, q4_1, 0, 0, 1)                                                                         \
    X(Q5_0, q5_0, 1, 0, 0)                                                                         \
    X(Q5_1, q5_1, 0, 0, 1)                                                                         \
    X(Q8_0, q8_0, 1, 0, 0)                                                                         \
    X(Q2_K, q2_k, 0, 1, 2)                                                                         \
    X(Q3_K, q3_k, 1, 1, 0)                                                                         \
    X(Q4_K, q4_k, 0, 0, 1)                                                                         \
    X(Q5_K, q5_k, 0, 0, 1)                                                                         \
    X(Q6_K, q6_k, 1, 1, 0)                                                                         \
    X(IQ4_NL, iq4_nl, 1, 0, 0)                                                                     \
    X(IQ4_XS, iq4_xs, 1, 0, 0)                                                                     \
    X(IQ1_S, iq1_s, 1, 0, 0)                                                                       \
    X(IQ1_M, iq1_m, 1, 1, 0)                                                                       \
    X(IQ2_XXS, iq2_xxs, 1, 0, 0)                                                                   \
    X(IQ2_XS, iq2_xs, 1, 1, 0)                                                                     \
    X(IQ2_S, iq2_s, 1, 1, 0)                                                                       \
    X(IQ3_XXS, iq3_xxs, 1, 0, 0)                                                                   \
    X(IQ3_S, iq3_s, 1, 0, 0)                                                                       \
    X(MXFP4, mxfp4, 1, 0, 0)

/* Nibbles of 16 bytes in order: low ones are weights 0-15, high ones 16-31. */
INLINE __m256i du_ymm_nibbles_16(const void *p) {
    __m256i v = _mm256_broadcastsi128_si256(_mm_loadu_si128(p));
    v = _mm256_srlv_epi64(v, _mm256_setr_epi64x(0, 0, 4, 4));
    return _mm256_and_si256(v, _mm256_set1_epi8(15));
}

/* Levels of nibbles by a table of 16 signed bytes. */
INLINE __m256i du_ymm_levels(__m256i nibbles, const int8_t *levels) {
    __m256i table = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)levels));
    return _mm256_shuffle_epi8(table, nibbles);
}

/* The f16 at the head of eight blocks, `bytes` apart. */
INLINE __m256 du_ymm_heads(const uint8_t *p, size_t bytes) {
    __m128i h = _mm_cvtsi32_si128(du_load_u16(p));
    h = _mm_insert_epi16(h, du_load_u16(p + bytes), 1);
    h = _mm_insert_epi16(h, du_load_u16(p + 2 * bytes), 2);
    h = _mm_insert_epi16(h, du_load_u16(p + 3 * bytes), 3);
    h = _mm_insert_epi16(h, du_load_u16(p + 4 * bytes), 4);
    h = _mm_insert_epi16(h, du_load_u16(p + 5 * bytes), 5);
    h = _mm_insert_epi16(h, du_load_u16(p + 6 * bytes), 6);
    h = _mm_insert_epi16(h, du_load_u16(p + 7 * bytes), 7);
    return _mm256_cvtph_ps(h);
}

INLINE void du_ymm_load_q4_0(du_ymm *w, const uint8_t *p) {
    const du_block_q4_0 *b = (const du_block_q4_0 *)p;
    UNROLL
    for (int g = 0; g < 8; g++) {
        w->q[g] = _mm256_sub_epi8(du_ymm_nibbles_16(b[g].qs), _mm256_set1_epi8(8));
    }
    w->scale = du_ymm_heads(p, sizeof *b);
}

INLINE void du_ymm_load_q4_1(du_ymm *w, const uint8_t *p) {
    const du_block_q4_1 *b = (const du_block_q4_1 *)p;
    UNROLL
    for (int g = 0; g < 8; g++) {
        w->q[g] = du_ymm_nibbles_16(b[g].qs);
    }
    w->scale = du_ymm_heads(p, sizeof *b);
    w->min = _mm256_xor_ps(du_ymm_heads(p + 2, sizeof *b), _mm256_set1_ps(-0.0f));
}

/* All bits of a byte set where a bit of 32 is. */
INLINE __m256i du_ymm_mask(uint32_t bits) {
    __m256i v = _mm256_shuffle_epi8(
        _mm256_set1_epi32((int)bits),
        _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303));
    __m256i select = _mm256_set1_epi64x((int64_t)0x8040201008040201);
    return _mm256_cmpeq_epi8(_mm256_and_si256(v, select), select);
}

INLINE void du_ymm_load_q5_0(du_ymm *w, const uint8_t *p) {
    const du_block_q5_0 *b = (const du_block_q5_0 *)p;
    UNROLL
    for (int g = 0; g < 8; g++) {
        /* -16 where the fifth bit is not set */
        __m256i low =
            _mm256_andnot_si256(du_ymm_mask(du_load_u32(b[g].qh)), _mm256_set1_epi8((char)0xf0));
        w->q[g] = _mm256_or_si256(du_ymm_nibbles_16(b[g].qs), low);
    }
    w->scale = du_ymm_heads(p, sizeof *b);
}

INLINE void du_ymm_load_q5_1(du_ymm *w, const uint8_t *p) {
    const du_block_q5_1 *b = (const du_block_q5_1 *)p;
    UNROLL
    for (int g = 0; g < 8; g++) {
        __m256i high = _mm256_and_si256(du_ymm_mask(du_load_u32(b[g].qh)), _mm256_set1_epi8(16));
        w->q[g] = _mm256_or_si256(du_ymm_nibbles_16(b[g].qs), high);
    }
    w->scale = du_ymm_heads(p, sizeof *b);
    w->min = _mm256_xor_ps(du_ymm_heads(p + 2, sizeof *b), _mm256_set1_ps(-0.0f));
}

INLINE void du_ymm_load_q8_0(du_ymm *w, const uint8_t *p) {
    const du_block_q8_0 *b = (const du_block_q8_0 *)p;
    UNROLL
    for (int g = 0; g < 8; g++) {
        w->q[g] = _mm256_loadu_si256((const __m256i *)b[g].qs);
    }
    w->scale = du_ymm_heads(p, sizeof *b);
}

INLINE void du_ymm_load_iq4_nl(du_ymm *w, const uint8_t *p) {
    const du_block_iq4_nl *b = (const du_block_iq4_nl *)p;
    UNROLL
    for (int g = 0; g < 8; g++) {
        w->q[g] = du_ymm_levels(du_ymm_nibbles_16(b[g].qs), du_iq4_values);
    }
    w->scale = du_ymm_heads(p, sizeof *b);
}

INLINE void du_ymm_load_mxfp4(du_ymm *w, const uint8_t *p) {
    const du_block_mxfp4 *b = (const du_block_mxfp4 *)p;
    UNROLL
    for (int g = 0; g < 8; g++) {
        w->q[g] = du_ymm_levels(du_ymm_nibbles_16(b[g].qs), du_mxfp4_values);
    }
    /* 2^(e - 128): e - 1 as the exponent field, subnormal for e < 2; NaN for 255 */
    __m256i e = _mm256_setr_epi32(b[0].e, b[1].e, b[2].e, b[3].e, b[4].e, b[5].e, b[6].e, b[7].e);
    __m256i normal = _mm256_slli_epi32(_mm256_sub_epi32(e, _mm256_set1_epi32(1)), 23);
    __m256i small = _mm256_sllv_epi32(_mm256_set1_epi32(1 << 21), e);
    __m256i v = _mm256_blendv_epi8(normal, small, _mm256_cmpgt_epi32(_mm256_set1_epi32(2), e));
    v = _mm256_blendv_epi8(v, _mm256_set1_epi32(0x7fc00000),
                           _mm256_cmpeq_epi32(e, _mm256_set1_epi32(255)));
    w->scale = _mm256_castsi256_ps(v);
}

INLINE void du_ymm_load_iq4_xs(du_ymm *w, const uint8_t *p) {
    const du_block_iq4_xs *b = (const du_block_iq4_xs *)p;
    UNROLL
    for (int g = 0; g < 8; g++) {
        w->q[g] = du_ymm_levels(du_ymm_nibbles_16(b->qs + 16 * g), du_iq4_values);
    }
    __m256i s = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    __m256i low = _mm256_srlv_epi32(_mm256_set1_epi32((int)du_load_u32(b->scales_l)),
                                    _mm256_slli_epi32(s, 2));
    __m256i high = _mm256_srlv_epi32(_mm256_set1_epi32(b->scales_h), _mm256_slli_epi32(s, 1));
    low = _mm256_and_si256(low, _mm256_set1_epi32(15));
    high = _mm256_slli_epi32(_mm256_and_si256(high, _mm256_set1_epi32(3)), 4);
    __m256i scale = _mm256_sub_epi32(_mm256_or_si256(low, high), _mm256_set1_epi32(32));
    w->scale = _mm256_mul_ps(_mm256_cvtepi32_ps(scale), _mm256_set1_ps(_cvtsh_ss(b->d)));
}

/* The 6-bit scales and minima of the K types with minima per 32 (du_k4_scales), times d and dmin.
 */
INLINE void du_ymm_k4_scales(du_ymm *w, const uint8_t *p) {
    /* bytes 0-3: d, dmin; then b[12]: sc low, m low, the upper four's nibbles */
    __m128i head = _mm_loadu_si128((const __m128i *)p);
    __m128i low = _mm_shuffle_epi8(
        head, _mm_setr_epi8(4, 5, 6, 7, 12, 13, 14, 15, 8, 9, 10, 11, 12, 13, 14, 15));
    low = _mm_and_si128(_mm_srlv_epi32(low, _mm_setr_epi32(0, 0, 0, 4)),
                        _mm_setr_epi32(0x3f3f3f3f, 0x0f0f0f0f, 0x3f3f3f3f, 0x0f0f0f0f));
    __m128i high = _mm_shuffle_epi8(
        head, _mm_setr_epi8(-1, -1, -1, -1, 4, 5, 6, 7, -1, -1, -1, -1, 8, 9, 10, 11));
    high = _mm_and_si128(_mm_srli_epi32(high, 2), _mm_set1_epi8(0x30));
    __m128i sc_m = _mm_or_si128(low, high);
    __m256 sc = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(sc_m));
    __m256 m = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_bsrli_si128(sc_m, 8)));
    __m128 d = _mm_cvtph_ps(head);
    w->scale = _mm256_mul_ps(sc, _mm256_broadcastss_ps(d));
    w->min = _mm256_mul_ps(m, _mm256_broadcastss_ps(_mm_movehdup_ps(d)));
}

/* Nibbles of 32 bytes: low ones are the first 32 weights. */
INLINE void du_ymm_nibbles_32(__m256i q[2], const uint8_t *p) {
    __m256i v = _mm256_loadu_si256((const __m256i *)p), low = _mm256_set1_epi8(15);
    q[0] = _mm256_and_si256(v, low);
    q[1] = _mm256_and_si256(_mm256_srli_epi16(v, 4), low);
}

INLINE void du_ymm_load_q4_k(du_ymm *w, const uint8_t *p) {
    const du_block_q4_k *b = (const du_block_q4_k *)p;
    UNROLL
    for (int j = 0; j < 4; j++) {
        du_ymm_nibbles_32(w->q + 2 * j, b->qs + 32 * j);
    }
    du_ymm_k4_scales(w, p);
}

INLINE void du_ymm_load_q5_k(du_ymm *w, const uint8_t *p) {
    const du_block_q5_k *b = (const du_block_q5_k *)p;
    __m256i high = _mm256_loadu_si256((const __m256i *)b->qh), bit = _mm256_set1_epi8(16);
    UNROLL
    for (int j = 0; j < 4; j++) {
        du_ymm_nibbles_32(w->q + 2 * j, b->qs + 32 * j);
    }
    UNROLL
    for (int g = 0; g < 8; g++) { /* bit g moved to bit 4 */
        __m256i v = g < 4 ? _mm256_slli_epi16(high, 4 - g) : _mm256_srli_epi16(high, g - 4);
        w->q[g] = _mm256_or_si256(w->q[g], _mm256_and_si256(v, bit));
    }
    du_ymm_k4_scales(w, p);
}

INLINE void du_ymm_load_q6_k(du_ymm *w, const uint8_t *p) {
    const du_block_q6_k *b = (const du_block_q6_k *)p;
    __m256i bits = _mm256_set1_epi8(0x30), offset = _mm256_set1_epi8(32);
    UNROLL
    for (int h = 0; h < 2; h++) {
        __m256i *q = w->q + 4 * h, v[4];
        __m256i high = _mm256_loadu_si256((const __m256i *)(b->qh + 32 * h));
        du_ymm_nibbles_32(v, b->ql + 64 * h);
        du_ymm_nibbles_32(v + 2, b->ql + 64 * h + 32);
        q[0] = _mm256_or_si256(v[0], _mm256_and_si256(_mm256_slli_epi16(high, 4), bits));
        q[1] = _mm256_or_si256(v[2], _mm256_and_si256(_mm256_slli_epi16(high, 2), bits));
        q[2] = _mm256_or_si256(v[1], _mm256_and_si256(high, bits));
        q[3] = _mm256_or_si256(v[3], _mm256_and_si256(_mm256_srli_epi16(high, 2), bits));
    }
    UNROLL
    for (int g = 0; g < 8; g++) {
        w->q[g] = _mm256_sub_epi8(w->q[g], offset);
    }
    w->sub = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)b->scales));
    w->d = _cvtsh_ss(b->d);
}

/* Four groups of two bits of 32 bytes. */
INLINE void du_ymm_pairs(__m256i q[4], const uint8_t *p) {
    __m256i v = _mm256_loadu_si256((const __m256i *)p), low = _mm256_set1_epi8(3);
    q[0] = _mm256_and_si256(v, low);
    q[1] = _mm256_and_si256(_mm256_srli_epi16(v, 2), low);
    q[2] = _mm256_and_si256(_mm256_srli_epi16(v, 4), low);
    q[3] = _mm256_and_si256(_mm256_srli_epi16(v, 6), low);
}

INLINE void du_ymm_load_q2_k(du_ymm *w, const uint8_t *p) {
    const du_block_q2_k *b = (const du_block_q2_k *)p;
    du_ymm_pairs(w->q, b->qs);
    du_ymm_pairs(w->q + 4, b->qs + 32);
    __m128i scales = _mm_loadu_si128((const __m128i *)b->scales), low = _mm_set1_epi8(15);
    w->sub = _mm256_cvtepu8_epi16(_mm_and_si128(scales, low));
    w->min16 = _mm256_cvtepu8_epi16(_mm_and_si128(_mm_srli_epi16(scales, 4), low));
    w->d = _cvtsh_ss(b->d);
    w->dmin = _cvtsh_ss(b->dmin);
}

INLINE void du_ymm_load_q3_k(du_ymm *w, const uint8_t *p) {
    const du_block_q3_k *b = (const du_block_q3_k *)p;
    __m256i high = _mm256_loadu_si256((const __m256i *)b->hmask), four = _mm256_set1_epi8(4);
    du_ymm_pairs(w->q, b->qs);
    du_ymm_pairs(w->q + 4, b->qs + 32);
    UNROLL
    for (int g = 0; g < 8; g++) { /* 4 less where bit g, moved to bit 2, is not set */
        __m256i v = g < 2 ? _mm256_slli_epi16(high, 2 - g) : _mm256_srli_epi16(high, g - 2);
        w->q[g] = _mm256_sub_epi8(w->q[g], _mm256_andnot_si256(v, four));
    }
    /* The last 16 bytes of the block: two of qs, scales[12], d (du_q3_k_scales). */
    __m128i tail = _mm_loadu_si128((const __m128i *)(p + sizeof *b - 16));
    __m128i lo =
        _mm_shuffle_epi8(tail, _mm_setr_epi8(2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5, 6, 7, 8, 9));
    __m128i hi = _mm_shuffle_epi8(
        tail, _mm_setr_epi8(10, 11, 12, 13, 10, 11, 12, 13, 10, 11, 12, 13, 10, 11, 12, 13));
    lo = _mm_and_si128(_mm_srlv_epi64(lo, _mm_set_epi64x(4, 0)), _mm_set1_epi8(15));
    hi = _mm_and_si128(_mm_srlv_epi32(hi, _mm_setr_epi32(0, 2, 4, 6)), _mm_set1_epi8(3));
    hi = _mm_slli_epi32(hi, 4);
    __m128i scales = _mm_sub_epi8(_mm_or_si128(lo, hi), _mm_set1_epi8(32));
    w->sub = _mm256_cvtepi8_epi16(scales);
    w->d = _cvtsh_ss(b->d);
}

/* The IQ types: lattice points, negative where a bit is set. */
INLINE __m256i du_ymm_signed(__m256i points, uint32_t signs) {
    __m256i m = du_ymm_mask(signs);
    return _mm256_sub_epi8(_mm256_xor_si256(points, m), m);
}

/* Four 7-bit sign codes, one per byte, with their eighth bits (du_iq_signs). */
INLINE uint32_t du_ymm_sign_codes(uint32_t codes) {
    uint32_t x = codes ^ (codes >> 4 & 0x07070707);
    x ^= x >> 2 & 0x03030303;
    x ^= x >> 1 & 0x01010101;
    return codes | (x & 0x01010101) << 7;
}

/* The same for four codes side by side in 28 bits. */
INLINE uint32_t du_ymm_sign_word(uint32_t w) {
    return du_ymm_sign_codes((w & 0x7f) | (w << 1 & 0x7f00) | (w << 2 & 0x7f0000) |
                             (w << 3 & 0x7f000000));
}

/* Odd scales 2 s + 1 of nibbles s, one per 16 weights (IQ2_XS, IQ2_S). */
INLINE __m256i du_ymm_sub_nibbles(const uint8_t *p) {
    __m128i s = _mm_loadl_epi64((const __m128i *)p);
    s = _mm_and_si128(_mm_unpacklo_epi8(s, _mm_srli_epi16(s, 4)), _mm_set1_epi8(15));
    s = _mm_or_si128(_mm_slli_epi16(s, 1), _mm_set1_epi8(1));
    return _mm256_cvtepu8_epi16(s);
}

/* f32 scales d (2 s + 1) of eight i32 s. */
INLINE __m256 du_ymm_odd_scales(__m256i s, float d) {
    s = _mm256_or_si256(_mm256_slli_epi32(s, 1), _mm256_set1_epi32(1));
    return _mm256_mul_ps(_mm256_cvtepi32_ps(s), _mm256_set1_ps(d));
}

INLINE __m256i du_ymm_points(uint64_t a, uint64_t b, uint64_t c, uint64_t d) {
    return _mm256_setr_epi64x((int64_t)a, (int64_t)b, (int64_t)c, (int64_t)d);
}

INLINE void du_ymm_load_iq2_xxs(du_ymm *w, const uint8_t *p) {
    const du_block_iq2_xxs *b = (const du_block_iq2_xxs *)p;
    const uint64_t *grid = du_iq2_xxs_grid;
    uint32_t s[8];
    UNROLL
    for (int g = 0; g < 8; g++) {
        const uint8_t *i = b->qs + 8 * g;
        uint32_t word = du_load_u32(i + 4);
        __m256i v = du_ymm_points(grid[i[0]], grid[i[1]], grid[i[2]], grid[i[3]]);
        w->q[g] = du_ymm_signed(v, du_ymm_sign_word(word));
        s[g] = word >> 28;
    }
    w->scale = du_ymm_odd_scales(_mm256_loadu_si256((const __m256i *)s), _cvtsh_ss(b->d) * 0.125f);
}

INLINE void du_ymm_load_iq2_xs(du_ymm *w, const uint8_t *p) {
    const du_block_iq2_xs *b = (const du_block_iq2_xs *)p;
    const uint64_t *grid = du_iq2_xs_grid;
    UNROLL
    for (int g = 0; g < 8; g++) {
        uint32_t i0 = b->qs[4 * g], i1 = b->qs[4 * g + 1];
        uint32_t i2 = b->qs[4 * g + 2], i3 = b->qs[4 * g + 3];
        __m256i v = du_ymm_points(grid[i0 & 511], grid[i1 & 511], grid[i2 & 511], grid[i3 & 511]);
        uint32_t codes = i0 >> 9 | i1 >> 9 << 8 | i2 >> 9 << 16 | i3 >> 9 << 24;
        w->q[g] = du_ymm_signed(v, du_ymm_sign_codes(codes));
    }
    w->sub = du_ymm_sub_nibbles(b->scales);
    w->d = _cvtsh_ss(b->d) * 0.125f;
}

INLINE void du_ymm_load_iq2_s(du_ymm *w, const uint8_t *p) {
    const du_block_iq2_s *b = (const du_block_iq2_s *)p;
    const uint64_t *grid = du_iq2_s_grid;
    UNROLL
    for (int g = 0; g < 8; g++) {
        const uint8_t *i = b->qs + 4 * g;
        uint32_t h = b->qh[g];
        __m256i v = du_ymm_points(grid[i[0] | (h << 8 & 0x300)], grid[i[1] | (h << 6 & 0x300)],
                                  grid[i[2] | (h << 4 & 0x300)], grid[i[3] | (h << 2 & 0x300)]);
        w->q[g] = du_ymm_signed(v, du_load_u32(b->signs + 4 * g));
    }
    w->sub = du_ymm_sub_nibbles(b->scales);
    w->d = _cvtsh_ss(b->d) * 0.125f;
}

/* Eight points of four weights. */
INLINE __m256i du_ymm_points_4(const uint32_t *grid, const uint32_t i[8]) {
    return _mm256_setr_epi32((int)grid[i[0]], (int)grid[i[1]], (int)grid[i[2]], (int)grid[i[3]],
                             (int)grid[i[4]], (int)grid[i[5]], (int)grid[i[6]], (int)grid[i[7]]);
}

INLINE void du_ymm_load_iq3_xxs(du_ymm *w, const uint8_t *p) {
    const du_block_iq3_xxs *b = (const du_block_iq3_xxs *)p;
    UNROLL
    for (int g = 0; g < 8; g++) {
        const uint8_t *qs = b->qs + 8 * g;
        const uint32_t i[8] = {qs[0], qs[1], qs[2], qs[3], qs[4], qs[5], qs[6], qs[7]};
        uint32_t word = du_load_u32(b->signs_scales + 4 * g);
        w->q[g] = du_ymm_signed(du_ymm_points_4(du_iq3_xxs_grid, i), du_ymm_sign_word(word));
    }
    __m256i words = _mm256_loadu_si256((const __m256i *)b->signs_scales);
    w->scale = du_ymm_odd_scales(_mm256_srli_epi32(words, 28), _cvtsh_ss(b->d) * 0.25f);
}

INLINE void du_ymm_load_iq3_s(du_ymm *w, const uint8_t *p) {
    const du_block_iq3_s *b = (const du_block_iq3_s *)p;
    UNROLL
    for (int g = 0; g < 8; g++) {
        const uint8_t *qs = b->qs + 8 * g;
        uint32_t h = b->qh[g];
        const uint32_t i[8] = {qs[0] | (h << 8 & 256), qs[1] | (h << 7 & 256),
                               qs[2] | (h << 6 & 256), qs[3] | (h << 5 & 256),
                               qs[4] | (h << 4 & 256), qs[5] | (h << 3 & 256),
                               qs[6] | (h << 2 & 256), qs[7] | (h << 1 & 256)};
        w->q[g] = du_ymm_signed(du_ymm_points_4(du_iq3_s_grid, i), du_load_u32(b->signs + 4 * g));
    }
    __m256i s = _mm256_set1_epi32((int)du_load_u32(b->scales));
    s = _mm256_srlv_epi32(s, _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28));
    w->scale = du_ymm_odd_scales(_mm256_and_si256(s, _mm256_set1_epi32(15)), _cvtsh_ss(b->d));
}

/* IQ1: points of {-1, 0, 1} times 8, plus eighths */
INLINE __m256i du_ymm_iq1(__m256i points, __m256i eighths) {
    __m256i v = _mm256_add_epi8(points, points);
    v = _mm256_add_epi8(v, v);
    return _mm256_add_epi8(_mm256_add_epi8(v, v), eighths);
}

INLINE void du_ymm_load_iq1_s(du_ymm *w, const uint8_t *p) {
    const du_block_iq1_s *b = (const du_block_iq1_s *)p;
    const uint64_t *grid = du_iq1_grid;
    UNROLL
    for (int g = 0; g < 8; g++) {
        const uint8_t *i = b->qs + 4 * g;
        uint32_t h = b->qh[g];
        __m256i v = du_ymm_points(grid[i[0] | (h << 8 & 0x700)], grid[i[1] | (h << 5 & 0x700)],
                                  grid[i[2] | (h << 2 & 0x700)], grid[i[3] | (h >> 1 & 0x700)]);
        w->q[g] = du_ymm_iq1(v, _mm256_set1_epi8(h >> 15 ? -1 : 1));
    }
    __m256i h = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(p + 34)));
    h = _mm256_and_si256(_mm256_srli_epi32(h, 12), _mm256_set1_epi32(7));
    w->scale = du_ymm_odd_scales(h, _cvtsh_ss(b->d) * 0.125f);
}

INLINE void du_ymm_load_iq1_m(du_ymm *w, const uint8_t *p) {
    const du_block_iq1_m *b = (const du_block_iq1_m *)p;
    const uint64_t *grid = du_iq1_grid;
    UNROLL
    for (int g = 0; g < 8; g++) {
        const uint8_t *i = b->qs + 4 * g;
        uint32_t h = du_load_u16(b->qh + 2 * g); /* a nibble for each of four */
        __m256i v = du_ymm_points(grid[i[0] | (h << 8 & 0x700)], grid[i[1] | (h << 4 & 0x700)],
                                  grid[i[2] | (h & 0x700)], grid[i[3] | (h >> 4 & 0x700)]);
        /* The fourth bit of each nibble at the top of its 64: all of them set, then -1, else 1. */
        __m256i sign = _mm256_sllv_epi64(_mm256_set1_epi64x(h), _mm256_setr_epi64x(60, 56, 52, 48));
        sign = _mm256_cmpgt_epi64(_mm256_setzero_si256(), sign);
        w->q[g] = du_ymm_iq1(v, _mm256_or_si256(sign, _mm256_set1_epi8(1)));
    }
    int16_t sub[16];
    for (int k = 0; k < 16; k++) {
        sub[k] = (int16_t)(2 * (b->scales[k / 4] >> 3 * (k % 4) & 7) + 1);
    }
    w->sub = _mm256_loadu_si256((const __m256i *)sub);
    w->d = du_iq1_m_d(b) * 0.125f;
}

#endif
