/* F32, F16, BF16 and F8_E4M3: one weight per element, at any address. */
#include <string.h>

#include "tensor/dtype.h"
#include "tensor/half.h"

void du_unpack_f32(float *y, const void *x, int64_t n) {
    memcpy(y, x, (size_t)n * sizeof *y);
}

void du_unpack_f16(float *y, const void *x, int64_t n) {
    const char *h = x;
    for (int64_t i = 0; i < n; i++) {
        y[i] = du_f32_of_f16(du_load_u16(h + 2 * i));
    }
}

void du_unpack_bf16(float *y, const void *x, int64_t n) {
    const char *h = x;
    for (int64_t i = 0; i < n; i++) {
        y[i] = du_f32_of_bf16(du_load_u16(h + 2 * i));
    }
}

void du_unpack_f8_e4m3(float *y, const void *x, int64_t n) {
    const uint8_t *h = x;
    for (int64_t i = 0; i < n; i++) {
        y[i] = du_f32_of_f8_e4m3(h[i]);
    }
}
