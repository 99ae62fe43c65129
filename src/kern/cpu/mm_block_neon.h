/* Products with block-quantised weights on AArch64, compiled with and without the dot product
 * instruction (mm_block_dot_neon.c, mm_block_neon.c); the results are the same.
 *
 * 256 columns at a time: a loader brings the weights to signed bytes, two registers per group g of
 * 32. Four lanes of integer sums of eight columns (times the sub-scales of 16, exact) become floats
 * and are added, times scale[g] * d[g], to the four lanes of y's accumulator, g ascending; minima
 * are added up in lane 0 before. Every tile of rows and tokens does the same roundings in the same
 * order.
 *
 * One token: two rows at a time, so that two chains of additions run side by side. More tokens: the
 * weights of a row are unpacked once for N_TILE tokens. */
#include <arm_neon.h>

#include "kern/cpu/blocks.h"
#include "kern/cpu/fill.h"
#include "kern/cpu/super.h"

/* 256 columns of a row: w = d[g] * sub[i/16] * q - dmin[g] * min[i/16] */
typedef struct {
    int8x16_t q[16];
    float d[8], dmin[8];
    int16_t sub[16], min[16];
} wide;

/* What the compiler specialises every function on. */
typedef struct {
    void (*load)(wide *w, const uint8_t *p);
    int64_t block; /* columns per block: 32 or 256 */
    size_t block_bytes;
    int has_sub, has_min;
} traits;

enum { PREFETCH_BYTES = 1024, N_TILE = 4 };

/* Nibbles of 16 bytes: low ones, high ones. */
INLINE void nibbles(int8x16_t q[2], const uint8_t *p) {
    uint8x16_t v = vld1q_u8(p);
    q[0] = vreinterpretq_s8_u8(vandq_u8(v, vdupq_n_u8(15)));
    q[1] = vreinterpretq_s8_u8(vshrq_n_u8(v, 4));
}

INLINE void levels(int8x16_t q[2], const uint8_t *p, const int8_t *table) {
    int8x16_t t = vld1q_s8(table);
    nibbles(q, p);
    q[0] = vqtbl1q_s8(t, vreinterpretq_u8_s8(q[0]));
    q[1] = vqtbl1q_s8(t, vreinterpretq_u8_s8(q[1]));
}

/* q + v where a bit of 16 is set */
INLINE int8x16_t add_where(int8x16_t q, uint32_t bits, int8_t v) {
    const uint8x16_t select = vreinterpretq_u8_u64(vdupq_n_u64(0x8040201008040201));
    uint8x16_t b = vcombine_u8(vdup_n_u8(bits & 255), vdup_n_u8(bits >> 8 & 255));
    return vaddq_s8(q, vandq_s8(vreinterpretq_s8_u8(vtstq_u8(b, select)), vdupq_n_s8(v)));
}

INLINE void load_q4_0(wide *w, const uint8_t *p) {
    const du_block_q4_0 *b = (const du_block_q4_0 *)p;
    for (int g = 0; g < 8; g++) {
        nibbles(w->q + 2 * g, b[g].qs);
        w->q[2 * g] = vsubq_s8(w->q[2 * g], vdupq_n_s8(8));
        w->q[2 * g + 1] = vsubq_s8(w->q[2 * g + 1], vdupq_n_s8(8));
        w->d[g] = du_f32_of_f16(b[g].d);
    }
}

INLINE void load_q4_1(wide *w, const uint8_t *p) {
    const du_block_q4_1 *b = (const du_block_q4_1 *)p;
    for (int g = 0; g < 8; g++) {
        nibbles(w->q + 2 * g, b[g].qs);
        w->d[g] = du_f32_of_f16(b[g].d);
        w->dmin[g] = -du_f32_of_f16(b[g].m);
    }
}

INLINE void load_q5_0(wide *w, const uint8_t *p) {
    const du_block_q5_0 *b = (const du_block_q5_0 *)p;
    for (int g = 0; g < 8; g++) {
        uint32_t unset = ~du_load_u32(b[g].qh);
        nibbles(w->q + 2 * g, b[g].qs);
        w->q[2 * g] = add_where(w->q[2 * g], unset & 0xffff, -16);
        w->q[2 * g + 1] = add_where(w->q[2 * g + 1], unset >> 16, -16);
        w->d[g] = du_f32_of_f16(b[g].d);
    }
}

