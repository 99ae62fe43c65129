/* Products of matrices for training: what nn/gemm.h is made of.
 *
 *     C[m,n] (+)= sum_k A[m,k] B[k,n]
 *
 * Both factors are brought into panels first, from rows in memory that may be gathered, strided,
 * transposed, F32 or BF16; then a block of C is computed from panels.
 *
 * Sums. An element of C is one chain over ascending k, which starts at 0 or, so that k can be cut
 * into several calls (at multiples of k_step), at what C holds; F32 unless it says otherwise:
 *
 *   F32         c = c + a[k] b[k], product and sum rounded once together (in plain C each by
 *               itself)
 *   BF16        a and b are rounded to BF16, k goes in pairs (2p, 2p + 1), the second first:
 *                   c = c + a[2p+1] b[2p+1],  c = c + a[2p] b[2p],  each rounded once
 *               which is what VDPBF16PS does
 *   BF16_TILES  a and b are rounded to BF16, k goes in tiles of 32 with two chains that start at 0,
 *               of even and of odd k:
 *                   e = e + a[2p] b[2p],  o = o + a[2p+1] b[2p+1]  for p = 0 .. 15, then
 *                   c = c + (e + o)
 *               which is what TDPBF16PS (AMX) does
 *
 *   F32_TILES   a and b are sums of three BF16 that hold their 24 bits:
 *                   a0 = BF16 of a,  a1 = BF16 of a - a0,  a2 = a - a0 - a1
 *               and each tile of 32 k is six tiles one after the other, of
 *                   a0 b2,  a0 b1,  a1 b1,  a1 b0,  a2 b0,  a0 b0
 *               each as in BF16_TILES, but with chains of the first 16 k and of the others. What is
 *               left out of a product, a1 b2 + a2 b1 + a2 b2, is below 2^-24 of it, and c is
 *               rounded 6 times in 32 k: sums of two terms and more are closer to the exact ones
 *               than those of F32
 *               (tests/kern/test_gemm.c). Two limits: numbers below 2^-109 have fewer than 24 bits,
 *               and one that is infinite, or becomes so in BF16, makes NaN
 *
 * All roundings are to nearest even; ties to a0 and a1 are away from zero. In all kinds but F32
 * subnormal numbers count as zeros of their sign wherever they appear: as an operand, as BF16, as a
 * result. (Found equal to the instructions bit for bit on a Granite Rapids processor, millions of
 * random cases that include subnormal, infinite and NaN; Intel's manuals describe the same. Which
 * NaN comes out is open.) k is filled up with zeros to a multiple of k_step.
 *
 * So an element depends on neither the block it is computed in nor its neighbours, and a kind gives
 * the same bits at every level, except that plain C computes F32 without fused multiply-adds. */
#ifndef DU_KERN_GEMM_H
#define DU_KERN_GEMM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum {
    DU_GEMM_F32,
    DU_GEMM_F32_TILES,
    DU_GEMM_BF16,
    DU_GEMM_BF16_TILES,
    DU_GEMM_KINDS
} du_gemm_kind;

/* The parts of DU_GEMM_F32_TILES and, in their order, which two are multiplied: of A, of B */
enum { DU_GEMM_PARTS = 3, DU_GEMM_PART_PRODUCTS = 6 };
static const int du_gemm_part_products[DU_GEMM_PART_PRODUCTS][2] = {{0, 2}, {0, 1}, {1, 1},
                                                                    {1, 0}, {2, 0}, {0, 0}};

/* A factor as it lies in memory, in rows: f32 or bf16. i is A's row or B's column.
 *   k_rows false   element (i, k) is value k of row i
 *   k_rows true    element (i, k) is value i of row k */
typedef struct {
    const void *data;
    int64_t ld;           /* values from one row to the next */
    const int32_t *i_row; /* row r lies at i_row[r]; NULL: at r */
    bool bf16, k_rows;
} du_gemm_src;

/* The panels of columns or rows [i0, i0 + n) and k in [k0, k0 + n_k), n_k <= k_block; i0 counts
 * from src's beginning, the panels from theirs. */
typedef void du_gemm_pack_fn(void *panels, const du_gemm_src *src, int64_t i0, int64_t n,
                             int64_t k0, int64_t n_k);

/* C [m,n], rows ldc apart, from panels of one block of k: k <= k_block.
 * a, b       begin with a panel each
 * go_on      the chains start at what C holds */
typedef void du_gemm_block_fn(float *c, int64_t ldc, const void *a, const void *b, int64_t m,
                              int64_t n, int64_t k, bool go_on);

typedef struct {
    int64_t m_panel, n_panel; /* rows of a panel of A, columns of one of B */
    int64_t k_block, k_step;
    size_t size;     /* bytes of a value in panels */
    bool a_odd_rows; /* rows of A take an odd number of lines of 64 bytes: else all rows of a panel
                        would share a few sets of the cache */
    bool a_plain;    /* such rows of F32 values are panels of A as they lie */
    du_gemm_pack_fn *pack_a, *pack_b;
    du_gemm_block_fn *block;
} du_gemm;

/* n rounded up to a multiple of step */
static inline int64_t du_gemm_round_up(int64_t n, int64_t step) {
    return (n + step - 1) / step * step;
}

/* Bytes of a row of A's panels for n_k of k, a multiple of k_step */
static inline size_t du_gemm_a_row_bytes(size_t size, bool odd, int64_t n_k) {
    int64_t lines = (n_k * (int64_t)size + 63) / 64;
    return (size_t)(odd ? lines | 1 : lines) * 64;
}

/* Panels of n rows of A and n_k of k, panel after panel. */
static inline size_t du_gemm_a_bytes(const du_gemm *g, int64_t n, int64_t n_k) {
    return (size_t)du_gemm_round_up(n, g->m_panel) *
           du_gemm_a_row_bytes(g->size, g->a_odd_rows, du_gemm_round_up(n_k, g->k_step));
}

/* Panels of n columns of B and n_k of k, panel after panel. In a panel k comes in order: those from
 * k0 on, a multiple of k_step, lie du_gemm_b_bytes(g, n_panel, k0) behind its beginning. */
static inline size_t du_gemm_b_bytes(const du_gemm *g, int64_t n, int64_t n_k) {
    return (size_t)(du_gemm_round_up(n, g->n_panel) * du_gemm_round_up(n_k, g->k_step)) * g->size;
}

/* y[i*ldy + j] += x[i*ldx + j], i < m, j < n; x NULL: += 0 */
typedef void du_gemm_add_fn(float *y, int64_t ldy, const float *x, int64_t ldx, int64_t m,
                            int64_t n);

#endif
