/* Products with block-quantised weights on AVX-512 with VNNI.
 *
 * Every way of computing y[t,r] gives the same bits, since each does the same roundings in the same
 * order. With g a group of 32 columns and D[g] its integer dot product (sub-scales included,
 * exact):
 *
 *   acc[p] = sum over g = p, p + 8, p + 16, ... of
 *            D[g] * (scale[g] * d[g]) - min[g] * (d[g] * sum[g])
 *   y      = ((acc0 + acc4) + (acc2 + acc6)) + ((acc1 + acc5) + (acc3 + acc7))
 *
 * one fused multiply-add per term. Two ways are used:
 *
 *  - pairs: two rows with one token. 256 columns at a time stand in four registers; VNNI leaves
 *    sums of four columns, which shuffles and adds bring to one lane per group, so that the lanes
 *    are the accumulators acc[0..7]. Streams weights: for few tokens.
 *
 *  - tiles: 32 rows with many tokens. The weights are unpacked once and transposed, so that a
 *    register holds four columns of 16 rows and VNNI sums whole groups without shuffles; the lanes
 *    are rows, four columns of a token are broadcast for two registers of weights. Phases p are
 *    taken one after the other over N_SUPER * 256 columns, their accumulators kept in memory
 *    between. */
#include "kern/cpu/blocks_avx512.h"
#include "kern/cpu/fill.h"
#include "kern/cpu/super.h"
#include "kern/cpu/transpose_avx512.h"

typedef void load_fn(du_wide *w, const uint8_t *p);

/* What the compiler specialises every function on. */
typedef struct {
    load_fn *load;
    int64_t block; /* columns per block: 32 or 256 */
    size_t block_bytes;
    int offset; /* as in DU_WIDE_LIST */
    int has_sub, min;
} traits;

enum {
    PREFETCH_BYTES = 4096, /* how far ahead of the weights in use the next are asked for */
    N_PAIR_TOKENS = 2,     /* up to so many tokens pairs are faster than tiles */
    N_TOKENS = 64,         /* tokens of a tile */
    N_QUAD = 4,            /* tokens computed together */
    N_SUPER = 2,           /* groups of 256 columns unpacked together */
};

/* Loads n_groups (1 .. 8) groups of 32 columns at p. Missing ones have the scale 0; in their place
 * bytes up to `end`, where the matrix ends, are read but not used. */
INLINE void load_super(traits k, du_wide *w, const uint8_t *p, const uint8_t *end,
                       int64_t n_groups) {
    uint8_t copy[SUPER_COPY_BYTES];
    if (k.block == 256) {
        k.load(w, p);
        return;
    }
    k.load(w, super_readable(copy, p, end, k.block_bytes, n_groups));
    __mmask16 some = (__mmask16)(((1u << n_groups) - 1) * 0x101);
    w->scales = _mm512_maskz_mov_ps(some, w->scales);
}

/* ---- pairs ------------------------------------------------------------------------------- */

/* 256 columns of a token. */
typedef struct {
    __m512i q[4];
    __m256 d, d_sum;  /* d[g], d[g] * sum[g] */
    __m256i sum;      /* 16 sums of 16 */
    __m512i offset16; /* offset * sum of 16, in the order of du_wide.sub */
    __m256i offset32; /* offset * sum of 32 */
} token;

INLINE void load_token(traits k, token *t, const int8_t *q, const float *d, const int16_t *sum,
                       int64_t n_groups) {
    __mmask8 m8 = (__mmask8)((1u << n_groups) - 1);
    __mmask16 m16 = (__mmask16)((1u << 2 * n_groups) - 1);
    UNROLL
    for (int j = 0; j < 4; j++) {
        __mmask64 m = n_groups >= 2 * j + 2 ? ~0ull : n_groups == 2 * j + 1 ? 0xffffffffull : 0;
        t->q[j] = _mm512_maskz_loadu_epi8(m, q + 64 * j);
    }
    t->d = _mm256_maskz_loadu_ps(m8, d);
    t->sum = _mm256_maskz_loadu_epi16(m16, sum);
    __m256i sum32 = _mm256_madd_epi16(t->sum, _mm256_set1_epi16(1));
    t->d_sum = _mm256_mul_ps(_mm256_cvtepi32_ps(sum32), t->d);
    t->offset32 = _mm256_mullo_epi32(sum32, _mm256_set1_epi32(k.offset));
    __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    __m512i sum16 = _mm512_permutexvar_epi32(order, _mm512_cvtepi16_epi32(t->sum));
    t->offset16 = _mm512_mullo_epi32(sum16, _mm512_set1_epi32(k.offset));
}