INLINE void load_q5_1(wide *w, const uint8_t *p) {
    const du_block_q5_1 *b = (const du_block_q5_1 *)p;
    for (int g = 0; g < 8; g++) {
        uint32_t high = du_load_u32(b[g].qh);
        nibbles(w->q + 2 * g, b[g].qs);
        w->q[2 * g] = add_where(w->q[2 * g], high & 0xffff, 16);
        w->q[2 * g + 1] = add_where(w->q[2 * g + 1], high >> 16, 16);
        w->d[g] = du_f32_of_f16(b[g].d);
        w->dmin[g] = -du_f32_of_f16(b[g].m);
    }
}

INLINE void load_q8_0(wide *w, const uint8_t *p) {
    const du_block_q8_0 *b = (const du_block_q8_0 *)p;
    for (int g = 0; g < 8; g++) {
        w->q[2 * g] = vld1q_s8(b[g].qs);
        w->q[2 * g + 1] = vld1q_s8(b[g].qs + 16);
        w->d[g] = du_f32_of_f16(b[g].d);
    }
}

INLINE void load_iq4_nl(wide *w, const uint8_t *p) {
    const du_block_iq4_nl *b = (const du_block_iq4_nl *)p;
    for (int g = 0; g < 8; g++) {
        levels(w->q + 2 * g, b[g].qs, du_iq4_values);
        w->d[g] = du_f32_of_f16(b[g].d);
    }
}

INLINE void load_mxfp4(wide *w, const uint8_t *p) {
    const du_block_mxfp4 *b = (const du_block_mxfp4 *)p;
    for (int g = 0; g < 8; g++) {
        levels(w->q + 2 * g, b[g].qs, du_mxfp4_values);
        w->d[g] = 0.5f * du_f32_of_e8m0(b[g].e);
    }
}

INLINE void load_iq4_xs(wide *w, const uint8_t *p) {
    const du_block_iq4_xs *b = (const du_block_iq4_xs *)p;
    for (int g = 0; g < 8; g++) {
        levels(w->q + 2 * g, b->qs + 16 * g, du_iq4_values);
        w->d[g] = du_f32_of_f16(b->d) * (float)du_iq4_xs_scale(b, g);
    }
}

/* Scales and minima of Q4_K and Q5_K. */
INLINE void set_k4(wide *w, float d, float dmin, const uint8_t scales[12]) {
    uint8_t sc[8], m[8];
    du_k4_scales(sc, m, scales);
    for (int g = 0; g < 8; g++) {
        w->d[g] = d * (float)sc[g];
        w->dmin[g] = dmin * (float)m[g];
    }
}

/* Nibbles of 32 bytes: low ones are the first 32 weights. */
INLINE void nibbles_32(int8x16_t q[4], const uint8_t *p) {
    int8x16_t a[2], b[2];
    nibbles(a, p);
    nibbles(b, p + 16);
    q[0] = a[0], q[1] = b[0], q[2] = a[1], q[3] = b[1];
}

INLINE void load_q4_k(wide *w, const uint8_t *p) {
    const du_block_q4_k *b = (const du_block_q4_k *)p;
    for (int j = 0; j < 4; j++) {
        nibbles_32(w->q + 4 * j, b->qs + 32 * j);
    }
    set_k4(w, du_f32_of_f16(b->d), du_f32_of_f16(b->dmin), b->scales);
}

/* q + v where bit k of 16 bytes is set */
INLINE int8x16_t add_bit(int8x16_t q, uint8x16_t bits, int k, int8_t v) {
    uint8x16_t set = vtstq_u8(bits, vdupq_n_u8((uint8_t)(1 << k)));
    return vaddq_s8(q, vandq_s8(vreinterpretq_s8_u8(set), vdupq_n_s8(v)));
}

