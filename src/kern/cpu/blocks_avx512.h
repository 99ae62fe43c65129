/* 256 weights of a block type in registers, the unit of AVX-512 products: one block of 256, or
 * eight blocks of 32.
 *
 *   q      the weights as unsigned bytes, the type's offset added, 64 per register in order
 *   scales f32 per 32 weights in lanes 0-7: w = scale * (q - offset) - min, and the minima of
 *          types that have them in lanes 8-15
 *
 * Types with a scale per 16 weights (and Q2_K, with a minimum per 16):
 *
 *   w = d * sub * (q - offset) - dmin * min16
 *
 *   sub    i32 sub-scales, that of weights 16*(4*j + l) .. +15 in lane 4*l + j: the order in which
 *          dot products leave du_wide_sum (mm_block_avx512.c)
 *   min16  i16 minima in order
 *
 * Every loader reads only the bytes of its blocks. Layouts: tensor/quant.h. */
#ifndef DU_KERN_CPU_BLOCKS_AVX512_H
#define DU_KERN_CPU_BLOCKS_AVX512_H

#include <immintrin.h>
#include <stdint.h>

#include "kern/cpu/inline.h"
#include "tensor/quant.h"

typedef struct {
    __m512i q[4];
    __m512 scales;
    __m512i sub;
    __m256i min16;
    float d, dmin;
} du_wide;

/* X(suffix, function name part, offset, scale per 16, minima: 0 none, 1 in scales, 2 in min16) */
#define DU_WIDE_LIST(X)                                                                            \
    X(Q4_0, q4_0, 8, 0, 0)                                                                         \
    X(Q4_1, q4_1, 0, 0, 1)                                                                         \
    X(Q5_0, q5_0, 16, 0, 0)                                                                        \
    X(Q5_1, q5_1, 0, 0, 1)                                                                         \
    X(Q8_0, q8_0, 128, 0, 0)                                                                       \
    X(Q2_K, q2_k, 0, 1, 2)                                                                         \
    X(Q3_K, q3_k, 4, 1, 0)                                                                         \
    X(Q4_K, q4_k, 0, 0, 1)                                                                         \
    X(Q5_K, q5_k, 0, 0, 1)                                                                         \
    X(Q6_K, q6_k, 32, 1, 0)                                                                        \
    X(IQ4_NL, iq4_nl, 128, 0, 0)                                                                   \
    X(IQ4_XS, iq4_xs, 128, 0, 0)                                                                   \
    X(IQ1_S, iq1_s, 16, 0, 0)                                                                      \
    X(IQ1_M, iq1_m, 16, 1, 0)                                                                      \
    X(IQ2_XXS, iq2_xxs, 128, 0, 0)                                                                 \
    X(IQ2_XS, iq2_xs, 128, 1, 0)                                                                   \
    X(IQ2_S, iq2_s, 128, 1, 0)                                                                     \
    X(IQ3_XXS, iq3_xxs, 128, 0, 0)                                                                 \
    X(IQ3_S, iq3_s, 128, 0, 0)                                                                     \
    X(MXFP4, mxfp4, 128, 0, 0)

/* Scales per 32 from eight f32, without minima. */
INLINE __m512 du_wide_scales(__m256 scale) {
    return _mm512_zextps256_ps512(scale);
}

INLINE __m512 du_wide_scales_mins(__m256 scale, __m256 min) {
    return _mm512_insertf32x8(_mm512_castps256_ps512(scale), min, 1);
}

/* The same 32 (16) bytes in every half (quarter). */
INLINE __m512i du_wide_load_32x2(const void *p) {
    return _mm512_broadcast_i64x4(_mm256_loadu_si256(p));
}
INLINE __m512i du_wide_load_16x2x2(const void *a, const void *b) {
    __m256i lo = _mm256_broadcastsi128_si256(_mm_loadu_si128(a));
    __m256i hi = _mm256_broadcastsi128_si256(_mm_loadu_si128(b));
    return _mm512_inserti64x4(_mm512_castsi256_si512(lo), hi, 1);
}