/* Sums of 16 columns of four registers of sums of 4: that of columns 16*(4*j + l) .. in lane
 * 4*l + j. */
INLINE __m512i sum_16(const __m512i v[4]) {
    __m512i a =
        _mm512_add_epi32(_mm512_unpacklo_epi32(v[0], v[1]), _mm512_unpackhi_epi32(v[0], v[1]));
    __m512i b =
        _mm512_add_epi32(_mm512_unpacklo_epi32(v[2], v[3]), _mm512_unpackhi_epi32(v[2], v[3]));
    return _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
}

/* Integer dot products per 16 columns, sub-scales and their offsets applied. */
INLINE __m512i dot_16(traits k, const du_wide *w, const token *t) {
    __m512i v[4];
    UNROLL
    for (int j = 0; j < 4; j++) {
        v[j] = _mm512_dpbusd_epi32(_mm512_setzero_si512(), w->q[j], t->q[j]);
    }
    __m512i dot = sum_16(v);
    if (k.has_sub) {
        if (k.offset) {
            dot = _mm512_sub_epi32(dot, t->offset16);
        }
        dot = _mm512_mullo_epi32(dot, w->sub);
    }
    return dot;
}

INLINE __m512 join(__m256 lo, __m256 hi) {
    return _mm512_insertf32x8(_mm512_castps256_ps512(lo), hi, 1);
}

/* The same eight floats in both halves. */
INLINE __m512 twice(__m256 v) {
    return _mm512_insertf32x8(_mm512_castps256_ps512(v), v, 1);
}

/* acc += 256 columns of row w[0] in lanes 0-7 and of row w[1] in lanes 8-15 */
INLINE __m512 add_pair(traits k, __m512 acc, const du_wide w[2], const token *t) {
    __m512i even = _mm512_setr_epi32(0, 8, 1, 9, 2, 10, 3, 11, 16, 24, 17, 25, 18, 26, 19, 27);
    __m512i odd = _mm512_setr_epi32(4, 12, 5, 13, 6, 14, 7, 15, 20, 28, 21, 29, 22, 30, 23, 31);
    __m512i a = dot_16(k, &w[0], t), b = dot_16(k, &w[1], t);
    __m512i dot = _mm512_add_epi32(_mm512_permutex2var_epi32(a, even, b),
                                   _mm512_permutex2var_epi32(a, odd, b));
    if (k.offset && !k.has_sub) {
        dot = _mm512_sub_epi32(dot, _mm512_broadcast_i64x4(t->offset32));
    }
    __m512 scale = k.has_sub ? join(_mm256_set1_ps(w[0].d), _mm256_set1_ps(w[1].d))
                             : _mm512_shuffle_f32x4(w[0].scales, w[1].scales, 0x44);
    scale = _mm512_mul_ps(scale, twice(t->d));
    acc = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), scale, acc);
    if (k.min == 1) {
        __m512 min = _mm512_shuffle_f32x4(w[0].scales, w[1].scales, 0xee);
        acc = _mm512_fnmadd_ps(min, twice(t->d_sum), acc);
    }
    if (k.min == 2) {
        __m512i min =
            _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_madd_epi16(w[0].min16, t->sum)),
                               _mm256_madd_epi16(w[1].min16, t->sum), 1);
        __m512 dmin = join(_mm256_set1_ps(w[0].dmin), _mm256_set1_ps(w[1].dmin));
        dmin = _mm512_mul_ps(dmin, twice(t->d));
        acc = _mm512_fnmadd_ps(_mm512_cvtepi32_ps(min), dmin, acc);
    }
    return acc;
}

