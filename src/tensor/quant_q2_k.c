/* Q2_K: 256 weights in sixteen groups, each with a 4-bit scale and a 4-bit minimum; 2 bits each. */
#include <string.h>

#include "tensor/dtype.h"
#include "tensor/quant.h"
#include "tensor/quant_fit_int.h"

void du_unpack_q2_k(float *y, const void *x, int64_t n) {
    const du_block_q2_k *b = x;
    for (int64_t i0 = 0; i0 < n; i0 += 256, b++) {
        float d = du_f32_of_f16(b->d);
        float dmin = du_f32_of_f16(b->dmin);
        for (int i = 0; i < 256; i++) {
            int sc = b->scales[i / 16];
            int q = b->qs[32 * (i / 128) + i % 32] >> 2 * (i % 128 / 32) & 3;
            y[i0 + i] = d * (float)(sc & 15) * (float)q - dmin * (float)(sc >> 4);
        }
    }
}

void du_pack_q2_k(void *x, const float *y, int64_t n, const float *importance) {
    du_block_q2_k *b = x;
    for (int64_t i0 = 0; i0 < n; i0 += 256, b++) {
        du_fit_block block;
        du_fit_load(&block, y + i0, importance ? importance + i0 : NULL, 256, DU_FIT_LARGER);
        du_fit_affine fit;
        du_fit_affines(&fit, &block, 16, 3, 15);
        memset(b, 0, sizeof *b);
        b->d = fit.d;
        b->dmin = fit.dmin;
        for (int s = 0; s < 16; s++) {
            b->scales[s] = (uint8_t)(fit.scale[s] | fit.min[s] << 4);
        }
        for (int i = 0; i < 256; i++) {
            b->qs[32 * (i / 128) + i % 32] |= (uint8_t)(fit.level[i] << 2 * (i % 128 / 32));
        }
    }
}
