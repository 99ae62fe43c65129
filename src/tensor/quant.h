/* Block layouts of the quantised types, and what their unpackers, packers and product kernels
 * share.
 *
 * Every struct is one block as it lies in a file, byte-packed, so that it may stand at any address.
 * d and dmin are binary16 scales. The formulas (y = value of weight i of the block) stand at the
 * structs; N32(i) is the nibble of qs[i % 16], low for i < 16, high after; P2(i) the two bits of
 * qs[32*(i/128) + i%32] at 2*((i%128)/32).
 * Source of the layouts: ggml (ggml-common.h), checked against the gguf package's dequantisers. */
#ifndef DU_TENSOR_QUANT_H
#define DU_TENSOR_QUANT_H

#include <stdint.h>

#include "tensor/half.h"

#define DU_PACKED __attribute__((packed))

/* y = d * (N32 - 8) */
typedef struct DU_PACKED {
    uint16_t d;
    uint8_t qs[16];
} du_block_q4_0;

/* y = d * N32 + m */
typedef struct DU_PACKED {
    uint16_t d, m;
    uint8_t qs[16];
} du_block_q4_1;

/* y = d * (N32 + 16 * bit i of qh - 16) */
typedef struct DU_PACKED {
    uint16_t d;
    uint8_t qh[4];
    uint8_t qs[16];
} du_block_q5_0;

/* y = d * (N32 + 16 * bit i of qh) + m */
typedef struct DU_PACKED {
    uint16_t d, m;
    uint8_t qh[4];
    uint8_t qs[16];
} du_block_q5_1;

/* y = d * qs[i] */
typedef struct DU_PACKED {
    uint16_t d;
    int8_t qs[32];
} du_block_q8_0;

/* y = d * (sc & 15) * P2 - dmin * (sc >> 4), sc = scales[i / 16] */
typedef struct DU_PACKED {
    uint8_t scales[16];
    uint8_t qs[64];
    uint16_t d, dmin;
} du_block_q2_k;

/* y = d * S * (P2 - (4 where bit i/32 of hmask[i % 32] is 0)), S of du_q3_k_scales for i / 16 */
typedef struct DU_PACKED {
    uint8_t hmask[32];
    uint8_t qs[64];
    uint8_t scales[12];
    uint16_t d;
} du_block_q3_k;

/* y = d * sc * q - dmin * m, sc and m of du_k4_scales for i / 32,
 * q = nibble of qs[32*(i/64) + i%32], low for even i/32 */
typedef struct DU_PACKED {
    uint16_t d, dmin;
    uint8_t scales[12];
    uint8_t qs[128];
} du_block_q4_k;

/* As Q4_K with q + 16 * bit i/32 of qh[i % 32] */
typedef struct DU_PACKED {
    uint16_t d, dmin;
    uint8_t scales[12];
    uint8_t qh[32];
    uint8_t qs[128];
} du_block_q5_k;

/* y = d * scales[i/16] * (low + 16*high - 32); with h = i/128, r = i%128:
 * low = nibble r/64 of ql[64h + r%64], high = two bits of qh[32h + r%32] at 2*(r/32) */
typedef struct DU_PACKED {
    uint8_t ql[128];
    uint8_t qh[64];
    int8_t scales[16];
    uint16_t d;
} du_block_q6_k;

/* y = d * du_iq4_values[N32] */
typedef struct DU_PACKED {
    uint16_t d;
    uint8_t qs[16];
} du_block_iq4_nl;

/* y = d * S * du_iq4_values[nibble of qs[16s + i%16], low for i%32 < 16], s = i/32,
 * S = nibble s%2 of scales_l[s/2] + 16 * (two bits of scales_h at 2s) - 32 */
typedef struct DU_PACKED {
    uint16_t d, scales_h;
    uint8_t scales_l[4];
    uint8_t qs[128];
} du_block_iq4_xs;

/* y = d * (2*scale + 1) * (du_iq1_grid[index] +- 0.125), per group s of 32: index of its l-th 8 is
 * qs[4s + l] + 256 * (three bits of qh[s] at 3l), scale three bits of qh[s] at 12, minus at 15 */
typedef struct DU_PACKED {
    uint16_t d;
    uint8_t qs[32];
    uint16_t qh[8];
} du_block_iq1_s;

/* As IQ1_S; the g-th 8 has a nibble of qh (g/2, low first): three index bits, then the sign of the
 * 0.125; scale per 16: three bits of scales[i/64] at 3*((i/16) % 4); d is the binary16 made of the
 * four top nibbles of scales, scales[0]'s lowest */
typedef struct DU_PACKED {
    uint8_t qs[32];
    uint8_t qh[16];
    uint16_t scales[4];
} du_block_iq1_m;

/* Per group of 32 eight bytes of qs: four grid indices, then a u32 with four 7-bit sign codes and
 * the scale in the top nibble; y = d * (0.5 + scale) / 4 * sign * du_iq2_xxs_grid */
typedef struct DU_PACKED {
    uint16_t d;
    uint8_t qs[64];
} du_block_iq2_xxs;

