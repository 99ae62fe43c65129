/* Attention in tiles, with AVX512-BF16: the forms of queries and cached rows, merging, and both
 * products by vdpbf16ps.
 *
 * Scores keep queries in lanes, 16 cached rows in accumulators, and take pairs of a row's values
 * from memory as broadcasts; weighted sums keep columns in lanes and 16 queries in accumulators,
 * and broadcast pairs of weights. No lane is ever summed across. */
#include "kern/cpu/attn_tiles_avx512.h"

#include "kern/cpu/fill.h"
#include "tensor/quant.h"

/* 32 values of a cached row from column c on */
typedef __m512i load_32_fn(const char *row, int64_t c);

INLINE __m512i load_32_f16(const char *row, int64_t c) {
    return bf16_of(vf_load_f16(row + 2 * c), vf_load_f16(row + 2 * c + 32));
}
INLINE __m512i load_32_bf16(const char *row, int64_t c) {
    return _mm512_loadu_si512(row + 2 * c);
}
INLINE __m512i load_32_q8_0(const char *row, int64_t c) {
    const du_block_q8_0 *b = (const du_block_q8_0 *)row + c / 32;
    vf d = vf_set1(simd_f16(b->d));
    return bf16_of(vf_mul(vf_load_i8(b->qs), d), vf_mul(vf_load_i8(b->qs + 16), d));
}

INLINE void load(load_32_fn *load_32, uint16_t *k, uint16_t *v, const void *rows, size_t stride,
                 int64_t n, int64_t k_dim, int64_t v_dim) {
    int64_t dim = !k ? v_dim : !v || k_dim > v_dim ? k_dim : v_dim;
    for (int64_t j = 0; j < DU_ATTN_PAGE; j += 2) {
        const char *row = (const char *)rows + (size_t)j * stride;
        for (int64_t c = 0; c < dim; c += 32) {
            __m512i zero = _mm512_setzero_si512();
            __m512i a = j < n ? load_32(row, c) : zero;
            __m512i b = j + 1 < n ? load_32(row + stride, c) : zero;
            if (k && c < k_dim) {
                _mm512_storeu_si512(k + j * k_dim + c, a);
                _mm512_storeu_si512(k + (j + 1) * k_dim + c, b);
            }
            if (v && c < v_dim) {
                attn_store_pair(v, j / 2, c, a, b);
            }
        }
    }
}

