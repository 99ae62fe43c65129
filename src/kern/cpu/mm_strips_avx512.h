/* Products with strips (kern/strips.h) on AVX-512 with VNNI.
 *
 * Lanes are rows. Per group of 32 columns the codes of 32 rows stand in 16 registers; four columns
 * of a token are broadcast for each pair of them. The sums of groups g, g + 8, ... of a row and
 * token have an accumulator each, added at the end: the same roundings in the same order as in
 * mm_block_avx512.c, hence the same bits. */
#include <string.h>

#include "kern/cpu/fill.h"
#include "kern/cpu/strips_avx512.h"

enum {
    N_TOKENS = 32,         /* tokens of a tile */
    N_QUAD = 4,            /* tokens computed side by side */
    N_STREAM = 16,         /* for up to so many tokens memory is the limit */
    PREFETCH_BYTES = 1792, /* how far ahead of the codes in use the next are asked for */
};

/* The tokens of a tile and, for eight groups of columns, what they need beside q and d. */
typedef struct {
    const int8_t *q[N_TOKENS];
    const float *d[N_TOKENS];
    const int16_t *sum[N_TOKENS];
    float d_sum[N_TOKENS][8];    /* d[g] * sum[g] */
    int32_t start[N_TOKENS][16]; /* -offset * sum, per 32 or (with sub-scales) per 16 */
    __m512 acc[N_TOKENS][9][2];  /* phases, two strips; one more keeps rows 4 KiB apart */
} tokens;

/* Columns [c, c + 32 * n_groups) of n tokens. */
INLINE void fill_tokens(strip_traits k, tokens *x, int64_t n, int64_t c, int64_t n_groups) {
    __mmask8 m8 = (__mmask8)((1u << n_groups) - 1);
    __mmask16 m16 = (__mmask16)((1u << 2 * n_groups) - 1);
    if (!k.offset && !strip_has_mins(k)) {
        return;
    }
    for (int64_t t = 0; t < n; t++) {
        __m256i sums = _mm256_maskz_loadu_epi16(m16, x->sum[t] + c / 16);
        __m256i sum32 = _mm256_madd_epi16(sums, _mm256_set1_epi16(1));
        if (strip_has_mins(k)) {
            __m256 d = _mm256_maskz_loadu_ps(m8, x->d[t] + c / 32);
            _mm256_storeu_ps(x->d_sum[t], _mm256_mul_ps(_mm256_cvtepi32_ps(sum32), d));
        } else if (strip_has_sub(k)) {
            __m512i v =
                _mm512_mullo_epi32(_mm512_cvtepi16_epi32(sums), _mm512_set1_epi32(-k.offset));
            _mm512_storeu_si512(x->start[t], v);
        } else {
            _mm256_storeu_si256((__m256i *)x->start[t],
                                _mm256_mullo_epi32(sum32, _mm256_set1_epi32(-k.offset)));
        }
    }
}

INLINE __m512i load_4(const void *p) {
    return _mm512_set1_epi32((int)du_load_u32(p));
}

/* The dot product of a group from that of its h-th half, or of the whole when there are no
 * sub-scales; exact: both halves together stay below 2^24. */
INLINE __m512 add_half(strip_traits k, __m512 dot, __m512i part, const strip_group *w, int h) {
    __m512 v = _mm512_cvtepi32_ps(part);
    return !strip_has_sub(k) ? v
           : h == 0          ? _mm512_mul_ps(v, w->sub[0])
                             : _mm512_fmadd_ps(v, w->sub[1], dot);
}

/* Dot products of a group of R strips with N tokens, sub-scales included, the chains of sums side
 * by side. */
