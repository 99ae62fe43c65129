/* e^x as every level computes it: x = n ln2 + r with |r| <= ln2 / 2, e^x = 2^n (1 + r + r^2 p(r)),
 * p of degree 4 with a relative error of at most 0.06 * 2^-24 (weighted least squares, iterated to
 * equal ripple). With roundings at most 2 ulp from the exact value; 0 below the smallest subnormal
 * number, infinity above the largest, NaN for NaN. */
#ifndef DU_KERN_CPU_EXP_H
#define DU_KERN_CPU_EXP_H

#include "tensor/half.h"

#define DU_EXP_LOG2E  0x1.715476p+0f /* 1 / ln 2 */
#define DU_EXP_LN2_HI 0x1.62e4p-1f   /* ln 2 to 14 bits: n * hi is exact for |n| < 2^10 */
#define DU_EXP_LN2_LO 0x1.7f7d1cp-20f
#define DU_EXP_MIN    -104.0f /* below: 0 */
#define DU_EXP_MAX    89.0f   /* above: infinity */
#define DU_EXP_C0     0x1.fffffcp-2f
#define DU_EXP_C1     0x1.55548ep-3f
#define DU_EXP_C2     0x1.555904p-5f
#define DU_EXP_C3     0x1.123cccp-7f
#define DU_EXP_C4     0x1.6a1f62p-10f
#define DU_EXP_ROUND  0x1.8p23f /* adding it rounds to an integer, which lies in the low bits */

static inline float du_exp(float x) {
    x = x < DU_EXP_MIN ? DU_EXP_MIN : x;
    x = x > DU_EXP_MAX ? DU_EXP_MAX : x;
    float t = x * DU_EXP_LOG2E + DU_EXP_ROUND;
    int32_t n = (int32_t)(du_bits_of_f32(t) - du_bits_of_f32(DU_EXP_ROUND));
    t -= DU_EXP_ROUND;
    float r = (x - t * DU_EXP_LN2_HI) - t * DU_EXP_LN2_LO;
    float p = DU_EXP_C4;
    p = p * r + DU_EXP_C3;
    p = p * r + DU_EXP_C2;
    p = p * r + DU_EXP_C1;
    p = p * r + DU_EXP_C0;
    float y = 1 + (r + r * r * p);
    /* 2^n in two factors, since n alone may be outside the exponents of normal numbers. */
    int32_t half = n >> 1;
    return y * du_f32_of_bits((uint32_t)(half + 127) << 23) *
           du_f32_of_bits((uint32_t)(n - half + 127) << 23);
}

#endif
