/* Products with block-quantised weights on AVX2.
 *
 * 256 columns at a time; per group g of 32 columns one register of weights. The product
 * instructions of bytes take an unsigned and a signed one: signed weights give their magnitude and
 * leave their sign to the activation. Eight lanes of integer sums of four columns (times the
 * sub-scales of 16, exact) become floats and are added, times scale[g] * d[g], to the eight lanes
 * of y's accumulator, g ascending; minima are subtracted from the same lanes before, lane g for
 * group g. Every tile of rows and tokens does the same roundings in the same order.
 *
 * One token: two rows at a time, so that two chains of additions run side by side. More tokens: the
 * weights of a row are unpacked once for up to N_TILE tokens. */
#include "kern/cpu/blocks_avx2.h"
#include "kern/cpu/fill.h"
#include "kern/cpu/super.h"

typedef void load_fn(du_ymm *w, const uint8_t *p);

/* What the compiler specialises every function on. */
typedef struct {
    load_fn *load;
    int64_t block; /* columns per block: 32 or 256 */
    size_t block_bytes;
    int is_signed, has_sub, min; /* as in DU_YMM_LIST */
} traits;

enum {
    PREFETCH_BYTES = 4096, /* how far ahead of the weights in use the next are asked for */
    N_TILE = 8,
};

/* Loads n_groups (1 .. 8) groups of 32 columns at p. Missing ones have the scale 0; in their place
 * bytes up to `end`, where the matrix ends, are read but not used. */
INLINE void load_super(traits k, du_ymm *w, const uint8_t *p, const uint8_t *end,
                       int64_t n_groups) {
    uint8_t copy[SUPER_COPY_BYTES];
    if (k.block == 256) {
        k.load(w, p);
        return;
    }
    k.load(w, super_readable(copy, p, end, k.block_bytes, n_groups));
    __m256i g = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    __m256i some = _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n_groups), g);
    w->scale = _mm256_and_ps(w->scale, _mm256_castsi256_ps(some));
    if (k.min) {
        w->min = _mm256_and_ps(w->min, _mm256_castsi256_ps(some));
    }
}

/* acc - minima; sd [8] out: scale[g] * d[g] */
INLINE __m256 start_super(traits k, __m256 acc, float sd[8], const du_ymm *w, super_token t) {
    __m256 d = _mm256_loadu_ps(t.d);
    _mm256_storeu_ps(sd, _mm256_mul_ps(k.has_sub ? _mm256_set1_ps(w->d) : w->scale, d));
    if (k.min) {
        __m256i sum = _mm256_loadu_si256((const __m256i *)t.sum);
        __m256i by = k.min == 2 ? w->min16 : _mm256_set1_epi16(1);
        __m256 min = k.min == 2 ? _mm256_set1_ps(w->dmin) : w->min;
        __m256 sums = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_madd_epi16(sum, by)), d);
        acc = _mm256_fnmadd_ps(min, sums, acc);
    }
    return acc;
}

/* The sub-scales of group g: of its first 16 columns in the lower half, of the others above. */
INLINE __m256i sub_scales(const du_ymm *w, int g) {
    __m256i v =
        g < 4 ? _mm256_permute4x64_epi64(w->sub, 0x44) : _mm256_permute4x64_epi64(w->sub, 0xee);
    int a = 0x0100 + 0x0404 * (g % 4), b = a + 0x0202;
    return _mm256_shuffle_epi8(
        v, _mm256_set_m128i(_mm_set1_epi16((short)b), _mm_set1_epi16((short)a)));
}

/* Adds 256 columns of R rows times N tokens. */
INLINE void add_super(traits k, int R, int N, __m256 acc[2][N_TILE], const du_ymm *w,
                      const super_token *t) {
    float sd[2][N_TILE][8];
    UNROLL
    for (int r = 0; r < R; r++) {
        UNROLL
        for (int i = 0; i < N; i++) {
            acc[r][i] = start_super(k, acc[r][i], sd[r][i], &w[r], t[i]);
        }
    }
    UNROLL
    for (int g = 0; g < 8; g++) {
        UNROLL
        for (int r = 0; r < R; r++) {
            __m256i q = w[r].q[g], magnitude = k.is_signed ? _mm256_abs_epi8(q) : q;
            __m256i by = k.has_sub ? sub_scales(&w[r], g) : _mm256_set1_epi16(1);
            UNROLL
            for (int i = 0; i < N; i++) {
                __m256i x = _mm256_loadu_si256((const __m256i *)(t[i].q + 32 * g));
                x = k.is_signed ? _mm256_sign_epi8(x, q) : x;
                __m256i dot = _mm256_madd_epi16(_mm256_maddubs_epi16(magnitude, x), by);
                acc[r][i] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot),
                                            _mm256_broadcast_ss(&sd[r][i][g]), acc[r][i]);
            }
        }
    }
}

