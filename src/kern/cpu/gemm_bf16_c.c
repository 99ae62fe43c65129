/* The kinds of kern/gemm.h that multiply BF16, in plain C, which is their definition: panels of A
 * are [k][M_PANEL], of B [k][N_PANEL] values of one BF16 or of its parts. A product of two BF16 is
 * exact in double; a sum with a float, rounded to 53 bits and then to 24, is rounded as if at once
 * (Figueroa 1995). */
#include <math.h>
#include <string.h>

#include "kern/cpu/fill.h"
#include "tensor/half.h"

enum { M_PANEL = 4, N_PANEL = 8, K_BLOCK = 256, STEP_PAIRS = 2, STEP_TILES = 32 };

static float flush(float v) {
    return fabsf(v) < 0x1p-126f ? copysignf(0, v) : v;
}

static float element(const du_gemm_src *s, int64_t i, int64_t k) {
    int64_t r = s->k_rows ? k : i, c = s->k_rows ? i : k;
    int64_t at = (s->i_row ? s->i_row[r] : r) * s->ld + c;
    return s->bf16 ? du_f32_of_bf16(((const uint16_t *)s->data)[at]) : ((const float *)s->data)[at];
}

/* v as one BF16 or as the sum of several, of which each but the last is what is left rounded with
 * ties away from zero */
static void split(uint16_t *parts, int n_parts, float v) {
    parts[0] = du_bf16_of_f32(flush(v));
    for (int part = 0; n_parts > 1 && part < n_parts; part++) {
        uint32_t bits;
        memcpy(&bits, &v, sizeof bits);
        parts[part] = (uint16_t)((bits + (part + 1 < n_parts ? 0x8000 : 0)) >> 16);
        v -= du_f32_of_bf16(parts[part]);
    }
}

static void pack(uint16_t *to, int64_t width, int64_t panel_len, int n_parts, int64_t step,
                 const du_gemm_src *s, int64_t i0, int64_t n, int64_t k0, int64_t n_k) {
    for (int64_t p = 0; p < n; p += width, to += panel_len) {
        for (int64_t k = 0; k < du_gemm_round_up(n_k, step); k++) {
            for (int64_t i = 0; i < width; i++) {
                uint16_t *parts = to + (k * width + i) * n_parts;
                memset(parts, 0, (size_t)n_parts * sizeof *parts);
                if (p + i < n && k < n_k) {
                    split(parts, n_parts, element(s, i0 + p + i, k0 + k));
                }
            }
        }
    }
}

/* Values from one panel of A to the next */
static int64_t a_panel_len(int n_parts, int64_t n_k) {
    size_t size = (size_t)n_parts * sizeof(uint16_t);
    return M_PANEL * (int64_t)(du_gemm_a_row_bytes(size, false, n_k) / sizeof(uint16_t));
}

static int64_t b_panel_len(int n_parts, int64_t n_k) {
    return N_PANEL * n_parts * n_k;
}

#define PACK(name, n_parts, step)                                                                  \
    static void pack_a_##name(void *to, const du_gemm_src *s, int64_t i0, int64_t n, int64_t k0,   \
                              int64_t n_k) {                                                       \
        int64_t panel_len = a_panel_len(n_parts, du_gemm_round_up(n_k, step));                     \
        pack(to, M_PANEL, panel_len, n_parts, step, s, i0, n, k0, n_k);                            \
    }                                                                                              \
    static void pack_b_##name(void *to, const du_gemm_src *s, int64_t i0, int64_t n, int64_t k0,   \
                              int64_t n_k) {                                                       \
        int64_t panel_len = b_panel_len(n_parts, du_gemm_round_up(n_k, step));                     \
        pack(to, N_PANEL, panel_len, n_parts, step, s, i0, n, k0, n_k);                            \
    }
PACK(pairs, 1, STEP_PAIRS)
PACK(tiles, 1, STEP_TILES)
PACK(parts, DU_GEMM_PARTS, STEP_TILES)
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

/* A tile of k in two chains of 16, of every step-th k each, the second `next` k behind the first.
 * A k is a_step and b_step values behind the one before. */
static float add_tile(float c, const uint16_t *a, const uint16_t *b, int a_step, int b_step,
                      int step, int next) {
    float first = 0, second = 0;
    for (int k = 0; k < STEP_TILES / 2 * step; k += step) {
        first = multiply_add(first, a[k * a_step], b[k * b_step]);
        second = multiply_add(second, a[(k + next) * a_step], b[(k + next) * b_step]);
    }
    return round_sum((double)flush(c) + round_sum((double)first + second));
}

static float tiles(float c, const uint16_t *a, const uint16_t *b, int64_t n_k) {
    for (int64_t k = 0; k < n_k; k += STEP_TILES) {
        c = add_tile(c, a + k * M_PANEL, b + k * N_PANEL, M_PANEL, N_PANEL, 2, 1);
    }
    return c;
}

static float parts(float c, const uint16_t *a, const uint16_t *b, int64_t n_k) {
    for (int64_t k = 0; k < n_k; k += STEP_TILES) {
        const uint16_t *from_a = a + k * M_PANEL * DU_GEMM_PARTS;
        const uint16_t *from_b = b + k * N_PANEL * DU_GEMM_PARTS;
        for (int i = 0; i < DU_GEMM_PART_PRODUCTS; i++) {
            const int *which = du_gemm_part_products[i];
            c = add_tile(c, from_a + which[0], from_b + which[1], M_PANEL * DU_GEMM_PARTS,
                         N_PANEL * DU_GEMM_PARTS, 1, STEP_TILES / 2);
        }
    }
    return c;
}

typedef float chain_fn(float c, const uint16_t *a, const uint16_t *b, int64_t n_k);

static inline void block(chain_fn *chain, int n_parts, int64_t step, float *c, int64_t ldc,
                         const uint16_t *a, const uint16_t *b, int64_t m, int64_t n, int64_t k,
                         bool go_on) {
    int64_t n_k = du_gemm_round_up(k, step);
    for (int64_t i = 0; i < m; i++) {
        for (int64_t j = 0; j < n; j++) {
            const uint16_t *row =
                a + i / M_PANEL * a_panel_len(n_parts, n_k) + i % M_PANEL * n_parts;
            const uint16_t *column =
                b + j / N_PANEL * b_panel_len(n_parts, n_k) + j % N_PANEL * n_parts;
            float *at = c + i * ldc + j;
            *at = chain(go_on ? *at : 0, row, column, n_k);
        }
    }
}

#define BLOCK(name, n_parts, step)                                                                 \
    static void block_##name(float *c, int64_t ldc, const void *a, const void *b, int64_t m,       \
                             int64_t n, int64_t k, bool go_on) {                                   \
        block(name, n_parts, step, c, ldc, a, b, m, n, k, go_on);                                  \
    }
BLOCK(pairs, 1, STEP_PAIRS)
BLOCK(tiles, 1, STEP_TILES)
BLOCK(parts, DU_GEMM_PARTS, STEP_TILES)
#undef BLOCK

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
    g.size = DU_GEMM_PARTS * sizeof(uint16_t);
    g.pack_a = pack_a_parts;
    g.pack_b = pack_b_parts;
    g.block = block_parts;
    k->gemm[DU_GEMM_F32_TILES] = g;
    k->gemm_bf16 = DU_GEMM_BF16;
}
