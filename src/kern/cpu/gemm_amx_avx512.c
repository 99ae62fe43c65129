/* The kinds DU_GEMM_BF16_TILES and DU_GEMM_F32_TILES by TDPBF16PS (AMX). A panel of A is 32 rows,
 * of B 32 columns; for each 32 k it has, part by part, two tiles of 1 KiB one after the other, as
 * the registers take them: 16 rows of 32 k; 16 pairs of k of 16 columns. A tile of C, panel by
 * panel, stands in four registers:
 *
 *     tmm0  tmm1     rows 0 .. 15     tmm4, tmm5  A
 *     tmm2  tmm3     rows 16 .. 31    tmm6, tmm7  B
 *
 * so that every tile loaded is used twice. Tile registers are configured and released within each
 * call: a thread's state is its caller's. */
#include <string.h>

#include "kern/cpu/amx_tiles.h"
#include "kern/cpu/gemm_pack_parts_avx512.h"

enum {
    K_BLOCK = 512, /* a panel of B stays in the first cache */
    PARTS_K_BLOCK = 256,
    PARTS_K = 128, /* of which a panel of each stay there */
};

static inline int64_t row_at(int64_t i, int64_t n_k) {
    return i / PANEL * PANEL * du_gemm_round_up(n_k, LINE_K) + i % PANEL * LINE;
}

/* k_end is a multiple of LINE_K */
static inline int64_t column_at(int64_t j, int64_t k_end) {
    return j / PANEL * PANEL * k_end + j % PANEL / T * TILE;
}

static const lines where = {row_at, column_at, TWO, TWO, LINE, T, PANEL, LINE_K};

PACK(bf16, a, where)
PACK(bf16, b, where)

static void pack_a_f32(void *to, const du_gemm_src *s, int64_t i0, int64_t n, int64_t k0,
                       int64_t n_k) {
    pack_parts_from(false, to, s, i0, n, k0, n_k);
}

static void pack_b_f32(void *to, const du_gemm_src *s, int64_t j0, int64_t n, int64_t k0,
                       int64_t n_k) {
    pack_parts_from(true, to, s, j0, n, k0, n_k);
}

/* The sums go on with a tile of k, of which the registers hold some tiles already. */
INLINE void multiply_tiles(int M, int N, const uint16_t *a, const uint16_t *b, bool load_a,
                           bool load_b) {
    if (load_b) {
        _tile_loadd(6, b, 64);
    }
    if (load_a) {
        _tile_loadd(4, a, 64);
    }
    _tile_dpbf16ps(0, 4, 6);
    if (N == 2) {
        if (load_b) {
            _tile_loadd(7, b + TILE, 64);
        }
        _tile_dpbf16ps(1, 4, 7);
    }
    if (M == 2) {
        if (load_a) {
            _tile_loadd(5, a + TILE, 64);
        }
        _tile_dpbf16ps(2, 5, 6);
    }
    if (M == 2 && N == 2) {
        _tile_dpbf16ps(3, 5, 7);
    }
}

/* The same of all parts */
INLINE void multiply_parts(int M, int N, const uint16_t *a, const uint16_t *b) {
    const int(*pair)[2] = du_gemm_part_products;
    UNROLL
    for (int i = 0; i < DU_GEMM_PART_PRODUCTS; i++) {
        multiply_tiles(M, N, a + pair[i][0] * TWO, b + pair[i][1] * TWO,
                       i == 0 || pair[i][0] != pair[i - 1][0],
                       i == 0 || pair[i][1] != pair[i - 1][1]);
    }
}

/* M x N tiles of C from n_k tiles of k */
INLINE void add_tiles(int n_parts, int M, int N, float *c, int64_t ldc, const uint16_t *a,
                      const uint16_t *b, int64_t n_k, bool go_on) {
    size_t stride = (size_t)ldc * sizeof *c;
    float *c1 = c + T * ldc;
    for (int r = 0; n_parts == 1 && r < M * T; r++) { /* they come while the sums are made */
        __builtin_prefetch(c + r * ldc, 1);
        if (N == 2) {
            __builtin_prefetch(c + r * ldc + T, 1);
        }
    }
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    if (go_on) {
        _tile_loadd(0, c, stride);
        if (N == 2) {
            _tile_loadd(1, c + T, stride);
        }
        if (M == 2) {
            _tile_loadd(2, c1, stride);
        }
        if (M == 2 && N == 2) {
            _tile_loadd(3, c1 + T, stride);
        }
    }
    for (int64_t k = 0; k < n_k; k++, a += n_parts * TWO, b += n_parts * TWO) {
        if (n_parts == 1) {
            multiply_tiles(M, N, a, b, true, true);
        } else {
            multiply_parts(M, N, a, b);
        }
    }
    _tile_stored(0, c, stride);
    if (N == 2) {
        _tile_stored(1, c + T, stride);
    }
    if (M == 2) {
        _tile_stored(2, c1, stride);
    }
    if (M == 2 && N == 2) {
        _tile_stored(3, c1 + T, stride);
    }
}

