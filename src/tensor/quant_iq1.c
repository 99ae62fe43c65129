/* IQ1_S and IQ1_M: groups of eight weights from 2048 points of {-1, 0, 1}^8, shifted by an eighth
 * up or down; one scale per 32 (S) or 16 (M). Read only. */
#include "tensor/dtype.h"
#include "tensor/quant.h"

static void unpack_8(float *y, float d, uint32_t index, float delta) {
    for (int j = 0; j < 8; j++) {
        y[j] = d * ((float)(int8_t)(du_iq1_grid[index] >> 8 * j) + delta);
    }
}

void du_unpack_iq1_s(float *y, const void *x, int64_t n) {
    const du_block_iq1_s *b = x;
    for (int64_t i = 0; i < n; i += 256, b++) {
        for (int g = 0; g < 32; g++) {
            uint32_t h = b->qh[g / 4];
            float d = du_f32_of_f16(b->d) * (float)(2 * (h >> 12 & 7) + 1);
            uint32_t index = b->qs[g] | (h >> 3 * (g % 4) & 7) << 8;
            unpack_8(y + i + 8 * g, d, index, h >> 15 ? -DU_IQ1_DELTA : DU_IQ1_DELTA);
        }
    }
}

void du_unpack_iq1_m(float *y, const void *x, int64_t n) {
    const du_block_iq1_m *b = x;
    for (int64_t i = 0; i < n; i += 256, b++) {
        for (int g = 0; g < 32; g++) {
            uint32_t h = b->qh[g / 2] >> 4 * (g % 2);
            uint32_t scale = b->scales[g / 8] >> 3 * (g / 2 % 4) & 7;
            uint32_t index = b->qs[g] | (h & 7) << 8;
            unpack_8(y + i + 8 * g, du_iq1_m_d(b) * (float)(2 * scale + 1), index,
                     h & 8 ? -DU_IQ1_DELTA : DU_IQ1_DELTA);
        }
    }
}