INLINE void dot_group(strip_traits k, int R, int N, __m512 dot[N_QUAD][2], const strip_group w[2],
                      const int8_t *const q[N_QUAD], const tokens *x, int64_t t, int64_t i) {
    const int halves = strip_has_sub(k) ? 2 : 1, n_quads = 8 / halves;
    UNROLL
    for (int h = 0; h < halves; h++) {
        __m512i part[N_QUAD][2];
        UNROLL
        for (int u = 0; u < N; u++) {
            part[u][0] = part[u][1] = k.offset ? _mm512_set1_epi32(x->start[t + u][halves * i + h])
                                               : _mm512_setzero_si512();
        }
        UNROLL
        for (int j = h * n_quads; j < (h + 1) * n_quads; j++) {
            UNROLL
            for (int u = 0; u < N; u++) {
                __m512i v = load_4(q[u] + 4 * j);
                UNROLL
                for (int m = 0; m < R; m++) {
                    part[u][m] = _mm512_dpbusd_epi32(part[u][m], w[m].q[j], v);
                }
            }
        }
        UNROLL
        for (int u = 0; u < N; u++) {
            UNROLL
            for (int m = 0; m < R; m++) {
                dot[u][m] = add_half(k, dot[u][m], part[u][m], &w[m], h);
            }
        }
    }
}

/* acc + a group of one strip and token */
INLINE __m512 add_group(strip_traits k, __m512 acc, __m512 dot, const strip_group *w,
                        const float *d, const float *d_sum, const int16_t *sum) {
    __m512 vd = _mm512_set1_ps(*d);
    acc = _mm512_fmadd_ps(dot, _mm512_mul_ps(w->scale, vd), acc);
    if (strip_has_mins(k)) {
        acc = _mm512_fnmadd_ps(w->min, _mm512_set1_ps(*d_sum), acc);
    }
    if (k.scales == DU_SCALES_N_16) {
        __m512i min = _mm512_madd_epi16(w->min16, load_4(sum));
        acc = _mm512_fnmadd_ps(_mm512_cvtepi32_ps(min), _mm512_mul_ps(w->min, vd), acc);
    }
    return acc;
}

/* Adds group g, the i-th of its eight, of R strips to the accumulators of N tokens from t on. */
INLINE void add_tokens(strip_traits k, int R, int N, const strip_group w[2], tokens *x, int64_t t,
                       int64_t g, int64_t i) {
    __m512 dot[N_QUAD][2];
    const int8_t *q[N_QUAD];
    UNROLL
    for (int u = 0; u < N; u++) {
        q[u] = x->q[t + u] + 32 * g;
    }
    dot_group(k, R, N, dot, w, q, x, t, i);
    UNROLL
    for (int u = 0; u < N; u++) {
        UNROLL
        for (int m = 0; m < R; m++) {
            x->acc[t + u][i][m] =
                add_group(k, x->acc[t + u][i][m], dot[u][m], &w[m], x->d[t + u] + g,
                          &x->d_sum[t + u][i], x->sum[t + u] + 2 * g);
        }
    }
}

INLINE void load_group(strip_traits k, strip_group *w, strip s, int64_t g) {
    const int64_t per_unit = k.block / 32;
    load_codes(k, w->q, s.codes + (size_t)g * du_strip_code_bytes(k.bits));
    load_scales(k, w, s.scales + (size_t)(g / per_unit) * du_strip_scale_bytes(k.scales),
                g % per_unit);
}

/* Asks for what group g + AHEAD of a strip needs or, behind its last, for what the strip `next`
 * bytes on begins with. */
INLINE void prefetch_group(strip_traits k, strip s, int64_t g, int64_t n_all, size_t next) {
    const int64_t per_unit = k.block / 32;
    const size_t n = du_strip_code_bytes(k.bits), n_scale = du_strip_scale_bytes(k.scales);
    const int64_t ahead = (int64_t)(PREFETCH_BYTES / n) + 1;
    bool wraps = g + ahead >= n_all;
    size_t skip = wraps ? next : 0;
    g += wraps ? ahead - n_all : ahead;
    const uint8_t *codes = s.codes + skip + (size_t)g * n;
    UNROLL
    for (size_t i = 0; i < n; i += 64) {
        _mm_prefetch((const char *)codes + i, _MM_HINT_T0);
    }
    if (g % per_unit == 0) {
        const uint8_t *scales = s.scales + skip + (size_t)(g / per_unit) * n_scale;
        UNROLL
        for (size_t i = 0; i < n_scale; i += 64) {
            _mm_prefetch((const char *)scales + i, _MM_HINT_T0);
        }
    }
}

