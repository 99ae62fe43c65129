/* Q3_K: 256 weights in sixteen groups with a 6-bit signed scale each; 3 bits each, -4 .. 3. */
#include "tensor/dtype.h"
#include "tensor/quant.h"

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