/* A value for the lower and one for the upper half, and alternating quarters. */
INLINE __m512i du_wide_halves(int64_t lo, int64_t hi) {
    return _mm512_set_epi64(hi, hi, hi, hi, lo, lo, lo, lo);
}
INLINE __m512i du_wide_quarters(int64_t even, int64_t odd) {
    return _mm512_set_epi64(odd, odd, even, even, odd, odd, even, even);
}

/* Nibbles of two blocks' qs[16] in order: low ones are weights 0-15, high ones 16-31. */
INLINE __m512i du_wide_nibbles_16(const void *a, const void *b) {
    __m512i v = _mm512_srlv_epi64(du_wide_load_16x2x2(a, b), du_wide_quarters(0, 4));
    return _mm512_and_si512(v, _mm512_set1_epi8(15));
}

/* Nibbles of 32 bytes: low ones are the first 32 weights. */
INLINE __m512i du_wide_nibbles_32(const void *p) {
    __m512i v = _mm512_srlv_epi64(du_wide_load_32x2(p), du_wide_halves(0, 4));
    return _mm512_and_si512(v, _mm512_set1_epi8(15));
}

/* Levels of nibbles by a table of 16 signed bytes, 128 added. */
INLINE __m512i du_wide_levels(__m512i nibbles, const int8_t *levels) {
    __m512i table = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)levels));
    __m512i v = _mm512_shuffle_epi8(table, nibbles);
    return _mm512_xor_si512(v, _mm512_set1_epi8(-128));
}

/* The f16 at the head of eight blocks, `bytes` apart. */
INLINE __m256 du_wide_heads(const uint8_t *p, size_t bytes) {
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

INLINE void du_wide_load_q4_0(du_wide *w, const uint8_t *p) {
    const du_block_q4_0 *b = (const du_block_q4_0 *)p;
    UNROLL
    for (int j = 0; j < 4; j++) {
        w->q[j] = du_wide_nibbles_16(b[2 * j].qs, b[2 * j + 1].qs);
    }
    w->scales = du_wide_scales(du_wide_heads(p, sizeof *b));
}

/* Scale and offset of Q4_1 and Q5_1 (w = d q + m): the f16 pairs at the heads of eight blocks. */
INLINE __m512 du_wide_heads_2(const uint8_t *p, size_t bytes) {
    __m256 d = du_wide_heads(p, bytes), m = du_wide_heads(p + 2, bytes);
    return du_wide_scales_mins(d, _mm256_xor_ps(m, _mm256_set1_ps(-0.0f)));
}

INLINE void du_wide_load_q4_1(du_wide *w, const uint8_t *p) {
    const du_block_q4_1 *b = (const du_block_q4_1 *)p;
    UNROLL
    for (int j = 0; j < 4; j++) {
        w->q[j] = du_wide_nibbles_16(b[2 * j].qs, b[2 * j + 1].qs);
    }
    w->scales = du_wide_heads_2(p, sizeof *b);
}

/* Adds 16 where the bits of two blocks' qh are set. */
INLINE __m512i du_wide_fifth_bits(__m512i q, const uint8_t *qh_a, const uint8_t *qh_b) {
    __mmask64 m = du_load_u32(qh_a) | (uint64_t)du_load_u32(qh_b) << 32;
    return _mm512_mask_add_epi8(q, m, q, _mm512_set1_epi8(16));
}

INLINE void du_wide_load_q5_0(du_wide *w, const uint8_t *p) {
    const du_block_q5_0 *b = (const du_block_q5_0 *)p;
    UNROLL
    for (int j = 0; j < 4; j++) {
        __m512i q = du_wide_nibbles_16(b[2 * j].qs, b[2 * j + 1].qs);
        w->q[j] = du_wide_fifth_bits(q, b[2 * j].qh, b[2 * j + 1].qh);
    }
    w->scales = du_wide_scales(du_wide_heads(p, sizeof *b));
}

INLINE void du_wide_load_q5_1(du_wide *w, const uint8_t *p) {
    const du_block_q5_1 *b = (const du_block_q5_1 *)p;
    UNROLL
    for (int j = 0; j < 4; j++) {
        __m512i q = du_wide_nibbles_16(b[2 * j].qs, b[2 * j + 1].qs);
        w->q[j] = du_wide_fifth_bits(q, b[2 * j].qh, b[2 * j + 1].qh);
    }
    w->scales = du_wide_heads_2(p, sizeof *b);
}

INLINE void du_wide_load_q8_0(du_wide *w, const uint8_t *p) {
    const du_block_q8_0 *b = (const du_block_q8_0 *)p;
    UNROLL
    for (int j = 0; j < 4; j++) {
        __m512i q = _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)b[2 * j].qs));
        q = _mm512_inserti64x4(q, _mm256_loadu_si256((const __m256i *)b[2 * j + 1].qs), 1);
        w->q[j] = _mm512_xor_si512(q, _mm512_set1_epi8(-128));
    }
    w->scales = du_wide_scales(du_wide_heads(p, sizeof *b));
}

