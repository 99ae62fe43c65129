/* Products with strips and many tokens in tile registers (AMX BF16), for callers that offer bf16
 * activations; without them, and for few tokens, as on every AVX-512 machine.
 *
 * Weights are multiplied out and rounded to bf16, 32 rows by K_BLOCK columns at a time, and kept in
 * the first cache; the sums are f32 tiles of 16 tokens by 16 rows that stand in y between blocks of
 * columns. A tile product takes 32 columns:
 *
 *     tmm4, tmm5   16 tokens:  row t is 32 columns of token t
 *     tmm6, tmm7   16 rows:    row p is columns 2p, 2p + 1 of rows 0 .. 15, in pairs
 *     tmm0 .. 3    their sums
 *
 * Eight bits of mantissa on both sides cost less than activations in 8-bit integers do, and no
 * scales are applied inside; a token's result does not depend on its neighbours, but differs in its
 * roundings from what few tokens get. */
#include "kern/cpu/amx_tiles.h"
#include "kern/cpu/mm_strips_avx512.h"

enum {
    K_BLOCK = 256,      /* columns whose weights stand unpacked */
    T_BLOCK = 256,      /* tokens that use them */
    N_TILE = 16,        /* rows of a tile register */
    N_TILE_TOKENS = 24, /* from so many tokens on tiles are faster */
};

typedef struct {
    _Alignas(64) uint16_t x[T_BLOCK / N_TILE][K_BLOCK / 32][N_TILE][32]; /* tokens */
    _Alignas(64) uint16_t w[2][K_BLOCK / 32][N_TILE][32];                /* two strips */
    _Alignas(64) float y[2][2][N_TILE][N_TILE]; /* sums of rows beyond the last */
} tiles;

/* Are all codes of the type below 128? */
INLINE int has_small_codes(strip_traits k) {
    return k.bits < 8 && k.offset < 128;
}

/* scale * byte c of every lane - min. A small code becomes the upper bits of a mantissa, 1 + code /
 * 128, which saves masking and conversion: scale is then 128 times the scale and min has that
 * added. */
INLINE __m512 weight(strip_traits k, __m512i q, int c, __m512 scale, __m512 min) {
    if (has_small_codes(k)) {
        __m512i v = c < 2   ? _mm512_slli_epi32(q, (unsigned)(16 - 8 * c))
                    : c > 2 ? _mm512_srli_epi32(q, 8)
                            : q;
        v = _mm512_ternarylogic_epi32(v, _mm512_set1_epi32(0x7f0000), _mm512_set1_epi32(0x3f800000),
                                      0xea);
        return _mm512_fmsub_ps(_mm512_castsi512_ps(v), scale, min);
    }
    __m512i v = c > 0 ? _mm512_srli_epi32(q, (unsigned)(8 * c)) : q;
    v = c < 3 ? _mm512_and_si512(v, _mm512_set1_epi32(255)) : v;
    return _mm512_fmsub_ps(_mm512_cvtepi32_ps(v), scale, min);
}

/* lo and hi rounded to bf16, ties to the smaller magnitude, in pairs. In integers: VCVTNE2PS2BF16
 * takes two cycles. A NaN stays one, since it comes from a strip's (kern/strips.h) or from an
 * operation, and its lower bits are zeros. */
INLINE __m512i pairs(__m512 lo, __m512 hi) {
    const __m512i half = _mm512_set1_epi32(0x7fff), upper = _mm512_set1_epi32((int)0xffff0000);
    __m512i l = _mm512_add_epi32(_mm512_castps_si512(lo), half);
    __m512i h = _mm512_add_epi32(_mm512_castps_si512(hi), half);
    return _mm512_ternarylogic_epi32(_mm512_srli_epi32(l, 16), h, upper, 0xf8);
}

/* One group of a strip, multiplied out. */
INLINE void unpack_group(strip_traits k, uint16_t out[N_TILE][32], strip s, int64_t g) {
    strip_group w;
    load_group(k, &w, s, g);
    UNROLL
    for (int h = 0; h < 2; h++) {
        __m512 scale = strip_has_sub(k) ? _mm512_mul_ps(w.scale, w.sub[h]) : w.scale;
        __m512 min = _mm512_mul_ps(scale, _mm512_set1_ps((float)k.offset));
        if (strip_has_mins(k)) {
            min = w.min;
        }
        if (k.scales == DU_SCALES_N_16) {
            __m512i m = h ? _mm512_srli_epi32(w.min16, 16)
                          : _mm512_and_si512(w.min16, _mm512_set1_epi32(0xffff));
            min = _mm512_mul_ps(w.min, _mm512_cvtepi32_ps(m));
        }
        if (has_small_codes(k)) {
            scale = _mm512_mul_ps(scale, _mm512_set1_ps(128));
            min = _mm512_add_ps(min, scale);
        }
        UNROLL
        for (int j = 4 * h; j < 4 * h + 4; j++) {
            __m512i *to = (__m512i *)(void *)out[2 * j];
            _mm512_store_si512(
                to, pairs(weight(k, w.q[j], 0, scale, min), weight(k, w.q[j], 1, scale, min)));
            _mm512_store_si512(
                to + 1, pairs(weight(k, w.q[j], 2, scale, min), weight(k, w.q[j], 3, scale, min)));
        }
    }
}

