/* MXFP4: 32 weights, 4-bit floats (E2M1) with one power-of-two scale. Read only. */
#include "tensor/dtype.h"
#include "tensor/quant.h"

const int8_t du_mxfp4_values[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

void du_unpack_mxfp4(float *y, const void *x, int64_t n) {
    const du_block_mxfp4 *b = x;
    for (int64_t i = 0; i < n; i += 32, b++) {
        float d = 0.5f * du_f32_of_e8m0(b->e);
        for (int j = 0; j < 16; j++) {
            y[i + j] = d * (float)du_mxfp4_values[b->qs[j] & 15];
            y[i + j + 16] = d * (float)du_mxfp4_values[b->qs[j] >> 4];
        }
    }
}
