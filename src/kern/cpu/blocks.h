/* A block of quantised weights as small integers, the form in which every product uses it:
 *
 *   w[i] = d * scale[i/16] * q[i] - dmin * min[i/16]
 *
 * with q in [-128, 127], scale in [-128, 127] and min in [0, 63]. d * scale is exact in f32 (11 and
 * 7 bits); so is scale times a dot product of 32 q with 32 activations of 8 bits in int32. Types
 * that store fractions are brought to integers by moving a power of two into d.
 *
 * One loader per block type, written for reading; kernels of other levels have their own for the
 * types that matter and use these for the rest. The layouts stand in tensor/quant.h. */
#ifndef DU_KERN_CPU_BLOCKS_H
#define DU_KERN_CPU_BLOCKS_H

#include <stdint.h>

#include "tensor/quant.h"

typedef struct {
    float d, dmin;
    int16_t scale[16], min[16]; /* per 16 weights; only [0, 2) of a block of 32 */
    int8_t q[256];              /* only [0, 32) of a block of 32 */
} du_wblock;

/* The first n groups of 16 get this scale. */
static inline void du_wblock_set_scale(du_wblock *w, int n, int scale) {
    for (int k = 0; k < n; k++) {
        w->scale[k] = (int16_t)scale;
    }
}

static inline void du_wblock_load_q4_0(du_wblock *w, const void *block) {
    const du_block_q4_0 *b = block;
    w->d = du_f32_of_f16(b->d);
    du_wblock_set_scale(w, 2, 1);
    for (int i = 0; i < 16; i++) {
        w->q[i] = (int8_t)((b->qs[i] & 15) - 8);
        w->q[i + 16] = (int8_t)((b->qs[i] >> 4) - 8);
    }
}

static inline void du_wblock_load_q4_1(du_wblock *w, const void *block) {
    const du_block_q4_1 *b = block;
    w->d = du_f32_of_f16(b->d);
    w->dmin = -du_f32_of_f16(b->m);
    du_wblock_set_scale(w, 2, 1);
    w->min[0] = w->min[1] = 1;
    for (int i = 0; i < 16; i++) {
        w->q[i] = (int8_t)(b->qs[i] & 15);
        w->q[i + 16] = (int8_t)(b->qs[i] >> 4);
    }
}

static inline void du_wblock_load_q5_0(du_wblock *w, const void *block) {
    const du_block_q5_0 *b = block;
    uint32_t high = du_load_u32(b->qh);
    w->d = du_f32_of_f16(b->d);
    du_wblock_set_scale(w, 2, 1);
    for (int i = 0; i < 16; i++) {
        w->q[i] = (int8_t)((b->qs[i] & 15) + (int)(high >> i & 1) * 16 - 16);
        w->q[i + 16] = (int8_t)((b->qs[i] >> 4) + (int)(high >> (i + 16) & 1) * 16 - 16);
    }
}

static inline void du_wblock_load_q5_1(du_wblock *w, const void *block) {
    const du_block_q5_1 *b = block;
    uint32_t high = du_load_u32(b->qh);
    w->d = du_f32_of_f16(b->d);
    w->dmin = -du_f32_of_f16(b->m);
    du_wblock_set_scale(w, 2, 1);
    w->min[0] = w->min[1] = 1;
    for (int i = 0; i < 16; i++) {
        w->q[i] = (int8_t)((b->qs[i] & 15) + (int)(high >> i & 1) * 16);
        w->q[i + 16] = (int8_t)((b->qs[i] >> 4) + (int)(high >> (i + 16) & 1) * 16);
    }
}

static inline void du_wblock_load_q8_0(du_wblock *w, const void *block) {
    const du_block_q8_0 *b = block;
    w->d = du_f32_of_f16(b->d);
    du_wblock_set_scale(w, 2, 1);
    memcpy(w->q, b->qs, 32);
}

/* Levels named by nibbles: IQ4_NL and MXFP4. */
static inline void du_wblock_set_levels(int8_t q[32], const uint8_t qs[16], const int8_t *levels) {
    for (int i = 0; i < 16; i++) {
        q[i] = levels[qs[i] & 15];
        q[i + 16] = levels[qs[i] >> 4];
    }
}

