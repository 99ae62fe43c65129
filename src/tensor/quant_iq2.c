/* IQ2_XXS, IQ2_XS and IQ2_S: groups of eight magnitudes from 256, 512 or 1024 points of
 * {8, 25, 43}^8, signs apart, 4-bit scales. Read only. */
#include "tensor/dtype.h"
#include "tensor/quant.h"

static void unpack_8(float *y, float d, uint64_t point, uint32_t signs) {
    for (int j = 0; j < 8; j++) {
        float v = d * (float)(point >> 8 * j & 255);
        y[j] = signs >> j & 1 ? -v : v;
    }
}

static float scaled(float d, uint32_t scale) {
    return d * (0.5f + (float)(scale & 15)) * 0.25f;
}

void du_unpack_iq2_xxs(float *y, const void *x, int64_t n) {
    const du_block_iq2_xxs *b = x;
    for (int64_t i = 0; i < n; i += 256, b++) {
        for (int g = 0; g < 32; g++) {
            const uint8_t *group = b->qs + 8 * (g / 4);
            uint32_t w = du_load_u32(group + 4);
            unpack_8(y + i + 8 * g, scaled(du_f32_of_f16(b->d), w >> 28),
                     du_iq2_xxs_grid[group[g % 4]], du_iq_signs(w >> 7 * (g % 4)));
        }
    }
}

void du_unpack_iq2_xs(float *y, const void *x, int64_t n) {
    const du_block_iq2_xs *b = x;
    for (int64_t i = 0; i < n; i += 256, b++) {
        for (int g = 0; g < 32; g++) {
            uint32_t scale = b->scales[g / 4] >> 4 * (g / 2 % 2);
            unpack_8(y + i + 8 * g, scaled(du_f32_of_f16(b->d), scale),
                     du_iq2_xs_grid[b->qs[g] & 511], du_iq_signs(b->qs[g] >> 9));
        }
    }
}

void du_unpack_iq2_s(float *y, const void *x, int64_t n) {
    const du_block_iq2_s *b = x;
    for (int64_t i = 0; i < n; i += 256, b++) {
        for (int g = 0; g < 32; g++) {
            uint32_t scale = b->scales[g / 4] >> 4 * (g / 2 % 2);
            uint32_t index = b->qs[g] | (b->qh[g / 4] >> 2 * (g % 4) & 3) << 8;
            unpack_8(y + i + 8 * g, scaled(du_f32_of_f16(b->d), scale), du_iq2_s_grid[index],
                     b->signs[g]);
        }
    }
}
