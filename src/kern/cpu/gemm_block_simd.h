/* Blocks of products for training from panels, written once in the vectors of a level (simd_<isa>.h
 * is included before); sums and layouts: kern/gemm.h.
 *
 * A lane is one value of k, or a pair of BF16 where the multiply-add takes pairs. A panel of A is
 * GEMM_M rows (du_gemm_a_row_bytes) whose k lie side by side; one of B is [k][GEMM_N], GEMM_N two
 * vectors. A tile of C, panel by panel, stands in 2 * GEMM_M registers: per k two loads of B and
 * one lane of each row of A, every third row's address in a register and the two after it one and
 * two distances further, as the instructions can say. The last rows of A take tiles of fewer rows.
 */
#ifndef DU_KERN_CPU_GEMM_BLOCK_SIMD_H
#define DU_KERN_CPU_GEMM_BLOCK_SIMD_H

#include "kern/cpu/fill.h"
#include "kern/cpu/simd_tail.h"

enum {
    GEMM_N = 2 * VF,
    GEMM_K = 256,           /* lanes of a block: a panel of B then fits the first cache */
    GEMM_SOME = GEMM_M / 3, /* rows of smaller tiles, and twice that */
    GEMM_TILE_K = 32,       /* k of a tile of DU_GEMM_BF16_TILES */
};

/* Which k comes when: ascending, pairs the second first, or tiles of two chains */
typedef enum { GEMM_ASCENDING, GEMM_PAIRS, GEMM_TILES } gemm_order;

typedef struct {
    gemm_order order;
    vf (*fma)(vf a, vf b, vf c); /* c + a * b */
} gemm_math;

/* Rows of A from `row` on, row_bytes apart */
typedef struct {
    const char *row[GEMM_M / 3];
    size_t row_bytes;
} gemm_a;

INLINE gemm_a gemm_rows_of(int R, const char *a, size_t row_bytes) {
    gemm_a rows = {.row_bytes = row_bytes};
    UNROLL
    for (int r = 0; r < R; r += 3) {
        rows.row[r / 3] = a + (size_t)r * row_bytes;
    }
    return rows;
}

/* acc += A [R rows, k] B [k, two vectors] */
INLINE void gemm_add_k(gemm_math g, int R, vf acc[GEMM_M][2], const gemm_a *a, const float *b,
                       int64_t k) {
    vf b0 = vf_load(b + k * GEMM_N), b1 = vf_load(b + k * GEMM_N + VF);
    UNROLL
    for (int r = 0; r < R; r++) {
        const char *row = a->row[r / 3] + (size_t)(r % 3) * a->row_bytes;
        vf v = vf_set1(((const float *)(const void *)row)[k]);
        acc[r][0] = g.fma(v, b0, acc[r][0]);
        acc[r][1] = g.fma(v, b1, acc[r][1]);
    }
}

INLINE void gemm_clear(int R, vf acc[GEMM_M][2]) {
    UNROLL
    for (int r = 0; r < R; r++) {
        acc[r][0] = acc[r][1] = vf_set1(0);
    }
}

/* c + (even + odd) for tiles of k; c stands in memory between them. */
INLINE void gemm_add_tiles(gemm_math g, int R, float *c, int64_t ldc, const gemm_a *a,
                           const float *b, int64_t n_k, bool go_on) {
    for (int64_t k0 = 0; k0 < n_k; k0 += GEMM_TILE_K) {
        vf even[GEMM_M][2], odd[GEMM_M][2];
        gemm_clear(R, even);
        gemm_clear(R, odd);
        for (int64_t k = k0; k < k0 + GEMM_TILE_K; k += 2) {
            gemm_add_k(g, R, even, a, b, k);
            gemm_add_k(g, R, odd, a, b, k + 1);
        }
        UNROLL
        for (int r = 0; r < R; r++) {
            UNROLL
            for (int v = 0; v < 2; v++) {
                float *at = c + r * ldc + v * VF;
                vf old = go_on || k0 > 0 ? vf_load(at) : vf_set1(0);
                vf_store(at, vf_add(old, vf_add(even[r][v], odd[r][v])));
            }
        }
    }
}

