/* Q3_K: 256 weights in sixteen groups with a 6-bit signed scale each; 3 bits each, -4 .. 3. */
#include <string.h>

#include "tensor/dtype.h"
#include "tensor/quant.h"
#include "tensor/quant_fit_int.h"

void du_unpack_q3_k(float *y, const void *x, int64_t n) {
    const du_block_q3_k *b = x;
    for (int64_t i0 = 0; i0 < n; i0 += 256, b++) {
        float d = du_f32_of_f16(b->d);
        int8_t scale[16];
        du_q3_k_scales(scale, b->scales);
        for (int i = 0; i < 256; i++) {
            int low = b->qs[32 * (i / 128) + i % 32] >> 2 * (i % 128 / 32) & 3;
            int high = b->hmask[i % 32] >> i / 32 & 1;
            y[i0 + i] = d * (float)scale[i / 16] * (float)(low + 4 * high - 4);
        }
    }
}

/* The inverse of du_q3_k_scales; b is zeroed. */
static void store_scales(uint8_t b[12], const int8_t scale[16]) {
    for (int k = 0; k < 16; k++) {
        int v = scale[k] + 32;
        b[k % 8] |= (uint8_t)((v & 15) << 4 * (k / 8));
        b[8 + k % 4] |= (uint8_t)(v >> 4 << 2 * (k / 4));
    }
}

void du_pack_q3_k(void *x, const float *y, int64_t n, const float *importance) {
    static const du_fit_levels levels = {-4, 3, NULL, 0.6f, 0.05f};
    du_block_q3_k *b = x;
    for (int64_t i0 = 0; i0 < n; i0 += 256, b++) {
        du_fit_block block;
        du_fit_load(&block, y + i0, importance ? importance + i0 : NULL, 256, DU_FIT_LARGER);
        du_fit_scaled fit;
        du_fit_scales(&fit, &block, 16, &levels, -32, 31);
        memset(b, 0, sizeof *b);
        b->d = fit.d;
        store_scales(b->scales, fit.scale);
        for (int i = 0; i < 256; i++) {
            int q = fit.level[i] + 4;
            b->qs[32 * (i / 128) + i % 32] |= (uint8_t)((q & 3) << 2 * (i % 128 / 32));
            b->hmask[i % 32] |= (uint8_t)(q >> 2 << i / 32);
        }
    }
}
