/* Products with strips (kern/strips.h) on AVX2.
 *
 * Lanes are rows. Per group of 32 columns and token: products of bytes of the codes and four
 * columns, broadcast; their 16-bit sums are added over as many quads as cannot overflow (a chunk),
 * multiplied by ones or by the sub-scales and widened. Sums of signed weights are taken modulo 2^16
 * from codes raised by the offset: they start at -offset times the activations. A group's sum, an
 * exact integer, is scaled and added to the row's accumulator, groups ascending: the same roundings
 * in the same order for any number of tokens and rows, but others than in mm_block_avx2.c.
 *
 * Some columns of all tokens are brought into form for all strips of the call; with many tokens a
 * group's weights are unpacked once for them, a single one takes them from the planes as it goes.
 * Sums stand in y between blocks of columns. */
#include <string.h>

#include "kern/cpu/fill.h"
#include "kern/cpu/strips_load_avx2.h"

enum {
    N_TOKENS = 32,         /* tokens of a tile */
    N_GROUPS = 256,        /* groups of all tokens of a tile in form at a time */
    N_SIDE = 4,            /* tokens computed side by side */
    N_FEW = 4,             /* up to so many tokens memory is the limit */
    PREFETCH_BYTES = 3072, /* how far ahead of the codes in use the next are then asked for */
};

/* 32 columns of a token. */
typedef struct {
    _Alignas(64) int8_t q[32];
    int32_t start[4]; /* per chunk, two 16-bit sums of -offset * q */
    float d, d_sum;   /* d, d * sum of q */
    int32_t sum;      /* two 16-bit sums of 16 q */
} token_group;

typedef struct {
    token_group x[N_GROUPS];                    /* [group][token] */
    _Alignas(32) int16_t wide[N_GROUPS][2][16]; /* wide types: q of even columns, of odd ones */
    float acc[N_TOKENS][DU_STRIP_ROWS];         /* sums of a strip */
    strip_scales scales;                        /* of eight groups of a strip */
    _Alignas(32) uint8_t q[8][2][2][32];        /* quads of a group: octets; wide: even, odd */
} tile;

/* Quads of a chunk: each gives two products to a 16-bit sum. No weight exceeds the offset, which is
 * 64 at most, so that the two products of a code do not saturate. */
INLINE int chunk_quads(strip_traits k) {
    int n = 32767 / (2 * 127 * (k.offset ? k.offset : (1 << k.bits) - 1));
    return n >= 8 && !strip_has_sub(k) ? 8 : n >= 4 ? 4 : 2;
}

INLINE __m256i load_32(const void *p) {
    return _mm256_load_si256((const __m256i *)p);
}

/* v, here: without this, compilers make a tree of a chain of sums, which needs more registers. */
INLINE __m256i in_order(__m256i v) {
    __asm__("" : "+x"(v));
    return v;
}

/* What a token's 32 columns need beside q and d. */
INLINE void fill_start(strip_traits k, token_group *x, __m256i q) {
    const int n = chunk_quads(k);
    _Alignas(32) int32_t sums[8];
    __m256i v = _mm256_maddubs_epi16(_mm256_set1_epi8((char)k.offset), q);
    v = _mm256_sub_epi16(_mm256_setzero_si256(), v);
    v = _mm256_add_epi16(v, _mm256_shuffle_epi32(v, 0xb1));
    v = n >= 4 ? _mm256_add_epi16(v, _mm256_shuffle_epi32(v, 0x4e)) : v;
    v = n >= 8 ? _mm256_add_epi16(v, _mm256_permute4x64_epi64(v, 0x4e)) : v;
    _mm256_store_si256((__m256i *)sums, v);
    for (int i = 0; i < 8 / n; i++) {
        x->start[i] = sums[n * i];
    }
}

/* Groups [g, g + n_groups) of n tokens from t0 on. */
INLINE void fill_tokens(strip_traits k, tile *b, const du_acts *x, const int32_t *i_row, int64_t t0,
                        int64_t n, int64_t g, int64_t n_groups) {
    for (int64_t t = 0; t < n; t++) {
        int64_t first = (i_row ? i_row[t0 + t] : t0 + t) * (x->cols / 32) + g;
        for (int64_t i = 0; i < n_groups; i++) {
            token_group *to = &b->x[i * n + t];
            __m256i q = _mm256_loadu_si256((const __m256i *)(x->q + 32 * (first + i)));
            const int16_t *sum = x->sum + 2 * (first + i);
            to->d = x->d[first + i];
            if (strip_is_wide(k)) {
                _mm256_store_si256((__m256i *)b->wide[i * n + t][0], even_columns(q));
                _mm256_store_si256((__m256i *)b->wide[i * n + t][1], odd_columns(q));
                continue;
            }
            _mm256_store_si256((__m256i *)to->q, q);
            if (k.offset) {
                fill_start(k, to, q);
            }
            if (strip_has_mins(k)) {
                to->d_sum = (float)(sum[0] + sum[1]) * to->d;
            }
            if (k.scales == DU_SCALES_N_16) {
                memcpy(&to->sum, sum, sizeof to->sum);
            }
        }
    }
}