static inline void du_wblock_load_iq4_nl(du_wblock *w, const void *block) {
    const du_block_iq4_nl *b = block;
    w->d = du_f32_of_f16(b->d);
    du_wblock_set_scale(w, 2, 1);
    du_wblock_set_levels(w->q, b->qs, du_iq4_values);
}

static inline void du_wblock_load_mxfp4(du_wblock *w, const void *block) {
    const du_block_mxfp4 *b = block;
    w->d = 0.5f * du_f32_of_e8m0(b->e);
    du_wblock_set_scale(w, 2, 1);
    du_wblock_set_levels(w->q, b->qs, du_mxfp4_values);
}

static inline void du_wblock_load_iq4_xs(du_wblock *w, const void *block) {
    const du_block_iq4_xs *b = block;
    w->d = du_f32_of_f16(b->d);
    for (int s = 0; s < 8; s++) {
        w->scale[2 * s] = w->scale[2 * s + 1] = (int16_t)du_iq4_xs_scale(b, s);
        du_wblock_set_levels(w->q + 32 * s, b->qs + 16 * s, du_iq4_values);
    }
}

static inline void du_wblock_load_q2_k(du_wblock *w, const void *block) {
    const du_block_q2_k *b = block;
    w->d = du_f32_of_f16(b->d);
    w->dmin = du_f32_of_f16(b->dmin);
    for (int k = 0; k < 16; k++) {
        w->scale[k] = b->scales[k] & 15;
        w->min[k] = b->scales[k] >> 4;
    }
    for (int g = 0; g < 8; g++) {
        for (int i = 0; i < 32; i++) {
            w->q[32 * g + i] = b->qs[32 * (g / 4) + i] >> 2 * (g % 4) & 3;
        }
    }
}

static inline void du_wblock_load_q3_k(du_wblock *w, const void *block) {
    const du_block_q3_k *b = block;
    int8_t scale[16];
    du_q3_k_scales(scale, b->scales);
    w->d = du_f32_of_f16(b->d);
    for (int k = 0; k < 16; k++) {
        w->scale[k] = scale[k];
    }
    for (int g = 0; g < 8; g++) {
        for (int i = 0; i < 32; i++) {
            int low = b->qs[32 * (g / 4) + i] >> 2 * (g % 4) & 3;
            int high = b->hmask[i] >> g & 1;
            w->q[32 * g + i] = (int8_t)(low + 4 * high - 4);
        }
    }
}

/* Scales and minima of Q4_K and Q5_K. */
static inline void du_wblock_set_k4_scales(du_wblock *w, const uint8_t scales[12]) {
    uint8_t sc[8], m[8];
    du_k4_scales(sc, m, scales);
    for (int k = 0; k < 16; k++) {
        w->scale[k] = sc[k / 2];
        w->min[k] = m[k / 2];
    }
}

static inline void du_wblock_load_q4_k(du_wblock *w, const void *block) {
    const du_block_q4_k *b = block;
    w->d = du_f32_of_f16(b->d);
    w->dmin = du_f32_of_f16(b->dmin);
    du_wblock_set_k4_scales(w, b->scales);
    for (int g = 0; g < 8; g++) {
        for (int i = 0; i < 32; i++) {
            w->q[32 * g + i] = b->qs[32 * (g / 2) + i] >> 4 * (g % 2) & 15;
        }
    }
}

static inline void du_wblock_load_q5_k(du_wblock *w, const void *block) {
    const du_block_q5_k *b = block;
    w->d = du_f32_of_f16(b->d);
    w->dmin = du_f32_of_f16(b->dmin);
    du_wblock_set_k4_scales(w, b->scales);
    for (int g = 0; g < 8; g++) {
        for (int i = 0; i < 32; i++) {
            int low = b->qs[32 * (g / 2) + i] >> 4 * (g % 2) & 15;
            w->q[32 * g + i] = (int8_t)(low | (b->qh[i] >> g & 1) << 4);
        }
    }
}

