/* Q6_K: 256 weights in sixteen groups with an 8-bit signed scale each; 6 bits each, -32 .. 31. */
#include "tensor/dtype.h"
#include "tensor/quant.h"

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
