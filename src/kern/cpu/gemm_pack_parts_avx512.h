/* Packing of DU_GEMM_F32_TILES on AVX-512. A panel is 32 rows of A or columns of B; for each 32 k
 * it has, part by part, two tiles of 16 lines of 64 bytes, in which k and k + 16 stand side by
 * side:
 *
 *   A   a line is the 32 k of a row
 *   B   a line is a pair of k of 16 columns
 *
 * Lines are read as they lie, or 16 of them are transposed. */
#ifndef DU_KERN_CPU_GEMM_PACK_PARTS_AVX512_H
#define DU_KERN_CPU_GEMM_PACK_PARTS_AVX512_H

#include "kern/cpu/gemm_pack_bf16_avx512.h"

enum {
    T = 16, /* rows or columns of a tile, lines of its memory */
    PANEL = 2 * T,
    TILE = T * LINE, /* values of a tile of A or B */
    TWO = 2 * TILE,  /* of a panel for a tile of k, of one part */
    PARTS = DU_GEMM_PARTS,
};

/* The first n of 16 values from p on */
INLINE __m512 load_some(int bf16, const char *p, int64_t n) {
    if (n <= 0) {
        return _mm512_setzero_ps();
    }
    if (bf16) {
        __m256i h = n >= 16 ? _mm256_loadu_si256((const __m256i *)p)
                            : _mm256_maskz_loadu_epi16(first_16(n), p);
        return (__m512)_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16);
    }
    return n >= 16 ? _mm512_loadu_ps(p) : _mm512_maskz_loadu_ps(first_16(n), p);
}

/* v rounded to BF16, which is the upper half of each lane; ties away from zero. Some NaN become
 * zeros, of which NaN is left. */
INLINE __m512i round_part(__m512 v) {
    __m512i half = _mm512_set1_epi32(0x8000), mask = _mm512_set1_epi32((int)0xffff0000);
    return _mm512_and_epi32(_mm512_add_epi32((__m512i)v, half), mask);
}

/* The upper halves of both, side by side */
INLINE __m512i join(__m512i lo, __m512i hi) {
    return _mm512_mask_blend_epi16(0xaaaaaaaa, _mm512_srli_epi32(lo, 16), hi);
}

INLINE void split(__m512i parts[PARTS], __m512 lo, __m512 hi) {
    UNROLL
    for (int i = 0; i < PARTS - 1; i++) {
        __m512i l = round_part(lo), h = round_part(hi);
        parts[i] = join(l, h);
        lo = _mm512_sub_ps(lo, (__m512)l);
        hi = _mm512_sub_ps(hi, (__m512)h);
    }
    parts[PARTS - 1] = join((__m512i)lo, (__m512i)hi);
}

/* Line i of 16 for n_k of 32 k and n of 16 rows or columns. Where rows of memory are k, rows i and
 * i + 16 at value c; else row i, at value k. */
INLINE void load_line(__m512i parts[PARTS], int bf16, bool k_rows, const char *const *row, int i,
                      int64_t c, int64_t n, int64_t n_k) {
    size_t size = bf16 ? 2 : 4, at = (size_t)c * size;
    int64_t n_lo = k_rows ? (i < n_k ? n : 0) : i < n ? n_k : 0;
    int64_t n_hi = k_rows ? (i + 16 < n_k ? n : 0) : i < n ? n_k - 16 : 0;
    const char *lo = n_lo > 0 ? row[i] + at : NULL;
    const char *hi = n_hi <= 0 ? NULL : k_rows ? row[i + 16] + at : lo + 16 * size;
    split(parts, load_some(bf16, lo, n_lo), load_some(bf16, hi, n_hi));
}

/* The tiles of 16 rows or columns and 32 k */
INLINE void pack_tile(int bf16, bool k_rows, bool transposed, uint16_t *to, const char *const *row,
                      int64_t c, int64_t n, int64_t n_k) {
    __m512i x[PARTS][T];
    UNROLL
    for (int i = 0; i < T; i++) {
        __m512i parts[PARTS];
        load_line(parts, bf16, k_rows, row, i, c, n, n_k);
        UNROLL
        for (int part = 0; part < PARTS; part++) {
            if (transposed) {
                x[part][i] = parts[part];
            } else {
                _mm512_storeu_si512(to + part * TWO + i * LINE, parts[part]);
            }
        }
    }
    for (int part = 0; transposed && part < PARTS; part++) {
        transpose_16(x[part]);
        UNROLL
        for (int i = 0; i < T; i++) {
            _mm512_storeu_si512(to + part * TWO + i * LINE, x[part][i]);
        }
    }
}

/* The same, faster where nothing is missing */
INLINE void pack_some(int bf16, bool k_rows, bool transposed, uint16_t *to, const char *const *row,
                      int64_t c, int64_t n, int64_t n_k) {
    if (n >= T && n_k >= LINE_K) {
        pack_tile(bf16, k_rows, transposed, to, row, c, T, LINE_K);
    } else {
        pack_tile(bf16, k_rows, transposed, to, row, c, n, n_k);
    }
}

INLINE void pack_parts(int bf16, bool k_rows, bool transposed, uint16_t *to, const du_gemm_src *s,
                       int64_t i0, int64_t n, int64_t k0, int64_t n_k) {
    int64_t panel = PANEL * du_gemm_round_up(n_k, LINE_K) * PARTS;
    const char *row[LINE_K];
    for (int64_t k = 0; k_rows && k < n_k; k += LINE_K) {
        find_rows(row, bf16, s, k0 + k, n_k - k, i0);
        for (int64_t i = 0; i < du_gemm_round_up(n, PANEL); i += T) {
            uint16_t *at = to + i / PANEL * panel + i % PANEL * LINE;
            pack_some(bf16, k_rows, transposed, at + k * TWO / LINE_K * PARTS, row, i, n - i,
                      n_k - k);
        }
    }
    for (int64_t i = 0; !k_rows && i < du_gemm_round_up(n, PANEL); i += T) {
        uint16_t *at = to + i / PANEL * panel + i % PANEL * LINE;
        find_rows(row, bf16, s, i0 + i, n - i, k0);
        for (int64_t k = 0; k < n_k; k += LINE_K) {
            pack_some(bf16, k_rows, transposed, at + k * TWO / LINE_K * PARTS, row, k, n - i,
                      n_k - k);
        }
    }
}

INLINE void pack_parts_from(bool is_b, uint16_t *to, const du_gemm_src *s, int64_t i0, int64_t n,
                            int64_t k0, int64_t n_k) {
    if (s->bf16 && s->k_rows) {
        pack_parts(1, true, !is_b, to, s, i0, n, k0, n_k);
    } else if (s->bf16) {
        pack_parts(1, false, is_b, to, s, i0, n, k0, n_k);
    } else if (s->k_rows) {
        pack_parts(0, true, !is_b, to, s, i0, n, k0, n_k);
    } else {
        pack_parts(0, false, is_b, to, s, i0, n, k0, n_k);
    }
}

#endif
