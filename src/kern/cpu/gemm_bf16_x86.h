/* The BF16 kinds of products for training by F32 multiply-adds on x86-64 (a simd header of x86-64
 * is included before): factors are rounded to BF16 when they are packed as F32, and the blocks run
 * with subnormal operands and results as zeros, which the control register of the vector unit does.
 * A product of BF16 is exact, so that a multiply-add rounds as the BF16 instructions do. */
#ifndef DU_KERN_CPU_GEMM_BF16_X86_H
#define DU_KERN_CPU_GEMM_BF16_X86_H

#include "kern/cpu/gemm_simd.h"

/* Flush to zero and denormals are zeros (Intel SDM vol. 1, 10.2.3) */
enum { MXCSR_ZEROS = 1 << 15 | 1 << 6 };

GEMM_PACK(pairs, a, simd_round_bf16, 2)
GEMM_PACK(pairs, b, simd_round_bf16, 2)
GEMM_PACK(tiles, a, simd_round_bf16, GEMM_TILE_K)
GEMM_PACK(tiles, b, simd_round_bf16, GEMM_TILE_K)

/* Functions of their own, so that no arithmetic moves out of the changed mode. */
static __attribute__((noinline)) void block_pairs_flushed(float *c, int64_t ldc, const void *a,
                                                          const void *b, int64_t m, int64_t n,
                                                          int64_t n_k, bool go_on) {
    size_t a_row = du_gemm_a_row_bytes(sizeof(float), true, n_k);
    gemm_block((gemm_math){GEMM_PAIRS, vf_fma}, c, ldc, a, a_row, b, m, n, n_k, go_on);
}

static __attribute__((noinline)) void block_tiles_flushed(float *c, int64_t ldc, const void *a,
                                                          const void *b, int64_t m, int64_t n,
                                                          int64_t n_k, bool go_on) {
    size_t a_row = du_gemm_a_row_bytes(sizeof(float), true, n_k);
    gemm_block((gemm_math){GEMM_TILES, vf_fma}, c, ldc, a, a_row, b, m, n, n_k, go_on);
}

static void block_pairs(float *c, int64_t ldc, const void *a, const void *b, int64_t m, int64_t n,
                        int64_t k, bool go_on) {
    unsigned mode = _mm_getcsr();
    _mm_setcsr(mode | MXCSR_ZEROS);
    block_pairs_flushed(c, ldc, a, b, m, n, du_gemm_round_up(k, 2), go_on);
    _mm_setcsr(mode);
}

static void block_tiles(float *c, int64_t ldc, const void *a, const void *b, int64_t m, int64_t n,
                        int64_t k, bool go_on) {
    unsigned mode = _mm_getcsr();
    _mm_setcsr(mode | MXCSR_ZEROS);
    block_tiles_flushed(c, ldc, a, b, m, n, du_gemm_round_up(k, GEMM_TILE_K), go_on);
    _mm_setcsr(mode);
}

/* After fill_gemm */
static void fill_gemm_bf16(du_kern *k) {
    du_gemm g = k->gemm[DU_GEMM_F32];
    g.k_step = 2;
    g.a_plain = false;
    g.pack_a = pack_a_pairs;
    g.pack_b = pack_b_pairs;
    g.block = block_pairs;
    k->gemm[DU_GEMM_BF16] = g;
    g.k_step = GEMM_TILE_K;
    g.pack_a = pack_a_tiles;
    g.pack_b = pack_b_tiles;
    g.block = block_tiles;
    k->gemm[DU_GEMM_BF16_TILES] = g;
}

#endif
