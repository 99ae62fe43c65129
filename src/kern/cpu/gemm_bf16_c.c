/* The BF16 kinds of kern/gemm.h in plain C, which is their definition: panels of A are
 * [k][M_PANEL], of B [k][N_PANEL] BF16. A product of two BF16 is exact in double; a sum with a
 * float, rounded to 53 bits and then to 24, is rounded as if at once (Figueroa 1995). */
#include <math.h>
#include <string.h>

#include "kern/cpu/fill.h"
#include "tensor/half.h"

enum { M_PANEL = 4, N_PANEL = 8, K_BLOCK = 256, STEP_PAIRS = 2, STEP_TILES = 32 };

static float flush(float v) {
    return fabsf(v) < 0x1p-126f ? copysignf(0, v) : v;
}

static uint16_t element(const du_gemm_src *s, int64_t i, int64_t k) {
    int64_t r = s->k_rows ? k : i, c = s->k_rows ? i : k;
    int64_t at = (s->i_row ? s->i_row[r] : r) * s->ld + c;
    return s->bf16 ? ((const uint16_t *)s->data)[at]
                   : du_bf16_of_f32(flush(((const float *)s->data)[at]));
}

static void pack(uint16_t *to, int64_t width, int64_t panel_len, int64_t step, const du_gemm_src *s,
                 int64_t i0, int64_t n, int64_t k0, int64_t n_k) {
    for (int64_t p = 0; p < n; p += width, to += panel_len) {
        for (int64_t k = 0; k < du_gemm_round_up(n_k, step); k++) {
            for (int64_t i = 0; i < width; i++) {
                bool is_in = p + i < n && k < n_k;
                to[k * width + i] = is_in ? element(s, i0 + p + i, k0 + k) : 0;
            }
        }
    }
}

/* Values from one panel of A to the next */
static int64_t a_panel_len(int64_t n_k) {
    return M_PANEL *
           (int64_t)(du_gemm_a_row_bytes(sizeof(uint16_t), false, n_k) / sizeof(uint16_t));
}

#define PACK(name, step)                                                                           \
    static void pack_a_##name(void *to, const du_gemm_src *s, int64_t i0, int64_t n, int64_t k0,   \
                              int64_t n_k) {                                                       \
        pack(to, M_PANEL, a_panel_len(n_k), step, s, i0, n, k0, n_k);                              \
    }                                                                                              \
    static void pack_b_##name(void *to, const du_gemm_src *s, int64_t i0, int64_t n, int64_t k0,   \
                              int64_t n_k) {                                                       \
        pack(to, N_PANEL, N_PANEL *du_gemm_round_up(n_k, step), step, s, i0, n, k0, n_k);          \
    }
PACK(pairs, STEP_PAIRS)
PACK(tiles, STEP_TILES)
#undef PACK

/* v rounded to f32. What has not 2^-126 after it was rounded to 24 bits becomes 0. */
static float round_sum(double v) {
    return fabs(v) < 0x1p-126 - 0x1p-151 ? (float)copysign(0, v) : (float)v;
}

static float multiply_add(float c, uint16_t a, uint16_t b) {
    double product = (double)flush(du_f32_of_bf16(a)) * flush(du_f32_of_bf16(b));
    return round_sum(product + flush(c));
}

/* a, b: where row i's and column j's values begin */
static float pairs(float c, const uint16_t *a, const uint16_t *b, int64_t n_k) {
    for (int64_t k = 0; k < n_k; k += 2) {
        c = multiply_add(c, a[(k + 1) * M_PANEL], b[(k + 1) * N_PANEL]);
        c = multiply_add(c, a[k * M_PANEL], b[k * N_PANEL]);
    }
    return c;
}

static float tiles(float c, const uint16_t *a, const uint16_t *b, int64_t n_k) {
    for (int64_t k0 = 0; k0 < n_k; k0 += STEP_TILES) {
        float even = 0, odd = 0;
        for (int64_t k = k0; k < k0 + STEP_TILES; k += 2) {
            even = multiply_add(even, a[k * M_PANEL], b[k * N_PANEL]);
            odd = multiply_add(odd, a[(k + 1) * M_PANEL], b[(k + 1) * N_PANEL]);
        }
        c = round_sum((double)flush(c) + round_sum((double)even + odd));
    }
    return c;
}

typedef float chain_fn(float c, const uint16_t *a, const uint16_t *b, int64_t n_k);

static inline void block(chain_fn *chain, int64_t step, float *c, int64_t ldc, const uint16_t *a,
                         const uint16_t *b, int64_t m, int64_t n, int64_t k, bool go_on) {
    int64_t n_k = du_gemm_round_up(k, step);
    for (int64_t i = 0; i < m; i++) {
        for (int64_t j = 0; j < n; j++) {
            const uint16_t *row = a + i / M_PANEL * a_panel_len(k) + i % M_PANEL;
            const uint16_t *column = b + j / N_PANEL * (N_PANEL * n_k) + j % N_PANEL;
            float *at = c + i * ldc + j;
            *at = chain(go_on ? *at : 0, row, column, n_k);
        }
    }
}

static void block_pairs(float *c, int64_t ldc, const void *a, const void *b, int64_t m, int64_t n,
                        int64_t k, bool go_on) {
    block(pairs, STEP_PAIRS, c, ldc, a, b, m, n, k, go_on);
}

static void block_tiles(float *c, int64_t ldc, const void *a, const void *b, int64_t m, int64_t n,
                        int64_t k, bool go_on) {
    block(tiles, STEP_TILES, c, ldc, a, b, m, n, k, go_on);
}

void du_kern_fill_gemm_bf16_c(du_kern *k) {
    du_gemm g = {.m_panel = M_PANEL,
                 .n_panel = N_PANEL,
                 .k_block = K_BLOCK,
                 .k_step = STEP_PAIRS,
                 .size = sizeof(uint16_t),
                 .pack_a = pack_a_pairs,
                 .pack_b = pack_b_pairs,
                 .block = block_pairs};
    k->gemm[DU_GEMM_BF16] = g;
    g.k_step = STEP_TILES;
    g.pack_a = pack_a_tiles;
    g.pack_b = pack_b_tiles;
    g.block = block_tiles;
    k->gemm[DU_GEMM_BF16_TILES] = g;
    k->gemm_bf16 = DU_GEMM_BF16;
}