/* Adds groups [g0, g0 + n_groups) of n_all in R strips to the accumulators of n tokens. */
INLINE void add_groups(strip_traits k, int R, const strip s[2], tokens *x, int64_t n, int64_t g0,
                       int64_t n_groups, int64_t n_all, size_t next) {
    for (int64_t i = 0; i < n_groups; i++) {
        strip_group w[2];
        int64_t g = g0 + i;
        UNROLL
        for (int m = 0; m < R; m++) {
            load_group(k, &w[m], s[m], g);
            if (n <= N_STREAM) {
                prefetch_group(k, s[m], g, n_all, next);
            }
        }
        int64_t t = 0;
        for (; t + N_QUAD <= n; t += N_QUAD) {
            add_tokens(k, R, N_QUAD, w, x, t, g, i);
        }
        for (; t < n; t++) {
            add_tokens(k, R, 1, w, x, t, g, i);
        }
    }
}

INLINE __m512 sum_phases(__m512 acc[8][2], int m) {
    __m512 a04 = _mm512_add_ps(acc[0][m], acc[4][m]), a15 = _mm512_add_ps(acc[1][m], acc[5][m]);
    __m512 a26 = _mm512_add_ps(acc[2][m], acc[6][m]), a37 = _mm512_add_ps(acc[3][m], acc[7][m]);
    return _mm512_add_ps(_mm512_add_ps(a04, a26), _mm512_add_ps(a15, a37));
}

/* y[t*ldy + 0 .. n_r) for n tokens and the R strips from s on */
INLINE void mm_tile(strip_traits k, int R, float *y, int64_t ldy, int64_t n_r, const strip s[2],
                    tokens *x, int64_t n, int64_t cols, size_t next) {
    for (int64_t t = 0; t < n; t++) {
        memset(x->acc[t], 0, sizeof x->acc[t]);
    }
    for (int64_t g = 0; g < cols / 32; g += 8) {
        int64_t n_groups = cols / 32 - g < 8 ? cols / 32 - g : 8;
        fill_tokens(k, x, n, 32 * g, n_groups);
        add_groups(k, R, s, x, n, g, n_groups, cols / 32, next);
    }
    for (int m = 0; m < R; m++) {
        int64_t left = n_r - DU_STRIP_ROWS * m;
        __mmask16 some = (__mmask16)(left < 16 ? (1u << left) - 1 : 0xffff);
        for (int64_t t = 0; t < n; t++) {
            _mm512_mask_storeu_ps(y + t * ldy + DU_STRIP_ROWS * m, some, sum_phases(x->acc[t], m));
        }
    }
}

INLINE void mm(strip_traits k, size_t strip_bytes, float *y, int64_t ldy, const du_mat *w,
               int64_t row0, int64_t row1, const du_acts *x, const int32_t *i_row, int64_t n_rows) {
    tokens chosen;
    size_t codes_at = du_strip_codes_at(k.scales, k.block, w->cols);
    for (int64_t t0 = 0; t0 < n_rows; t0 += N_TOKENS) {
        int64_t n = n_rows - t0 < N_TOKENS ? n_rows - t0 : N_TOKENS;
        for (int64_t i = 0; i < n; i++) {
            int64_t at = (i_row ? i_row[t0 + i] : t0 + i) * x->cols;
            chosen.q[i] = x->q + at;
            chosen.d[i] = x->d + at / 32;
            chosen.sum[i] = x->sum + at / 16;
        }
        for (int64_t r = row0; r < row1; r += 2 * DU_STRIP_ROWS) {
            const uint8_t *at = w->strips->data + (size_t)(r / DU_STRIP_ROWS) * strip_bytes;
            strip s[2] = {{at, at + codes_at}, {at + strip_bytes, at + strip_bytes + codes_at}};
            size_t next = w->rows - r > 2 * DU_STRIP_ROWS ? 2 * strip_bytes : 0;
            if (row1 - r > DU_STRIP_ROWS) {
                mm_tile(k, 2, y + t0 * ldy + r, ldy, row1 - r, s, &chosen, n, w->cols, next);
            } else {
                mm_tile(k, 1, y + t0 * ldy + r, ldy, row1 - r, s, &chosen, n, w->cols, 0);
            }
        }
    }
}

DU_STRIPS_LIST(MM_STRIPS)
