/* The kind DU_GEMM_BF16_TILES by TDPBF16PS (AMX). A panel of A is 32 rows, of B 32 columns; for
 * each 32 k it has two tiles of 1 KiB one after the other, as the registers take them: 16 rows of
 * 32 k; 16 pairs of k of 16 columns. A tile of C, panel by panel, stands in four registers:
 *
 *     tmm0  tmm1     rows 0 .. 15     tmm4, tmm5  A
 *     tmm2  tmm3     rows 16 .. 31    tmm6, tmm7  B
 *
 * so that every tile loaded is used twice. Tile registers are configured and released within each
 * call: a thread's state is its caller's. */
#include <string.h>

#include "kern/cpu/amx_tiles.h"
#include "kern/cpu/gemm_pack_bf16_avx512.h"

enum {
    T = 16, /* rows or columns of a tile */
    PANEL = 2 * T,
    TILE = T * LINE, /* values of a tile of A or B */
    K_BLOCK = 512,   /* a panel of B stays in the first cache */
};

static inline int64_t row_at(int64_t i, int64_t n_k) {
    return i / PANEL * PANEL * du_gemm_round_up(n_k, LINE_K) + i % PANEL * LINE;
}

/* k_end is a multiple of LINE_K */
static inline int64_t column_at(int64_t j, int64_t k_end) {
    return j / PANEL * PANEL * k_end + j % PANEL / T * TILE;
}

static const lines where = {row_at, column_at, 2 * TILE, 2 * TILE, LINE, T, PANEL, LINE_K};

PACK(tiles, a, where)
PACK(tiles, b, where)

/* M x N tiles of C from n_k tiles of k */
INLINE void add_tiles(int M, int N, float *c, int64_t ldc, const uint16_t *a, const uint16_t *b,
                      int64_t n_k, bool go_on) {
    size_t stride = (size_t)ldc * sizeof *c;
    float *c1 = c + T * ldc;
    for (int r = 0; r < M * T; r++) { /* they come while the sums are made */
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
    for (int64_t k = 0; k < n_k; k++, a += 2 * TILE, b += 2 * TILE) {
        _tile_loadd(6, b, 64);
        _tile_loadd(4, a, 64);
        _tile_dpbf16ps(0, 4, 6);
        if (N == 2) {
            _tile_loadd(7, b + TILE, 64);
            _tile_dpbf16ps(1, 4, 7);
        }
        if (M == 2) {
            _tile_loadd(5, a + TILE, 64);
            _tile_dpbf16ps(2, 5, 6);
        }
        if (M == 2 && N == 2) {
            _tile_dpbf16ps(3, 5, 7);
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
static void add_some(float *c, int64_t ldc, const uint16_t *a, const uint16_t *b, int64_t m,
                     int64_t n, int64_t n_k, bool go_on) {
    if (m > T && n > T) {
        add_tiles(2, 2, c, ldc, a, b, n_k, go_on);
    } else if (m > T) {
        add_tiles(2, 1, c, ldc, a, b, n_k, go_on);
    } else if (n > T) {
        add_tiles(1, 2, c, ldc, a, b, n_k, go_on);
    } else {
        add_tiles(1, 1, c, ldc, a, b, n_k, go_on);
    }
}

/* The same where C ends within a tile: its m x n values stand aside meanwhile. */
static void add_part(float *c, int64_t ldc, const uint16_t *a, const uint16_t *b, int64_t m,
                     int64_t n, int64_t n_k, bool go_on) {
    _Alignas(64) float part[PANEL * PANEL];
    size_t row_bytes = (size_t)n * sizeof *c;
    for (int64_t i = 0; go_on && i < m; i++) {
        memcpy(part + i * PANEL, c + i * ldc, row_bytes);
    }
    add_some(part, PANEL, a, b, m, n, n_k, go_on);
    for (int64_t i = 0; i < m; i++) {
        memcpy(c + i * ldc, part + i * PANEL, row_bytes);
    }
}

static void block(float *c, int64_t ldc, const void *a_panels, const void *b_panels, int64_t m,
                  int64_t n, int64_t k, bool go_on) {
    int64_t n_k = (k + LINE_K - 1) / LINE_K;
    _tile_loadconfig(&amx_tiles);
    for (int64_t j = 0; j < n; j += PANEL) {
        const uint16_t *a = a_panels, *b = (const uint16_t *)b_panels + j * n_k * LINE_K;
        for (int64_t i = 0; i < m; i += PANEL, a += PANEL * n_k * LINE_K) {
            int64_t n_rows = m - i < PANEL ? m - i : PANEL, n_cols = n - j < PANEL ? n - j : PANEL;
            if (n_rows == PANEL && n_cols == PANEL) {
                add_tiles(2, 2, c + i * ldc + j, ldc, a, b, n_k, go_on);
            } else if (n_rows % T == 0 && n_cols % T == 0) {
                add_some(c + i * ldc + j, ldc, a, b, n_rows, n_cols, n_k, go_on);
            } else {
                add_part(c + i * ldc + j, ldc, a, b, n_rows, n_cols, n_k, go_on);
            }
        }
    }
    _tile_release();
}

void du_kern_fill_gemm_amx_avx512(du_kern *k) {
    k->gemm[DU_GEMM_BF16_TILES] = (du_gemm){.m_panel = PANEL,
                                            .n_panel = PANEL,
                                            .k_block = K_BLOCK,
                                            .k_step = LINE_K,
                                            .size = sizeof(uint16_t),
                                            .pack_a = pack_a_tiles,
                                            .pack_b = pack_b_tiles,
                                            .block = block};
    k->gemm_bf16 = DU_GEMM_BF16_TILES;
}
