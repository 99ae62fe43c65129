/* Q5_1: 32 weights with a scale and a minimum, 5 bits each. */
#include <string.h>

#include "tensor/dtype.h"
#include "tensor/quant.h"
#include "tensor/quant_fit_int.h"

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

void du_pack_q5_1(void *x, const float *y, int64_t n, const float *importance) {
    du_block_q5_1 *b = x;
    for (int64_t i = 0; i < n; i += 32, b++) {
        du_fit_block block;
        du_fit_load(&block, y + i, importance ? importance + i : NULL, 32, DU_FIT_EQUAL);
        du_fit_affine fit;
        du_fit_affines(&fit, &block, 32, 31, 1);
        b->d = fit.d;
        b->m = fit.dmin ^ 0x8000; /* the format adds m */
        uint32_t qh = 0;
        for (int j = 0; j < 16; j++) {
            unsigned low = (unsigned)fit.level[j];
            unsigned high = (unsigned)fit.level[j + 16];
            b->qs[j] = (uint8_t)((low & 15) | (high & 15) << 4);
            qh |= low >> 4 << j | high >> 4 << (j + 16);
        }
        memcpy(b->qh, &qh, sizeof qh);
    }
}