INLINE void load_q5_k(wide *w, const uint8_t *p) {
    const du_block_q5_k *b = (const du_block_q5_k *)p;
    for (int j = 0; j < 4; j++) {
        nibbles_32(w->q + 4 * j, b->qs + 32 * j);
    }
    for (int i = 0; i < 16; i++) {
        w->q[i] = add_bit(w->q[i], vld1q_u8(b->qh + 16 * (i % 2)), i / 2, 16);
    }
    set_k4(w, du_f32_of_f16(b->d), du_f32_of_f16(b->dmin), b->scales);
}

INLINE void set_d(wide *w, float d) {
    for (int g = 0; g < 8; g++) {
        w->d[g] = d;
    }
}

INLINE void load_q6_k(wide *w, const uint8_t *p) {
    const du_block_q6_k *b = (const du_block_q6_k *)p;
    for (int h = 0; h < 2; h++) {
        for (int k = 0; k < 2; k++) { /* 16 bytes of high bits: weights 16k .. of four 32s */
            uint8x16_t high = vld1q_u8(b->qh + 32 * h + 16 * k), mask = vdupq_n_u8(0x30);
            int8x16_t a[2], c[2], *q = w->q + 8 * h + k;
            nibbles(a, b->ql + 64 * h + 16 * k);
            nibbles(c, b->ql + 64 * h + 32 + 16 * k);
            uint8x16_t h0 = vandq_u8(vshlq_n_u8(high, 4), mask);
            uint8x16_t h1 = vandq_u8(vshlq_n_u8(high, 2), mask);
            uint8x16_t h2 = vandq_u8(high, mask), h3 = vandq_u8(vshrq_n_u8(high, 2), mask);
            q[0] = vorrq_s8(a[0], vreinterpretq_s8_u8(h0));
            q[2] = vorrq_s8(c[0], vreinterpretq_s8_u8(h1));
            q[4] = vorrq_s8(a[1], vreinterpretq_s8_u8(h2));
            q[6] = vorrq_s8(c[1], vreinterpretq_s8_u8(h3));
        }
    }
    for (int i = 0; i < 16; i++) {
        w->q[i] = vsubq_s8(w->q[i], vdupq_n_s8(32));
        w->sub[i] = b->scales[i];
    }
    set_d(w, du_f32_of_f16(b->d));
}

/* Two bits of 64 bytes, 32 by 32: the lowest pairs of bits of the first 32 come first. */
INLINE void pairs(int8x16_t q[16], const uint8_t *p) {
    for (int h = 0; h < 2; h++) {
        for (int k = 0; k < 2; k++) {
            uint8x16_t v = vld1q_u8(p + 32 * h + 16 * k), low = vdupq_n_u8(3);
            q[8 * h + k] = vreinterpretq_s8_u8(vandq_u8(v, low));
            q[8 * h + k + 2] = vreinterpretq_s8_u8(vandq_u8(vshrq_n_u8(v, 2), low));
            q[8 * h + k + 4] = vreinterpretq_s8_u8(vandq_u8(vshrq_n_u8(v, 4), low));
            q[8 * h + k + 6] = vreinterpretq_s8_u8(vshrq_n_u8(v, 6));
        }
    }
}

INLINE void load_q2_k(wide *w, const uint8_t *p) {
    const du_block_q2_k *b = (const du_block_q2_k *)p;
    pairs(w->q, b->qs);
    for (int i = 0; i < 16; i++) {
        w->sub[i] = b->scales[i] & 15;
        w->min[i] = b->scales[i] >> 4;
    }
    set_d(w, du_f32_of_f16(b->d));
    for (int g = 0; g < 8; g++) {
        w->dmin[g] = du_f32_of_f16(b->dmin);
    }
}

INLINE void load_q3_k(wide *w, const uint8_t *p) {
    const du_block_q3_k *b = (const du_block_q3_k *)p;
    int8_t scale[16];
    du_q3_k_scales(scale, b->scales);
    pairs(w->q, b->qs);
    for (int i = 0; i < 16; i++) {
        w->q[i] = add_bit(w->q[i], vmvnq_u8(vld1q_u8(b->hmask + 16 * (i % 2))), i / 2, -4);
        w->sub[i] = scale[i];
    }
    set_d(w, du_f32_of_f16(b->d));
}

