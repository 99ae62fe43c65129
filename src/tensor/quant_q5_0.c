/* Q5_0: 32 weights with one scale, 5 bits each, symmetric about 16. */
#include <string.h>

#include "tensor/dtype.h"
#include "tensor/quant.h"
#include "tensor/quant_fit_int.h"

void du_unpack_q5_0(float *y, const void *x, int64_t n) {
    const du_block_q5_0 *b = x;
    for (int64_t i = 0; i < n; i += 32, b++) {
        float d = du_f32_of_f16(b->d);
        uint32_t qh = du_load_u32(b->qh);
        for (int j = 0; j < 16; j++) {
            int low = (b->qs[j] & 15) | (int)(qh >> j & 1) << 4;
            int high = b->qs[j] >> 4 | (int)(qh >> (j + 16) & 1) << 4;
            y[i + j] = d * (float)(low - 16);
            y[i + j + 16] = d * (float)(high - 16);
        }
    }
}

void du_pack_q5_0(void *x, const float *y, int64_t n, const float *importance) {
    static const du_fit_levels levels = {-16, 15, NULL, 0.8f, 0.025f};
    du_block_q5_0 *b = x;
    for (int64_t i = 0; i < n; i += 32, b++) {
        du_fit_block block;
        du_fit_load(&block, y + i, importance ? importance + i : NULL, 32, DU_FIT_LARGER);
        du_fit_scaled fit;
        du_fit_scales(&fit, &block, 32, &levels, 1, 1);
        b->d = fit.d;
        uint32_t qh = 0;
        for (int j = 0; j < 16; j++) {
            unsigned low = (unsigned)(fit.level[j] + 16);
            unsigned high = (unsigned)(fit.level[j + 16] + 16);
            b->qs[j] = (uint8_t)((low & 15) | (high & 15) << 4);
            qh |= low >> 4 << j | high >> 4 << (j + 16);
        }
        memcpy(b->qh, &qh, sizeof qh);
    }
}