INLINE void du_wide_load_iq4_nl(du_wide *w, const uint8_t *p) {
    const du_block_iq4_nl *b = (const du_block_iq4_nl *)p;
    UNROLL
    for (int j = 0; j < 4; j++) {
        __m512i n = du_wide_nibbles_16(b[2 * j].qs, b[2 * j + 1].qs);
        w->q[j] = du_wide_levels(n, du_iq4_values);
    }
    w->scales = du_wide_scales(du_wide_heads(p, sizeof *b));
}

INLINE void du_wide_load_mxfp4(du_wide *w, const uint8_t *p) {
    const du_block_mxfp4 *b = (const du_block_mxfp4 *)p;
    UNROLL
    for (int j = 0; j < 4; j++) {
        __m512i n = du_wide_nibbles_16(b[2 * j].qs, b[2 * j + 1].qs);
        w->q[j] = du_wide_levels(n, du_mxfp4_values);
    }
    /* 2^(e - 128): e - 1 as the exponent field, subnormal for e < 2; NaN for 255 */
    __m256i e = _mm256_setr_epi32(b[0].e, b[1].e, b[2].e, b[3].e, b[4].e, b[5].e, b[6].e, b[7].e);
    __m256i normal = _mm256_slli_epi32(_mm256_sub_epi32(e, _mm256_set1_epi32(1)), 23);
    __m256i small = _mm256_sllv_epi32(_mm256_set1_epi32(1 << 21), e);
    __m256i v =
        _mm256_mask_mov_epi32(normal, _mm256_cmplt_epi32_mask(e, _mm256_set1_epi32(2)), small);
    v = _mm256_mask_mov_epi32(v, _mm256_cmpeq_epi32_mask(e, _mm256_set1_epi32(255)),
                              _mm256_set1_epi32(0x7fc00000));
    w->scales = du_wide_scales(_mm256_castsi256_ps(v));
}

INLINE void du_wide_load_iq4_xs(du_wide *w, const uint8_t *p) {
    const du_block_iq4_xs *b = (const du_block_iq4_xs *)p;
    UNROLL
    for (int j = 0; j < 4; j++) {
        __m512i n = du_wide_nibbles_16(b->qs + 32 * j, b->qs + 32 * j + 16);
        w->q[j] = du_wide_levels(n, du_iq4_values);
    }
    __m256i s = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    __m256i low = _mm256_srlv_epi32(_mm256_set1_epi32((int)du_load_u32(b->scales_l)),
                                    _mm256_slli_epi32(s, 2));
    __m256i high = _mm256_srlv_epi32(_mm256_set1_epi32(b->scales_h), _mm256_slli_epi32(s, 1));
    low = _mm256_and_si256(low, _mm256_set1_epi32(15));
    high = _mm256_slli_epi32(_mm256_and_si256(high, _mm256_set1_epi32(3)), 4);
    __m256i scale = _mm256_sub_epi32(_mm256_or_si256(low, high), _mm256_set1_epi32(32));
    w->scales =
        du_wide_scales(_mm256_mul_ps(_mm256_cvtepi32_ps(scale), _mm256_set1_ps(_cvtsh_ss(b->d))));
}

/* d and dmin of the K types with minima per 32, and their 6-bit scales and minima (du_k4_scales).
 */