INLINE void unpack_group(strip_traits k, uint8_t to[8][2][2][32], const uint8_t *codes) {
    UNROLL
    for (int j = 0; j < 8; j++) {
        UNROLL
        for (int m = 0; m < 2; m++) {
            __m256i q = load_quad(k, codes, j, m);
            __m256i *at = (__m256i *)(void *)to[j][m];
            _mm256_store_si256(at, strip_is_wide(k) ? even_columns(q) : q);
            if (strip_is_wide(k)) {
                _mm256_store_si256(at + 1, odd_columns(q));
            }
        }
    }
}

/* Dot products of a group with N tokens of a type of wide weights; unpacked: whether from there. */
INLINE void dot_wide(strip_traits k, int unpacked, int N, __m256i dot[N_SIDE][2],
                     const uint8_t *codes, const tile *b, const int16_t (*x)[2][16]) {
    UNROLL
    for (int j = 0; j < 8; j++) {
        __m256i w[2][2];
        UNROLL
        for (int m = 0; m < 2; m++) {
            __m256i q = unpacked ? load_32(b->q[j][m][0]) : load_quad(k, codes, j, m);
            w[m][0] = unpacked ? q : even_columns(q);
            w[m][1] = unpacked ? load_32(b->q[j][m][1]) : odd_columns(q);
        }
        UNROLL
        for (int u = 0; u < N; u++) {
            UNROLL
            for (int i = 0; i < 2; i++) {
                __m256i v = _mm256_set1_epi32((int)du_load_u32(&x[u][i][2 * j]));
                UNROLL
                for (int m = 0; m < 2; m++) {
                    dot[u][m] =
                        in_order(_mm256_add_epi32(dot[u][m], _mm256_madd_epi16(w[m][i], v)));
                }
            }
        }
    }
}

/* Chunk c of dot_group. */
INLINE void dot_chunk(strip_traits k, int unpacked, int N, __m256i part[N_SIDE][2],
                      const uint8_t *codes, const tile *b, const token_group *x, int c) {
    const int n = chunk_quads(k);
    UNROLL
    for (int u = 0; u < N; u++) {
        part[u][0] = part[u][1] =
            k.offset ? _mm256_set1_epi32(x[u].start[c]) : _mm256_setzero_si256();
    }
    UNROLL
    for (int j = c * n; j < (c + 1) * n; j++) {
        __m256i w[2];
        UNROLL
        for (int m = 0; m < 2; m++) {
            w[m] = unpacked ? load_32(b->q[j][m][0]) : load_quad(k, codes, j, m);
        }
        UNROLL
        for (int u = 0; u < N; u++) {
            __m256i v = _mm256_set1_epi32((int)du_load_u32(x[u].q + 4 * j));
            UNROLL
            for (int m = 0; m < 2; m++) {
                part[u][m] = in_order(_mm256_add_epi16(part[u][m], _mm256_maddubs_epi16(w[m], v)));
            }
        }
    }
}

/* Dot products of a group, the i-th of its eight, with N tokens, sub-scales included. */
INLINE void dot_group(strip_traits k, int unpacked, int N, __m256i dot[N_SIDE][2],
                      const uint8_t *codes, const tile *b, const token_group *x, int64_t i) {
    const int n = chunk_quads(k);
    UNROLL
    for (int c = 0; c < 8; c++) {
        __m256i part[N_SIDE][2];
        if (c >= 8 / n) { /* not the loop's condition: one that runs once cannot be unrolled */
            continue;
        }
        dot_chunk(k, unpacked, N, part, codes, b, x, c);
        UNROLL
        for (int m = 0; m < 2; m++) {
            __m256i by = strip_has_sub(k) ? load_32(b->scales.sub[i][c * n / 4][8 * m])
                                          : _mm256_set1_epi16(1);
            UNROLL
            for (int u = 0; u < N; u++) {
                __m256i v = _mm256_madd_epi16(part[u][m], by);
                dot[u][m] = c == 0 ? v : _mm256_add_epi32(dot[u][m], v);
            }
        }
    }
}

/* acc + group i of octet m and a token */
INLINE __m256 add_group(strip_traits k, __m256 acc, __m256i dot, const strip_scales *w, int64_t i,
                        int m, const token_group *x) {
    __m256 v = _mm256_mul_ps(_mm256_cvtepi32_ps(dot), _mm256_load_ps(w->scale[i] + 8 * m));
    if (k.scales == DU_SCALES_N_16) {
        __m256i min = _mm256_madd_epi16(load_32(w->min16[i][8 * m]), _mm256_set1_epi32(x->sum));
        v = _mm256_fnmadd_ps(_mm256_cvtepi32_ps(min), _mm256_load_ps(w->min[i] + 8 * m), v);
    }
    acc = _mm256_fmadd_ps(v, _mm256_set1_ps(x->d), acc);
    if (strip_has_mins(k)) {
        acc = _mm256_fnmadd_ps(_mm256_load_ps(w->min[i] + 8 * m), _mm256_set1_ps(x->d_sum), acc);
    }
    return acc;
}

