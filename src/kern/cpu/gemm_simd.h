/* Products for training, written once in the vectors of a level (simd_<isa>.h is included before):
 * panels of F32, and the F32 kind. The values of a panel of A that lie beyond the last k are zeros,
 * those of rows beyond the last are not written; columns of B beyond the last are zeros. */
#ifndef DU_KERN_CPU_GEMM_SIMD_H
#define DU_KERN_CPU_GEMM_SIMD_H

#include "kern/cpu/gemm_block_simd.h"

enum { GEMM_GROUP = 4 /* panels of B that are written together */ };

/* What the compiler specialises packing on: how VF values are read, their bytes in memory, what
 * is done with them (NULL: nothing), and what k is filled up to a multiple of. */
typedef struct {
    vf_load_fn *load;
    size_t size;
    vf (*round)(vf v);
    int64_t step;
} gemm_from;

INLINE const char *gemm_row(gemm_from f, const du_gemm_src *s, int64_t r, int64_t c) {
    return (const char *)s->data + f.size * (size_t)((s->i_row ? s->i_row[r] : r) * s->ld + c);
}

/* Where the rows r .. r + VF - 1 begin, at value c; NULL from the n-th on */
INLINE void gemm_find_rows(gemm_from f, const char *row[VF], const du_gemm_src *s, int64_t r,
                           int64_t n, int64_t c) {
    for (int j = 0; j < VF; j++) {
        row[j] = j < n ? gemm_row(f, s, r + j, c) : NULL;
    }
}

/* n values, zeros behind them */
INLINE vf gemm_load(gemm_from f, const char *p, int64_t n) {
    if (n <= 0) {
        return vf_set1(0);
    }
    vf v = n >= VF ? f.load(p) : vf_load_part(f.load, p, n, f.size);
    return f.round ? f.round(v) : v;
}

/* x[j] lane l: value c + l of row j, and their transposition; zeros beyond n values and where a row
 * is NULL */
INLINE void gemm_load_transposed(gemm_from f, vf x[VF], const char *const row[VF], int64_t c,
                                 int64_t n) {
    if (row[VF - 1] && n >= VF) {
        UNROLL
        for (int j = 0; j < VF; j++) {
            x[j] = gemm_load(f, row[j] + f.size * (size_t)c, VF);
        }
    } else {
        UNROLL
        for (int j = 0; j < VF; j++) {
            x[j] = row[j] ? gemm_load(f, row[j] + f.size * (size_t)c, n) : vf_set1(0);
        }
    }
    simd_transpose(x);
}

/* From one row of A to the next; rows reach up to a multiple of a vector. */
INLINE int64_t gemm_a_ld(int64_t n_k) {
    return (int64_t)(du_gemm_a_row_bytes(sizeof(float), true, n_k) / sizeof(float));
}

INLINE void gemm_pack_a(gemm_from f, float *to, const du_gemm_src *s, int64_t i0, int64_t n,
                        int64_t k0, int64_t n_k) {
    int64_t k_end = du_gemm_round_up(n_k, f.step), ld = gemm_a_ld(k_end);
    for (int64_t i = 0; !s->k_rows && i < n; i++) {
        const char *from = gemm_row(f, s, i0 + i, k0);
        int64_t k = 0;
        for (; k + VF <= n_k; k += VF) {
            vf_store(to + i * ld + k, gemm_load(f, from + f.size * (size_t)k, VF));
        }
        for (; k < k_end; k += VF) {
            vf_store(to + i * ld + k, gemm_load(f, from + f.size * (size_t)k, n_k - k));
        }
    }
    for (int64_t k = 0; s->k_rows && k < k_end; k += VF) {
        const char *row[VF];
        gemm_find_rows(f, row, s, k0 + k, n_k - k, i0);
        for (int64_t i = 0; i < n; i += VF) {
            float *at = to + i * ld + k;
            vf x[VF];
            gemm_load_transposed(f, x, row, i, n - i);
            UNROLL
            for (int j = 0; j < VF; j++) {
                if (i + j < n) {
                    vf_store(at + j * ld, x[j]);
                }
            }
        }
    }
}