INLINE __m512 du_wide_k4_scales(const uint8_t *p) {
    /* bytes 0-3: d, dmin; then b[12]: sc low, m low, the upper four's nibbles */
    __m128i head = _mm_loadu_si128((const __m128i *)p);
    __m128i low = _mm_shuffle_epi8(
        head, _mm_setr_epi8(4, 5, 6, 7, 12, 13, 14, 15, 8, 9, 10, 11, 12, 13, 14, 15));
    low = _mm_and_si128(_mm_srlv_epi32(low, _mm_setr_epi32(0, 0, 0, 4)),
                        _mm_setr_epi32(0x3f3f3f3f, 0x0f0f0f0f, 0x3f3f3f3f, 0x0f0f0f0f));
    __m128i high = _mm_shuffle_epi8(
        head, _mm_setr_epi8(-1, -1, -1, -1, 4, 5, 6, 7, -1, -1, -1, -1, 8, 9, 10, 11));
    high = _mm_and_si128(_mm_srli_epi32(high, 2), _mm_set1_epi8(0x30));
    __m512 sc_m = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_or_si128(low, high)));
    __m512i lanes = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
    __m512 d = _mm512_castps128_ps512(_mm_cvtph_ps(head));
    return _mm512_mul_ps(sc_m, _mm512_permutexvar_ps(lanes, d));
}

INLINE void du_wide_load_q4_k(du_wide *w, const uint8_t *p) {
    const du_block_q4_k *b = (const du_block_q4_k *)p;
    UNROLL
    for (int j = 0; j < 4; j++) {
        w->q[j] = du_wide_nibbles_32(b->qs + 32 * j);
    }
    w->scales = du_wide_k4_scales(p);
}

/* v where bit 2j (lower half) or 2j + 1 (upper half) of 32 bytes is set, else 0, added to q. */
INLINE __m512i du_wide_add_bits(__m512i q, __m512i bits, int j, int8_t v) {
    uint64_t ones = 0x0101010101010101;
    __mmask64 m = _mm512_test_epi8_mask(
        bits, du_wide_halves((int64_t)(ones << 2 * j), (int64_t)(ones << (2 * j + 1))));
    return _mm512_mask_add_epi8(q, m, q, _mm512_set1_epi8(v));
}

INLINE void du_wide_load_q5_k(du_wide *w, const uint8_t *p) {
    const du_block_q5_k *b = (const du_block_q5_k *)p;
    __m512i high = du_wide_load_32x2(b->qh);
    UNROLL
    for (int j = 0; j < 4; j++) {
        w->q[j] = du_wide_add_bits(du_wide_nibbles_32(b->qs + 32 * j), high, j, 16);
    }
    w->scales = du_wide_k4_scales(p);
}

/* Sixteen signed bytes, one per 16 weights in order, as sub-scales. */
INLINE __m512i du_wide_sub(__m128i scales) {
    __m128i order = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    return _mm512_cvtepi8_epi32(_mm_shuffle_epi8(scales, order));
}

INLINE void du_wide_load_q6_k(du_wide *w, const uint8_t *p) {
    const du_block_q6_k *b = (const du_block_q6_k *)p;
    __m512i low_bits = _mm512_set1_epi8(0x0f), high_bits = _mm512_set1_epi8(0x30);
    UNROLL
    for (int h = 0; h < 2; h++) {
        __m512i low = _mm512_loadu_si512(b->ql + 64 * h);
        __m512i high = du_wide_load_32x2(b->qh + 32 * h);
        /* The pairs of bits of the four groups of 32, each moved to bits 4 and 5. */
        __m512i high_a = _mm512_rolv_epi64(high, du_wide_halves(4, 2));
        __m512i high_b = _mm512_rolv_epi64(high, du_wide_halves(0, 62));
        __m512i a = _mm512_and_si512(low, low_bits);
        __m512i c = _mm512_and_si512(_mm512_srli_epi64(low, 4), low_bits);
        w->q[2 * h] = _mm512_or_si512(a, _mm512_and_si512(high_a, high_bits));
        w->q[2 * h + 1] = _mm512_or_si512(c, _mm512_and_si512(high_b, high_bits));
    }
    w->sub = du_wide_sub(_mm_loadu_si128((const __m128i *)b->scales));
    w->d = _cvtsh_ss(b->d);
}

