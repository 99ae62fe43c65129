/* Scalar conversions of the small float types, exact or round-to-nearest-even.
 * F16: IEEE 754 binary16. BF16: the upper half of binary32. F8 E4M3FN: bias 7, largest 448, no
 * infinity, 0x7f and 0xff NaN (OCP 8-bit floating point specification 1.0). */
#ifndef DU_TENSOR_HALF_H
#define DU_TENSOR_HALF_H

#include <stdint.h>
#include <string.h>

static inline float du_f32_of_bits(uint32_t bits) {
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static inline uint32_t du_bits_of_f32(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

/* Shifts the 15 value bits to binary32's place and multiplies by 2^112, which corrects the exponent
 * bias for normal and subnormal numbers alike; infinity and NaN get their exponent set. */
static inline float du_f32_of_f16(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000) << 16;
    uint32_t value = (uint32_t)(h & 0x7fff) << 13;
    if (value >= 0x0f800000) {
        return du_f32_of_bits(sign | value | 0x7f800000);
    }
    float f = du_f32_of_bits(value) * 0x1p112f;
    return du_f32_of_bits(sign | du_bits_of_f32(f));
}

static inline uint16_t du_f16_of_f32(float f) {
    uint32_t bits = du_bits_of_f32(f);
    uint32_t sign = bits >> 16 & 0x8000;
    bits &= 0x7fffffff;
    if (bits > 0x7f800000) {
        return (uint16_t)(sign | 0x7e00); /* NaN */
    }
    if (bits >= 0x477ff000) {
        return (uint16_t)(sign | 0x7c00); /* rounds to 65536 or more */
    }
    if (bits < 0x38800000) {
        /* Subnormal: adding 0.5 leaves the value, rounded by the unit 2^-24, in the low bits. */
        float shifted = du_f32_of_bits(bits) + 0.5f;
        return (uint16_t)(sign | (du_bits_of_f32(shifted) - 0x3f000000));
    }
    bits += 0xfff + (bits >> 13 & 1);
    return (uint16_t)(sign | ((bits - 0x38000000) >> 13));
}

static inline float du_f32_of_bf16(uint16_t h) {
    return du_f32_of_bits((uint32_t)h << 16);
}

static inline uint16_t du_bf16_of_f32(float f) {
    uint32_t bits = du_bits_of_f32(f);
    if ((bits & 0x7fffffff) > 0x7f800000) {
        return (uint16_t)(bits >> 16 | 0x40);
    }
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static inline float du_f32_of_f8_e4m3(uint8_t h) {
    uint32_t sign = (uint32_t)(h & 0x80) << 24;
    if ((h & 0x7f) == 0x7f) {
        return du_f32_of_bits(sign | 0x7fc00000);
    }
    float f = du_f32_of_bits((uint32_t)(h & 0x7f) << 20) * 0x1p120f;
    return du_f32_of_bits(sign | du_bits_of_f32(f));
}

/* To nearest even; what lies beyond 448, infinity too, becomes 448. */
static inline uint8_t du_f8_e4m3_of_f32(float f) {
    uint32_t bits = du_bits_of_f32(f);
    uint32_t sign = bits >> 24 & 0x80;
    bits &= 0x7fffffff;
    if (bits > 0x7f800000) {
        return (uint8_t)(sign | 0x7f);
    }
    if (bits < 0x3c800000) {
        /* Subnormal: adding 2^14 leaves the value, rounded by the unit 2^-9, in the low bits. */
        float shifted = du_f32_of_bits(bits) + 16384.0f;
        return (uint8_t)(sign | (du_bits_of_f32(shifted) - 0x46800000));
    }
    bits += 0x7ffff + (bits >> 20 & 1);
    uint32_t code = (bits - 0x3c000000) >> 20;
    return (uint8_t)(sign | (code < 0x7e ? code : 0x7e));
}

/* E8M0 scale of MXFP4: 2^(code - 127), code 255 is NaN. */
static inline float du_f32_of_e8m0(uint8_t code) {
    if (code == 255) {
        return du_f32_of_bits(0x7fc00000);
    }
    return du_f32_of_bits(code ? (uint32_t)code << 23 : 0x00400000);
}

static inline uint16_t du_load_u16(const void *p) {
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline uint32_t du_load_u32(const void *p) {
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

#endif
