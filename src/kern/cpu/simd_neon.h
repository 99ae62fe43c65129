/* Vectors of 4 floats on AArch64; the names are explained in simd_avx512.h. Loads go by bytes,
 * since rows may lie at any address. */
#ifndef DU_KERN_CPU_SIMD_NEON_H
#define DU_KERN_CPU_SIMD_NEON_H

#include <arm_neon.h>
#include <stdint.h>
#include <string.h>

#include "kern/cpu/inline.h"

typedef float32x4_t vf;
enum { VF = 4, TILE_R = 4, TILE_N = 4, TILE_N_SCALED = 2 };
enum { QK_Q = 4, QK_J = 4, PV_Q = 4, PV_V = 4, PROBE_N = 16, GEMM_M = 12 };

INLINE vf vf_set1(float a) {
    return vdupq_n_f32(a);
}
INLINE vf vf_load(const void *p) {
    return vreinterpretq_f32_u8(vld1q_u8(p));
}
INLINE void vf_store(float *p, vf a) {
    vst1q_f32(p, a);
}
INLINE vf vf_add(vf a, vf b) {
    return vaddq_f32(a, b);
}
INLINE vf vf_sub(vf a, vf b) {
    return vsubq_f32(a, b);
}
INLINE vf vf_mul(vf a, vf b) {
    return vmulq_f32(a, b);
}
INLINE vf vf_sqrt(vf a) {
    return vsqrtq_f32(a);
}
INLINE vf vf_div(vf a, vf b) {
    return vdivq_f32(a, b);
}
INLINE vf vf_add_u64(vf a, vf b) {
    uint64x2_t sum = vaddq_u64(vreinterpretq_u64_f32(a), vreinterpretq_u64_f32(b));
    return vreinterpretq_f32_u64(sum);
}
INLINE vf vf_fma(vf a, vf b, vf c) {
    return vfmaq_f32(c, a, b);
}
INLINE vf vf_fnma(vf a, vf b, vf c) {
    return vfmsq_f32(c, a, b);
}
INLINE vf vf_max(vf a, vf b) {
    return vbslq_f32(vcgtq_f32(a, b), a, b);
}
INLINE vf vf_min(vf a, vf b) {
    return vbslq_f32(vcltq_f32(a, b), a, b);
}

INLINE float vf_sum(vf a) {
    return vaddvq_f32(a);
}
INLINE float vf_max_lane(vf a) {
    return vmaxvq_f32(a);
}

INLINE vf vf_round(vf a) {
    return vrndnq_f32(a);
}
INLINE vf vf_scale2(vf a, vf n) {
    int32x4_t i = vcvtq_s32_f32(n), half = vshrq_n_s32(i, 1), bias = vdupq_n_s32(127);
    int32x4_t e0 = vshlq_n_s32(vaddq_s32(half, bias), 23);
    int32x4_t e1 = vshlq_n_s32(vaddq_s32(vsubq_s32(i, half), bias), 23);
    return vf_mul(vf_mul(a, vreinterpretq_f32_s32(e0)), vreinterpretq_f32_s32(e1));
}

/* Four bytes, each as an i16. */
INLINE int16x4_t neon_load_4(const void *p) {
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return vget_low_s16(vmovl_s8(vreinterpret_s8_u32(vdup_n_u32(v))));
}

INLINE vf vf_load_f16(const void *p) {
    return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p)));
}
INLINE vf vf_load_bf16(const void *p) {
    return vreinterpretq_f32_u32(vshll_n_u16(vreinterpret_u16_u8(vld1_u8(p)), 16));
}
INLINE vf vf_load_i8(const void *p) {
    return vcvtq_f32_s32(vmovl_s16(neon_load_4(p)));
}
INLINE vf vf_load_f8_e4m3(const void *p) {
    uint16x4_t v = vreinterpret_u16_s16(neon_load_4(p)), top = vdup_n_u16(0x3f80);
    uint16x4_t h = vand_u16(vshl_n_u16(v, 7), top), nan = vceq_u16(h, top);
    h = vorr_u16(h, vand_u16(v, vdup_n_u16(0x8000)));
    h = vorr_u16(h, vand_u16(nan, vdup_n_u16(0x7e00)));
    return vcvt_f32_f16(vreinterpret_f16_u16(h));
}
INLINE float simd_f16(uint16_t h) {
    return vgetq_lane_f32(vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(h))), 0);
}
INLINE void vf_store_f16(void *p, vf a) {
    vst1_u8(p, vreinterpret_u8_f16(vcvt_f16_f32(a)));
}

INLINE vf vf_swap_pairs(vf a) {
    return vrev64q_f32(a);
}
INLINE vf vf_load_twice(const float *p) {
    float32x2_t v = vld1_f32(p);
    return vzip1q_f32(vcombine_f32(v, v), vcombine_f32(v, v));
}
INLINE vf vf_negate_even(vf a) {
    uint32x4_t sign = vreinterpretq_u32_u64(vdupq_n_u64(0x80000000));
    return vreinterpretq_f32_u32(veorq_u32(vreinterpretq_u32_f32(a), sign));
}

INLINE uint32_t simd_max_bits_32(const float *x) {
    uint32x4_t max = vdupq_n_u32(0);
    UNROLL
    for (int k = 0; k < 8; k++) {
        max = vmaxq_u32(max, vreinterpretq_u32_f32(vabsq_f32(vld1q_f32(x + 4 * k))));
    }
    return vmaxvq_u32(max);
}

INLINE void simd_round_32(int8_t *q, int16_t *sum, const float *x, float scale) {
    UNROLL
    for (int k = 0; k < 2; k++) {
        int16x4_t v[4];
        UNROLL
        for (int i = 0; i < 4; i++) {
            v[i] = vqmovn_s32(vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + 16 * k + 4 * i), scale)));
        }
        int8x8_t lo = vqmovn_s16(vcombine_s16(v[0], v[1]));
        int8x16_t all = vcombine_s8(lo, vqmovn_s16(vcombine_s16(v[2], v[3])));
        vst1q_s8(q + 16 * k, all);
        sum[k] = vaddlvq_s8(all);
    }
}

INLINE void simd_transpose(vf x[VF]) {
    float32x4x2_t a = vtrnq_f32(x[0], x[1]), b = vtrnq_f32(x[2], x[3]);
    x[0] = vcombine_f32(vget_low_f32(a.val[0]), vget_low_f32(b.val[0]));
    x[1] = vcombine_f32(vget_low_f32(a.val[1]), vget_low_f32(b.val[1]));
    x[2] = vcombine_f32(vget_high_f32(a.val[0]), vget_high_f32(b.val[0]));
    x[3] = vcombine_f32(vget_high_f32(a.val[1]), vget_high_f32(b.val[1]));
}

#endif