/* Two bits of 32 bytes: the first 32 weights (from bit 4k), then the next (from bit 4k + 2). */
INLINE __m512i du_wide_pairs(const uint8_t *p, int k) {
    __m512i v = _mm512_srlv_epi64(du_wide_load_32x2(p), du_wide_halves(4 * k, 4 * k + 2));
    return _mm512_and_si512(v, _mm512_set1_epi8(3));
}

INLINE void du_wide_load_q2_k(du_wide *w, const uint8_t *p) {
    const du_block_q2_k *b = (const du_block_q2_k *)p;
    UNROLL
    for (int j = 0; j < 4; j++) {
        w->q[j] = du_wide_pairs(b->qs + 32 * (j / 2), j % 2);
    }
    __m128i scales = _mm_loadu_si128((const __m128i *)b->scales), low = _mm_set1_epi8(15);
    w->sub = du_wide_sub(_mm_and_si128(scales, low));
    w->min16 = _mm256_cvtepu8_epi16(_mm_and_si128(_mm_srli_epi16(scales, 4), low));
    w->d = _cvtsh_ss(b->d);
    w->dmin = _cvtsh_ss(b->dmin);
}

INLINE void du_wide_load_q3_k(du_wide *w, const uint8_t *p) {
    const du_block_q3_k *b = (const du_block_q3_k *)p;
    __m512i high = du_wide_load_32x2(b->hmask);
    UNROLL
    for (int j = 0; j < 4; j++) {
        w->q[j] = du_wide_add_bits(du_wide_pairs(b->qs + 32 * (j / 2), j % 2), high, j, 4);
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
    w->sub = du_wide_sub(_mm_sub_epi8(_mm_or_si128(lo, hi), _mm_set1_epi8(32)));
    w->d = _cvtsh_ss(b->d);
}

/* The IQ types: eight lattice points per register, negative where a bit is set, 128 added. */
INLINE __m512i du_wide_signed(__m512i points, uint64_t signs) {
    __m512i v = _mm512_mask_sub_epi8(points, signs, _mm512_setzero_si512(), points);
    return _mm512_xor_si512(v, _mm512_set1_epi8(-128));
}

/* Eight 7-bit sign codes, one per byte, with their eighth bits (du_iq_signs). */
INLINE uint64_t du_wide_sign_codes(uint64_t codes) {
    uint64_t x = codes ^ (codes >> 4 & 0x0707070707070707);
    x ^= x >> 2 & 0x0303030303030303;
    x ^= x >> 1 & 0x0101010101010101;
    return codes | (x & 0x0101010101010101) << 7;
}

/* Eight codes of two words of 28 bits. */
INLINE uint64_t du_wide_sign_words(uint32_t lo, uint32_t hi) {
    uint64_t bits = (lo & 0xfffffff) | (uint64_t)(hi & 0xfffffff) << 28;
    return du_wide_sign_codes(_pdep_u64(bits, 0x7f7f7f7f7f7f7f7f));
}

/* Odd scales 2 s + 1 of nibbles s, one per 16 weights (IQ2_XS, IQ2_S). */
INLINE __m512i du_wide_sub_nibbles(const uint8_t *p) {
    __m128i s = _mm_loadl_epi64((const __m128i *)p);
    s = _mm_unpacklo_epi8(s, _mm_srli_epi16(s, 4));
    s = _mm_and_si128(s, _mm_set1_epi8(15));
    return du_wide_sub(_mm_or_si128(_mm_slli_epi16(s, 1), _mm_set1_epi8(1)));
}

/* f32 scales d (2 s + 1) of eight i32 s. */
INLINE __m512 du_wide_odd_scales(__m256i s, float d) {
    s = _mm256_or_si256(_mm256_slli_epi32(s, 1), _mm256_set1_epi32(1));
    return du_wide_scales(_mm256_mul_ps(_mm256_cvtepi32_ps(s), _mm256_set1_ps(d)));
}

INLINE __m512i du_wide_points(const uint64_t *grid, __m512i index) {
    return _mm512_i64gather_epi64(index, grid, 8);
}

/* Indices of eight bytes and the masked bits of `high`. */
INLINE __m512i du_wide_index(const uint8_t *p, __m512i high, int64_t mask) {
    __m512i low = _mm512_cvtepu8_epi64(_mm_loadl_epi64((const __m128i *)p));
    return _mm512_or_si512(low, _mm512_and_si512(high, _mm512_set1_epi64(mask)));
}

INLINE void du_wide_load_iq2_xxs(du_wide *w, const uint8_t *p) {
    const du_block_iq2_xxs *b = (const du_block_iq2_xxs *)p;
    UNROLL
    for (int j = 0; j < 4; j++) {
        const uint8_t *pair = b->qs + 16 * j; /* twice four indices and a word of signs */
        __m128i v = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)pair), 0xd8);
        __m512i points = du_wide_points(du_iq2_xxs_grid, _mm512_cvtepu8_epi64(v));
        uint64_t signs = du_wide_sign_words(du_load_u32(pair + 4), du_load_u32(pair + 12));
        w->q[j] = du_wide_signed(points, signs);
    }
    __m512i words = _mm512_loadu_si512(b->qs);
    w->scales = du_wide_odd_scales(_mm512_cvtepi64_epi32(_mm512_srli_epi64(words, 60)),
                                   _cvtsh_ss(b->d) * 0.125f);
}

