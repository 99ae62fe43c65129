/* Q4_K: 256 weights in eight groups, each with a 6-bit scale and a 6-bit minimum; 4 bits each. */
#include "tensor/dtype.h"
#include "tensor/quant.h"
#include "tensor/quant_fit_int.h"

void du_unpack_q4_k(float *y, const void *x, int64_t n) {
    const du_block_q4_k *b = x;
    for (int64_t i0 = 0; i0 < n; i0 += 256, b++) {
        float d = du_f32_of_f16(b->d);
        float dmin = du_f32_of_f16(b->dmin);
        uint8_t sc[8], m[8];
        du_k4_scales(sc, m, b->scales);
        for (int i = 0; i < 256; i++) {
            int s = i / 32;
            int q = b->qs[32 * (i / 64) + i % 32] >> 4 * (s % 2) & 15;
            y[i0 + i] = d * (float)sc[s] * (float)q - dmin * (float)m[s];
        }
    }
}

void du_pack_q4_k(void *x, const float *y, int64_t n, const float *importance) {
    du_block_q4_k *b = x;
    for (int64_t i0 = 0; i0 < n; i0 += 256, b++) {
        du_fit_block block;
        du_fit_load(&block, y + i0, importance ? importance + i0 : NULL, 256, DU_FIT_EQUAL);
        du_fit_affine fit;
        du_fit_affines(&fit, &block, 32, 15, 63);
        b->d = fit.d;
        b->dmin = fit.dmin;
        du_k4_scales_store(b->scales, fit.scale, fit.min);
        for (int i = 0; i < 128; i++) {
            const uint8_t *level = fit.level + 64 * (i / 32) + i % 32;
            b->qs[i] = (uint8_t)(level[0] | level[32] << 4);
        }
    }
}
