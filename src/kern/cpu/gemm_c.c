/* Products for training in plain C; sums and layouts: kern/gemm.h. A panel of A is [k][M_PANEL],
 * one of B [k][N_PANEL]. */
#include <string.h>

#include "kern/cpu/fill.h"
#include "tensor/half.h"

enum { M_PANEL = 4, N_PANEL = 8, K_BLOCK = 256 };

static float element(const du_gemm_src *s, int64_t i, int64_t k) {
    int64_t r = s->k_rows ? k : i, c = s->k_rows ? i : k;
    int64_t at = (s->i_row ? s->i_row[r] : r) * s->ld + c;
    return s->bf16 ? du_f32_of_bf16(((const uint16_t *)s->data)[at]) : ((const float *)s->data)[at];
}

static void pack(float *to, int64_t width, int64_t panel_len, const du_gemm_src *s, int64_t i0,
                 int64_t n, int64_t k0, int64_t n_k) {
    for (int64_t p = 0; p < n; p += width, to += panel_len) {
        for (int64_t k = 0; k < n_k; k++) {
            for (int64_t i = 0; i < width; i++) {
                to[k * width + i] = p + i < n ? element(s, i0 + p + i, k0 + k) : 0;
            }
        }
    }
}

/* Values from one panel of A to the next */
static int64_t a_panel_len(int64_t n_k) {
    return M_PANEL * (int64_t)(du_gemm_a_row_bytes(sizeof(float), false, n_k) / sizeof(float));
}

static void pack_a(void *to, const du_gemm_src *s, int64_t i0, int64_t n, int64_t k0, int64_t n_k) {
    pack(to, M_PANEL, a_panel_len(n_k), s, i0, n, k0, n_k);
}

static void pack_b(void *to, const du_gemm_src *s, int64_t i0, int64_t n, int64_t k0, int64_t n_k) {
    pack(to, N_PANEL, N_PANEL * n_k, s, i0, n, k0, n_k);
}

/* One panel by one panel, of which m rows and n columns count. */
static void tile(float *c, int64_t ldc, const float *a, const float *b, int64_t m, int64_t n,
                 int64_t n_k, bool go_on) {
    float acc[M_PANEL][N_PANEL] = {{0}};
    for (int64_t i = 0; go_on && i < m; i++) {
        memcpy(acc[i], c + i * ldc, (size_t)n * sizeof *c);
    }
    for (int64_t k = 0; k < n_k; k++) {
        for (int i = 0; i < M_PANEL; i++) {
            for (int j = 0; j < N_PANEL; j++) {
                acc[i][j] += a[k * M_PANEL + i] * b[k * N_PANEL + j];
            }
        }
    }
    for (int64_t i = 0; i < m; i++) {
        memcpy(c + i * ldc, acc[i], (size_t)n * sizeof *c);
    }
}

static void block(float *c, int64_t ldc, const void *a, const void *b, int64_t m, int64_t n,
                  int64_t k, bool go_on) {
    for (int64_t j = 0; j < n; j += N_PANEL) {
        for (int64_t i = 0; i < m; i += M_PANEL) {
            tile(c + i * ldc + j, ldc, (const float *)a + i / M_PANEL * a_panel_len(k),
                 (const float *)b + j * k, m - i < M_PANEL ? m - i : M_PANEL,
                 n - j < N_PANEL ? n - j : N_PANEL, k, go_on);
        }
    }
}

static void add(float *y, int64_t ldy, const float *x, int64_t ldx, int64_t m, int64_t n) {
    for (int64_t i = 0; i < m; i++) {
        for (int64_t j = 0; j < n; j++) {
            y[i * ldy + j] += x ? x[i * ldx + j] : 0;
        }
    }
}

void du_kern_fill_gemm_c(du_kern *k) {
    k->gemm[DU_GEMM_F32] = (du_gemm){.m_panel = M_PANEL,
                                     .n_panel = N_PANEL,
                                     .k_block = K_BLOCK,
                                     .k_step = 1,
                                     .size = sizeof(float),
                                     .pack_a = pack_a,
                                     .pack_b = pack_b,
                                     .block = block};
    k->gemm_f32 = DU_GEMM_F32;
    k->gemm_add = add;
}