/* The sum over lanes of each half: the last line of the formula above. */
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

/* y[i] = row p[i] times row t of x, i < 2 */
INLINE void mm_pair(traits k, float y[2], const uint8_t *p0, const uint8_t *p1, const uint8_t *end,
                    const du_acts *x, int64_t t) {
    __m512 acc = _mm512_setzero_ps();
    for (int64_t c = 0; c < x->cols; c += 256) {
        int64_t n = x->cols - c < 256 ? (x->cols - c) / 32 : 8, at = t * x->cols + c;
        du_wide w[2];
        token v;
        prefetch(p0, super_bytes(k.block, k.block_bytes));
        prefetch(p1, super_bytes(k.block, k.block_bytes));
        load_super(k, &w[0], p0, end, n);
        load_super(k, &w[1], p1, end, n);
        load_token(k, &v, x->q + at, x->d + at / 32, x->sum + at / 16, n);
        acc = add_pair(k, acc, w, &v);
        p0 += super_bytes(k.block, k.block_bytes);
        p1 += super_bytes(k.block, k.block_bytes);
    }
    y[0] = sum_lanes(_mm512_castps512_ps256(acc));
    y[1] = sum_lanes(_mm512_extractf32x8_ps(acc, 1));
}

INLINE void mm_pairs(traits k, float *y, int64_t ldy, const du_mat *w, int64_t row0, int64_t row1,
                     const du_acts *x, const int32_t *i_row, int64_t n_rows) {
    const uint8_t *end = super_end(w, k.block, k.block_bytes);
    for (int64_t r = row0; r < row1; r += 2) {
        int64_t r1 = r + 1 < row1 ? r + 1 : r; /* the last of an odd number: twice the same */
        for (int64_t i = 0; i < n_rows; i++) {
            float out[2];
            mm_pair(k, out, du_mat_row(w, r), du_mat_row(w, r1), end, x, i_row ? i_row[i] : i);
            y[i * ldy + r] = out[0];
            y[i * ldy + r1] = out[r1 - r];
        }
    }
}

/* ---- tiles ------------------------------------------------------------------------------- */

/* 16 rows by N_SUPER * 256 columns of weights, rows in lanes; g counts groups of 32. */
typedef struct {
    __m512i q[N_SUPER * 64];    /* [columns / 4] */
    __m512 scale[N_SUPER * 8];  /* [g]; with sub-scales [g/8] */
    __m512 min[N_SUPER * 8];    /* [g]; Q2_K [g/8] */
    __m512i sub[N_SUPER * 16];  /* [columns / 16] */
    __m512i min16[N_SUPER * 8]; /* [g]: pairs of i16 */
} tile;

/* The tokens of a tile and, for the columns of a tile, what they need beside q; tokens beyond the
 * last, up to a multiple of N_QUAD, are the last again. */
typedef struct {
    const int8_t *q[N_TOKENS];
    const float *d[N_TOKENS];
    const int16_t *sum[N_TOKENS];
    __m512 d_part[N_TOKENS][N_SUPER / 2]; /* d[g] */
    __m512 d_sum[N_TOKENS][N_SUPER / 2];  /* d[g] * sum[g] */
    __m512i offset[N_TOKENS][N_SUPER];    /* -offset * sum, per 32 or (with sub-scales) per 16 */
    __m512i sums[N_TOKENS][N_SUPER / 2];  /* pairs of i16: sums of 16 */
    __m512 acc[N_TOKENS][8][2];           /* phases; two blocks of 16 rows */
} tokens;

/* Called, since 64 shuffles for every use of every type would be much code. */
static __attribute__((noinline)) void transpose(__m512i v[16]) {
    transpose_16(v);
}

