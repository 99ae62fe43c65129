/* IQ4_NL: 32 weights with one scale, 4 bits each that choose from a fixed table of levels, denser
 * near zero. IQ4_XS: 256 weights in eight such groups with a 6-bit signed scale each. */
#include "tensor/dtype.h"
#include "tensor/quant.h"

const int8_t du_iq4_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                  1,    13,   25,  38,  53,  69,  89,  113};

/* 32 weights y = d * level of their nibble, low nibbles first. */
static void unpack_32(float *y, float d, const uint8_t *qs) {
    for (int j = 0; j < 16; j++) {
        y[j] = d * (float)du_iq4_values[qs[j] & 15];
        y[j + 16] = d * (float)du_iq4_values[qs[j] >> 4];
    }
}

void du_unpack_iq4_nl(float *y, const void *x, int64_t n) {
    const du_block_iq4_nl *b = x;
    for (int64_t i = 0; i < n; i += 32, b++) {
        unpack_32(y + i, du_f32_of_f16(b->d), b->qs);
    }
}

void du_unpack_iq4_xs(float *y, const void *x, int64_t n) {
    const du_block_iq4_xs *b = x;
    for (int64_t i = 0; i < n; i += 256, b++) {
        float d = du_f32_of_f16(b->d);
        for (int s = 0; s < 8; s++) {
            unpack_32(y + i + 32 * s, d * (float)du_iq4_xs_scale(b, s), b->qs + 16 * s);
        }
    }
}
