/* The step of attention in tiles by AMX: products of 16 x 32 by 32 x 16 BF16 values, summed in
 * f32. Scores multiply 16 cached rows by a tile of queries, weighted sums the weights of a tile of
 * queries by 16 columns of 32 cached rows. One or two tiles of queries are computed together, so
 * that four of the eight tile registers are sums.
 *
 * Tile registers are configured and released within each call: a thread's state is its caller's. */
#include "kern/cpu/amx_tiles.h"
#include "kern/cpu/attn_tiles_avx512.h"
#include "kern/cpu/fill.h"

/* s [n_rows, 16]: 64 rows by one tile of queries */
static void scores_1(float *s, const uint16_t *q, const uint16_t *k, int64_t n_rows,
                     int64_t k_dim) {
    size_t stride = 2 * (size_t)k_dim;
    for (int64_t j = 0; j < n_rows; j += 64, s += 64 * 16, k += 64 * k_dim) {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        for (int64_t c = 0; c < k_dim; c += 32) {
            _tile_loadd(4, q + c * 16, 64);
            _tile_loadd(5, k + c, stride);
            _tile_dpbf16ps(0, 5, 4);
            _tile_loadd(6, k + 16 * k_dim + c, stride);
            _tile_dpbf16ps(1, 6, 4);
            _tile_loadd(7, k + 32 * k_dim + c, stride);
            _tile_dpbf16ps(2, 7, 4);
            _tile_loadd(5, k + 48 * k_dim + c, stride);
            _tile_dpbf16ps(3, 5, 4);
        }
        _tile_stored(0, s, 64);
        _tile_stored(1, s + 16 * 16, 64);
        _tile_stored(2, s + 32 * 16, 64);
        _tile_stored(3, s + 48 * 16, 64);
    }
}

/* s0, s1: 32 rows, ld apart, by two tiles of queries */
static void scores_2(float *s0, float *s1, const uint16_t *q, const uint16_t *k, int64_t ld,
                     int64_t n_rows, int64_t k_dim) {
    size_t stride = 2 * (size_t)ld;
    const uint16_t *q1 = q + du_attn_queries_len(k_dim);
    for (int64_t j = 0; j < n_rows; j += 32, k += 32 * ld) {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        for (int64_t c = 0; c < k_dim; c += 32) {
            _tile_loadd(4, q + c * 16, 64);
            _tile_loadd(6, k + c, stride);
            _tile_dpbf16ps(0, 6, 4);
            _tile_loadd(5, q1 + c * 16, 64);
            _tile_dpbf16ps(1, 6, 5);
            _tile_loadd(7, k + 16 * ld + c, stride);
            _tile_dpbf16ps(2, 7, 4);
            _tile_dpbf16ps(3, 7, 5);
        }
        _tile_stored(0, s0 + j * 16, 64);
        _tile_stored(1, s1 + j * 16, 64);
        _tile_stored(2, s0 + (j + 16) * 16, 64);
        _tile_stored(3, s1 + (j + 16) * 16, 64);
    }
}

/* Two blocks of columns for one tile of queries */
static void weigh_1(float *acc, const uint16_t *p, const uint16_t *v, int64_t n_p, int64_t v_dim) {
    for (int64_t c = 0; c < v_dim / 16; c += 2) {
        _tile_zero(0);
        _tile_zero(1);
        for (int64_t t = 0; t < n_p; t++) {
            const uint16_t *x = attn_v_tile(v, t, c, v_dim);
            _tile_loadd(4, p + t * P_TILE, 64);
            _tile_loadd(6, x, 64);
            _tile_dpbf16ps(0, 4, 6);
            _tile_loadd(7, x + DU_ATTN_V_BLOCK, 64);
            _tile_dpbf16ps(1, 4, 7);
        }
        _tile_stored(0, acc + c * 256, 64);
        _tile_stored(1, acc + (c + 1) * 256, 64);
    }
}

/* Two blocks of columns for two tiles */
static void weigh_2(float *acc0, float *acc1, const uint16_t *p0, const uint16_t *p1,
                    const uint16_t *v, int64_t n_p, int64_t v_dim) {
    for (int64_t c = 0; c < v_dim / 16; c += 2) {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        for (int64_t t = 0; t < n_p; t++) {
            const uint16_t *x = attn_v_tile(v, t, c, v_dim);
            _tile_loadd(4, p0 + t * P_TILE, 64);
            _tile_loadd(6, x, 64);
            _tile_dpbf16ps(0, 4, 6);
            _tile_loadd(5, p1 + t * P_TILE, 64);
            _tile_dpbf16ps(1, 5, 6);
            _tile_loadd(7, x + DU_ATTN_V_BLOCK, 64);
            _tile_dpbf16ps(2, 4, 7);
            _tile_dpbf16ps(3, 5, 7);
        }
        _tile_stored(0, acc0 + c * 256, 64);
        _tile_stored(1, acc1 + c * 256, 64);
        _tile_stored(2, acc0 + (c + 1) * 256, 64);
        _tile_stored(3, acc1 + (c + 1) * 256, 64);
    }
}

static void step(float *sums, const uint16_t *q, int64_t n_tiles, const uint16_t *k,
                 const uint16_t *v, int64_t n_kv, int64_t k_dim, int64_t v_dim,
                 const int32_t *seen) {
    _Alignas(64) float s[2][DU_ATTN_STEP * 16];
    _Alignas(64) uint16_t p[2][DU_ATTN_STEP * 16];
    int64_t ld = du_attn_sums_len(v_dim), n_p = attn_rows(n_kv, 32) / 32, i = 0;
    _tile_loadconfig(&amx_tiles);
    for (; i + 2 <= n_tiles; i += 2, sums += 2 * ld) {
        scores_2(s[0], s[1], q + i * du_attn_queries_len(k_dim), k, k_dim, n_p * 32, k_dim);
        attn_softmax(sums, p[0], s[0], n_kv, seen + 16 * i);
        attn_softmax(sums + ld, p[1], s[1], n_kv, seen + 16 * i + 16);
        weigh_2(sums + 32, sums + ld + 32, p[0], p[1], v, n_p, v_dim);
    }
    if (i < n_tiles) {
        scores_1(s[0], q + i * du_attn_queries_len(k_dim), k, attn_rows(n_kv, 64), k_dim);
        attn_softmax(sums, p[0], s[0], n_kv, seen + 16 * i);
        weigh_1(sums + 32, p[0], v, n_p, v_dim);
    }
    _tile_release();
}

static void expand(uint16_t *k, uint16_t *v, const uint16_t *latents, const uint16_t *w,
                   int64_t rank, int64_t rope, int64_t k_dim, int64_t v_dim) {
    _tile_loadconfig(&amx_tiles);
    attn_expand(scores_2, k, v, latents, w, rank, rope, k_dim, v_dim);
    _tile_release();
}

void du_kern_fill_attn_tiles_amx_avx512(du_kern *k) {
    k->attn.step = step;
    k->attn.expand = expand;
    k->attn.min_queries = 1;
    k->attn.matrix_unit = true;
}
