/* Packing of the BF16 kinds on AVX-512 with BF16. A panel is made of lines of 64 bytes:
 *
 *   A   32 k of one row
 *   B   a pair of k of 16 columns, which is what rows of memory that are k give with their pairs
 *       interleaved, and rows of memory that are columns when 16 lines are transposed
 *
 * where they lie is the kind's own. Subnormal numbers become zeros. */
#ifndef DU_KERN_CPU_GEMM_PACK_BF16_AVX512_H
#define DU_KERN_CPU_GEMM_PACK_BF16_AVX512_H

#include "kern/cpu/fill.h"
#include "kern/cpu/transpose_avx512.h"

enum { LINE = 32, LINE_COLS = 16, LINE_K = 32 }; /* values; columns of B; k of A */

/* The first n of 16 or 32 lanes */
INLINE __mmask16 first_16(int64_t n) {
    return (__mmask16)(n >= 16 ? 0xffff : n > 0 ? (1u << n) - 1 : 0);
}
INLINE __mmask32 first_32(int64_t n) {
    return n >= 32 ? 0xffffffff : n > 0 ? (1u << n) - 1 : 0;
}

/* Where n rows from r on begin, at value c; NULL beyond the last of them */
INLINE void find_rows(const char *row[LINE_K], int bf16, const du_gemm_src *s, int64_t r, int64_t n,
                      int64_t c) {
    for (int64_t i = 0; i < LINE_K; i++) {
        int64_t at = i < n ? (s->i_row ? s->i_row[r + i] : r + i) * s->ld + c : 0;
        row[i] = i < n ? (const char *)s->data + (size_t)at * (bf16 ? 2 : 4) : NULL;
    }
}

/* The first n of 32 values from value c of a row on; n < 32 only at its end */
INLINE __m512i load_along(int bf16, const char *row, int64_t c, int64_t n) {
    const char *p = row + (size_t)c * (bf16 ? 2 : 4);
    if (bf16) {
        return _mm512_maskz_loadu_epi16(first_32(n), p);
    }
    __m512 lo = _mm512_maskz_loadu_ps(first_16(n), p);
    __m512 hi = _mm512_maskz_loadu_ps(first_16(n - 16), p + 64);
    return (__m512i)_mm512_cvtne2ps_pbh(hi, lo);
}

/* Values c .. c + 15 of two rows in pairs, of which those `in` count; rows may be NULL. */
INLINE __m512i load_pairs(int bf16, const char *even, const char *odd, int64_t c, __mmask16 in) {
    size_t at = (size_t)c * (bf16 ? 2 : 4);
    __m512i both;
    if (bf16) {
        __m256i lo = even ? _mm256_maskz_loadu_epi16(in, even + at) : _mm256_setzero_si256();
        __m256i hi = odd ? _mm256_maskz_loadu_epi16(in, odd + at) : _mm256_setzero_si256();
        both = _mm512_inserti64x4(_mm512_castsi256_si512(lo), hi, 1);
    } else {
        __m512 lo = even ? _mm512_maskz_loadu_ps(in, even + at) : _mm512_setzero_ps();
        __m512 hi = odd ? _mm512_maskz_loadu_ps(in, odd + at) : _mm512_setzero_ps();
        both = (__m512i)_mm512_cvtne2ps_pbh(hi, lo);
    }
    const __m512i order =
        _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                         21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    return _mm512_permutexvar_epi16(order, both);
}

/* Where the lines lie, in values. Of A: rows row(i) from the beginning, in a row k_step from 32 k
 * to the next. Of B: columns col(j), in them k_step, and `pair` from a pair of k to the next. */
typedef struct {
    int64_t (*row)(int64_t i, int64_t n_k);
    int64_t (*col)(int64_t j, int64_t n_k);
    int64_t a_step, b_step, b_pair;
    int64_t a_rows, b_cols; /* lines are written up to multiples of these, zeros beyond the last */
    int64_t step;           /* k is filled up to a multiple */
} lines;

