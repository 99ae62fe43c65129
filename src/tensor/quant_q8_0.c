/* Q8_0: 32 weights with one scale, 8 bits each. */
#include <string.h>

#include "tensor/dtype.h"
#include "tensor/quant.h"
#include "tensor/quant_fit_int.h"

void du_unpack_q8_0(float *y, const void *x, int64_t n) {
    const du_block_q8_0 *b = x;
    for (int64_t i = 0; i < n; i += 32, b++) {
        float d = du_f32_of_f16(b->d);
        for (int j = 0; j < 32; j++) {
            y[i + j] = d * (float)b->qs[j];
        }
    }
}

void du_pack_q8_0(void *x, const float *y, int64_t n, const float *importance) {
    static const du_fit_levels levels = {-127, 127, NULL, 0.9f, 0.0125f};
    du_block_q8_0 *b = x;
    for (int64_t i = 0; i < n; i += 32, b++) {
        du_fit_block block;
        du_fit_load(&block, y + i, importance ? importance + i : NULL, 32, DU_FIT_EQUAL);
        du_fit_scaled fit;
        du_fit_scales(&fit, &block, 32, &levels, 1, 1);
        b->d = fit.d;
        memcpy(b->qs, fit.level, sizeof b->qs);
    }
}