static inline void du_wblock_load_q6_k(du_wblock *w, const void *block) {
    const du_block_q6_k *b = block;
    w->d = du_f32_of_f16(b->d);
    for (int k = 0; k < 16; k++) {
        w->scale[k] = b->scales[k];
    }
    for (int g = 0; g < 8; g++) {
        const uint8_t *ql = b->ql + 64 * (g / 4) + 32 * (g % 2), *qh = b->qh + 32 * (g / 4);
        for (int i = 0; i < 32; i++) {
            int low = ql[i] >> 4 * (g % 4 / 2) & 15, high = qh[i] >> 2 * (g % 4) & 3;
            w->q[32 * g + i] = (int8_t)((low | high << 4) - 32);
        }
    }
}

/* The IQ types: 8 (4) weights from a lattice point, negative where a bit of signs is set. */
static inline void du_wblock_set_point(int8_t *q, int n, uint64_t point, uint32_t signs) {
    for (int j = 0; j < n; j++) {
        int v = (int)(point >> 8 * j & 255);
        q[j] = (int8_t)(signs >> j & 1 ? -v : v);
    }
}

static inline void du_wblock_load_iq2_xxs(du_wblock *w, const void *block) {
    const du_block_iq2_xxs *b = block;
    w->d = du_f32_of_f16(b->d) * 0.125f;
    for (int s = 0; s < 8; s++) {
        const uint8_t *group = b->qs + 8 * s;
        uint32_t code = du_load_u32(group + 4);
        w->scale[2 * s] = w->scale[2 * s + 1] = (int16_t)(2 * (code >> 28) + 1);
        for (int l = 0; l < 4; l++) {
            du_wblock_set_point(w->q + 32 * s + 8 * l, 8, du_iq2_xxs_grid[group[l]],
                                du_iq_signs(code >> 7 * l));
        }
    }
}

/* Nibbles of IQ2_XS and IQ2_S, one per 16 weights. */
static inline void du_wblock_set_nibble_scales(du_wblock *w, const uint8_t scales[8]) {
    for (int k = 0; k < 16; k++) {
        w->scale[k] = (int16_t)(2 * (scales[k / 2] >> 4 * (k % 2) & 15) + 1);
    }
}

static inline void du_wblock_load_iq2_xs(du_wblock *w, const void *block) {
    const du_block_iq2_xs *b = block;
    w->d = du_f32_of_f16(b->d) * 0.125f;
    du_wblock_set_nibble_scales(w, b->scales);
    for (int g = 0; g < 32; g++) {
        du_wblock_set_point(w->q + 8 * g, 8, du_iq2_xs_grid[b->qs[g] & 511],
                            du_iq_signs(b->qs[g] >> 9));
    }
}

static inline void du_wblock_load_iq2_s(du_wblock *w, const void *block) {
    const du_block_iq2_s *b = block;
    w->d = du_f32_of_f16(b->d) * 0.125f;
    du_wblock_set_nibble_scales(w, b->scales);
    for (int g = 0; g < 32; g++) {
        uint32_t index = b->qs[g] | (b->qh[g / 4] >> 2 * (g % 4) & 3u) << 8;
        du_wblock_set_point(w->q + 8 * g, 8, du_iq2_s_grid[index], b->signs[g]);
    }
}

static inline void du_wblock_load_iq3_xxs(du_wblock *w, const void *block) {
    const du_block_iq3_xxs *b = block;
    w->d = du_f32_of_f16(b->d) * 0.25f;
    for (int s = 0; s < 8; s++) {
        uint32_t code = du_load_u32(b->signs_scales + 4 * s);
        w->scale[2 * s] = w->scale[2 * s + 1] = (int16_t)(2 * (code >> 28) + 1);
        for (int l = 0; l < 4; l++) {
            const uint8_t *index = b->qs + 8 * s + 2 * l;
            uint64_t point = du_iq3_xxs_grid[index[0]];
            point |= (uint64_t)du_iq3_xxs_grid[index[1]] << 32;
            du_wblock_set_point(w->q + 32 * s + 8 * l, 8, point, du_iq_signs(code >> 7 * l));
        }
    }
}