/* n tokens' columns [c, c + 32 * n_groups), rows up to a multiple of 16 zeros. */
static void fill_x(tiles *b, const du_acts *x, const int32_t *i_row, int64_t t0, int64_t n,
                   int64_t c, int64_t n_groups) {
    for (int64_t t = 0; t < n; t++) {
        const uint16_t *row = x->h + (i_row ? i_row[t0 + t] : t0 + t) * x->ldh + c;
        for (int64_t g = 0; g < n_groups; g++) {
            _mm512_store_si512(b->x[t / N_TILE][g][t % N_TILE], _mm512_loadu_si512(row + 32 * g));
        }
    }
    for (int64_t t = n; t % N_TILE != 0; t++) {
        for (int64_t g = 0; g < n_groups; g++) {
            _mm512_store_si512(b->x[t / N_TILE][g][t % N_TILE], _mm512_setzero_si512());
        }
    }
}

/* Sums of two blocks of 16 tokens (T = 2; or one) from t on and R strips. */
INLINE void add_tiles(int T, int R, const tiles *b, float *y[2][2], size_t ldy, int64_t t,
                      int64_t n_groups, bool first) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    if (!first) {
        _tile_loadd(0, y[0][0], ldy);
        if (R == 2) {
            _tile_loadd(1, y[0][1], ldy);
        }
        if (T == 2) {
            _tile_loadd(2, y[1][0], ldy);
        }
        if (T == 2 && R == 2) {
            _tile_loadd(3, y[1][1], ldy);
        }
    }
    const uint16_t(*x0)[N_TILE][32] = b->x[t / N_TILE], (*x1)[N_TILE][32] = x0 + K_BLOCK / 32;
    for (int64_t g = 0; g < n_groups; g++) {
        _tile_loadd(4, x0[g], 64);
        _tile_loadd(6, b->w[0][g], 64);
        _tile_dpbf16ps(0, 4, 6);
        if (R == 2) {
            _tile_loadd(7, b->w[1][g], 64);
            _tile_dpbf16ps(1, 4, 7);
        }
        if (T == 2) {
            _tile_loadd(5, x1[g], 64);
            _tile_dpbf16ps(2, 5, 6);
        }
        if (T == 2 && R == 2) {
            _tile_dpbf16ps(3, 5, 7);
        }
    }
    _tile_stored(0, y[0][0], ldy);
    if (R == 2) {
        _tile_stored(1, y[0][1], ldy);
    }
    if (T == 2) {
        _tile_stored(2, y[1][0], ldy);
    }
    if (T == 2 && R == 2) {
        _tile_stored(3, y[1][1], ldy);
    }
}

/* Up to 16 rows' sums of n_t tokens between y and a tile in memory. */
static void copy_sums(float *to, int64_t ld_to, const float *from, int64_t ld_from, int64_t n_t,
                      int64_t n_r) {
    __mmask16 some = (__mmask16)(n_r < N_TILE ? (1u << n_r) - 1 : 0xffff);
    for (int64_t t = 0; t < n_t; t++) {
        _mm512_mask_storeu_ps(to + t * ld_to, some,
                              _mm512_maskz_loadu_ps(some, from + t * ld_from));
    }
}

/* The sums of two blocks of tokens (n_t in all) and two strips (n_r rows) that reach beyond the
 * last of either: the tiles stand in b->y meanwhile. */
