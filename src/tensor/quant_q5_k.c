/* Q5_K: Q4_K with a fifth bit per weight. */
#include "tensor/dtype.h"
#include "tensor/quant.h"

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
