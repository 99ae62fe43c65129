/* Q8_0: 32 weights with one scale, 8 bits each. */
#include "tensor/dtype.h"
#include "tensor/quant.h"

void du_unpack_q8_0(float *y, const void *x, int64_t n) {
    const du_block_q8_0 *b = x;
    for (int64_t i = 0; i < n; i += 32, b++) {
        float d = du_f32_of_f16(b->d);
        for (int j = 0; j < 32; j++) {
            y[i + j] = d * (float)b->qs[j];
        }
    }
}