/* Adds group g of the block, the i-th of its eight, to the sums of N tokens from t on. */
INLINE void add_tokens(strip_traits k, int unpacked, int N, tile *b, const uint8_t *codes,
                       int64_t at, int64_t t, int64_t i) {
    __m256i dot[N_SIDE][2];
    const token_group *x = &b->x[at];
    if (strip_is_wide(k)) {
        UNROLL
        for (int u = 0; u < N; u++) {
            dot[u][0] = dot[u][1] = _mm256_setzero_si256();
        }
        dot_wide(k, unpacked, N, dot, codes, b, &b->wide[at]);
    } else {
        dot_group(k, unpacked, N, dot, codes, b, x, i);
    }
    UNROLL
    for (int u = 0; u < N; u++) {
        UNROLL
        for (int m = 0; m < 2; m++) {
            float *acc = b->acc[t + u] + 8 * m;
            _mm256_store_ps(acc,
                            add_group(k, _mm256_load_ps(acc), dot[u][m], &b->scales, i, m, x + u));
        }
    }
}

/* Adds n_groups groups of a strip, from its g-th on, which the block's columns begin with. */
INLINE void add_groups(strip_traits k, tile *b, strip s, int64_t n, int64_t g, int64_t n_groups,
                       size_t ahead) {
    const size_t n_bytes = du_strip_code_bytes(k.bits);
    for (int64_t j = 0; j < n_groups; j++) {
        const uint8_t *codes = s.codes + (size_t)(g + j) * n_bytes;
        if (j % 8 == 0) {
            load_scales(k, &b->scales, s.scales, g + j, n_groups - j < 8 ? n_groups - j : 8);
        }
        UNROLL
        for (size_t i = 0; i < n_bytes; i += 64) {
            _mm_prefetch((const char *)codes + ahead + i, _MM_HINT_T0);
        }
        if (n == 1) {
            add_tokens(k, 0, 1, b, codes, j, 0, j % 8);
            continue;
        }
        unpack_group(k, b->q, codes);
        int64_t t = 0;
        for (; t + N_SIDE <= n; t += N_SIDE) {
            add_tokens(k, 1, N_SIDE, b, codes, j * n + t, t, j % 8);
        }
        for (; t < n; t++) {
            add_tokens(k, 1, 1, b, codes, j * n + t, t, j % 8);
        }
    }
}

/* n_r sums of a token, between y and a strip's; all of them without a call. */
INLINE void copy_sums(float *to, const float *from, int64_t n_r) {
    if (n_r == DU_STRIP_ROWS) {
        memcpy(to, from, sizeof *to * DU_STRIP_ROWS);
    } else {
        memcpy(to, from, sizeof *to * (size_t)n_r);
    }
}

INLINE void mm(strip_traits k, size_t strip_bytes, float *y, int64_t ldy, const du_mat *w,
               int64_t row0, int64_t row1, const du_acts *x, const int32_t *i_row, int64_t n_rows) {
    tile b;
    const size_t codes_at = du_strip_codes_at(k.scales, k.block, w->cols);
    for (int64_t t0 = 0; t0 < n_rows; t0 += N_TOKENS) {
        const int64_t n = n_rows - t0 < N_TOKENS ? n_rows - t0 : N_TOKENS;
        const int64_t step = N_GROUPS / n / 8 * 8;
        for (int64_t g = 0; g < w->cols / 32; g += step) {
            int64_t n_groups = w->cols / 32 - g < step ? w->cols / 32 - g : step;
            fill_tokens(k, &b, x, i_row, t0, n, g, n_groups);
            for (int64_t r = row0; r < row1; r += DU_STRIP_ROWS) {
                const uint8_t *at = w->strips->data + (size_t)(r / DU_STRIP_ROWS) * strip_bytes;
                int64_t n_r = row1 - r < DU_STRIP_ROWS ? row1 - r : DU_STRIP_ROWS;
                for (int64_t t = 0; t < n; t++) {
                    if (g == 0) {
                        memset(b.acc[t], 0, sizeof b.acc[t]);
                    } else {
                        copy_sums(b.acc[t], y + (t0 + t) * ldy + r, n_r);
                    }
                }
                add_groups(k, &b, (strip){at, at + codes_at}, n, g, n_groups,
                           n <= N_FEW ? PREFETCH_BYTES : strip_bytes);
                for (int64_t t = 0; t < n; t++) {
                    copy_sums(y + (t0 + t) * ldy + r, b.acc[t], n_r);
                }
            }
        }
    }
}

DU_STRIPS_LIST(MM_STRIPS)

void du_kern_fill_mm_strips_avx2(du_kern *k) {
    DU_STRIPS_LIST(FILL_MM_STRIPS)
    k->strips_same_bits = false;
}