/* Types whose weights are looked up one by one anyway: the plain loader. */
INLINE void set_wblock(wide *w, const du_wblock *b) {
    for (int i = 0; i < 16; i++) {
        w->q[i] = vld1q_s8(b->q + 16 * i);
        w->sub[i] = b->scale[i];
    }
    set_d(w, b->d);
}

#define LOAD_IQ(name)                                                                              \
    INLINE void load_##name(wide *w, const uint8_t *p) {                                           \
        du_wblock b;                                                                               \
        du_wblock_load_##name(&b, p);                                                              \
        set_wblock(w, &b);                                                                         \
    }
LOAD_IQ(iq1_s)
LOAD_IQ(iq1_m)
LOAD_IQ(iq2_xxs)
LOAD_IQ(iq2_xs)
LOAD_IQ(iq2_s)
LOAD_IQ(iq3_xxs)
LOAD_IQ(iq3_s)
#undef LOAD_IQ

/* X(suffix, function name part, has a scale per 16, has minima) */
#define NEON_LIST(X)                                                                               \
    X(Q4_0, q4_0, 0, 0)                                                                            \
    X(Q4_1, q4_1, 0, 1)                                                                            \
    X(Q5_0, q5_0, 0, 0)                                                                            \
    X(Q5_1, q5_1, 0, 1)                                                                            \
    X(Q8_0, q8_0, 0, 0)                                                                            \
    X(Q2_K, q2_k, 1, 1)                                                                            \
    X(Q3_K, q3_k, 1, 0)                                                                            \
    X(Q4_K, q4_k, 0, 1)                                                                            \
    X(Q5_K, q5_k, 0, 1)                                                                            \
    X(Q6_K, q6_k, 1, 0)                                                                            \
    X(IQ4_NL, iq4_nl, 0, 0)                                                                        \
    X(IQ4_XS, iq4_xs, 0, 0)                                                                        \
    X(IQ1_S, iq1_s, 1, 0)                                                                          \
    X(IQ1_M, iq1_m, 1, 0)                                                                          \
    X(IQ2_XXS, iq2_xxs, 1, 0)                                                                      \
    X(IQ2_XS, iq2_xs, 1, 0)                                                                        \
    X(IQ2_S, iq2_s, 1, 0)                                                                          \
    X(IQ3_XXS, iq3_xxs, 1, 0)                                                                      \
    X(IQ3_S, iq3_s, 1, 0)                                                                          \
    X(MXFP4, mxfp4, 0, 0)

/* Four sums of four products, added to acc. */
INLINE int32x4_t dot(int32x4_t acc, int8x16_t a, int8x16_t b) {
#if defined(__ARM_FEATURE_DOTPROD)
    return vdotq_s32(acc, a, b);
#else
    int16x8_t lo = vmull_s8(vget_low_s8(a), vget_low_s8(b));
    int16x8_t hi = vmull_high_s8(a, b); /* at most 128 * 127: pairs fit */
    return vpadalq_s16(acc, vpaddq_s16(lo, hi));
#endif
}

/* The sum of minima over 256 columns. */
INLINE float min_sum(traits k, const wide *w, super_token t) {
    float sum = 0;
    for (int g = 0; g < 8; g++) {
        int32_t min = k.has_sub
                          ? w->min[2 * g] * t.sum[2 * g] + w->min[2 * g + 1] * t.sum[2 * g + 1]
                          : t.sum[2 * g] + t.sum[2 * g + 1];
        sum += w->dmin[g] * t.d[g] * (float)min;
    }
    return sum;
}

