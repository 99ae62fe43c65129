/* Q4_0: 32 weights with one scale, 4 bits each, symmetric about 8. */
#include "tensor/dtype.h"
#include "tensor/quant.h"
#include "tensor/quant_fit_int.h"

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

void du_pack_q4_0(void *x, const float *y, int64_t n, const float *importance) {
    static const du_fit_levels levels = {-8, 7, NULL, 0.7f, 0.025f};
    du_block_q4_0 *b = x;
    for (int64_t i = 0; i < n; i += 32, b++) {
        du_fit_block block;
        du_fit_load(&block, y + i, importance ? importance + i : NULL, 32, DU_FIT_LARGER);
        du_fit_scaled fit;
        du_fit_scales(&fit, &block, 32, &levels, 1, 1);
        b->d = fit.d;
        for (int j = 0; j < 16; j++) {
            b->qs[j] = (uint8_t)((fit.level[j] + 8) | (fit.level[j + 16] + 8) << 4);
        }
    }
}
