/* Q4_1: 32 weights with a scale and a minimum, 4 bits each. */
#include "tensor/dtype.h"
#include "tensor/quant.h"
#include "tensor/quant_fit_int.h"

void du_unpack_q4_1(float *y, const void *x, int64_t n) {
    const du_block_q4_1 *b = x;
    for (int64_t i = 0; i < n; i += 32, b++) {
        float d = du_f32_of_f16(b->d);
        float m = du_f32_of_f16(b->m);
        for (int j = 0; j < 16; j++) {
            y[i + j] = d * (float)(b->qs[j] & 15) + m;
            y[i + j + 16] = d * (float)(b->qs[j] >> 4) + m;
        }
    }
}

void du_pack_q4_1(void *x, const float *y, int64_t n, const float *importance) {
    du_block_q4_1 *b = x;
    for (int64_t i = 0; i < n; i += 32, b++) {
        du_fit_block block;
        du_fit_load(&block, y + i, importance ? importance + i : NULL, 32, DU_FIT_EQUAL);
        du_fit_affine fit;
        du_fit_affines(&fit, &block, 32, 15, 1);
        b->d = fit.d;
        b->m = fit.dmin ^ 0x8000; /* the format adds m */
        for (int j = 0; j < 16; j++) {
            b->qs[j] = (uint8_t)(fit.level[j] | fit.level[j + 16] << 4);
        }
    }
}
