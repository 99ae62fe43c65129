/* What both ways of attention in tiles (vdpbf16ps and AMX) share: the softmax of a step between
 * scores with queries in lanes and weights with queries in rows. */
#ifndef DU_KERN_CPU_ATTN_TILES_AVX512_H
#define DU_KERN_CPU_ATTN_TILES_AVX512_H

#include <math.h>
#include <string.h>

#include "kern/cpu/exp.h"
#include "kern/cpu/simd_avx512.h"
#include "kern/cpu/transpose_avx512.h"
#include "kern/kern.h"

enum { P_TILE = 16 * 32 }; /* weights of 16 queries for 32 rows, [16][32] bf16 */

/* n_kv rounded up to a multiple of m; rows behind n_kv are zeros. */
INLINE int64_t attn_rows(int64_t n_kv, int64_t m) {
    return (n_kv + m - 1) / m * m;
}

/* Rows 32 * t .. + 31 of block c: 16 pairs of rows, 64 bytes each */
INLINE const uint16_t *attn_v_tile(const uint16_t *v, int64_t t, int64_t c, int64_t v_dim) {
    return v + t / 2 * du_attn_v_len(v_dim) + c * DU_ATTN_V_BLOCK + t % 2 * 16 * 32;
}

INLINE __m512i bf16_of(__m512 lo, __m512 hi) {
    return (__m512i)_mm512_cvtne2ps_pbh(hi, lo);
}

/* Columns [c, c + 32) of rows 2i and 2i + 1 as two blocks of v: lanes of 128 bits give their first
 * four columns to the one and the others to the other. */
INLINE void attn_store_pair(uint16_t *v, int64_t i, int64_t c, __m512i a, __m512i b) {
    uint16_t *to = v + c / 16 * DU_ATTN_V_BLOCK + i * 32;
    _mm512_storeu_si512(to, _mm512_unpacklo_epi16(a, b));
    _mm512_storeu_si512(to + DU_ATTN_V_BLOCK, _mm512_unpackhi_epi16(a, b));
}

/* 2^x for x <= 0, 0 below 2^-149, NaN for NaN: x = n + r with |r| <= 1/2, 2^r by the terms
 * r^k ln(2)^k / k! up to k = 6, whose rest is below 2^-22. */
INLINE vf exp2_of(vf x) {
    x = vf_max(vf_set1(-200), x); /* gives x for a NaN */
    vf n = vf_round(x), r = vf_sub(x, n);
    vf p = vf_set1(0x1.430912p-13f);
    p = vf_fma(p, r, vf_set1(0x1.5d87fep-10f));
    p = vf_fma(p, r, vf_set1(0x1.3b2ab6p-7f));
    p = vf_fma(p, r, vf_set1(0x1.c6b08ep-5f));
    p = vf_fma(p, r, vf_set1(0x1.ebfbep-3f));
    p = vf_fma(p, r, vf_set1(0x1.62e43p-1f));
    return vf_scale2(vf_fma(p, r, vf_set1(1)), n);
}

/* m, or 0 where nothing was seen: what differences are taken from */
INLINE vf finite_max(vf m) {
    __mmask16 none = _mm512_cmp_ps_mask(m, vf_set1(-INFINITY), _CMP_EQ_OQ);
    return _mm512_mask_mov_ps(m, none, vf_set1(0));
}

/* The greatest score of each query; what a query does not see becomes -INFINITY, up to row n_end */
INLINE vf attn_mask_max(float *s, int64_t n_kv, int64_t n_end, const int32_t *seen) {
    __m512i limit = _mm512_min_epi32(_mm512_loadu_si512(seen), _mm512_set1_epi32((int32_t)n_kv));
    int64_t all = _mm512_reduce_min_epi32(limit);
    vf m[4] = {vf_set1(-INFINITY), vf_set1(-INFINITY), vf_set1(-INFINITY), vf_set1(-INFINITY)};
    int64_t j = 0;
    for (; j + 4 <= all; j += 4) {
        UNROLL
        for (int i = 0; i < 4; i++) {
            m[i] = vf_max(m[i], vf_load(s + (j + i) * 16));
        }
    }
    for (; j < n_end; j++) {
        __mmask16 sees = _mm512_cmpgt_epi32_mask(limit, _mm512_set1_epi32((int32_t)j));
        vf v = _mm512_mask_mov_ps(vf_set1(-INFINITY), sees, vf_load(s + j * 16));
        vf_store(s + j * 16, v);
        m[0] = vf_max(m[0], v);
    }
    return vf_max(vf_max(m[0], m[1]), vf_max(m[2], m[3]));
}

