/* Q5_1: 32 weights with a scale and a minimum, 5 bits each. */
#include "tensor/dtype.h"
#include "tensor/quant.h"

void du_unpack_q5_1(float *y, const void *x, int64_t n) {
    const du_block_q5_1 *b = x;
    for (int64_t i = 0; i < n; i += 32, b++) {
        float d = du_f32_of_f16(b->d);
        float m = du_f32_of_f16(b->m);
        uint32_t qh = du_load_u32(b->qh);
        for (int j = 0; j < 16; j++) {
            int low = (b->qs[j] & 15) | (int)(qh >> j & 1) << 4;
            int high = b->qs[j] >> 4 | (int)(qh >> (j + 16) & 1) << 4;
            y[i + j] = d * (float)low + m;
            y[i + j + 16] = d * (float)high + m;
        }
    }
}
