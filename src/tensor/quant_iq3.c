/* IQ3_XXS and IQ3_S: groups of four magnitudes from 256 points of {4, 12, ..., 62}^4 or 512 of
 * {1, 3, ..., 15}^4, signs apart, 4-bit scales. Read only. */
#include "tensor/dtype.h"
#include "tensor/quant.h"

static void unpack_4(float *y, float d, uint32_t point, uint32_t signs) {
    for (int j = 0; j < 4; j++) {
        float v = d * (float)(point >> 8 * j & 255);
        y[j] = signs >> j & 1 ? -v : v;
    }
}

void du_unpack_iq3_xxs(float *y, const void *x, int64_t n) {
    const du_block_iq3_xxs *b = x;
    for (int64_t i = 0; i < n; i += 256, b++) {
        for (int g = 0; g < 64; g++) {
            uint32_t w = du_load_u32(b->signs_scales + 4 * (g / 8));
            float d = du_f32_of_f16(b->d) * (0.5f + (float)(w >> 28)) * 0.5f;
            uint32_t signs = du_iq_signs(w >> 7 * (g / 2 % 4));
            unpack_4(y + i + 4 * g, d, du_iq3_xxs_grid[b->qs[g]], signs >> 4 * (g % 2));
        }
    }
}

void du_unpack_iq3_s(float *y, const void *x, int64_t n) {
    const du_block_iq3_s *b = x;
    for (int64_t i = 0; i < n; i += 256, b++) {
        for (int g = 0; g < 64; g++) {
            uint32_t scale = b->scales[g / 16] >> 4 * (g / 8 % 2) & 15;
            float d = du_f32_of_f16(b->d) * (float)(1 + 2 * scale);
            uint32_t index = b->qs[g] | (b->qh[g / 8] >> g % 8 & 1u) << 8;
            uint32_t signs = b->signs[g / 2];
            unpack_4(y + i + 4 * g, d, du_iq3_s_grid[index], signs >> 4 * (g % 2));
        }
    }
}