static inline void du_wblock_load_iq3_s(du_wblock *w, const void *block) {
    const du_block_iq3_s *b = block;
    w->d = du_f32_of_f16(b->d);
    for (int k = 0; k < 16; k++) {
        w->scale[k] = (int16_t)(1 + 2 * (b->scales[k / 4] >> 4 * (k / 2 % 2) & 15));
    }
    for (int g = 0; g < 32; g++) {
        uint32_t high = (uint32_t)b->qh[g / 4] >> 2 * (g % 4);
        uint64_t point = du_iq3_s_grid[b->qs[2 * g] | (high & 1) << 8];
        point |= (uint64_t)du_iq3_s_grid[b->qs[2 * g + 1] | (high >> 1 & 1) << 8] << 32;
        du_wblock_set_point(w->q + 8 * g, 8, point, b->signs[g]);
    }
}

/* IQ1: (point +- 1/8) as eighths. */
static inline void du_wblock_set_iq1(int8_t q[8], uint64_t point, int eighth) {
    for (int j = 0; j < 8; j++) {
        q[j] = (int8_t)(8 * (int8_t)(point >> 8 * j & 255) + eighth);
    }
}

static inline void du_wblock_load_iq1_s(du_wblock *w, const void *block) {
    const du_block_iq1_s *b = block;
    w->d = du_f32_of_f16(b->d) * 0.125f;
    for (int g = 0; g < 32; g++) {
        uint32_t h = b->qh[g / 4];
        w->scale[g / 2] = (int16_t)(2 * (h >> 12 & 7) + 1);
        uint32_t index = b->qs[g] | (h >> 3 * (g % 4) & 7) << 8;
        du_wblock_set_iq1(w->q + 8 * g, du_iq1_grid[index], h >> 15 ? -1 : 1);
    }
}

static inline void du_wblock_load_iq1_m(du_wblock *w, const void *block) {
    const du_block_iq1_m *b = block;
    w->d = du_iq1_m_d(b) * 0.125f;
    for (int g = 0; g < 32; g++) {
        uint32_t h = (uint32_t)b->qh[g / 2] >> 4 * (g % 2);
        w->scale[g / 2] = (int16_t)(2 * (b->scales[g / 8] >> 3 * (g / 2 % 4) & 7) + 1);
        uint32_t index = b->qs[g] | (h & 7) << 8;
        du_wblock_set_iq1(w->q + 8 * g, du_iq1_grid[index], h & 8 ? -1 : 1);
    }
}

/* The block types: X(suffix, function name part, weights per block, has minima) */
#define DU_BLOCK_LIST(X)                                                                           \
    X(Q4_0, q4_0, 32, 0)                                                                           \
    X(Q4_1, q4_1, 32, 1)                                                                           \
    X(Q5_0, q5_0, 32, 0)                                                                           \
    X(Q5_1, q5_1, 32, 1)                                                                           \
    X(Q8_0, q8_0, 32, 0)                                                                           \
    X(Q2_K, q2_k, 256, 1)                                                                          \
    X(Q3_K, q3_k, 256, 0)                                                                          \
    X(Q4_K, q4_k, 256, 1)                                                                          \
    X(Q5_K, q5_k, 256, 1)                                                                          \
    X(Q6_K, q6_k, 256, 0)                                                                          \
    X(IQ4_NL, iq4_nl, 32, 0)                                                                       \
    X(IQ4_XS, iq4_xs, 256, 0)                                                                      \
    X(IQ1_S, iq1_s, 256, 0)                                                                        \
    X(IQ1_M, iq1_m, 256, 0)                                                                        \
    X(IQ2_XXS, iq2_xxs, 256, 0)                                                                    \
    X(IQ2_XS, iq2_xs, 256, 0)                                                                      \
    X(IQ2_S, iq2_s, 256, 0)                                                                        \
    X(IQ3_XXS, iq3_xxs, 256, 0)                                                                    \
    X(IQ3_S, iq3_s, 256, 0)                                                                        \
    X(MXFP4, mxfp4, 32, 0)

#endif
