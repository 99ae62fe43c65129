/* Q4_0: 32 weights with one scale, 4 bits each, symmetric about 8. */
#include "tensor/dtype.h"
#include "tensor/quant.h"

void du_unpack_q4_0(float *y, const void *x, int64_t n) {
    const du_block_q4_0 *b = x;
    for (int64_t i = 0; i < n; i += 32, b++) {
        float d = du_f32_of_f16(b->d);
        for (int j = 0; j < 16; j++) {
            y[i + j] = d * (float)((b->qs[j] & 15) - 8);
            y[i + j + 16] = d * (float)((b->qs[j] >> 4) - 8);
        }
    }
}