INLINE void du_wide_load_iq2_xs(du_wide *w, const uint8_t *p) {
    const du_block_iq2_xs *b = (const du_block_iq2_xs *)p;
    UNROLL
    for (int j = 0; j < 4; j++) {
        __m128i v = _mm_loadu_si128((const __m128i *)(p + 2 + 16 * j)); /* eight of qs */
        __m128i index = _mm_and_si128(v, _mm_set1_epi16(511)), codes = _mm_srli_epi16(v, 9);
        __m512i points = du_wide_points(du_iq2_xs_grid, _mm512_cvtepu16_epi64(index));
        codes = _mm_packus_epi16(codes, codes);
        w->q[j] = du_wide_signed(points, du_wide_sign_codes((uint64_t)_mm_cvtsi128_si64(codes)));
    }
    w->sub = du_wide_sub_nibbles(b->scales);
    w->d = _cvtsh_ss(b->d) * 0.125f;
}

INLINE void du_wide_load_iq2_s(du_wide *w, const uint8_t *p) {
    const du_block_iq2_s *b = (const du_block_iq2_s *)p;
    UNROLL
    for (int j = 0; j < 4; j++) {
        __m512i high = _mm512_set1_epi64(du_load_u16(b->qh + 2 * j)); /* two bits for each of 8 */
        high = _mm512_sllv_epi64(high, _mm512_setr_epi64(8, 6, 4, 2, 0, 0, 0, 0));
        high = _mm512_srlv_epi64(high, _mm512_setr_epi64(0, 0, 0, 0, 0, 2, 4, 6));
        __m512i points = du_wide_points(du_iq2_s_grid, du_wide_index(b->qs + 8 * j, high, 0x300));
        uint64_t signs;
        memcpy(&signs, b->signs + 8 * j, 8);
        w->q[j] = du_wide_signed(points, signs);
    }
    w->sub = du_wide_sub_nibbles(b->scales);
    w->d = _cvtsh_ss(b->d) * 0.125f;
}

INLINE void du_wide_load_iq3_xxs(du_wide *w, const uint8_t *p) {
    const du_block_iq3_xxs *b = (const du_block_iq3_xxs *)p;
    UNROLL
    for (int j = 0; j < 4; j++) {
        __m512i i = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(b->qs + 16 * j)));
        __m512i v = _mm512_i32gather_epi32(i, du_iq3_xxs_grid, 4);
        const uint8_t *s = b->signs_scales + 8 * j;
        w->q[j] = du_wide_signed(v, du_wide_sign_words(du_load_u32(s), du_load_u32(s + 4)));
    }
    __m256i words = _mm256_loadu_si256((const __m256i *)b->signs_scales);
    w->scales = du_wide_odd_scales(_mm256_srli_epi32(words, 28), _cvtsh_ss(b->d) * 0.25f);
}

