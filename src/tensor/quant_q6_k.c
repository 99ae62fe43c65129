/* Q6_K: 256 weights in sixteen groups with an 8-bit signed scale each; 6 bits each, -32 .. 31. */
#include <string.h>

#include "tensor/dtype.h"
#include "tensor/quant.h"
#include "tensor/quant_fit_int.h"

void du_unpack_q6_k(float *y, const void *x, int64_t n) {
    const du_block_q6_k *b = x;
    for (int64_t i0 = 0; i0 < n; i0 += 256, b++) {
        float d = du_f32_of_f16(b->d);
        for (int i = 0; i < 256; i++) {
            int half = i / 128, r = i % 128;
            int low = b->ql[64 * half + r % 64] >> 4 * (r / 64) & 15;
            int high = b->qh[32 * half + r % 32] >> 2 * (r / 32) & 3;
            y[i0 + i] = d * (float)b->scales[i / 16] * (float)(low + 16 * high - 32);
        }
    }
}

void du_pack_q6_k(void *x, const float *y, int64_t n, const float *importance) {
    static const du_fit_levels levels = {-32, 31, NULL, 0.7f, 0.05f};
    du_block_q6_k *b = x;
    for (int64_t i0 = 0; i0 < n; i0 += 256, b++) {
        du_fit_block block;
        du_fit_load(&block, y + i0, importance ? importance + i0 : NULL, 256, DU_FIT_EQUAL);
        du_fit_scaled fit;
        du_fit_scales(&fit, &block, 16, &levels, -128, 127);
        memset(b, 0, sizeof *b);
        b->d = fit.d;
        memcpy(b->scales, fit.scale, sizeof b->scales);
        for (int i = 0; i < 256; i++) {
            int half = i / 128, r = i % 128, q = fit.level[i] + 32;
            b->ql[64 * half + r % 64] |= (uint8_t)((q & 15) << 4 * (r / 64));
            b->qh[32 * half + r % 32] |= (uint8_t)(q >> 4 << 2 * (r / 32));
        }
    }
}