static void add_partial(tiles *b, float *y, int64_t ldy, int64_t t, int64_t n_t, int64_t n_r,
                        int64_t n_groups, bool first) {
    float *at[2][2];
    int T = n_t > N_TILE ? 2 : 1, R = n_r > N_TILE ? 2 : 1;
    for (int i = 0; i < 4; i++) {
        at[i / 2][i % 2] = b->y[i / 2][i % 2][0];
    }
    for (int way = first ? 1 : 0; way < 2; way++) { /* in, then the products, then out */
        if (way == 1 && T == 2 && R == 2) {
            add_tiles(2, 2, b, at, 64, t, n_groups, first);
        } else if (way == 1 && R == 2) {
            add_tiles(1, 2, b, at, 64, t, n_groups, first);
        } else if (way == 1) {
            add_tiles(T, 1, b, at, 64, t, n_groups, first);
        }
        for (int i = 0; i < T * R; i++) {
            int u = i / R, m = i % R;
            int64_t tokens_left = n_t - u * N_TILE, rows_left = n_r - m * N_TILE;
            tokens_left = tokens_left < N_TILE ? tokens_left : N_TILE;
            float *part = y + u * N_TILE * ldy + m * N_TILE;
            if (way == 0) {
                copy_sums(at[u][m], N_TILE, part, ldy, tokens_left, rows_left);
            } else {
                copy_sums(part, ldy, at[u][m], N_TILE, tokens_left, rows_left);
            }
        }
    }
}

/* The sums of all of a block's tokens and n_r rows (up to 32) from y on. */
static void add_rows(tiles *b, float *y, int64_t ldy, int64_t n_r, int64_t n, int64_t n_groups,
                     bool first) {
    for (int64_t t = 0; t < n; t += 2 * N_TILE) {
        float *p = y + t * ldy;
        if (n - t < 2 * N_TILE || n_r < 2 * N_TILE) {
            add_partial(b, p, ldy, t, n - t < 2 * N_TILE ? n - t : 2 * N_TILE, n_r, n_groups,
                        first);
            continue;
        }
        float *at[2][2] = {{p, p + N_TILE}, {p + N_TILE * ldy, p + N_TILE * ldy + N_TILE}};
        add_tiles(2, 2, b, at, (size_t)ldy * sizeof(float), t, n_groups, first);
    }
}

INLINE void mm_tiles(strip_traits k, size_t strip_bytes, float *y, int64_t ldy, const du_mat *w,
                     int64_t row0, int64_t row1, const du_acts *x, const int32_t *i_row,
                     int64_t n_rows) {
    tiles b;
    size_t codes_at = du_strip_codes_at(k.scales, k.block, w->cols);
    _tile_loadconfig(&amx_tiles);
    for (int64_t t0 = 0; t0 < n_rows; t0 += T_BLOCK) {
        int64_t n = n_rows - t0 < T_BLOCK ? n_rows - t0 : T_BLOCK;
        for (int64_t c = 0; c < w->cols; c += K_BLOCK) {
            int64_t n_groups = w->cols - c < K_BLOCK ? (w->cols - c) / 32 : K_BLOCK / 32;
            fill_x(&b, x, i_row, t0, n, c, n_groups);
            for (int64_t r = row0; r < row1; r += 2 * N_TILE) {
                int64_t n_r = row1 - r < 2 * N_TILE ? row1 - r : 2 * N_TILE;
                for (int m = 0; m * N_TILE < n_r; m++) {
                    const uint8_t *at =
                        w->strips->data + (size_t)(r / DU_STRIP_ROWS + m) * strip_bytes;
                    for (int64_t g = 0; g < n_groups; g++) {
                        unpack_group(k, b.w[m][g], (strip){at, at + codes_at}, c / 32 + g);
                    }
                }
                add_rows(&b, y + t0 * ldy + r, ldy, n_r, n, n_groups, c == 0);
            }
        }
    }
    _tile_release();
}

#define TILES(suffix, name, bits, offset, levels, scales, factor)                                  \
    static void mm_tiles_##name(float *y, int64_t ldy, const du_mat *w, int64_t row0,              \
                                int64_t row1, const du_acts *x, const int32_t *i_row,              \
                                int64_t n_rows) {                                                  \
        if (x->h && n_rows >= N_TILE_TOKENS) {                                                     \
            mm_tiles(STRIP_TRAITS(name, bits, offset, levels, scales, factor),                     \
                     du_strip_bytes(DU_##suffix, w->cols), y, ldy, w, row0, row1, x, i_row,        \
                     n_rows);                                                                      \
        } else {                                                                                   \
            mm_##name(y, ldy, w, row0, row1, x, i_row, n_rows);                                    \
        }                                                                                          \
    }
DU_STRIPS_LIST(TILES)
#undef TILES

void du_kern_fill_mm_strips_amx_avx512(du_kern *k) {
#define FILL(suffix, name, bits, offset, levels, scales, factor)                                   \
    k->mm_strips[DU_##suffix] = mm_tiles_##name;
    DU_STRIPS_LIST(FILL)
#undef FILL
    k->n_bf16 = N_TILE_TOKENS;
}