/* Unpacks 256 columns of 16 rows into place u of the tile. */
INLINE void fill_super(traits k, tile *b, int u, const uint8_t *const rows[16], size_t at,
                       const uint8_t *end, int64_t n_groups) {
    __m512i q[4][16], scales[16], sub[16], min16[16];
    float d[16], dmin[16];
    for (int r = 0; r < 16; r++) {
        du_wide w;
        load_super(k, &w, rows[r] + at, end, n_groups);
        UNROLL
        for (int j = 0; j < 4; j++) {
            q[j][r] = w.q[j];
        }
        if (k.has_sub) {
            sub[r] = w.sub;
            d[r] = w.d;
        } else {
            scales[r] = _mm512_castps_si512(w.scales);
        }
        if (k.min == 2) {
            dmin[r] = w.dmin;
            min16[r] = _mm512_castsi256_si512(w.min16);
        }
    }
    for (int j = 0; j < 4; j++) {
        transpose(q[j]);
        memcpy(b->q + 64 * u + 16 * j, q[j], sizeof q[j]);
    }
    if (k.has_sub) {
        transpose(sub);
        for (int i = 0; i < 16; i++) {
            b->sub[16 * u + 4 * (i % 4) + i / 4] = sub[i];
        }
        b->scale[u] = _mm512_loadu_ps(d);
    } else {
        transpose(scales);
        memcpy(b->scale + 8 * u, scales, 8 * sizeof *scales);
        if (k.min == 1) {
            memcpy(b->min + 8 * u, scales + 8, 8 * sizeof *scales);
        }
    }
    if (k.min == 2) {
        transpose(min16);
        memcpy(b->min16 + 8 * u, min16, 8 * sizeof *min16);
        b->min[u] = _mm512_loadu_ps(dmin);
    }
}

/* Columns [c, c + 32 * n_groups) of n tokens. */
INLINE void fill_tokens(traits k, tokens *x, int64_t n, int64_t c, int64_t n_groups) {
    __m512i minus_offset = _mm512_set1_epi32(-k.offset);
    for (int64_t t = 0; t < n; t++) {
        for (int64_t g = 0; g < n_groups; g += 16) {
            __mmask16 some = (__mmask16)(n_groups - g < 16 ? (1u << (n_groups - g)) - 1 : 0xffff);
            __m512i sums = _mm512_maskz_loadu_epi32(some, x->sum[t] + c / 16 + 2 * g);
            __m512i sum32 = _mm512_madd_epi16(sums, _mm512_set1_epi16(1));
            __m512 d = _mm512_maskz_loadu_ps(some, x->d[t] + c / 32 + g);
            x->d_part[t][g / 16] = d;
            x->d_sum[t][g / 16] = _mm512_mul_ps(_mm512_cvtepi32_ps(sum32), d);
            x->sums[t][g / 16] = sums;
            if (k.has_sub) {
                __m512i lo = _mm512_cvtepi16_epi32(_mm512_castsi512_si256(sums));
                __m512i hi = _mm512_cvtepi16_epi32(_mm512_extracti64x4_epi64(sums, 1));
                x->offset[t][g / 8] = _mm512_mullo_epi32(lo, minus_offset);
                x->offset[t][g / 8 + 1] = _mm512_mullo_epi32(hi, minus_offset);
            } else {
                x->offset[t][g / 16] = _mm512_mullo_epi32(sum32, minus_offset);
            }
        }
    }
}

INLINE __m512i load_4(const void *p) {
    return _mm512_set1_epi32((int)du_load_u32(p));
}

/* Integer dot products of group g (of the tile) of B blocks of 16 rows with N_QUAD tokens. */
INLINE void dot_group(traits k, int B, __m512i dot[N_QUAD][2], const tile *b, const tokens *x,
                      int64_t t0, const int8_t *const q[N_QUAD], int64_t g) {
    for (int h = 0; h < (k.has_sub ? 2 : 1); h++) {
        __m512i part[N_QUAD][2];
        int n_quads = k.has_sub ? 4 : 8;
        UNROLL
        for (int i = 0; i < N_QUAD; i++) {
            const int32_t *offset = (const int32_t *)x->offset[t0 + i];
            __m512i start = k.offset ? _mm512_set1_epi32(offset[k.has_sub ? 2 * g + h : g])
                                     : _mm512_setzero_si512();
            part[i][0] = part[i][1] = start;
        }
        UNROLL
        for (int j = 0; j < n_quads; j++) {
            int64_t at = 8 * g + 4 * h + j;
            UNROLL
            for (int i = 0; i < N_QUAD; i++) {
                __m512i v = load_4(q[i] + 4 * at);
                UNROLL
                for (int m = 0; m < B; m++) {
                    part[i][m] = _mm512_dpbusd_epi32(part[i][m], b[m].q[at], v);
                }
            }
        }
        UNROLL
        for (int i = 0; i < N_QUAD; i++) {
            UNROLL
            for (int m = 0; m < B; m++) {
                if (k.has_sub) {
                    part[i][m] = _mm512_mullo_epi32(part[i][m], b[m].sub[2 * g + h]);
                }
                dot[i][m] = h ? _mm512_add_epi32(dot[i][m], part[i][m]) : part[i][m];
            }
        }
    }
}