INLINE void du_wide_load_iq3_s(du_wide *w, const uint8_t *p) {
    const du_block_iq3_s *b = (const du_block_iq3_s *)p;
    UNROLL
    for (int j = 0; j < 4; j++) {
        __m512i i = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(b->qs + 16 * j)));
        __mmask16 high = du_load_u16(b->qh + 2 * j);
        i = _mm512_mask_or_epi32(i, high, i, _mm512_set1_epi32(256));
        __m512i v = _mm512_i32gather_epi32(i, du_iq3_s_grid, 4);
        uint64_t signs;
        memcpy(&signs, b->signs + 8 * j, 8);
        w->q[j] = du_wide_signed(v, signs);
    }
    __m256i s = _mm256_set1_epi32((int)du_load_u32(b->scales));
    s = _mm256_srlv_epi32(s, _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28));
    w->scales = du_wide_odd_scales(_mm256_and_si256(s, _mm256_set1_epi32(15)), _cvtsh_ss(b->d));
}

/* IQ1: eight points of {-1, 0, 1} times 8, an eighth (1) up or down, 16 added; down: eight bits */
INLINE __m512i du_wide_iq1(__m512i points, uint32_t down) {
    __m512i v = _mm512_add_epi8(points, _mm512_set1_epi8(2)); /* 1 .. 3: no borrow in the shift */
    v = _mm512_add_epi8(_mm512_slli_epi64(v, 3), _mm512_set1_epi8(1));
    __m512i two = _mm512_maskz_mov_epi64((__mmask8)down, _mm512_set1_epi8(2));
    return _mm512_sub_epi8(v, two);
}

INLINE void du_wide_load_iq1_s(du_wide *w, const uint8_t *p) {
    const du_block_iq1_s *b = (const du_block_iq1_s *)p;
    UNROLL
    for (int j = 0; j < 4; j++) {
        int64_t h0 = b->qh[2 * j], h1 = b->qh[2 * j + 1]; /* three bits for each of four */
        __m512i high =
            _mm512_sllv_epi64(du_wide_halves(h0, h1), _mm512_setr_epi64(8, 5, 2, 0, 8, 5, 2, 0));
        high = _mm512_srlv_epi64(high, _mm512_setr_epi64(0, 0, 0, 1, 0, 0, 0, 1));
        __m512i points = du_wide_points(du_iq1_grid, du_wide_index(b->qs + 8 * j, high, 0x700));
        w->q[j] = du_wide_iq1(points, (h0 >> 15 ? 0x0f : 0) | (h1 >> 15 ? 0xf0 : 0));
    }
    __m256i h = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(p + 34)));
    h = _mm256_and_si256(_mm256_srli_epi32(h, 12), _mm256_set1_epi32(7));
    w->scales = du_wide_odd_scales(h, _cvtsh_ss(b->d) * 0.125f);
}

INLINE void du_wide_load_iq1_m(du_wide *w, const uint8_t *p) {
    const du_block_iq1_m *b = (const du_block_iq1_m *)p;
    UNROLL
    for (int j = 0; j < 4; j++) {
        uint32_t h = du_load_u32(b->qh + 4 * j); /* a nibble for each of eight */
        __m512i high =
            _mm512_sllv_epi64(_mm512_set1_epi64(h), _mm512_setr_epi64(8, 4, 0, 0, 0, 0, 0, 0));
        high = _mm512_srlv_epi64(high, _mm512_setr_epi64(0, 0, 0, 4, 8, 12, 16, 20));
        __m512i points = du_wide_points(du_iq1_grid, du_wide_index(b->qs + 8 * j, high, 0x700));
        w->q[j] = du_wide_iq1(points, _pext_u32(h, 0x88888888));
    }
    /* Word j holds four 3-bit scales from its lowest bit up, and a nibble of d at its top. */
    uint64_t words;
    memcpy(&words, p + 48, 8);
    __m512i s = _mm512_cvtepu16_epi32(_mm256_set1_epi64x((int64_t)words));
    s = _mm512_srlv_epi32(s, _mm512_setr_epi32(0, 0, 0, 0, 3, 3, 3, 3, 6, 6, 6, 6, 9, 9, 9, 9));
    s = _mm512_slli_epi32(_mm512_and_si512(s, _mm512_set1_epi32(7)), 1);
    w->sub = _mm512_or_si512(s, _mm512_set1_epi32(1));
    w->d = _cvtsh_ss((uint16_t)_pext_u64(words, 0xf000f000f000f000)) * 0.125f;
}

#endif