INLINE float sum_lanes(__m256 acc) {
    __m128 a = _mm_add_ps(_mm256_castps256_ps128(acc), _mm256_extractf128_ps(acc, 1));
    a = _mm_add_ps(a, _mm_movehl_ps(a, a));
    return _mm_cvtss_f32(_mm_add_ss(a, _mm_movehdup_ps(a)));
}

INLINE void prefetch(const uint8_t *p, size_t bytes) {
    for (size_t i = 0; i < bytes; i += 64) {
        _mm_prefetch((const char *)p + PREFETCH_BYTES + i, _MM_HINT_T0);
    }
}

/* out[r*N + i] for R rows from r0 on and N tokens */
INLINE void mm_tile(traits k, int R, int N, float *out, const du_mat *m, int64_t r0,
                    const tile_token *x) {
    __m256 acc[2][N_TILE];
    du_ymm w[2];
    const uint8_t *p = du_mat_row(m, r0);
    UNROLL
    for (int r = 0; r < R; r++) {
        UNROLL
        for (int i = 0; i < N; i++) {
            acc[r][i] = _mm256_setzero_ps();
        }
    }
    const uint8_t *end = super_end(m, k.block, k.block_bytes);
    size_t bytes = super_bytes(k.block, k.block_bytes);
    for (int64_t c = 0; c < m->cols; c += 256, p += bytes) {
        int64_t n = m->cols - c < 256 ? (m->cols - c) / 32 : 8;
        super_token at[N_TILE];
        UNROLL
        for (int r = 0; r < R; r++) {
            prefetch(p + (size_t)r * m->row_bytes, bytes);
            load_super(k, &w[r], p + (size_t)r * m->row_bytes, end, n);
        }
        UNROLL
        for (int i = 0; i < N; i++) {
            at[i] = tile_token_at(&x[i], c, n);
        }
        add_super(k, R, N, acc, w, at);
    }
    UNROLL
    for (int r = 0; r < R; r++) {
        UNROLL
        for (int i = 0; i < N; i++) {
            out[r * N + i] = sum_lanes(acc[r][i]);
        }
    }
}

/* y[i*ldy + r] for rows [row0, row1) and n tokens, 1 <= n <= N_TILE */
INLINE void mm_tokens(traits k, float *y, int64_t ldy, const du_mat *w, int64_t row0, int64_t row1,
                      const tile_token *x, int64_t n) {
    float out[N_TILE];
    int64_t r = row0;
    for (; n == 1 && r + 2 <= row1; r += 2) {
        mm_tile(k, 2, 1, y + r, w, r, x);
    }
    for (; r < row1; r++) {
        if (n > 4) {
            mm_tile(k, 1, N_TILE, out, w, r, x);
        } else {
            mm_tile(k, 1, 4, out, w, r, x);
        }
        for (int64_t i = 0; i < n; i++) {
            y[i * ldy + r] = out[i];
        }
    }
}

INLINE void mm(traits k, float *y, int64_t ldy, const du_mat *w, int64_t row0, int64_t row1,
               const du_acts *x, const int32_t *i_row, int64_t n_rows) {
    for (int64_t t0 = 0; t0 < n_rows; t0 += N_TILE) {
        tile_token chosen[N_TILE];
        int64_t n = n_rows - t0 < N_TILE ? n_rows - t0 : N_TILE;
        for (int i = 0; i < N_TILE; i++) { /* those beyond n: the last again */
            int64_t row = t0 + (i < n ? i : n - 1);
            tile_token_set(&chosen[i], x, i_row ? i_row[row] : row);
        }
        mm_tokens(k, y + t0 * ldy, ldy, w, row0, row1, chosen, n);
    }
}

#define MM(suffix, name, is_signed, has_sub, min)                                                  \
    static void mm_##name(float *y, int64_t ldy, const du_mat *w, int64_t row0, int64_t row1,      \
                          const du_acts *x, const int32_t *i_row, int64_t n_rows) {                \
        const size_t bytes = sizeof(du_block_##name);                                              \
        const traits k = {                                                                         \
            du_ymm_load_##name, bytes > 34 ? 256 : 32, bytes, is_signed, has_sub, min};            \
        mm(k, y, ldy, w, row0, row1, x, i_row, n_rows);                                            \
    }
DU_YMM_LIST(MM)
#undef MM

void du_kern_fill_mm_block_avx2(du_kern *k) {
#define FILL(suffix, name, is_signed, has_sub, min) k->mm[DU_##suffix] = mm_##name;
    DU_YMM_LIST(FILL)
#undef FILL
}