#define LOAD(name)                                                                                 \
    static void load_##name(uint16_t *k, uint16_t *v, const void *rows, size_t stride, int64_t n,  \
                            int64_t k_dim, int64_t v_dim) {                                        \
        load(load_32_##name, k, v, rows, stride, n, k_dim, v_dim);                                 \
    }
LOAD(f16)
LOAD(bf16)
LOAD(q8_0)
#undef LOAD

/* 32 values of 16 queries become 16 rows of pairs: a transposition. */
static void queries(uint16_t *tile, const float *const *q, int64_t n, int64_t k_dim, float scale) {
    vf s = vf_set1(scale);
    for (int64_t c = 0; c < k_dim; c += 32) {
        __m512i pairs[16];
        for (int64_t i = 0; i < 16; i++) {
            pairs[i] =
                i < n ? bf16_of(vf_mul(vf_load(q[i] + c), s), vf_mul(vf_load(q[i] + c + 16), s))
                      : _mm512_setzero_si512();
        }
        transpose_16(pairs);
        for (int64_t i = 0; i < 16; i++) {
            _mm512_storeu_si512(tile + c * 16 + i * 32, pairs[i]);
        }
    }
}

/* What the sums before and those that come are multiplied by, and both merged. */
INLINE void merge_weights(float *m, float *l, const float *m1, const float *l1, float *a,
                          float *b) {
    vf m_new = vf_max(vf_load(m), vf_load(m1));
    vf base = finite_max(m_new);
    vf wa = exp2_of(vf_sub(vf_load(m), base)), wb = exp2_of(vf_sub(vf_load(m1), base));
    vf_store(l, vf_fma(vf_load(l1), wb, vf_mul(vf_load(l), wa)));
    vf_store(m, m_new);
    vf_store(a, wa);
    vf_store(b, wb);
}

static void merge(float *to, const float *from, int64_t v_dim) {
    float a[16], b[16];
    merge_weights(to, to + 16, from, from + 16, a, b);
    for (int64_t c = 32; c < 16 * (2 + v_dim); c += 256) {
        for (int64_t i = 0; i < 16; i++) {
            float *y = to + c + 16 * i;
            vf x = vf_mul(vf_load(from + c + 16 * i), vf_set1(b[i]));
            vf_store(y, vf_fma(vf_load(y), vf_set1(a[i]), x));
        }
    }
}

/* Two blocks of 16 columns put into the order of the columns */
INLINE void store_columns(float *y, vf lo, vf hi) {
    __m512i first = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
    __m512i second = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
    __m512d a = _mm512_castps_pd(lo), b = _mm512_castps_pd(hi);
    vf_store(y, _mm512_castpd_ps(_mm512_permutex2var_pd(a, first, b)));
    vf_store(y + 16, _mm512_castpd_ps(_mm512_permutex2var_pd(a, second, b)));
}

static void fold(float *const *y, int64_t n, const float *sums, int64_t n_sums, int64_t ld,
                 int64_t v_dim, int64_t c0, int64_t c1) {
    (void)v_dim;
    float a[DU_ATTN_SUMS][16], b[DU_ATTN_SUMS][16], m[16], l[16];
    memcpy(m, sums, sizeof m);
    memcpy(l, sums + 16, sizeof l);
    for (int64_t k = 1; k < n_sums; k++) {
        merge_weights(m, l, sums + k * ld, sums + k * ld + 16, a[k], b[k]);
    }
    vf_store(l, vf_div(vf_set1(1), vf_load(l)));
    for (int64_t c = c0; c < c1; c += 32) {
        for (int64_t i = 0; i < n; i++) {
            const float *from = sums + 32 + c * 16 + 16 * i;
            vf lo = vf_load(from), hi = vf_load(from + 256);
            for (int64_t k = 1; k < n_sums; k++) {
                vf wa = vf_set1(a[k][i]), wb = vf_set1(b[k][i]);
                lo = vf_fma(lo, wa, vf_mul(vf_load(from + k * ld), wb));
                hi = vf_fma(hi, wa, vf_mul(vf_load(from + k * ld + 256), wb));
            }
            store_columns(y[i] + c, vf_mul(lo, vf_set1(l[i])), vf_mul(hi, vf_set1(l[i])));
        }
    }
}

INLINE __m512bh broadcast_pair(const uint16_t *p) {
    int32_t pair;
    memcpy(&pair, p, sizeof pair);
    return (__m512bh)_mm512_set1_epi32(pair);
}

/* s [n_rows, 16] of one tile: rows ld apart in sixteens, n_rows a multiple of them */
static void scores(float *s, const uint16_t *queries_, const uint16_t *k, int64_t ld,
                   int64_t n_rows, int64_t k_dim) {
    for (int64_t j = 0; j < n_rows; j += 16) {
        vf acc[16];
        UNROLL
        for (int i = 0; i < 16; i++) {
            acc[i] = vf_set1(0);
        }
        const uint16_t *row = k + j * ld;
        for (int64_t c = 0; c < k_dim; c += 2) {
            __m512bh q = (__m512bh)_mm512_loadu_si512(queries_ + c * 16);
            UNROLL
            for (int i = 0; i < 16; i++) {
                acc[i] = _mm512_dpbf16_ps(acc[i], q, broadcast_pair(row + i * ld + c));
            }
        }
        UNROLL
        for (int i = 0; i < 16; i++) {
            vf_store(s + (j + i) * 16, acc[i]);
        }
    }
}

/* acc [v_dim/16][16][16] = p v for n_p tiles p of 32 rows */
static void weigh(float *acc, const uint16_t *p, const uint16_t *v, int64_t n_p, int64_t v_dim) {
    for (int64_t c = 0; c < v_dim / 16; c++) {
        vf a[16];
        UNROLL
        for (int i = 0; i < 16; i++) {
            a[i] = vf_set1(0);
        }
        for (int64_t t = 0; t < n_p; t++) {
            const uint16_t *x = attn_v_tile(v, t, c, v_dim), *w = p + t * P_TILE;
            for (int r = 0; r < 16; r++) {
                __m512bh pair = (__m512bh)_mm512_loadu_si512(x + 32 * r);
                UNROLL
                for (int i = 0; i < 16; i++) {
                    a[i] = _mm512_dpbf16_ps(a[i], pair, broadcast_pair(w + 32 * i + 2 * r));
                }
            }
        }
        UNROLL
        for (int i = 0; i < 16; i++) {
            vf_store(acc + c * 256 + 16 * i, a[i]);
        }
    }
}

static void step(float *sums, const uint16_t *q, int64_t n_tiles, const uint16_t *k,
                 const uint16_t *v, int64_t n_kv, int64_t k_dim, int64_t v_dim,
                 const int32_t *seen) {
    float s[DU_ATTN_STEP * 16];
    uint16_t p[DU_ATTN_STEP * 16];
    for (int64_t i = 0; i < n_tiles; i++, sums += du_attn_sums_len(v_dim)) {
        scores(s, q + i * du_attn_queries_len(k_dim), k, k_dim, attn_rows(n_kv, 16), k_dim);
        attn_softmax(sums, p, s, n_kv, seen + 16 * i);
        weigh(sums + 32, p, v, attn_rows(n_kv, 32) / 32, v_dim);
    }
}

static void scores_two(float *s0, float *s1, const uint16_t *q, const uint16_t *k, int64_t ld,
                       int64_t n_rows, int64_t k_dim) {
    scores(s0, q, k, ld, n_rows, k_dim);
    scores(s1, q + du_attn_queries_len(k_dim), k, ld, n_rows, k_dim);
}

static void expand(uint16_t *k, uint16_t *v, const uint16_t *latents, const uint16_t *w,
                   int64_t rank, int64_t rope, int64_t k_dim, int64_t v_dim) {
    attn_expand(scores_two, k, v, latents, w, rank, rope, k_dim, v_dim);
}

void du_kern_fill_attn_tiles_bf16_avx512(du_kern *k) {
    k->attn =
        (du_attn_tiles){.load = {[DU_F16] = load_f16, [DU_BF16] = load_bf16, [DU_Q8_0] = load_q8_0},
                        .queries = queries,
                        .expand = expand,
                        .step = step,
                        .merge = merge,
                        .fold = fold,
                        .min_queries = 4};
}