/* m and l of a tile, and its weights in tiles of 32 rows, from scores s [256][16] of which the
 * first n_kv rounded up to 16 are there. */
INLINE void attn_softmax(float *sums, uint16_t *p, float *s, int64_t n_kv, const int32_t *seen) {
    int64_t n_end = attn_rows(n_kv, 32);
    vf m = attn_mask_max(s, n_kv, n_end, seen), base = finite_max(m);
    vf l[2] = {vf_set1(0), vf_set1(0)};
    /* lanes of two halves side by side become pairs */
    __m512i order = _mm512_inserti64x4(
        _mm512_castsi256_si512(
            _mm256_setr_epi16(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)),
        _mm256_setr_epi16(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31), 1);
    __m512bh ones = (__m512bh)_mm512_set1_epi32(0x3f803f80);
    for (int64_t j = 0; j < n_end; j += 32, p += P_TILE) {
        __m512i pairs[16];
        UNROLL
        for (int i = 0; i < 16; i++) {
            vf a = exp2_of(vf_sub(vf_load(s + (j + 2 * i) * 16), base));
            vf b = exp2_of(vf_sub(vf_load(s + (j + 2 * i + 1) * 16), base));
            pairs[i] = _mm512_permutexvar_epi16(order, (__m512i)_mm512_cvtne2ps_pbh(b, a));
            l[i % 2] = _mm512_dpbf16_ps(l[i % 2], (__m512bh)pairs[i], ones);
        }
        transpose_16(pairs);
        UNROLL
        for (int i = 0; i < 16; i++) {
            _mm512_storeu_si512(p + 32 * i, pairs[i]);
        }
    }
    vf_store(sums, m);
    vf_store(sums + 16, vf_add(l[0], l[1]));
}

/* s0, s1 [n_rows, 16]: rows ld apart by two tiles of queries behind each other */
typedef void attn_scores_two_fn(float *s0, float *s1, const uint16_t *q, const uint16_t *k,
                                int64_t ld, int64_t n_rows, int64_t k_dim);

/* Scores of latents with rows of weights for queries are the expanded values, 32 columns at a
 * time. */
INLINE void attn_expand(attn_scores_two_fn *scores_two, uint16_t *k, uint16_t *v,
                        const uint16_t *latents, const uint16_t *w, int64_t rank, int64_t rope,
                        int64_t k_dim, int64_t v_dim) {
    _Alignas(64) float s[2][DU_ATTN_PAGE * 16];
    int64_t nope = k_dim - rope;
    for (int64_t c = 0; c < nope + v_dim; c += 32) {
        scores_two(s[0], s[1], w + c * rank, latents, rank + rope, DU_ATTN_PAGE, rank);
        for (int64_t j = 0; j < DU_ATTN_PAGE; j += 2) {
            const float *lo = s[0] + j * 16, *hi = s[1] + j * 16;
            __m512i a = bf16_of(vf_load(lo), vf_load(hi));
            __m512i b = bf16_of(vf_load(lo + 16), vf_load(hi + 16));
            if (c < nope) {
                _mm512_storeu_si512(k + j * k_dim + c, a);
                _mm512_storeu_si512(k + (j + 1) * k_dim + c, b);
            } else {
                attn_store_pair(v, j / 2, c - nope, a, b);
            }
        }
    }
    for (int64_t j = 0; j < DU_ATTN_PAGE; j++) {
        memcpy(k + j * k_dim + nope, latents + j * (rank + rope) + rank,
               (size_t)rope * sizeof *latents);
    }
}

#endif