/* acc += group g, of one block of rows and one token */
INLINE __m512 add_group(traits k, __m512 acc, __m512i dot, const tile *b, const tokens *x,
                        int64_t t, int64_t g) {
    __m512 d = _mm512_set1_ps(((const float *)x->d_part[t])[g]);
    __m512 scale = _mm512_mul_ps(b->scale[k.has_sub ? g / 8 : g], d);
    acc = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), scale, acc);
    if (k.min == 1) {
        __m512 d_sum = _mm512_set1_ps(((const float *)x->d_sum[t])[g]);
        acc = _mm512_fnmadd_ps(b->min[g], d_sum, acc);
    }
    if (k.min == 2) {
        __m512i sums = load_4((const char *)x->sums[t] + 4 * g);
        __m512i min = _mm512_madd_epi16(b->min16[g], sums);
        acc = _mm512_fnmadd_ps(_mm512_cvtepi32_ps(min), _mm512_mul_ps(b->min[g / 8], d), acc);
    }
    return acc;
}

/* Adds the groups p, p + 8, ... of the tile to the accumulators of N_QUAD tokens from t0 on. */
INLINE void add_phase(traits k, int B, const tile *b, tokens *x, int64_t t0, int64_t c, int p,
                      int64_t n_groups) {
    __m512 acc[N_QUAD][2];
    const int8_t *q[N_QUAD];
    UNROLL
    for (int i = 0; i < N_QUAD; i++) {
        q[i] = x->q[t0 + i] + c;
        UNROLL
        for (int m = 0; m < B; m++) {
            acc[i][m] = c > 0 ? x->acc[t0 + i][p][m] : _mm512_setzero_ps();
        }
    }
    for (int64_t g = p; g < n_groups; g += 8) {
        __m512i dot[N_QUAD][2];
        dot_group(k, B, dot, b, x, t0, q, g);
        UNROLL
        for (int i = 0; i < N_QUAD; i++) {
            UNROLL
            for (int m = 0; m < B; m++) {
                acc[i][m] = add_group(k, acc[i][m], dot[i][m], &b[m], x, t0 + i, g);
            }
        }
    }
    UNROLL
    for (int i = 0; i < N_QUAD; i++) {
        UNROLL
        for (int m = 0; m < B; m++) {
            x->acc[t0 + i][p][m] = acc[i][m];
        }
    }
}

/* The last line of the formula at the top. */
INLINE __m512 sum_phases(const tokens *x, int64_t t, int m) {
    __m512 a04 = _mm512_add_ps(x->acc[t][0][m], x->acc[t][4][m]);
    __m512 a15 = _mm512_add_ps(x->acc[t][1][m], x->acc[t][5][m]);
    __m512 a26 = _mm512_add_ps(x->acc[t][2][m], x->acc[t][6][m]);
    __m512 a37 = _mm512_add_ps(x->acc[t][3][m], x->acc[t][7][m]);
    return _mm512_add_ps(_mm512_add_ps(a04, a26), _mm512_add_ps(a15, a37));
}