/* Adds 256 columns of R rows times N tokens. */
INLINE void add_super(traits k, int R, int N, float32x4_t acc[2][N_TILE], const wide *w,
                      const super_token *t) {
    for (int r = 0; k.has_min && r < R; r++) {
        for (int i = 0; i < N; i++) {
            acc[r][i] =
                vsubq_f32(acc[r][i], vsetq_lane_f32(min_sum(k, &w[r], t[i]), vdupq_n_f32(0), 0));
        }
    }
    UNROLL
    for (int g = 0; g < 8; g++) {
        UNROLL
        for (int i = 0; i < N; i++) {
            int8x16_t x0 = vld1q_s8(t[i].q + 32 * g), x1 = vld1q_s8(t[i].q + 32 * g + 16);
            UNROLL
            for (int r = 0; r < R; r++) {
                int32x4_t zero = vdupq_n_s32(0), sum = dot(zero, w[r].q[2 * g], x0);
                if (k.has_sub) {
                    sum = vmulq_n_s32(sum, w[r].sub[2 * g]);
                    sum = vmlaq_n_s32(sum, dot(zero, w[r].q[2 * g + 1], x1), w[r].sub[2 * g + 1]);
                } else {
                    sum = dot(sum, w[r].q[2 * g + 1], x1);
                }
                float scale = w[r].d[g] * t[i].d[g];
                acc[r][i] = vfmaq_n_f32(acc[r][i], vcvtq_f32_s32(sum), scale);
            }
        }
    }
}

/* Loads n_groups (1 .. 8) groups of 32 columns at p. Missing ones have the scale 0; in their place
 * bytes up to `end`, where the matrix ends, are read but not used. */
INLINE void load_super(traits k, wide *w, const uint8_t *p, const uint8_t *end, int64_t n_groups) {
    uint8_t copy[SUPER_COPY_BYTES];
    if (k.block == 256) {
        k.load(w, p);
        return;
    }
    k.load(w, super_readable(copy, p, end, k.block_bytes, n_groups));
    for (int64_t g = n_groups; g < 8; g++) {
        w->d[g] = w->dmin[g] = 0;
    }
}

/* out[r*N + i] for R rows from r0 on and N tokens */
INLINE void mm_tile(traits k, int R, int N, float *out, const du_mat *m, int64_t r0,
                    const tile_token *x) {
    float32x4_t acc[2][N_TILE];
    wide w[2];
    const uint8_t *p = du_mat_row(m, r0);
    for (int r = 0; r < R; r++) {
        for (int i = 0; i < N; i++) {
            acc[r][i] = vdupq_n_f32(0);
        }
    }
    const uint8_t *end = super_end(m, k.block, k.block_bytes);
    size_t bytes = super_bytes(k.block, k.block_bytes);
    for (int64_t c = 0; c < m->cols; c += 256, p += bytes) {
        int64_t n = m->cols - c < 256 ? (m->cols - c) / 32 : 8;
        super_token at[N_TILE];
        for (int r = 0; r < R; r++) {
            const uint8_t *row = p + (size_t)r * m->row_bytes;
            for (size_t i = 0; i < bytes; i += 64) {
                __builtin_prefetch(row + PREFETCH_BYTES + i);
            }
            load_super(k, &w[r], row, end, n);
        }
        for (int i = 0; i < N; i++) {
            at[i] = tile_token_at(&x[i], c, n);
        }
        add_super(k, R, N, acc, w, at);
    }
    for (int r = 0; r < R; r++) {
        for (int i = 0; i < N; i++) {
            out[r * N + i] = vaddvq_f32(acc[r][i]);
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
        mm_tile(k, 1, N_TILE, out, w, r, x);
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

#define MM(suffix, name, has_sub, has_min)                                                         \
    static void mm_##name(float *y, int64_t ldy, const du_mat *w, int64_t row0, int64_t row1,      \
                          const du_acts *x, const int32_t *i_row, int64_t n_rows) {                \
        const size_t bytes = sizeof(du_block_##name);                                              \
        const traits k = {load_##name, bytes > 34 ? 256 : 32, bytes, has_sub, has_min};            \
        mm(k, y, ldy, w, row0, row1, x, i_row, n_rows);                                            \
    }
NEON_LIST(MM)
#undef MM

static void fill_mm_block(du_kern *k) {
#define FILL(suffix, name, has_sub, has_min) k->mm[DU_##suffix] = mm_##name;
    NEON_LIST(FILL)
#undef FILL
}
