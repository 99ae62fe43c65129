/* Attention in tiles of queries, with products of BF16 values summed in f32: what a level offers
 * beside qk, softmax and pv of kern.h, for models that may round so. Queries share what it takes to
 * bring cached rows into the form that the products read.
 *
 *     p[i,j] = 2^(s[i,j] - m[i]), s[i,j] = q[i] . k[j], m[i] = max_j s[i,j]
 *     l[i]   = sum_j p[i,j]         acc[i] = sum_j p[i,j] v[j]
 *
 * over one step of at most DU_ATTN_STEP cached rows; steps are merged as a running softmax is
 * (Milakov & Gimelshein 2018). q, k, v and p are rounded to BF16, to nearest even; l is the sum of
 * the rounded p, so that the weights of the values add up to 1. A softmax to base e takes queries
 * times DU_ATTN_LOG2E. */
#ifndef DU_KERN_ATTN_TILES_H
#define DU_KERN_ATTN_TILES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tensor/dtype.h"

enum {
    DU_ATTN_QUERIES = 16, /* of a tile */
    DU_ATTN_PAGE = 64,    /* cached rows brought into form together */
    DU_ATTN_STEP = 256,   /* cached rows that share one maximum: part of the bits */
    DU_ATTN_SUMS = 16,    /* sums that are folded at once, at most */
    /* Values from one block of 16 columns of v to the next: 32 pairs of rows, and a cache line
     * that keeps blocks out of each other's sets. */
    DU_ATTN_V_BLOCK = 33 * 32
};

#define DU_ATTN_LOG2E 0x1.715476p+0f

/* Sizes, in elements. Widths are multiples of 32.
 *   queries  uint16_t [k_dim/2][16][2]: lane i holds values 2c and 2c + 1 of query i
 *   k        uint16_t [64][k_dim]
 *   v        uint16_t [v_dim/16][33][16][2]: lane c holds two consecutive rows' values of a column;
 *            the order of columns within 32 is the kernel's own
 *   sums     float m[16], l[16], acc [v_dim/16][16][16] in the order of v */
static inline int64_t du_attn_queries_len(int64_t k_dim) {
    return DU_ATTN_QUERIES * k_dim;
}
static inline int64_t du_attn_v_len(int64_t v_dim) {
    return v_dim / 16 * DU_ATTN_V_BLOCK;
}
static inline int64_t du_attn_sums_len(int64_t v_dim) {
    return DU_ATTN_QUERIES * (2 + v_dim);
}

/* n <= 64 cached rows into form, zeros behind them.
 * k  NULL: only v
 * v  of the first v_dim values of the rows; NULL: only k */
typedef void du_attn_load_fn(uint16_t *k, uint16_t *v, const void *rows, size_t stride, int64_t n,
                             int64_t k_dim, int64_t v_dim);

typedef struct {
    du_attn_load_fn *load[DU_DTYPE_COUNT]; /* F16, BF16, Q8_0: who caches F32 wants no rounding */

    /* One tile of the n <= 16 queries at q[i], zeros behind them, times scale. */
    void (*queries)(uint16_t *tile, const float *const *q, int64_t n, int64_t k_dim, float scale);

    /* A page of latents, rows [64][rank + rope] as load gives k, becomes keys and values of a head:
     *     k[j] = [K c[j] | r[j]], v[j] = V c[j]      of row j = [c | r], rounded to BF16
     * K [k_dim - rope, rank], then V [v_dim, rank], are in w as queries are: tiles of 16 of their
     * rows. */
    void (*expand)(uint16_t *k, uint16_t *v, const uint16_t *latents, const uint16_t *w,
                   int64_t rank, int64_t rope, int64_t k_dim, int64_t v_dim);

    /* Sums of n_tiles tiles over n_kv <= DU_ATTN_STEP rows, overwritten.
     * sums, queries  tiles behind each other
     * k, v           pages of 64 rows behind each other
     * seen           [n_tiles * 16]: query i sees the rows before seen[i], perhaps none */
    void (*step)(float *sums, const uint16_t *queries, int64_t n_tiles, const uint16_t *k,
                 const uint16_t *v, int64_t n_kv, int64_t k_dim, int64_t v_dim,
                 const int32_t *seen);

    /* to = to and from together, one tile */
    void (*merge)(float *to, const float *from, int64_t v_dim);

    /* y[i][c] = acc[i,c] / l[i] of n_sums <= DU_ATTN_SUMS sums, ld apart, merged in order; queries
     * i < n, columns [c0, c1), multiples of 32. Each query has seen some row. */
    void (*fold)(float *const *y, int64_t n, const float *sums, int64_t n_sums, int64_t ld,
                 int64_t v_dim, int64_t c0, int64_t c1);

    /* Fewer queries than this that share their rows are faster by qk and pv. */
    int64_t min_queries;

    bool matrix_unit; /* products cost much less than what is around them */
} du_attn_tiles;

#endif