/* The same for the m x n values, multiples of T, that C has there */
INLINE void add_some(int n_parts, float *c, int64_t ldc, const uint16_t *a, const uint16_t *b,
                     int64_t m, int64_t n, int64_t n_k, bool go_on) {
    if (m > T && n > T) {
        add_tiles(n_parts, 2, 2, c, ldc, a, b, n_k, go_on);
    } else if (m > T) {
        add_tiles(n_parts, 2, 1, c, ldc, a, b, n_k, go_on);
    } else if (n > T) {
        add_tiles(n_parts, 1, 2, c, ldc, a, b, n_k, go_on);
    } else {
        add_tiles(n_parts, 1, 1, c, ldc, a, b, n_k, go_on);
    }
}

/* The same where C ends within a tile: its m x n values stand aside meanwhile. */
INLINE void add_part(int n_parts, float *c, int64_t ldc, const uint16_t *a, const uint16_t *b,
                     int64_t m, int64_t n, int64_t n_k, bool go_on) {
    _Alignas(64) float part[PANEL * PANEL];
    size_t row_bytes = (size_t)n * sizeof *c;
    for (int64_t i = 0; go_on && i < m; i++) {
        memcpy(part + i * PANEL, c + i * ldc, row_bytes);
    }
    add_some(n_parts, part, PANEL, a, b, m, n, n_k, go_on);
    for (int64_t i = 0; i < m; i++) {
        memcpy(c + i * ldc, part + i * PANEL, row_bytes);
    }
}

/* A panel of B by those of A, panel_len apart */
INLINE void add_panels(int n_parts, float *c, int64_t ldc, const uint16_t *a, const uint16_t *b,
                       int64_t panel_len, int64_t m, int64_t n, int64_t n_k, bool go_on) {
    for (int64_t i = 0; i < m; i += PANEL, a += panel_len, c += PANEL * ldc) {
        int64_t n_rows = m - i < PANEL ? m - i : PANEL;
        if (n_rows == PANEL && n == PANEL) {
            add_tiles(n_parts, 2, 2, c, ldc, a, b, n_k, go_on);
        } else if (n_rows % T == 0 && n % T == 0) {
            add_some(n_parts, c, ldc, a, b, n_rows, n, n_k, go_on);
        } else {
            add_part(n_parts, c, ldc, a, b, n_rows, n, n_k, go_on);
        }
    }
}

INLINE void block(int n_parts, float *c, int64_t ldc, const void *a_panels, const void *b_panels,
                  int64_t m, int64_t n, int64_t k, bool go_on) {
    int64_t n_k = (k + LINE_K - 1) / LINE_K, tile_len = n_parts * TWO, panel_len = n_k * tile_len;
    int64_t n_cuts = n_parts == 1 || k == 0 ? 1 : (k + PARTS_K - 1) / PARTS_K;
    int64_t step = (n_k + n_cuts - 1) / n_cuts;
    _tile_loadconfig(&amx_tiles);
    for (int64_t j = 0; j < n; j += PANEL) {
        const uint16_t *a = a_panels, *b = (const uint16_t *)b_panels + j / PANEL * panel_len;
        for (int64_t k0 = 0, cut = 0; cut < n_cuts; cut++, k0 += step) {
            add_panels(n_parts, c + j, ldc, a + k0 * tile_len, b + k0 * tile_len, panel_len, m,
                       n - j < PANEL ? n - j : PANEL, n_k - k0 < step ? n_k - k0 : step,
                       go_on || cut > 0);
        }
    }
    _tile_release();
}

static void block_bf16(float *c, int64_t ldc, const void *a, const void *b, int64_t m, int64_t n,
                       int64_t k, bool go_on) {
    block(1, c, ldc, a, b, m, n, k, go_on);
}

static void block_f32(float *c, int64_t ldc, const void *a, const void *b, int64_t m, int64_t n,
                      int64_t k, bool go_on) {
    block(PARTS, c, ldc, a, b, m, n, k, go_on);
}

void du_kern_fill_gemm_amx_avx512(du_kern *k) {
    du_gemm g = {.m_panel = PANEL,
                 .n_panel = PANEL,
                 .k_block = K_BLOCK,
                 .k_step = LINE_K,
                 .size = sizeof(uint16_t),
                 .pack_a = pack_a_bf16,
                 .pack_b = pack_b_bf16,
                 .block = block_bf16};
    k->gemm[DU_GEMM_BF16_TILES] = g;
    k->gemm_bf16 = DU_GEMM_BF16_TILES;
    g.k_block = PARTS_K_BLOCK;
    g.size = PARTS * sizeof(uint16_t);
    g.pack_a = pack_a_f32;
    g.pack_b = pack_b_f32;
    g.block = block_f32;
    k->gemm[DU_GEMM_F32_TILES] = g;
    k->gemm_f32 = DU_GEMM_F32_TILES;
}