/* R rows of a panel of A by a panel of B */
INLINE void gemm_tile(gemm_math g, int R, float *c, int64_t ldc, const char *a, size_t a_row,
                      const float *b, int64_t n_k, bool go_on) {
    gemm_a rows = gemm_rows_of(R, a, a_row);
    if (g.order == GEMM_TILES && n_k > 0) {
        gemm_add_tiles(g, R, c, ldc, &rows, b, n_k, go_on);
        return;
    }
    vf acc[GEMM_M][2];
    UNROLL
    for (int r = 0; r < R; r++) {
        acc[r][0] = go_on ? vf_load(c + r * ldc) : vf_set1(0);
        acc[r][1] = go_on ? vf_load(c + r * ldc + VF) : vf_set1(0);
    }
    if (g.order == GEMM_ASCENDING) {
        UNROLL_4
        for (int64_t k = 0; k < n_k; k++) {
            gemm_add_k(g, R, acc, &rows, b, k);
        }
    }
    for (int64_t k = 0; g.order == GEMM_PAIRS && k < n_k; k += 2) {
        gemm_add_k(g, R, acc, &rows, b, k + 1);
        gemm_add_k(g, R, acc, &rows, b, k);
    }
    UNROLL
    for (int r = 0; r < R; r++) {
        vf_store(c + r * ldc, acc[r][0]);
        vf_store(c + r * ldc + VF, acc[r][1]);
    }
}

/* m <= GEMM_M rows by a panel of B; with two chains a large tile would not fit the registers. */
INLINE void gemm_rows(gemm_math g, float *c, int64_t ldc, const char *a, size_t a_row,
                      const float *b, int64_t m, int64_t n_k, bool go_on) {
    int64_t i = 0;
    if (m == GEMM_M && g.order != GEMM_TILES) {
        gemm_tile(g, GEMM_M, c, ldc, a, a_row, b, n_k, go_on);
        return;
    }
    if (m >= 2 * GEMM_SOME && g.order != GEMM_TILES) {
        gemm_tile(g, 2 * GEMM_SOME, c, ldc, a, a_row, b, n_k, go_on);
        i += 2 * GEMM_SOME;
    }
    for (; i + GEMM_SOME <= m; i += GEMM_SOME) {
        gemm_tile(g, GEMM_SOME, c + i * ldc, ldc, a + (size_t)i * a_row, a_row, b, n_k, go_on);
    }
    for (; i < m; i++) {
        gemm_tile(g, 1, c + i * ldc, ldc, a + (size_t)i * a_row, a_row, b, n_k, go_on);
    }
}

/* n_k lanes of k, in panels of B just as many; rows of A a_row bytes apart. Of the last panel of B
 * not all columns count: C's part stands aside meanwhile. */
INLINE void gemm_block(gemm_math g, float *c, int64_t ldc, const char *a, size_t a_row,
                       const float *b, int64_t m, int64_t n, int64_t n_k, bool go_on) {
    for (int64_t j = 0; j < n; j += GEMM_N, b += GEMM_N * n_k) {
        size_t row_bytes = (size_t)(n - j) * sizeof *c;
        bool whole = n - j >= GEMM_N;
        for (int64_t i = 0; i < m; i += GEMM_M) {
            float part[GEMM_M * GEMM_N], *at = c + i * ldc + j;
            int64_t rows = m - i < GEMM_M ? m - i : GEMM_M;
            for (int64_t r = 0; !whole && go_on && r < rows; r++) {
                memcpy(part + r * GEMM_N, at + r * ldc, row_bytes);
            }
            gemm_rows(g, whole ? at : part, whole ? ldc : GEMM_N, a + (size_t)i * a_row, a_row, b,
                      rows, n_k, go_on);
            for (int64_t r = 0; !whole && r < rows; r++) {
                memcpy(at + r * ldc, part + r * GEMM_N, row_bytes);
            }
        }
    }
}

#endif
