/* Q5_K: Q4_K with a fifth bit per weight. */
#include <string.h>

#include "tensor/dtype.h"
#include "tensor/quant.h"
#include "tensor/quant_fit_int.h"

void du_unpack_q5_k(float *y, const void *x, int64_t n) {
    const du_block_q5_k *b = x;
    for (int64_t i0 = 0; i0 < n; i0 += 256, b++) {
        float d = du_f32_of_f16(b->d);
        float dmin = du_f32_of_f16(b->dmin);
        uint8_t sc[8], m[8];
        du_k4_scales(sc, m, b->scales);
        for (int i = 0; i < 256; i++) {
            int s = i / 32;
            int low = b->qs[32 * (i / 64) + i % 32] >> 4 * (s % 2) & 15;
            int high = b->qh[i % 32] >> s & 1;
            y[i0 + i] = d * (float)sc[s] * (float)(low + 16 * high) - dmin * (float)m[s];
        }
    }
}

void du_pack_q5_k(void *x, const float *y, int64_t n, const float *importance) {
    du_block_q5_k *b = x;
    for (int64_t i0 = 0; i0 < n; i0 += 256, b++) {
        du_fit_block block;
        du_fit_load(&block, y + i0, importance ? importance + i0 : NULL, 256, DU_FIT_EQUAL);
        du_fit_affine fit;
        du_fit_affines(&fit, &block, 32, 31, 63);
        memset(b, 0, sizeof *b);
        b->d = fit.d;
        b->dmin = fit.dmin;
        du_k4_scales_store(b->scales, fit.scale, fit.min);
        for (int i = 0; i < 256; i++) {
            int s = i / 32, q = fit.level[i];
            b->qs[32 * (i / 64) + i % 32] |= (uint8_t)((q & 15) << 4 * (s % 2));
            b->qh[i % 32] |= (uint8_t)(q >> 4 << s);
        }
    }
}
