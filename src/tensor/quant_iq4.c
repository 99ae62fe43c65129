/* IQ4_NL: 32 weights with one scale, 4 bits each that choose from a fixed table of levels, denser
 * near zero. IQ4_XS: 256 weights in eight such groups with a 6-bit signed scale each. */
#include <string.h>

#include "tensor/dtype.h"
#include "tensor/quant.h"
#include "tensor/quant_fit_int.h"

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

/* The table's levels as the search wants them: nearest[2 v + 256] for v in half steps; the middle
 * of two levels is a multiple of a half, so that no half step has two nearest levels inside. */
static du_fit_levels fit_levels(float nearest[DU_FIT_NEAREST], float scan_step) {
    int index = 0;
    for (int k = 0; k < DU_FIT_NEAREST; k++) {
        float v = 0.5f * (float)(k - 256) + 0.25f;
        while (index < 15 && 2 * v > (float)(du_iq4_values[index] + du_iq4_values[index + 1])) {
            index++;
        }
        nearest[k] = (float)du_iq4_values[index];
    }
    return (du_fit_levels){du_iq4_values[0], du_iq4_values[15], nearest, 0.7f, scan_step};
}

/* The inverse of unpack_32: indices of 32 levels. */
static void pack_32(uint8_t *qs, const int8_t *level) {
    memset(qs, 0, 16);
    for (int j = 0; j < 32; j++) {
        int index = 0;
        while (du_iq4_values[index] < level[j]) {
            index++;
        }
        qs[j % 16] |= (uint8_t)(index << 4 * (j / 16));
    }
}

void du_pack_iq4_nl(void *x, const float *y, int64_t n, const float *importance) {
    float nearest[DU_FIT_NEAREST];
    du_fit_levels levels = fit_levels(nearest, 0.025f);
    du_block_iq4_nl *b = x;
    for (int64_t i = 0; i < n; i += 32, b++) {
        du_fit_block block;
        du_fit_load(&block, y + i, importance ? importance + i : NULL, 32, DU_FIT_LARGER);
        du_fit_scaled fit;
        du_fit_scales(&fit, &block, 32, &levels, 1, 1);
        b->d = fit.d;
        pack_32(b->qs, fit.level);
    }
}

void du_pack_iq4_xs(void *x, const float *y, int64_t n, const float *importance) {
    float nearest[DU_FIT_NEAREST];
    du_fit_levels levels = fit_levels(nearest, 0.05f);
    du_block_iq4_xs *b = x;
    for (int64_t i = 0; i < n; i += 256, b++) {
        du_fit_block block;
        du_fit_load(&block, y + i, importance ? importance + i : NULL, 256, DU_FIT_LARGER);
        du_fit_scaled fit;
        du_fit_scales(&fit, &block, 32, &levels, -32, 31);
        memset(b, 0, sizeof *b);
        b->d = fit.d;
        for (int s = 0; s < 8; s++) {
            int v = fit.scale[s] + 32;
            b->scales_l[s / 2] |= (uint8_t)((v & 15) << 4 * (s % 2));
            b->scales_h |= (uint16_t)(v >> 4 << 2 * s);
            pack_32(b->qs + 16 * s, fit.level + 32 * s);
        }
    }
}