/* y[t, 0 .. n_r) of n tokens and up to 32 rows */
INLINE void mm_tile(traits k, float *y, int64_t ldy, const uint8_t *const rows[32], int n_r,
                    const uint8_t *end, tokens *x, int64_t n, int64_t cols) {
    tile b[2];
    int n_block = n_r > 16 ? 2 : 1;
    int64_t n_filled = (n + N_QUAD - 1) / N_QUAD * N_QUAD;
    for (int64_t c = 0; c < cols; c += N_SUPER * 256) {
        int64_t n_groups = (cols - c) / 32 < 8 * N_SUPER ? (cols - c) / 32 : 8 * N_SUPER;
        for (int64_t g = 0; g < n_groups; g += 8) {
            size_t at = (size_t)(c / 32 + g) / 8 * super_bytes(k.block, k.block_bytes);
            int64_t n_super = n_groups - g < 8 ? n_groups - g : 8;
            for (int m = 0; m < n_block; m++) {
                fill_super(k, &b[m], (int)(g / 8), rows + 16 * m, at, end, n_super);
            }
        }
        fill_tokens(k, x, n_filled, c, n_groups);
        for (int64_t t = 0; t < n; t += N_QUAD) {
            for (int p = 0; p < 8; p++) {
                if (n_block == 2) {
                    add_phase(k, 2, b, x, t, c, p, n_groups);
                } else {
                    add_phase(k, 1, b, x, t, c, p, n_groups);
                }
            }
        }
    }
    for (int m = 0; m < n_block; m++) {
        int left = n_r - 16 * m;
        __mmask16 some = (__mmask16)(left < 16 ? (1u << left) - 1 : 0xffff);
        for (int64_t t = 0; t < n; t++) {
            _mm512_mask_storeu_ps(y + t * ldy + 16 * m, some, sum_phases(x, t, m));
        }
    }
}

INLINE void mm_tiles(traits k, float *y, int64_t ldy, const du_mat *w, int64_t row0, int64_t row1,
                     const du_acts *x, const int32_t *i_row, int64_t n_rows) {
    tokens chosen;
    for (int64_t t0 = 0; t0 < n_rows; t0 += N_TOKENS) {
        int64_t n = n_rows - t0 < N_TOKENS ? n_rows - t0 : N_TOKENS;
        for (int64_t i = 0; i < (n + N_QUAD - 1) / N_QUAD * N_QUAD; i++) {
            int64_t row = t0 + (i < n ? i : n - 1), at = (i_row ? i_row[row] : row) * x->cols;
            chosen.q[i] = x->q + at;
            chosen.d[i] = x->d + at / 32;
            chosen.sum[i] = x->sum + at / 16;
        }
        for (int64_t r = row0; r < row1; r += 32) {
            int n_r = row1 - r < 32 ? (int)(row1 - r) : 32;
            const uint8_t *rows[32];
            for (int i = 0; i < 32; i++) { /* those beyond n_r: the first again */
                rows[i] = du_mat_row(w, i < n_r ? r + i : r);
            }
            mm_tile(k, y + t0 * ldy + r, ldy, rows, n_r, super_end(w, k.block, k.block_bytes),
                    &chosen, n, x->cols);
        }
    }
}

/* ---- one entry per type -------------------------------------------------------------------- */

#define MM(suffix, name, offset, has_sub, min)                                                     \
    static void mm_##name(float *y, int64_t ldy, const du_mat *w, int64_t row0, int64_t row1,      \
                          const du_acts *x, const int32_t *i_row, int64_t n_rows) {                \
        const size_t bytes = sizeof(du_block_##name);                                              \
        const traits k = {                                                                         \
            du_wide_load_##name, bytes > 34 ? 256 : 32, bytes, offset, has_sub, min};              \
        if (n_rows <= N_PAIR_TOKENS || row1 - row0 < 8) {                                          \
            mm_pairs(k, y, ldy, w, row0, row1, x, i_row, n_rows);                                  \
        } else {                                                                                   \
            mm_tiles(k, y, ldy, w, row0, row1, x, i_row, n_rows);                                  \
        }                                                                                          \
    }
DU_WIDE_LIST(MM)
#undef MM

void du_kern_fill_mm_block_avx512(du_kern *k) {
#define FILL(suffix, name, offset, has_sub, min) k->mm[DU_##suffix] = mm_##name;
    DU_WIDE_LIST(FILL)
#undef FILL
}