/* qs per 8 weights: nine index bits, seven of sign code; scales: a nibble per 16, as IQ2_XXS */
typedef struct DU_PACKED {
    uint16_t d;
    uint16_t qs[32];
    uint8_t scales[8];
} du_block_iq2_xs;

/* Index of the g-th 8: qs[g] + 256 * (two bits of qh[g/4] at 2*(g%4)); signs one bit each */
typedef struct DU_PACKED {
    uint16_t d;
    uint8_t qs[32];
    uint8_t signs[32];
    uint8_t qh[8];
    uint8_t scales[8];
} du_block_iq2_s;

/* qs: grid index per 4 weights; signs_scales: eight u32 as in IQ2_XXS;
 * y = d * (0.5 + scale) / 2 * sign * du_iq3_xxs_grid */
typedef struct DU_PACKED {
    uint16_t d;
    uint8_t qs[64];
    uint8_t signs_scales[32];
} du_block_iq3_xxs;

/* Index of the g-th 4: qs[g] + 256 * (bit g%8 of qh[g/8]); signs one bit each; scales: a nibble per
 * 32; y = d * (1 + 2*scale) * sign * du_iq3_s_grid */
typedef struct DU_PACKED {
    uint16_t d;
    uint8_t qs[64];
    uint8_t qh[8];
    uint8_t signs[32];
    uint8_t scales[4];
} du_block_iq3_s;

/* y = 2^(e - 127) * (E2M1 value of N32) = 2^(e - 128) * du_mxfp4_values[N32]; e = 255 is NaN
 * (OCP Microscaling Formats 1.0) */
typedef struct DU_PACKED {
    uint8_t e;
    uint8_t qs[16];
} du_block_mxfp4;

/* Scales of the eight groups of 32 of Q4_K and Q5_K, 6 bits each: the first four of sc and m lie in
 * the low bits of b[0..3] and b[4..7], the other four are split into nibbles (b[8..11]) and the two
 * top bits of b[0..7]. */
static inline void du_k4_scales(uint8_t sc[8], uint8_t m[8], const uint8_t b[12]) {
    for (int s = 0; s < 4; s++) {
        sc[s] = b[s] & 63;
        m[s] = b[s + 4] & 63;
        sc[s + 4] = (uint8_t)((b[s + 8] & 15) | b[s] >> 6 << 4);
        m[s + 4] = (uint8_t)(b[s + 8] >> 4 | b[s + 4] >> 6 << 4);
    }
}

/* The inverse of du_k4_scales. */
static inline void du_k4_scales_store(uint8_t b[12], const uint8_t sc[8], const uint8_t m[8]) {
    for (int s = 0; s < 4; s++) {
        b[s] = (uint8_t)(sc[s] | sc[s + 4] >> 4 << 6);
        b[s + 4] = (uint8_t)(m[s] | m[s + 4] >> 4 << 6);
        b[s + 8] = (uint8_t)((sc[s + 4] & 15) | (m[s + 4] & 15) << 4);
    }
}

/* Scales of the sixteen groups of 16 of Q3_K, -32 .. 31: low nibbles in b[k % 8], two high bits in
 * b[8 + k % 4]. */
static inline void du_q3_k_scales(int8_t scale[16], const uint8_t b[12]) {
    for (int k = 0; k < 16; k++) {
        int low = b[k % 8] >> 4 * (k / 8) & 15;
        int high = b[8 + k % 4] >> 2 * (k / 4) & 3;
        scale[k] = (int8_t)((low | high << 4) - 32);
    }
}

/* IQ4_XS's scale of group s of 32, -32 .. 31. */
static inline int du_iq4_xs_scale(const du_block_iq4_xs *b, int s) {
    return (b->scales_l[s / 2] >> 4 * (s % 2) & 15) + 16 * (b->scales_h >> 2 * s & 3) - 32;
}

/* IQ1_M's scale d. */
static inline float du_iq1_m_d(const du_block_iq1_m *b) {
    uint16_t h = 0;
    for (int k = 0; k < 4; k++) {
        h |= (uint16_t)(b->scales[k] >> 12 << 4 * k);
    }
    return du_f32_of_f16(h);
}

/* A 7-bit sign code stands for eight signs (bit j set: weight j is negative): the eighth makes the
 * count of minus signs even. */
static inline uint8_t du_iq_signs(uint32_t code) {
    code &= 127;
    return (uint8_t)(code | (uint32_t)__builtin_parity(code) << 7);
}

extern const int8_t du_iq4_values[16];
extern const int8_t du_mxfp4_values[16]; /* twice the E2M1 values */

/* Lattice points of the IQ types (quant_iq_tables.c), weight j of a group in byte j. */
#define DU_IQ1_DELTA 0.125f
extern const uint64_t du_iq1_grid[2048]; /* int8: -1, 0, 1 */
extern const uint64_t du_iq2_xxs_grid[256];
extern const uint64_t du_iq2_xs_grid[512];
extern const uint64_t du_iq2_s_grid[1024];
extern const uint32_t du_iq3_xxs_grid[256];
extern const uint32_t du_iq3_s_grid[512];

#endif
