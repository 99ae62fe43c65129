/* The kind DU_GEMM_BF16 by VDPBF16PS: blocks as in F32, a lane being a pair of k. */
#include "kern/cpu/simd_avx512.h"

#include "kern/cpu/gemm_block_simd.h"
#include "kern/cpu/gemm_pack_bf16_avx512.h"

static inline int64_t row_at(int64_t i, int64_t n_k) {
    return i * (int64_t)(du_gemm_a_row_bytes(sizeof(uint16_t), true, n_k) / sizeof(uint16_t));
}

/* k_end is even */
static inline int64_t column_at(int64_t j, int64_t k_end) {
    return j / GEMM_N * GEMM_N * k_end + j % GEMM_N * 2;
}

static const lines where = {row_at, column_at, LINE_K, LINE_K *GEMM_N, 2 * GEMM_N, 1, GEMM_N, 2};

PACK(pairs, a, where)
PACK(pairs, b, where)

INLINE vf add_pairs(vf a, vf b, vf c) {
    return _mm512_dpbf16_ps(c, (__m512bh)a, (__m512bh)b);
}

static void block(float *c, int64_t ldc, const void *a, const void *b, int64_t m, int64_t n,
                  int64_t k, bool go_on) {
    size_t a_row = du_gemm_a_row_bytes(sizeof(uint16_t), true, k);
    gemm_block((gemm_math){GEMM_ASCENDING, add_pairs}, c, ldc, a, a_row, b, m, n, (k + 1) / 2,
               go_on);
}

void du_kern_fill_gemm_bf16_avx512(du_kern *k) {
    k->gemm[DU_GEMM_BF16] = (du_gemm){.m_panel = GEMM_M,
                                      .n_panel = GEMM_N,
                                      .k_block = 2 * GEMM_K,
                                      .k_step = 2,
                                      .size = sizeof(uint16_t),
                                      .a_odd_rows = true,
                                      .pack_a = pack_a_pairs,
                                      .pack_b = pack_b_pairs,
                                      .block = block};
}