INLINE void pack_a(int bf16, lines l, uint16_t *to, const du_gemm_src *s, int64_t i0, int64_t n,
                   int64_t k0, int64_t n_k) {
    int64_t i_end = du_gemm_round_up(n, l.a_rows);
    const char *row[LINE_K];
    for (int64_t i = 0; !s->k_rows && i < i_end; i++) {
        uint16_t *at = to + l.row(i, n_k);
        if (i % LINE_K == 0) {
            find_rows(row, bf16, s, i0 + i, n - i, k0);
        }
        for (int64_t k = 0; k < n_k; k += LINE_K) {
            __m512i v = _mm512_setzero_si512();
            if (i < n) {
                v = load_along(bf16, row[i % LINE_K], k, n_k - k);
            }
            _mm512_storeu_si512(at + k / LINE_K * l.a_step, v);
        }
    }
    for (int64_t k = 0; s->k_rows && k < n_k; k += LINE_K) {
        find_rows(row, bf16, s, k0 + k, n_k - k, i0);
        for (int64_t i = 0; i < i_end; i += 16) {
            __mmask16 in = first_16(n - i);
            __m512i x[16];
            UNROLL
            for (int p = 0; p < 16; p++) {
                x[p] = load_pairs(bf16, row[2 * p], row[2 * p + 1], i, in);
            }
            transpose_16(x);
            UNROLL
            for (int r = 0; r < 16; r++) {
                if (i + r < i_end) {
                    _mm512_storeu_si512(to + l.row(i + r, n_k) + k / LINE_K * l.a_step, x[r]);
                }
            }
        }
    }
}

INLINE void pack_b(int bf16, lines l, uint16_t *to, const du_gemm_src *s, int64_t j0, int64_t n,
                   int64_t k0, int64_t n_k) {
    int64_t j_end = du_gemm_round_up(n, l.b_cols), k_end = du_gemm_round_up(n_k, l.step);
    const char *row[LINE_K];
    for (int64_t k = 0; s->k_rows && k < k_end; k += LINE_K) {
        int64_t n_pairs = (k_end - k < LINE_K ? k_end - k : LINE_K) / 2;
        find_rows(row, bf16, s, k0 + k, n_k - k, j0);
        for (int64_t j = 0; j < j_end; j += LINE_COLS) {
            __mmask16 in = first_16(n - j);
            uint16_t *at = to + l.col(j, k_end) + k / LINE_K * l.b_step;
            for (int64_t p = 0; p < n_pairs; p++) {
                __m512i v = load_pairs(bf16, row[2 * p], row[2 * p + 1], j, in);
                _mm512_storeu_si512(at + p * l.b_pair, v);
            }
        }
    }
    for (int64_t j = 0; !s->k_rows && j < j_end; j += LINE_COLS) {
        find_rows(row, bf16, s, j0 + j, n - j, k0);
        for (int64_t k = 0; k < k_end; k += LINE_K) {
            uint16_t *at = to + l.col(j, k_end) + k / LINE_K * l.b_step;
            __m512i x[16];
            UNROLL
            for (int r = 0; r < 16; r++) {
                x[r] = row[r] ? load_along(bf16, row[r], k, n_k - k) : _mm512_setzero_si512();
            }
            transpose_16(x);
            UNROLL
            for (int p = 0; p < 16; p++) {
                if (k + 2 * p < k_end) {
                    _mm512_storeu_si512(at + p * l.b_pair, x[p]);
                }
            }
        }
    }
}

/* pack_a_<name> and pack_b_<name> */
#define PACK(name, which, where)                                                                   \
    static void pack_##which##_##name(void *to, const du_gemm_src *s, int64_t i0, int64_t n,       \
                                      int64_t k0, int64_t n_k) {                                   \
        if (s->bf16) {                                                                             \
            pack_##which(1, where, to, s, i0, n, k0, n_k);                                         \
        } else {                                                                                   \
            pack_##which(0, where, to, s, i0, n, k0, n_k);                                         \
        }                                                                                          \
    }

#endif