/* Rows of memory are k: copied, GEMM_GROUP panels at a time. */
INLINE void gemm_copy_b(gemm_from f, float *to, const du_gemm_src *s, int64_t j0, int64_t n,
                        int64_t k0, int64_t n_k) {
    int64_t k_end = du_gemm_round_up(n_k, f.step), panel_len = GEMM_N * k_end;
    for (int64_t p = 0; p < n; p += GEMM_GROUP * GEMM_N, to += GEMM_GROUP * panel_len) {
        int64_t n_cols = n - p < GEMM_GROUP * GEMM_N ? n - p : GEMM_GROUP * GEMM_N;
        for (int64_t k = 0; k < k_end; k++) {
            const char *from = k < n_k ? gemm_row(f, s, k0 + k, j0 + p) : NULL;
            float *row = to + k * GEMM_N;
            int64_t j = 0;
            for (; from && j + GEMM_N <= n_cols; j += GEMM_N, row += panel_len) {
                const char *at = from + f.size * (size_t)j;
                vf_store(row, gemm_load(f, at, VF));
                vf_store(row + VF, gemm_load(f, at + f.size * VF, VF));
            }
            for (; j < n_cols; j += GEMM_N, row += panel_len) {
                const char *at = from ? from + f.size * (size_t)j : NULL;
                vf_store(row, gemm_load(f, at, from ? n_cols - j : 0));
                vf_store(row + VF, gemm_load(f, at + f.size * VF, from ? n_cols - j - VF : 0));
            }
        }
    }
}

INLINE void gemm_pack_b(gemm_from f, float *to, const du_gemm_src *s, int64_t j0, int64_t n,
                        int64_t k0, int64_t n_k) {
    if (s->k_rows) {
        gemm_copy_b(f, to, s, j0, n, k0, n_k);
        return;
    }
    int64_t k_end = du_gemm_round_up(n_k, f.step);
    for (int64_t j = 0; j < du_gemm_round_up(n, GEMM_N); j += VF) {
        float *panel = to + j / GEMM_N * GEMM_N * k_end + j % GEMM_N;
        const char *row[VF];
        gemm_find_rows(f, row, s, j0 + j, n - j, k0);
        for (int64_t k = 0; k < k_end; k += VF) {
            vf x[VF];
            gemm_load_transposed(f, x, row, k, n_k - k);
            UNROLL
            for (int i = 0; i < VF; i++) {
                if (k + i < k_end) {
                    vf_store(panel + (k + i) * GEMM_N, x[i]);
                }
            }
        }
    }
}

/* pack_a_<name> and pack_b_<name> of a kind whose factors get `round` */
#define GEMM_PACK(name, which, round, step)                                                        \
    static void pack_##which##_##name(void *to, const du_gemm_src *s, int64_t i0, int64_t n,       \
                                      int64_t k0, int64_t n_k) {                                   \
        if (s->bf16) {                                                                             \
            gemm_pack_##which((gemm_from){vf_load_bf16, 2, NULL, step}, to, s, i0, n, k0, n_k);    \
        } else {                                                                                   \
            gemm_pack_##which((gemm_from){vf_load, 4, round, step}, to, s, i0, n, k0, n_k);        \
        }                                                                                          \
    }

GEMM_PACK(f32, a, NULL, 1)
GEMM_PACK(f32, b, NULL, 1)

static void block_f32(float *c, int64_t ldc, const void *a, const void *b, int64_t m, int64_t n,
                      int64_t k, bool go_on) {
    size_t a_row = du_gemm_a_row_bytes(sizeof(float), true, k);
    gemm_block((gemm_math){GEMM_ASCENDING, vf_fma}, c, ldc, a, a_row, b, m, n, k, go_on);
}

static void gemm_add(float *y, int64_t ldy, const float *x, int64_t ldx, int64_t m, int64_t n) {
    for (int64_t i = 0; i < m; i++) {
        float *to = y + i * ldy;
        int64_t j = 0;
        for (; j + VF <= n; j += VF) {
            vf from = x ? vf_load(x + i * ldx + j) : vf_set1(0);
            vf_store(to + j, vf_add(vf_load(to + j), from));
        }
        for (; j < n; j++) {
            to[j] += x ? x[i * ldx + j] : 0;
        }
    }
}

static void fill_gemm(du_kern *k) {
    k->gemm[DU_GEMM_F32] = (du_gemm){.m_panel = GEMM_M,
                                     .n_panel = GEMM_N,
                                     .k_block = GEMM_K,
                                     .k_step = 1,
                                     .size = sizeof(float),
                                     .a_odd_rows = true,
                                     .a_plain = true,
                                     .pack_a = pack_a_f32,
                                     .pack_b = pack_b_f32,
                                     .block = block_f32};
    k->gemm_add = gemm_add;
}

#endif
